//! What waits for a backend that is away for too long is dropped, oldest first, and both sides know.
//!
//! In place of what was dropped from a lane stays one row: it says up to where the lane was dropped, and from where. Its
//! receiver moves the lane on and lets its clients know that they missed something. Rows may be on their way, or already
//! applied, while they are dropped: a receiver takes such a row from anywhere within the part that it stands for.

use std::time::Duration;

use aldis_storage::StoreError;
use aldis_types::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::time::Instant;

use crate::{
    config::Config,
    ending::domain_of,
    outbox::{Outbox, Shared},
    window::{DROPPED, Lane},
};

/// Rows of one step of a job.
const STEP: i64 = 32;
/// How often the bounds are looked after; less often when looking takes long.
const EVERY: Duration = Duration::from_secs(30);
const AT_MOST_ONE_PART_IN: u32 = 20;

/// Why lanes are marked for reconciliation.
pub(crate) const REASON: &str = "dropped";

/// What the body of a row says that stands for dropped ones: the sequence before the first of them.
pub(crate) fn previous_of(body: &[u8]) -> u64 {
    body.try_into().map_or(0, u64::from_be_bytes)
}

/// Which rows are dropped.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Under which they are kept.
    pub(crate) key: String,
    /// Of all lanes without one.
    pub(crate) lane: Option<Lane>,
    /// Up to this id.
    pub(crate) last: i64,
}

impl Outbox {
    /// Looks after the bounds for as long as it is polled.
    pub(crate) async fn keep_within(self, bounds: Config) {
        loop {
            let begun = Instant::now();
            if let Err(error) = self.enforce(bounds.max_age(), bounds.max_bytes()).await {
                tracing::error!(%error, "the bounds of the outbox could not be looked after");
            }
            tokio::time::sleep(EVERY.max(begun.elapsed() * AT_MOST_ONE_PART_IN)).await;
        }
    }

    /// Drops what is too old or too much; says how many events.
    pub(crate) async fn enforce(&self, max_age: Duration, max_bytes: u64) -> Result<u64, StoreError> {
        let age = i64::try_from(max_age.as_millis()).unwrap_or(i64::MAX);
        let before = Timestamp::from_millis(self.shared.clock.now().millis().saturating_sub(age));
        let mut dropped = 0;
        for key in self.keys_with_rows().await? {
            let shared = self.shared.clone();
            let wanted = self.shared.db.read(move |tx| excess(tx, &shared, key, before, max_bytes));
            if let Some(wanted) = wanted.await? {
                let domain = domain_of(&wanted.key).to_owned();
                let rows = self.drop_rows(wanted).await?;
                if rows > 0 {
                    let component = self.shared.component.as_str();
                    tracing::warn!(peer.domain = %domain, component, rows, "what waited for too long, or was too much, was dropped");
                }
                dropped += rows;
            }
        }
        Ok(dropped)
    }

    /// Drops rows, in small jobs; says how many.
    pub(crate) async fn drop_rows(&self, wanted: Wanted) -> Result<u64, StoreError> {
        let shared = self.shared.clone();
        let now = self.shared.clock.now();
        let dropped = self.shared.db.write_in_turns(move |tx| step(tx, &shared, &wanted, now)).await?;
        metrics::counter!("aldis_outbox_dropped_total", "component" => self.shared.component.as_str())
            .increment(dropped);
        Ok(dropped)
    }
}

/// What has to go so that the bounds hold.
fn excess(
    tx: &Connection,
    shared: &Shared,
    key: String,
    before: Timestamp,
    max_bytes: u64,
) -> Result<Option<Wanted>, StoreError> {
    let table = shared.component.as_str();
    let total = format!("SELECT coalesce(sum(length(body)), 0) FROM {table}_outbox WHERE peer = ?");
    let total: i64 = tx.prepare_cached(&total)?.query_row([&key], |row| row.get(0))?;
    let mut total = total.unsigned_abs();
    let oldest =
        format!("SELECT id, created, length(body) FROM {table}_outbox WHERE peer = ? AND kind <> 2 ORDER BY id");
    let mut query = tx.prepare_cached(&oldest)?;
    let mut rows = query.query([&key])?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        let (id, created, bytes): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if created >= before.millis() && total <= max_bytes {
            break;
        }
        total = total.saturating_sub(bytes.unsigned_abs());
        last = Some(id);
    }
    drop(rows);
    drop(query);
    Ok(last.map(|last| Wanted { key, lane: None, last }))
}

/// Drops some rows.
fn step(tx: &Connection, shared: &Shared, wanted: &Wanted, now: Timestamp) -> Result<usize, StoreError> {
    shared.remove_delivered(tx)?;
    let c = shared.component.as_str();
    let mut oldest = tx.prepare_cached(&format!(
        "SELECT id, lane, sequence FROM {c}_outbox WHERE peer = ?1 AND id <= ?2 AND kind <> 2 \
         AND (?3 IS NULL OR lane = ?3) ORDER BY id LIMIT ?4"
    ))?;
    let lane = wanted.lane.as_ref().map(<[u8; 16]>::as_slice);
    let rows = oldest.query_map(params![wanted.key, wanted.last, lane, STEP], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, Lane>(1)?, row.get::<_, i64>(2)?))
    })?;
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    let domain = domain_of(&wanted.key);
    for (id, lane, sequence) in &rows {
        drop_row(tx, shared, &wanted.key, (*id, lane, *sequence))?;
        let mark = params![domain, true, lane.as_slice(), now.millis(), REASON];
        tx.prepare_cached(&shared.sql.mark)?.execute(mark)?;
    }
    if !rows.is_empty() {
        let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        tx.prepare_cached(&shared.sql.dropped)?.execute(params![domain, count, now.millis()])?;
    }
    Ok(rows.len())
}

/// Lets a row stand for itself and what was dropped before it in its lane.
fn drop_row(
    tx: &Connection,
    shared: &Shared,
    key: &str,
    (id, lane, sequence): (i64, &Lane, i64),
) -> Result<(), StoreError> {
    let c = shared.component.as_str();
    let earlier = format!("SELECT id, body FROM {c}_outbox WHERE peer = ?1 AND lane = ?2 AND kind = 2");
    let earlier: Option<(i64, Vec<u8>)> = tx
        .prepare_cached(&earlier)?
        .query_row(params![key, lane.as_slice()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let mut previous = sequence.saturating_sub(1).unsigned_abs();
    if let Some((earlier, body)) = earlier {
        previous = previous_of(&body);
        tx.prepare_cached(&shared.sql.delete)?.execute([earlier])?;
    }
    let stand = format!("UPDATE {c}_outbox SET kind = ?2, body = ?3, trace = NULL WHERE id = ?1");
    tx.prepare_cached(&stand)?.execute(params![id, DROPPED, previous.to_be_bytes().as_slice()])?;
    Ok(())
}
