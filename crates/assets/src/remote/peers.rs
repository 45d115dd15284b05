//! What we ask other backends about their files.

use std::time::Duration;

use aldis_peers::{CallOptions, PeerError, Peers};
use aldis_proto::{
    channel::Channel,
    convert::bytes_of,
    federation::v1::{
        AssetAccess, AssetHead, AssetRefused, CheckAssetRequest, FetchAssetRequest, FetchAssetResponse,
        asset_refused::Reason, assets_client::AssetsClient, check_asset_response::Outcome, fetch_asset_response::Part,
    },
};
use aldis_types::{AssetKey, Domain, MediaType, Timestamp, UserId};
use bytes::Bytes;
use tonic::{Status, Streaming};

use super::Head;
use crate::{error::AssetError, federation::MAX_CHUNK_BYTES};

/// Largest message that is taken from another backend.
const MAX_MESSAGE_BYTES: usize = MAX_CHUNK_BYTES + 4096;

/// How a reader of ours may have a file.
#[derive(Debug, Clone)]
pub(crate) struct Access<'a> {
    pub(crate) key: AssetKey,
    pub(crate) reader: UserId,
    pub(crate) token: Option<&'a str>,
}

impl Access<'_> {
    /// What goes over the wire.
    pub(crate) fn owned(&self) -> AssetAccess {
        AssetAccess {
            reader: bytes_of(self.reader),
            key: self.key.to_string(),
            token: self.token.unwrap_or_default().to_owned(),
        }
    }
}

/// What an owner says of a reader's access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Checked {
    Allowed(Head),
    /// The token does not fit; the file that we hold a copy of is still there.
    WrongToken,
    /// There is no such file for this reader.
    Gone,
}

/// Asks other backends for files.
#[derive(Clone)]
pub(crate) struct AssetPeers {
    client: AssetsClient<Channel>,
}

fn head(head: &AssetHead, domain: &Domain) -> Result<Head, PeerError> {
    let invalid = |field| PeerError::invalid_answer(domain, field);
    let sha256 = <[u8; 32]>::try_from(&*head.sha256).map_err(|_| invalid("sha256"))?;
    let media_type: MediaType = head.media_type.parse().map_err(|_| invalid("media_type"))?;
    if head.size_bytes == 0 {
        return Err(invalid("size_bytes"));
    }
    Ok(Head { size: head.size_bytes, sha256, media_type, expires: head.expires.map(Timestamp::from_millis) })
}

fn refused(refused: AssetRefused, domain: &Domain) -> AssetError {
    match refused.reason() {
        Reason::NotFound | Reason::Token => AssetError::NotFound,
        Reason::Busy => AssetError::Busy,
        Reason::OutOfRange | Reason::Unspecified => PeerError::invalid_answer(domain, "reason").into(),
    }
}

impl AssetPeers {
    pub(crate) fn new(peers: &Peers) -> Self {
        Self { client: AssetsClient::new(peers.channel()).max_decoding_message_size(MAX_MESSAGE_BYTES) }
    }

    /// Whether the reader may have the file. `copy` is the digest of what we hold.
    #[tracing::instrument(name = "peer.check_asset", skip_all, fields(peer.domain = %domain))]
    pub(crate) async fn check(
        &self,
        domain: &Domain,
        access: &Access<'_>,
        copy: Option<&[u8; 32]>,
    ) -> Result<Checked, AssetError> {
        let options = CallOptions::default();
        let sha256 = copy.map_or_else(Bytes::new, |sha256| Bytes::copy_from_slice(sha256));
        let message = CheckAssetRequest { access: Some(access.owned()), sha256 };
        let request = Peers::request(domain, message, &options);
        let answer = Peers::finish(domain, &options, self.client.clone().check(request)).await?;
        match answer.outcome {
            Some(Outcome::Head(it)) => Ok(Checked::Allowed(head(&it, domain)?)),
            Some(Outcome::Refused(it)) if it.reason() == Reason::Token => Ok(Checked::WrongToken),
            Some(Outcome::Refused(it)) if it.reason() == Reason::NotFound => Ok(Checked::Gone),
            Some(Outcome::Refused(it)) => Err(refused(it, domain)),
            None => Err(PeerError::invalid_answer(domain, "outcome").into()),
        }
    }

    /// Begins to fetch the file from `offset` on.
    #[tracing::instrument(name = "peer.fetch_asset", skip_all, fields(peer.domain = %domain))]
    pub(crate) async fn fetch(
        &self,
        domain: &Domain,
        access: &AssetAccess,
        offset: u64,
        idle: Duration,
    ) -> Result<(Head, Incoming), AssetError> {
        let options = CallOptions::default();
        let message = FetchAssetRequest { access: Some(access.clone()), offset, length: 0 };
        let request = Peers::request(domain, message, &options);
        let stream = Peers::finish(domain, &options, self.client.clone().fetch(request)).await?;
        let mut incoming = Incoming { domain: domain.clone(), stream, idle, left: 0 };
        match incoming.part().await? {
            Some(Part::Head(it)) => {
                let found = head(&it, domain)?;
                if it.length != found.size.saturating_sub(offset) {
                    return Err(PeerError::invalid_answer(domain, "length").into());
                }
                incoming.left = it.length;
                Ok((found, incoming))
            }
            Some(Part::Refused(it)) => Err(refused(it, domain)),
            Some(Part::Chunk(_)) | None => Err(PeerError::invalid_answer(domain, "head").into()),
        }
    }
}

/// The bytes of a file on their way to us.
pub(crate) struct Incoming {
    domain: Domain,
    stream: Streaming<FetchAssetResponse>,
    idle: Duration,
    left: u64,
}

impl Incoming {
    async fn part(&mut self) -> Result<Option<Part>, PeerError> {
        let failed = |status: &Status| PeerError::from_status(&self.domain, status);
        match tokio::time::timeout(self.idle, self.stream.message()).await {
            Ok(Ok(Some(message))) => match message.part {
                Some(part) => Ok(Some(part)),
                None => Err(PeerError::invalid_answer(&self.domain, "part")),
            },
            Ok(Ok(None)) => Ok(None),
            Ok(Err(status)) => Err(failed(&status)),
            Err(_) => Err(failed(&Status::deadline_exceeded("no bytes in time"))),
        }
    }

    /// The next bytes; `None` once there were as many as announced. A stream that ends before is an error.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, PeerError> {
        if self.left == 0 {
            return Ok(None);
        }
        match self.part().await? {
            Some(Part::Chunk(bytes)) if !bytes.is_empty() && bytes.len() as u64 <= self.left => {
                self.left -= bytes.len() as u64;
                Ok(Some(bytes))
            }
            Some(_) => Err(PeerError::invalid_answer(&self.domain, "chunk")),
            None => Err(PeerError::invalid_answer(&self.domain, "the asset ends early")),
        }
    }
}
