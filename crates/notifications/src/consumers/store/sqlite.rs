//! Standings in the embedded store, beside the queues: whoever drops an event there marks here who misses it.

use aldis_storage::StoreError;
use aldis_types::{ClientId, UserId};
use async_trait::async_trait;
use rusqlite::{OptionalExtension, params};

use super::{ConsumerStore, Standing};
use crate::queues::store::SqliteQueues;

const OPEN: &str = "INSERT INTO notifications_consumer (user, client, floor, missed) VALUES (?, ?, ?, 0) \
    ON CONFLICT (user, client) DO NOTHING";
const STANDING: &str = "SELECT floor, missed FROM notifications_consumer WHERE user = ? AND client = ?";
const ACKNOWLEDGED: &str = "SELECT tick FROM notifications_acknowledged WHERE user = ? AND client = ? ORDER BY tick";
const RAISE: &str = "UPDATE notifications_consumer SET floor = max(floor, ?3) WHERE user = ?1 AND client = ?2";
const ADD: &str = "INSERT INTO notifications_acknowledged (user, client, tick) VALUES (?, ?, ?) ON CONFLICT DO NOTHING";
const LOWER: &str = "DELETE FROM notifications_acknowledged WHERE user = ? AND client = ? AND tick <= ?";
const KNOWS: &str = "UPDATE notifications_consumer SET missed = 0 WHERE user = ? AND client = ?";

/// Ticks have 60 bits.
fn column(tick: u64) -> i64 {
    i64::try_from(tick).unwrap_or(i64::MAX)
}

#[async_trait]
impl ConsumerStore for SqliteQueues {
    async fn open(&self, user: UserId, client: ClientId) -> Result<(), StoreError> {
        let newest = self.newest_tick();
        self.db()
            .write(move |tx| {
                // In the writer: every event that is committed later has a greater tick.
                let floor = column(newest());
                tx.prepare_cached(OPEN)?.execute(params![user.as_bytes(), client.0.cast_signed(), floor])?;
                Ok(())
            })
            .await
    }

    async fn standing(&self, user: UserId, client: ClientId) -> Result<Option<Standing>, StoreError> {
        self.db()
            .read(move |tx| {
                let key = params![user.as_bytes(), client.0.cast_signed()];
                let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get(1)?));
                let Some((floor, missed)) = tx.prepare_cached(STANDING)?.query_row(key, row).optional()? else {
                    return Ok(None);
                };
                let mut statement = tx.prepare_cached(ACKNOWLEDGED)?;
                let ticks = statement.query_map(key, |row| row.get::<_, i64>(0))?;
                let acknowledged = ticks.map(|tick| tick.map(i64::cast_unsigned)).collect::<Result<_, _>>()?;
                Ok(Some(Standing { floor: floor.cast_unsigned(), acknowledged, missed }))
            })
            .await
    }

    async fn acknowledge(&self, user: UserId, client: ClientId, floor: u64, above: Vec<u64>) -> Result<(), StoreError> {
        self.db()
            .write(move |tx| {
                let (user, client) = (user.as_bytes(), client.0.cast_signed());
                if tx.prepare_cached(RAISE)?.execute(params![user, client, column(floor)])? == 0 {
                    // Forgotten meanwhile.
                    return Ok(());
                }
                let mut add = tx.prepare_cached(ADD)?;
                for tick in above {
                    add.execute(params![user, client, column(tick)])?;
                }
                tx.prepare_cached(LOWER)?.execute(params![user, client, column(floor)])?;
                Ok(())
            })
            .await
    }

    async fn knows(&self, user: UserId, client: ClientId) -> Result<(), StoreError> {
        self.db()
            .write(move |tx| {
                tx.prepare_cached(KNOWS)?.execute(params![user.as_bytes(), client.0.cast_signed()])?;
                Ok(())
            })
            .await
    }

    async fn forget(&self, user: UserId, client: Option<ClientId>) -> Result<(), StoreError> {
        self.db()
            .write(move |tx| {
                for table in ["notifications_consumer", "notifications_acknowledged"] {
                    let sql = format!("DELETE FROM {table} WHERE user = ?1 AND (?2 IS NULL OR client = ?2)");
                    let client = client.map(|client| client.0.cast_signed());
                    tx.prepare_cached(&sql)?.execute(params![user.as_bytes(), client])?;
                }
                if client.is_none() {
                    tx.prepare_cached("DELETE FROM notifications_gaps WHERE user = ?")?.execute([user.as_bytes()])?;
                }
                Ok(())
            })
            .await
    }
}
