use aldis_storage::{Db, StoreError};
use aldis_types::{Timestamp, UserId};
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{AccountRecord, AccountState, AdminStore, AuditRecord, Changed};
use crate::{
    accounts::store::{ACCOUNT, read_account},
    audit::AuditEntry,
    auth::store::{Revocation, forget_sessions, write_revocation},
    sql,
};

/// Administration in `SQLite`.
pub(crate) struct SqliteAdministration {
    db: Db,
}

impl SqliteAdministration {
    pub(crate) fn new(db: Db) -> Self {
        Self { db }
    }

    /// Runs a change of an account that is not deleted, with its record unless nothing was changed.
    async fn change(
        &self,
        user: UserId,
        audit: AuditEntry,
        now: Timestamp,
        change: impl FnOnce(&Connection, &AccountRecord) -> rusqlite::Result<bool> + Send + 'static,
    ) -> Result<Changed, StoreError> {
        self.db
            .write(move |tx| {
                let before = get(tx, user)?.filter(|record| !record.account.deleted);
                let Some(before) = before else { return Ok(Changed::NotFound) };
                if !change(tx, &before)? {
                    return Ok(Changed::Unchanged);
                }
                sql::audit(tx, &audit, now)?;
                Ok(Changed::Done)
            })
            .await
    }
}

fn record(row: &Row<'_>) -> rusqlite::Result<AccountRecord> {
    Ok(AccountRecord { account: read_account(row)?, created: sql::time(row, 13)? })
}

fn get(tx: &Connection, user: UserId) -> rusqlite::Result<Option<AccountRecord>> {
    tx.prepare_cached(&format!("SELECT {ACCOUNT}, created FROM users_accounts WHERE id = ?"))?
        .query_row([user.as_bytes().as_slice()], record)
        .optional()
}

fn audit_record(row: &Row<'_>) -> rusqlite::Result<AuditRecord> {
    Ok(AuditRecord {
        number: row.get(0)?,
        time: sql::time(row, 1)?,
        actor: row.get(2)?,
        who: row.get(3)?,
        action: row.get(4)?,
        subject: row.get(5)?,
        detail: row.get(6)?,
        outcome: row.get(7)?,
    })
}

const fn condition(state: Option<AccountState>) -> &'static str {
    match state {
        None => "1",
        Some(AccountState::Active) => "deleted = 0 AND suspended = 0 AND email IS NOT NULL",
        Some(AccountState::Pending) => "deleted = 0 AND suspended = 0 AND email IS NULL",
        Some(AccountState::Suspended) => "deleted = 0 AND suspended = 1",
        Some(AccountState::Deleted) => "deleted = 1",
    }
}

#[async_trait]
impl AdminStore for SqliteAdministration {
    async fn page(
        &self,
        after: Option<UserId>,
        state: Option<AccountState>,
        limit: usize,
    ) -> Result<Vec<AccountRecord>, StoreError> {
        let condition = condition(state);
        self.db
            .read(move |tx| {
                let mut query = tx.prepare_cached(&format!(
                    "SELECT {ACCOUNT}, created FROM users_accounts WHERE id > ? AND {condition} ORDER BY id LIMIT ?"
                ))?;
                let after = after.map_or_else(Vec::new, |user| user.as_bytes().to_vec());
                let rows = query.query_map(params![after, sql::rows(limit)], record)?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    async fn get(&self, user: UserId) -> Result<Option<AccountRecord>, StoreError> {
        self.db.read(move |tx| Ok(get(tx, user)?)).await
    }

    async fn suspend(
        &self,
        user: UserId,
        revocation: Revocation,
        audit: AuditEntry,
        now: Timestamp,
    ) -> Result<Changed, StoreError> {
        self.change(user, audit, now, move |tx, before| {
            if before.account.suspended {
                return Ok(false);
            }
            tx.prepare_cached("UPDATE users_accounts SET suspended = 1 WHERE id = ?")?
                .execute([user.as_bytes().as_slice()])?;
            write_revocation(tx, &revocation)?;
            Ok(true)
        })
        .await
    }

    async fn resume(&self, user: UserId, audit: AuditEntry, now: Timestamp) -> Result<Changed, StoreError> {
        self.change(user, audit, now, move |tx, _| {
            let resumed = tx
                .prepare_cached("UPDATE users_accounts SET suspended = 0 WHERE id = ? AND suspended = 1")?
                .execute([user.as_bytes().as_slice()])?;
            Ok(resumed == 1)
        })
        .await
    }

    async fn set_password(
        &self,
        user: UserId,
        hash: String,
        revocation: Revocation,
        audit: AuditEntry,
        now: Timestamp,
    ) -> Result<Changed, StoreError> {
        self.change(user, audit, now, move |tx, _| {
            tx.prepare_cached("UPDATE users_accounts SET password = ? WHERE id = ?")?
                .execute(params![hash, user.as_bytes().as_slice()])?;
            forget_sessions(tx, &revocation)?;
            Ok(true)
        })
        .await
    }

    async fn record(&self, audit: AuditEntry, now: Timestamp) -> Result<(), StoreError> {
        self.db.write(move |tx| Ok(sql::audit(tx, &audit, now)?)).await
    }

    async fn records(
        &self,
        before: Option<i64>,
        subject: Option<String>,
        limit: usize,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        let about = if subject.is_some() { "subject = ?1" } else { "?1 IS NULL" };
        self.db
            .read(move |tx| {
                let mut query = tx.prepare_cached(&format!(
                    "SELECT id, time, actor, who, action, subject, detail, outcome FROM users_audit \
                     WHERE {about} AND id < ?2 ORDER BY id DESC LIMIT ?3"
                ))?;
                let rows =
                    query.query_map(params![subject, before.unwrap_or(i64::MAX), sql::rows(limit)], audit_record)?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }
}
