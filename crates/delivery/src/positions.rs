//! Where the lanes of other backends stand: moved on with the effect of each envelope, and forgotten with stores that are gone.

use std::sync::Arc;

use aldis_runtime::SharedClock;
use aldis_storage::{Db, StoreError};
use aldis_types::Domain;
use rusqlite::{Connection, OptionalExtension, params};

use crate::{bounds::REASON, outbox::Component, receiver::Envelope, schema::Statements, window::DROPPED};

/// Rows of one step.
const STEP: i64 = 64;

/// Refusals that are remembered per origin: more than are on their way at once, in a batch and what is taken along with it.
const MAX_REFUSALS: i64 = 512;

type Store = (String, Vec<u8>);

/// Where the lanes of one origin stand.
#[derive(Clone)]
pub struct Positions {
    pub(crate) sql: Arc<Statements>,
    pub(crate) component: Component,
    pub(crate) clock: SharedClock,
    pub(crate) origin: Domain,
    pub(crate) incarnation: [u8; 16],
}

impl Positions {
    /// Moves a lane on, inside the write job of the effect. Fails, and so undoes the job, when the lane does not stand
    /// right before the envelope, or, for one that stands for what was dropped, in the part that it stands for. Such a lane
    /// is marked, to be compared with the origin's; and so is one that lost a change of state because it was refused.
    pub fn advance(&self, tx: &Connection, envelope: &Envelope) -> Result<(), StoreError> {
        let mut step = &self.sql.received.advance;
        if envelope.kind == DROPPED {
            step = &self.sql.received.jump;
            self.mark(tx, envelope, REASON)?;
        } else if let Some(label) = envelope.refused {
            self.note_refusal(tx, envelope, label)?;
        }
        let changed = tx.prepare_cached(step)?.execute(params![
            self.origin.as_str(),
            self.incarnation.as_slice(),
            envelope.lane.as_slice(),
            envelope.sequence.cast_signed(),
            envelope.previous.cast_signed()
        ])?;
        if changed == 1 { Ok(()) } else { Err(StoreError::Corrupt("received")) }
    }

    fn mark(&self, tx: &Connection, envelope: &Envelope, reason: &str) -> Result<(), StoreError> {
        let now = self.clock.now().millis();
        let mark = params![self.origin.as_str(), false, envelope.lane.as_slice(), now, reason];
        tx.prepare_cached(&self.sql.mark)?.execute(mark)?;
        Ok(())
    }

    fn note_refusal(&self, tx: &Connection, envelope: &Envelope, label: &str) -> Result<(), StoreError> {
        if self.component.is_state(envelope.kind) {
            self.mark(tx, envelope, "refused")?;
        }
        tx.prepare_cached(&self.sql.received.refuse)?.execute(params![
            self.origin.as_str(),
            self.incarnation.as_slice(),
            envelope.lane.as_slice(),
            envelope.sequence.cast_signed(),
            label
        ])?;
        tx.prepare_cached(&self.sql.received.forget_refusals)?.execute(params![self.origin.as_str(), MAX_REFUSALS])?;
        Ok(())
    }
}

/// Removes the positions of stores that are no longer remembered, in short jobs; says how many went.
pub(crate) async fn sweep(db: &Db, component: &'static str) -> Result<u64, StoreError> {
    let mut removed = 0;
    for store in db.read(move |tx| Ok(forgotten(tx, component)?)).await? {
        removed += db.write_in_turns(move |tx| step(tx, component, &store)).await?;
    }
    Ok(removed)
}

/// Origins and stores with positions of which no epoch is remembered. Steps from store to store, whatever number of
/// lanes they have.
fn forgotten(tx: &Connection, component: &str) -> rusqlite::Result<Vec<Store>> {
    let mut next = tx.prepare_cached(&format!(
        "SELECT origin, incarnation FROM {component}_received WHERE (origin, incarnation) > (?1, ?2) \
         ORDER BY origin, incarnation LIMIT 1"
    ))?;
    let mut known = tx
        .prepare_cached(&format!("SELECT 1 FROM {component}_received_epochs WHERE origin = ?1 AND incarnation = ?2"))?;
    let mut found = Vec::new();
    let mut at: Store = (String::new(), Vec::new());
    while let Some(store) = next.query_row(params![at.0, at.1], |row| Ok((row.get(0)?, row.get(1)?))).optional()? {
        at = store;
        if !known.exists(params![at.0, at.1])? {
            found.push(at.clone());
        }
    }
    Ok(found)
}

/// Removes some rows of a store.
fn step(tx: &Connection, component: &str, store: &Store) -> Result<usize, StoreError> {
    let table = format!("{component}_received");
    let mut delete = tx.prepare_cached(&format!(
        "DELETE FROM {table} WHERE origin = ?1 AND incarnation = ?2 AND lane IN \
         (SELECT lane FROM {table} WHERE origin = ?1 AND incarnation = ?2 LIMIT ?3)"
    ))?;
    Ok(delete.execute(params![store.0, store.1, STEP])?)
}

#[cfg(test)]
mod tests {
    use aldis_storage::{DbOptions, Migration};

    use super::*;

    const TABLES: &[Migration] = &[
        Migration { name: "outbox", sql: crate::schema!("users") },
        Migration { name: "incarnations", sql: crate::schema_incarnations!("users") },
    ];

    #[tokio::test]
    async fn positions_of_stores_that_are_gone_go() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("aldis.db"), &DbOptions::default()).unwrap();
        db.migrate("users", TABLES).await.unwrap();
        let sql = crate::schema::Statements::new("users");
        db.write(move |tx| {
            for origin in ["beta.test", "gamma.test"] {
                for store in 1..=10_u8 {
                    tx.execute(&sql.received.raise_epoch, params![origin, [store; 16].as_slice(), 1])?;
                    tx.execute(&sql.received.forget_epochs, params![origin, 8])?;
                    for lane in 0..200_u8 {
                        let (store, lane) = ([store; 16], [lane; 16]);
                        tx.execute(&sql.received.advance, params![origin, store.as_slice(), lane.as_slice(), 1, 0])?;
                    }
                }
            }
            // A store that is heard of again is among the newest again.
            tx.execute(&sql.received.raise_epoch, params!["beta.test", [3_u8; 16].as_slice(), 2])?;
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(sweep(&db, "users").await.unwrap(), 2 * 2 * 200);
        assert_eq!(sweep(&db, "users").await.unwrap(), 0);
        let left = db.read(|tx| {
            let mut query = tx.prepare(
                "SELECT incarnation FROM users_received_epochs WHERE origin = 'beta.test' ORDER BY number DESC LIMIT 2",
            )?;
            let rows = query.query_map([], |row| row.get::<_, [u8; 16]>(0))?.collect::<Result<Vec<_>, _>>()?;
            Ok(rows)
        });
        assert_eq!(left.await.unwrap(), [[3; 16], [10; 16]]);
    }
}
