//! The conversations service: conversations that belong to this backend, our users' places in those of other backends,
//! and the Proteus messages in both.
//!
//! A conversation is owned by one backend, which orders its changes and messages. As the owner this service decides and
//! tells every backend with members, in the conversation's lane; as a member's backend it forwards what its users ask
//! for and applies what the owner tells. A change and everything that others are told of it are written in one step.

mod app;
mod backends;
mod cache;
mod config;
mod events;
mod features;
mod federated;
mod federation;
#[cfg(test)]
mod fuzz;
#[cfg(all(test, feature = "golden"))]
mod golden;
mod groups;
mod in_progress;
mod leases;
mod messages;
mod one_to_one;
mod push;
mod quotas;
mod received;
mod reconciliation;
mod routes;
#[cfg(test)]
mod testing;
mod users;
#[cfg(test)]
mod variations;

use std::{sync::Arc, time::Duration};

use aldis_api::TokenVerifier;
use aldis_delivery::{Arrivals, Component, Marks, Outbox, Reconciler, Relays};
use aldis_peers::{Peers, Policy};
use aldis_proto::{
    channel::Channel,
    federation::v1::conversations_server::ConversationsServer,
    internal::v1::{audiences_server::AudiencesServer, memberships_server::MembershipsServer},
};
use aldis_runtime::{SharedClock, SharedRandom};
use aldis_storage::{Db, StoreError};
use aldis_types::{Domain, Timestamp};
use tokio::task::JoinSet;
use tonic::service::Routes;

pub use config::{Config, Quotas};
pub use routes::{PREFIXES, table};

use crate::{
    app::{App, Parts},
    groups::store::{ConversationStore, MIGRATIONS, SqliteConversations},
    received::{Received, store::SqliteMemberships},
    reconciliation::store::SqliteReconciliation,
};

/// Kinds of envelopes of conversations' lanes that this build understands, for the federator's hello.
pub const KINDS: &[u32] = federated::kind::ALL;

/// As large as the largest message and its frame.
const MAX_MESSAGE_BYTES: usize = 48 * 1024 * 1024;
/// Pause between sweeps.
const SWEEP_EVERY: Duration = Duration::from_mins(10);

/// What the service needs from its process.
pub struct Dependencies {
    /// Our own domain.
    pub domain: Domain,
    /// The store.
    pub db: Db,
    /// The time of day.
    pub clock: SharedClock,
    /// Randomness.
    pub random: SharedRandom,
    /// Whom we federate with.
    pub policy: Policy,
    /// Checks access tokens.
    pub verifier: TokenVerifier,
    /// Other backends, through our own federator.
    pub peers: Peers,
    /// Our users service.
    pub users: Channel,
    /// Our notifications service.
    pub notifications: Channel,
    /// What other backends may do on delivery streams.
    pub receiving: aldis_delivery::Receiving,
    /// How much may wait for other backends.
    pub outbox: aldis_delivery::Config,
}

/// The running service.
pub struct Service {
    /// Client routes, without version prefix; see [`PREFIXES`].
    pub client: axum::Router,
    /// For our own services.
    pub internal: Routes,
    /// For other backends, behind our federator.
    pub federation: Option<Routes>,
    /// Relays and sweeps; they end when this is dropped.
    pub tasks: JoinSet<()>,
}

/// The service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is not allowed; says which.
    #[error("{0}")]
    Config(String),
    /// The store cannot be used.
    #[error("store")]
    Store(#[from] StoreError),
    /// The removal keys cannot be used.
    #[error("removal keys: {0}")]
    Keys(String),
}

/// Starts the service: migrates its tables, opens its outbox and runs its relays.
pub async fn start(config: Config, deps: Dependencies) -> Result<Service, StartError> {
    config.check().map_err(StartError::Config)?;
    let Dependencies {
        domain,
        db,
        clock,
        random,
        policy,
        verifier,
        peers,
        users,
        notifications,
        receiving,
        outbox: bounds,
    } = deps;
    db.migrate("conversations", MIGRATIONS).await?;
    let outbox = Outbox::open(Component::Conversations, domain.clone(), db.clone(), clock.clone()).await?;
    let keys = features::RemovalKeys::load(&db, &random).await.map_err(|error| match error {
        features::KeyError::Store(error) => StartError::Store(error),
        error @ features::KeyError::Invalid(_) => StartError::Keys(error.to_string()),
    })?;
    let retention = Duration::from_hours(config.answer_retention_hours.into());
    let store: Arc<dyn ConversationStore> =
        Arc::new(SqliteConversations::new(domain.clone(), db.clone(), outbox.clone(), clock.clone()));
    let memberships = Arc::new(SqliteMemberships::new(db.clone(), outbox.clone(), clock.clone()));
    let quotas = Arc::new(quotas::Quotas::new(&config.quotas));
    let app = App::new(Parts {
        domain: domain.clone(),
        config,
        store: store.clone(),
        memberships,
        users: users::Users::new(domain.clone(), users),
        backends: backends::Backends::new(peers.clone()),
        pushes: push::Pushes::new(notifications.clone()),
        clock: clock.clone(),
        random,
        policy: policy.clone(),
        verifier,
        keys,
        in_progress: in_progress::InProgress::default(),
        typing_limit: groups::TypingLimit::default(),
    });
    let (arrivals, arrived) = Arrivals::new();
    let received = Received::new(app.clone(), arrivals);
    let compared = Arc::new(SqliteReconciliation::new(db.clone(), outbox.clone()));
    let reconciler = Reconciler::new(
        Component::Conversations,
        Arc::new(reconciliation::Memberships::new(received.clone(), compared.clone())),
        Marks::new(db.clone(), Component::Conversations),
        arrived,
        policy.clone(),
        clock.clone(),
    );
    let relays =
        Relays { peers, policy: policy.clone(), notifications: Some(notifications), conversations: None, bounds };
    let mut tasks = JoinSet::new();
    tasks.spawn(outbox.clone().run(relays));
    tasks.spawn(groups::ending::clean_up(app.clone(), outbox.clone()));
    tasks.spawn(received.clone().catch_up());
    tasks.spawn(reconciler.clone().run(bounds.reconcile_every()));
    tasks.spawn(sweep(store, clock.clone(), retention));
    tasks.spawn(quotas.clone().keep_small());
    let federation = Routes::new(
        ConversationsServer::new(federation::ConversationsServer { app: app.clone(), quotas, memberships: compared })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES),
    )
    .add_service(aldis_delivery::conversations_server(
        domain,
        db.clone(),
        clock,
        policy,
        receiving,
        Arc::new(received),
    ));
    let internal = Routes::new(MembershipsServer::new(one_to_one::grpc::MembershipsServer(app.clone())))
        .add_service(AudiencesServer::new(groups::grpc::AudiencesServer(app.clone())))
        .add_service(aldis_delivery::conversations_outbox(outbox))
        .add_service(aldis_delivery::conversations_reconciliation(reconciler));
    tasks.spawn(db.clone().measure_tables("conversations"));
    Ok(Service { client: routes::router(app), internal, federation: Some(federation), tasks })
}

/// What an administrator may ask of the service while it does not run. The process has to hold its lock.
pub async fn administration_at_rest(domain: Domain, db: Db, clock: SharedClock) -> Result<Routes, StoreError> {
    db.migrate("conversations", MIGRATIONS).await?;
    let outbox = Outbox::open(Component::Conversations, domain, db, clock).await?;
    Ok(Routes::new(aldis_delivery::conversations_outbox_at_rest(outbox)))
}

/// Forgets answers that are too old for a retry.
async fn sweep(store: Arc<dyn ConversationStore>, clock: SharedClock, retention: Duration) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let oldest = clock.now().millis().saturating_sub(i64::try_from(retention.as_millis()).unwrap_or(i64::MAX));
        if let Err(error) = store.sweep_answers(Timestamp::from_millis(oldest)).await {
            tracing::error!(%error, "forgetting old answers failed");
        }
    }
}
