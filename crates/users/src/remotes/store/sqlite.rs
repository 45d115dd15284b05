use std::collections::BTreeMap;

use aldis_storage::{Db, StoreError};
use aldis_types::{Domain, RemotePolicy, RemoteState, SearchPolicy, TeamId, Timestamp};
use async_trait::async_trait;
use rusqlite::{OptionalExtension, Row, params};

use super::RemoteStore;
use crate::{audit::AuditEntry, sql};

/// Remotes in `SQLite`.
pub(crate) struct SqliteRemotes {
    db: Db,
}

impl SqliteRemotes {
    pub(crate) fn new(db: Db) -> Self {
        Self { db }
    }
}

fn remote(row: &Row<'_>) -> rusqlite::Result<(Domain, RemotePolicy)> {
    let state = match row.get::<_, i64>(1)? {
        1 => RemoteState::Active,
        2 => RemoteState::Suspended,
        3 => RemoteState::Ended,
        other => return Err(rusqlite::Error::IntegralValueOutOfRange(1, other)),
    };
    let search_policy = match row.get::<_, i64>(2)? {
        1 => SearchPolicy::NoSearch,
        2 => SearchPolicy::ExactHandleSearch,
        3 => SearchPolicy::FullSearch,
        other => return Err(rusqlite::Error::IntegralValueOutOfRange(2, other)),
    };
    let restricted = row.get_ref(3)?.as_str_or_null()?.is_some();
    let teams = restricted.then(|| sql::json::<Vec<TeamId>>(row, 3)).transpose()?;
    let ended = row.get::<_, Option<i64>>(4)?.map(Timestamp::from_millis);
    let pins = sql::json(row, 5)?;
    Ok((sql::parsed(row, 0)?, RemotePolicy { state, search_policy, teams, ended, pins }))
}

#[async_trait]
impl RemoteStore for SqliteRemotes {
    async fn load(&self) -> Result<(u64, BTreeMap<Domain, RemotePolicy>), StoreError> {
        self.db
            .read(|tx| {
                let version = tx
                    .query_row("SELECT version FROM users_policy WHERE one = 1", [], |row| row.get::<_, i64>(0))
                    .optional()?;
                let mut query =
                    tx.prepare("SELECT domain, state, search_policy, teams, ended, pins FROM users_remotes")?;
                let remotes = query.query_map([], remote)?.collect::<Result<_, _>>()?;
                Ok((version.unwrap_or(0).cast_unsigned(), remotes))
            })
            .await
    }

    async fn put(
        &self,
        domain: Domain,
        remote: RemotePolicy,
        version: u64,
        audit: AuditEntry,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.db
            .write(move |tx| {
                let state = match remote.state {
                    RemoteState::Active => 1,
                    RemoteState::Suspended => 2,
                    RemoteState::Ended => 3,
                };
                let search_policy = match remote.search_policy {
                    SearchPolicy::NoSearch => 1,
                    SearchPolicy::ExactHandleSearch => 2,
                    SearchPolicy::FullSearch => 3,
                };
                tx.execute(
                    "INSERT OR REPLACE INTO users_remotes (domain, state, search_policy, teams, ended, pins) \
                     VALUES (?, ?, ?, ?, ?, ?)",
                    params![
                        domain.as_str(),
                        state,
                        search_policy,
                        remote.teams.as_ref().map(sql::to_json).transpose()?,
                        remote.ended.map(Timestamp::millis),
                        sql::to_json(&remote.pins)?
                    ],
                )?;
                tx.execute(
                    "INSERT OR REPLACE INTO users_policy (one, version) VALUES (1, ?)",
                    [version.cast_signed()],
                )?;
                Ok(sql::audit(tx, &audit, now)?)
            })
            .await
    }
}
