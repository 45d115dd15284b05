//! Calls of other backends to us.
//!
//! It guarantees that whatever reaches a service comes with an origin that our policy allows and that a certificate
//! proves, never our own domain; that it carries no metadata but what may pass; and that connections and streams end
//! when policy, proof, certificate or age end. What a caller may do is left to the services.

mod call;
mod connection;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use aldis_peers::Policy;
use aldis_proto::{channel::Channel, federation::v1::federator_server::FederatorServer};
use aldis_runtime::{
    SharedClock,
    http2::{KEEP_ALIVE, KEEP_ALIVE_TIMEOUT, STREAM_WINDOW},
    networks::Networks,
};
use aldis_types::Domain;
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::AsyncReadExt,
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub(crate) use self::call::Origins;
use self::connection::{Callers, review};
use crate::{
    Components,
    egress::Pool,
    hello::Greeter,
    http2::{CONNECTION_WINDOW, DRAIN, MAX_HEADER_BYTES},
    identity::{Identity, Shown},
    metering,
    network::{Accept, Io},
    proxied,
    tls::Tls,
};

/// Time for a TLS handshake with us.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes at the same time.
const MAX_HANDSHAKES: usize = 256;
/// How long a refused caller is given to read why.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: u64 = 64 * 1024;
/// Pause after the system refused to accept.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

pub(crate) struct Ingress {
    pub(crate) domain: Domain,
    pub(crate) policy: Policy,
    pub(crate) clock: SharedClock,
    pub(crate) identity: Arc<Identity>,
    pub(crate) tls: Arc<Tls>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) components: Components,
    pub(crate) greeter: FederatorServer<Greeter>,
    pub(crate) origins: Origins,
    pub(crate) stated_origin: bool,
    pub(crate) continue_traces: bool,
    pub(crate) call_deadline: Duration,
    pub(crate) transfer_idle: std::time::Duration,
    pub(crate) max_bytes: u64,
    pub(crate) max_connections: usize,
    pub(crate) max_streams: u32,
    pub(crate) max_age: Duration,
    /// Whose connections begin with a PROXY header.
    pub(crate) proxies: Networks,
    pub(crate) shutdown: CancellationToken,
}

impl Ingress {
    /// The service that answers for a component; `None` when this backend has none.
    fn channel(&self, component: crate::rpc::Component) -> Option<Channel> {
        match component {
            crate::rpc::Component::Users => Some(self.components.users.clone()),
            crate::rpc::Component::Conversations => Some(self.components.conversations.clone()),
            crate::rpc::Component::Assets => self.components.assets.clone(),
            crate::rpc::Component::Federator => Some(aldis_proto::channel::boxed(self.greeter.clone())),
        }
    }

    /// Accepts connections until shutdown, then lets them drain.
    pub(crate) async fn run(self: Arc<Self>, mut listener: impl Accept) {
        let places = Arc::new(Semaphore::new(self.max_connections));
        let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = self.shutdown.cancelled() => break,
            };
            let (io, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a federation connection could not be accepted");
                    sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            let (Ok(place), Ok(handshake)) =
                (places.clone().try_acquire_owned(), handshakes.clone().try_acquire_owned())
            else {
                metering::refused("too-many-connections");
                continue;
            };
            let ingress = self.clone();
            connections.spawn(async move {
                let _place = place;
                let accepted = ingress.handshake(io, address).await;
                drop(handshake);
                if let Some((tls, shown, address)) = accepted {
                    ingress.serve(tls, shown, address).await;
                }
            });
        }
        drop(listener);
        let _ = timeout(DRAIN + HANDSHAKE, async { while connections.join_next().await.is_some() {} }).await;
    }

    /// Where the connection comes from, who the caller says it is by its certificate, and the connection itself.
    async fn handshake(&self, mut io: Box<dyn Io>, mut address: SocketAddr) -> Option<(TlsStream, Shown, SocketAddr)> {
        let deadline = Instant::now() + HANDSHAKE;
        if self.proxies.contains(address.ip()) {
            match timeout_at(deadline, proxied::read(&mut io)).await {
                Ok(Ok(source)) => address = source.unwrap_or(address),
                Ok(Err(error)) => {
                    tracing::warn!(%address, %error, "a trusted proxy does not say where a connection comes from");
                    metering::refused("proxy-protocol");
                    return None;
                }
                Err(_) => {
                    metering::refused("proxy-protocol");
                    return None;
                }
            }
        }
        let acceptor = TlsAcceptor::from(self.tls.current().server.clone());
        let tls = match timeout_at(deadline, acceptor.accept(io).into_fallible()).await {
            Ok(Ok(tls)) => tls,
            Ok(Err((error, io))) => {
                tracing::debug!(%address, %error, "TLS handshake refused");
                metering::refused("tls");
                linger(io).await;
                return None;
            }
            Err(_) => {
                metering::refused("tls-timeout");
                return None;
            }
        };
        let session = tls.get_ref().1;
        let shown = session.peer_certificates().and_then(Shown::new);
        if session.alpn_protocol() != Some(b"h2") || shown.is_none() {
            metering::refused("protocol");
            return None;
        }
        shown.map(|shown| (tls, shown, address))
    }

    async fn serve(self: Arc<Self>, tls: TlsStream, shown: Shown, address: SocketAddr) {
        let callers = Arc::new(Callers::new(shown));
        let ingress = self.clone();
        let state = callers.clone();
        let service = service_fn(move |request| {
            let (ingress, callers) = (ingress.clone(), state.clone());
            async move { Ok::<_, Infallible>(ingress.answer(&callers, request).await) }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(self.max_streams)
            // When we stood still for a while, every call that was given up meanwhile arrives together with its end.
            .max_pending_accept_reset_streams(self.max_streams as usize)
            .max_header_list_size(MAX_HEADER_BYTES)
            .serve_connection(TokioIo::new(tls), service);
        tokio::pin!(connection);

        let life = self.max_age.min(callers.shown.not_after.since(self.clock.now()));
        let reviewing = review(&self, &callers, Instant::now() + life);
        tokio::pin!(reviewing);
        let end = tokio::select! {
            outcome = connection.as_mut() => {
                if let Err(error) = outcome {
                    tracing::debug!(%address, %error, "a federation connection broke");
                }
                return;
            }
            end = &mut reviewing => end,
            () = self.shutdown.cancelled() => "shutdown",
        };
        tracing::debug!(%address, reason = end, "a federation connection ends");
        // Streams of an origin that lost its standing were ended already; others get time to finish.
        connection.as_mut().graceful_shutdown();
        let drained = tokio::select! {
            drained = timeout(DRAIN, connection.as_mut()) => drained,
            // Policy and proofs hold to the end.
            never = async { loop { review(&self, &callers, Instant::now() + 2 * DRAIN).await; } } => never,
        };
        callers.end_all();
        if drained.is_err() {
            // Gives the ends of streams a moment to leave.
            let _ = timeout(LINGER, connection.as_mut()).await;
        }
    }
}

type TlsStream = tokio_rustls::server::TlsStream<Box<dyn Io>>;

/// Reads on for a moment after a refusal: closing with unread data would reset the connection, and the caller would
/// never see the alert that says what is wrong.
async fn linger(io: Box<dyn Io>) {
    let mut rest = io.take(LINGER_BYTES);
    let _ = timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    let mut byte = [0];
    let _ = timeout(LINGER, rest.into_inner().read(&mut byte)).await;
}
