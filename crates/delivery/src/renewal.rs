//! After a restore from a backup our store is another one for other backends.
//!
//! What happened after the backup is not known here any more, so that sequences would be given twice: lanes begin anew under
//! another incarnation. What waited at the time of the backup may have been delivered since. It goes out first, as from the
//! store that was before: its receivers know what of it they have.

use std::collections::BTreeMap;

use aldis_storage::StoreError;
use aldis_types::{Domain, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    ending::{domain_of, is_backend, made_of, renewed_key},
    outbox::{Outbox, Shared},
    schema::Statements,
};

/// What a relay is told about its store.
pub(crate) struct Opened {
    /// Towards other backends.
    pub(crate) incarnation: [u8; 16],
    /// Towards our own services, which were restored with this one.
    pub(crate) services: [u8; 16],
    pub(crate) epoch: u64,
    /// Keys whose rows are sent as from an earlier store.
    pub(crate) earlier: BTreeMap<String, [u8; 16]>,
}

/// Raises the epoch, and begins anew when the store was restored since it was opened last.
pub(crate) fn open(
    tx: &Connection,
    (component, sql): (&str, &Statements),
    fresh: [u8; 16],
    restored: Option<[u8; 16]>,
    now: Timestamp,
) -> Result<Opened, StoreError> {
    let row =
        tx.query_row(&sql.open_store, params![fresh.as_slice()], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?;
    let (mut incarnation, mut epoch): ([u8; 16], i64) = row;
    let known = format!("SELECT services, restored FROM {component}_outbox_store");
    let (services, known) =
        tx.query_row(&known, [], |row| Ok((row.get::<_, Option<[u8; 16]>>(0)?, row.get::<_, Option<[u8; 16]>>(1)?)))?;
    let services = services.unwrap_or(incarnation);
    if let Some(restore) = restored.filter(|restore| known != Some(*restore)) {
        if incarnation != fresh {
            keep_what_waits(tx, (component, sql), incarnation, now)?;
            incarnation = fresh;
        }
        // Greater than any epoch that the store had after the backup: it rises by one with each start.
        epoch = epoch.max(now.millis() / 1000);
        tx.execute(
            &format!("UPDATE {component}_outbox_store SET incarnation = ?1, services = ?2, restored = ?3, epoch = ?4"),
            params![incarnation.as_slice(), services.as_slice(), restore.as_slice(), epoch],
        )?;
        tracing::warn!(component, "the store was restored from a backup; lanes to other backends begin anew");
    }
    let mut query = tx.prepare(&format!("SELECT key, incarnation FROM {component}_outbox_earlier"))?;
    let earlier = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    Ok(Opened { incarnation, services, epoch: epoch.cast_unsigned(), earlier })
}

/// Gives every backend for which something waits another key, and forgets all sequences.
fn keep_what_waits(
    tx: &Connection,
    (component, sql): (&str, &Statements),
    incarnation: [u8; 16],
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut query = tx.prepare(&sql.peers)?;
    let keys = query.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    let insert =
        format!("INSERT INTO {component}_outbox_earlier (key, incarnation) VALUES (?1, ?2) ON CONFLICT DO NOTHING");
    for key in keys.iter().filter(|key| is_backend(key)) {
        let was = made_of(&incarnation, key);
        if tx.execute(&insert, params![key, was.as_slice()])? == 1 {
            tx.execute(&sql.rename, params![domain_of(key), renewed_key(key, now.millis())])?;
        }
    }
    tx.execute(&format!("DELETE FROM {component}_outbox_lanes"), [])?;
    Ok(())
}

impl Shared {
    /// A key of a backend that has to be emptied before its present one.
    pub(crate) fn earlier_key(&self, tx: &Connection, domain: &Domain) -> Result<Option<String>, StoreError> {
        if self.earlier().is_empty() {
            return Ok(None);
        }
        let found = tx.prepare_cached(&self.sql.earlier)?.query_row([domain.as_str()], |row| row.get(0)).optional()?;
        Ok(found)
    }
}

impl Outbox {
    /// Whether everything under a key of an earlier store is delivered; the key is forgotten then.
    pub(crate) async fn is_spent(&self, key: &str) -> Result<bool, StoreError> {
        if !self.shared.earlier().contains_key(key) {
            return Ok(false);
        }
        let (shared, of) = (self.shared.clone(), key.to_owned());
        let spent = self.shared.db.write(move |tx| {
            shared.remove_delivered(tx)?;
            if tx.prepare_cached(&shared.sql.any)?.query_row([&of], |row| row.get::<_, bool>(0))? {
                return Ok(false);
            }
            tx.prepare_cached(&shared.sql.forget_earlier)?.execute([&of])?;
            Ok(true)
        });
        let spent = spent.await?;
        if spent {
            self.shared.earlier().remove(key);
        }
        Ok(spent)
    }
}
