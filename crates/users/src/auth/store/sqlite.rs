use std::time::Duration;

use aldis_storage::{Db, StoreError};
use aldis_types::{ClientId, ConnId, Timestamp, UserId};
use async_trait::async_trait;
use ed25519_dalek::SigningKey;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{AttemptKind, AttemptLimit, AuthStore, CookieRow, Revocation, Revoked, TokenKey};
use crate::{audit::AuditEntry, sql};

/// Keys, cookies, revocations and attempts in `SQLite`.
pub(crate) struct SqliteAuth {
    db: Db,
}

impl SqliteAuth {
    pub(crate) fn new(db: Db) -> Self {
        Self { db }
    }
}

const COOKIE: &str = "id, session, created, expires, label, successor, client";

fn cookie(row: &Row<'_>) -> rusqlite::Result<CookieRow> {
    Ok(CookieRow {
        id: row.get(0)?,
        session: row.get(1)?,
        created: sql::time(row, 2)?,
        expires: sql::time(row, 3)?,
        label: row.get(4)?,
        successor: row.get(5)?,
        client: row.get::<_, Option<i64>>(6)?.map(|id| ClientId(id.cast_unsigned())),
    })
}

fn keys(tx: &Connection) -> rusqlite::Result<Vec<TokenKey>> {
    let mut query = tx.prepare("SELECT position, seed, created, retired FROM users_token_keys ORDER BY position")?;
    let rows = query.query_map([], |row| {
        Ok(TokenKey {
            position: row.get(0)?,
            key: SigningKey::from_bytes(&row.get::<_, [u8; 32]>(1)?),
            created: sql::time(row, 2)?,
            retired: row.get::<_, Option<i64>>(3)?.map(Timestamp::from_millis),
        })
    })?;
    rows.collect()
}

fn insert_cookie(tx: &Connection, user: UserId, cookie: &CookieRow, keep: usize) -> rusqlite::Result<()> {
    let user = user.as_bytes().as_slice();
    tx.prepare_cached(
        "DELETE FROM users_cookies WHERE user = ?1 AND id IN (SELECT id FROM users_cookies \
         WHERE user = ?1 AND session = ?2 ORDER BY expires DESC, created DESC LIMIT -1 OFFSET ?3)",
    )?
    .execute(params![user, cookie.session, sql::rows(keep.saturating_sub(1))])?;
    tx.prepare_cached(
        "INSERT INTO users_cookies (user, id, session, created, expires, label, successor, client) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        user,
        cookie.id,
        cookie.session,
        cookie.created.millis(),
        cookie.expires.millis(),
        cookie.label,
        cookie.successor,
        cookie.client.map(|client| client.0.cast_signed())
    ])?;
    Ok(())
}

/// Inside the job of the change that makes it necessary.
pub(crate) fn write_revocation(tx: &Connection, revocation: &Revocation) -> rusqlite::Result<()> {
    let (kind, subject) = match revocation.what {
        Revoked::Client(client) => (1, client.0),
        Revoked::Connection(connection) => (2, connection.0),
        Revoked::User => (3, 0),
    };
    tx.prepare_cached("INSERT OR REPLACE INTO users_revocations (user, kind, subject, expires) VALUES (?, ?, ?, ?)")?
        .execute(params![
        revocation.user.as_bytes().as_slice(),
        kind,
        subject.cast_signed(),
        revocation.expires.millis()
    ])?;
    Ok(())
}

/// Inside the job that removes a client: ends the sessions that are bound to it or carry its cookie label, and revokes
/// its access tokens.
pub(crate) fn forget_client_sessions(
    tx: &Connection,
    user: UserId,
    client: ClientId,
    cookie_label: Option<&str>,
    revocation: &Revocation,
) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM users_cookies WHERE user = ? AND (client = ? OR label = ?)")?.execute(params![
        user.as_bytes().as_slice(),
        client.0.cast_signed(),
        cookie_label
    ])?;
    write_revocation(tx, revocation)
}

/// Inside the job that ends all sessions of a user: removes every cookie and revokes every token; says how many cookies
/// there were.
pub(crate) fn forget_sessions(tx: &Connection, revocation: &Revocation) -> rusqlite::Result<usize> {
    let removed = tx
        .prepare_cached("DELETE FROM users_cookies WHERE user = ?")?
        .execute([revocation.user.as_bytes().as_slice()])?;
    write_revocation(tx, revocation)?;
    Ok(removed)
}

/// Inside the job that registers a client: takes back the revocation of an earlier client with this id.
pub(crate) fn lift_client_revocation(tx: &Connection, user: UserId, client: ClientId) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM users_revocations WHERE user = ? AND kind = 1 AND subject = ?")?
        .execute(params![user.as_bytes().as_slice(), client.0.cast_signed()])?;
    Ok(())
}

const fn attempt_kind(kind: AttemptKind) -> i64 {
    match kind {
        AttemptKind::Password => 1,
        AttemptKind::ActivationMail => 2,
    }
}

#[async_trait]
impl AuthStore for SqliteAuth {
    async fn token_keys(&self, fresh: [u8; 32], now: Timestamp) -> Result<Vec<TokenKey>, StoreError> {
        self.db
            .write(move |tx| {
                tx.execute(
                    "INSERT INTO users_token_keys (position, seed, created) SELECT 1, ?, ? \
                     WHERE NOT EXISTS (SELECT 1 FROM users_token_keys)",
                    params![fresh.as_slice(), now.millis()],
                )?;
                Ok(keys(tx)?)
            })
            .await
    }

    async fn add_key(
        &self,
        fresh: [u8; 32],
        now: Timestamp,
        signs: Timestamp,
        most: usize,
        audit: AuditEntry,
    ) -> Result<Option<Vec<TokenKey>>, StoreError> {
        self.db
            .write(move |tx| {
                if keys(tx)?.len() >= most {
                    return Ok(None);
                }
                tx.execute("UPDATE users_token_keys SET retired = ? WHERE retired IS NULL", [signs.millis()])?;
                // Positions of keys that are gone must not come again: their tokens would be tried with the wrong key.
                tx.execute(
                    "INSERT INTO users_token_keys (position, seed, created) \
                     SELECT max(position) + 1, ?, ? FROM users_token_keys",
                    params![fresh.as_slice(), now.millis()],
                )?;
                sql::audit(tx, &audit, now)?;
                Ok(Some(keys(tx)?))
            })
            .await
    }

    async fn drop_keys(&self, retired_before: Timestamp) -> Result<Vec<TokenKey>, StoreError> {
        self.db
            .write(move |tx| {
                tx.execute("DELETE FROM users_token_keys WHERE retired < ?", [retired_before.millis()])?;
                Ok(keys(tx)?)
            })
            .await
    }

    async fn cookies(&self, user: UserId, now: Timestamp) -> Result<Vec<CookieRow>, StoreError> {
        self.db
            .read(move |tx| {
                let mut query = tx.prepare_cached(&format!(
                    "SELECT {COOKIE} FROM users_cookies WHERE user = ? AND expires > ? ORDER BY created DESC, id"
                ))?;
                let rows = query.query_map(params![user.as_bytes().as_slice(), now.millis()], cookie)?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    async fn cookie(&self, user: UserId, id: u32) -> Result<Option<CookieRow>, StoreError> {
        self.db
            .read(move |tx| {
                let mut query =
                    tx.prepare_cached(&format!("SELECT {COOKIE} FROM users_cookies WHERE user = ? AND id = ?"))?;
                Ok(query.query_row(params![user.as_bytes().as_slice(), id], cookie).optional()?)
            })
            .await
    }

    async fn add_cookie(&self, user: UserId, cookie: CookieRow, keep: usize) -> Result<(), StoreError> {
        self.db
            .write(move |tx| {
                if let Some(label) = &cookie.label {
                    tx.prepare_cached("DELETE FROM users_cookies WHERE user = ? AND label = ?")?
                        .execute(params![user.as_bytes().as_slice(), label])?;
                }
                Ok(insert_cookie(tx, user, &cookie, keep)?)
            })
            .await
    }

    async fn renew_cookie(
        &self,
        user: UserId,
        old: u32,
        old_expires: Timestamp,
        next: CookieRow,
        keep: usize,
    ) -> Result<bool, StoreError> {
        self.db
            .write(move |tx| {
                let changed = tx
                    .prepare_cached(
                        "UPDATE users_cookies SET successor = ?, expires = min(expires, ?) WHERE user = ? AND id = ?",
                    )?
                    .execute(params![next.id, old_expires.millis(), user.as_bytes().as_slice(), old])?;
                if changed == 1 {
                    insert_cookie(tx, user, &next, keep)?;
                }
                Ok(changed == 1)
            })
            .await
    }

    async fn end_session(&self, id: u32, revocation: Revocation) -> Result<(), StoreError> {
        self.db
            .write(move |tx| {
                let user = revocation.user;
                tx.prepare_cached(
                    "WITH RECURSIVE chain (id) AS ( \
                         VALUES (?2) UNION \
                         SELECT next.id FROM users_cookies next, users_cookies this, chain \
                         WHERE next.user = ?1 AND this.user = ?1 AND this.id = chain.id \
                         AND (next.id = this.successor OR next.successor = this.id)) \
                     DELETE FROM users_cookies WHERE user = ?1 AND id IN (SELECT id FROM chain)",
                )?
                .execute(params![user.as_bytes().as_slice(), id])?;
                Ok(write_revocation(tx, &revocation)?)
            })
            .await
    }

    async fn end_sessions(
        &self,
        revocation: Revocation,
        audit: AuditEntry,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        self.db
            .write(move |tx| {
                sql::audit(tx, &audit, now)?;
                Ok(forget_sessions(tx, &revocation)?)
            })
            .await
    }

    async fn revocations(&self, now: Timestamp) -> Result<Vec<Revocation>, StoreError> {
        self.db
            .read(move |tx| {
                let mut query =
                    tx.prepare("SELECT user, kind, subject, expires FROM users_revocations WHERE expires > ?")?;
                let rows = query.query_map([now.millis()], |row| {
                    let subject = row.get::<_, i64>(2)?.cast_unsigned();
                    let what = match row.get::<_, i64>(1)? {
                        1 => Revoked::Client(ClientId(subject)),
                        2 => Revoked::Connection(ConnId(subject)),
                        _ => Revoked::User,
                    };
                    Ok(Revocation { user: sql::user_id(row, 0)?, what, expires: sql::time(row, 3)? })
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    async fn attempt(
        &self,
        kind: AttemptKind,
        subject: [u8; 16],
        limit: AttemptLimit,
        now: Timestamp,
    ) -> Result<Option<Duration>, StoreError> {
        self.db
            .write(move |tx| {
                let kind = attempt_kind(kind);
                let found = tx
                    .prepare_cached("SELECT count, expires FROM users_attempts WHERE kind = ? AND subject = ?")?
                    .query_row(params![kind, subject.as_slice()], |row| Ok((row.get::<_, u32>(0)?, sql::time(row, 1)?)))
                    .optional()?
                    .filter(|(_, expires)| *expires > now);
                if let Some((count, expires)) = found
                    && count >= limit.count
                {
                    return Ok(Some(expires.since(now)));
                }
                let (count, expires) = found.unwrap_or((0, now.plus(limit.window)));
                tx.prepare_cached(
                    "INSERT OR REPLACE INTO users_attempts (kind, subject, count, expires) VALUES (?, ?, ?, ?)",
                )?
                .execute(params![kind, subject.as_slice(), count + 1, expires.millis()])?;
                Ok(None)
            })
            .await
    }

    async fn forgive(&self, kind: AttemptKind, subject: [u8; 16]) -> Result<(), StoreError> {
        self.db
            .write(move |tx| {
                tx.prepare_cached("DELETE FROM users_attempts WHERE kind = ? AND subject = ?")?
                    .execute(params![attempt_kind(kind), subject.as_slice()])?;
                Ok(())
            })
            .await
    }

    async fn sweep(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.db
            .write(move |tx| {
                let mut removed = 0;
                for statement in [
                    "DELETE FROM users_cookies WHERE (user, id) IN \
                     (SELECT user, id FROM users_cookies WHERE expires <= ? LIMIT ?)",
                    "DELETE FROM users_revocations WHERE (user, kind, subject) IN \
                     (SELECT user, kind, subject FROM users_revocations WHERE expires <= ? LIMIT ?)",
                    "DELETE FROM users_attempts WHERE (kind, subject) IN \
                     (SELECT kind, subject FROM users_attempts WHERE expires <= ? LIMIT ?)",
                ] {
                    removed += tx.prepare_cached(statement)?.execute(params![now.millis(), sql::rows(limit)])?;
                }
                Ok(removed)
            })
            .await
    }
}
