//! Files in the embedded store.

use aldis_storage::{Db, Migration, StoreError};
use aldis_types::{AssetKey, Retention, Timestamp, UserId};
use async_trait::async_trait;
use rusqlite::{Row, params};
use uuid::Uuid;

use super::{Asset, AssetStore};
use crate::objects::token::TokenHash;

/// The tables of this service.
pub(crate) const MIGRATIONS: &[Migration] = &[Migration {
    name: "assets",
    sql: "CREATE TABLE assets_objects (
            id BLOB PRIMARY KEY NOT NULL,
            retention INTEGER NOT NULL,
            owner BLOB NOT NULL,
            state INTEGER NOT NULL,
            created INTEGER NOT NULL,
            expires INTEGER,
            size INTEGER NOT NULL,
            sha256 BLOB NOT NULL,
            media_type TEXT NOT NULL,
            token BLOB
        ) WITHOUT ROWID;
        CREATE INDEX assets_objects_by_end ON assets_objects (expires) WHERE expires IS NOT NULL;
        CREATE INDEX assets_objects_unsettled ON assets_objects (state, created) WHERE state <> 1;
        CREATE TABLE assets_cache (
            domain TEXT NOT NULL,
            id BLOB NOT NULL,
            retention INTEGER NOT NULL,
            file BLOB NOT NULL,
            size INTEGER NOT NULL,
            sha256 BLOB NOT NULL,
            media_type TEXT NOT NULL,
            expires INTEGER,
            fetched INTEGER NOT NULL,
            used INTEGER NOT NULL,
            PRIMARY KEY (domain, id, retention)
        ) WITHOUT ROWID;",
}];

/// Bytes are being written.
const UPLOADING: u8 = 0;
const VISIBLE: u8 = 1;
/// Bytes are to be removed.
const DOOMED: u8 = 2;

const GET: &str = "SELECT owner, token, media_type, size, sha256, expires FROM assets_objects \
    WHERE id = ?1 AND retention = ?2 AND state = 1 AND (expires IS NULL OR expires > ?3)";
const DOOMED_KEYS: &str = "SELECT id, retention FROM (
      SELECT id, retention FROM assets_objects WHERE state = 2
      UNION SELECT id, retention FROM assets_objects WHERE state = 0 AND created < ?2
      UNION SELECT id, retention FROM assets_objects WHERE expires IS NOT NULL AND expires <= ?1) LIMIT ?3";

const TABLE: &str = "assets_objects";

/// Files in the embedded store.
pub(crate) struct SqliteAssets(pub(crate) Db);

/// Reads a key from its two columns.
pub(crate) fn key(row: &Row<'_>, id: usize, retention: usize) -> Result<AssetKey, StoreError> {
    let retention = Retention::from_number(row.get(retention)?).ok_or(StoreError::Corrupt(TABLE))?;
    let id: [u8; 16] = row.get(id)?;
    Ok(AssetKey { retention, id: Uuid::from_bytes(id) })
}

fn asset(key: AssetKey, row: &Row<'_>) -> Result<Asset, StoreError> {
    let owner: [u8; 16] = row.get(0)?;
    let token: Option<[u8; 32]> = row.get(1)?;
    let media_type: String = row.get(2)?;
    let expires: Option<i64> = row.get(5)?;
    Ok(Asset {
        key,
        owner: UserId::new(Uuid::from_bytes(owner)),
        token: token.map(TokenHash),
        media_type: media_type.parse().map_err(|_| StoreError::Corrupt(TABLE))?,
        size: u64::try_from(row.get::<_, i64>(3)?).map_err(|_| StoreError::Corrupt(TABLE))?,
        sha256: row.get(4)?,
        expires: expires.map(Timestamp::from_millis),
    })
}

#[async_trait]
impl AssetStore for SqliteAssets {
    async fn begin(&self, key: AssetKey, owner: UserId, now: Timestamp) -> Result<(), StoreError> {
        self.0
            .write(move |tx| {
                let sql = "INSERT INTO assets_objects (id, retention, owner, state, created, size, sha256, media_type) \
                    VALUES (?, ?, ?, ?, ?, 0, x'', '')";
                tx.prepare_cached(sql)?.execute(params![
                    key.id.as_bytes(),
                    key.retention.number(),
                    owner.as_bytes(),
                    UPLOADING,
                    now.millis()
                ])?;
                Ok(())
            })
            .await
    }

    async fn publish(&self, asset: &Asset) -> Result<bool, StoreError> {
        let asset = asset.clone();
        self.0
            .write(move |tx| {
                let sql = "UPDATE assets_objects SET state = ?, expires = ?, size = ?, sha256 = ?, media_type = ?, token = ? \
                    WHERE id = ? AND state = ?";
                let changed = tx.prepare_cached(sql)?.execute(params![
                    VISIBLE,
                    asset.expires.map(Timestamp::millis),
                    i64::try_from(asset.size).unwrap_or(i64::MAX),
                    asset.sha256,
                    asset.media_type.as_str(),
                    asset.token.map(|token| token.0),
                    asset.key.id.as_bytes(),
                    UPLOADING
                ])?;
                Ok(changed > 0)
            })
            .await
    }

    async fn get(&self, key: AssetKey, now: Timestamp) -> Result<Option<Asset>, StoreError> {
        self.0
            .read(move |db| {
                let mut statement = db.prepare_cached(GET)?;
                let mut rows = statement.query(params![key.id.as_bytes(), key.retention.number(), now.millis()])?;
                rows.next()?.map(|row| asset(key, row)).transpose()
            })
            .await
    }

    async fn set_token(&self, key: AssetKey, token: Option<TokenHash>) -> Result<bool, StoreError> {
        self.0
            .write(move |tx| {
                let sql = "UPDATE assets_objects SET token = ? WHERE id = ? AND retention = ? AND state = ?";
                let mut statement = tx.prepare_cached(sql)?;
                let token = token.map(|token| token.0);
                Ok(statement.execute(params![token, key.id.as_bytes(), key.retention.number(), VISIBLE])? > 0)
            })
            .await
    }

    async fn doom(&self, key: AssetKey) -> Result<(), StoreError> {
        self.0
            .write(move |tx| {
                let sql = "UPDATE assets_objects SET state = ?, token = NULL WHERE id = ?";
                tx.prepare_cached(sql)?.execute(params![DOOMED, key.id.as_bytes()])?;
                Ok(())
            })
            .await
    }

    async fn doomed(&self, now: Timestamp, stale: Timestamp, limit: u32) -> Result<Vec<AssetKey>, StoreError> {
        self.0
            .read(move |db| {
                let mut statement = db.prepare_cached(DOOMED_KEYS)?;
                let mut rows = statement.query(params![now.millis(), stale.millis(), limit])?;
                let mut keys = Vec::new();
                while let Some(row) = rows.next()? {
                    keys.push(self::key(row, 0, 1)?);
                }
                Ok(keys)
            })
            .await
    }

    async fn forget(&self, key: AssetKey) -> Result<(), StoreError> {
        self.0
            .write(move |tx| {
                tx.prepare_cached("DELETE FROM assets_objects WHERE id = ?")?.execute([key.id.as_bytes()])?;
                Ok(())
            })
            .await
    }
}
