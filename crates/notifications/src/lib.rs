//! What waits for a user's clients, and the sockets on which they hear of it.
//!
//! Other services bring events over `internal.v1.Push`; clients fetch them from `/notifications` and hear of new ones on
//! `/await`. Events are bytes here: which service made them, and what they say, is not this crate's business. Never
//! reachable from other backends.

mod activity;
mod config;
mod consumers;
mod push_tokens;
mod queues;
mod routes;
mod sockets;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use aldis_api::TokenVerifier;
use aldis_proto::{channel::Channel, internal::v1::push_server::PushServer};
use aldis_runtime::{SharedClock, SharedRandom};
use aldis_storage::{Store, StoreError, cql::CqlMigration};
use aldis_types::Domain;
use axum::Router;
use tokio::task::JoinSet;
use tonic::service::Routes;

pub use config::{Config, Push};
pub use sockets::Sockets;

use activity::Activity;
use consumers::Consumers;
use push_tokens::{
    PushTokens, Waker, Waking, Webhook,
    store::{PushTokenStore, ScyllaPushTokens, SqlitePushTokens},
};
use queues::{
    Queues,
    grpc::PushGrpc,
    store::{Bounds, MIGRATIONS, ScyllaQueues, SqliteQueues},
    sweep,
};

pub use routes::table;

/// Path prefixes of this service in the client API.
pub const PREFIXES: &[&str] = &["/notifications", "/await", "/events", "/push", "/time"];

/// The schema of this service on a cluster.
pub const CLUSTER_MIGRATIONS: &[CqlMigration] = queues::store::CLUSTER_MIGRATIONS;

/// Largest internal request that is read; above every `max_message_bytes`, as a push carries a little around an event.
pub const MAX_REQUEST_BYTES: usize = 64 << 20;

/// What the service needs from outside.
pub struct Dependencies {
    /// The backend's domain.
    pub domain: Domain,
    /// Where queues are kept.
    pub store: Store,
    /// The time of day.
    pub clock: SharedClock,
    /// Randomness.
    pub random: SharedRandom,
    /// Checks tokens, and tells of revocations.
    pub verifier: TokenVerifier,
    /// The users service, which is told which clients are active.
    pub users: Channel,
}

/// A running service.
pub struct Service {
    /// Client API, without version prefix.
    pub client: Router,
    /// Internal gRPC.
    pub internal: Routes,
    /// Background work; the service stops working when it is dropped.
    pub tasks: JoinSet<()>,
    /// Open sockets, to close them when the process stops.
    pub sockets: Sockets,
}

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is out of its range; the text names it.
    #[error("{0}")]
    Config(String),
    /// The store could not be opened or migrated.
    #[error("store of notifications")]
    Store(#[from] StoreError),
}

/// Migrates the tables and starts the background work.
#[tracing::instrument(name = "notifications.start", skip_all, fields(domain = %deps.domain))]
pub async fn start(config: Config, deps: Dependencies) -> Result<Service, StartError> {
    config.check().map_err(StartError::Config)?;
    let mut tasks = JoinSet::new();
    let (consumers, push_tokens) = open(&config, &deps, &mut tasks).await?;
    let store = consumers.queue.clone();
    let sockets = Sockets::new(&config);
    let push_tokens = PushTokens::open(push_tokens, &config.push.apps, config.push.tokens_per_user).await?;

    let waker = match Webhook::new(&config.push)? {
        Some(webhook) => {
            let (waker, waking) = Waking::new(push_tokens.clone(), sockets.clone(), Arc::new(webhook));
            tasks.spawn(waking.run());
            waker
        }
        None => Waker::default(),
    };
    let (queues, sequencer) = Queues::new(consumers.clone(), push_tokens.clone(), sockets.clone(), waker);
    tasks.spawn(sequencer.run());
    tasks.spawn(sockets.clone().keep_alive());
    tasks.spawn(sockets.clone().watch_revocations(deps.verifier.clone()));
    let interval = Duration::from_secs(config.sweep_interval_seconds);
    tasks.spawn(sweep(store, deps.clock.clone(), config.retention(), interval));

    let (activity, carrier) = Activity::new(deps.clock.clone(), deps.users);
    tasks.spawn(carrier);

    let push = PushServer::new(PushGrpc { queues: queues.clone() }).max_decoding_message_size(MAX_REQUEST_BYTES);
    let app = routes::App {
        queues,
        consumers,
        push_tokens,
        sockets: sockets.clone(),
        activity,
        verifier: deps.verifier,
        clock: deps.clock,
    };
    Ok(Service { client: routes::router(app), internal: Routes::new(push), tasks, sockets })
}

/// Opens the stores.
async fn open(
    config: &Config,
    deps: &Dependencies,
    tasks: &mut JoinSet<()>,
) -> Result<(Consumers, Arc<dyn PushTokenStore>), StoreError> {
    let bounds = Bounds { events: config.queue_events, bytes: config.queue_bytes };
    match &deps.store {
        Store::Embedded(db) => {
            db.migrate("notifications", MIGRATIONS).await?;
            tasks.spawn(db.clone().measure_tables("notifications"));
            let restored = db.restored().await?;
            let queues = SqliteQueues::open(db.clone(), deps.clock.clone(), &deps.random, bounds).await?;
            if let Some(restore) = restored {
                queues.renew(restore).await?;
            }
            let queues = Arc::new(queues);
            let consumers = Consumers { queue: queues.clone(), standings: queues };
            Ok((consumers, Arc::new(SqlitePushTokens(db.clone()))))
        }
        Store::Cluster(cql) => {
            let (clock, retention) = (deps.clock.clone(), config.retention());
            let queues = ScyllaQueues::open(cql.clone(), clock, &deps.random, bounds, retention).await?;
            let queues = Arc::new(queues);
            let consumers = Consumers { queue: queues.clone(), standings: queues };
            Ok((consumers, Arc::new(ScyllaPushTokens::open(cql.clone()).await?)))
        }
    }
}
