//! Listeners: accepting connections, with TLS or without, and ending them gracefully.
//!
//! One loop serves everything that we offer: HTTP/1.1 and HTTP/2 for clients (upgrades included), gRPC between
//! services, and gRPC on a Unix socket. Connections are bounded, and so is every handshake.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{Service, ServiceExt};

use crate::{
    https::Https,
    workload::{Workload, names},
};

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause after an accept that failed, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the calls under way may take on a connection whose certificates were replaced.
const DRAIN: Duration = Duration::from_secs(10);
/// Most connections of one listener.
const CONNECTIONS: usize = 50_000;

/// Opens a TCP listener.
pub async fn bind(name: &str, address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("listener `{name}` on {address}: {error}")))
}

/// Opens a Unix socket that only this user may connect to, replacing one that a dead process left. The caller holds a
/// lock that keeps two processes from serving the same path.
pub fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;

    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let short = ShortPath::of(path)?;
    let listener = UnixListener::bind(short.path())?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Whether somebody listens on this Unix socket.
pub fn unix_answers(path: &Path) -> bool {
    ShortPath::of(path).and_then(|short| std::os::unix::net::UnixStream::connect(short.path())).is_ok()
}

/// A path to a socket that fits into the 108 bytes of a socket address, however deep its folder lies.
pub(crate) struct ShortPath {
    path: std::path::PathBuf,
    _folder: Option<std::fs::File>,
}

impl ShortPath {
    const LONGEST: usize = 100;

    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        use std::os::fd::AsRawFd;

        if path.as_os_str().len() <= Self::LONGEST {
            return Ok(Self { path: path.to_owned(), _folder: None });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let folder = std::fs::File::open(parent)?;
        let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok(Self { path: short, _folder: Some(folder) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The process at the other end of a Unix socket, as the kernel knows it; an extension of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalPeer {
    /// The user that it runs as.
    pub uid: u32,
    /// Its process id.
    pub pid: Option<u32>,
}

impl LocalPeer {
    fn of(stream: &UnixStream) -> Option<Self> {
        let peer = stream.peer_cred().ok()?;
        Some(Self { uid: peer.uid(), pid: peer.pid().and_then(|pid| u32::try_from(pid).ok()) })
    }
}

/// What a connection passes before it is served.
#[derive(Debug, Clone)]
pub enum Door {
    /// Nothing: no TLS, from anywhere.
    Open,
    /// TLS for everybody; requests have the extension [`Encrypted`].
    Https(Https),
    /// TLS for our own services.
    Internal(Guard),
}

/// An extension of requests that came over TLS.
#[derive(Debug, Clone, Copy)]
pub struct Encrypted;

/// Who may connect to a listener for our own services, and how it proves itself.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Our certificate and the authority that callers' certificates must come from.
    pub workload: Workload,
    /// Names of which a caller's certificate must bear one.
    pub callers: Arc<[String]>,
}

/// What a listener offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// HTTP/1.1 and HTTP/2, upgrades included.
    Http,
    /// HTTP/2 for gRPC between our own processes: keep-alive of 10 s + 5 s, large windows.
    Grpc,
}

impl Kind {
    fn builder(self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(60)).max_headers(100);
        let mut http2 = builder.http2();
        http2.timer(TokioTimer::new());
        match self {
            Self::Http => http2
                .max_concurrent_streams(128)
                .max_header_list_size(32 * 1024)
                .keep_alive_interval(Duration::from_secs(30))
                .keep_alive_timeout(Duration::from_secs(20)),
            Self::Grpc => http2
                .max_concurrent_streams(4096)
                .max_header_list_size(64 * 1024)
                .initial_stream_window_size(1024 * 1024)
                .initial_connection_window_size(4 * 1024 * 1024)
                .keep_alive_interval(Duration::from_secs(10))
                .keep_alive_timeout(Duration::from_secs(5)),
        };
        builder
    }
}

/// Serves `service` on a TCP listener until `stop`; then accepts nothing more and waits for the requests under way.
/// The caller's address is an extension of each request, as axum's `ConnectInfo<SocketAddr>`.
pub async fn serve<S, B>(listener: TcpListener, kind: Kind, door: Door, service: S, stop: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<tower::BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<tower::BoxError>,
{
    let connections = TaskTracker::new();
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let builder = Arc::new(kind.builder());
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { break };
        let (stream, address) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    accept_failed(&error).await;
                    continue;
                }
            },
        };
        // Only a latency matter; the connection works without.
        let _ = stream.set_nodelay(true);
        let (builder, service, stop, door) = (builder.clone(), service.clone(), stop.clone(), door.clone());
        connections.spawn(async move {
            let _permit = permit;
            let guard = match door {
                Door::Open => return connection(stream, Some(address), &builder, service, stop).await,
                Door::Https(https) => {
                    let acceptor = TlsAcceptor::from(https.server());
                    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
                    let service = service.map_request(|mut request: Request<Incoming>| {
                        request.extensions_mut().insert(Encrypted);
                        request
                    });
                    return connection(stream, Some(address), &builder, service, stop).await;
                }
                Door::Internal(guard) => guard,
            };
            let mut changes = guard.workload.changes();
            let Some(stream) = guard.admit(stream, address).await else { return };
            let ending = stop.child_token();
            let serving = connection(stream, Some(address), &builder, service, ending.clone());
            tokio::pin!(serving);
            tokio::select! {
                () = serving.as_mut() => {}
                Ok(()) = changes.changed() => {
                    // Callers come back, and are looked at again.
                    ending.cancel();
                    let _ = tokio::time::timeout(DRAIN, serving).await;
                }
            }
        });
    }
    connections.close();
    connections.wait().await;
}

/// Serves gRPC on a Unix socket until `stop`. The calling process is an extension of each request, as [`LocalPeer`].
pub async fn serve_unix<S, B>(listener: UnixListener, service: S, stop: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<tower::BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<tower::BoxError>,
{
    let connections = TaskTracker::new();
    let builder = Arc::new(Kind::Grpc.builder());
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    accept_failed(&error).await;
                    continue;
                }
            },
        };
        let (builder, service, stop) = (builder.clone(), service.clone(), stop.clone());
        let peer = LocalPeer::of(&stream);
        let service = service.map_request(move |mut request: Request<Incoming>| {
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            request
        });
        connections.spawn(async move { connection(stream, None, &builder, service, stop).await });
    }
    connections.close();
    connections.wait().await;
}

async fn accept_failed(error: &io::Error) {
    // The other side may be gone before we accept; anything else is worth a line and a pause.
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tracing::error!(%error, "connections cannot be accepted");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

impl Guard {
    /// Lets in whoever proves to be one of the callers.
    async fn admit(&self, stream: TcpStream, address: SocketAddr) -> Option<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.workload.server());
        match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) if is_caller(&stream, &self.callers) => return Some(stream),
            Ok(Ok(_)) => tracing::warn!(client.address = %address, "caller is not one of the services admitted here"),
            Ok(Err(error)) => tracing::warn!(client.address = %address, %error, "internal TLS handshake failed"),
            Err(_) => tracing::debug!(client.address = %address, "internal TLS handshake timed out"),
        }
        None
    }
}

fn is_caller<T>(stream: &TlsStream<T>, callers: &[String]) -> bool {
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    leaf.is_some_and(|leaf| names(leaf).iter().any(|name| callers.contains(name)))
}

async fn connection<IO, S, B>(
    stream: IO,
    address: Option<SocketAddr>,
    builder: &Builder<TokioExecutor>,
    service: S,
    stop: CancellationToken,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<tower::BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<tower::BoxError>,
{
    let service = service.map_request(move |mut request: Request<Incoming>| {
        if let Some(address) = address {
            request.extensions_mut().insert(ConnectInfo(address));
        }
        request
    });
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(serving);
    let outcome = tokio::select! {
        outcome = serving.as_mut() => outcome,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = outcome {
        // Clients go away all the time; nobody has to act.
        tracing::trace!(error, "connection ended");
    }
}
