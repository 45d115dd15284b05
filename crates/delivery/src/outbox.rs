//! The sending side: rows written with a change, and the relays that carry them.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use aldis_peers::{Peers, Policy};
use aldis_proto::{channel::Channel, internal::v1::PeerBacklog};
use aldis_runtime::SharedClock;
use aldis_storage::{Db, StoreError};
use aldis_types::Domain;
use bytes::Bytes;
use rand::Rng;
use rusqlite::{Connection, params};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use crate::{
    backlog,
    condition::Conditions,
    config::Config,
    dead,
    ending::{domain_of, is_backend},
    fresh::{Link, Tail},
    local, pausing, peer, positions,
    renewal::{self, Opened},
    schema::Statements,
    window::Row,
};

/// How often dead letters are brought within their bounds.
const SWEEP: Duration = Duration::from_secs(600);
/// How often depth and age are measured.
const MEASURE: Duration = Duration::from_secs(15);

/// Whose outbox it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Component {
    /// Lanes of users.
    Users,
    /// Lanes of conversations.
    Conversations,
}

impl Component {
    /// The component's name in table names, envelopes and event ids.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Conversations => "conversations",
        }
    }

    /// Whether a kind of envelope tells of a change of state, which later ones depend on; otherwise it is a message.
    pub(crate) const fn is_state(self, kind: u32) -> bool {
        match self {
            Self::Users => kind >= FIRST_CHANGE,
            Self::Conversations => kind >= FIRST_CHANGE && kind != MESSAGE,
        }
    }
}

/// Smaller kinds have no content.
const FIRST_CHANGE: u32 = 10;
/// `ConversationEvent.message_sent`.
const MESSAGE: u32 = 30;

/// One of our own services that effects are told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LocalService {
    /// Kind 0: `PushRequest`; 3: `RemoveClientRequest`; 4: `OpenConsumerRequest`; 5: `RemoveUserQueuesRequest`.
    Notifications,
    /// Kind 1: `ApplyRelationRequest`; kind 2: `RemoveUserRequest`.
    Conversations,
}

impl LocalService {
    pub(crate) const ALL: [Self; 2] = [Self::Notifications, Self::Conversations];

    /// The service's name in the column `peer`; no domain has a colon.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Notifications => "service:notifications",
            Self::Conversations => "service:conversations",
        }
    }
}

/// Who is to be told.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Peer {
    /// Another backend.
    Backend(Domain),
    /// One of our own services.
    Service(LocalService),
}

/// Something to tell.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Whom.
    pub peer: Peer,
    /// What keeps its order: a conversation id or a user id.
    pub lane: [u8; 16],
    /// For backends the field number of the change in `UsersEvent` or `ConversationEvent`; for services see
    /// [`LocalService`].
    pub kind: u32,
    /// The encoded message. Event ids for our own services are left empty; the relay fills them in.
    pub body: Bytes,
}

/// Rows that a job has appended; to be handed to [`Outbox::committed`] once the job has succeeded. When it is dropped
/// instead, because the job failed or its author went away meanwhile, relays look for themselves.
#[derive(Default)]
#[must_use]
pub struct Appended {
    links: Vec<(Peer, Link)>,
    outbox: Option<Outbox>,
}

impl fmt::Debug for Appended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appended").field("rows", &self.links.len()).finish_non_exhaustive()
    }
}

impl Drop for Appended {
    fn drop(&mut self) {
        let Some(outbox) = self.outbox.take() else { return };
        let peers: BTreeSet<Peer> = self.links.drain(..).map(|(peer, _)| peer).collect();
        for peer in peers {
            match peer {
                Peer::Backend(domain) => outbox.tail(&domain).look(),
                Peer::Service(service) => {
                    if let Some(queue) = outbox.local_queue(service) {
                        queue.tail.look();
                    }
                }
            }
        }
    }
}

/// The outbox of one component. Cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    pub(crate) shared: Arc<Shared>,
    pub(crate) trace: Option<Arc<str>>,
}

pub(crate) struct Shared {
    pub(crate) component: Component,
    pub(crate) domain: Domain,
    pub(crate) db: Db,
    pub(crate) clock: SharedClock,
    pub(crate) sql: Statements,
    pub(crate) incarnation: [u8; 16],
    /// The same for events of our own services, which a restore does not change.
    pub(crate) services_incarnation: [u8; 16],
    /// Keys whose rows are sent as from the store that was before a restore.
    earlier: Mutex<BTreeMap<String, [u8; 16]>>,
    pub(crate) epoch: u64,
    /// Some backend has a key that is not its domain.
    pub(crate) renamed: AtomicBool,
    /// Backends whose relays the administrator holds.
    pub(crate) paused: watch::Sender<BTreeSet<Domain>>,
    pub(crate) conditions: Conditions,
    services: HashMap<LocalService, LocalQueue>,
    backends: Mutex<HashMap<Domain, Arc<Tail>>>,
    /// Delivered rows that are to be removed; each until that is committed.
    delivered: Mutex<Vec<i64>>,
    new_backends: mpsc::UnboundedSender<Domain>,
    arrivals: Mutex<Option<mpsc::UnboundedReceiver<Domain>>>,
}

impl Shared {
    /// Keys whose rows are sent as from the store that was before a restore.
    pub(crate) fn earlier(&self) -> MutexGuard<'_, BTreeMap<String, [u8; 16]>> {
        self.earlier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivered rows that are to be removed.
    pub(crate) fn delivered(&self) -> MutexGuard<'_, Vec<i64>> {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the relay to one of our own services and tells waiters how far it got.
#[derive(Default)]
pub(crate) struct LocalQueue {
    pub(crate) tail: Tail,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    delivered: i64,
    waiters: BTreeMap<i64, Vec<oneshot::Sender<()>>>,
}

impl LocalQueue {
    /// Tells everybody who waits for rows up to `id`.
    pub(crate) fn delivered(&self, id: i64) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.delivered = progress.delivered.max(id);
        let later = progress.waiters.split_off(&(id + 1));
        let done = std::mem::replace(&mut progress.waiters, later);
        drop(progress);
        for waiter in done.into_values().flatten() {
            // Who gave up waiting needs no word.
            let _ = waiter.send(());
        }
    }

    fn wait(&self, id: i64) -> Option<oneshot::Receiver<()>> {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if progress.delivered >= id {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        progress.waiters.entry(id).or_default().push(sender);
        Some(receiver)
    }
}

/// What relays need to reach others.
#[derive(Clone)]
pub struct Relays {
    /// Other backends, through our own federator.
    pub peers: Peers,
    /// Backends that are not allowed keep their rows.
    pub policy: Policy,
    /// Our notifications service.
    pub notifications: Option<Channel>,
    /// Our conversations service.
    pub conversations: Option<Channel>,
    /// How much may wait for backends.
    pub bounds: Config,
}

impl Outbox {
    /// Opens the outbox of a component whose tables were migrated; raises the epoch of its relay.
    pub async fn open(component: Component, domain: Domain, db: Db, clock: SharedClock) -> Result<Self, StoreError> {
        let sql = Statements::new(component.as_str());
        let mut fresh = [0; 16];
        rand::rng().fill_bytes(&mut fresh);
        let (restored, now) = (db.restored().await?, clock.now());
        let opened = db
            .write(move |tx| {
                let sql = Statements::new(component.as_str());
                renewal::open(tx, (component.as_str(), &sql), fresh, restored, now)
            })
            .await?;
        let Opened { incarnation, services: services_incarnation, epoch, earlier } = opened;
        let statement = sql.renamed.clone();
        let renamed = db.read(move |tx| Ok(tx.query_row(&statement, [], |row| row.get(0))?)).await?;
        let paused = watch::Sender::new(pausing::paused(&db, &sql).await?);
        let (new_backends, arrivals) = mpsc::unbounded_channel();
        let shared = Shared {
            component,
            domain,
            db,
            clock,
            sql,
            incarnation,
            services_incarnation,
            earlier: Mutex::new(earlier),
            epoch,
            renamed: AtomicBool::new(renamed),
            paused,
            conditions: Conditions::default(),
            services: LocalService::ALL.map(|service| (service, LocalQueue::default())).into(),
            backends: Mutex::default(),
            delivered: Mutex::default(),
            new_backends,
            arrivals: Mutex::new(Some(arrivals)),
        };
        Ok(Self { shared: Arc::new(shared), trace: None })
    }

    /// This outbox for a change of the current span: rows that it appends carry the span's trace to whoever gets them.
    #[must_use]
    pub fn traced(&self) -> Self {
        Self { shared: self.shared.clone(), trace: crate::trace::current() }
    }

    /// Appends rows, in order, inside the write job of the change that they tell of.
    pub fn append(&self, tx: &Connection, outgoing: &[Outgoing]) -> Result<Appended, StoreError> {
        let shared = &self.shared;
        let now = shared.clock.now().millis();
        let mut appended = Appended { links: Vec::with_capacity(outgoing.len()), outbox: Some(self.clone()) };
        let mut last: HashMap<Cow<'static, str>, i64> = HashMap::new();
        let mut newest = tx.prepare_cached(&shared.sql.newest)?;
        let mut insert = tx.prepare_cached(&shared.sql.insert)?;
        let mut next_in_lane = tx.prepare_cached(&shared.sql.next_in_lane)?;
        for item in outgoing {
            let key: Cow<'static, str> = match &item.peer {
                Peer::Backend(domain) => Cow::Owned(shared.key(tx, domain)?),
                Peer::Service(service) => Cow::Borrowed(service.key()),
            };
            let lane = item.lane.as_slice();
            let sequence: i64 = match &item.peer {
                Peer::Backend(_) => next_in_lane.query_row(params![&key, lane], |row| row.get(0))?,
                Peer::Service(_) => 0,
            };
            let previous = match last.get(&key) {
                Some(id) => *id,
                None => newest.query_row([&key], |row| row.get::<_, Option<i64>>(0))?.unwrap_or(0),
            };
            insert.execute(params![&key, lane, sequence, item.kind, item.body.as_ref(), now, self.trace.as_deref()])?;
            let id = tx.last_insert_rowid();
            last.insert(key.clone(), id);
            let row = Row {
                id,
                lane: item.lane,
                sequence: sequence.cast_unsigned(),
                kind: item.kind,
                body: item.body.clone(),
                trace: self.trace.as_deref().map(str::to_owned),
            };
            appended.links.push((item.peer.clone(), Link { key, previous, row }));
        }
        Ok(appended)
    }

    /// Hands the rows to the relays after the commit.
    pub fn committed(&self, mut appended: Appended) -> Delivery {
        let mut last: BTreeMap<LocalService, i64> = BTreeMap::new();
        for (peer, link) in std::mem::take(&mut appended.links) {
            match peer {
                Peer::Backend(domain) => self.tail(&domain).offer(link),
                Peer::Service(service) => {
                    last.insert(service, link.row.id);
                    if let Some(queue) = self.shared.services.get(&service) {
                        queue.tail.offer(link);
                    }
                }
            }
        }
        let services = last.into_iter().filter_map(|(service, id)| self.shared.services.get(&service)?.wait(id));
        Delivery { waiting: services.collect() }
    }

    /// The tail of a backend, whose relay is started with it.
    fn tail(&self, domain: &Domain) -> Arc<Tail> {
        let mut backends = self.shared.backends.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tail) = backends.get(domain) {
            return tail.clone();
        }
        let tail = Arc::<Tail>::default();
        backends.insert(domain.clone(), tail.clone());
        // Without a running relay the rows wait for the next start.
        let _ = self.shared.new_backends.send(domain.clone());
        tail
    }

    /// Sends nothing more to a backend from memory until its relay begins anew.
    pub(crate) fn forget_fresh(&self, domain: &Domain) {
        let backends = self.shared.backends.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tail) = backends.get(domain) {
            tail.leave();
            tail.wake.notify_one();
        }
    }

    pub(crate) fn local_queue(&self, service: LocalService) -> Option<&LocalQueue> {
        self.shared.services.get(&service)
    }

    /// Runs a relay to each service and to each backend that has rows, until it is dropped. Only the first call works;
    /// a second one returns at once.
    pub async fn run(self, relays: Relays) {
        let arrivals = self.shared.arrivals.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut arrivals) = arrivals else { return };
        let mut tasks = JoinSet::new();
        if let Some(channel) = relays.notifications.clone() {
            tasks.spawn(local::relay_notifications(self.clone(), channel));
        }
        if let Some(channel) = relays.conversations.clone() {
            tasks.spawn(local::relay_conversations(self.clone(), channel));
        }
        for domain in self.waiting_backends().await {
            self.tail(&domain);
        }
        let leftover = self.clone();
        tasks.spawn(async move {
            if let Err(error) = leftover.drop_retired().await {
                tracing::error!(%error, "dropping what waits for backends that were ended failed");
            }
        });
        tasks.spawn(self.clone().keep_within(relays.bounds));
        let mut running = HashSet::new();
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut measure = tokio::time::interval(MEASURE);
        measure.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                arrival = arrivals.recv() => {
                    let Some(domain) = arrival else { return };
                    if running.insert(domain.clone()) {
                        let tail = self.tail(&domain);
                        tasks.spawn(peer::relay(self.clone(), relays.clone(), domain, tail));
                    }
                }
                _ = measure.tick() => self.measure().await,
                _ = sweep.tick() => {
                    tasks.spawn(self.clone().sweep());
                }
            }
        }
    }

    /// Keys of backends for which something waits, retired ones left out.
    pub(crate) async fn keys_with_rows(&self) -> Result<Vec<String>, StoreError> {
        let statement = self.shared.sql.peers.clone();
        let keys = self.shared.db.read(move |tx| {
            let mut query = tx.prepare_cached(&statement)?;
            let keys = query.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
            Ok(keys)
        });
        Ok(keys.await?.into_iter().filter(|key| is_backend(key)).collect())
    }

    async fn waiting_backends(&self) -> Vec<Domain> {
        loop {
            match self.keys_with_rows().await {
                Ok(keys) => return keys.iter().filter_map(|key| domain_of(key).parse().ok()).collect(),
                Err(error) => {
                    tracing::error!(%error, "reading the outbox failed");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    async fn sweep(self) {
        let (shared, bounds) = (&self.shared, dead::Bounds::at(self.shared.clock.now()));
        if let Err(error) = dead::sweep(&shared.db, shared.component.as_str(), bounds).await {
            tracing::error!(%error, "dead letters could not be swept");
        }
        if let Err(error) = positions::sweep(&shared.db, shared.component.as_str()).await {
            tracing::error!(%error, "old positions could not be swept");
        }
    }

    async fn measure(&self) {
        let component = self.shared.component.as_str();
        let Ok(peers) = self.shared.db.read(move |tx| backlog::peers(tx, component, false)).await else { return };
        let mut quiet: HashSet<String> = {
            let backends = self.shared.backends.lock().unwrap_or_else(PoisonError::into_inner);
            let services = LocalService::ALL.iter().map(|service| service.key().to_owned());
            backends.keys().map(|domain| domain.as_str().to_owned()).chain(services).collect()
        };
        let now = self.shared.clock.now().millis();
        for peer in peers {
            quiet.remove(&peer.peer);
            set_gauges(component, &peer, now);
        }
        for peer in quiet {
            set_gauges(component, &PeerBacklog { peer, ..PeerBacklog::default() }, now);
        }
    }
}

#[allow(clippy::cast_precision_loss)]
fn set_gauges(component: &'static str, peer: &PeerBacklog, now: i64) {
    let labels = [("component", component.to_owned()), ("peer", peer.peer.clone())];
    let age = if peer.rows == 0 { 0 } else { now.saturating_sub(peer.oldest).max(0) };
    metrics::gauge!("aldis_outbox_rows", &labels).set(peer.rows as f64);
    metrics::gauge!("aldis_outbox_oldest_seconds", &labels).set(age as f64 / 1000.0);
    metrics::gauge!("aldis_outbox_dead_letters", &labels).set(peer.dead as f64);
    metrics::gauge!("aldis_outbox_paused", &labels).set(if peer.paused > 0 { 1.0 } else { 0.0 });
    metrics::gauge!("aldis_outbox_marked_lanes", &labels).set(peer.marked as f64);
}

/// Lets the author of a change wait for its effects on our own services.
#[derive(Debug)]
pub struct Delivery {
    waiting: Vec<oneshot::Receiver<()>>,
}

impl Delivery {
    /// Waits until every row for our own services was delivered; `false` when that takes longer than `timeout`, in
    /// which case they still will be.
    pub async fn local(self, timeout: Duration) -> bool {
        let all = async {
            for row in self.waiting {
                if row.await.is_err() {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(timeout, all).await.unwrap_or(false)
    }
}
