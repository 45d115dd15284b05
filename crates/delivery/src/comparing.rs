//! What a comparison of state with another backend needs to know of lanes: which are marked, where ours end, and whether
//! everything that the other backend had told by then is applied here.

use aldis_storage::{Db, StoreError};
use aldis_types::{Domain, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    outbox::{Component, Outbox},
    schema::Statements,
    window::Lane,
};

/// The lanes of a component that were marked because something in them was lost or refused. Cheap to clone.
#[derive(Clone)]
pub struct Marks {
    db: Db,
    component: Component,
}

impl Marks {
    /// The marks of a component whose tables were migrated.
    pub const fn new(db: Db, component: Component) -> Self {
        Self { db, component }
    }

    /// Backends with marked lanes, ours or theirs.
    pub async fn peers(&self) -> Result<Vec<Domain>, StoreError> {
        let sql = format!("SELECT DISTINCT peer FROM {}_reconcile", self.component.as_str());
        let peers = self.db.read(move |tx| {
            let mut query = tx.prepare_cached(&sql)?;
            Ok(query.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?)
        });
        Ok(peers.await?.iter().filter_map(|peer| peer.parse().ok()).collect())
    }

    /// Forgets the marks of a backend that were made before a comparison began which found both sides alike in the end.
    pub async fn clear(&self, domain: &Domain, begun: Timestamp) -> Result<(), StoreError> {
        let sql = format!("DELETE FROM {}_reconcile WHERE peer = ?1 AND since < ?2", self.component.as_str());
        let domain = domain.clone();
        self.db
            .write(move |tx| {
                tx.prepare_cached(&sql)?.execute(params![domain.as_str(), begun.millis()])?;
                Ok(())
            })
            .await
    }
}

/// Where lanes of ours end that another backend gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneEnds {
    /// The incarnation that the backend is told.
    pub incarnation: [u8; 16],
    /// Of each lane.
    pub ends: Vec<LaneEnd>,
}

/// Where a lane ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneEnd {
    /// Its last sequence; 0 when there is none.
    pub sequence: u64,
    /// Nothing of it waits to be acknowledged.
    pub delivered: bool,
}

/// Beyond so many rows that wait for a backend it is not said of any lane that nothing of it waits.
const MAX_WAITING: usize = 1000;

impl Outbox {
    /// Where lanes for a backend end, inside a read or a job. `None` while something waits for it from before a restore:
    /// what it is told then is older than what it would be compared with.
    pub fn lane_ends(&self, tx: &Connection, domain: &Domain, lanes: &[Lane]) -> Result<Option<LaneEnds>, StoreError> {
        let shared = &self.shared;
        if shared.earlier_key(tx, domain)?.is_some() {
            return Ok(None);
        }
        let key = shared.key(tx, domain)?;
        let sql = format!("SELECT last FROM {}_outbox_lanes WHERE peer = ?1 AND lane = ?2", shared.component.as_str());
        let mut last = tx.prepare_cached(&sql)?;
        let sql = format!(
            "SELECT lane FROM {}_outbox WHERE peer = ?1 ORDER BY id LIMIT {}",
            shared.component.as_str(),
            MAX_WAITING + 1
        );
        let mut rows = tx.prepare_cached(&sql)?;
        let waiting = rows.query_map([&key], |row| row.get::<_, Lane>(0))?.collect::<Result<Vec<_>, _>>()?;
        let mut ends = Vec::with_capacity(lanes.len());
        for lane in lanes {
            let found: Option<i64> = last.query_row(params![key, lane.as_slice()], |row| row.get(0)).optional()?;
            let delivered = waiting.len() <= MAX_WAITING && !waiting.contains(lane);
            ends.push(LaneEnd { sequence: found.unwrap_or(0).cast_unsigned(), delivered });
        }
        Ok(Some(LaneEnds { incarnation: shared.incarnation_of(&key), ends }))
    }
}

/// A place in a lane of another backend, as that backend states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The backend.
    pub origin: Domain,
    /// The incarnation of its store.
    pub incarnation: [u8; 16],
    /// Which lane.
    pub lane: [u8; 16],
    /// Its last sequence when the statement was made; 0 when nothing was told yet.
    pub sequence: u64,
    /// Whether everything up to there had been acknowledged, so that what is missing here was lost here.
    pub delivered: bool,
}

impl Place {
    /// Whether everything up to this place that will ever come, and nothing after it, is applied here; inside a job.
    pub fn is_reached(&self, tx: &Connection, component: Component) -> Result<bool, StoreError> {
        let sql = Statements::position_of(component.as_str());
        let key = params![self.origin.as_str(), self.incarnation.as_slice(), self.lane.as_slice()];
        let last: Option<i64> = tx.prepare_cached(&sql)?.query_row(key, |row| row.get(0)).optional()?;
        let last = last.unwrap_or(0).cast_unsigned();
        Ok(last == self.sequence || (self.delivered && last < self.sequence))
    }
}
