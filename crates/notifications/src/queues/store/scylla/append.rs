//! Appending.

use std::{collections::HashMap, sync::Arc, time::Duration};

use aldis_storage::{
    StoreError,
    cql::{Cql, CqlValue, Statement},
};
use aldis_types::{NotificationId, UserId};
use futures::{StreamExt as _, stream::FuturesUnordered};
use uuid::Uuid;

use super::{Entry, HEADS, Head, Shared, WEEK, as_i64, column, state::State, tick, week_of};

const HEAD: Statement = Statement::read_latest(
    "notifications.queue.head",
    "SELECT DISTINCT user, week, head, count, bytes, sealed FROM notifications_queue WHERE user = ? AND week = ?",
);
const SEAL: Statement = Statement::decide(
    "notifications.queue.seal",
    "UPDATE notifications_queue USING TTL ? SET sealed = true WHERE user = ? AND week = ? IF sealed = null",
);
const FOUND: Statement = Statement::read(
    "notifications.queue.found",
    "SELECT client, event_id, id FROM notifications_queue \
     WHERE user = ? AND week = ? AND tick = 0 AND (client, event_id) IN ?",
);
const MOVE: Statement = Statement::decide(
    "notifications.queue.move",
    "UPDATE notifications_queue USING TTL ? SET head = ?, count = ?, bytes = ? WHERE user = ? AND week = ? \
     IF head = ? AND sealed = null",
);
const INSERT: Statement = Statement::decide(
    "notifications.queue.insert",
    "INSERT INTO notifications_queue (user, week, tick, client, event_id, id, number, total, size, event) \
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TTL ?",
);
const MARK: Statement = Statement::decide(
    "notifications.queue.mark",
    "INSERT INTO notifications_queue (user, week, tick, client, event_id, id) VALUES (?, ?, 0, ?, ?, ?) USING TTL ?",
);

pub(super) const STATEMENTS: &[Statement] = &[HEAD, SEAL, FOUND, MOVE, INSERT, MARK];

/// Most events of one batch, also as few as a server takes in one condition.
const MAX_ROWS: usize = 64;
/// Most bytes of one batch, unless a single event is larger.
const MAX_BYTES: usize = 256 << 10;
/// How often a batch is tried while others move the head.
const ATTEMPTS: u32 = 12;
const PAUSE: Duration = Duration::from_millis(5);
/// Weeks without events over which the numbers of a queue carry on.
const LOOK_BACK: i32 = 6;
/// Gaps within so many ticks are one.
const ONE_GAP: u64 = 60 * 10_000_000;

type HeadRow = (Uuid, i32, Option<i64>, Option<i64>, Option<i64>, Option<bool>);
/// What makes an event one, in a queue.
type Key = (i64, Uuid);

/// An entry that gets a place.
struct Placed {
    /// Where it was among the entries.
    index: usize,
    key: Key,
    id: Uuid,
    gap: bool,
}

/// A statement with its values.
type Bound = (&'static Statement, Vec<Option<CqlValue>>);

impl Shared {
    pub(super) async fn append(&self, entries: &Arc<[Entry]>) -> Result<Vec<Option<NotificationId>>, StoreError> {
        let mut users: Vec<(UserId, Vec<usize>)> = Vec::new();
        let mut places: HashMap<UserId, usize> = HashMap::new();
        for (index, entry) in entries.iter().enumerate() {
            let place = *places.entry(entry.user).or_insert_with(|| {
                users.push((entry.user, Vec::new()));
                users.len() - 1
            });
            users[place].1.push(index);
        }
        // All are polled at once the first time, so that each has its place before those of later calls.
        let mut appends: FuturesUnordered<_> =
            users.into_iter().map(|(user, own)| self.append_to(user, entries, own)).collect();
        let mut ids = vec![None; entries.len()];
        let mut failed = None;
        while let Some(outcome) = appends.next().await {
            match outcome {
                Ok(own) => own.into_iter().for_each(|(index, id)| ids[index] = id),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(ids), Err)
    }

    /// Appends to one queue, in order.
    async fn append_to(
        &self,
        user: UserId,
        entries: &Arc<[Entry]>,
        own: Vec<usize>,
    ) -> Result<Vec<(usize, Option<NotificationId>)>, StoreError> {
        let mut heads = self.stripe(user).lock().await;
        let _permit = self.appends.acquire().await.map_err(|_| StoreError::Closed)?;
        let mut ids = Vec::with_capacity(own.len());
        for batch in batches(&own, entries) {
            // Whatever happens on the way, what is not known any more is not there.
            let known = heads.remove(&user);
            let head = self.append_batch(user, entries, batch, known, &mut ids).await?;
            let head = self.keep_bounds(user, head).await?;
            if heads.len() >= HEADS {
                heads.clear();
            }
            heads.insert(user, head);
        }
        Ok(ids)
    }

    /// Appends what is not in the queue, all or nothing, and returns the head that it left.
    async fn append_batch(
        &self,
        user: UserId,
        entries: &[Entry],
        batch: &[usize],
        mut known: Option<Head>,
        ids: &mut Vec<(usize, Option<NotificationId>)>,
    ) -> Result<Head, StoreError> {
        // What an attempt gave of which the outcome was not heard.
        let mut unsure: Vec<Uuid> = Vec::new();
        let gaps = batch.iter().any(|index| entries[*index].missed);
        for attempt in 0..ATTEMPTS {
            let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
            let first = self.next_ticks(known.map_or(0, |head| head.tick), count);
            let head = match known.take() {
                Some(head) if head.week == week_of(first.saturating_add(count)) => head,
                _ => self.find_head(user, week_of(first.saturating_add(count))).await?,
            };
            let first = if first > head.tick { first } else { self.next_ticks(head.tick, count) };
            if week_of(first) != head.week || week_of(first.saturating_add(count)) != head.week {
                // Between two weeks: the first tick of the new one is a moment away.
                self.next_ticks(first.max(start_of(head.week)), 1);
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            // After the head is known: what was appended before is found, or the condition fails.
            let mut found = self.found(user, head.week, entries, batch).await?;
            let state = if gaps || !found.is_empty() { self.state(user).await? } else { State::default() };
            // What was dropped since is not in the queue any more.
            found.retain(|(client, _), id| {
                let at = NotificationId::new(*id).ticks().unwrap_or(0);
                at > state.floor && !state.is_removed(*client, as_i64(at))
            });
            let (placed, settled) = self.place(entries, batch, first, head, &found, &unsure, state.gap);
            if placed.is_empty() {
                ids.extend(settled);
                return Ok(head);
            }
            if let Some(gap) = placed.iter().rev().find(|entry| entry.gap) {
                self.open_gap(user, NotificationId::new(gap.id).ticks().unwrap_or(first)).await?;
            }
            let (next, statements) = self.statements(user, entries, head, &placed);
            match self.cql.decide_together("notifications.queue.append", statements).await {
                Ok(true) => {
                    ids.extend(settled);
                    ids.extend(placed.into_iter().map(|entry| (entry.index, Some(NotificationId::new(entry.id)))));
                    return Ok(next);
                }
                // Another replica was first.
                Ok(false) => metrics::counter!("aldis_notifications_append_conflicts_total").increment(1),
                Err(error) if error.is_unsure() && attempt + 1 < ATTEMPTS => {
                    unsure.extend(placed.iter().map(|entry| entry.id));
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(PAUSE * (attempt + 1) * (1 + u32::from(self.node[1]) % 4)).await;
        }
        Err(StoreError::Contended("notifications_queue"))
    }

    /// Which entries get which ids, and what is settled without: those that are in already.
    #[allow(clippy::too_many_arguments, clippy::type_complexity)]
    fn place(
        &self,
        entries: &[Entry],
        batch: &[usize],
        first: u64,
        head: Head,
        found: &HashMap<Key, Uuid>,
        unsure: &[Uuid],
        gap: u64,
    ) -> (Vec<Placed>, Vec<(usize, Option<NotificationId>)>) {
        let (mut placed, mut settled): (Vec<Placed>, Vec<_>) = (Vec::new(), Vec::new());
        let (mut next, mut newest, mut gap) = (first, head.tick, gap);
        for index in batch.iter().copied() {
            let entry = &entries[index];
            let key = (column(entry.client), entry.event_id.uuid());
            if let Some(id) = found.get(&key) {
                // Ours, if we were not told that it came to be.
                settled.push((index, unsure.contains(id).then(|| NotificationId::new(*id))));
                continue;
            }
            let again = placed.iter().any(|entry| entry.key == key);
            let one_gap = entry.missed && gap == newest && gap > 0 && next.saturating_sub(gap) < ONE_GAP;
            if again || one_gap {
                settled.push((index, None));
                continue;
            }
            placed.push(Placed { index, key, id: self.id(next).uuid(), gap: entry.missed });
            newest = next;
            if entry.missed {
                gap = next;
            }
            next += 1;
        }
        (placed, settled)
    }

    /// The batch, and the head after it.
    fn statements(&self, user: UserId, entries: &[Entry], head: Head, placed: &[Placed]) -> (Head, Vec<Bound>) {
        use CqlValue::{BigInt, Blob, Int, Uuid as Id};
        let (user, week, ttl) = (Id(user.uuid()), Int(head.week), Int(self.ttl()));
        let mut next = head;
        let mut statements = Vec::with_capacity(1 + placed.len() * 2);
        for entry in placed {
            let event = &entries[entry.index].event;
            next.tick = NotificationId::new(entry.id).ticks().unwrap_or(next.tick + 1);
            next.number += 1;
            let size = i64::try_from(event.len()).unwrap_or(i64::MAX);
            next.total += size;
            let (client, event_id) = entry.key;
            let row = [
                user.clone(),
                week.clone(),
                BigInt(as_i64(next.tick)),
                BigInt(client),
                Id(event_id),
                Id(entry.id),
                BigInt(next.number),
                BigInt(next.total),
                BigInt(size),
                Blob(event.to_vec()),
                ttl.clone(),
            ];
            statements.push((&INSERT, row.map(Some).into()));
            let mark = [user.clone(), week.clone(), BigInt(client), Id(event_id), Id(entry.id), ttl.clone()];
            statements.push((&MARK, mark.map(Some).into()));
        }
        next.committed = Some(as_i64(next.tick));
        let condition = head.committed.map(BigInt);
        let values = [ttl, BigInt(as_i64(next.tick)), BigInt(next.number), BigInt(next.total), user, week];
        statements.insert(0, (&MOVE, values.into_iter().map(Some).chain([condition]).collect()));
        (next, statements)
    }

    /// Where the events of a batch are, those that are in the queue.
    async fn found(
        &self,
        user: UserId,
        week: i32,
        entries: &[Entry],
        batch: &[usize],
    ) -> Result<HashMap<Key, Uuid>, StoreError> {
        let mut keys: Vec<Key> =
            batch.iter().map(|index| (column(entries[*index].client), entries[*index].event_id.uuid())).collect();
        keys.sort_unstable();
        keys.dedup();
        let of = |week: i32| self.cql.rows::<(i64, Uuid, Uuid)>(&FOUND, (user.uuid(), week, &keys));
        let (this, before) = futures::try_join!(of(week), of(week - 1))?;
        Ok(before.into_iter().chain(this).map(|(client, event, id)| ((client, event), id)).collect())
    }

    /// The head of the first week, from this one on, that is open. When nothing was appended in it yet, the week before is
    /// sealed first.
    async fn find_head(&self, user: UserId, mut week: i32) -> Result<Head, StoreError> {
        for _ in 0..LOOK_BACK {
            let (committed, number, total, sealed) = head_row(&self.cql, user, week).await?;
            if sealed {
                week += 1;
                continue;
            }
            if let Some(head) = committed {
                return Ok(Head { week, committed, tick: tick(head), number, total, dropped: (0, 0) });
            }
            let sealing = self.cql.decide(&SEAL, (self.ttl(), user.uuid(), week - 1)).await;
            match sealing {
                Ok(_) => {}
                // The look at that week, which follows, settles it.
                Err(error) if error.is_unsure() => {}
                Err(error) => return Err(error),
            }
            return self.carry_on(user, week).await;
        }
        Err(StoreError::Contended("notifications_queue"))
    }

    /// The head of an empty week: what earlier ones left.
    async fn carry_on(&self, user: UserId, week: i32) -> Result<Head, StoreError> {
        let (last, number, total, sealed) = head_row(&self.cql, user, week - 1).await?;
        if !sealed {
            return Err(StoreError::Contended("notifications_queue"));
        }
        let mut base = last.map(|last| (last, number, total));
        let mut before = week - 2;
        while base.is_none() && before > week - LOOK_BACK {
            let (last, number, total, _) = head_row(&self.cql, user, before).await?;
            base = last.map(|last| (last, number, total));
            before -= 1;
        }
        let state = self.state(user).await?;
        let (last, number, total) = base.unwrap_or((0, state.floor_number, state.floor_total));
        let tick = tick(last).max(start_of(week)).max(state.floor);
        Ok(Head { week, committed: None, tick, number, total, dropped: (state.floor_number, state.floor_total) })
    }

    /// The newest place of a queue, without a change; `None` when nothing is in it.
    pub(super) async fn newest(&self, user: UserId) -> Result<Option<Head>, StoreError> {
        let newest = week_of(self.now().saturating_add(super::AHEAD));
        for week in (newest - LOOK_BACK..=newest).rev() {
            let (committed, number, total, _) = head_row(&self.cql, user, week).await?;
            if let Some(head) = committed {
                return Ok(Some(Head { week, committed, tick: tick(head), number, total, dropped: (0, 0) }));
            }
        }
        Ok(None)
    }
}

/// Head, numbers, and whether it is sealed.
async fn head_row(cql: &Cql, user: UserId, week: i32) -> Result<(Option<i64>, i64, i64, bool), StoreError> {
    let row: Option<HeadRow> = cql.row(&HEAD, (user.uuid(), week)).await?;
    Ok(row.map_or((None, 0, 0, false), |(_, _, head, count, bytes, sealed)| {
        (head, count.unwrap_or(0), bytes.unwrap_or(0), sealed.unwrap_or(false))
    }))
}

/// The first tick of a week.
pub(super) fn start_of(week: i32) -> u64 {
    u64::from(week.unsigned_abs()).saturating_mul(WEEK)
}

/// Cuts a user's entries into batches.
fn batches<'a>(own: &'a [usize], entries: &[Entry]) -> Vec<&'a [usize]> {
    let mut batches = Vec::with_capacity(1);
    let (mut begin, mut bytes) = (0, 0);
    for (place, index) in own.iter().enumerate() {
        let size = entries[*index].event.len();
        if place > begin && (place - begin == MAX_ROWS || bytes + size > MAX_BYTES) {
            batches.push(&own[begin..place]);
            (begin, bytes) = (place, 0);
        }
        bytes += size;
    }
    batches.push(&own[begin..]);
    batches
}
