//! One channel to all replicas of a service: the host name stands for as many addresses as DNS gives.
//!
//! There is a connection to every address, made ahead of the calls and again with growing pauses when it breaks. A call
//! goes to the less busy of two of them; what a connection did not take because it had ended goes to another one. While
//! nobody can be reached, calls fail at once.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use aldis_proto::{
    channel::{Channel, boxed},
    deadline,
};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::{FutureExt, future::BoxFuture};
use http::uri::{Authority, PathAndQuery, Scheme};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::{StreamExt, wrappers::UnboundedReceiverStream};
use tonic::{ConnectError, TimeoutExpired, body::Body};
use tower::{
    BoxError, Service, ServiceExt,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::Change,
    load::{CompleteOnResponse, PendingRequests},
    service_fn,
};

use crate::{
    channel::{CONNECT, CONNECTION_WINDOW, Proof, connect},
    http2,
};

/// Calls of this process that may wait for a connection to be chosen.
const WAITING: usize = 1_024;
/// How often a call may meet a connection that has just ended.
const TRIES: usize = 4;
/// Pauses before a broken connection is made again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Bounds of the time after which DNS is asked again, whatever it says itself.
const FRESH: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Time after which DNS is asked again when it did not answer.
const AGAIN: Duration = Duration::from_secs(1);

/// Where a service is: what the addresses are now, and until when that holds.
pub(crate) trait Addresses: Send + Sync + 'static {
    /// Asks; fails within seconds.
    fn ask(&self) -> BoxFuture<'_, Result<(Vec<IpAddr>, Instant), BoxError>>;
}

/// A host name, by the DNS servers of this machine.
pub(crate) struct Named {
    pub(crate) host: String,
    pub(crate) resolver: hickory_resolver::TokioResolver,
}

impl Addresses for Named {
    fn ask(&self) -> BoxFuture<'_, Result<(Vec<IpAddr>, Instant), BoxError>> {
        async move {
            let found = self.resolver.lookup_ip(self.host.as_str()).await?;
            Ok((found.iter().collect(), found.valid_until().into()))
        }
        .boxed()
    }
}

/// How connections are made, and what every call says.
struct Target {
    authority: Authority,
    port: u16,
    proof: Option<Proof>,
}

/// A channel to every replica at `port` of what `addresses` gives. Each has to give `proof`.
pub(crate) fn channel(authority: Authority, port: u16, addresses: impl Addresses, proof: Option<Proof>) -> Channel {
    let target = Arc::new(Target { authority, port, proof });
    let (changes, replicas) = mpsc::unbounded_channel();
    let discovered = UnboundedReceiverStream::new(replicas).map(Ok::<_, std::convert::Infallible>);
    tokio::spawn(Keeper::new(target.clone(), changes).run(addresses));
    let buffer = Buffer::new(Balance::new(discovered), WAITING);
    boxed(service_fn(move |request: http::Request<Body>| call(buffer.clone(), target.clone(), request)))
}

/// Sends a request to somebody, within the time that it allows itself.
async fn call<S>(
    service: S,
    target: Arc<Target>,
    request: http::Request<Body>,
) -> Result<http::Response<Body>, BoxError>
where
    S: Service<http::Request<Body>, Response = Sent, Error = BoxError> + Clone,
{
    let limit = deadline::timeout(request.headers());
    let answer = async move {
        let request = target.address(request)?;
        if aldis_proto::is_repeatable(request.uri().path()) {
            send_again(service, request).await
        } else {
            send(&service, request).await
        }
    };
    match limit {
        Some(limit) => timeout(limit, answer).await.unwrap_or_else(|_| Err(Box::new(TimeoutExpired(())))),
        None => answer.await,
    }
}

/// Sends a request once; again only if a connection had ended before it took anything of it.
async fn send<S>(service: &S, mut request: http::Request<Body>) -> Result<http::Response<Body>, BoxError>
where
    S: Service<http::Request<Body>, Response = Sent, Error = BoxError> + Clone,
{
    for _ in 0..TRIES {
        match service.clone().oneshot(request).await? {
            Sent::Answered(response) => return Ok(response),
            Sent::Not(back) => request = back,
        }
    }
    Err(unreachable("connections end as soon as they are made"))
}

/// Sends a request that may arrive twice: again when a connection breaks while it is under way.
async fn send_again<S>(service: S, request: http::Request<Body>) -> Result<http::Response<Body>, BoxError>
where
    S: Service<http::Request<Body>, Response = Sent, Error = BoxError> + Clone,
{
    let (parts, body) = request.into_parts();
    // Bounded: a message that this process has made.
    let body = body.collect().await?.to_bytes();
    let mut left = TRIES;
    loop {
        let request = http::Request::from_parts(parts.clone(), Body::new(Full::new(body.clone())));
        left -= 1;
        match send(&service, request).await {
            Err(error) if left > 0 && !error.is::<ConnectError>() => {
                tracing::debug!(path = parts.uri.path(), %error, "a call is made again");
            }
            outcome => return outcome,
        }
    }
}

fn unreachable(reason: impl Into<BoxError>) -> BoxError {
    Box::new(ConnectError(reason.into()))
}

/// What became of a request at one replica.
enum Sent {
    Answered(http::Response<Body>),
    /// The connection had ended; nothing of the request was sent.
    Not(http::Request<Body>),
}

/// Who takes calls.
#[derive(Clone)]
enum Replica {
    At(SendRequest<Body>),
    /// Nobody: no address is known, or none can be reached.
    Missing(Arc<str>),
}

impl Service<http::Request<Body>> for Replica {
    type Response = Sent;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Sent, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::At(send) => send.poll_ready(context).map_err(Into::into),
            Self::Missing(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self {
            Self::At(send) => {
                let answer = send.try_send_request(request);
                let outcome = async move {
                    match answer.await {
                        Ok(response) => Ok(Sent::Answered(response.map(Body::new))),
                        Err(mut failed) => match failed.take_message() {
                            Some(request) => Ok(Sent::Not(request)),
                            None => Err(failed.into_error().into()),
                        },
                    }
                };
                outcome.boxed()
            }
            Self::Missing(reason) => std::future::ready(Err(unreachable(&**reason))).boxed(),
        }
    }
}

type Counted = PendingRequests<Replica>;

/// What the balancer calls a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Nobody,
    At(IpAddr),
}

/// What is heard.
enum News {
    /// All addresses.
    Addresses(Result<Vec<IpAddr>, BoxError>),
    Connected(IpAddr, SendRequest<Body>),
    Ended(IpAddr),
    Failed(IpAddr, BoxError),
}

/// Knows who is there, and tells the balancer.
struct Keeper {
    target: Arc<Target>,
    changes: mpsc::UnboundedSender<Change<Key, Counted>>,
    replicas: HashMap<IpAddr, Kept>,
    nobody: bool,
}

struct Kept {
    holding: AbortHandle,
    connected: bool,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.holding.abort();
    }
}

impl Keeper {
    fn new(target: Arc<Target>, changes: mpsc::UnboundedSender<Change<Key, Counted>>) -> Self {
        Self { target, changes, replicas: HashMap::new(), nobody: false }
    }

    /// Runs for as long as the channel is there.
    async fn run(mut self, addresses: impl Addresses) {
        let (tell, mut news) = mpsc::unbounded_channel();
        let changes = self.changes.clone();
        let looking = tokio::spawn(look(addresses, tell.clone()));
        let hearing = async {
            while let Some(news) = news.recv().await {
                self.hear(news, &tell);
            }
        };
        tokio::select! {
            () = changes.closed() => {}
            () = hearing => {}
        }
        looking.abort();
    }

    fn hear(&mut self, news: News, tell: &mpsc::UnboundedSender<News>) {
        match news {
            News::Addresses(Ok(addresses)) => self.found(&addresses, tell),
            News::Addresses(Err(error)) => {
                tracing::warn!(service = %self.target.authority, %error, "looking up a service failed");
                self.missing(&error.to_string());
            }
            News::Connected(address, send) => {
                // An address that has gone in the meantime is not kept.
                let Some(kept) = self.replicas.get_mut(&address) else { return };
                kept.connected = true;
                self.tell(Change::Insert(Key::At(address), counted(Replica::At(send))));
                if std::mem::take(&mut self.nobody) {
                    self.tell(Change::Remove(Key::Nobody));
                }
            }
            News::Ended(address) => {
                if let Some(kept) = self.replicas.get_mut(&address) {
                    kept.connected = false;
                    self.tell(Change::Remove(Key::At(address)));
                }
            }
            News::Failed(address, error) => {
                tracing::debug!(service = %self.target.authority, %address, %error, "a replica can't be reached");
                self.missing(&error.to_string());
            }
        }
    }

    /// Connections to new addresses are begun, those to addresses that are gone are left.
    fn found(&mut self, addresses: &[IpAddr], tell: &mpsc::UnboundedSender<News>) {
        let gone: Vec<_> = self.replicas.keys().filter(|it| !addresses.contains(it)).copied().collect();
        for address in gone {
            self.replicas.remove(&address);
            self.tell(Change::Remove(Key::At(address)));
        }
        for address in addresses {
            self.replicas.entry(*address).or_insert_with(|| {
                let holding = tokio::spawn(hold(self.target.clone(), *address, tell.clone())).abort_handle();
                Kept { holding, connected: false }
            });
        }
        if self.replicas.is_empty() {
            self.missing("it has no address");
        }
    }

    /// Calls fail, unless somebody is connected.
    fn missing(&mut self, reason: &str) {
        if !self.nobody && !self.replicas.values().any(|kept| kept.connected) {
            self.nobody = true;
            self.tell(Change::Insert(Key::Nobody, counted(Replica::Missing(reason.into()))));
        }
    }

    fn tell(&self, change: Change<Key, Counted>) {
        // Without a channel nobody wants to know; `run` ends.
        let _ = self.changes.send(change);
    }
}

fn counted(replica: Replica) -> Counted {
    PendingRequests::new(replica, CompleteOnResponse::default())
}

/// Follows the addresses.
async fn look(addresses: impl Addresses, tell: mpsc::UnboundedSender<News>) {
    loop {
        let now = Instant::now();
        let (found, again) = match addresses.ask().await {
            Ok((found, until)) => (Ok(found), until.clamp(now + FRESH.0, now + FRESH.1)),
            Err(error) => (Err(error), Instant::now() + AGAIN),
        };
        if tell.send(News::Addresses(found)).is_err() {
            return;
        }
        sleep_until(again).await;
    }
}

/// Keeps a connection to one address, until it is aborted; calls under way on it go on then.
async fn hold(target: Arc<Target>, address: IpAddr, tell: mpsc::UnboundedSender<News>) {
    let growing = ExponentialBuilder::default().with_min_delay(PAUSES.0).with_max_delay(PAUSES.1).with_jitter();
    let growing = growing.without_max_times();
    let mut pauses = growing.build();
    loop {
        match target.connect(address).await {
            Ok((send, ended)) => {
                pauses = growing.build();
                let _ = tell.send(News::Connected(address, send));
                // It ends with an error only when the runtime does.
                let _ = ended.await;
                let _ = tell.send(News::Ended(address));
            }
            Err(error) => {
                let _ = tell.send(News::Failed(address, error));
            }
        }
        sleep(pauses.next().unwrap_or(PAUSES.1)).await;
    }
}

impl Target {
    /// The request as HTTP/2 wants it.
    fn address(&self, mut request: http::Request<Body>) -> Result<http::Request<Body>, BoxError> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(if self.proof.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(self.authority.clone());
        let path = request.uri().path_and_query().cloned();
        parts.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        *request.uri_mut() = http::Uri::from_parts(parts)?;
        Ok(request)
    }

    /// A connection, and what ends with it.
    async fn connect(&self, address: IpAddr) -> Result<(SendRequest<Body>, tokio::task::JoinHandle<()>), BoxError> {
        let address = SocketAddr::new(address, self.port);
        let connecting = async {
            let stream = connect(address).await?;
            match &self.proof {
                None => handshake(stream).await,
                Some(proof) => handshake(proof.demand(stream).await?).await,
            }
        };
        timeout(CONNECT, connecting).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

async fn handshake<T>(io: T) -> Result<(SendRequest<Body>, tokio::task::JoinHandle<()>), BoxError>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (send, driver) = http2::client(CONNECTION_WINDOW).handshake(TokioIo::new(io)).await?;
    let driving = tokio::spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "a connection to a replica broke");
        }
    });
    Ok((send, driving))
}

#[cfg(test)]
mod tests;
