//! Copies of a store: made while it is in use, and put in its place again.
//!
//! A store that was restored is another one for everybody who knew it: it holds a number for each restore, by which every
//! service notices when it starts, and does its part.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use aldis_types::{Domain, Timestamp};
use rusqlite::{Connection, OpenFlags, OptionalExtension, backup::Backup, params};

use crate::{Db, StoreError};

/// Pages of 8 KiB that are copied at a time, and the pause in between, in which others write.
const PAGES: i32 = 1024;
const PAUSE: Duration = Duration::from_millis(5);

const RESTORES: &str = "CREATE TABLE IF NOT EXISTS store_restores \
    (number INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL, time INTEGER NOT NULL)";

/// Why a backup was not put in the place of a store; the store is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup cannot be read, or the copy not be written.
    #[error("the backup cannot be copied: {0}")]
    Copy(#[source] StoreError),
    /// It is not a store, or a damaged one.
    #[error("the backup is not a whole store: {0}")]
    Damaged(String),
    /// It is another backend's.
    #[error("the backup belongs to the domain `{0}`")]
    OtherDomain(String),
    /// The files could not be exchanged.
    #[error("the files cannot be exchanged: {0}")]
    Exchange(#[from] std::io::Error),
}

impl From<rusqlite::Error> for RestoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Copy(error.into())
    }
}

/// Copies a store, which may be in use, to a file that must not exist yet. The copy is of one moment, and whole: nothing
/// beside it belongs to it.
pub fn copy(store: &Path, to: &Path) -> Result<(), StoreError> {
    let source = Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    source.busy_timeout(Duration::from_secs(10))?;
    drop(fs::OpenOptions::new().write(true).create_new(true).open(to)?);
    fs::set_permissions(to, fs::Permissions::from_mode(0o600))?;
    let mut target = Connection::open(to)?;
    Backup::new(&source, &mut target)?.run_to_completion(PAGES, PAUSE, None)?;
    // One file, whatever the source was.
    target.pragma_update(None, "journal_mode", "DELETE")?;
    target.close().map_err(|(_, error)| error)?;
    fs::File::open(to)?.sync_all()?;
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Puts a copy of `backup` in the place of `store`, which no process may have open; the caller holds every lock. Gives the
/// name under which the store that was there is kept, with its write-ahead log; `None` when there was none.
///
/// `id` must never have been used before. A crash leaves the store that was there, or the restored one.
pub fn restore(
    backup: &Path,
    store: &Path,
    domain: &Domain,
    id: [u8; 16],
    now: Timestamp,
) -> Result<Option<PathBuf>, RestoreError> {
    let fresh = beside(store, ".restoring");
    for leftover in ["", "-wal", "-shm", "-journal"] {
        if let Err(error) = fs::remove_file(beside(&fresh, leftover))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error.into());
        }
    }
    copy(backup, &fresh).map_err(RestoreError::Copy)?;
    note(&fresh, domain, id, now)?;
    let kept = beside(store, &format!(".before-restore-{}", now.millis()));
    let existed = match fs::hard_link(store, &kept) {
        Ok(()) => true,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(error.into()),
    };
    for part in ["-wal", "-shm"] {
        match fs::rename(beside(store, part), beside(&kept, part)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    fs::rename(&fresh, store)?;
    if let Some(folder) = store.parent() {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(existed.then_some(kept))
}

/// Checks that a copy is a whole store of this backend, and notes in it that it is a restored one.
fn note(copy: &Path, domain: &Domain, id: [u8; 16], now: Timestamp) -> Result<(), RestoreError> {
    let connection = Connection::open(copy)?;
    let check = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    let check = check.map_err(|error| RestoreError::Damaged(error.to_string()))?;
    if check != "ok" {
        return Err(RestoreError::Damaged(check));
    }
    let found = connection.query_row("SELECT domain FROM store_domain", [], |row| row.get::<_, String>(0)).optional();
    match found {
        Ok(Some(found)) if found == domain.as_str() => {}
        Ok(Some(found)) => return Err(RestoreError::OtherDomain(found)),
        Ok(None) | Err(_) => return Err(RestoreError::Damaged("it names no domain".to_owned())),
    }
    connection.execute_batch(RESTORES)?;
    connection
        .execute("INSERT INTO store_restores (id, time) VALUES (?1, ?2)", params![id.as_slice(), now.millis()])?;
    connection.close().map_err(|(_, error)| error)?;
    fs::File::open(copy)?.sync_all()?;
    Ok(())
}

impl Db {
    /// By which restore this store came to be; `None` when it never was restored.
    pub async fn restored(&self) -> Result<Option<[u8; 16]>, StoreError> {
        self.read(|tx| {
            let known = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'store_restores'";
            if !tx.prepare(known)?.exists([])? {
                return Ok(None);
            }
            let newest = "SELECT id FROM store_restores ORDER BY number DESC LIMIT 1";
            Ok(tx.query_row(newest, [], |row| row.get(0)).optional()?)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DbOptions;

    async fn store(path: &Path, domain: &Domain) -> Db {
        let db = Db::open(path, &DbOptions::default()).unwrap();
        db.belongs_to(domain).await.unwrap();
        db.write(|tx| Ok(tx.execute_batch("CREATE TABLE IF NOT EXISTS t (n INTEGER)")?)).await.unwrap();
        db
    }

    async fn put(db: &Db, n: i64) {
        db.write(move |tx| Ok(tx.execute("INSERT INTO t VALUES (?)", [n])?)).await.unwrap();
    }

    async fn all(path: &Path) -> Vec<i64> {
        let db = Db::open(path, &DbOptions::default()).unwrap();
        let rows = db.read(|tx| {
            let mut query = tx.prepare("SELECT n FROM t ORDER BY n")?;
            let rows = query.query_map([], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
            Ok(rows)
        });
        rows.await.unwrap()
    }

    #[tokio::test]
    async fn a_backup_takes_the_place_of_the_store_which_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (path, backup) = (folder.path().join("aldis.db"), folder.path().join("backup.db"));
        let domain: Domain = "alpha.test".parse().unwrap();
        let db = store(&path, &domain).await;
        put(&db, 1).await;
        copy(&path, &backup).unwrap();
        assert!(copy(&path, &backup).is_err(), "nothing is overwritten");
        put(&db, 2).await;
        assert_eq!(db.restored().await.unwrap(), None);
        drop(db);
        let other: Domain = "beta.test".parse().unwrap();
        let refused = restore(&backup, &path, &other, [1; 16], Timestamp::from_millis(5)).unwrap_err();
        assert!(matches!(refused, RestoreError::OtherDomain(found) if found == "alpha.test"));
        let text = folder.path().join("text");
        fs::write(&text, "no store at all".repeat(1000)).unwrap();
        assert!(restore(&text, &path, &domain, [1; 16], Timestamp::from_millis(6)).is_err());
        assert_eq!(all(&path).await, [1, 2]);

        let kept = restore(&backup, &path, &domain, [1; 16], Timestamp::from_millis(7)).unwrap().unwrap();
        assert_eq!(all(&path).await, [1]);
        assert_eq!(all(&kept).await, [1, 2]);
        let db = store(&path, &domain).await;
        assert_eq!(db.restored().await.unwrap(), Some([1; 16]));
        drop(db);
        restore(&backup, &path, &domain, [2; 16], Timestamp::from_millis(8)).unwrap();
        assert_eq!(store(&path, &domain).await.restored().await.unwrap(), Some([2; 16]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
