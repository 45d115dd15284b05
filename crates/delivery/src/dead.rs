//! Rows that a peer refused for good: kept for an operator to look at, within bounds.

use std::time::Duration;

use aldis_storage::{Db, StoreError};
use aldis_types::Timestamp;
use rusqlite::{Connection, params};

/// Dead letters are kept for so long.
pub const DEAD_LETTER_AGE: Duration = Duration::from_secs(90 * 86_400);
/// Bytes of dead letters that are kept per component; beyond that the oldest go.
pub const DEAD_LETTER_BYTES: i64 = 64 << 20;

/// Rows of one step.
const STEP: i64 = 16;

/// The bounds that a sweep brings about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Letters that died before this time go.
    pub(crate) before: Timestamp,
    /// The oldest go until no more than this is left.
    pub(crate) bytes: i64,
}

impl Bounds {
    pub(crate) fn at(now: Timestamp) -> Self {
        let age = i64::try_from(DEAD_LETTER_AGE.as_millis()).unwrap_or(i64::MAX);
        Self { before: Timestamp::from_millis(now.millis().saturating_sub(age)), bytes: DEAD_LETTER_BYTES }
    }
}

/// Removes dead letters that are too old or too many, in short jobs; says how many went.
pub(crate) async fn sweep(db: &Db, component: &'static str, bounds: Bounds) -> Result<u64, StoreError> {
    let removed = db.write_in_turns(move |tx| step(tx, component, bounds)).await?;
    if removed > 0 {
        tracing::warn!(component, rows = removed, "dead letters were forgotten");
    }
    metrics::counter!("aldis_outbox_dead_letters_forgotten_total", "component" => component).increment(removed);
    Ok(removed)
}

/// Removes some letters that are too old, or, when there are none, some of the oldest if too many bytes are kept.
fn step(tx: &Connection, component: &str, bounds: Bounds) -> Result<usize, StoreError> {
    let table = format!("{component}_outbox_dead");
    let mut old = tx.prepare_cached(&format!(
        "DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE died < ? ORDER BY died LIMIT ?)"
    ))?;
    let rows = old.execute(params![bounds.before.millis(), STEP])?;
    if rows > 0 {
        return Ok(rows);
    }
    let mut size = tx.prepare_cached(&format!("SELECT coalesce(sum(length(body)), 0) FROM {table}"))?;
    if size.query_row([], |row| row.get::<_, i64>(0))? <= bounds.bytes {
        return Ok(0);
    }
    // Numbers rise with time, so the smallest are the oldest.
    let mut oldest =
        tx.prepare_cached(&format!("DELETE FROM {table} WHERE id IN (SELECT id FROM {table} ORDER BY id LIMIT ?)"))?;
    Ok(oldest.execute([STEP])?)
}

#[cfg(test)]
mod tests {
    use aldis_storage::{DbOptions, Migration};

    use super::*;

    const TABLES: &[Migration] = &[
        Migration { name: "outbox", sql: crate::schema!("users") },
        Migration { name: "ages", sql: crate::schema_ages!("users") },
    ];

    #[tokio::test]
    async fn dead_letters_go_by_age_and_by_size() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("aldis.db"), &DbOptions::default()).unwrap();
        db.migrate("users", TABLES).await.unwrap();
        db.write(|tx| {
            for id in 0..100_i64 {
                tx.execute(
                    "INSERT INTO users_outbox_dead (id, peer, lane, sequence, kind, body, created, reason, died) \
                     VALUES (?1, 'beta.test', x'', ?1, 10, zeroblob(1000), 0, 'no', ?1)",
                    [id],
                )?;
            }
            Ok(())
        })
        .await
        .unwrap();
        let left = || {
            db.read(|tx| {
                Ok(tx.query_row("SELECT count(*), min(id) FROM users_outbox_dead", [], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
                })?)
            })
        };
        let bounds = |before, bytes| Bounds { before: Timestamp::from_millis(before), bytes };
        assert_eq!(sweep(&db, "users", bounds(0, 100_000)).await.unwrap(), 0);
        assert_eq!(sweep(&db, "users", bounds(40, 100_000)).await.unwrap(), 40);
        assert_eq!(left().await.unwrap(), (60, 40));
        assert_eq!(sweep(&db, "users", bounds(40, 50_000)).await.unwrap(), 16, "whole steps");
        assert_eq!(left().await.unwrap(), (44, 56));
    }
}
