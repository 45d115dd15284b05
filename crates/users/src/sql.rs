//! Reading columns, for the `SQLite` engines of this crate.

use std::str::FromStr;

use aldis_types::{ClientId, Timestamp, UserId};
use rusqlite::{Connection, Row, params, types::Type};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::audit::AuditEntry;

type Result<T> = rusqlite::Result<T>;

/// Rows of a kind that one step of a sweep removes.
pub(crate) const SWEEP_STEP: i64 = 16;

/// A number of rows.
pub(crate) fn rows(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn corrupt(column: usize) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, "not a value of this column".into())
}

pub(crate) fn user_id(row: &Row<'_>, column: usize) -> Result<UserId> {
    Ok(UserId::new(Uuid::from_bytes(row.get(column)?)))
}

pub(crate) fn client_id(row: &Row<'_>, column: usize) -> Result<ClientId> {
    Ok(ClientId(row.get::<_, i64>(column)?.cast_unsigned()))
}

pub(crate) fn time(row: &Row<'_>, column: usize) -> Result<Timestamp> {
    row.get(column).map(Timestamp::from_millis)
}

pub(crate) fn parsed<T: FromStr>(row: &Row<'_>, column: usize) -> Result<T> {
    row.get_ref(column)?.as_str()?.parse().map_err(|_| corrupt(column))
}

pub(crate) fn parsed_option<T: FromStr>(row: &Row<'_>, column: usize) -> Result<Option<T>> {
    match row.get_ref(column)?.as_str_or_null()? {
        None => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| corrupt(column)),
    }
}

/// A column that holds JSON.
pub(crate) fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T> {
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(|_| corrupt(column))
}

/// A column that holds a value of an enum as its JSON text, without the quotes.
pub(crate) fn keyword<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    T::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text)).map_err(|_| corrupt(column))
}

/// The JSON text of a value, for a column.
pub(crate) fn to_json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// The JSON text of an enum's value without the quotes, for a column.
pub(crate) fn to_keyword(value: &impl serde::Serialize) -> Result<String> {
    let text = to_json(value)?;
    Ok(text.trim_matches('"').to_owned())
}

/// Whether there was an account that has been deleted.
pub(crate) fn is_deleted(tx: &Connection, user: UserId) -> Result<bool> {
    tx.prepare_cached("SELECT 1 FROM users_accounts WHERE id = ? AND deleted = 1")?.exists([user.as_bytes().as_slice()])
}

/// Writes an audit record inside the job of the change that it is about.
pub(crate) fn audit(tx: &Connection, entry: &AuditEntry, now: Timestamp) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO users_audit (time, actor, who, action, subject, detail, outcome) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        now.millis(),
        entry.actor,
        entry.who,
        entry.action,
        entry.subject,
        entry.detail,
        entry.outcome
    ])?;
    Ok(())
}
