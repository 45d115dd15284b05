//! Activation codes in `SQLite`, for the jobs of the engine beside this file.

use aldis_types::{Email, Timestamp, UserId};
use rusqlite::{Connection, OptionalExtension, params};
use subtle::ConstantTimeEq;

use super::FreshCode;
use crate::{
    mail::{NewMail, Purpose, store::enqueue},
    sql,
};

/// A row of `users_codes`.
pub(super) struct Code {
    pub(super) email: Email,
    pub(super) digits: String,
    pub(super) user: Option<UserId>,
    pub(super) failures: u32,
    pub(super) used: bool,
}

pub(super) fn code(tx: &Connection, key: &str, now: Timestamp) -> rusqlite::Result<Option<Code>> {
    tx.prepare_cached("SELECT email, code, user, failures, used FROM users_codes WHERE key = ? AND expires > ?")?
        .query_row(params![key, now.millis()], |row| {
            Ok(Code {
                email: sql::parsed(row, 0)?,
                digits: row.get(1)?,
                user: row.get::<_, Option<[u8; 16]>>(2)?.map(|bytes| UserId::new(uuid::Uuid::from_bytes(bytes))),
                failures: row.get(3)?,
                used: row.get(4)?,
            })
        })
        .optional()
}

pub(super) fn drop_code(tx: &Connection, key: &str) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM users_codes WHERE key = ?")?.execute([key])?;
    Ok(())
}

pub(crate) fn put_code(
    tx: &Connection,
    key: &str,
    email: &Email,
    user: Option<UserId>,
    fresh: &FreshCode,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT OR REPLACE INTO users_codes (key, email, code, user, failures, used, expires) \
         VALUES (?, ?, ?, ?, 0, 0, ?)",
    )?
    .execute(params![
        key,
        email.as_str(),
        fresh.code,
        user.map(|user| user.as_bytes().to_vec()),
        fresh.expires.millis()
    ])?;
    Ok(())
}

/// The code when it fits; a wrong one counts, and the last allowed one makes the code void.
pub(super) fn fitting_code(
    tx: &Connection,
    key: &str,
    given: &str,
    failures: u32,
    now: Timestamp,
) -> rusqlite::Result<Option<Code>> {
    let Some(found) = code(tx, key, now)? else { return Ok(None) };
    if bool::from(found.digits.as_bytes().ct_eq(given.as_bytes())) {
        return Ok(Some(found));
    }
    if found.failures + 1 >= failures {
        drop_code(tx, key)?;
    } else {
        tx.prepare_cached("UPDATE users_codes SET failures = failures + 1 WHERE key = ?")?.execute([key])?;
    }
    Ok(None)
}

pub(crate) fn queue_mail(
    tx: &Connection,
    purpose: Purpose,
    key: &str,
    email: &Email,
    code: String,
    fresh: &FreshCode,
) -> rusqlite::Result<()> {
    let mail = NewMail { recipient: email.clone(), purpose, key: key.to_owned(), code, expires: fresh.mail_expires };
    enqueue(tx, &mail, fresh.now)
}
