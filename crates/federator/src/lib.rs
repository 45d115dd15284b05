//! The federator: the only part that opens a connection to another backend, or accepts one.
//!
//! - [`Egress`] carries calls of our own services to other backends.
//! - The ingress proves who calls us, applies the policy and hands calls to our services.
//! - Discovery finds backends by DNS, identity proves them by their certificates, hello exchanges capabilities.
//!
//! Messages are never decoded here. What may be asked, and by whom, is decided by the services; that the asking backend
//! is who it claims to be is decided here.

mod config;
mod discovery;
mod egress;
mod failure;
mod health;
mod hello;
mod http2;
mod identity;
mod ingress;
mod metering;
pub mod network;
pub mod probe;
mod proxied;
mod relay;
mod rpc;
mod states;
mod tls;

use std::{sync::Arc, time::Duration};

use aldis_peers::Policy;
use aldis_proto::{
    channel::{self, Channel},
    internal::v1::peer_states_server::PeerStatesServer,
};
#[cfg(test)]
mod fuzz;
use aldis_runtime::{SharedClock, SharedRandom};
use aldis_types::Domain;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use self::{
    config::{Config, PATHS, Pin, StaticTarget, Trust},
    egress::Egress,
    health::Health,
    hello::{Capabilities, VERSIONS},
    tls::TlsError,
};
use self::{
    discovery::{Discovery, Dns, NoDns},
    egress::{PeerContext, Pool},
    hello::Greeter,
    identity::Identity,
    ingress::Ingress,
    network::{Accept, Network, TcpConnector},
    states::States,
    tls::{Pins, Tls},
};

/// Calls of one origin to us at the same time, as a multiple of what we allow ourselves towards it: a large partner has
/// several federators.
const ORIGIN_FACTOR: u32 = 4;

/// The federation servers of our own services.
#[derive(Clone)]
pub struct Components {
    /// Serves `Users` and `UsersDelivery`.
    pub users: Channel,
    /// Serves `Conversations` and `ConversationsDelivery`.
    pub conversations: Channel,
    /// Serves `Assets`, if this backend does.
    pub assets: Option<Channel>,
}

/// What a federator needs.
pub struct Dependencies {
    /// Our own domain.
    pub domain: Domain,
    /// Time of day.
    pub clock: SharedClock,
    /// Randomness.
    pub random: SharedRandom,
    /// The policy in force. Following the users service is left to the caller ([`Policy::follow`]).
    pub policy: Policy,
    /// What this backend tells peers about itself.
    pub capabilities: Capabilities,
    /// Where calls from outside go.
    pub components: Components,
    /// The components are reached over sockets: the proven origin is stated in metadata too, because request
    /// extensions don't travel.
    pub stated_origin: bool,
}

/// A running federator.
pub struct Service {
    /// Our services' channel to other backends, for services in this process.
    pub egress: Channel,
    /// The same for services in other processes, and `PeerStates`. The listener must be reachable by our own services
    /// alone.
    pub internal: Routes,
    /// Background work. None of it ends before shutdown; one that does is a failure of the process.
    pub tasks: JoinSet<()>,
    /// Cancel to stop: no more connections are accepted, open ones drain for some seconds.
    pub shutdown: CancellationToken,
    /// For `/readyz`.
    pub health: Health,
}

/// Why a federator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is wrong; the text names key, value and what is allowed.
    #[error("configuration: {0}")]
    Config(String),
    /// Certificates or trust.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Starts a federator that is reached on `ingress`; within a runtime.
pub fn start(config: Config, deps: Dependencies, ingress: tokio::net::TcpListener) -> Result<Service, StartError> {
    let resolver: Arc<dyn network::Resolve> = match Dns::new(config.dns) {
        Ok(dns) => Arc::new(dns),
        Err(error) => {
            tracing::warn!(%error, "no usable DNS settings: only static targets can be reached");
            Arc::new(NoDns(error.to_string()))
        }
    };
    start_on(config, deps, ingress, Network { connector: Arc::new(TcpConnector), resolver })
}

/// Starts a federator on any network; within a runtime.
pub fn start_on(
    config: Config,
    deps: Dependencies,
    ingress: impl Accept + 'static,
    network: Network,
) -> Result<Service, StartError> {
    config.check().map_err(StartError::Config)?;
    metering::describe();
    let pins = Arc::new(Pins::new(&config));
    let tls = Tls::load(&config, pins.clone(), deps.clock.clone())?;
    let discovery = Arc::new(Discovery::new(&config, network.resolver));
    let shutdown = CancellationToken::new();
    let identity =
        Arc::new(Identity::new(discovery.clone(), tls.clone(), pins, deps.policy.clone(), deps.clock.clone()));
    let pool = Pool::new(Arc::new(PeerContext {
        domain: deps.domain.clone(),
        capabilities: deps.capabilities.clone(),
        policy: deps.policy.clone(),
        clock: deps.clock.clone(),
        random: deps.random,
        tls: tls.clone(),
        discovery,
        connector: network.connector,
        connect_timeout: config.connect_timeout(),
        call_deadline: config.call_deadline(),
        connection_max_age: config.connection_max_age(),
        max_calls: config.max_concurrent_per_peer as usize,
        max_streams: config.max_streams_per_peer as usize,
        max_transfers: config.max_transfers_per_peer as usize,
        transfer_idle: config.transfer_idle(),
        max_bytes: config.max_message_bytes,
        breaker_failures: config.breaker_failures,
        breaker_pause: Duration::from_millis(config.breaker_pause_ms),
        health_check: config.health_check(),
        shutdown: shutdown.clone(),
    }));
    let inward = Arc::new(Ingress {
        domain: deps.domain,
        policy: deps.policy,
        greeter: Greeter::server(deps.capabilities, deps.clock.clone()),
        clock: deps.clock,
        identity,
        tls: tls.clone(),
        pool: pool.clone(),
        components: deps.components,
        origins: ingress::Origins::new(config.max_concurrent_per_peer.saturating_mul(ORIGIN_FACTOR) as usize),
        stated_origin: deps.stated_origin,
        continue_traces: config.continue_traces,
        call_deadline: config.call_deadline(),
        transfer_idle: config.transfer_idle(),
        max_bytes: config.max_message_bytes,
        max_connections: config.max_connections as usize,
        max_streams: config.max_streams_per_connection,
        max_age: config.connection_max_age(),
        proxies: config.proxies().map_err(StartError::Config)?,
        shutdown: shutdown.clone(),
    });

    let mut tasks = JoinSet::new();
    tasks.spawn(inward.run(ingress));
    tasks.spawn(until(shutdown.clone(), tls.clone().follow()));
    tasks.spawn(until(shutdown.clone(), pool.clone().maintain()));
    let egress = Egress::new(pool.clone());
    let states = Routes::new(PeerStatesServer::new(States(pool.clone())));
    let internal = Routes::from(states.into_axum_router().fallback_service(egress.clone()));
    let health = Health::new(pool, tls);
    Ok(Service { egress: channel::boxed(egress), internal, tasks, shutdown, health })
}

async fn until(shutdown: CancellationToken, work: impl Future<Output = ()>) {
    let _ = shutdown.run_until_cancelled(work).await;
}

#[cfg(test)]
mod tests;
