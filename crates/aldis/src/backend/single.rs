//! One service in a process of its own, talking to the others by gRPC.

use std::{net::SocketAddr, sync::Arc};

use aldis_delivery::Component;
use aldis_peers::{Peers, federation_listener};
use aldis_proto::channel::Channel;
use aldis_runtime::{
    channel, listen,
    listen::{Door, Guard, Kind},
    operations::Health,
    telemetry::Traced,
    workload::{Workload, workload_name},
};
use aldis_storage::Store as Stored;
use anyhow::{Context as _, Result};
use tokio::task::JoinSet;
use tonic::service::{Routes, interceptor::InterceptedService};

use super::{
    admin::{self, Administration},
    engine,
    parts::{Process, Store, bind, federation_troubles, ingress, on_loopback, store_works, tokens_can_be_checked},
    start,
    status::Sources,
};
use crate::config::{Config, ServiceConfig, ServiceName};

/// Runs one service until `stop`, or until a signal asks it to.
pub(crate) async fn run(name: ServiceName, config: Config, stop: impl Future<Output = ()>) -> Result<()> {
    let process = Process::begin(name.as_str(), &config)?;
    let own = config.services.of(name);
    let mut single = Single { name, config: &config, own, workload: workload(name, &config)?, process };
    if let Some(workload) = single.workload.clone() {
        single.process.parts.background("certificates", workload.follow());
    }
    match name {
        ServiceName::Users => single.users(stop).await,
        ServiceName::Conversations => single.conversations(stop).await,
        ServiceName::Assets => single.assets(stop).await,
        ServiceName::Notifications => single.notifications(stop).await,
        ServiceName::Federator => single.federator(stop).await,
    }
}

/// Our certificate for internal connections, if internal TLS is set up.
fn workload(name: ServiceName, config: &Config) -> Result<Option<Workload>> {
    let own = config.services.of(name);
    let (Some(ca), Some(certificate), Some(key)) = (&config.services.ca_file, &own.certificate_file, &own.key_file)
    else {
        return Ok(None);
    };
    Ok(Some(Workload::load(ca, certificate, key)?))
}

struct Single<'a> {
    name: ServiceName,
    config: &'a Config,
    own: &'a ServiceConfig,
    workload: Option<Workload>,
    process: Process,
}

impl Single<'_> {
    fn needed<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        let service = self.name.as_str();
        value.with_context(|| format!("configuration: key `services.{service}.{key}` is missing"))
    }

    /// The channel to another service's internal listener.
    fn internal_of(&self, name: ServiceName) -> Result<Channel> {
        let service = self.config.services.of(name);
        self.channel(name, "internal", service.internal_address.as_deref(), service.internal)
    }

    /// The channel to another service's federation listener.
    fn federation_of(&self, name: ServiceName) -> Result<Channel> {
        let service = self.config.services.of(name);
        self.channel(name, "federation", service.federation_address.as_deref(), service.federation)
    }

    fn channel(
        &self,
        name: ServiceName,
        kind: &str,
        address: Option<&str>,
        listener: Option<SocketAddr>,
    ) -> Result<Channel> {
        let listener = listener.map(|address| address.to_string());
        let address = address.map(str::to_owned).or(listener).with_context(|| {
            let service = name.as_str();
            format!("configuration: `services.{service}.{kind}` or `services.{service}.{kind}_address` is missing")
        })?;
        let expected = workload_name(name.as_str(), self.config.domain.as_str());
        Ok(channel::lazy(&address, self.workload.as_ref(), &expected)?)
    }

    /// What our federator knows of other backends.
    fn peer_states(&self) -> Result<Option<Channel>> {
        self.config.federation.as_ref().map(|_| self.internal_of(ServiceName::Federator)).transpose()
    }

    /// Our federator.
    fn peers(&self) -> Result<Peers> {
        if self.config.federation.is_none() {
            return Ok(Peers::new(start::no_federation()));
        }
        Ok(Peers::new(self.internal_of(ServiceName::Federator)?))
    }

    fn door(&self, key: &str, address: SocketAddr, callers: &[ServiceName]) -> Result<Door> {
        let Some(workload) = self.workload.clone() else {
            on_loopback(&format!("services.{}.{key}", self.name.as_str()), address)?;
            return Ok(Door::Open);
        };
        let domain = self.config.domain.as_str();
        let callers: Arc<[String]> = callers.iter().map(|it| workload_name(it.as_str(), domain)).collect();
        Ok(Door::Internal(Guard { workload, callers }))
    }

    /// Serves our other services.
    async fn serve_internal(&mut self, routes: Routes) -> Result<()> {
        let address = self.needed("internal", self.own.internal)?;
        let door = self.door("internal", address, &ServiceName::ALL)?;
        let listener = bind("internal", address).await?;
        let serving = listen::serve(listener, Kind::Grpc, door, Traced(routes), self.process.parts.stop());
        self.process.parts.listener("internal", serving);
        Ok(())
    }

    /// Serves our federator, which states on whose behalf it calls.
    async fn serve_federation(&mut self, routes: Option<Routes>) -> Result<()> {
        let Some(routes) = routes else { return Ok(()) };
        if self.config.federation.is_none() {
            return Ok(());
        }
        let address = self.needed("federation", self.own.federation)?;
        let door = self.door("federation", address, &[ServiceName::Federator])?;
        let listener = bind("federation", address).await?;
        let service = Traced(InterceptedService::new(routes, federation_listener));
        let serving = listen::serve(listener, Kind::Grpc, door, service, self.process.parts.stop());
        self.process.parts.listener("federation", serving);
        Ok(())
    }

    async fn serve_clients(&mut self, routes: axum::Router) -> Result<()> {
        let address = self.needed("client", self.own.client)?;
        self.process.serve_clients(self.config, address, routes).await
    }

    /// Follows what users says about tokens and other backends.
    fn follow_users(&mut self) -> Result<()> {
        let users = self.internal_of(ServiceName::Users)?;
        let (verifier, policy) = (self.process.verifier.clone(), self.process.policy.clone());
        self.process.parts.background("tokens", verifier.follow(users.clone()));
        self.process.parts.background("policy", policy.follow(users));
        Ok(())
    }

    /// Opens the last listener and runs.
    async fn finish(
        mut self,
        tasks: JoinSet<()>,
        health: Health,
        sources: Sources,
        stop: impl Future<Output = ()>,
    ) -> Result<()> {
        self.process.parts.adopt(self.name.as_str(), tasks);
        let address = self.needed("operations", self.own.operations)?;
        self.process.serve_operations(self.config, address, health, sources).await?;
        self.process.run(stop).await
    }

    /// Readiness of a service whose tokens are checked with keys from users: it does not wait for them.
    fn health(&self, store: &Stored) -> Health {
        let health = store_works(Health::new(), store);
        let verifier = self.process.verifier.clone();
        let health = health.watch("tokens", move || std::future::ready(tokens_can_be_checked(&verifier)));
        self.knows_policy(health)
    }

    /// Shows when every other backend is refused for want of a policy.
    fn knows_policy(&self, health: Health) -> Health {
        let policy = self.process.policy.clone();
        health.watch("policy", move || {
            let known = policy.current().version > 0;
            std::future::ready(if known {
                Ok(())
            } else {
                Err("none from users, every other backend is refused".into())
            })
        })
    }

    fn context(&self, peers: Peers) -> start::Context<'_> {
        start::Context { config: self.config, process: &self.process, peers }
    }

    async fn users(mut self, stop: impl Future<Output = ()>) -> Result<()> {
        let Store { db, locks: _locks } = Store::take_over(self.config, &[self.name]).await?;
        let notifications = self.internal_of(ServiceName::Notifications)?;
        let conversations = self.internal_of(ServiceName::Conversations)?;
        let service = self.context(self.peers()?).users(&db, notifications, conversations).await?;
        let health = self.health(&Stored::Embedded(db.clone()));
        let peer_states = self.peer_states()?;
        let sources =
            Sources { peers: peer_states.clone(), federator: None, outboxes: Some((db.clone(), &[Component::Users])) };
        let administered = aldis_proto::channel::InProcess::new();
        administered.serve(service.administration);
        self.serve_internal(service.internal).await?;
        self.serve_federation(service.federation).await?;
        self.serve_clients(service.client).await?;
        let administration = Administration {
            users: administered.channel(),
            conversations: self.internal_of(ServiceName::Conversations)?,
            peer_states,
        };
        admin::serve(&mut self.process, &self.config.store, administration).context("administration socket")?;
        self.finish(service.tasks, health, sources, stop).await
    }

    async fn conversations(mut self, stop: impl Future<Output = ()>) -> Result<()> {
        let Store { db, locks: _locks } = Store::take_over(self.config, &[self.name]).await?;
        let users = self.internal_of(ServiceName::Users)?;
        let notifications = self.internal_of(ServiceName::Notifications)?;
        let service = self.context(self.peers()?).conversations(&db, users, notifications).await?;
        let health = self.health(&Stored::Embedded(db.clone()));
        let outboxes = Some((db.clone(), &[Component::Conversations][..]));
        let sources = Sources { peers: self.peer_states()?, federator: None, outboxes };
        self.follow_users()?;
        self.serve_internal(service.internal).await?;
        self.serve_federation(service.federation).await?;
        self.serve_clients(service.client).await?;
        self.finish(service.tasks, health, sources, stop).await
    }

    async fn notifications(mut self, stop: impl Future<Output = ()>) -> Result<()> {
        let (store, _locks) = engine::open(self.config, self.name).await?;
        let users = self.internal_of(ServiceName::Users)?;
        let service = self.context(self.peers()?).notifications(store.clone(), users).await?;
        let health = self.health(&store);
        self.follow_users()?;
        self.process.close_sockets_at_end(service.sockets);
        self.serve_internal(service.internal).await?;
        self.serve_clients(service.client).await?;
        self.finish(service.tasks, health, Sources::default(), stop).await
    }

    async fn assets(mut self, stop: impl Future<Output = ()>) -> Result<()> {
        let (store, _locks) = engine::open(self.config, self.name).await?;
        let refuses = self.config.assets.refuse_early;
        let conversations = refuses.then(|| self.internal_of(ServiceName::Conversations)).transpose()?;
        let service = self.context(self.peers()?).assets(store.clone(), conversations).await?;
        let health = self.health(&store);
        self.follow_users()?;
        self.serve_internal(service.internal).await?;
        if self.own.federation.is_some() {
            self.serve_federation(service.federation).await?;
        } else if self.config.federation.is_some() {
            tracing::warn!("no `services.assets.federation`: other backends cannot fetch assets from here");
        }
        self.serve_clients(service.client).await?;
        self.finish(service.tasks, health, Sources::default(), stop).await
    }

    async fn federator(mut self, stop: impl Future<Output = ()>) -> Result<()> {
        let federation = self.config.federation.as_ref().context("configuration: section `[federation]` is missing")?;
        let components = aldis_federator::Components {
            users: self.federation_of(ServiceName::Users)?,
            conversations: self.federation_of(ServiceName::Conversations)?,
            assets: match self.config.services.assets {
                // Written before other backends could fetch assets.
                ServiceConfig { federation: None, federation_address: None, .. } => None,
                _ => Some(self.federation_of(ServiceName::Assets)?),
            },
        };
        let listener = ingress(federation).await?;
        let peers = Peers::new(start::no_federation());
        let service = self.context(peers).federator(federation, components, true, listener)?;
        let users = self.internal_of(ServiceName::Users)?;
        self.process.parts.background("policy", self.process.policy.clone().follow(users));
        let states = aldis_proto::channel::InProcess::new();
        states.serve(service.internal.clone());
        let federator = Some(service.health.clone());
        let sources = Sources { peers: Some(states.channel()), federator, outboxes: None };
        let health = federation_troubles(self.knows_policy(Health::new()), service.health);
        self.process.adopt_federator(service.tasks, service.shutdown);
        self.serve_internal(service.internal).await?;
        self.finish(JoinSet::new(), health, sources, stop).await
    }
}
