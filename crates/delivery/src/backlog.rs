//! What waits, for the administrator and the status page.

use std::collections::BTreeMap;

use aldis_proto::internal::v1::{LaneBacklog, OutboxRow, PeerBacklog};
use aldis_storage::{Db, StoreError};
use aldis_types::{Domain, Timestamp};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use crate::{ending::domain_of, outbox::Component, window::Lane};

/// Rows under every key of a peer but the retired ones; the parameter ?1 is the peer. A number sign stands after the
/// domain in a key, and a dollar sign comes right after it.
const OF_PEER: &str = "(peer = ?1 OR (peer > ?1 || '#' AND peer < ?1 || '$'))";

/// What waits for one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// The backend.
    pub domain: Domain,
    /// How many events.
    pub events: u64,
    /// When the oldest was written; `None` without any.
    pub oldest: Option<Timestamp>,
    /// Events that it refused for good.
    pub dead: u64,
    /// Since when the administrator holds its relay.
    pub paused: Option<Timestamp>,
    /// Events that were dropped before they could be delivered.
    pub dropped: u64,
    /// Lanes that have to be compared with its own.
    pub marked: u64,
}

fn time(millis: i64) -> Option<Timestamp> {
    (millis > 0).then(|| Timestamp::from_millis(millis))
}

/// What waits for other backends in the outbox of a component, and what happened to the rest, whoever runs its relays.
pub async fn backlog(db: &Db, component: Component) -> Result<Vec<Backlog>, StoreError> {
    let found = db.read(move |tx| peers(tx, component.as_str(), false)).await?;
    let backends = found.into_iter().filter_map(|peer| {
        Some(Backlog {
            domain: peer.peer.parse().ok()?,
            events: peer.rows,
            oldest: time(peer.oldest),
            dead: peer.dead,
            paused: time(peer.paused),
            dropped: peer.dropped,
            marked: peer.marked,
        })
    });
    Ok(backends.collect())
}

/// A store that no service of this component, or an older one, has opened last lacks tables, and so rows.
fn exists(tx: &Connection, table: &str) -> rusqlite::Result<bool> {
    let found: Option<i64> = tx
        .prepare_cached("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?")?
        .query_row([table], |row| row.get(0))
        .optional()?;
    Ok(found.is_some())
}

/// Every peer about which there is something to say, in order.
pub(crate) fn peers(tx: &Connection, component: &str, sizes: bool) -> Result<Vec<PeerBacklog>, StoreError> {
    if !exists(tx, &format!("{component}_outbox_peers"))? {
        return Ok(Vec::new());
    }
    let mut found = Found::default();
    let size = if sizes { "(SELECT sum(length(body)) FROM {c}_outbox WHERE peer = waiting.peer)" } else { "0" };
    // Rows are numbered in the order in which they were written.
    let waiting = format!(
        "SELECT waiting.peer, waiting.rows, oldest.created, {size} FROM \
         (SELECT peer, count(*) AS rows, min(id) AS id FROM {{c}}_outbox GROUP BY peer) AS waiting \
         JOIN {{c}}_outbox AS oldest ON oldest.id = waiting.id \
         WHERE waiting.peer NOT IN (SELECT key FROM {{c}}_outbox_retired)"
    );
    found.read(tx, component, &waiting, |entry, row| {
        let oldest = row.get(2)?;
        entry.rows += row.get::<_, i64>(1)?.unsigned_abs();
        entry.oldest = if entry.oldest == 0 { oldest } else { entry.oldest.min(oldest) };
        entry.bytes += row.get::<_, i64>(3)?.unsigned_abs();
        Ok(())
    })?;
    found.read(tx, component, "SELECT peer, count(*) FROM {c}_outbox_dead GROUP BY peer", |entry, row| {
        entry.dead += row.get::<_, i64>(1)?.unsigned_abs();
        Ok(())
    })?;
    found.read(tx, component, "SELECT domain, paused, dropped, last_dropped FROM {c}_outbox_peers", |entry, row| {
        entry.paused = row.get::<_, Option<i64>>(1)?.unwrap_or(0);
        entry.dropped = row.get::<_, i64>(2)?.unsigned_abs();
        entry.last_dropped = row.get::<_, Option<i64>>(3)?.unwrap_or(0);
        Ok(())
    })?;
    found.read(tx, component, "SELECT peer, count(*) FROM {c}_reconcile GROUP BY peer", |entry, row| {
        entry.marked = row.get::<_, i64>(1)?.unsigned_abs();
        Ok(())
    })?;
    Ok(found.0.into_values().collect())
}

/// Peers by name.
#[derive(Default)]
struct Found(BTreeMap<String, PeerBacklog>);

impl Found {
    /// Enters the rows of a query whose first column is a peer, or one of its keys.
    fn read(
        &mut self,
        tx: &Connection,
        component: &str,
        sql: &str,
        enter: impl Fn(&mut PeerBacklog, &rusqlite::Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), StoreError> {
        let mut query = tx.prepare_cached(&sql.replace("{c}", component))?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let peer = domain_of(&row.get::<_, String>(0)?).to_owned();
            let entry = self.0.entry(peer.clone()).or_insert_with(|| PeerBacklog { peer, ..PeerBacklog::default() });
            enter(entry, row)?;
        }
        Ok(())
    }
}

fn bytes_of(lane: &[u8]) -> Bytes {
    Bytes::copy_from_slice(lane)
}

/// The lanes of a peer: at most so many with rows, with dead letters, and with marks.
pub(crate) fn lanes(
    tx: &Connection,
    component: &str,
    peer: &str,
    limit: usize,
) -> Result<Vec<LaneBacklog>, StoreError> {
    if !exists(tx, &format!("{component}_outbox_peers"))? {
        return Ok(Vec::new());
    }
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut lanes: Vec<LaneBacklog> = Vec::new();
    let mut places: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let queries = [
        format!(
            "SELECT lane, count(*), sum(length(body)), min(created), 0, 0 FROM {component}_outbox WHERE {OF_PEER} \
             AND peer NOT IN (SELECT key FROM {component}_outbox_retired) GROUP BY lane ORDER BY min(id) LIMIT ?2"
        ),
        format!(
            "SELECT lane, 0, 0, 0, count(*), 0 FROM {component}_outbox_dead WHERE peer = ?1 \
             GROUP BY lane ORDER BY min(id) LIMIT ?2"
        ),
        format!("SELECT lane, 0, 0, 0, 0, 1 FROM {component}_reconcile WHERE peer = ?1 AND ours = 1 LIMIT ?2"),
    ];
    for sql in &queries {
        let mut query = tx.prepare_cached(sql)?;
        let mut rows = query.query(params![peer, limit])?;
        while let Some(row) = rows.next()? {
            let lane: Vec<u8> = row.get(0)?;
            let place = *places.entry(lane.clone()).or_insert_with(|| {
                lanes.push(LaneBacklog { lane: bytes_of(&lane), ..LaneBacklog::default() });
                lanes.len() - 1
            });
            let entry = &mut lanes[place];
            entry.rows += row.get::<_, i64>(1)?.unsigned_abs();
            entry.bytes += row.get::<_, i64>(2)?.unsigned_abs();
            entry.oldest = entry.oldest.max(row.get(3)?);
            entry.dead += row.get::<_, i64>(4)?.unsigned_abs();
            entry.marked |= row.get::<_, bool>(5)?;
        }
    }
    Ok(lanes)
}

/// Which rows are asked for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) peer: String,
    pub(crate) lane: Option<Lane>,
    pub(crate) dead: bool,
    pub(crate) after: i64,
    pub(crate) limit: usize,
}

/// Rows of a peer, in order of their ids.
pub(crate) fn rows(tx: &Connection, component: &str, asked: &Asked) -> Result<Vec<OutboxRow>, StoreError> {
    if !exists(tx, &format!("{component}_outbox_peers"))? {
        return Ok(Vec::new());
    }
    let source = if asked.dead {
        format!("length(body), created, reason, died FROM {component}_outbox_dead WHERE peer = ?1")
    } else {
        format!(
            "CASE kind WHEN 2 THEN 0 ELSE length(body) END, created, '', 0 FROM {component}_outbox WHERE {OF_PEER} \
             AND peer NOT IN (SELECT key FROM {component}_outbox_retired)"
        )
    };
    let sql = format!(
        "SELECT id, lane, sequence, kind, {source} AND id > ?2 AND (?3 IS NULL OR lane = ?3) ORDER BY id LIMIT ?4"
    );
    let lane = asked.lane.as_ref().map(<[u8; 16]>::as_slice);
    let limit = i64::try_from(asked.limit).unwrap_or(i64::MAX);
    let mut query = tx.prepare_cached(&sql)?;
    let rows = query.query_map(params![asked.peer, asked.after, lane, limit], |row| {
        Ok(OutboxRow {
            id: row.get(0)?,
            lane: bytes_of(&row.get::<_, Vec<u8>>(1)?),
            sequence: row.get::<_, i64>(2)?.unsigned_abs(),
            kind: row.get(3)?,
            bytes: row.get::<_, i64>(4)?.unsigned_abs(),
            created: row.get(5)?,
            reason: row.get(6)?,
            died: row.get(7)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
