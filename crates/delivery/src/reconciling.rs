//! When state is compared with other backends: after something in a lane was lost or refused, when a backend was away, now
//! and then, and when an administrator says so. What is compared, and how it is repaired, is the service's.
//!
//! Rounds with one backend never overlap; each is bounded, and what it leaves is done by a later one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aldis_peers::{PeerError, PeerErrorKind, Policy};
use aldis_proto::internal::v1::{
    ReconcileRequest, ReconcileResponse, conversations_reconciliation_server, users_reconciliation_server,
};
use aldis_runtime::SharedClock;
use aldis_storage::StoreError;
use aldis_types::Domain;
use async_trait::async_trait;
use rand::RngExt as _;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tonic::{Request, Response, Status};

use crate::{comparing::Marks, outbox::Component};

/// How often it is looked for marks.
const LOOK: Duration = Duration::from_secs(5);
/// How often it is looked for backends that were not known before.
const SURVEY: Duration = Duration::from_secs(60);
/// Passes of one round: a repair is looked at again, and so is what was on its way.
const PASSES: usize = 4;
/// Pauses between them.
const PAUSES: [Duration; PASSES - 1] = [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];
/// A round takes no longer.
const ROUND: Duration = Duration::from_mins(10);
/// Rounds at once.
const AT_ONCE: usize = 4;
/// A backend that comes and goes is not compared with more often.
const RETURNED: Duration = Duration::from_mins(1);
/// Pause after a round that failed or left something; doubles up to that of the timer.
const AGAIN: Duration = Duration::from_secs(10);
/// The first rounds after a start are spread over this time.
const SPREAD: Duration = Duration::from_mins(2);
/// Arrivals that are remembered; more are found by the timer.
const ARRIVALS: usize = 1000;

/// What a pass, or a round, came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// What we hold of the other backend.
    pub compared: u64,
    /// What differed.
    pub differing: u64,
    /// What was brought in line.
    pub repaired: u64,
    /// What may differ because something is on its way, or was too much for once.
    pub waiting: u64,
}

/// A comparison could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The other backend cannot be asked.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// Our own store failed.
    #[error("store")]
    Store(#[from] StoreError),
    /// Another service of ours failed.
    #[error("own service: {0}")]
    Service(String),
    /// It took too long, or the policy does not allow it.
    #[error("{0}")]
    Unable(&'static str),
}

/// What a service compares with other backends.
#[async_trait]
pub trait Reconcile: Send + Sync {
    /// Backends of which something is held here.
    async fn known(&self) -> Result<Vec<Domain>, StoreError>;

    /// Compares with one backend, and repairs what differs and can be repaired now. Bounded; may be cut off anywhere. With
    /// `both`, the other backend has reason to compare as well, and may be told so.
    async fn pass(&self, domain: &Domain, both: bool) -> Result<Found, ReconcileError>;
}

/// Compares a component's state with other backends. Cheap to clone.
#[derive(Clone)]
pub struct Reconciler(Arc<Shared>);

struct Shared {
    component: Component,
    what: Arc<dyn Reconcile>,
    marks: Marks,
    policy: Policy,
    clock: SharedClock,
    turns: Mutex<HashMap<Domain, Arc<tokio::sync::Mutex<()>>>>,
    /// Backends that were compared with since the start.
    met: Mutex<HashSet<Domain>>,
    arrived: Mutex<Option<mpsc::Receiver<Domain>>>,
}

/// When a backend is next compared with.
struct Next {
    due: Instant,
    begun: Option<Instant>,
    failures: u32,
}

/// Notes which backends are there, maybe after an absence. Cheap to clone.
#[derive(Clone)]
pub struct Arrivals(mpsc::Sender<Domain>);

impl Arrivals {
    /// The other end is for the reconciler.
    pub fn new() -> (Self, mpsc::Receiver<Domain>) {
        let (arrivals, arrived) = mpsc::channel(ARRIVALS);
        (Self(arrivals), arrived)
    }

    /// A backend is there. Returns at once.
    pub fn note(&self, domain: &Domain) {
        // When there are too many at once, the timer finds them.
        let _ = self.0.try_send(domain.clone());
    }
}

impl Reconciler {
    /// Compares what the service says.
    pub fn new(
        component: Component,
        what: Arc<dyn Reconcile>,
        marks: Marks,
        arrived: mpsc::Receiver<Domain>,
        policy: Policy,
        clock: SharedClock,
    ) -> Self {
        let arrived = Mutex::new(Some(arrived));
        Self(Arc::new(Shared {
            component,
            what,
            marks,
            policy,
            clock,
            turns: Mutex::default(),
            met: Mutex::default(),
            arrived,
        }))
    }

    /// Compares with a backend now, as an administrator wants it; waits for a round that is under way.
    pub async fn round(&self, domain: &Domain) -> Result<Found, ReconcileError> {
        self.round_of(domain, true).await
    }

    async fn round_of(&self, domain: &Domain, both: bool) -> Result<Found, ReconcileError> {
        if !self.0.policy.allows(domain) {
            return Err(ReconcileError::Unable("this backend does not talk to that one"));
        }
        let turn = {
            let mut turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.entry(domain.clone()).or_default().clone()
        };
        let run = async {
            let _turn = turn.lock().await;
            self.passes(domain, both).await
        };
        tokio::time::timeout(ROUND, run).await.map_err(|_| ReconcileError::Unable("it took too long"))?
    }

    #[tracing::instrument(name = "reconciliation.round", skip_all, fields(peer.domain = %domain))]
    async fn passes(&self, domain: &Domain, both: bool) -> Result<Found, ReconcileError> {
        let shared = &self.0;
        // After a start, ours may be another store than the other backend knows, or one that it was told of in vain.
        let both = both || !shared.met.lock().unwrap_or_else(PoisonError::into_inner).contains(domain);
        let begun = shared.clock.now();
        let mut round = shared.what.pass(domain, both).await?;
        shared.met.lock().unwrap_or_else(PoisonError::into_inner).insert(domain.clone());
        let mut last = round;
        shared.count(domain, round.differing, round.repaired);
        for pause in PAUSES {
            if last.differing == 0 && last.waiting == 0 {
                break;
            }
            tokio::time::sleep(pause).await;
            last = shared.what.pass(domain, false).await?;
            shared.count(domain, 0, last.repaired);
            round.repaired += last.repaired;
            round.waiting = last.waiting;
        }
        if round.waiting == 0 {
            shared.marks.clear(domain, begun).await?;
        }
        if round.differing > 0 {
            let Found { differing, repaired, waiting, .. } = round;
            let component = shared.component.as_str();
            tracing::info!(component, differing, repaired, waiting, "state differed from that of another backend");
        }
        Ok(round)
    }

    /// Compares with every backend when it is due, for as long as it is polled; with each at least once in `every`. Only the
    /// first call works; a second one returns at once.
    pub async fn run(self, every: Duration) {
        let arrived = self.0.arrived.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut arrived) = arrived else { return };
        let mut schedule: BTreeMap<Domain, Next> = BTreeMap::new();
        let mut rounds = JoinSet::new();
        let mut under_way = BTreeSet::new();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut survey = tokio::time::interval(SURVEY);
        survey.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = survey.tick() => self.survey(&mut schedule).await,
                _ = look.tick() => self.look(&mut schedule).await,
                // Without anybody who notes arrivals the timer is left.
                Some(domain) = arrived.recv() => returned(&mut schedule, domain),
                Some(Ok((domain, outcome))) = rounds.join_next() => {
                    under_way.remove(&domain);
                    ended(&mut schedule, &domain, &outcome, every);
                }
            }
            let now = Instant::now();
            for (domain, next) in &mut schedule {
                if rounds.len() < AT_ONCE
                    && next.due <= now
                    && self.0.policy.allows(domain)
                    && !under_way.contains(domain)
                {
                    under_way.insert(domain.clone());
                    next.begun = Some(now);
                    let (this, domain) = (self.clone(), domain.clone());
                    rounds.spawn(async move {
                        let outcome = this.round_of(&domain, false).await;
                        (domain, outcome)
                    });
                }
            }
        }
    }

    /// Backends that were not known before are compared with soon, but not all at once.
    async fn survey(&self, schedule: &mut BTreeMap<Domain, Next>) {
        let known = match self.0.what.known().await {
            Ok(known) => known,
            Err(error) => {
                tracing::error!(%error, "it cannot be said with whom to compare");
                return;
            }
        };
        let listed = self.0.policy.current();
        let all: BTreeSet<Domain> = known.into_iter().chain(listed.remotes.keys().cloned()).collect();
        schedule.retain(|domain, next| all.contains(domain) || next.due <= Instant::now());
        for domain in all {
            schedule.entry(domain).or_insert_with(|| Next {
                due: Instant::now() + LOOK + SPREAD.mul_f64(rand::rng().random()),
                begun: None,
                failures: 0,
            });
        }
    }

    /// Backends with marked lanes are compared with at once, unless that has just failed.
    async fn look(&self, schedule: &mut BTreeMap<Domain, Next>) {
        let marked = match self.0.marks.peers().await {
            Ok(marked) => marked,
            Err(error) => {
                tracing::error!(%error, "marks of lanes cannot be read");
                return;
            }
        };
        let now = Instant::now();
        for domain in marked {
            let next = schedule.entry(domain).or_insert(Next { due: now, begun: None, failures: 0 });
            let recently = next.begun.is_some_and(|begun| now.duration_since(begun) < LOOK);
            if next.failures == 0 && !recently {
                next.due = now;
            }
        }
    }
}

impl Shared {
    fn count(&self, domain: &Domain, differing: u64, repaired: u64) {
        let labels = [("component", self.component.as_str().to_owned()), ("peer", domain.to_string())];
        metrics::counter!("aldis_reconciliation_differing_total", &labels).increment(differing);
        metrics::counter!("aldis_reconciliation_repaired_total", &labels).increment(repaired);
    }
}

/// A backend is there again: it is compared with at once, or soon when that was done a moment ago.
fn returned(schedule: &mut BTreeMap<Domain, Next>, domain: Domain) {
    let now = Instant::now();
    let next = schedule.entry(domain).or_insert(Next { due: now, begun: None, failures: 0 });
    let due = next.begun.map_or(now, |begun| now.max(begun + RETURNED));
    next.due = next.due.min(due);
    next.failures = 0;
}

/// Says when a backend is compared with again.
fn ended(
    schedule: &mut BTreeMap<Domain, Next>,
    domain: &Domain,
    outcome: &Result<Found, ReconcileError>,
    every: Duration,
) {
    let Some(next) = schedule.get_mut(domain) else { return };
    let pause = match outcome {
        Ok(found) if found.waiting == 0 => {
            next.failures = 0;
            every
        }
        // An older build: it says more once it is another one, and opens its streams anew then.
        Err(ReconcileError::Peer(error)) if error.kind == PeerErrorKind::Unimplemented => {
            next.failures = 1;
            every
        }
        outcome => {
            if let Err(error) = outcome {
                tracing::debug!(peer.domain = %domain, %error, "state cannot be compared with another backend");
            }
            next.failures = next.failures.saturating_add(1);
            AGAIN.saturating_mul(1 << next.failures.min(12)).min(every)
        }
    };
    next.due = Instant::now() + pause.mul_f64(rand::rng().random_range(0.8..1.0));
}

/// Compares at once what an administrator asks for.
#[derive(Clone)]
pub struct ReconciliationServer(Reconciler);

/// `aldis.internal.v1.ConversationsReconciliation`.
pub fn conversations_reconciliation(
    reconciler: Reconciler,
) -> conversations_reconciliation_server::ConversationsReconciliationServer<ReconciliationServer> {
    conversations_reconciliation_server::ConversationsReconciliationServer::new(ReconciliationServer(reconciler))
}

/// `aldis.internal.v1.UsersReconciliation`.
pub fn users_reconciliation(
    reconciler: Reconciler,
) -> users_reconciliation_server::UsersReconciliationServer<ReconciliationServer> {
    users_reconciliation_server::UsersReconciliationServer::new(ReconciliationServer(reconciler))
}

impl ReconciliationServer {
    async fn answer(&self, request: ReconcileRequest) -> Result<Response<ReconcileResponse>, Status> {
        let domain: Domain =
            request.domain.parse().map_err(|error| Status::invalid_argument(format!("the domain is {error}")))?;
        let Found { compared, differing, repaired, waiting } =
            self.0.round(&domain).await.map_err(|error| Status::failed_precondition(error.to_string()))?;
        Ok(Response::new(ReconcileResponse { compared, differing, repaired, waiting }))
    }
}

#[async_trait]
impl conversations_reconciliation_server::ConversationsReconciliation for ReconciliationServer {
    async fn reconcile(&self, request: Request<ReconcileRequest>) -> Result<Response<ReconcileResponse>, Status> {
        self.answer(request.into_inner()).await
    }
}

#[async_trait]
impl users_reconciliation_server::UsersReconciliation for ReconciliationServer {
    async fn reconcile(&self, request: Request<ReconcileRequest>) -> Result<Response<ReconcileResponse>, Status> {
        self.answer(request.into_inner()).await
    }
}
