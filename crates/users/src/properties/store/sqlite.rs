use std::collections::BTreeMap;

use aldis_delivery::{Delivery, Outbox, Outgoing};
use aldis_storage::{Db, StoreError};
use aldis_types::UserId;
use async_trait::async_trait;
use rusqlite::{OptionalExtension, Row, params, types::Type};
use serde_json::value::RawValue;

use super::{PropertyStore, SetOutcome};

/// Properties in `SQLite`.
pub(crate) struct SqliteProperties {
    db: Db,
    outbox: Outbox,
}

impl SqliteProperties {
    pub(crate) fn new(db: Db, outbox: Outbox) -> Self {
        Self { db, outbox }
    }
}

fn value(row: &Row<'_>, column: usize) -> rusqlite::Result<Box<RawValue>> {
    RawValue::from_string(row.get(column)?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into()))
}

#[async_trait]
impl PropertyStore for SqliteProperties {
    async fn get(&self, user: UserId, key: String) -> Result<Option<Box<RawValue>>, StoreError> {
        self.db
            .read(move |tx| {
                let found = tx
                    .prepare_cached("SELECT value FROM users_properties WHERE user = ? AND key = ?")?
                    .query_row(params![user.as_bytes().as_slice(), key], |row| value(row, 0))
                    .optional()?;
                Ok(found)
            })
            .await
    }

    async fn all(&self, user: UserId) -> Result<BTreeMap<String, Box<RawValue>>, StoreError> {
        self.db
            .read(move |tx| {
                let mut query = tx.prepare_cached("SELECT key, value FROM users_properties WHERE user = ?")?;
                let rows = query.query_map([user.as_bytes().as_slice()], |row| Ok((row.get(0)?, value(row, 1)?)))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    async fn set(
        &self,
        user: UserId,
        key: String,
        value: Box<RawValue>,
        limit: u32,
        effects: Vec<Outgoing>,
    ) -> Result<SetOutcome, StoreError> {
        let outbox = self.outbox.traced();
        let appended = self
            .db
            .write(move |tx| {
                let user = user.as_bytes().as_slice();
                let others: u32 = tx
                    .prepare_cached("SELECT count(*) FROM users_properties WHERE user = ? AND key <> ?")?
                    .query_row(params![user, key], |row| row.get(0))?;
                if others >= limit {
                    return Ok(None);
                }
                tx.prepare_cached("INSERT OR REPLACE INTO users_properties (user, key, value) VALUES (?, ?, ?)")?
                    .execute(params![user, key, value.get()])?;
                outbox.append(tx, &effects).map(Some)
            })
            .await?;
        Ok(match appended {
            Some(appended) => SetOutcome::Set(self.outbox.committed(appended)),
            None => SetOutcome::TooMany,
        })
    }

    async fn remove(
        &self,
        user: UserId,
        key: Option<String>,
        effects: Vec<Outgoing>,
    ) -> Result<Option<Delivery>, StoreError> {
        let outbox = self.outbox.traced();
        let appended = self
            .db
            .write(move |tx| {
                let removed = tx
                    .prepare_cached("DELETE FROM users_properties WHERE user = ?1 AND (?2 IS NULL OR key = ?2)")?
                    .execute(params![user.as_bytes().as_slice(), key])?;
                if removed == 0 { Ok(None) } else { outbox.append(tx, &effects).map(Some) }
            })
            .await?;
        Ok(appended.map(|appended| self.outbox.committed(appended)))
    }
}
