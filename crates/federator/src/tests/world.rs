//! Backends whose services are an echo, and what stands between them.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::support::{
    dns::{Dns, Target},
    pki::{Authority, Identity},
};
use aldis_peers::{Origin, PeerError, Policy};
use aldis_proto::{channel, error, federation::v1::Hop, metadata};
use aldis_runtime::{SystemClock, SystemRandom};
use aldis_types::{Domain, PolicySnapshot, RemotePolicy, RemoteState, SearchPolicy, Strategy};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, body::Body};
use tower_service::Service as _;

use crate::{Capabilities, Components, Config, Dependencies, Service};

pub(super) fn domain(text: &str) -> Domain {
    text.parse().unwrap()
}

/// The names, addresses and authority that all backends of a test share.
pub(super) struct World {
    pub(super) authority: Authority,
    pub(super) dns: Dns,
    folder: TempDir,
    files: AtomicUsize,
}

pub(super) struct Backend {
    pub(super) service: Service,
    pub(super) policy: Policy,
    pub(super) port: u16,
    pub(super) echo: Echo,
    pub(super) config: Config,
    version: AtomicUsize,
}

pub(super) fn host(domain: &str) -> String {
    format!("federator.{domain}")
}

impl World {
    pub(super) async fn new() -> Self {
        Self {
            authority: Authority::new("test authority").unwrap(),
            dns: Dns::start().await.unwrap(),
            folder: TempDir::new().unwrap(),
            files: AtomicUsize::new(0),
        }
    }

    pub(super) fn identity(&self, domain: &str) -> Identity {
        self.authority.issue(&[&host(domain)]).unwrap()
    }

    pub(super) fn file(&self, content: &str) -> PathBuf {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.path().join(format!("{number}.pem"));
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Settings for a backend with this certificate; short times, as tests wait for failures.
    pub(super) fn config(&self, identity: &Identity) -> Config {
        Config {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            certificate_file: self.file(&identity.certificate_pem),
            key_file: self.file(&identity.key_pem),
            ca_file: Some(self.file(self.authority.pem())),
            dns: Some(self.dns.address()),
            connect_timeout_ms: 1_000,
            call_deadline_ms: 3_000,
            breaker_pause_ms: 500,
            // Tests count connections and look-ups.
            health_check_seconds: 0,
            ..Config::default()
        }
    }

    /// A backend with a certificate and a record in DNS of its own that everybody may talk to.
    pub(super) async fn backend(&self, domain: &str) -> Backend {
        self.backend_with(domain, self.config(&self.identity(domain))).await
    }

    pub(super) async fn backend_with(&self, domain: &str, config: Config) -> Backend {
        let backend = Backend::start(domain, config, None).await;
        self.point(domain, &[backend.port]);
        backend
    }

    /// Sets the record of a domain: one target after another, all of its usual host name.
    pub(super) fn point(&self, domain: &str, ports: &[u16]) {
        let targets: Vec<Target> = ports
            .iter()
            .zip(0..)
            .map(|(port, priority)| Target { priority, weight: 1, host: host(domain), port: *port })
            .collect();
        self.dns.set_federator(domain, &targets).unwrap();
    }
}

impl Backend {
    pub(super) async fn start(own: &str, config: Config, port: Option<u16>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.unwrap_or(0))).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let policy = Policy::new(Duration::from_hours(1));
        policy.update(PolicySnapshot { version: 1, strategy: Strategy::AllowAll, ..PolicySnapshot::default() });
        let echo = Echo::default();
        let deps = Dependencies {
            domain: domain(own),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            policy: policy.clone(),
            capabilities: Capabilities::of_this_build(vec![10], vec![10, 11], config.max_message_bytes),
            components: Components { users: echo.channel(), conversations: echo.channel(), assets: None },
            stated_origin: false,
        };
        let service = crate::start(config.clone(), deps, listener).unwrap();
        Self { service, policy, port, echo, config, version: AtomicUsize::new(2) }
    }

    pub(super) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Allows exactly the domains in this state.
    pub(super) fn remotes(&self, remotes: &[(&str, RemoteState)]) {
        let version = self.version.fetch_add(1, Ordering::Relaxed) as u64;
        let remotes = remotes
            .iter()
            .map(|(name, state)| {
                let policy = RemotePolicy::new(*state, SearchPolicy::NoSearch);
                (domain(name), policy)
            })
            .collect();
        self.policy.update(PolicySnapshot { version, strategy: Strategy::AllowList, remotes });
    }

    /// Lists `other` with a pinned key, and allows everybody else as before.
    pub(super) fn pin(&self, other: &str, key: &str) {
        let version = self.version.fetch_add(1, Ordering::Relaxed) as u64;
        let remote = RemotePolicy {
            pins: vec![key.parse().unwrap()],
            ..RemotePolicy::new(RemoteState::Active, SearchPolicy::NoSearch)
        };
        let remotes = [(domain(other), remote)].into();
        self.policy.update(PolicySnapshot { version, strategy: Strategy::AllowAll, remotes });
    }

    /// Calls a method of `Users` at another backend through this one's federator.
    pub(super) async fn call(&self, target: &str, method: &str) -> Answer {
        self.send(target, &format!("/aldis.federation.v1.Users/{method}"), &[], b"ping").await
    }

    pub(super) async fn send(&self, target: &str, path: &str, headers: &[(&'static str, &str)], body: &[u8]) -> Answer {
        let body = Body::new(http_body_util::Full::new(Bytes::copy_from_slice(body)));
        Answer::read(self.head(target, path, headers, body).await).await
    }

    async fn head(&self, target: &str, path: &str, headers: &[(&'static str, &str)], body: Body) -> Response<Body> {
        let mut request = Request::post(path).body(body).unwrap();
        request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        request.headers_mut().insert(metadata::TARGET_DOMAIN, HeaderValue::from_str(target).unwrap());
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
        }
        self.service.egress.clone().call(request).await.unwrap()
    }

    /// Opens an event stream to another backend.
    pub(super) async fn open(&self, target: &str) -> Result<Conversation, Answer> {
        let (send, receive) = mpsc::channel::<Result<Frame<Bytes>, Status>>(8);
        let body = Body::new(StreamBody::new(ReceiverStream::new(receive)));
        let response = self.head(target, "/aldis.federation.v1.UsersDelivery/Deliver", &[], body).await;
        if response.headers().contains_key("grpc-status") {
            return Err(Answer::read(response).await);
        }
        Ok(Conversation { send, body: response.into_body() })
    }

    pub(super) fn label(answer: &Answer, target: &str) -> (u16, &'static str) {
        let label = PeerError::from_status(&domain(target), &answer.status).label();
        (label.status, label.label)
    }
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) trailers: HeaderMap,
    pub(super) data: Bytes,
    pub(super) status: Status,
}

impl Answer {
    async fn read(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let status = Status::from_header_map(&trailers)
            .or_else(|| Status::from_header_map(&parts.headers))
            .unwrap_or_else(|| Status::unknown("no status"));
        Self { headers: parts.headers, trailers, data: collected.to_bytes(), status }
    }

    pub(super) fn is_ok(&self) -> bool {
        self.status.code() == tonic::Code::Ok
    }

    /// What a client would see of it.
    pub(super) fn label(&self) -> &'static str {
        PeerError::from_status(&domain("any.test"), &self.status).label().label
    }

    /// The peer's own label.
    pub(super) fn inner(&self) -> String {
        PeerError::from_status(&domain("any.test"), &self.status).inner().map(|(label, _)| label).unwrap_or_default()
    }
}

/// An event stream.
pub(super) struct Conversation {
    pub(super) send: mpsc::Sender<Result<Frame<Bytes>, Status>>,
    pub(super) body: Body,
}

impl Conversation {
    pub(super) async fn say(&self, text: &'static str) {
        self.send.send(Ok(Frame::data(Bytes::from_static(text.as_bytes())))).await.unwrap();
    }

    pub(super) async fn hear(&mut self) -> Bytes {
        self.body.frame().await.unwrap().unwrap().into_data().unwrap()
    }

    /// The status with which the stream ends.
    pub(super) async fn end(&mut self) -> Status {
        while let Some(frame) = self.body.frame().await {
            if let Ok(trailers) = frame.unwrap().into_trailers() {
                return Status::from_header_map(&trailers).unwrap();
            }
        }
        Status::unknown("no status")
    }
}

/// What a service saw of a call.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) origin: Option<Domain>,
}

/// A service that sends back what it gets.
#[derive(Clone, Default)]
pub(super) struct Echo {
    seen: Arc<Mutex<Vec<Seen>>>,
    running: Arc<AtomicUsize>,
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Echo {
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Calls that have neither ended nor been abandoned.
    pub(super) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    pub(super) fn channel(&self) -> channel::Channel {
        channel::boxed(self.service())
    }

    pub(super) fn service(
        &self,
    ) -> impl tower_service::Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static {
        let echo = self.clone();
        tower::service_fn(move |request| echo.clone().answer(request))
    }

    /// As any server's routes, for a rogue backend.
    pub(super) fn routes(&self) -> tonic::service::Routes {
        let mut service = self.service();
        let service = tower::service_fn(move |request: Request<_>| service.call(request.map(Body::new)));
        tonic::service::Routes::from(tonic::service::Routes::default().into_axum_router().fallback_service(service))
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        self.running.fetch_add(1, Ordering::SeqCst);
        let running = Running(self.running.clone());
        let (parts, body) = request.into_parts();
        self.seen.lock().unwrap().push(Seen {
            path: parts.uri.path().to_owned(),
            headers: parts.headers.clone(),
            origin: parts.extensions.get::<Origin>().map(|origin| origin.domain().clone()),
        });
        let mut forged = HeaderMap::new();
        forged.insert(metadata::OWN_FAILURE, HeaderValue::from_static("1"));
        forged.insert("x-secret", HeaderValue::from_static("1"));
        match parts.uri.path().rsplit('/').next() {
            Some("Hang") => std::future::pending().await,
            Some("Fail") => {
                let status = error::status(tonic::Code::NotFound, Hop::Policy, "federation-denied", "", "forged");
                let mut response = status.into_http::<Body>();
                response.headers_mut().extend(forged);
                Ok(response)
            }
            _ => {
                forged.insert("grpc-status", HeaderValue::from_static("0"));
                let frames = body
                    .into_data_stream()
                    .map(move |data| {
                        let _ = &running;
                        data.map(Frame::data)
                    })
                    .chain(stream::once(async move { Ok(Frame::trailers(forged)) }));
                let mut response = Response::new(Body::new(StreamBody::new(frames)));
                response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
                response.headers_mut().insert("x-secret", HeaderValue::from_static("1"));
                Ok(response)
            }
        }
    }
}

/// Stands between two backends and can freeze: connections stay open and nothing moves.
pub(super) struct Proxy {
    pub(super) port: u16,
    frozen: watch::Sender<bool>,
    accepted: Arc<AtomicUsize>,
    _stop: DropGuard,
}

impl Proxy {
    pub(super) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let frozen = watch::Sender::new(false);
        let accepted = Arc::new(AtomicUsize::new(0));
        let stop = CancellationToken::new();
        let (ice, count, stopped) = (frozen.clone(), accepted.clone(), stop.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let ice = ice.subscribe();
                tokio::spawn(stopped.clone().run_until_cancelled_owned(async move {
                    thawed(&mut ice.clone()).await;
                    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return };
                    let (client_in, client_out) = client.into_split();
                    let (server_in, server_out) = server.into_split();
                    tokio::join!(pump(client_in, server_out, ice.clone()), pump(server_in, client_out, ice));
                }));
            }
        }));
        Self { port: own, frozen, accepted, _stop: stop.drop_guard() }
    }

    pub(super) fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }

    /// Connections so far.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

async fn thawed(ice: &mut watch::Receiver<bool>) {
    let _ = ice.wait_for(|frozen| !frozen).await;
}

async fn pump(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    mut ice: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(size) = from.read(&mut buffer).await {
        thawed(&mut ice).await;
        if size == 0 || to.write_all(&buffer[..size]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
