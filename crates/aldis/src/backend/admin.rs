//! The door for administration: a Unix socket beside the store, and the store itself when nobody runs.

use std::{
    path::Path,
    task::{Context as TaskContext, Poll},
};

use aldis_peers::Peers;
use aldis_proto::channel::{Channel, ChannelError, InProcess, NotServing, boxed};
use aldis_runtime::{listen, listen::LocalPeer};
use aldis_storage::StoreError;
use anyhow::Result;
use bytes::Bytes;
use futures::future::BoxFuture;
use tonic::{body::Body, service::Routes};
use tower::{BoxError, Service, ServiceExt as _, service_fn};

use super::{
    parts::{Process, Store},
    start,
};
use crate::config::{Config, ServiceName, StoreConfig};

/// Serves administration beside the store.
pub(super) fn serve(process: &mut Process, store: &StoreConfig, administration: Administration) -> std::io::Result<()> {
    let listener = listen::bind_unix(&store.socket())?;
    let serving = listen::serve_unix(listener, administration, process.parts.stop());
    process.parts.listener("administration", serving);
    Ok(())
}

/// Sends administration to the service that answers it.
#[derive(Clone)]
pub(super) struct Administration {
    pub(super) users: Channel,
    pub(super) conversations: Channel,
    /// What the federator knows, if there is one.
    pub(super) peer_states: Option<Channel>,
}

const USERS: [&str; 7] = [
    "/aldis.internal.v1.UserAdmin/",
    "/aldis.internal.v1.RemoteAdmin/",
    "/aldis.internal.v1.KeyAdmin/",
    "/aldis.internal.v1.AuditLog/",
    "/aldis.internal.v1.OutboxAdmin/",
    "/aldis.internal.v1.UsersOutbox/",
    "/aldis.internal.v1.UsersReconciliation/",
];
const OUTBOX: &str = "/aldis.internal.v1.ConversationsOutbox/";
const RECONCILIATION: &str = "/aldis.internal.v1.ConversationsReconciliation/";
const PEER_STATES: &str = "/aldis.internal.v1.PeerStates/";

impl<B> Service<http::Request<B>> for Administration
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<Body>;
    type Error = ChannelError;
    type Future = BoxFuture<'static, Result<Self::Response, ChannelError>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), ChannelError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let path = request.uri().path();
        let channel = if USERS.iter().any(|prefix| path.starts_with(prefix)) {
            Some(self.users.clone())
        } else if path.starts_with(OUTBOX) || path.starts_with(RECONCILIATION) {
            Some(self.conversations.clone())
        } else if path.starts_with(PEER_STATES) {
            self.peer_states.clone()
        } else {
            None
        };
        Box::pin(async move {
            match channel {
                Some(channel) => channel.oneshot(request.map(Body::new)).await,
                None => Ok(tonic::Status::unimplemented("not part of administration here").into_http()),
            }
        })
    }
}

/// The users service of a backend that does not run, for administration alone.
pub(crate) struct Offline {
    pub(crate) channel: Channel,
    _users: aldis_users::Service,
    _store: Store,
}

impl Offline {
    /// Opens the store. `None` when a process runs that owns it.
    pub(crate) async fn open(config: &Config) -> Result<Option<Self>> {
        let Some((store, owns_conversations)) = Self::take(config).await? else { return Ok(None) };
        let process = Process::quiet(config);
        let start = start::Context { config, process: &process, peers: Peers::new(InProcess::new().channel()) };
        // What is left to tell the others waits in the store until the backend runs.
        let conversations = InProcess::new();
        conversations.serve(if owns_conversations {
            let (domain, clock) = (config.domain.clone(), process.clock.clone());
            aldis_conversations::administration_at_rest(domain, store.db.clone(), clock).await?
        } else {
            Routes::new(aldis_delivery::conversations_outbox_to_read(store.db.clone()))
        });
        let mut users =
            start.users(&store.db, InProcess::new().channel(), outbox_alone(conversations.channel())).await?;
        let place = InProcess::new();
        place.serve(std::mem::take(&mut users.administration));
        let administration =
            Administration { users: place.channel(), conversations: conversations.channel(), peer_states: None };
        let channel = boxed(administration.map_request(|mut request: http::Request<Body>| {
            let pid = Some(std::process::id());
            request.extensions_mut().insert(LocalPeer { uid: rustix::process::getuid().as_raw(), pid });
            request
        }));
        Ok(Some(Self { channel, _users: users, _store: store }))
    }

    /// Takes the store for both services that have outboxes, or, when conversations runs by itself, for users alone; says
    /// whether for both.
    async fn take(config: &Config) -> Result<Option<(Store, bool)>> {
        for services in [&[ServiceName::Users, ServiceName::Conversations][..], &[ServiceName::Users]] {
            match Store::open(config, services).await {
                Ok(store) => return Ok(Some((store, services.len() > 1))),
                Err(error) if matches!(error.downcast_ref(), Some(StoreError::Locked(_))) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// The conversations service of a backend that does not run: its outbox is there, everything else waits.
fn outbox_alone(conversations: Channel) -> Channel {
    boxed(service_fn(move |request: http::Request<Body>| {
        let conversations = conversations.clone();
        async move {
            if request.uri().path().starts_with(OUTBOX) {
                conversations.oneshot(request).await
            } else {
                Err(ChannelError::new(NotServing))
            }
        }
    }))
}

/// Opens the store of a backend that does not run, and leaves it as it is.
pub(crate) async fn store_opens(config: &Config) -> Result<()> {
    Store::open(config, &ServiceName::ALL).await.map(drop)
}

/// Whether somebody listens on the administration socket.
pub(crate) fn answers(socket: &Path) -> bool {
    listen::unix_answers(socket)
}
