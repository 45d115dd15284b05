//! One connection to a peer, and how it comes about.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use aldis_runtime::http2;
use aldis_types::{Domain, KeyPin, Timestamp};
use http::uri::Authority;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OnceCell,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};

use super::peer::Context as Shared;
use crate::{
    discovery::{not_located, order},
    failure::Failure,
    hello::{Capabilities, Greeting, NoHello},
    http2::{CONNECTION_WINDOW, MAX_HEADER_BYTES},
    metering::{self, Gauged},
    network::{Io, SrvRecord},
    tls::{days_until, key_of, not_after},
};

/// At most this many targets are tried for one connection.
const MAX_TARGETS: usize = 8;

/// Why a peer cannot be called over a connection that stands.
#[derive(Debug, Clone)]
pub(crate) enum Unusable {
    /// The peer refuses us; its own word.
    Refused(Status),
    Failed(Failure),
}

/// A connection that carries any number of calls.
pub(crate) struct Connection {
    pub(crate) send: SendRequest<Body>,
    pub(crate) authority: Authority,
    pub(crate) target: SrvRecord,
    pub(crate) since: Timestamp,
    /// End of the validity of the peer's certificate.
    pub(crate) expiry: Option<Timestamp>,
    pub(crate) born: Instant,
    /// When it should be replaced.
    pub(crate) retire_at: Instant,
    /// Of the certificates that it was made with.
    pub(crate) generation: u64,
    /// The peer's public key.
    pub(crate) key: Option<KeyPin>,
    hello: OnceCell<Capabilities>,
    patience: Duration,
    /// What the peer's side of TLS complained about after the handshake, such as our certificate.
    complaint: Arc<OnceLock<String>>,
    closed: CancellationToken,
    close: CancellationToken,
    /// Its breakdown has been counted.
    counted: AtomicBool,
}

impl Connection {
    pub(crate) fn is_usable(&self) -> bool {
        !self.closed.is_cancelled() && !self.close.is_cancelled() && !self.send.is_closed()
    }

    /// What the peer said about itself on this connection, if it did.
    pub(crate) fn capabilities(&self) -> Option<&Capabilities> {
        self.hello.get()
    }

    /// For calls of the federator itself on this connection.
    pub(crate) fn greeting(&self, shared: &Shared) -> Greeting {
        Greeting { send: self.send.clone(), authority: self.authority.clone(), own: shared.domain.clone() }
    }

    /// Says hello unless that has been done. A refusal is asked for again by the next call.
    pub(crate) async fn greet(&self, shared: &Shared, deadline: Instant) -> Result<(), Unusable> {
        let patience = self.patience.min(deadline.saturating_duration_since(Instant::now()));
        let hello = self.hello.get_or_try_init(|| self.greeting(shared).hello(&shared.capabilities, patience));
        let outcome = timeout_at(deadline, hello).await;
        match outcome.unwrap_or_else(|_| Err(NoHello::Silent("no answer in time".to_owned()))) {
            Ok(_) => Ok(()),
            Err(NoHello::Refused(status)) => Err(Unusable::Refused(status)),
            Err(NoHello::Silent(why)) => Err(Unusable::Failed(self.broke(format!("hello failed: {why}")))),
            Err(NoHello::Versions(theirs)) => Err(Unusable::Failed(Failure::version(format!(
                "no common version: we speak {:?}, they {theirs:?}",
                shared.capabilities.versions
            )))),
        }
    }

    /// Asks for a sign of life.
    pub(crate) async fn ping(&self, shared: &Shared, patience: Duration) -> Result<(), Failure> {
        self.greeting(shared).ping(patience).await.map_err(|why| self.broke(why))
    }

    /// The peer's time of day, in milliseconds since 1970.
    pub(crate) async fn clock(&self, shared: &Shared, patience: Duration) -> Result<i64, String> {
        self.greeting(shared).time(patience).await
    }

    /// A failure of this connection: a complaint about our certificate, if there was one.
    pub(crate) fn broke(&self, why: impl Into<String>) -> Failure {
        match self.complaint.get() {
            Some(complaint) => Failure::tls(format!("the peer refuses our certificate: {complaint}")),
            None => Failure::transport(why),
        }
    }

    /// Whether this is an outage that is told for the first time: one connection that breaks is one outage, however many
    /// calls were on it, and one that we ended is none.
    pub(crate) fn first_to_tell(&self) -> bool {
        !self.close.is_cancelled() && !self.counted.swap(true, Ordering::Relaxed)
    }

    /// Ends it at once.
    pub(crate) fn close(&self) {
        self.close.cancel();
    }

    /// Ends it when cancelled, without keeping it alive.
    pub(crate) fn closer(&self) -> CancellationToken {
        self.close.clone()
    }
}

/// Targets that failed lately are tried last.
#[derive(Default)]
pub(crate) struct Penalties(Mutex<Vec<(SrvRecord, Instant)>>);

const PENALTY: Duration = Duration::from_secs(30);

impl Penalties {
    fn add(&self, target: &SrvRecord) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        list.retain(|(other, until)| other != target && now < *until);
        if list.len() < MAX_TARGETS {
            list.push((target.clone(), now + PENALTY));
        }
    }

    fn has(&self, target: &SrvRecord) -> bool {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.iter().any(|(other, until)| other == target && Instant::now() < *until)
    }
}

/// The most telling failure of several attempts: a peer that was reached but not trusted tells more than one that was
/// not reached.
fn worse(before: Option<Failure>, now: Failure) -> Failure {
    match before {
        Some(before) if before.hop > now.hop => before,
        _ => now,
    }
}

/// Connects to the first target that can be used, in the order of RFC 2782, and says hello.
pub(crate) async fn establish(
    shared: &Arc<Shared>,
    domain: &Domain,
    penalties: &Penalties,
    deadline: Instant,
) -> Result<Connection, Failure> {
    let located = timeout_at(deadline, shared.discovery.locate(domain))
        .await
        .map_err(|_| Failure::discovery(format!("DNS look-up of {domain} took too long")))?
        .map_err(|error| not_located(domain, &error))?;
    let mut targets = order(&located.value, &*shared.random);
    targets.sort_by_key(|target| penalties.has(target));
    let mut failure = None;
    for target in targets.iter().take(MAX_TARGETS) {
        let looked_up = timeout_at(deadline, shared.discovery.addresses(domain, target)).await;
        let addresses = match looked_up {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(error)) => {
                let text = format!("the address of {} cannot be looked up: {error}", target.host);
                failure = Some(worse(failure, Failure::unreachable(text)));
                continue;
            }
            Err(_) => break,
        };
        for address in addresses {
            let until = deadline.min(Instant::now() + shared.connect_timeout);
            match attempt(shared, domain, target, address, until).await {
                Ok(connection) => return Ok(connection),
                Err(now) => {
                    tracing::debug!(peer.domain = %domain, peer.host = target.host, %address, label = now.label, reason = now.reason(), "connecting failed");
                    failure = Some(worse(failure, now));
                }
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        penalties.add(target);
    }
    Err(failure.unwrap_or_else(|| Failure::unreachable(format!("no target of {domain} can be reached"))))
}

/// Connects to one address of a target and says hello. A peer that refuses us is connected with all the same.
pub(crate) async fn attempt(
    shared: &Arc<Shared>,
    domain: &Domain,
    target: &SrvRecord,
    address: SocketAddr,
    until: Instant,
) -> Result<Connection, Failure> {
    let host = &target.host;
    let late = |what: &str| Failure::unreachable(format!("{host} at {address}: {what} in time"));
    let io = timeout_at(until, shared.connector.connect(address))
        .await
        .map_err(|_| late("no connection"))?
        .map_err(|error| Failure::unreachable(format!("{host} at {address}: {error}")))?;

    let material = shared.tls.current();
    let name = ServerName::try_from(host.clone()).map_err(|_| Failure::tls(format!("{host} is no host name")))?;
    let tls = timeout_at(until, TlsConnector::from(material.client(domain)).connect(name, io))
        .await
        .map_err(|_| late("no TLS handshake"))?
        .map_err(|error| Failure::tls(format!("{host} at {address}: {error}")))?;
    if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(Failure::tls(format!("{host} at {address} does not speak HTTP/2")));
    }
    let key = tls.get_ref().1.peer_certificates().and_then(|chain| key_of(chain.first()?));
    if !key.is_some_and(|key| shared.policy.current().allows_key(domain, key)) {
        return Err(Failure::tls(format!("{host} at {address}: the public key of the peer is not a pinned one")));
    }
    let now = shared.clock.now();
    let expiry = tls.get_ref().1.peer_certificates().and_then(|chain| not_after(chain.first()?));
    let life = expiry.map_or(Duration::ZERO, |expiry| {
        #[allow(clippy::cast_precision_loss)]
        metering::peer_certificate_days(domain, days_until(expiry, now) as f64);
        expiry.since(now)
    });

    let complaint = Arc::new(OnceLock::new());
    let io = TokioIo::new(Listening { inner: tls, complaint: complaint.clone() });
    let mut builder = http2::client(CONNECTION_WINDOW);
    let handshake = builder.max_header_list_size(MAX_HEADER_BYTES).handshake::<_, Body>(io);
    let (send, driver) = timeout_at(until, handshake)
        .await
        .map_err(|_| late("no HTTP/2"))?
        .map_err(|error| Failure::transport(format!("{host} at {address}: {error}")))?;

    let (closed, close) = (CancellationToken::new(), shared.shutdown.child_token());
    let (ended, stop, gauged) = (closed.clone(), close.clone(), Gauged::connection(domain));
    let peer = domain.clone();
    tokio::spawn(async move {
        tokio::select! {
            outcome = driver => match outcome {
                Ok(()) => tracing::debug!(peer.domain = %peer, "connection to the peer closed"),
                Err(error) => tracing::debug!(peer.domain = %peer, %error, "connection to the peer broke"),
            },
            () = stop.cancelled() => tracing::debug!(peer.domain = %peer, "connection to the peer ended"),
        }
        ended.cancel();
        drop(gauged);
    });

    let authority = match host.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{}", target.port),
        Err(_) => format!("{host}:{}", target.port),
    };
    let authority = Authority::try_from(authority).map_err(|_| Failure::tls(format!("{host} is no host name")))?;
    let age = shared.connection_max_age;
    // Up to a tenth earlier, so that connections made together are not replaced together.
    let tenth = u64::try_from(age.as_millis() / 10).unwrap_or(0);
    let jitter = Duration::from_millis(shared.random.below(tenth + 1));
    let born = Instant::now();
    let connection = Connection {
        send,
        authority,
        target: target.clone(),
        since: now,
        expiry,
        born,
        retire_at: born + age.saturating_sub(jitter).min(life),
        generation: material.generation,
        key,
        hello: OnceCell::new(),
        patience: shared.connect_timeout,
        complaint,
        closed,
        close,
        counted: AtomicBool::new(false),
    };
    match connection.greet(shared, until).await {
        Err(Unusable::Failed(failure)) if failure.is_outage() => {
            connection.close();
            Err(failure)
        }
        // A peer that refuses us, or shares no version with us, would do so on another connection too: each call asks
        // again on this one.
        Ok(()) | Err(_) => Ok(connection),
    }
}

/// Remembers why TLS ended: with TLS 1.3 a server refuses the client's certificate after the client's handshake.
struct Listening {
    inner: TlsStream<Box<dyn Io>>,
    complaint: Arc<OnceLock<String>>,
}

impl AsyncRead for Listening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let outcome = Pin::new(&mut this.inner).poll_read(context, buffer);
        if let Poll::Ready(Err(error)) = &outcome
            && let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>())
            && matches!(error, rustls::Error::AlertReceived(_))
        {
            let _ = this.complaint.set(error.to_string());
        }
        outcome
    }
}

impl AsyncWrite for Listening {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
