//! The users service: accounts, logins, clients and prekeys, connections, search, properties, and the list of backends
//! that we federate with.
//!
//! Other backends reach it through `federation.rs` alone, our own services through `proto/internal`, clients through
//! the paths in `routes.rs`; it is the service for every path that no other service lists.

mod accounts;
mod administration;
mod app;
mod audit;
mod auth;
mod beats;
mod calls;
mod clients;
mod config;
mod connections;
mod detached;
mod errors;
mod events;
mod federation;
mod lifecycle;
mod mail;
mod peers;
mod properties;
mod quotas;
mod remotes;
mod routes;
mod schema;
mod search;
mod sql;
mod startup;
mod sweep;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use aldis_api::TokenVerifier;
use aldis_delivery::{Arrivals, Component, Marks, Outbox, Reconciler, Relays};
use aldis_peers::{Peers, Policy};
use aldis_proto::channel::Channel;
use aldis_runtime::{SharedClock, SharedRandom};
use aldis_storage::{Db, StoreError};
use aldis_types::Domain;
use tokio::{sync::Notify, task::JoinSet};
use tonic::service::Routes;

pub use crate::config::{
    AppVersions, Blacklist, Calls, Config, Cookie, Deeplink, Federation as FederationConfig, Limits, Mail, Passwords,
    Quotas, Registration, Retention, Secret, Smtp, SmtpEncryption, Tokens,
};
use crate::{
    accounts::{
        AccountParts, Accounts,
        grpc::ProfilesGrpc,
        store::{AccountStore, SqliteAccounts},
    },
    administration::{
        Administration, AdministrationParts,
        grpc::{AuditLogGrpc, KeyAdminGrpc, UserAdminGrpc},
        outbox::OutboxAdminGrpc,
        store::SqliteAdministration,
    },
    app::App,
    auth::{
        Auth, AuthParts, Revocations,
        grpc::AuthGrpc,
        keys::TokenKeys,
        store::{AuthStore, SqliteAuth},
    },
    calls::{Dns, Servers},
    clients::{
        ClientCache, ClientParts, Clients, Leases,
        grpc::ClientsGrpc,
        store::{ClientStore, SqliteClients},
    },
    connections::{
        ConnectionParts, Connections,
        asking::InProgress,
        grpc::ConnectionsGrpc,
        reconciliation::Consents,
        store::{ConnectionStore, SqliteConnections},
    },
    federation::Federation,
    lifecycle::{
        Lifecycle, LifecycleParts,
        store::{LifecycleStore, SqliteLifecycle},
    },
    mail::{MailError, Mailer, store::SqliteMail},
    peers::UserPeers,
    properties::{Properties, store::SqliteProperties},
    remotes::{
        Remotes,
        ending::CleanUp,
        grpc::{PolicyGrpc, RemoteAdminGrpc},
        store::SqliteRemotes,
    },
    search::Search,
    sweep::Sweeper,
};

pub use routes::table;

/// Kinds of event of other backends, in the lanes of their users, that this service understands.
pub const EVENT_KINDS: &[u32] = federation::KINDS;

/// Prefixes of the paths that this service answers although a shorter prefix is another one's. It also answers whatever no
/// service lists.
pub const PREFIXES: &[&str] = &["/mls/key-packages"];

/// What the service is given.
pub struct Dependencies {
    /// Our own domain.
    pub domain: Domain,
    /// The embedded store, of which this process owns the service `users`.
    pub db: Db,
    /// The time.
    pub clock: SharedClock,
    /// Randomness.
    pub random: SharedRandom,
    /// The policy of this process; this service keeps it current.
    pub policy: Policy,
    /// The token verifier of this process; this service keeps it current.
    pub verifier: TokenVerifier,
    /// Other backends.
    pub peers: Peers,
    /// Our notifications service.
    pub notifications: Channel,
    /// Our conversations service.
    pub conversations: Channel,
    /// What other backends may do on delivery streams.
    pub receiving: aldis_delivery::Receiving,
    /// How much may wait for other backends.
    pub outbox: aldis_delivery::Config,
}

/// The running service.
pub struct Service {
    /// The client API, without version prefixes.
    pub client: axum::Router,
    /// For our own services: `Auth`, `Policy`, `Profiles`, `Clients`, `Connections`.
    pub internal: Routes,
    /// For the administrator alone: `UserAdmin`, `RemoteAdmin`, `KeyAdmin`, `AuditLog`, `OutboxAdmin`,
    /// `UsersOutbox`, `UsersReconciliation`.
    pub administration: Routes,
    /// For other backends, through our federator: `Users`, `UsersDelivery`.
    pub federation: Option<Routes>,
    /// Background work; it ends when this is dropped.
    pub tasks: JoinSet<()>,
}

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error("{0}")]
    Config(String),
    /// The store.
    #[error("the store of users")]
    Store(#[from] StoreError),
    /// There is no key that may sign tokens.
    #[error("there is no token key")]
    NoTokenKey,
}

impl From<MailError> for StartError {
    fn from(error: MailError) -> Self {
        Self::Config(format!("users.mail: {error}"))
    }
}

/// The engines of every capability on one store.
struct Stores {
    accounts: Arc<dyn AccountStore>,
    auth: Arc<dyn AuthStore>,
    clients: Arc<dyn ClientStore>,
    connections: Arc<dyn ConnectionStore>,
    lifecycle: Arc<dyn LifecycleStore>,
    outbox: Outbox,
    db: Db,
}

impl Stores {
    async fn open(dependencies: &Dependencies) -> Result<Self, StartError> {
        let db = dependencies.db.clone();
        db.migrate("users", schema::MIGRATIONS).await?;
        let (domain, clock) = (dependencies.domain.clone(), dependencies.clock.clone());
        let outbox = Outbox::open(Component::Users, domain, db.clone(), clock).await?;
        Ok(Self {
            accounts: Arc::new(SqliteAccounts::new(db.clone(), outbox.clone())),
            auth: Arc::new(SqliteAuth::new(db.clone())),
            clients: Arc::new(SqliteClients::new(db.clone(), outbox.clone())),
            connections: Arc::new(SqliteConnections::new(db.clone(), outbox.clone())),
            lifecycle: Arc::new(SqliteLifecycle::new(db.clone(), outbox.clone())),
            outbox,
            db,
        })
    }
}

async fn open_auth(config: &Arc<Config>, dependencies: &Dependencies, stores: &Stores) -> Result<Auth, StartError> {
    let (clock, random) = (dependencies.clock.clone(), dependencies.random.clone());
    let now = clock.now();
    let mut fresh = [0; 32];
    random.fill(&mut fresh);
    let keys = TokenKeys::new(stores.auth.token_keys(fresh, now).await?).ok_or(StartError::NoTokenKey)?;
    let revocations = Revocations::new(&keys, stores.auth.revocations(now).await?, now);
    let passwords = auth::passwords::Passwords::new(&config.passwords, random.clone())
        .map_err(|error| StartError::Config(format!("users.passwords: {error}")))?;
    let parts = AuthParts {
        keys,
        store: stores.auth.clone(),
        accounts: stores.accounts.clone(),
        clients: stores.clients.clone(),
        passwords,
        revocations,
        clock,
        random,
    };
    Ok(Auth::new(config.clone(), parts))
}

/// The capabilities, and what wakes the mailer.
struct Capabilities {
    app: App,
    administration: Administration,
    remotes: Remotes,
    mail: Arc<Notify>,
}

async fn open_capabilities(
    config: &Arc<Config>,
    dependencies: &Dependencies,
    stores: &Stores,
) -> Result<Capabilities, StartError> {
    let Dependencies { domain, clock, random, policy, verifier, peers, .. } = dependencies;
    let store = Arc::new(SqliteRemotes::new(stores.db.clone()));
    let strategy = config.federation.strategy;
    let remotes = Remotes::open(domain.clone(), strategy, store, policy.clone(), clock.clone()).await?;
    let auth = Arc::new(open_auth(config, dependencies, stores).await?);
    auth::grpc::feed_once(verifier, &auth.revocations().watch());
    let peers = UserPeers::new(peers);
    let leases = Leases::open(stores.clients.clone(), peers.clone()).await?;
    let mail = Arc::new(Notify::new());
    let accounts = AccountParts {
        domain: domain.clone(),
        store: stores.accounts.clone(),
        auth: auth.clone(),
        connections: stores.connections.clone(),
        peers: peers.clone(),
        mail: mail.clone(),
        clock: clock.clone(),
        random: random.clone(),
    };
    let cache = Arc::new(ClientCache::new());
    let lifecycle = LifecycleParts {
        domain: domain.clone(),
        store: stores.lifecycle.clone(),
        accounts: stores.accounts.clone(),
        auth: auth.clone(),
        clients: cache.clone(),
        mail: mail.clone(),
        clock: clock.clone(),
        random: random.clone(),
    };
    let clients = ClientParts {
        domain: domain.clone(),
        store: stores.clients.clone(),
        cache,
        auth: auth.clone(),
        peers: peers.clone(),
        leases,
        clock: clock.clone(),
    };
    let connections = ConnectionParts {
        domain: domain.clone(),
        store: stores.connections.clone(),
        accounts: stores.accounts.clone(),
        peers: peers.clone(),
        policy: policy.clone(),
        clock: clock.clone(),
        in_progress: InProgress::default(),
    };
    let lifecycle = Lifecycle::new(config.clone(), lifecycle);
    let administration = Administration::new(AdministrationParts {
        config: config.clone(),
        store: Arc::new(SqliteAdministration::new(stores.db.clone())),
        accounts: stores.accounts.clone(),
        clients: stores.clients.clone(),
        auth: auth.clone(),
        lifecycle: lifecycle.clone(),
        clock: clock.clone(),
    });
    let properties = Arc::new(SqliteProperties::new(stores.db.clone(), stores.outbox.clone()));
    let app = App::new(app::Parts {
        config: config.clone(),
        domain: domain.clone(),
        verifier: verifier.clone(),
        clock: clock.clone(),
        random: random.clone(),
        auth,
        accounts: Accounts::new(config.clone(), accounts),
        lifecycle,
        clients: Clients::new(config.clone(), clients),
        connections: Connections::new(config.clone(), connections),
        search: Search::new(domain.clone(), stores.accounts.clone(), peers, policy.clone()),
        servers: Servers::new(config.clone()),
        properties: Properties::new(config.clone(), properties),
    });
    Ok(Capabilities { app, administration, remotes, mail })
}

fn internal(capabilities: &Capabilities) -> Routes {
    let app = &capabilities.app;
    let mut routes = Routes::builder();
    routes
        .add_service(AuthGrpc(app.auth.revocations().watch()).server())
        .add_service(PolicyGrpc(capabilities.remotes.clone()).server())
        .add_service(ProfilesGrpc(app.accounts.clone()).server())
        .add_service(ClientsGrpc(app.clients.clone()).server())
        .add_service(ConnectionsGrpc(app.connections.clone()).server());
    routes.routes()
}

fn administration(
    capabilities: &Capabilities,
    outbox: &Outbox,
    reconciler: Reconciler,
    conversations: Channel,
) -> Routes {
    let Capabilities { app, administration, remotes, .. } = capabilities;
    let users = UserAdminGrpc {
        administration: administration.clone(),
        accounts: app.accounts.clone(),
        domain: app.domain.clone(),
    };
    let outboxes = OutboxAdminGrpc {
        administration: administration.clone(),
        users: aldis_delivery::OutboxServer::of(outbox.clone()),
        conversations,
    };
    let mut routes = Routes::builder();
    routes
        .add_service(users.server())
        .add_service(RemoteAdminGrpc { remotes: remotes.clone(), administration: administration.clone() }.server())
        .add_service(KeyAdminGrpc(administration.clone()).server())
        .add_service(AuditLogGrpc(administration.clone()).server())
        .add_service(outboxes.server())
        .add_service(aldis_delivery::users_outbox(outbox.clone()))
        .add_service(aldis_delivery::users_reconciliation(reconciler));
    routes.routes()
}

fn federated(
    app: &App,
    policy: &Policy,
    db: Db,
    receiving: aldis_delivery::Receiving,
    quotas: Arc<quotas::Quotas>,
    arrivals: Arrivals,
) -> Routes {
    let federation = Arc::new(Federation {
        domain: app.domain.clone(),
        policy: policy.clone(),
        accounts: app.accounts.clone(),
        clients: app.clients.clone(),
        connections: app.connections.clone(),
        search: app.search.clone(),
        quotas,
        arrivals,
    });
    let receive = federation.clone();
    let (domain, clock) = (app.domain.clone(), app.clock.clone());
    let delivery = aldis_delivery::users_server(domain, db, clock, policy.clone(), receiving, receive);
    let mut routes = Routes::builder();
    routes.add_service(federation.server()).add_service(delivery);
    routes.routes()
}

/// Checks the configuration, brings the tables up to date, and starts the service with its background work.
pub async fn start(config: Config, dependencies: Dependencies) -> Result<Service, StartError> {
    config.check().map_err(StartError::Config)?;
    let config = Arc::new(config);
    let stores = Stores::open(&dependencies).await?;
    let capabilities = open_capabilities(&config, &dependencies, &stores).await?;
    let Dependencies {
        domain,
        clock,
        policy,
        verifier,
        peers,
        notifications,
        conversations,
        receiving,
        outbox: bounds,
        ..
    } = dependencies;
    let to_conversations = conversations.clone();
    let quotas = Arc::new(quotas::Quotas::new(&config.federation.quotas));

    let mail = Arc::new(SqliteMail::new(stores.db.clone()));
    let mailer = Mailer::new(&config.mail, &domain, mail, clock.clone(), capabilities.mail.clone())?;
    let sweeper = Sweeper {
        config: config.clone(),
        accounts: stores.accounts.clone(),
        sessions: stores.auth.clone(),
        auth: capabilities.app.auth.clone(),
        lifecycle: stores.lifecycle.clone(),
        quotas: quotas.clone(),
        clock: clock.clone(),
    };
    let relays = Relays {
        peers,
        policy: policy.clone(),
        notifications: Some(notifications),
        conversations: Some(conversations),
        bounds,
    };
    let (arrivals, arrived) = Arrivals::new();
    let reconciler = Reconciler::new(
        Component::Users,
        Arc::new(Consents::new(capabilities.app.connections.clone(), quotas.clone())),
        Marks::new(stores.db.clone(), Component::Users),
        arrived,
        policy.clone(),
        clock.clone(),
    );
    let mut tasks = JoinSet::new();
    tasks.spawn(reconciler.clone().run(bounds.reconcile_every()));
    tasks.spawn(auth::grpc::feed(verifier, capabilities.app.auth.revocations().watch()));
    tasks.spawn(capabilities.remotes.clone().keep_current());
    let servers = capabilities.app.servers.clone();
    if servers.changes() {
        let dns =
            Dns::new(config.calls.dns_server).map_err(|error| StartError::Config(format!("users.calls: {error}")))?;
        tasks.spawn(servers.keep(Arc::new(dns)));
    }
    tasks.spawn(mailer.run());
    tasks.spawn(sweeper.run());
    tasks.spawn(stores.db.clone().measure_tables("users"));
    tasks.spawn(stores.outbox.clone().run(relays));
    let clean_up = CleanUp {
        domain,
        remotes: capabilities.remotes.clone(),
        connections: stores.connections.clone(),
        outbox: stores.outbox.clone(),
        clock,
    };
    tasks.spawn(clean_up.run());

    Ok(Service {
        internal: internal(&capabilities),
        administration: administration(&capabilities, &stores.outbox, reconciler, to_conversations),
        federation: Some(federated(&capabilities.app, &policy, stores.db.clone(), receiving, quotas, arrivals)),
        client: routes::router(capabilities.app),
        tasks,
    })
}
