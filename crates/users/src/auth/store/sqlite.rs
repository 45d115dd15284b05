use std::time::Duration;

use aldis_storage::{Db, StoreError};
use aldis_types::{ClientId, Timestamp, UserId};
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

/// Kinds of revocations. 2 named single connections.
const CLIENT: i64 = 1;
const EVERYTHING: i64 = 3;
const FAMILY: i64 = 4;
const EVERYTHING_BUT: i64 = 5;

const COOKIE: &str = "id, session, created, expires, label, successor, client, family";

fn cookie(row: &Row<'_>) -> rusqlite::Result<CookieRow> {
    Ok(CookieRow {
        id: row.get(0)?,
        session: row.get(1)?,
        created: sql::time(row, 2)?,
        expires: sql::time(row, 3)?,
        label: row.get(4)?,
        successor: row.get(5)?,
        client: row.get::<_, Option<i64>>(6)?.map(|id| ClientId(id.cast_unsigned())),
        family: row.get(7)?,
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
        "INSERT INTO users_cookies (user, id, session, created, expires, label, successor, client, family) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        user,
        cookie.id,
        cookie.session,
        cookie.created.millis(),
        cookie.expires.millis(),
        cookie.label,
        cookie.successor,
        cookie.client.map(|client| client.0.cast_signed()),
        cookie.family
    ])?;
    Ok(())
}

/// Inside the job of the change that makes it necessary.
pub(crate) fn write_revocation(tx: &Connection, revocation: &Revocation) -> rusqlite::Result<()> {
    let user = revocation.user.as_bytes().as_slice();
    let (kind, subject) = match revocation.what {
        Revoked::Client(client) => (CLIENT, client.0.cast_signed()),
        Revoked::Family(family) => (FAMILY, family.into()),
        Revoked::Everything { except: None } => (EVERYTHING, 0),
        Revoked::Everything { except: Some(family) } => (EVERYTHING_BUT, family.into()),
    };
    if revocation.what.is_everything() {
        // The later one refuses whatever the earlier one did: a family that was let be then has no older tokens now.
        tx.prepare_cached("DELETE FROM users_revocations WHERE user = ? AND kind IN (?, ?)")?.execute(params![
            user,
            EVERYTHING,
            EVERYTHING_BUT
        ])?;
    }
    tx.prepare_cached("INSERT OR REPLACE INTO users_revocations (user, kind, subject, expires) VALUES (?, ?, ?, ?)")?
        .execute(params![user, kind, subject, revocation.expires.millis()])?;
    Ok(())
}

fn revocation(row: &Row<'_>) -> rusqlite::Result<Revocation> {
    let subject: i64 = row.get(2)?;
    let family = || u32::try_from(subject).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(2, subject));
    let what = match row.get::<_, i64>(1)? {
        CLIENT => Revoked::Client(ClientId(subject.cast_unsigned())),
        FAMILY => Revoked::Family(family()?),
        EVERYTHING_BUT => Revoked::Everything { except: Some(family()?) },
        _ => Revoked::Everything { except: None },
    };
    Ok(Revocation { user: sql::user_id(row, 0)?, what, expires: sql::time(row, 3)? })
}

/// Removes families of cookies and writes their revocations.
fn end_families(
    tx: &Connection,
    user: UserId,
    families: Vec<u32>,
    tokens_expire: Timestamp,
) -> rusqlite::Result<Vec<Revocation>> {
    let mut revoked = Vec::with_capacity(families.len());
    for family in families {
        tx.prepare_cached("DELETE FROM users_cookies WHERE user = ? AND family = ?")?
            .execute(params![user.as_bytes().as_slice(), family])?;
        let revocation = Revocation { user, what: Revoked::Family(family), expires: tokens_expire };
        write_revocation(tx, &revocation)?;
        revoked.push(revocation);
    }
    Ok(revoked)
}

/// Inside the job of a change that ends sessions: removes all cookies of an account but those of the family that the
/// revocation leaves out, and writes it; says how many cookies there were.
pub(crate) fn forget_sessions(tx: &Connection, revocation: &Revocation) -> rusqlite::Result<usize> {
    let except = match revocation.what {
        Revoked::Everything { except } => except,
        Revoked::Client(_) | Revoked::Family(_) => None,
    };
    let removed = tx
        .prepare_cached("DELETE FROM users_cookies WHERE user = ? AND family IS NOT ?")?
        .execute(params![revocation.user.as_bytes().as_slice(), except])?;
    write_revocation(tx, revocation)?;
    Ok(removed)
}

/// Inside the job that removes a client: ends the sessions that are bound to it or carry its cookie label, but for the
/// family `except`, and revokes their access tokens and those of the client.
pub(crate) fn forget_client_sessions(
    tx: &Connection,
    user: UserId,
    client: ClientId,
    cookie_label: Option<&str>,
    except: Option<u32>,
    tokens_expire: Timestamp,
) -> rusqlite::Result<Vec<Revocation>> {
    let families = tx
        .prepare_cached(
            "SELECT DISTINCT family FROM users_cookies \
             WHERE user = ?1 AND (client = ?2 OR label = ?3) AND family IS NOT ?4",
        )?
        .query_map(params![user.as_bytes().as_slice(), client.0.cast_signed(), cookie_label, except], |row| row.get(0))?
        .collect::<Result<Vec<u32>, _>>()?;
    let mut revoked = end_families(tx, user, families, tokens_expire)?;
    let of_client = Revocation { user, what: Revoked::Client(client), expires: tokens_expire };
    write_revocation(tx, &of_client)?;
    revoked.push(of_client);
    Ok(revoked)
}

/// Inside the job that registers a client: takes back the revocation of an earlier client with this id.
pub(crate) fn lift_client_revocation(tx: &Connection, user: UserId, client: ClientId) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM users_revocations WHERE user = ? AND kind = 1 AND subject = ?")?
        .execute(params![user.as_bytes().as_slice(), client.0.cast_signed()])?;
    Ok(())
}

/// Whether the hash is still that of an account that may begin a session.
fn password_is(tx: &Connection, user: UserId, password: &str) -> rusqlite::Result<bool> {
    let found = tx
        .prepare_cached("SELECT 1 FROM users_accounts WHERE id = ? AND password = ? AND deleted = 0 AND suspended = 0")?
        .query_row(params![user.as_bytes().as_slice(), password], |_| Ok(()))
        .optional()?;
    Ok(found.is_some())
}

const fn attempt_kind(kind: AttemptKind) -> i64 {
    match kind {
        AttemptKind::Password => 1,
        AttemptKind::ActivationMail => 2,
        AttemptKind::EmailChange => 3,
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

    async fn add_cookie(
        &self,
        user: UserId,
        cookie: CookieRow,
        keep: usize,
        password: Option<String>,
    ) -> Result<bool, StoreError> {
        self.db
            .write(move |tx| {
                if let Some(password) = &password
                    && !password_is(tx, user, password)?
                {
                    return Ok(false);
                }
                if let Some(label) = &cookie.label {
                    tx.prepare_cached("DELETE FROM users_cookies WHERE user = ? AND label = ?")?
                        .execute(params![user.as_bytes().as_slice(), label])?;
                }
                insert_cookie(tx, user, &cookie, keep)?;
                Ok(true)
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

    async fn end_family(&self, user: UserId, family: u32, tokens_expire: Timestamp) -> Result<Revocation, StoreError> {
        self.db
            .write(move |tx| {
                end_families(tx, user, vec![family], tokens_expire)?;
                Ok(Revocation { user, what: Revoked::Family(family), expires: tokens_expire })
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

    async fn remove_cookies(
        &self,
        user: UserId,
        ids: Vec<u32>,
        labels: Vec<String>,
        tokens_expire: Timestamp,
    ) -> Result<Vec<Revocation>, StoreError> {
        self.db
            .write(move |tx| {
                let cookies = tx
                    .prepare_cached("SELECT id, label, family FROM users_cookies WHERE user = ?")?
                    .query_map([user.as_bytes().as_slice()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                    .collect::<Result<Vec<(u32, Option<String>, u32)>, _>>()?;
                let named = |id: &u32, label: &Option<String>| {
                    ids.contains(id) || label.as_ref().is_some_and(|label| labels.contains(label))
                };
                let mut families: Vec<_> =
                    cookies.iter().filter(|(id, label, _)| named(id, label)).map(|(_, _, family)| *family).collect();
                families.sort_unstable();
                families.dedup();
                Ok(end_families(tx, user, families, tokens_expire)?)
            })
            .await
    }

    async fn revocations(&self, now: Timestamp) -> Result<Vec<Revocation>, StoreError> {
        self.db
            .read(move |tx| {
                let mut query = tx.prepare(
                    "SELECT user, kind, subject, expires FROM users_revocations WHERE expires > ? AND kind <> 2",
                )?;
                let rows = query.query_map([now.millis()], revocation)?;
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

    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        let step = move |tx: &Connection| {
            let mut removed = 0;
            for statement in [
                "DELETE FROM users_cookies WHERE (user, id) IN \
                 (SELECT user, id FROM users_cookies WHERE expires <= ? LIMIT ?)",
                "DELETE FROM users_revocations WHERE (user, kind, subject) IN \
                 (SELECT user, kind, subject FROM users_revocations WHERE expires <= ? LIMIT ?)",
                "DELETE FROM users_attempts WHERE (kind, subject) IN \
                 (SELECT kind, subject FROM users_attempts WHERE expires <= ? LIMIT ?)",
            ] {
                removed += tx.prepare_cached(statement)?.execute(params![now.millis(), sql::SWEEP_STEP])?;
            }
            Ok(removed)
        };
        self.db.write_in_turns(step).await
    }
}
