//! Everything about calls to one peer: its connection, limits and breakers.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aldis_peers::Policy;
use aldis_runtime::{SharedClock, SharedRandom};
use aldis_types::{Domain, Timestamp};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    breaker::Breaker,
    connection::{Connection, Penalties, Unusable, establish},
};
use crate::{
    discovery::Discovery,
    failure::{Failure, label},
    hello::Capabilities,
    http2::DRAIN,
    network::Connector,
    rpc::Shape,
    tls::Tls,
};

/// Longest wait for a sign of life of a peer that was left alone.
const PROBE: Duration = Duration::from_secs(2);

/// Pause between two attempts to replace a connection that still works.
const REPLACE_AGAIN: Duration = Duration::from_secs(5);
/// How often the target of a connection is compared with DNS, at least and at most.
const RECHECK: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// What all peers share.
pub(crate) struct Context {
    pub(crate) domain: Domain,
    pub(crate) capabilities: Capabilities,
    pub(crate) policy: Policy,
    pub(crate) clock: SharedClock,
    pub(crate) random: SharedRandom,
    pub(crate) tls: Arc<Tls>,
    pub(crate) discovery: Arc<Discovery>,
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) connect_timeout: Duration,
    pub(crate) call_deadline: Duration,
    pub(crate) connection_max_age: Duration,
    pub(crate) max_calls: usize,
    pub(crate) max_streams: usize,
    pub(crate) max_transfers: usize,
    pub(crate) transfer_idle: Duration,
    pub(crate) max_bytes: u64,
    pub(crate) breaker_failures: u32,
    pub(crate) breaker_pause: Duration,
    /// Between two health checks of a listed peer; zero: none.
    pub(crate) health_check: Duration,
    /// Ends every connection.
    pub(crate) shutdown: CancellationToken,
}

/// Calls, event streams and transfers are limited separately; calls and event streams are given up separately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Call,
    Stream,
    Transfer,
}

impl From<Shape> for Kind {
    fn from(shape: Shape) -> Self {
        match shape {
            Shape::Call => Self::Call,
            Shape::Events => Self::Stream,
            Shape::Transfer => Self::Transfer,
        }
    }
}

type Attempt = watch::Receiver<Option<Result<Arc<Connection>, Failure>>>;

#[derive(Default)]
struct Slot {
    current: Option<Arc<Connection>>,
    attempt: Option<Attempt>,
    /// When the target of the connection is compared with DNS again.
    recheck_at: Option<Instant>,
    /// When a replacement is tried again.
    replace_at: Option<Instant>,
}

/// What health checks have found.
#[derive(Debug, Clone, Copy, Default)]
struct Reach {
    /// Whether the peer can be reached, and since when that is so.
    reachable: Option<(bool, Timestamp)>,
    /// Smoothed round trip of a ping.
    latency: Option<Duration>,
    /// When it last answered.
    answered: Option<Timestamp>,
    /// When the next check is due.
    check_at: Option<Instant>,
}

pub(crate) struct Peer {
    pub(crate) domain: Domain,
    shared: Arc<Context>,
    slot: Mutex<Slot>,
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    transfers: Arc<Semaphore>,
    call_breaker: Arc<Breaker>,
    stream_breaker: Arc<Breaker>,
    penalties: Penalties,
    permission: Mutex<CancellationToken>,
    last_error: Mutex<Option<(Timestamp, &'static str)>>,
    reach: Mutex<Reach>,
    /// Milliseconds after `born` at which it was last asked for.
    used: AtomicU64,
    born: Instant,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peer {
    pub(super) fn new(domain: Domain, shared: Arc<Context>) -> Arc<Self> {
        let breaker = |kind| {
            let pause = shared.breaker_pause;
            Breaker::new(domain.clone(), kind, shared.breaker_failures, pause, shared.random.clone())
        };
        Arc::new(Self {
            call_breaker: breaker("call"),
            stream_breaker: breaker("stream"),
            slot: Mutex::default(),
            calls: Arc::new(Semaphore::new(shared.max_calls)),
            streams: Arc::new(Semaphore::new(shared.max_streams)),
            transfers: Arc::new(Semaphore::new(shared.max_transfers)),
            penalties: Penalties::default(),
            permission: Mutex::new(shared.shutdown.child_token()),
            last_error: Mutex::default(),
            reach: Mutex::default(),
            used: AtomicU64::new(0),
            born: Instant::now(),
            domain,
            shared,
        })
    }

    pub(crate) fn breaker(&self, kind: Kind) -> &Arc<Breaker> {
        match kind {
            Kind::Call | Kind::Transfer => &self.call_breaker,
            Kind::Stream => &self.stream_breaker,
        }
    }

    /// A place among the calls of this kind; none left is an answer too.
    pub(super) fn permit(&self, kind: Kind) -> Result<OwnedSemaphorePermit, Failure> {
        let places = match kind {
            Kind::Call => &self.calls,
            Kind::Stream => &self.streams,
            Kind::Transfer => &self.transfers,
        };
        places.clone().try_acquire_owned().map_err(|_| Failure::busy())
    }

    pub(super) fn is_busy(&self) -> bool {
        self.calls.available_permits() < self.shared.max_calls
            || self.streams.available_permits() < self.shared.max_streams
            || self.transfers.available_permits() < self.shared.max_transfers
    }

    pub(super) fn touch(&self) {
        let since = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used.store(since, Ordering::Relaxed);
    }

    fn idle(&self) -> Duration {
        self.born.elapsed().saturating_sub(Duration::from_millis(self.used.load(Ordering::Relaxed)))
    }

    /// Is cancelled when federation with the peer ends.
    pub(super) fn permission(&self) -> CancellationToken {
        let mut permission = locked(&self.permission);
        if permission.is_cancelled() && !self.shared.shutdown.is_cancelled() {
            *permission = self.shared.shutdown.child_token();
        }
        permission.clone()
    }

    /// Ends everything with this peer: policy refuses it.
    pub(super) fn revoke(self: &Arc<Self>) {
        locked(&self.permission).cancel();
        let current = locked(&self.slot).current.take();
        if let Some(connection) = current {
            drain(connection);
        }
    }

    /// The connection, made if needed. Callers that come while one is being made wait for the same.
    pub(crate) async fn connection(self: &Arc<Self>, deadline: Instant) -> Result<Arc<Connection>, Failure> {
        let mut attempt = {
            let mut slot = locked(&self.slot);
            if let Some(current) = slot.current.as_ref().filter(|connection| connection.is_usable()) {
                return Ok(current.clone());
            }
            self.attempt(&mut slot)
        };
        let outcome = timeout_at(deadline, attempt.wait_for(Option::is_some)).await;
        match outcome {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or_else(|| Err(Failure::transport("connecting was given up"))),
            Ok(Err(_)) => Err(Failure::transport("connecting was given up")),
            Err(_) => Err(Failure::unreachable("no connection in time")),
        }
    }

    /// The attempt under way, or a new one in a task of its own, which outlives whoever asked first.
    fn attempt(self: &Arc<Self>, slot: &mut Slot) -> Attempt {
        if let Some(attempt) = &slot.attempt {
            return attempt.clone();
        }
        let (told, attempt) = watch::channel(None);
        slot.attempt = Some(attempt.clone());
        let peer = self.clone();
        tokio::spawn(async move {
            let deadline = Instant::now() + peer.shared.call_deadline.max(peer.shared.connect_timeout);
            let outcome = establish(&peer.shared, &peer.domain, &peer.penalties, deadline).await.map(Arc::new);
            let old = {
                let mut slot = locked(&peer.slot);
                slot.attempt = None;
                slot.recheck_at = None;
                match &outcome {
                    Ok(connection) => slot.current.replace(connection.clone()),
                    Err(_) => None,
                }
            };
            match &outcome {
                Ok(_) => {
                    peer.reached(true);
                    peer.call_breaker.connected();
                    peer.stream_breaker.connected();
                }
                Err(failure) => {
                    peer.reached(false);
                    peer.note(failure, None);
                }
            }
            told.send_replace(Some(outcome));
            if let Some(old) = old {
                drain(old);
            }
        });
        attempt
    }

    /// Finds out whether a peer that was left alone is back.
    pub(super) async fn probe(self: &Arc<Self>, deadline: Instant) -> Result<(), Failure> {
        let until = deadline.min(Instant::now() + PROBE);
        let connection = self.connection(until).await?;
        let outcome = connection.ping(&self.shared, until.saturating_duration_since(Instant::now())).await;
        if outcome.is_err() {
            // Streams on it may go on: keep-alive decides about them.
            self.discard(&connection);
        }
        outcome
    }

    fn reached(&self, reachable: bool) {
        let mut reach = locked(&self.reach);
        let now = self.shared.clock.now();
        if reach.reachable.is_none_or(|(before, _)| before != reachable) {
            reach.reachable = Some((reachable, now));
        }
        if reachable {
            reach.answered = Some(now);
        }
    }

    /// Whether a health check is due; the next one is after `every`.
    pub(super) fn is_due(&self, every: Duration) -> bool {
        let now = Instant::now();
        let mut reach = locked(&self.reach);
        let due = reach.check_at.is_none_or(|at| now >= at);
        if due {
            reach.check_at = Some(now + every);
        }
        due
    }

    /// Finds out whether the peer answers, whether anybody calls it or not, and keeps the connection warm.
    pub(super) async fn check(self: Arc<Self>) {
        let deadline = Instant::now() + self.shared.call_deadline;
        let Ok(connection) = self.connection(deadline).await else { return };
        match connection.greet(&self.shared, deadline).await {
            Ok(()) => {}
            // Told here and not to the breakers: a peer that refuses us is there.
            Err(Unusable::Refused(_)) => self.tell(label::REMOTE),
            Err(Unusable::Failed(failure)) => self.tell(failure.label),
        }
        let began = Instant::now();
        match connection.ping(&self.shared, PROBE).await {
            Ok(()) => {
                self.reached(true);
                let took = began.elapsed();
                let mut reach = locked(&self.reach);
                reach.latency = Some(reach.latency.map_or(took, |before| (before * 7 + took) / 8));
            }
            Err(failure) => {
                self.discard(&connection);
                self.reached(false);
                if connection.first_to_tell() {
                    self.note(&failure, None);
                }
            }
        }
    }

    /// Takes a connection out of use; what runs on it may go on.
    pub(super) fn discard(&self, connection: &Arc<Connection>) {
        let mut slot = locked(&self.slot);
        if slot.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, connection)) {
            slot.current = None;
        }
    }

    /// The peer shows signs of life.
    pub(crate) fn heard(&self) {
        self.call_breaker.nudge();
        self.stream_breaker.nudge();
    }

    fn tell(&self, label: &'static str) {
        *locked(&self.last_error) = Some((self.shared.clock.now(), label));
    }

    /// Notes a failure; an outage counts for the breaker of the calls concerned, or for both.
    pub(super) fn note(&self, failure: &Failure, kind: Option<Kind>) {
        self.tell(failure.label);
        if failure.is_outage() {
            match kind {
                Some(kind) => self.breaker(kind).failed(failure),
                None => [&self.call_breaker, &self.stream_breaker].iter().for_each(|breaker| breaker.failed(failure)),
            }
        }
    }

    /// Looks after the connection: replaces one that is too old, made with old certificates, or whose target DNS no
    /// longer names; drops one that nobody uses.
    pub(super) fn maintain(self: &Arc<Self>) {
        let now = Instant::now();
        let mut slot = locked(&self.slot);
        let Some(connection) = slot.current.clone() else { return };
        if !connection.is_usable() {
            slot.current = None;
            locked(&self.reach).check_at = Some(now);
            return;
        }
        let policy = self.shared.policy.current();
        if !connection.key.is_some_and(|key| policy.allows_key(&self.domain, key)) {
            tracing::info!(peer.domain = %self.domain, "the connection ends: another key is pinned now");
            slot.current = None;
            drop(slot);
            locked(&self.permission).cancel();
            drain(connection);
            return;
        }
        let old = now >= connection.retire_at || connection.generation != self.shared.tls.current().generation;
        if old && self.idle() > now - connection.born {
            slot.current = None;
            drop(slot);
            drain(connection);
        } else if old {
            if slot.replace_at.is_none_or(|at| now >= at) {
                slot.replace_at = Some(now + REPLACE_AGAIN);
                let _ = self.attempt(&mut slot);
            }
            // Past its time for long, or its certificate has expired: no new calls on it.
            if now >= connection.retire_at + DRAIN {
                slot.current = None;
                drop(slot);
                drain(connection);
            }
        } else if slot.recheck_at.is_none_or(|at| now >= at) {
            slot.recheck_at = Some(now + RECHECK.1);
            tokio::spawn(self.clone().recheck(connection));
        }
    }

    async fn recheck(self: Arc<Self>, connection: Arc<Connection>) {
        let Ok(located) = self.shared.discovery.locate(&self.domain).await else { return };
        let mut slot = locked(&self.slot);
        let still = located
            .value
            .iter()
            .any(|target| (&target.host, target.port) == (&connection.target.host, connection.target.port));
        if still {
            slot.recheck_at = Some(Instant::now() + located.fresh_for.clamp(RECHECK.0, RECHECK.1));
        } else if slot.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &connection)) {
            tracing::info!(peer.domain = %self.domain, "the peer has moved; connecting anew");
            let _ = self.attempt(&mut slot);
        }
    }

    pub(crate) fn state(&self) -> PeerView {
        let connection = locked(&self.slot).current.clone().filter(|connection| connection.is_usable());
        let last_error = *locked(&self.last_error);
        let reach = *locked(&self.reach);
        // The worse of the two, as an operator looks for trouble.
        let names = [self.call_breaker.name(), self.stream_breaker.name()];
        let breaker = ["open", "half-open"].into_iter().find(|name| names.contains(name)).unwrap_or("closed");
        PeerView {
            domain: self.domain.clone(),
            connected_since: connection.as_ref().map(|connection| connection.since),
            last_error,
            breaker,
            reachable: reach.reachable,
            latency: reach.latency,
            answered: reach.answered,
            certificate_expiry: connection.as_ref().and_then(|connection| connection.expiry),
            capabilities: connection.and_then(|connection| connection.capabilities().cloned()),
        }
    }
}

/// Lets the calls on a connection finish, for a while.
fn drain(connection: Arc<Connection>) {
    let close = connection.closer();
    // Without a user left it ends by itself, gracefully.
    drop(connection);
    tokio::spawn(async move {
        tokio::time::sleep(DRAIN).await;
        close.cancel();
    });
}

/// What is known of a peer.
#[derive(Debug, Clone)]
pub(crate) struct PeerView {
    pub(crate) domain: Domain,
    pub(crate) connected_since: Option<Timestamp>,
    pub(crate) last_error: Option<(Timestamp, &'static str)>,
    pub(crate) breaker: &'static str,
    /// Whether it can be reached, and since when that is so.
    pub(crate) reachable: Option<(bool, Timestamp)>,
    pub(crate) latency: Option<Duration>,
    /// When it last answered a health check or a connection.
    pub(crate) answered: Option<Timestamp>,
    pub(crate) certificate_expiry: Option<Timestamp>,
    pub(crate) capabilities: Option<Capabilities>,
}
