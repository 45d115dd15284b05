//! Queues in the embedded store.
//!
//! The tick is the table's row id, so that rows are appended at its end and retention runs from its start; the rest of
//! the layout is that of a table with the partition `user` and the clustering key `tick`.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use aldis_runtime::{SharedClock, SharedRandom};
use aldis_storage::{Db, Migration, StoreError, one_turn};
use aldis_types::{ClientId, NotificationId, Timestamp, UserId};
use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter, types::Value};

use crate::push_tokens;

use super::{Bounds, Entry, Page, QueueStore, Reader, Stored, as_i64, ticks_of};

/// The tables of this service.
pub(crate) const MIGRATIONS: &[Migration] = &[QUEUES, CONSUMERS, push_tokens::store::MIGRATION, GAPS];

const QUEUES: Migration = Migration {
    name: "queues",
    sql: "CREATE TABLE notifications_queue (
            user BLOB NOT NULL,
            tick INTEGER PRIMARY KEY,
            client INTEGER NOT NULL,
            event_id BLOB NOT NULL,
            id BLOB NOT NULL,
            size INTEGER NOT NULL,
            event BLOB NOT NULL
        );
        CREATE INDEX notifications_queue_by_tick ON notifications_queue (user, tick, client, size);
        CREATE UNIQUE INDEX notifications_queue_by_event ON notifications_queue (user, client, event_id);
        CREATE TABLE notifications_node (
            node BLOB NOT NULL,
            sequence INTEGER NOT NULL,
            last_tick INTEGER NOT NULL
        );",
};

const CONSUMERS: Migration = Migration {
    name: "consumers",
    sql: "CREATE TABLE notifications_consumer (
            user BLOB NOT NULL,
            client INTEGER NOT NULL,
            floor INTEGER NOT NULL,
            missed INTEGER NOT NULL,
            PRIMARY KEY (user, client)
        ) WITHOUT ROWID;
        CREATE TABLE notifications_acknowledged (
            user BLOB NOT NULL,
            client INTEGER NOT NULL,
            tick INTEGER NOT NULL,
            PRIMARY KEY (user, client, tick)
        ) WITHOUT ROWID;",
};

const GAPS: Migration = Migration {
    name: "where events are missing",
    sql: "CREATE TABLE notifications_gaps (user BLOB PRIMARY KEY, tick INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE notifications_restored (restore BLOB NOT NULL);",
};

/// `client` of an event for all clients. Not a client's id: that would take a key whose hash starts with 64 zero bits.
const ALL_CLIENTS: i64 = 0;
/// Users whose queue sizes are remembered.
const MAX_USAGE: usize = 50_000;
/// Most old events dropped for one new one.
const MAX_DROPPED: u32 = 256;
/// Rows of one step of a removal.
const REMOVE_STEP: i64 = 16;

const INSERT: &str = "INSERT INTO notifications_queue (user, tick, client, event_id, id, size, event) \
    VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (user, client, event_id) DO NOTHING";
const USAGE: &str = "SELECT count(*), coalesce(sum(size), 0) FROM notifications_queue \
    INDEXED BY notifications_queue_by_tick WHERE user = ?";
const PAGE: &str = "SELECT id, event FROM notifications_queue INDEXED BY notifications_queue_by_tick \
    WHERE user = ?1 AND tick > ?2 AND (?3 IS NULL OR client = ?3 OR client = 0) ORDER BY tick LIMIT ?4";
const LAST: &str = "SELECT id, event FROM notifications_queue INDEXED BY notifications_queue_by_tick \
    WHERE user = ?1 AND (?2 IS NULL OR client = ?2 OR client = 0) ORDER BY tick DESC LIMIT 1";
const GET: &str = "SELECT id, event FROM notifications_queue \
    WHERE tick = ?1 AND user = ?2 AND id = ?3 AND (?4 IS NULL OR client = ?4 OR client = 0)";
const DROP_OLDEST: &str = "DELETE FROM notifications_queue WHERE tick = (SELECT tick FROM notifications_queue \
    INDEXED BY notifications_queue_by_tick WHERE user = ? ORDER BY tick LIMIT 1) RETURNING size, tick, client";
const EXPIRE: &str = "DELETE FROM notifications_queue WHERE tick IN (SELECT tick FROM notifications_queue \
    WHERE tick < ? ORDER BY tick LIMIT ?) RETURNING user, tick, client";
const REMOVE_CLIENT: &str = "DELETE FROM notifications_queue WHERE tick IN (SELECT tick FROM notifications_queue \
    INDEXED BY notifications_queue_by_event WHERE user = ? AND client = ? LIMIT ?) RETURNING user, tick, client";
const REMOVE_USER: &str = "DELETE FROM notifications_queue WHERE tick IN (SELECT tick FROM notifications_queue \
    INDEXED BY notifications_queue_by_tick WHERE user = ? ORDER BY tick LIMIT ?) RETURNING user, tick, client";
/// Clients that had to acknowledge an event which is dropped, and have not.
const MISS: &str = "UPDATE notifications_consumer SET missed = 1 \
    WHERE user = ?1 AND floor < ?2 AND (?3 = 0 OR client = ?3) AND NOT EXISTS (SELECT 1 FROM notifications_acknowledged \
    AS known WHERE known.user = ?1 AND known.client = notifications_consumer.client AND known.tick = ?2)";

/// Clients that acknowledge have missed something.
const MISS_ALL: &str = "UPDATE notifications_consumer SET missed = 1 WHERE user = ?";
const OPEN_GAP: &str = "INSERT INTO notifications_gaps (user, tick) VALUES (?, ?) \
    ON CONFLICT (user) DO UPDATE SET tick = excluded.tick";
/// The tick of a gap after which nothing came.
const NEWEST_IS_GAP: &str = "SELECT tick FROM notifications_gaps WHERE user = ?1 AND tick = \
    (SELECT max(tick) FROM notifications_queue INDEXED BY notifications_queue_by_tick WHERE user = ?1)";
const GAP_AFTER: &str = "SELECT 1 FROM notifications_gaps WHERE user = ? AND tick > ?";
/// Gaps within so many ticks are one.
const ONE_GAP: i64 = 60 * 10_000_000;

#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    events: i64,
    bytes: i64,
}

/// What write jobs share. Kept beside the table, because only this process writes it.
struct Shared {
    clock: SharedClock,
    node: [u8; 6],
    sequence: u16,
    last: AtomicU64,
    bounds: Bounds,
    /// Sizes of queues that were written lately. Forgotten, not repaired, when a write fails.
    usage: Mutex<HashMap<UserId, Usage>>,
}

/// Queues in the embedded store.
#[derive(Clone)]
pub(crate) struct SqliteQueues {
    db: Db,
    shared: Arc<Shared>,
}

impl SqliteQueues {
    /// Opens the queues; the tables must be there.
    pub(crate) async fn open(
        db: Db,
        clock: SharedClock,
        random: &SharedRandom,
        bounds: Bounds,
    ) -> Result<Self, StoreError> {
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        let [node @ .., high, low] = bytes;
        let (node, sequence, last) = db.write(move |tx| identity(tx, node, u16::from_be_bytes([high, low]))).await?;
        let shared = Shared { clock, node, sequence, last: AtomicU64::new(last), bounds, usage: Mutex::default() };
        Ok(Self { db, shared: Arc::new(shared) })
    }

    pub(crate) fn db(&self) -> &Db {
        &self.db
    }

    /// Tells the greatest tick that was given so far.
    pub(crate) fn newest_tick(&self) -> impl Fn() -> u64 + Send + 'static {
        let shared = self.shared.clone();
        move || shared.last.load(Ordering::SeqCst)
    }

    /// Deletes rows with a statement that takes these parameters and, last, a limit, and that returns the rows' users,
    /// ticks and clients.
    async fn remove(&self, sql: &'static str, params: Vec<Value>) -> Result<bool, StoreError> {
        let shared = self.shared.clone();
        self.db.write(move |tx| shared.remove(tx, sql, params)).await
    }
}

/// Node, clock sequence and greatest tick of this store; the first two are drawn once and kept.
fn identity(tx: &Connection, mut node: [u8; 6], sequence: u16) -> Result<([u8; 6], u16, u64), StoreError> {
    // RFC 9562, 6.10: a random node has the multicast bit, which no network card has.
    node[0] |= 1;
    let greatest: i64 = tx.query_row("SELECT coalesce(max(tick), 0) FROM notifications_queue", [], |row| row.get(0))?;
    let found = tx
        .query_row("SELECT node, sequence, last_tick FROM notifications_node", [], |row| {
            Ok((row.get::<_, [u8; 6]>(0)?, row.get::<_, u16>(1)?, row.get::<_, i64>(2)?))
        })
        .optional()?;
    let (node, sequence, last) = match found {
        Some(found) => found,
        None => {
            let sequence = sequence & 0x3FFF;
            tx.execute("INSERT INTO notifications_node VALUES (?, ?, 0)", params![node, sequence])?;
            (node, sequence, 0)
        }
    };
    Ok((node, sequence, last.max(greatest).unsigned_abs()))
}

impl Shared {
    fn usage(&self) -> MutexGuard<'_, HashMap<UserId, Usage>> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tick of now, or one more than the last if that is greater.
    fn next_tick(&self) -> u64 {
        let now = ticks_of(self.clock.now());
        let next = |last: u64| now.max(last.saturating_add(1));
        match self.last.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(next(last))) {
            Ok(last) | Err(last) => next(last),
        }
    }

    fn id(&self, tick: u64) -> NotificationId {
        NotificationId::new(uuid::Builder::from_gregorian_timestamp(tick, self.sequence, &self.node).into_uuid())
    }

    fn append(&self, tx: &Connection, entries: &[Entry]) -> Result<Vec<Option<NotificationId>>, StoreError> {
        let mut usage = self.usage();
        if usage.len() > MAX_USAGE {
            usage.clear();
        }
        let mut insert = tx.prepare_cached(INSERT)?;
        let mut ids = Vec::with_capacity(entries.len());
        for entry in entries {
            let held = match usage.get(&entry.user) {
                Some(held) => *held,
                None => measure(tx, entry.user)?,
            };
            let tick = self.next_tick();
            if entry.missed && is_gap(tx, entry.user, as_i64(tick))? {
                ids.push(None);
                continue;
            }
            let id = self.id(tick);
            let size = i64::try_from(entry.event.len()).unwrap_or(i64::MAX);
            let inserted = insert.execute(params![
                entry.user.as_bytes(),
                as_i64(tick),
                entry.client.map_or(ALL_CLIENTS, column),
                entry.event_id.as_bytes(),
                id.as_bytes(),
                size,
                &entry.event[..],
            ])? > 0;
            let held = if inserted { self.bound(tx, entry.user, size, held)? } else { held };
            usage.insert(entry.user, held);
            if inserted && entry.missed {
                tx.prepare_cached(OPEN_GAP)?.execute(params![entry.user.as_bytes(), as_i64(tick)])?;
                tx.prepare_cached(MISS_ALL)?.execute([entry.user.as_bytes()])?;
            }
            ids.push(inserted.then_some(id));
        }
        Ok(ids)
    }

    /// Deletes in small steps until nothing is left, or the time for one write is up. Tells whether more is left.
    fn remove(&self, tx: &Connection, sql: &str, mut params: Vec<Value>) -> Result<bool, StoreError> {
        params.push(Value::Integer(REMOVE_STEP));
        let mut statement = tx.prepare_cached(sql)?;
        let mut miss = tx.prepare_cached(MISS)?;
        let mut usage = self.usage();
        let (removed, more) = one_turn(|| {
            let mut rows = statement.query(params_from_iter(&params))?;
            let mut step = 0;
            while let Some(row) = rows.next()? {
                let user = user(row)?;
                miss.execute(params![user.as_bytes(), row.get::<_, i64>(1)?, row.get::<_, i64>(2)?])?;
                usage.remove(&user);
                step += 1;
            }
            Ok(step)
        })?;
        if removed > 0 {
            // Ids must stay greater than those of rows that are gone.
            tx.prepare_cached("UPDATE notifications_node SET last_tick = max(last_tick, ?)")?
                .execute([as_i64(self.last.load(Ordering::SeqCst))])?;
        }
        metrics::counter!("aldis_notifications_removed_total").increment(removed);
        Ok(more)
    }

    /// Counts a new event and drops the oldest ones of a queue that has grown too large.
    fn bound(&self, tx: &Connection, user: UserId, size: i64, mut held: Usage) -> Result<Usage, StoreError> {
        held.events += 1;
        held.bytes += size;
        let mut dropped: u32 = 0;
        while dropped < MAX_DROPPED
            && held.events > 1
            && (held.events.unsigned_abs() > self.bounds.events || held.bytes.unsigned_abs() > self.bounds.bytes)
        {
            let (size, tick, client) = tx.prepare_cached(DROP_OLDEST)?.query_row([user.as_bytes()], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
            })?;
            tx.prepare_cached(MISS)?.execute(params![user.as_bytes(), tick, client])?;
            held.events -= 1;
            held.bytes -= size;
            dropped += 1;
        }
        if dropped > 0 {
            metrics::counter!("aldis_notifications_dropped_total").increment(dropped.into());
        }
        Ok(held)
    }
}

/// Whether the newest of a queue is a gap of a moment ago.
fn is_gap(tx: &Connection, user: UserId, now: i64) -> Result<bool, StoreError> {
    let found =
        tx.prepare_cached(NEWEST_IS_GAP)?.query_row([user.as_bytes()], |row| row.get::<_, i64>(0)).optional()?;
    Ok(found.is_some_and(|tick| now.saturating_sub(tick) < ONE_GAP))
}

fn measure(tx: &Connection, user: UserId) -> Result<Usage, StoreError> {
    let row = |row: &Row<'_>| Ok(Usage { events: row.get(0)?, bytes: row.get(1)? });
    Ok(tx.prepare_cached(USAGE)?.query_row([user.as_bytes()], row)?)
}

/// A client id as a column holds it.
fn column(client: ClientId) -> i64 {
    client.0.cast_signed()
}

fn stored(row: &Row<'_>) -> Result<Stored, StoreError> {
    let id = NotificationId::from_bytes(row.get_ref(0)?.as_blob().unwrap_or_default())
        .map_err(|_| StoreError::Corrupt("notifications_queue"))?;
    Ok(Stored { id, event: Bytes::from(row.get::<_, Vec<u8>>(1)?) })
}

fn one(statement: &mut rusqlite::Statement<'_>, params: impl rusqlite::Params) -> Result<Option<Stored>, StoreError> {
    let mut rows = statement.query(params)?;
    rows.next()?.map(stored).transpose()
}

fn user(row: &Row<'_>) -> Result<UserId, StoreError> {
    UserId::from_bytes(row.get_ref(0)?.as_blob().unwrap_or_default())
        .map_err(|_| StoreError::Corrupt("notifications_queue"))
}

/// The events after a tick.
fn after(
    tx: &Connection,
    user: UserId,
    reader: Reader,
    tick: i64,
    size: usize,
    bytes: usize,
) -> Result<Page, StoreError> {
    let mut statement = tx.prepare_cached(PAGE)?;
    let limit = i64::try_from(size).unwrap_or(i64::MAX).saturating_add(1);
    let mut rows = statement.query(params![user.as_bytes(), tick, reader.map(column), limit])?;
    let mut page = Page { notifications: Vec::new(), has_more: false };
    let mut taken = 0;
    while let Some(row) = rows.next()? {
        let length = row.get_ref(1)?.as_blob().map_or(0, <[u8]>::len);
        if page.notifications.len() == size || (taken > 0 && taken + length > bytes) {
            page.has_more = true;
            break;
        }
        taken += length;
        page.notifications.push(stored(row)?);
    }
    Ok(page)
}

/// Everything of a page from one snapshot, so that nothing can fall out between looking for `since` and reading on.
fn page(
    tx: &Connection,
    user: UserId,
    reader: Reader,
    since: Option<(i64, NotificationId)>,
    size: usize,
    bytes: usize,
) -> Result<Option<Page>, StoreError> {
    if let Some((tick, id)) = since {
        let params = params![tick, user.as_bytes(), id.as_bytes(), None::<i64>];
        if !tx.prepare_cached(GET)?.exists(params)? {
            return Ok(None);
        }
        if tx.prepare_cached(GAP_AFTER)?.exists(params![user.as_bytes(), tick])? {
            return Ok(None);
        }
    }
    after(tx, user, reader, since.map_or(0, |(tick, _)| tick), size, bytes).map(Some)
}

#[async_trait]
impl QueueStore for SqliteQueues {
    async fn append(&self, entries: Arc<[Entry]>) -> Result<Vec<Option<NotificationId>>, StoreError> {
        let shared = self.shared.clone();
        let result = self.db.write(move |tx| shared.append(tx, &entries)).await;
        if result.is_err() {
            self.shared.usage().clear();
        }
        result
    }

    async fn page(
        &self,
        user: UserId,
        reader: Reader,
        since: Option<NotificationId>,
        size: usize,
        bytes: usize,
    ) -> Result<Option<Page>, StoreError> {
        let since = match since {
            None => None,
            Some(id) => match id.ticks() {
                Some(tick) => Some((as_i64(tick), id)),
                None => return Ok(None),
            },
        };
        self.db
            .read(move |connection| {
                let snapshot = connection.unchecked_transaction()?;
                page(&snapshot, user, reader, since, size, bytes)
            })
            .await
    }

    async fn after(
        &self,
        user: UserId,
        reader: Reader,
        tick: u64,
        size: usize,
        bytes: usize,
    ) -> Result<Page, StoreError> {
        self.db.read(move |tx| after(tx, user, reader, as_i64(tick), size, bytes)).await
    }

    async fn last(&self, user: UserId, reader: Reader) -> Result<Option<Stored>, StoreError> {
        self.db.read(move |tx| one(&mut *tx.prepare_cached(LAST)?, params![user.as_bytes(), reader.map(column)])).await
    }

    async fn get(&self, user: UserId, reader: Reader, id: NotificationId) -> Result<Option<Stored>, StoreError> {
        let Some(tick) = id.ticks() else { return Ok(None) };
        self.db
            .read(move |tx| {
                let params = params![as_i64(tick), user.as_bytes(), id.as_bytes(), reader.map(column)];
                one(&mut *tx.prepare_cached(GET)?, params)
            })
            .await
    }

    fn transient_id(&self) -> NotificationId {
        self.shared.id(self.shared.next_tick())
    }

    async fn expire(&self, time: Timestamp) -> Result<bool, StoreError> {
        self.remove(EXPIRE, vec![as_i64(ticks_of(time)).into()]).await
    }

    async fn remove_client(&self, user: UserId, client: ClientId) -> Result<bool, StoreError> {
        self.remove(REMOVE_CLIENT, vec![user.as_bytes().to_vec().into(), column(client).into()]).await
    }

    async fn remove_user(&self, user: UserId) -> Result<bool, StoreError> {
        self.remove(REMOVE_USER, vec![user.as_bytes().to_vec().into()]).await
    }
}
