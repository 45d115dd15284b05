//! What the processes of a backend have in common: store, locks, telemetry, listeners.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use aldis_api::{TokenVerifier, serve::Front};
use aldis_peers::Policy;
use aldis_runtime::{
    SharedClock, SharedRandom, SystemClock, SystemRandom,
    https::Https,
    listen,
    listen::{Door, Kind},
    operations::{self, Health},
    shutdown::Parts,
    telemetry::{self, Telemetry, TelemetryError},
};
use aldis_storage::{Db, DbOptions, ServiceLock, StoreError};
use anyhow::{Context as _, Result, ensure};
use axum::Router;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    engine,
    status::{self, Page, Sources},
};
use crate::{
    api::description,
    config::{Config, ServiceName},
};

/// The parts of a process while it is put together.
pub(super) struct Process {
    pub(super) parts: Parts,
    pub(super) clock: SharedClock,
    pub(super) random: SharedRandom,
    pub(super) verifier: TokenVerifier,
    pub(super) policy: Policy,
    name: String,
    https: Option<Https>,
    telemetry: Option<Telemetry>,
    metrics: Option<PrometheusHandle>,
    drain: Duration,
}

impl Process {
    /// Starts telemetry. `service` names the process.
    pub(super) fn begin(service: &str, config: &Config) -> Result<Self> {
        let metrics = telemetry::metrics()?;
        let name = format!("aldis-{service}");
        let telemetry = match Telemetry::start(&name, config.domain.as_str(), &config.log, &config.tracing) {
            Ok(telemetry) => Some(telemetry),
            // Another backend in this process, or a test, has set up logging for all.
            Err(TelemetryError::Started(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let mut parts = Parts::new();
        parts.background("metrics", operations::upkeep(metrics.clone()));
        tracing::info!(service, domain = %config.domain, version = env!("CARGO_PKG_VERSION"), "starting");
        Ok(Self { parts, name, telemetry, metrics: Some(metrics), ..Self::quiet(config) })
    }

    /// A process that logs nothing and serves nobody.
    pub(super) fn quiet(config: &Config) -> Self {
        Self {
            parts: Parts::new(),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            verifier: TokenVerifier::new(),
            policy: Policy::new(max_policy_age(config)),
            name: "aldis".to_owned(),
            https: None,
            telemetry: None,
            metrics: None,
            drain: Duration::from_secs(config.operations.drain_seconds),
        }
    }

    /// Serves the client API.
    pub(super) async fn serve_clients(&mut self, config: &Config, address: SocketAddr, routes: Router) -> Result<()> {
        let front = Front::new(routes, description(), config.client.clone(), self.verifier.clone());
        let front = front.map_err(anyhow::Error::msg)?;
        let door = match &config.client.tls {
            Some(tls) => {
                let https = Https::load(&tls.certificate_file, &tls.key_file)?;
                self.parts.background("certificate for clients", https.clone().follow(self.clock.clone()));
                self.https = Some(https.clone());
                Door::Https(https)
            }
            None => Door::Open,
        };
        let listener = bind("client", address).await?;
        tracing::info!(%address, https = self.https.is_some(), "serving clients");
        let serving = listen::serve(listener, Kind::Http, door, front, self.parts.stop());
        self.parts.listener("client", serving);
        Ok(())
    }

    /// Serves health, metrics and the status page.
    pub(super) async fn serve_operations(
        &mut self,
        config: &Config,
        address: SocketAddr,
        health: Health,
        sources: Sources,
    ) -> Result<()> {
        let Some(metrics) = self.metrics.clone() else { return Ok(()) };
        let listener = bind("operations", address).await?;
        let health = match self.https.clone() {
            Some(https) => {
                let clock = self.clock.clone();
                health.watch("https", move || std::future::ready(https.check(&clock)))
            }
            None => health,
        };
        let stop = self.parts.stop();
        let page = Page {
            domain: config.domain.clone(),
            process: self.name.clone(),
            started: self.clock.now(),
            clock: self.clock.clone(),
            health: health.clone(),
            policy: self.policy.clone(),
            sources,
        };
        let router = operations::router(health, metrics, stop).merge(status::router(page));
        // Goes on while others drain: whoever asks shall hear that we are stopping.
        self.parts.background(
            "operations",
            listen::serve(listener, Kind::Http, Door::Open, router, CancellationToken::new()),
        );
        Ok(())
    }

    /// Takes over a federator: it drains with the listeners.
    pub(super) fn adopt_federator(&mut self, mut tasks: JoinSet<()>, shutdown: CancellationToken) {
        let stop = self.parts.stop();
        self.parts.listener("federator", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                Some(ended) = tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "background task of the federator failed");
                    }
                    return;
                }
            }
            shutdown.cancel();
            while tasks.join_next().await.is_some() {}
        });
    }

    /// Tells clients with open sockets that we are going, once we are.
    pub(super) fn close_sockets_at_end(&mut self, sockets: aldis_notifications::Sockets) {
        let stop = self.parts.stop();
        self.parts.listener("sockets", async move {
            stop.cancelled().await;
            sockets.close_all();
        });
    }

    /// Runs until asked to stop.
    pub(super) async fn run(self, stop: impl Future<Output = ()>) -> Result<()> {
        tracing::info!("started");
        let outcome = self.parts.run(stop, self.drain).await;
        tracing::info!("stopped");
        if let Some(telemetry) = self.telemetry {
            telemetry.finish();
        }
        Ok(outcome?)
    }
}

fn max_policy_age(config: &Config) -> Duration {
    config.federation.as_ref().map_or(Duration::from_secs(60), aldis_federator::Config::max_policy_age)
}

/// The embedded store of this process, and what keeps other processes from owning the same services.
pub(super) struct Store {
    pub(super) db: Db,
    pub(super) locks: Vec<ServiceLock>,
}

/// How long a start waits for locks and ports that are taken: a process that was just killed holds them until its last
/// thread is gone.
const TAKEOVER: Duration = Duration::from_secs(5);
const TAKEOVER_PAUSE: Duration = Duration::from_millis(50);

/// When to give up what a process that is just ending may still hold.
struct Takeover(tokio::time::Instant);

impl Takeover {
    fn begin() -> Self {
        Self(tokio::time::Instant::now() + TAKEOVER)
    }

    /// Waits a moment; `false` when it is time to give up.
    async fn again(&self) -> bool {
        tokio::time::sleep(TAKEOVER_PAUSE).await;
        tokio::time::Instant::now() < self.0
    }
}

/// Opens a listener; waits a little for a process that is just ending.
pub(super) async fn bind(name: &str, address: SocketAddr) -> Result<TcpListener> {
    let takeover = Takeover::begin();
    loop {
        match listen::bind(name, address).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && takeover.again().await => {}
            outcome => return Ok(outcome?),
        }
    }
}

impl Store {
    /// Like [`Store::open`]; waits a little for a process that is just ending.
    pub(super) async fn take_over(config: &Config, services: &[ServiceName]) -> Result<Self> {
        let takeover = Takeover::begin();
        loop {
            match Self::open(config, services).await {
                Err(error) if is_held(&error) && takeover.again().await => {}
                outcome => return outcome,
            }
        }
    }

    /// Takes the locks of `services` and opens the store, which must be this domain's.
    pub(super) async fn open(config: &Config, services: &[ServiceName]) -> Result<Self> {
        engine::check(config, services)?;
        let domain = &config.domain;
        let config = &config.store;
        let locks = services
            .iter()
            .map(|service| ServiceLock::take(&config.path, service.as_str()))
            .collect::<Result<Vec<_>, _>>()
            .with_context(|| format!("store {}", config.path.display()))?;
        let options = DbOptions { readers: config.readers, max_pages: config.max_pages() };
        let db = Db::open(&config.path, &options).with_context(|| format!("store {}", config.path.display()))?;
        db.belongs_to(domain).await.with_context(|| format!("store {}", config.path.display()))?;
        Ok(Self { db, locks })
    }
}

fn is_held(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(StoreError::Locked(_)))
}

/// A probe that writes to the store.
pub(super) fn store_works(health: Health, store: &aldis_storage::Store) -> Health {
    let store = store.clone();
    health.require("store", move || {
        let store = store.clone();
        async move { store.works().await.map_err(|error| error.to_string()) }
    })
}

/// A probe for the keys with which tokens are checked.
pub(super) fn tokens_can_be_checked(verifier: &TokenVerifier) -> Result<(), String> {
    if verifier.is_ready() { Ok(()) } else { Err("no keys from users yet".to_owned()) }
}

/// Troubles of the federator, which do not make a process unready.
pub(super) fn federation_troubles(health: Health, federator: aldis_federator::Health) -> Health {
    health.watch("federation", move || {
        let troubles = federator.degraded();
        async move { if troubles.is_empty() { Ok(()) } else { Err(troubles.join("; ")) } }
    })
}

/// Opens the door for other backends.
pub(super) async fn ingress(federation: &aldis_federator::Config) -> Result<TcpListener> {
    bind("federation", federation.listen).await
}

/// A listener without TLS must not be reachable from outside this machine.
pub(super) fn on_loopback(key: &str, address: SocketAddr) -> Result<()> {
    ensure!(
        address.ip().is_loopback(),
        "configuration: `{key}` = {address}; allowed: a loopback address, or internal TLS (`services.ca_file` and the \
         service's certificate)"
    );
    Ok(())
}
