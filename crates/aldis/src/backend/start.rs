//! Starting each service with what it needs, whichever process it is in.

use std::{
    sync::{Arc, OnceLock},
    task::{Context as TaskContext, Poll},
};

use aldis_api::label;
use aldis_peers::Peers;
use aldis_proto::{
    channel::{Channel, ChannelError, NotServing, boxed},
    error,
    federation::v1::Hop,
    metadata,
};
use anyhow::{Context as _, Result};
use futures::{
    FutureExt as _,
    future::{BoxFuture, ready},
};
use tokio::net::TcpListener;
use tonic::{Code, body::Body, metadata::MetadataValue};
use tower::{BoxError, Service, ServiceExt as _, service_fn};

use super::parts::Process;
use crate::config::Config;

/// Kinds of envelopes of users' lanes that the users service understands: a rescinded connection request.
const USERS_KINDS: &[u32] = aldis_users::EVENT_KINDS;

/// What every service gets.
pub(super) struct Context<'a> {
    pub(super) config: &'a Config,
    pub(super) process: &'a Process,
    pub(super) peers: Peers,
}

impl Context<'_> {
    fn receiving(&self) -> aldis_delivery::Receiving {
        self.config.federation.as_ref().map_or_else(aldis_delivery::Receiving::default, |federation| {
            aldis_delivery::Receiving {
                continue_traces: federation.continue_traces,
                max_message_bytes: usize::try_from(federation.max_message_bytes).unwrap_or(usize::MAX),
            }
        })
    }

    pub(super) async fn notifications(
        &self,
        store: aldis_storage::Store,
        users: Channel,
    ) -> Result<aldis_notifications::Service> {
        let dependencies = aldis_notifications::Dependencies {
            domain: self.config.domain.clone(),
            store,
            clock: self.process.clock.clone(),
            random: self.process.random.clone(),
            verifier: self.process.verifier.clone(),
            users,
        };
        aldis_notifications::start(self.config.notifications.clone(), dependencies).await.context("notifications")
    }

    pub(super) async fn users(
        &self,
        db: &aldis_storage::Db,
        notifications: Channel,
        conversations: Channel,
    ) -> Result<aldis_users::Service> {
        let dependencies = aldis_users::Dependencies {
            domain: self.config.domain.clone(),
            db: db.clone(),
            clock: self.process.clock.clone(),
            random: self.process.random.clone(),
            policy: self.process.policy.clone(),
            verifier: self.process.verifier.clone(),
            peers: self.peers.clone(),
            notifications,
            conversations,
            receiving: self.receiving(),
            outbox: self.config.outbox,
        };
        aldis_users::start(self.config.users.clone(), dependencies).await.context("users")
    }

    pub(super) async fn conversations(
        &self,
        db: &aldis_storage::Db,
        users: Channel,
        notifications: Channel,
    ) -> Result<aldis_conversations::Service> {
        let dependencies = aldis_conversations::Dependencies {
            domain: self.config.domain.clone(),
            db: db.clone(),
            clock: self.process.clock.clone(),
            random: self.process.random.clone(),
            policy: self.process.policy.clone(),
            verifier: self.process.verifier.clone(),
            peers: self.peers.clone(),
            users,
            notifications,
            receiving: self.receiving(),
            outbox: self.config.outbox,
        };
        aldis_conversations::start(self.config.conversations.clone(), dependencies).await.context("conversations")
    }

    pub(super) async fn assets(
        &self,
        store: aldis_storage::Store,
        conversations: Option<Channel>,
    ) -> Result<aldis_assets::Service> {
        let dependencies = aldis_assets::Dependencies {
            domain: self.config.domain.clone(),
            store,
            clock: self.process.clock.clone(),
            random: self.process.random.clone(),
            policy: self.process.policy.clone(),
            verifier: self.process.verifier.clone(),
            peers: self.peers.clone(),
            conversations,
            folder: self.config.store.folder(),
        };
        aldis_assets::start(self.config.assets.clone(), dependencies).await.context("assets")
    }

    pub(super) fn federator(
        &self,
        federation: &aldis_federator::Config,
        components: aldis_federator::Components,
        stated_origin: bool,
        ingress: TcpListener,
    ) -> Result<aldis_federator::Service> {
        let capabilities = capabilities(federation, &self.config.assets);
        let dependencies = aldis_federator::Dependencies {
            domain: self.config.domain.clone(),
            clock: self.process.clock.clone(),
            random: self.process.random.clone(),
            policy: self.process.policy.clone(),
            capabilities,
            components,
            stated_origin,
        };
        aldis_federator::start(federation.clone(), dependencies, ingress).context("federator")
    }
}

/// What this build understands and takes.
pub(crate) fn capabilities(
    federation: &aldis_federator::Config,
    assets: &aldis_assets::Config,
) -> aldis_federator::Capabilities {
    aldis_federator::Capabilities::of_this_build(
        USERS_KINDS.to_vec(),
        aldis_conversations::KINDS.to_vec(),
        federation.max_message_bytes,
    )
    .fetching_assets(assets.remote.max_bytes, assets.remote.types.clone())
}

/// The channel of a backend without `[federation]`: every call fails with `federation-not-enabled`.
pub(super) fn no_federation() -> Channel {
    boxed(service_fn(|_: http::Request<Body>| {
        let row = label::FEDERATION_NOT_ENABLED;
        let mut status = error::status(Code::FailedPrecondition, Hop::OwnFederator, row.label, "", row.message);
        status.metadata_mut().insert(metadata::OWN_FAILURE, MetadataValue::from_static("1"));
        ready(Ok::<_, BoxError>(status.into_http()))
    }))
}

/// The way to other backends, which also answers what our federator knows of them, as its listener does for services
/// in other processes.
pub(super) fn with_peer_states(egress: Channel, states: Channel) -> Channel {
    boxed(service_fn(move |request: http::Request<Body>| {
        let inside = request.uri().path().starts_with("/aldis.internal.v1.");
        let channel = if inside { states.clone() } else { egress.clone() };
        channel.oneshot(request)
    }))
}

/// A place for a channel that does not exist yet.
#[derive(Clone, Default)]
pub(super) struct Later(Arc<OnceLock<Channel>>);

impl Later {
    pub(super) fn channel(&self) -> Channel {
        boxed(self.clone())
    }

    /// Puts the channel in place. Only the first call has an effect.
    pub(super) fn serve_channel(&self, channel: Channel) {
        let _ = self.0.set(channel);
    }
}

impl Service<http::Request<Body>> for Later {
    type Response = http::Response<Body>;
    type Error = ChannelError;
    type Future = BoxFuture<'static, Result<Self::Response, ChannelError>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), ChannelError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self.0.get() {
            Some(channel) => channel.clone().oneshot(request).boxed(),
            None => ready(Err(ChannelError::new(NotServing))).boxed(),
        }
    }
}
