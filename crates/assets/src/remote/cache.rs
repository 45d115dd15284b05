//! Copies of files of other backends, bounded in bytes and age. The index is in memory and in the store; the copies are
//! plain files, and one that is not in the index is removed at the start.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aldis_runtime::SharedClock;
use aldis_storage::{Db, StoreError};
use aldis_types::{AssetKey, Domain, Qualified, Timestamp};
use rusqlite::{Row, params};
use uuid::Uuid;

use super::Head;
use crate::{blobs::directory, config::CacheConfig, objects::store::key};

type Name = Qualified<AssetKey>;

/// Most copies, however small.
const MAX_COPIES: usize = 200_000;
/// Copies removed in one step.
const STEP: usize = 64;

/// A copy.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) file: Uuid,
    pub(crate) head: Head,
    fetched: Timestamp,
    used: Timestamp,
    /// When its owner was last asked, as far as this process knows.
    asked: Timestamp,
}

#[derive(Default)]
struct Index {
    entries: HashMap<Name, Entry>,
    bytes: u64,
}

impl Index {
    fn remove(&mut self, name: &Name) -> Option<Entry> {
        let entry = self.entries.remove(name)?;
        self.bytes = self.bytes.saturating_sub(entry.head.size);
        Some(entry)
    }

    fn insert(&mut self, name: Name, entry: Entry) -> Option<Entry> {
        let old = self.remove(&name);
        self.bytes += entry.head.size;
        self.entries.insert(name, entry);
        old
    }
}

/// The copies. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cache {
    folder: Arc<Path>,
    db: Db,
    clock: SharedClock,
    max_bytes: u64,
    max_age: Duration,
    recheck: Duration,
    index: Arc<Mutex<Index>>,
}

const TABLE: &str = "assets_cache";
const ALL: &str =
    "SELECT domain, id, retention, file, size, sha256, media_type, expires, fetched, used FROM assets_cache";
const INSERT: &str = "INSERT INTO assets_cache (domain, id, retention, file, size, sha256, media_type, expires, fetched, \
    used) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (domain, id, retention) DO UPDATE SET file = excluded.file, \
    size = excluded.size, sha256 = excluded.sha256, media_type = excluded.media_type, expires = excluded.expires, \
    fetched = excluded.fetched, used = excluded.used";
const DELETE: &str = "DELETE FROM assets_cache WHERE domain = ? AND id = ? AND retention = ? AND file = ?";
const CLEAR: &str = "DELETE FROM assets_cache WHERE (domain, id, retention) IN \
    (SELECT domain, id, retention FROM assets_cache LIMIT 64)";

fn row(row: &Row<'_>) -> Result<(Name, Entry), StoreError> {
    let text = |index: usize| row.get::<_, String>(index);
    let millis = |index: usize| Ok::<_, StoreError>(Timestamp::from_millis(row.get(index)?));
    let domain: Domain = text(0)?.parse().map_err(|_| StoreError::Corrupt(TABLE))?;
    let expires: Option<i64> = row.get(7)?;
    let head = Head {
        size: u64::try_from(row.get::<_, i64>(4)?).map_err(|_| StoreError::Corrupt(TABLE))?,
        sha256: row.get(5)?,
        media_type: text(6)?.parse().map_err(|_| StoreError::Corrupt(TABLE))?,
        expires: expires.map(Timestamp::from_millis),
    };
    let file: [u8; 16] = row.get(3)?;
    let (fetched, used) = (millis(8)?, millis(9)?);
    let entry = Entry { file: Uuid::from_bytes(file), head, fetched, used, asked: used };
    Ok((Qualified::new(key(row, 1, 2)?, domain), entry))
}

impl Cache {
    /// Opens the folder, and removes what is not in the index. With a cache that is turned off nothing stays.
    pub(crate) async fn open(
        folder: PathBuf,
        config: &CacheConfig,
        db: Db,
        clock: SharedClock,
    ) -> Result<Self, StoreError> {
        directory::make_folder(&folder).await?;
        let enabled = config.enabled;
        let found = db
            .read(move |db| {
                let mut statement = db.prepare(ALL)?;
                let mut rows = statement.query([])?;
                let mut index = Index::default();
                while let Some(found) = rows.next()? {
                    let (name, entry) = row(found)?;
                    index.insert(name, entry);
                }
                Ok(index)
            })
            .await?;
        let index = if enabled { found } else { Index::default() };
        if !enabled {
            db.write_in_turns(|tx| Ok(tx.prepare_cached(CLEAR)?.execute([])?)).await?;
        }
        let known: std::collections::HashSet<String> =
            index.entries.values().map(|entry| entry.file.to_string()).collect();
        directory::clear(&folder, |name| known.contains(name)).await?;
        let cache = Self {
            folder: folder.into(),
            db,
            clock,
            max_bytes: config.max_mib.saturating_mul(1 << 20),
            max_age: Duration::from_secs(config.max_age_seconds),
            recheck: Duration::from_secs(config.recheck_seconds),
            index: Arc::new(Mutex::new(index)),
        };
        cache.make_room(0).await?;
        cache.gauge();
        Ok(cache)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the file of a copy, or of a transfer, lies.
    pub(crate) fn path(&self, file: Uuid) -> PathBuf {
        self.folder.join(file.to_string())
    }

    fn is_old(&self, entry: &Entry, now: Timestamp) -> bool {
        now.since(entry.fetched) >= self.max_age || entry.head.expires.is_some_and(|end| end <= now)
    }

    /// The copy of this name, unless it is too old.
    pub(crate) fn get(&self, name: &Name) -> Option<Entry> {
        let now = self.clock.now();
        let mut index = self.index();
        let entry = index.entries.get_mut(name)?;
        if self.is_old(entry, now) {
            return None;
        }
        entry.used = now;
        entry.asked = now;
        Some(entry.clone())
    }

    /// Copies whose owners were not asked for so long that it is time; whoever takes them asks.
    pub(crate) fn due(&self, most: usize) -> Vec<(Name, Entry)> {
        let now = self.clock.now();
        let mut index = self.index();
        let due = index.entries.iter_mut().filter(|(_, entry)| now.since(entry.asked) >= self.recheck).take(most);
        due.map(|(name, entry)| {
            entry.asked = now;
            (name.clone(), entry.clone())
        })
        .collect()
    }

    /// Keeps a file under this name. `false` when it is too large to be kept.
    pub(crate) async fn insert(&self, name: &Name, file: Uuid, head: Head) -> Result<bool, StoreError> {
        if head.size > self.max_bytes {
            return Ok(false);
        }
        self.make_room(head.size).await?;
        let now = self.clock.now();
        let entry = Entry { file, head, fetched: now, used: now, asked: now };
        let (row, row_name) = (entry.clone(), name.clone());
        self.db
            .write(move |tx| {
                tx.prepare_cached(INSERT)?.execute(params![
                    row_name.domain.as_str(),
                    row_name.id.id.as_bytes(),
                    row_name.id.retention.number(),
                    row.file.as_bytes(),
                    i64::try_from(row.head.size).unwrap_or(i64::MAX),
                    row.head.sha256,
                    row.head.media_type.as_str(),
                    row.head.expires.map(Timestamp::millis),
                    row.fetched.millis(),
                    row.used.millis()
                ])?;
                Ok(())
            })
            .await?;
        let old = self.index().insert(name.clone(), entry);
        if let Some(old) = old {
            directory::remove(&self.path(old.file)).await?;
        }
        self.gauge();
        Ok(true)
    }

    /// Drops the copy of this name, if it still is this file.
    pub(crate) async fn evict(&self, name: &Name, file: Uuid) -> Result<(), StoreError> {
        let is_it = self.index().entries.get(name).is_some_and(|entry| entry.file == file);
        if is_it { self.drop_all(vec![(name.clone(), file)]).await } else { Ok(()) }
    }

    /// Drops copies: from the index first, so that nobody finds what is about to go.
    async fn drop_all(&self, gone: Vec<(Name, Uuid)>) -> Result<(), StoreError> {
        {
            let mut index = self.index();
            for (name, _) in &gone {
                index.remove(name);
            }
        }
        for (_, file) in &gone {
            directory::remove(&self.path(*file)).await?;
        }
        metrics::counter!("aldis_assets_cache_evicted_total").increment(gone.len() as u64);
        self.gauge();
        self.db
            .write(move |tx| {
                let mut statement = tx.prepare_cached(DELETE)?;
                for (name, file) in &gone {
                    let (id, retention) = (name.id.id.as_bytes(), name.id.retention.number());
                    statement.execute(params![name.domain.as_str(), id, retention, file.as_bytes()])?;
                }
                Ok(())
            })
            .await
    }

    /// Drops what was not read for longest until `bytes` more fit.
    async fn make_room(&self, bytes: u64) -> Result<(), StoreError> {
        loop {
            let gone = self.surplus(bytes);
            if gone.is_empty() {
                return Ok(());
            }
            self.drop_all(gone).await?;
        }
    }

    fn surplus(&self, bytes: u64) -> Vec<(Name, Uuid)> {
        let index = self.index();
        let mut excess = (index.bytes + bytes).saturating_sub(self.max_bytes);
        let too_many = index.entries.len() >= MAX_COPIES;
        if excess == 0 && !too_many {
            return Vec::new();
        }
        let mut by_use: Vec<_> = index.entries.iter().collect();
        if by_use.len() > STEP {
            // Only the first ones matter; there may be very many.
            by_use.select_nth_unstable_by_key(STEP, |(_, entry)| entry.used);
            by_use.truncate(STEP);
        }
        by_use.sort_by_key(|(_, entry)| entry.used);
        let mut gone = Vec::new();
        for (name, entry) in by_use {
            if excess == 0 && !gone.is_empty() {
                break;
            }
            excess = excess.saturating_sub(entry.head.size);
            gone.push((name.clone(), entry.file));
        }
        gone
    }

    /// Drops copies that are too old.
    pub(crate) async fn sweep(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        loop {
            let gone: Vec<_> = {
                let index = self.index();
                let old = index.entries.iter().filter(|(_, entry)| self.is_old(entry, now));
                old.take(STEP).map(|(name, entry)| (name.clone(), entry.file)).collect()
            };
            if gone.is_empty() {
                return Ok(());
            }
            self.drop_all(gone).await?;
        }
    }

    fn gauge(&self) {
        #[allow(clippy::cast_precision_loss)] // a metric
        let (copies, bytes) = {
            let index = self.index();
            (index.entries.len() as f64, index.bytes as f64)
        };
        metrics::gauge!("aldis_assets_cache_copies").set(copies);
        metrics::gauge!("aldis_assets_cache_bytes").set(bytes);
    }
}
