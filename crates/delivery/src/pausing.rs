//! The administrator holds the relay to a backend, and lets it go on.

use std::collections::BTreeSet;

use aldis_storage::{Db, StoreError};
use aldis_types::Domain;
use rusqlite::params;

use crate::{outbox::Outbox, schema::Statements};

/// Backends whose relays are held.
pub(crate) async fn paused(db: &Db, sql: &Statements) -> Result<BTreeSet<Domain>, StoreError> {
    let statement = sql.paused.clone();
    let found = db.read(move |tx| {
        let mut query = tx.prepare_cached(&statement)?;
        let found = query.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
        Ok(found)
    });
    Ok(found.await?.iter().filter_map(|domain| domain.parse().ok()).collect())
}

impl Outbox {
    /// Whether the relay to a backend is held.
    pub(crate) fn is_paused(&self, domain: &Domain) -> bool {
        self.shared.paused.borrow().contains(domain)
    }

    /// Holds the relay to a backend, or lets it go on; durable, and in force at once.
    pub(crate) async fn set_paused(&self, domain: &Domain, paused: bool) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        let backend = domain.clone();
        let since = paused.then(|| self.shared.clock.now().millis());
        self.shared
            .db
            .write(move |tx| {
                tx.prepare_cached(&shared.sql.pause)?.execute(params![backend.as_str(), since])?;
                Ok(())
            })
            .await?;
        self.shared.paused.send_modify(|all| {
            if paused {
                all.insert(domain.clone());
            } else {
                all.remove(domain);
            }
        });
        Ok(())
    }
}
