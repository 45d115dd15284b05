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
use aldis_storage::{Db, StoreError};
use aldis_types::Domain;
use axum::Router;
use tokio::task::JoinSet;
use tonic::service::Routes;

pub use config::{Config, Push};
pub use sockets::Sockets;

use activity::Activity;
use consumers::Consumers;
use push_tokens::{PushTokens, Waker, Waking, Webhook, store::SqlitePushTokens};
use queues::{
    Queues,
    grpc::PushGrpc,
    store::{Bounds, MIGRATIONS, QueueStore, SqliteQueues},
    sweep,
};

pub use routes::table;

/// Path prefixes of this service in the client API.
pub const PREFIXES: &[&str] = &["/notifications", "/await", "/events", "/push", "/time"];

/// Largest internal request that is read; above every `max_message_bytes`, as a push carries a little around an event.
pub const MAX_REQUEST_BYTES: usize = 64 << 20;

/// What the service needs from outside.
pub struct Dependencies {
    /// The backend's domain.
    pub domain: Domain,
    /// The backend's embedded store.
    pub db: Db,
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
    deps.db.migrate("notifications", MIGRATIONS).await?;
    let measured = deps.db.clone().measure_tables("notifications");
    let bounds = Bounds { events: config.queue_events, bytes: config.queue_bytes };
    let push_tokens = Arc::new(SqlitePushTokens(deps.db.clone()));
    let restored = deps.db.restored().await?;
    let store = SqliteQueues::open(deps.db, deps.clock.clone(), &deps.random, bounds).await?;
    if let Some(restore) = restored {
        store.renew(restore).await?;
    }
    let store = Arc::new(store);
    let consumers = Consumers { queue: store.clone(), standings: store.clone() };
    let store: Arc<dyn QueueStore> = store;
    let sockets = Sockets::new(&config);
    let push_tokens = PushTokens::open(push_tokens, &config.push.apps, config.push.tokens_per_user).await?;

    let mut tasks = JoinSet::new();
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
    tasks.spawn(measured);
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
