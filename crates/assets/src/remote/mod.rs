//! Files of other backends: fetched once for all who read them at the same time, kept for a while, and never given
//! without asking the owner whether this reader may have them.

pub(crate) mod cache;
pub(crate) mod peers;
pub(crate) mod transfer;

use std::{
    collections::HashMap,
    io,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aldis_peers::FAN_OUT;
use aldis_runtime::SharedRandom;
use aldis_types::{AssetKey, Domain, MediaType, Qualified, Remote, Timestamp, UserId};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::{fs::File, sync::Semaphore};

use self::{
    cache::Cache,
    peers::{Access, AssetPeers, Checked},
    transfer::{Follower, Run, Transfer},
};
use crate::{
    blobs::{ByteStream, directory},
    config::{Config, RemoteConfig},
    error::AssetError,
    objects::allows,
};

/// How often one request looks again when what it joined or found turned out to be of no use.
const ATTEMPTS: usize = 3;

/// Most copies about which one sweep asks their owners.
const MAX_DUE: usize = 64;

/// Owners whose turns are remembered while nothing is fetched from them.
const MAX_OWNERS: usize = 1024;

/// What an owner says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) size: u64,
    pub(crate) sha256: [u8; 32],
    pub(crate) media_type: MediaType,
    pub(crate) expires: Option<Timestamp>,
}

/// Which files our users may have.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    max_bytes: u64,
    types: Arc<[String]>,
}

impl Rules {
    pub(crate) fn new(config: &RemoteConfig) -> Self {
        Self { max_bytes: config.max_bytes, types: config.types.clone().into() }
    }

    pub(crate) fn admit(&self, head: &Head) -> Result<(), AssetError> {
        if head.size <= self.max_bytes && allows(&self.types, &head.media_type) {
            Ok(())
        } else {
            metrics::counter!("aldis_assets_not_allowed_total").increment(1);
            Err(AssetError::NotAllowed)
        }
    }
}

/// Files of other backends. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Remotes(Arc<Inner>);

struct Inner {
    peers: AssetPeers,
    cache: Cache,
    rules: Rules,
    random: SharedRandom,
    keeps: bool,
    idle: Duration,
    /// Turns to fetch, per owner.
    places: Mutex<HashMap<Domain, Arc<Semaphore>>>,
    max_concurrent: usize,
    /// Transfers that end in the cache, and may be joined.
    under_way: Mutex<HashMap<Qualified<AssetKey>, Arc<Transfer>>>,
}

/// A file of another backend that this reader may have.
pub(crate) enum Copy {
    /// All of it is here.
    Kept(Head, File),
    /// It is on its way.
    Coming(Head, File, Follower),
}

impl Copy {
    pub(crate) fn head(&self) -> &Head {
        match self {
            Self::Kept(head, _) | Self::Coming(head, ..) => head,
        }
    }

    /// The bytes of `range`, which lies within the file.
    pub(crate) async fn read(self, range: Range<u64>) -> io::Result<ByteStream> {
        match self {
            Self::Kept(_, file) => directory::read(file, range).await,
            Self::Coming(_, file, follower) => follower.read(file, range).await,
        }
    }
}

/// What a request finds when it looks for a file.
enum Found {
    Kept(cache::Entry),
    /// A transfer that somebody else began.
    Coming(Arc<Transfer>, Follower),
    Begun(Arc<Transfer>, Follower, Box<Run>),
}

impl Remotes {
    pub(crate) fn new(peers: AssetPeers, cache: Cache, random: SharedRandom, config: &Config) -> Self {
        Self(Arc::new(Inner {
            peers,
            cache,
            rules: Rules::new(&config.remote),
            random,
            keeps: config.cache.enabled,
            idle: Duration::from_secs(config.remote.idle_seconds),
            places: Mutex::default(),
            max_concurrent: config.remote.max_concurrent,
            under_way: Mutex::default(),
        }))
    }

    /// What the owner says of a file that this reader may have.
    pub(crate) async fn check(
        &self,
        asset: &Remote<AssetKey>,
        reader: UserId,
        token: Option<&str>,
    ) -> Result<Head, AssetError> {
        let access = Access { key: *asset.id(), reader, token };
        match self.0.peers.check(asset.domain(), &access, None).await? {
            Checked::Allowed(head) => self.0.rules.admit(&head).map(|()| head),
            Checked::Gone | Checked::WrongToken => Err(AssetError::NotFound),
        }
    }

    /// The file, if the owner lets this reader have it and our own rules do.
    pub(crate) async fn open(
        &self,
        asset: &Remote<AssetKey>,
        reader: UserId,
        token: Option<&str>,
    ) -> Result<Copy, AssetError> {
        let access = Access { key: *asset.id(), reader, token };
        for _ in 0..ATTEMPTS {
            let opened = match self.find(asset, &access) {
                Found::Kept(entry) => self.open_kept(asset, &access, entry).await?,
                Found::Coming(transfer, follower) => {
                    self.check(asset, reader, token).await?;
                    self.join(asset, &transfer, follower).await.unwrap_or_default()
                }
                Found::Begun(transfer, follower, run) => return self.begin(asset, transfer, follower, run).await,
            };
            if let Some(copy) = opened {
                return Ok(copy);
            }
        }
        Err(io::Error::other("copies of the asset keep vanishing").into())
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<Qualified<AssetKey>, Arc<Transfer>>> {
        self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turns(&self, owner: &Domain) -> Arc<Semaphore> {
        let mut places = self.0.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= MAX_OWNERS && !places.contains_key(owner) {
            places.retain(|_, place| Arc::strong_count(place) > 1);
        }
        places.entry(owner.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.0.max_concurrent))).clone()
    }

    fn find(&self, asset: &Remote<AssetKey>, access: &Access<'_>) -> Found {
        let name = asset.as_qualified();
        if !self.0.keeps {
            let (transfer, follower, run) = self.transfer(asset, access);
            return Found::Begun(transfer, follower, run);
        }
        let mut under_way = self.under_way();
        if let Some(entry) = self.0.cache.get(name) {
            return Found::Kept(entry);
        }
        if let Some(transfer) = under_way.get(name)
            && let Some(follower) = transfer.follow()
        {
            return Found::Coming(transfer.clone(), follower);
        }
        let (transfer, follower, run) = self.transfer(asset, access);
        under_way.insert(name.clone(), transfer.clone());
        Found::Begun(transfer, follower, run)
    }

    /// A copy that is kept, unless the owner says that the file is gone or another one.
    async fn open_kept(
        &self,
        asset: &Remote<AssetKey>,
        access: &Access<'_>,
        entry: cache::Entry,
    ) -> Result<Option<Copy>, AssetError> {
        let name = asset.as_qualified();
        match self.0.peers.check(asset.domain(), access, Some(&entry.head.sha256)).await? {
            Checked::Allowed(head) if head.sha256 == entry.head.sha256 => {
                self.0.rules.admit(&head)?;
                let Ok(file) = File::open(self.0.cache.path(entry.file)).await else {
                    self.0.cache.evict(name, entry.file).await?;
                    return Ok(None);
                };
                metrics::counter!("aldis_assets_cache_hits_total").increment(1);
                Ok(Some(Copy::Kept(entry.head, file)))
            }
            Checked::WrongToken => Err(AssetError::NotFound),
            Checked::Allowed(_) => {
                self.0.cache.evict(name, entry.file).await?;
                Ok(None)
            }
            Checked::Gone => {
                self.0.cache.evict(name, entry.file).await?;
                Err(AssetError::NotFound)
            }
        }
    }

    /// A transfer that somebody else began; `None` when it came to nothing, perhaps because that reader may not.
    async fn join(
        &self,
        asset: &Remote<AssetKey>,
        transfer: &Arc<Transfer>,
        mut follower: Follower,
    ) -> Result<Option<Copy>, AssetError> {
        match follower.head().await {
            Ok(head) => {
                let file = File::open(&transfer.path).await?;
                metrics::counter!("aldis_assets_transfers_joined_total").increment(1);
                Ok(Some(Copy::Coming(head, file, follower)))
            }
            Err(error) => {
                self.forget(asset, transfer);
                Err(error)
            }
        }
    }

    /// Starts a transfer, in a task of its own, which ends when nobody follows it any more.
    async fn begin(
        &self,
        asset: &Remote<AssetKey>,
        transfer: Arc<Transfer>,
        mut follower: Follower,
        run: Box<Run>,
    ) -> Result<Copy, AssetError> {
        let domain = asset.domain().as_str().to_owned();
        metrics::counter!("aldis_assets_fetched_total", "domain" => domain).increment(1);
        let files = self.files(&transfer.path).await;
        let (written, read) = files.inspect_err(|_| self.forget(asset, &transfer))?;
        tokio::spawn(self.clone().run(asset.clone(), transfer, run, written));
        let head = follower.head().await?;
        Ok(Copy::Coming(head, read, follower))
    }

    /// A new file, once to be written and once to be read.
    async fn files(&self, path: &Path) -> io::Result<(File, File)> {
        let written = directory::create_private(path).await?;
        let read = File::open(path).await?;
        if !self.0.keeps {
            // Nobody else needs the name; the bytes stay until both ends have closed the file.
            directory::remove(path).await?;
        }
        Ok((written, read))
    }

    async fn run(self, asset: Remote<AssetKey>, transfer: Arc<Transfer>, run: Box<Run>, file: File) {
        let keep = async |head: Head| {
            // A copy that is too large to be kept is no failure.
            self.0.keeps
                && self.0.cache.insert(asset.as_qualified(), transfer.file, head).await.unwrap_or_else(|error| {
                    tracing::warn!(%error, "a copy of an asset cannot be kept");
                    false
                })
        };
        let kept = run.finish(file, keep).await;
        self.forget(&asset, &transfer);
        if !kept && let Err(error) = directory::remove(&transfer.path).await {
            tracing::warn!(%error, "what is left of a transfer cannot be removed");
        }
    }

    fn forget(&self, asset: &Remote<AssetKey>, transfer: &Arc<Transfer>) {
        let mut under_way = self.under_way();
        if under_way.get(asset.as_qualified()).is_some_and(|it| Arc::ptr_eq(it, transfer)) {
            under_way.remove(asset.as_qualified());
        }
    }

    /// A transfer that has yet to be started.
    fn transfer(&self, asset: &Remote<AssetKey>, access: &Access<'_>) -> (Arc<Transfer>, Follower, Box<Run>) {
        let file = self.0.random.uuid();
        let means = transfer::Means {
            peers: self.0.peers.clone(),
            rules: self.0.rules.clone(),
            turns: self.turns(asset.domain()),
            idle: self.0.idle,
        };
        let path = self.0.cache.path(file);
        let (transfer, follower, run) = Transfer::new(asset.clone(), access.owned(), file, path, means);
        (Arc::new(transfer), follower, Box::new(run))
    }

    /// Removes copies that are too old, and such whose files are gone although nobody has asked for them since.
    pub(crate) async fn sweep(&self) -> Result<(), AssetError> {
        self.0.cache.sweep().await?;
        let due = stream::iter(self.0.cache.due(MAX_DUE)).map(|(name, entry)| self.look_after(name, entry));
        due.buffer_unordered(FAN_OUT).try_collect().await
    }

    /// Asks the owner whether the file of a copy is still there, on behalf of nobody.
    async fn look_after(&self, name: Qualified<AssetKey>, entry: cache::Entry) -> Result<(), AssetError> {
        let access = Access { key: name.id, reader: UserId::new(self.0.random.uuid()), token: None };
        match self.0.peers.check(&name.domain, &access, Some(&entry.head.sha256)).await {
            Ok(Checked::WrongToken) => Ok(()),
            Ok(Checked::Allowed(head)) if head.sha256 == entry.head.sha256 => Ok(()),
            Ok(Checked::Allowed(_) | Checked::Gone) => Ok(self.0.cache.evict(&name, entry.file).await?),
            // Nobody gets the copy as long as its owner cannot be asked.
            Err(error) => {
                tracing::debug!(peer.domain = %name.domain, %error, "the owner of a copy cannot be asked");
                Ok(())
            }
        }
    }
}
