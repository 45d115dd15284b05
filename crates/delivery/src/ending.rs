//! What waits for a backend with which federation ends is dropped, and its lanes begin anew.
//!
//! Rows and lanes of a backend are kept under a key. Dropping gives the backend another key in one step: nothing that waits
//! under the old one is ever sent, and what is appended from then on is in lanes of another incarnation, so that the
//! backend, should it be listed again, finds no gap. What is under retired keys goes to the dead letters, a little at a
//! time, whatever happens in between.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use aldis_storage::StoreError;
use aldis_types::Domain;
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use crate::{outbox::Outbox, outbox::Shared};

/// Rows, and lanes, that one step removes.
const STEP: i64 = 16;
/// Why rows are in the dead letters.
const REASON: &str = "federation-ended";
/// Stands between domain and number in a key; no domain has it.
const SEPARATOR: char = '#';

/// The domain that a key belongs to.
pub(crate) fn domain_of(key: &str) -> &str {
    key.split(SEPARATOR).next().unwrap_or(key)
}

/// Whether a key is a backend's; those of our own services have a colon.
pub(crate) fn is_backend(key: &str) -> bool {
    !key.contains(':')
}

/// The incarnation of a key in a store of this incarnation.
pub(crate) fn made_of(incarnation: &[u8; 16], key: &str) -> [u8; 16] {
    if !key.contains(SEPARATOR) {
        return *incarnation;
    }
    let mut hash = Sha256::new();
    hash.update(incarnation);
    hash.update(key.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    bytes
}

/// The key that follows one.
pub(crate) fn renewed_key(key: &str, now: i64) -> String {
    let last = key.split_once(SEPARATOR).and_then(|(_, number)| number.parse().ok()).unwrap_or(0_i64);
    format!("{}{SEPARATOR}{}", domain_of(key), now.max(last.saturating_add(1)))
}

impl Shared {
    /// The key of a backend, inside a job.
    pub(crate) fn key(&self, tx: &Connection, domain: &Domain) -> Result<String, StoreError> {
        if !self.renamed.load(Ordering::Acquire) {
            return Ok(domain.as_str().to_owned());
        }
        let found = tx.prepare_cached(&self.sql.key)?.query_row([domain.as_str()], |row| row.get(0)).optional()?;
        Ok(found.unwrap_or_else(|| domain.as_str().to_owned()))
    }

    /// The incarnation that a backend is told, which is its key's.
    pub(crate) fn incarnation_of(&self, key: &str) -> [u8; 16] {
        let earlier = self.earlier().get(key).copied();
        earlier.unwrap_or_else(|| made_of(&self.incarnation, key))
    }
}

impl Outbox {
    /// The key of a backend whose rows come next.
    pub(crate) async fn key(&self, domain: &Domain) -> Result<String, StoreError> {
        let shared = self.shared.clone();
        let domain = domain.clone();
        let next = self.shared.db.read(move |tx| match shared.earlier_key(tx, &domain)? {
            Some(key) => Ok(key),
            None => shared.key(tx, &domain),
        });
        next.await
    }

    /// Drops everything that waits for a backend, into the dead letters. Nothing of it is sent once this returns, and
    /// what a crash leaves in between is dropped at the next start. Tells how many events were dropped.
    pub async fn drop_backlog(&self, domain: &Domain) -> Result<u64, StoreError> {
        let shared = self.shared.clone();
        let backend = domain.clone();
        let now = self.shared.clock.now().millis();
        self.shared
            .db
            .write(move |tx| {
                shared.remove_delivered(tx)?;
                let mut earlier = tx.prepare_cached(&shared.sql.retire_earlier)?;
                for key in earlier.query_map([backend.as_str()], |row| row.get::<_, String>(0))? {
                    tx.prepare_cached(&shared.sql.retire)?.execute([key?])?;
                }
                let old = shared.key(tx, &backend)?;
                if !tx.prepare_cached(&shared.sql.any)?.query_row([&old], |row| row.get::<_, bool>(0))? {
                    return Ok(());
                }
                let new = renewed_key(&old, now);
                shared.renamed.store(true, Ordering::Release);
                tx.prepare_cached(&shared.sql.rename)?.execute(params![backend.as_str(), new])?;
                tx.prepare_cached(&shared.sql.retire)?.execute([old])?;
                Ok(())
            })
            .await?;
        self.shared.earlier().retain(|key, _| domain_of(key) != domain.as_str());
        self.forget_fresh(domain);
        self.drop_retired().await
    }

    /// Empties retired keys; tells how many events were dropped.
    pub(crate) async fn drop_retired(&self) -> Result<u64, StoreError> {
        let (shared, events) = (self.shared.clone(), Arc::new(AtomicU64::new(0)));
        let dropped = events.clone();
        let outcome = self.shared.db.write_in_turns(move |tx| drop_some(tx, &shared, &dropped)).await;
        let events = events.load(Ordering::Relaxed);
        metrics::counter!("aldis_outbox_dead_letters_total", "component" => self.shared.component.as_str())
            .increment(events);
        outcome.map(|_| events)
    }
}

/// One step; counts what became a dead letter, and tells how many rows were changed.
fn drop_some(tx: &Connection, shared: &Shared, dropped: &AtomicU64) -> Result<usize, StoreError> {
    let (sql, now) = (&shared.sql, shared.clock.now().millis());
    let key: Option<String> = tx.prepare_cached(&sql.retired)?.query_row([], |row| row.get(0)).optional()?;
    let Some(key) = key else { return Ok(0) };
    let ids = first_rows(tx, shared, &key)?;
    let domain = domain_of(&key);
    for id in &ids {
        tx.prepare_cached(&sql.bury)?.execute(params![id, REASON, now])?;
        tx.prepare_cached(&sql.delete)?.execute([id])?;
        tx.prepare_cached(&sql.dead_peer)?.execute(params![id, domain])?;
    }
    let lanes = tx.prepare_cached(&sql.drop_lanes)?.execute(params![key, STEP])?;
    if ids.is_empty() && lanes == 0 {
        return Ok(tx.prepare_cached(&sql.retired_done)?.execute([key])?);
    }
    dropped.fetch_add(ids.len() as u64, Ordering::Relaxed);
    Ok(ids.len() + lanes)
}

fn first_rows(tx: &Connection, shared: &Shared, key: &str) -> Result<Vec<i64>, StoreError> {
    let mut query = tx.prepare_cached(&shared.sql.ids)?;
    let ids = query.query_map(params![key, STEP], |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}
