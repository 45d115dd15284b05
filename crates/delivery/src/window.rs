//! Reading and removing rows of the outbox.

use std::{sync::Arc, time::Duration};

use aldis_storage::StoreError;
use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    bounds::previous_of,
    ending::{domain_of, is_backend},
    outbox::{Outbox, Shared},
};

/// Most rows on their way at once.
pub(crate) const MAX_ROWS: usize = 256;
/// Most bytes on their way at once, unless it is a single row.
pub(crate) const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The kind of an envelope whose content was taken back: only its place counts.
pub(crate) const WITHDRAWN: u32 = 1;
/// The kind of an envelope that stands for a part of a lane which was dropped: everything after `previous`, up to itself.
pub(crate) const DROPPED: u32 = 2;

pub(crate) type Lane = [u8; 16];

/// A row on its way.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) id: i64,
    pub(crate) lane: Lane,
    pub(crate) sequence: u64,
    pub(crate) kind: u32,
    pub(crate) body: Bytes,
    pub(crate) trace: Option<String>,
}

impl Shared {
    /// Removes delivered rows, inside a job; says which. They are noted until that is committed.
    pub(crate) fn remove_delivered(&self, tx: &Connection) -> Result<Vec<i64>, StoreError> {
        let delivered = self.delivered().clone();
        let mut delete = tx.prepare_cached(&self.sql.delete)?;
        for id in &delivered {
            delete.execute([id])?;
        }
        Ok(delivered)
    }
}

impl Shared {
    /// Marks the lane of a row that is given up, if it told another backend of a change of state.
    fn mark_refused(&self, tx: &Connection, id: i64, now: i64) -> Result<(), StoreError> {
        let row = tx
            .prepare_cached(&self.sql.place)?
            .query_row([id], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Lane>(1)?, row.get::<_, u32>(2)?)))
            .optional()?;
        let Some((key, lane, kind)) = row else { return Ok(()) };
        if is_backend(&key) && self.component.is_state(kind) {
            let mark = params![domain_of(&key), true, lane.as_slice(), now, "refused"];
            tx.prepare_cached(&self.sql.mark)?.execute(mark)?;
        }
        Ok(())
    }
}

impl Outbox {
    /// The next rows for `peer` after `cursor`: at most `rows`, and at most `bytes` unless the first alone is larger.
    pub(crate) async fn next_rows(
        &self,
        peer: &str,
        cursor: i64,
        rows: usize,
        bytes: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let shared = self.shared.clone();
        let peer = peer.to_owned();
        self.shared
            .db
            .read(move |tx| {
                let mut query = tx.prepare_cached(&shared.sql.batch)?;
                let limit = i64::try_from(rows).unwrap_or(i64::MAX);
                let mut found = query.query(params![peer, cursor, limit])?;
                let mut batch = Vec::new();
                let mut total = 0;
                while let Some(row) = found.next()? {
                    let body: Vec<u8> = row.get(4)?;
                    total += body.len();
                    if total > bytes && !batch.is_empty() {
                        break;
                    }
                    batch.push(Row {
                        id: row.get(0)?,
                        lane: row.get(1)?,
                        sequence: row.get::<_, i64>(2)?.cast_unsigned(),
                        kind: row.get(3)?,
                        body: body.into(),
                        trace: row.get(5)?,
                    });
                }
                Ok(batch)
            })
            .await
    }

    /// Whether any row waits for `peer`.
    pub(crate) async fn has_rows(&self, peer: &str) -> Result<bool, StoreError> {
        let shared = self.shared.clone();
        let peer = peer.to_owned();
        self.shared
            .db
            .read(move |tx| Ok(tx.prepare_cached(&shared.sql.any)?.query_row([peer], |row| row.get(0))?))
            .await
    }

    /// Whether the rows of a lane go on right after a sequence, or may do so soon. A lane that does not is marked.
    pub(crate) async fn reaches(&self, key: String, lane: Lane, last: u64) -> Result<bool, StoreError> {
        let shared = self.shared.clone();
        let now = self.shared.clock.now().millis();
        self.shared
            .db
            .write(move |tx| {
                shared.remove_delivered(tx)?;
                let row = |row: &rusqlite::Row<'_>| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, u32>(1)?, row.get::<_, Vec<u8>>(2)?))
                };
                let params = params![key, lane.as_slice(), last.cast_signed()];
                let next = tx.prepare_cached(&shared.sql.next_after)?.query_row(params, row).optional()?;
                let Some((sequence, kind, body)) = next else { return Ok(true) };
                let previous =
                    if kind == DROPPED { previous_of(&body) } else { sequence.unsigned_abs().saturating_sub(1) };
                if previous <= last {
                    return Ok(true);
                }
                let mark = params![domain_of(&key), true, lane.as_slice(), now, "lost-by-peer"];
                tx.prepare_cached(&shared.sql.mark)?.execute(mark)?;
                Ok(false)
            })
            .await
    }

    /// Removes delivered rows along with a later commit; rows that a crash leaves are delivered again, which changes
    /// nothing.
    pub(crate) fn remove(&self, ids: &[i64]) {
        if ids.is_empty() {
            return;
        }
        let mut delivered = self.shared.delivered();
        let is_first = delivered.is_empty();
        delivered.extend(ids);
        drop(delivered);
        if is_first {
            self.remove_soon();
        }
    }

    /// One job at a time removes what is noted as delivered, again when the store was full, say.
    fn remove_soon(&self) {
        let (shared, outbox) = (self.shared.clone(), Arc::downgrade(&self.shared));
        let removed = move |removed: Option<Vec<i64>>| {
            let Some(shared) = outbox.upgrade() else { return };
            let mut delivered = shared.delivered();
            // Others were added behind them.
            delivered.drain(..removed.map_or(0, |ids| ids.len()));
            let is_done = delivered.is_empty();
            drop(delivered);
            if !is_done {
                Self { shared, trace: None }.remove_soon();
            }
        };
        self.shared.db.write_along(move |tx| shared.remove_delivered(tx), removed);
    }

    /// Moves a row that was refused for good to the dead letters. A lane of ours that lost a change of state by it is marked.
    pub(crate) async fn bury(&self, id: i64, reason: &str) -> Result<(), StoreError> {
        self.give_up(id, reason, false).await
    }

    /// Moves what a row tells to the dead letters, but leaves its place in the lane, which the peer is told is void.
    pub(crate) async fn withdraw(&self, id: i64, reason: &str) -> Result<(), StoreError> {
        self.give_up(id, reason, true).await
    }

    async fn give_up(&self, id: i64, reason: &str, keep_place: bool) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        let reason: String = reason.chars().take(256).collect();
        let now = self.shared.clock.now().millis();
        self.shared
            .db
            .write(move |tx| {
                tx.prepare_cached(&shared.sql.bury)?.execute(params![id, reason, now])?;
                shared.mark_refused(tx, id, now)?;
                if keep_place {
                    tx.prepare_cached(&shared.sql.withdraw)?.execute(params![id, WITHDRAWN])?;
                } else {
                    tx.prepare_cached(&shared.sql.delete)?.execute([id])?;
                }
                Ok(())
            })
            .await?;
        metrics::counter!("aldis_outbox_dead_letters_total", "component" => self.shared.component.as_str())
            .increment(1);
        Ok(())
    }
}

/// Pauses between attempts: they double up to a bound, jittered, and start anew after a success.
#[derive(Debug)]
pub(crate) struct Backoff(ExponentialBackoff);

/// The first pause; jitter adds up to as much again.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(1_500);

impl Backoff {
    pub(crate) fn new() -> Self {
        let pauses = ExponentialBuilder::default().with_min_delay(FIRST_PAUSE).with_max_delay(LONGEST_PAUSE);
        Self(pauses.with_jitter().without_max_times().build())
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }

    /// Sleeps for the next pause.
    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.0.next().unwrap_or(LONGEST_PAUSE)).await;
    }
}
