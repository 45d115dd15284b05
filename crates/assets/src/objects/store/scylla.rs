//! Files on a cluster: one row each, and an index by time of what is to be removed.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use aldis_runtime::SharedClock;
use aldis_storage::{
    StoreError,
    cql::{Cql, CqlMigration, Statement},
};
use aldis_types::{AssetKey, Retention, Timestamp, UserId};
use async_trait::async_trait;
use uuid::Uuid;

use super::{Asset, AssetStore};
use crate::objects::token::TokenHash;

/// The tables of this service on a cluster.
pub(crate) const MIGRATIONS: &[CqlMigration] =
    &[CqlMigration { name: "objects", cql: include_str!("../../../migrations/001-objects.cql") }];

const BEGIN: Statement = Statement::decide(
    "assets.objects.begin",
    "INSERT INTO assets_objects (id, retention, owner, state, created) VALUES (?, ?, ?, 0, ?) IF NOT EXISTS",
);
const PUBLISH: Statement = Statement::decide(
    "assets.objects.publish",
    "UPDATE assets_objects SET state = 1, expires = ?, size = ?, sha256 = ?, media_type = ?, \"token\" = ? \
     WHERE id = ? IF state = 0",
);
const GET: Statement = Statement::read(
    "assets.objects.get",
    "SELECT owner, \"token\", media_type, size, sha256, expires, retention, state FROM assets_objects WHERE id = ?",
);
const FATE: Statement = Statement::read_latest(
    "assets.objects.fate",
    "SELECT state, created, expires, doomed, owner FROM assets_objects WHERE id = ?",
);
const TOKEN: Statement = Statement::decide(
    "assets.objects.token",
    "UPDATE assets_objects SET \"token\" = ? WHERE id = ? IF retention = ? AND state = 1",
);
const DOOM: Statement = Statement::decide(
    "assets.objects.doom",
    "UPDATE assets_objects SET state = 2, \"token\" = null, doomed = ? WHERE id = ? IF EXISTS",
);
const FORGET: Statement =
    Statement::decide("assets.objects.forget", "DELETE FROM assets_objects WHERE id = ? IF EXISTS");
const DUE: Statement = Statement::write(
    "assets.due.put",
    "INSERT INTO assets_due (kind, hour, shard, at, id, retention) VALUES (?, ?, ?, ?, ?, ?)",
);
const DUE_LIST: Statement = Statement::read(
    "assets.due.list",
    "SELECT at, id, retention FROM assets_due WHERE kind = ? AND hour = ? AND shard = ? AND at <= ? LIMIT ?",
);
const DUE_DONE: Statement = Statement::write(
    "assets.due.done",
    "DELETE FROM assets_due WHERE kind = ? AND hour = ? AND shard = ? AND at = ? AND id = ?",
);
const HOUR: Statement = Statement::write("assets.hours.put", "INSERT INTO assets_hours (kind, hour) VALUES (?, ?)");
const HOURS: Statement =
    Statement::read("assets.hours.list", "SELECT hour FROM assets_hours WHERE kind = ? AND hour <= ? LIMIT 1000");
const HOUR_DONE: Statement =
    Statement::write("assets.hours.done", "DELETE FROM assets_hours WHERE kind = ? AND hour = ?");

const STATEMENTS: &[Statement] =
    &[BEGIN, PUBLISH, GET, FATE, TOKEN, DOOM, FORGET, DUE, DUE_LIST, DUE_DONE, HOUR, HOURS, HOUR_DONE];

const UPLOADING: i32 = 0;
const VISIBLE: i32 = 1;
const DOOMED: i32 = 2;

/// Partitions of an hour.
const SHARDS: i32 = 8;
const HOUR_MILLIS: i64 = 3_600_000;
/// Hours that are remembered as noted.
const MAX_NOTED: usize = 10_000;
const TABLE: &str = "assets_objects";

/// What the index leads to; its number is also the state that a file must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Kind(i32);

/// State, when it began, expires and was doomed, and whose it is.
type Fate = (Option<i32>, Option<i64>, Option<i64>, Option<i64>, Option<Uuid>);
type Row = (
    Option<Uuid>,
    Option<Vec<u8>>,
    Option<String>,
    Option<i64>,
    Option<Vec<u8>>,
    Option<i64>,
    Option<i32>,
    Option<i32>,
);

/// Files on a cluster.
pub(crate) struct ScyllaAssets {
    cql: Cql,
    clock: SharedClock,
    /// Hours that are in the table of hours already.
    noted: Mutex<HashSet<(Kind, i64)>>,
}

fn retention_column(key: AssetKey) -> i32 {
    i32::from(key.retention.number())
}

fn shard(id: Uuid) -> i32 {
    i32::from(id.as_bytes()[15]) % SHARDS
}

fn asset(key: AssetKey, row: Row) -> Result<Asset, StoreError> {
    let (owner, token, media_type, size, sha256, expires, ..) = row;
    let corrupt = || StoreError::Corrupt(TABLE);
    let hash = |bytes: Vec<u8>| <[u8; 32]>::try_from(bytes).map_err(|_| corrupt());
    Ok(Asset {
        key,
        owner: UserId::new(owner.ok_or_else(corrupt)?),
        token: token.map(hash).transpose()?.map(TokenHash),
        media_type: media_type.ok_or_else(corrupt)?.parse().map_err(|_| corrupt())?,
        size: size.and_then(|size| u64::try_from(size).ok()).ok_or_else(corrupt)?,
        sha256: hash(sha256.ok_or_else(corrupt)?)?,
        expires: expires.map(Timestamp::from_millis),
    })
}

impl ScyllaAssets {
    /// Opens them; the tables must be there.
    pub(crate) async fn open(cql: Cql, clock: SharedClock) -> Result<Self, StoreError> {
        cql.prepare(STATEMENTS).await?;
        Ok(Self { cql, clock, noted: Mutex::default() })
    }

    async fn fate(&self, key: AssetKey) -> Result<Option<Fate>, StoreError> {
        self.cql.row(&FATE, (key.id,)).await
    }

    /// Puts a file into the index, before what makes it belong there.
    async fn put_due(&self, kind: Kind, at: i64, key: AssetKey) -> Result<(), StoreError> {
        let hour = at.div_euclid(HOUR_MILLIS);
        let noted = || self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let known = noted().contains(&(kind, hour));
        if !known {
            self.cql.write(&HOUR, (kind.0, hour)).await?;
            let mut noted = noted();
            if noted.len() >= MAX_NOTED {
                noted.clear();
            }
            noted.insert((kind, hour));
        }
        self.cql.write(&DUE, (kind.0, hour, shard(key.id), at, key.id, retention_column(key))).await
    }

    async fn due_done(&self, kind: Kind, at: i64, id: Uuid) -> Result<(), StoreError> {
        self.cql.write(&DUE_DONE, (kind.0, at.div_euclid(HOUR_MILLIS), shard(id), at, id)).await
    }

    /// Adds files of one kind up to a time; rows that lead nowhere are removed.
    async fn add_due(&self, kind: Kind, until: i64, limit: usize, keys: &mut Vec<AssetKey>) -> Result<(), StoreError> {
        let last_hour = until.div_euclid(HOUR_MILLIS);
        for (hour,) in self.cql.rows::<(i64,)>(&HOURS, (kind.0, last_hour)).await? {
            let mut found = 0;
            for shard in 0..SHARDS {
                let most = i32::try_from(limit.saturating_sub(keys.len())).unwrap_or(i32::MAX);
                if most == 0 {
                    return Ok(());
                }
                let values = (kind.0, hour, shard, until, most);
                for (at, id, retention) in self.cql.rows::<(i64, Uuid, i32)>(&DUE_LIST, values).await? {
                    found += 1;
                    let retention = u8::try_from(retention).ok().and_then(Retention::from_number);
                    let key = AssetKey { retention: retention.ok_or(StoreError::Corrupt("assets_due"))?, id };
                    if leads_to(kind, at, self.fate(key).await?) {
                        if !keys.contains(&key) {
                            keys.push(key);
                        }
                    } else {
                        self.due_done(kind, at, id).await?;
                    }
                }
            }
            // Nothing is put into an hour that is over, nor into the last one by a clock that is late.
            let over = hour < self.clock.now().millis().div_euclid(HOUR_MILLIS) - 2;
            if found == 0 && hour < last_hour && over {
                self.cql.write(&HOUR_DONE, (kind.0, hour)).await?;
            }
        }
        Ok(())
    }
}

/// Whether a row of the index says what is so.
fn leads_to(kind: Kind, at: i64, fate: Option<Fate>) -> bool {
    let Some((state, created, expires, doomed, _)) = fate else { return false };
    let time = match kind.0 {
        UPLOADING => created,
        VISIBLE => expires,
        _ => doomed,
    };
    state == Some(kind.0) && time == Some(at)
}

#[async_trait]
impl AssetStore for ScyllaAssets {
    async fn begin(&self, key: AssetKey, owner: UserId, now: Timestamp) -> Result<(), StoreError> {
        self.put_due(Kind(UPLOADING), now.millis(), key).await?;
        let values = (key.id, retention_column(key), owner.uuid(), now.millis());
        match self.cql.decide(&BEGIN, values).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::Contended(TABLE)),
            Err(error) if error.is_unsure() => {
                let fate = self.fate(key).await?;
                let ours = |(state, .., whose): Fate| state == Some(UPLOADING) && whose == Some(owner.uuid());
                if fate.is_some_and(ours) { Ok(()) } else { Err(error) }
            }
            Err(error) => Err(error),
        }
    }

    async fn publish(&self, asset: &Asset) -> Result<bool, StoreError> {
        let expires = asset.expires.map(Timestamp::millis);
        if let Some(at) = expires {
            self.put_due(Kind(VISIBLE), at, asset.key).await?;
        }
        let size = i64::try_from(asset.size).unwrap_or(i64::MAX);
        let token = asset.token.map(|token| token.0.to_vec());
        let sha256 = asset.sha256.to_vec();
        let values = (expires, size, sha256, asset.media_type.as_str(), token, asset.key.id);
        let published = match self.cql.decide(&PUBLISH, values).await {
            // Only the one who began it publishes it.
            Err(error) if error.is_unsure() => self.fate(asset.key).await?.is_some_and(|fate| fate.0 == Some(VISIBLE)),
            outcome => outcome?,
        };
        if published && let Some((_, Some(created), ..)) = self.fate(asset.key).await? {
            self.due_done(Kind(UPLOADING), created, asset.key.id).await?;
        }
        Ok(published)
    }

    async fn get(&self, key: AssetKey, now: Timestamp) -> Result<Option<Asset>, StoreError> {
        let Some(row) = self.cql.row::<Row>(&GET, (key.id,)).await? else { return Ok(None) };
        let alive = row.5.is_none_or(|expires| expires > now.millis());
        let visible = row.7 == Some(VISIBLE) && row.6 == Some(retention_column(key));
        if visible && alive { asset(key, row).map(Some) } else { Ok(None) }
    }

    async fn set_token(&self, key: AssetKey, token: Option<TokenHash>) -> Result<bool, StoreError> {
        let token = token.map(|token| token.0.to_vec());
        let values = (token, key.id, retention_column(key));
        match self.cql.decide(&TOKEN, values.clone()).await {
            // Done once more it says the same.
            Err(error) if error.is_unsure() => self.cql.decide(&TOKEN, values).await,
            outcome => outcome,
        }
    }

    async fn doom(&self, key: AssetKey) -> Result<(), StoreError> {
        let at = self.clock.now().millis();
        self.put_due(Kind(DOOMED), at, key).await?;
        match self.cql.decide(&DOOM, (at, key.id)).await {
            Err(error) if error.is_unsure() => self.cql.decide(&DOOM, (at, key.id)).await.map(drop),
            outcome => outcome.map(drop),
        }
    }

    async fn doomed(&self, now: Timestamp, stale: Timestamp, limit: u32) -> Result<Vec<AssetKey>, StoreError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut keys = Vec::new();
        self.add_due(Kind(DOOMED), i64::MAX, limit, &mut keys).await?;
        self.add_due(Kind(UPLOADING), stale.millis().saturating_sub(1), limit, &mut keys).await?;
        self.add_due(Kind(VISIBLE), now.millis(), limit, &mut keys).await?;
        Ok(keys)
    }

    async fn forget(&self, key: AssetKey) -> Result<(), StoreError> {
        let Some((_, created, expires, doomed, _)) = self.fate(key).await? else { return Ok(()) };
        match self.cql.decide(&FORGET, (key.id,)).await {
            Err(error) if error.is_unsure() => self.cql.decide(&FORGET, (key.id,)).await.map(drop)?,
            outcome => outcome.map(drop)?,
        }
        for (kind, at) in [(UPLOADING, created), (VISIBLE, expires), (DOOMED, doomed)] {
            if let Some(at) = at {
                self.due_done(Kind(kind), at, key.id).await?;
            }
        }
        Ok(())
    }
}
