//! Files that users exchange.
//!
//! Ours are kept in a directory or in S3 and given to whoever shows their token, at other backends too; those of other
//! backends are fetched through our federator, kept for a while, and given after asking their owner each time.

mod blobs;
mod config;
mod error;
mod federation;
mod objects;
mod remote;
mod routes;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aldis_api::TokenVerifier;
use aldis_peers::{Peers, Policy};
use aldis_proto::channel::Channel;
use aldis_runtime::{SharedClock, SharedRandom};
use aldis_storage::{Db, DbOptions, Store, StoreError, cql::CqlMigration};
use aldis_types::Domain;
use axum::Router;
use tokio::{sync::Semaphore, task::JoinSet};
use tonic::service::Routes;

pub use config::{CacheConfig, Config, PATHS, PeersConfig, RemoteConfig, S3Config, Secret};
pub use routes::table;

use blobs::{BlobStore, directory::Directory};
use error::AssetError;
use federation::{Allowance, Federation};
use objects::{
    Assets,
    audience::Audience,
    store::{AssetStore, MIGRATIONS, ScyllaAssets, SqliteAssets},
};
use remote::{Remotes, cache::Cache, peers::AssetPeers};

/// Path prefixes of this service in the client API.
pub const PREFIXES: &[&str] = &["/assets"];

/// The schema of this service on a cluster.
pub const CLUSTER_MIGRATIONS: &[CqlMigration] = objects::store::CLUSTER_MIGRATIONS;

/// What the service needs from outside.
pub struct Dependencies {
    /// Our own domain.
    pub domain: Domain,
    /// Where it is kept what is known of files.
    pub store: Store,
    /// The time of day.
    pub clock: SharedClock,
    /// Randomness.
    pub random: SharedRandom,
    /// The federation policy in force.
    pub policy: Policy,
    /// Checks tokens.
    pub verifier: TokenVerifier,
    /// Other backends.
    pub peers: Peers,
    /// Our conversations service; without it nothing is refused early.
    pub conversations: Option<Channel>,
    /// Where files are kept for which the settings name no folder.
    pub folder: PathBuf,
}

/// A running service.
pub struct Service {
    /// Client API, without version prefix.
    pub client: Router,
    /// Internal gRPC; nothing is asked of this service.
    pub internal: Routes,
    /// What other backends may call.
    pub federation: Option<Routes>,
    /// Background work; the service stops working when it is dropped.
    pub tasks: JoinSet<()>,
}

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is wrong; the text names it.
    #[error("{0}")]
    Config(String),
    /// The store could not be opened or migrated.
    #[error("store of assets")]
    Store(#[from] StoreError),
    /// The folder, or the object store, cannot be used.
    #[error("place for the bytes of assets: {0}")]
    Place(PathBuf, #[source] io::Error),
}

/// Opens the place for bytes that the settings name.
async fn open_blobs(config: &Config, folder: PathBuf) -> Result<Arc<dyn BlobStore>, StartError> {
    #[cfg(feature = "s3")]
    if let Some(s3) = &config.s3 {
        let opened = blobs::s3::S3::new(s3).map_err(|error| StartError::Place(PathBuf::from(&s3.bucket), error))?;
        return Ok(Arc::new(opened));
    }
    let folder = config.folder.clone().unwrap_or(folder);
    match Directory::open(&folder).await {
        Ok(directory) => Ok(Arc::new(directory)),
        Err(error) => Err(StartError::Place(folder, error)),
    }
}

/// Opens the store of files, and the file in which it is kept which copies of others' files are here: those are each
/// process's own.
async fn open_store(deps: &Dependencies, copies: &Path) -> Result<(Arc<dyn AssetStore>, Db), StoreError> {
    match &deps.store {
        Store::Embedded(db) => {
            db.migrate("assets", MIGRATIONS).await?;
            Ok((Arc::new(SqliteAssets(db.clone())), db.clone()))
        }
        Store::Cluster(cql) => {
            blobs::directory::make_folder(copies).await?;
            let db = Db::open(&copies.with_extension("db"), &DbOptions::default())?;
            db.migrate("assets", MIGRATIONS).await?;
            Ok((Arc::new(ScyllaAssets::open(cql.clone(), deps.clock.clone()).await?), db))
        }
    }
}

/// Migrates the tables, removes what a crash has left, and starts the background work.
#[tracing::instrument(name = "assets.start", skip_all, fields(domain = %deps.domain))]
pub async fn start(config: Config, deps: Dependencies) -> Result<Service, StartError> {
    config.check().map_err(StartError::Config)?;
    let copies = config.cache.folder.clone().unwrap_or_else(|| deps.folder.join("assets-cache"));
    let (store, db) = open_store(&deps, &copies).await?;
    let blobs = open_blobs(&config, deps.folder.join("assets")).await?;
    let assets = Assets::new(store, blobs, deps.clock.clone(), deps.random.clone(), &config);
    let cache = Cache::open(copies, &config.cache, db.clone(), deps.clock).await?;
    let remotes = Remotes::new(AssetPeers::new(&deps.peers), cache, deps.random, &config);
    let allowance = Arc::new(Allowance::new(&config.peers));
    if let Err(error) = assets.recover().await {
        // An object store that does not answer must not keep the backend down.
        tracing::warn!(%error, "what broken uploads have left is not removed yet");
    }

    let federation = Federation {
        domain: deps.domain.clone(),
        policy: deps.policy,
        assets: assets.clone(),
        allowance: allowance.clone(),
    };
    let mut tasks = JoinSet::new();
    let interval = Duration::from_secs(config.sweep_interval_seconds);
    tasks.spawn(db.measure_tables("assets"));
    tasks.spawn(sweep(assets.clone(), remotes.clone(), allowance, interval));
    let app = routes::App {
        domain: deps.domain,
        assets,
        remotes,
        audience: deps.conversations.filter(|_| config.refuse_early).map(|it| Audience::new(it, deps.peers)),
        verifier: deps.verifier,
        uploads: Arc::new(Semaphore::new(config.max_uploads)),
        upload_idle: Duration::from_secs(config.upload_idle_seconds),
        upload_timeout: Duration::from_secs(config.upload_timeout_seconds),
    };
    Ok(Service {
        client: routes::router(app),
        internal: Routes::default(),
        federation: Some(Routes::new(federation.server())),
        tasks,
    })
}

async fn sweep(assets: Assets, remotes: Remotes, allowance: Arc<Allowance>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        allowance.sweep();
        let swept = async {
            assets.sweep().await?;
            remotes.sweep().await
        };
        if let Err(error) = swept.await {
            let error: AssetError = error;
            tracing::warn!(error = &error as &dyn std::error::Error, "assets that have ended cannot be removed yet");
        }
    }
}
