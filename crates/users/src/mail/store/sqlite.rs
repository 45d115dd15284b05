use aldis_storage::{Db, StoreError};
use aldis_types::Timestamp;
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{MailStore, StoredMail};
use crate::{mail::NewMail, sql};

/// Mails in `SQLite`.
pub(crate) struct SqliteMail {
    db: Db,
}

impl SqliteMail {
    pub(crate) fn new(db: Db) -> Self {
        Self { db }
    }
}

/// Writes a mail inside the job of the change that wants it.
pub(crate) fn enqueue(tx: &Connection, mail: &NewMail, now: Timestamp) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO users_mail (recipient, purpose, key, code, created, expires, attempts, next) \
         VALUES (?, ?, ?, ?, ?, ?, 0, ?)",
    )?
    .execute(params![
        mail.recipient.as_str(),
        mail.purpose.as_str(),
        mail.key,
        mail.code,
        now.millis(),
        mail.expires.millis(),
        now.millis()
    ])?;
    Ok(())
}

fn mail(row: &Row<'_>) -> rusqlite::Result<StoredMail> {
    Ok(StoredMail {
        id: row.get(0)?,
        recipient: sql::parsed(row, 1)?,
        purpose: sql::parsed(row, 2)?,
        key: row.get(3)?,
        code: row.get(4)?,
        created: sql::time(row, 5)?,
        expires: sql::time(row, 6)?,
        attempts: row.get(7)?,
    })
}

#[async_trait]
impl MailStore for SqliteMail {
    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<StoredMail>, StoreError> {
        self.db
            .read(move |tx| {
                let mut query = tx.prepare_cached(
                    "SELECT id, recipient, purpose, key, code, created, expires, attempts FROM users_mail \
                     WHERE next <= ? ORDER BY id LIMIT ?",
                )?;
                let rows = query.query_map(params![now.millis(), sql::rows(limit)], mail)?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        self.db
            .read(|tx| {
                let next = tx
                    .prepare_cached("SELECT next FROM users_mail ORDER BY next LIMIT 1")?
                    .query_row([], |row| sql::time(row, 0))
                    .optional()?;
                Ok(next)
            })
            .await
    }

    async fn retry(&self, id: i64, next: Timestamp) -> Result<(), StoreError> {
        self.db
            .write(move |tx| {
                tx.prepare_cached("UPDATE users_mail SET attempts = attempts + 1, next = ? WHERE id = ?")?
                    .execute(params![next.millis(), id])?;
                Ok(())
            })
            .await
    }

    async fn remove(&self, id: i64) -> Result<(), StoreError> {
        self.db
            .write(move |tx| {
                tx.prepare_cached("DELETE FROM users_mail WHERE id = ?")?.execute([id])?;
                Ok(())
            })
            .await
    }
}
