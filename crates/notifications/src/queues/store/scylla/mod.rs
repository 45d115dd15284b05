//! Queues on a cluster.
//!
//! A user's queue is cut into weeks, each a partition. Events are appended by a batch that moves the partition's head, if the
//! head is still where it was: so each id is greater than all before it, with any number of replicas that write, and an event
//! enters once. The first append of a week seals the week before, in which nothing can be appended from then on: readers go
//! from week to week without missing what came late. That holds while no replica's clock is wrong by more than a week.
//!
//! Nothing that was appended is deleted row by row. Old events are not read, and end by themselves; what a full queue drops
//! lies below a floor, from which reading begins. So no read ever passes what is gone.

mod append;
mod bounds;
mod read;
mod state;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aldis_runtime::{SharedClock, SharedRandom};
use aldis_storage::{
    StoreError,
    cql::{Cql, CqlMigration},
};
use aldis_types::{ClientId, NotificationId, Timestamp, UserId};
use async_trait::async_trait;
use tokio::sync::{Mutex, Semaphore};

pub(crate) use bounds::Oldest;

use super::{Bounds, Entry, Page, QueueStore, Reader, Stored, as_i64, ticks_of};

/// The tables of this service on a cluster.
pub(crate) const MIGRATIONS: &[CqlMigration] = &[
    CqlMigration { name: "queues", cql: include_str!("../../../../migrations/001-queues.cql") },
    CqlMigration { name: "consumers", cql: include_str!("../../../../migrations/002-consumers.cql") },
    CqlMigration { name: "push tokens", cql: include_str!("../../../../migrations/003-push-tokens.cql") },
];

/// Ticks of a partition.
const WEEK: u64 = 7 * 86_400 * 10_000_000;
/// How far another replica's clock may be ahead for its events to be seen at once, in ticks.
const AHEAD: u64 = 3600 * 10_000_000;
/// Users whose appends do not wait for each other.
const STRIPES: usize = 512;
/// Heads that are remembered for each of these.
const HEADS: usize = 256;
/// Appends at the server at once.
const MAX_APPENDS: usize = 64;

/// The newest place of a queue.
#[derive(Debug, Clone, Copy)]
struct Head {
    week: i32,
    /// What the partition has; `None`: nothing was appended in this week.
    committed: Option<i64>,
    /// Every tick so far is at most this.
    tick: u64,
    /// Events ever appended, and their bytes.
    number: i64,
    total: i64,
    /// How many of these were dropped, and their bytes, as far as this process knows.
    dropped: (i64, i64),
}

struct Shared {
    cql: Cql,
    clock: SharedClock,
    node: [u8; 6],
    sequence: u16,
    /// The greatest tick that this process gave.
    last: AtomicU64,
    /// Events up to this tick have passed their retention.
    expired: AtomicU64,
    bounds: Bounds,
    retention: Duration,
    /// Heads as this process left them, by user. Appends to one queue go one after the other here; that others move its head is
    /// found out by the condition.
    heads: Box<[Mutex<HashMap<UserId, Head>>]>,
    appends: Semaphore,
}

/// Queues on a cluster, and how far clients have acknowledged them.
#[derive(Clone)]
pub(crate) struct ScyllaQueues(Arc<Shared>);

impl ScyllaQueues {
    /// Opens the queues; the tables must be there.
    pub(crate) async fn open(
        cql: Cql,
        clock: SharedClock,
        random: &SharedRandom,
        bounds: Bounds,
        retention: Duration,
    ) -> Result<Self, StoreError> {
        let standings = crate::consumers::store::STATEMENTS;
        for statements in [append::STATEMENTS, bounds::STATEMENTS, read::STATEMENTS, state::STATEMENTS, standings] {
            cql.prepare(statements).await?;
        }
        // A node for each start: two replicas never give the same id.
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        let [mut node @ .., high, low] = bytes;
        // RFC 9562, 6.10: a random node has the multicast bit, which no network card has.
        node[0] |= 1;
        let heads = (0..STRIPES).map(|_| Mutex::default()).collect();
        Ok(Self(Arc::new(Shared {
            cql,
            clock,
            node,
            sequence: u16::from_be_bytes([high, low]) & 0x3FFF,
            last: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            bounds,
            retention,
            heads,
            appends: Semaphore::new(MAX_APPENDS),
        })))
    }

    pub(crate) fn cql(&self) -> &Cql {
        &self.0.cql
    }

    /// Events up to this tick are not read any more, whatever a user's queue holds.
    pub(crate) fn expired(&self) -> u64 {
        self.0.expired()
    }

    /// A tick below every one of later events.
    pub(crate) async fn floor_of_new(&self, user: UserId) -> Result<u64, StoreError> {
        let newest = self.0.newest(user).await?;
        Ok(newest.map_or_else(|| self.0.now().saturating_sub(AHEAD), |head| head.tick))
    }

    /// Up to where events were dropped, and after which place events are missing.
    pub(crate) async fn dropped(&self, user: UserId) -> Result<(u64, u64), StoreError> {
        let state = self.0.state(user).await?;
        Ok((state.floor, state.gap))
    }

    /// Whether an event after `from` and up to `to` was for the client and is none of `acknowledged`, also one that passed
    /// its retention. What ended before it could be asked for counts as one.
    pub(crate) async fn left_unread(
        &self,
        user: UserId,
        client: ClientId,
        from: u64,
        to: u64,
        acknowledged: &[i64],
    ) -> Result<bool, StoreError> {
        self.0.left_unread(user, client, from, to, acknowledged).await
    }
}

impl Shared {
    /// `count` ticks of now, or following the last if that is greater, each greater than `least`. The first of them.
    fn next_ticks(&self, least: u64, count: u64) -> u64 {
        let now = ticks_of(self.clock.now());
        let first = |last: u64| now.max(last.saturating_add(1)).max(least.saturating_add(1));
        let end = |last: u64| Some(first(last).saturating_add(count.saturating_sub(1)));
        match self.last.fetch_update(Ordering::SeqCst, Ordering::SeqCst, end) {
            Ok(before) | Err(before) => first(before),
        }
    }

    /// The time, as far as this process knows.
    fn now(&self) -> u64 {
        ticks_of(self.clock.now()).max(self.last.load(Ordering::SeqCst))
    }

    fn id(&self, tick: u64) -> NotificationId {
        NotificationId::new(uuid::Builder::from_gregorian_timestamp(tick, self.sequence, &self.node).into_uuid())
    }

    /// What has passed its retention, in ticks.
    fn expired(&self) -> u64 {
        let kept = u64::try_from(self.retention.as_micros()).unwrap_or(u64::MAX).saturating_mul(10);
        self.expired.load(Ordering::SeqCst).max(self.now().saturating_sub(kept))
    }

    /// How long rows live: until they have passed their retention wherever in its week they are.
    fn ttl(&self) -> i32 {
        i32::try_from(self.retention.as_secs().saturating_add(WEEK / 10_000_000)).unwrap_or(i32::MAX).min(MAX_TTL)
    }

    fn stripe(&self, user: UserId) -> &Mutex<HashMap<UserId, Head>> {
        let [.., high, low] = *user.as_bytes();
        &self.heads[usize::from(u16::from_be_bytes([high, low])) % STRIPES]
    }
}

/// Longest that a row can live, by what servers accept.
const MAX_TTL: i32 = 20 * 365 * 86_400;

/// The partition of a tick.
fn week_of(tick: u64) -> i32 {
    i32::try_from(tick / WEEK).unwrap_or(i32::MAX)
}

/// A tick as it was stored.
fn tick(column: i64) -> u64 {
    column.unsigned_abs()
}

/// A client as a column holds it; 0 is all clients, as in the embedded store.
fn column(client: Option<ClientId>) -> i64 {
    client.map_or(0, |client| client.0.cast_signed())
}

#[async_trait]
impl QueueStore for ScyllaQueues {
    async fn append(&self, entries: Arc<[Entry]>) -> Result<Vec<Option<NotificationId>>, StoreError> {
        self.0.append(&entries).await
    }

    async fn page(
        &self,
        user: UserId,
        reader: Reader,
        since: Option<NotificationId>,
        size: usize,
        bytes: usize,
    ) -> Result<Option<Page>, StoreError> {
        self.0.page(user, reader, since, size, bytes).await
    }

    async fn after(
        &self,
        user: UserId,
        reader: Reader,
        tick: u64,
        size: usize,
        bytes: usize,
    ) -> Result<Page, StoreError> {
        let state = self.0.state(user).await?;
        self.0.read(user, reader, &state, tick, size, bytes).await
    }

    async fn last(&self, user: UserId, reader: Reader) -> Result<Option<Stored>, StoreError> {
        self.0.last(user, reader).await
    }

    async fn get(&self, user: UserId, reader: Reader, id: NotificationId) -> Result<Option<Stored>, StoreError> {
        self.0.get(user, reader, id).await
    }

    fn transient_id(&self) -> NotificationId {
        self.0.id(self.0.next_ticks(0, 1))
    }

    async fn expire(&self, time: Timestamp) -> Result<bool, StoreError> {
        // Rows end by themselves.
        self.0.expired.fetch_max(ticks_of(time).saturating_sub(1), Ordering::SeqCst);
        Ok(false)
    }

    async fn remove_client(&self, user: UserId, client: ClientId) -> Result<bool, StoreError> {
        self.0.remove_client(user, client).await?;
        Ok(false)
    }

    async fn remove_user(&self, user: UserId) -> Result<bool, StoreError> {
        self.0.remove_user(user).await?;
        Ok(false)
    }
}
