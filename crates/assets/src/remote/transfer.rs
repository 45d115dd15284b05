//! One file on its way from its owner into a file of ours, and those who read it meanwhile.
//!
//! A transfer that breaks off is taken up again where it was. Readers get bytes as they arrive, but the last one only
//! when all of them are here and fit the digest: what is cut short or altered never looks whole.

use std::{io, ops::Range, path::PathBuf, sync::Arc, time::Duration};

use aldis_peers::PeerErrorKind;
use aldis_proto::federation::v1::AssetAccess;
use aldis_types::{AssetKey, Remote};
use futures::{StreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::{
    fs::File,
    io::{AsyncSeekExt, AsyncWriteExt},
    sync::{Semaphore, watch},
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use super::{
    Head, Rules,
    peers::{AssetPeers, Incoming},
};
use crate::{
    blobs::{ByteStream, directory::read_some},
    error::AssetError,
};

/// Times in a row that a transfer is taken up again without a byte more.
const RETRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Default)]
struct Progress {
    head: Option<Head>,
    written: u64,
    end: Option<Result<(), AssetError>>,
}

/// A transfer as others see it.
pub(crate) struct Transfer {
    pub(crate) file: Uuid,
    pub(crate) path: PathBuf,
    progress: watch::Sender<Progress>,
}

/// Somebody who reads a transfer. It goes on for as long as there is one.
pub(crate) struct Follower(watch::Receiver<Progress>);

/// What a transfer works with.
pub(crate) struct Means {
    pub(crate) peers: AssetPeers,
    pub(crate) rules: Rules,
    /// To be had before the owner is asked.
    pub(crate) turns: Arc<Semaphore>,
    /// Longest pause between two parts.
    pub(crate) idle: Duration,
}

/// The work of a transfer.
pub(crate) struct Run {
    asset: Remote<AssetKey>,
    access: AssetAccess,
    means: Means,
    progress: watch::Sender<Progress>,
}

impl Transfer {
    pub(crate) fn new(
        asset: Remote<AssetKey>,
        access: AssetAccess,
        file: Uuid,
        path: PathBuf,
        means: Means,
    ) -> (Self, Follower, Run) {
        let (progress, follower) = watch::channel(Progress::default());
        let run = Run { asset, access, means, progress: progress.clone() };
        (Self { file, path, progress }, Follower(follower), run)
    }

    /// Joins it; `None` when nobody follows it any more, so that it is about to end, or it has failed.
    pub(crate) fn follow(&self) -> Option<Follower> {
        let is_wanted = self.progress.receiver_count() > 0;
        let follower = self.progress.subscribe();
        let failed = matches!(follower.borrow().end, Some(Err(_)));
        (is_wanted && !failed).then_some(Follower(follower))
    }
}

impl Run {
    /// Works until the file is whole, nobody follows any more, or it cannot go on. `keep` is called when the file is
    /// whole and says whether it stays; so does the answer.
    pub(crate) async fn finish(self, file: File, keep: impl AsyncFnOnce(Head) -> bool) -> bool {
        let outcome = tokio::select! {
            outcome = self.fetch(file) => outcome,
            () = self.progress.closed() => return false,
        };
        let (kept, end) = match outcome {
            Ok(head) => (keep(head).await, Ok(())),
            Err(error) => {
                tracing::debug!(peer.domain = %self.asset.domain(), %error, "a transfer failed");
                (false, Err(error))
            }
        };
        self.progress.send_modify(|progress| progress.end = Some(end));
        kept
    }

    async fn fetch(&self, file: File) -> Result<Head, AssetError> {
        let domain = self.asset.domain();
        let until = Instant::now() + self.means.idle;
        let turn = timeout_at(until, self.means.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(AssetError::Busy) };
        let (head, mut incoming) = self.begin(until).await?;
        self.means.rules.admit(&head)?;
        let mut sink = Sink { file, sha256: Sha256::new(), written: 0 };
        self.progress.send_modify(|progress| progress.head = Some(head.clone()));
        let mut retries = 0;
        loop {
            let before = sink.written;
            let error = match self.pour(&mut incoming, &mut sink).await {
                Ok(()) => break,
                Err(error) => error,
            };
            retries = if sink.written > before { 0 } else { retries + 1 };
            incoming = self.resume(&head, &sink, &mut retries, error).await?;
        }
        sink.file.sync_data().await?;
        if sink.written == head.size && <[u8; 32]>::from(sink.sha256.finalize()) == head.sha256 {
            Ok(head)
        } else {
            Err(aldis_peers::PeerError::invalid_answer(domain, "the asset does not fit its digest").into())
        }
    }

    /// Asks the owner, again and again while it is busy with others of us.
    async fn begin(&self, until: Instant) -> Result<(Head, Incoming), AssetError> {
        let Means { peers, idle, .. } = &self.means;
        loop {
            match peers.fetch(self.asset.domain(), &self.access, 0, *idle).await {
                Err(AssetError::Busy) if Instant::now() + PAUSE < until => tokio::time::sleep(PAUSE).await,
                outcome => return outcome,
            }
        }
    }

    async fn pour(&self, incoming: &mut Incoming, sink: &mut Sink) -> Result<(), AssetError> {
        while let Some(bytes) = incoming.next().await? {
            sink.file.write_all(&bytes).await?;
            sink.file.flush().await?;
            sink.sha256.update(&bytes);
            sink.written += bytes.len() as u64;
            metrics::counter!("aldis_assets_fetched_bytes_total").increment(bytes.len() as u64);
            self.progress.send_modify(|progress| progress.written = sink.written);
        }
        Ok(())
    }

    /// Begins again where the transfer broke off, if that makes sense.
    async fn resume(
        &self,
        head: &Head,
        sink: &Sink,
        retries: &mut u32,
        mut error: AssetError,
    ) -> Result<Incoming, AssetError> {
        loop {
            if *retries >= RETRIES || !is_outage(&error) || sink.written >= head.size {
                return Err(error);
            }
            tokio::time::sleep(PAUSE * (*retries + 1)).await;
            let peers = &self.means.peers;
            match peers.fetch(self.asset.domain(), &self.access, sink.written, self.means.idle).await {
                Ok((again, incoming)) if again.sha256 == head.sha256 && again.size == head.size => {
                    return Ok(incoming);
                }
                Ok(_) => return Err(error),
                Err(refused) => error = refused,
            }
            *retries += 1;
        }
    }
}

impl Drop for Run {
    /// However it ends, nobody waits for it in vain.
    fn drop(&mut self) {
        self.progress.send_if_modified(|progress| {
            let unfinished = progress.end.is_none();
            progress.end.get_or_insert_with(|| Err(gone()));
            unfinished
        });
    }
}

struct Sink {
    file: File,
    sha256: Sha256,
    written: u64,
}

/// Whether the way to the owner broke, as opposed to what it says.
fn is_outage(error: &AssetError) -> bool {
    match error {
        AssetError::Peer(error) => !error.is_denied() && !matches!(error.kind, PeerErrorKind::InvalidAnswer(_)),
        _ => false,
    }
}

impl Follower {
    /// What the owner says of the file.
    pub(crate) async fn head(&mut self) -> Result<Head, AssetError> {
        let known = self.0.wait_for(|progress| progress.head.is_some() || progress.end.is_some()).await;
        let progress = known.map_err(|_| gone())?.clone();
        match (progress.head, progress.end) {
            (_, Some(Err(error))) => Err(error),
            (Some(head), _) => Ok(head),
            (None, _) => Err(gone()),
        }
    }

    /// The bytes of `range`, as they arrive in the transfer's file.
    pub(crate) async fn read(self, mut file: File, range: Range<u64>) -> io::Result<ByteStream> {
        file.seek(io::SeekFrom::Start(range.start)).await?;
        let state = (self, file, range);
        let parts = stream::try_unfold(state, |(mut follower, mut file, range)| async move {
            if range.start >= range.end {
                return Ok(None);
            }
            let here = follower.available(range.start).await?;
            let bytes = read_some(&mut file, here.min(range.end) - range.start).await?;
            let rest = range.start + bytes.len() as u64..range.end;
            Ok::<_, io::Error>(Some((bytes, (follower, file, rest))))
        });
        Ok(parts.boxed())
    }

    /// Up to where the file can be given, which is past `position`.
    async fn available(&mut self, position: u64) -> io::Result<u64> {
        let given = |progress: &Progress| match (&progress.end, &progress.head) {
            (Some(Ok(())), _) => progress.written,
            // The last byte waits for the digest.
            (None, Some(head)) => progress.written.min(head.size.saturating_sub(1)),
            _ => 0,
        };
        let failed = |progress: &Progress| matches!(progress.end, Some(Err(_)));
        let progress = self.0.wait_for(|it| given(it) > position || failed(it)).await;
        let progress = progress.map_err(|_| io::Error::other("the transfer was given up"))?;
        match &progress.end {
            Some(Err(error)) => Err(io::Error::other(error.clone())),
            _ => Ok(given(&progress)),
        }
    }
}

fn gone() -> AssetError {
    io::Error::other("the transfer was given up").into()
}
