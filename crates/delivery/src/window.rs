//! Reading and removing rows of the outbox.

use aldis_storage::StoreError;
use bytes::Bytes;
use rusqlite::{Connection, params};

use crate::outbox::{Outbox, Shared};

/// Most rows on their way at once.
pub(crate) const MAX_ROWS: usize = 256;
/// Most bytes on their way at once, unless it is a single row.
pub(crate) const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The kind of an envelope whose content was taken back: only its place counts.
pub(crate) const WITHDRAWN: u32 = 1;

/// A row on its way.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) id: i64,
    pub(crate) lane: [u8; 16],
    pub(crate) sequence: u64,
    pub(crate) kind: u32,
    pub(crate) body: Bytes,
    pub(crate) trace: Option<String>,
}

impl Shared {
    /// Removes delivered rows, inside a job.
    pub(crate) fn remove_delivered(&self, tx: &Connection) -> Result<(), StoreError> {
        let delivered = std::mem::take(&mut *self.delivered());
        let mut delete = tx.prepare_cached(&self.sql.delete)?;
        for id in delivered {
            delete.execute([id])?;
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
            let shared = self.shared.clone();
            self.shared.db.write_along(move |tx| shared.remove_delivered(tx));
        }
    }

    /// Moves a row that was refused for good to the dead letters.
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

/// A pause between attempts: doubles up to a bound, jittered, and starts anew after a success.
#[derive(Debug)]
pub(crate) struct Backoff {
    next_millis: u64,
}

const FIRST_MILLIS: u64 = 50;
const LAST_MILLIS: u64 = 3_000;

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next_millis: FIRST_MILLIS }
    }

    pub(crate) fn reset(&mut self) {
        self.next_millis = FIRST_MILLIS;
    }

    /// Sleeps between half and the whole of the next pause.
    pub(crate) async fn pause(&mut self) {
        use rand::RngExt as _;
        let millis = rand::rng().random_range(self.next_millis / 2..=self.next_millis);
        self.next_millis = (self.next_millis * 2).min(LAST_MILLIS);
        tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
    }
}
