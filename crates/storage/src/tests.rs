//! Groups, savepoints, migrations, locks.

use std::os::unix::fs::PermissionsExt as _;

use crate::{Db, DbOptions, Migration, ServiceLock, StoreError};

const STEPS: &[Migration] = &[
    Migration { name: "items", sql: "CREATE TABLE items (id INTEGER PRIMARY KEY, text TEXT UNIQUE)" },
    Migration { name: "sizes", sql: "ALTER TABLE items ADD COLUMN size INTEGER" },
];

fn open(folder: &tempfile::TempDir) -> Db {
    Db::open(&folder.path().join("aldis.db"), &DbOptions::default()).unwrap()
}

async fn insert(db: &Db, text: &'static str) -> Result<(), StoreError> {
    db.write(move |tx| {
        tx.execute("INSERT INTO items (text) VALUES (?)", [text])?;
        Ok(())
    })
    .await
}

async fn count(db: &Db) -> i64 {
    db.read(|tx| Ok(tx.query_row("SELECT count(*) FROM items", [], |row| row.get(0))?)).await.unwrap()
}

#[tokio::test]
async fn a_job_that_fails_or_panics_is_rolled_back_alone() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder);
    db.migrate("test", STEPS).await.unwrap();
    let failing = db.write(|tx| {
        tx.execute("INSERT INTO items (text) VALUES ('half')", [])?;
        tx.execute("INSERT INTO items (text) VALUES ('half')", [])?;
        Ok(())
    });
    let panicking = db.write(|tx| -> Result<(), StoreError> {
        tx.execute("INSERT INTO items (text) VALUES ('lost')", [])?;
        panic!("on purpose");
    });
    let (a, failed, panicked, b) = tokio::join!(insert(&db, "a"), failing, panicking, insert(&db, "b"));
    a.unwrap();
    b.unwrap();
    assert!(matches!(failed, Err(StoreError::Sqlite(_))));
    assert!(matches!(panicked, Err(StoreError::Panicked)));
    assert_eq!(count(&db).await, 2);
}

#[tokio::test]
async fn what_nobody_waits_for_goes_along_or_is_done_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder);
    db.migrate("test", STEPS).await.unwrap();
    let later = |text: &'static str| {
        move |tx: &rusqlite::Connection| Ok(tx.execute("INSERT INTO items (text) VALUES (?)", [text]).map(drop)?)
    };
    db.write_along(later("along"), drop);
    insert(&db, "now").await.unwrap();
    assert_eq!(count(&db).await, 2, "it goes along with the next group");
    // One that fails costs the others nothing.
    db.write_along(later("now"), drop);
    db.write_along(later("alone"), drop);
    while count(&db).await < 3 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    db.write_along(later("last"), drop);
    let (sender, ended) = std::sync::mpsc::channel::<()>();
    let end = move |_: &rusqlite::Connection| {
        drop(sender);
        Ok(())
    };
    db.write_along(end, drop);
    drop(db);
    // The writer does what was put off before it ends.
    ended.recv().unwrap_err();
    let db = open(&folder);
    while count(&db).await < 4 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_was_answered_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder);
    db.migrate("test", STEPS).await.unwrap();
    insert(&db, "a").await.unwrap();
    drop(db);
    let db = open(&folder);
    db.migrate("test", STEPS).await.unwrap();
    assert_eq!(count(&db).await, 1);
    let synchronous: i64 = db.write(|tx| Ok(tx.query_row("PRAGMA synchronous", [], |row| row.get(0))?)).await.unwrap();
    let mode: String = db.read(|tx| Ok(tx.query_row("PRAGMA journal_mode", [], |row| row.get(0))?)).await.unwrap();
    let page: i64 = db.read(|tx| Ok(tx.query_row("PRAGMA page_size", [], |row| row.get(0))?)).await.unwrap();
    assert_eq!((synchronous, mode.as_str(), page), (2, "wal", 8192));
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_an_older_one_copied_before_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder);
    db.migrate("test", &STEPS[..1]).await.unwrap();
    insert(&db, "a").await.unwrap();
    let copy = folder.path().join("aldis.db.before-test-1");
    let unfinished = folder.path().join("aldis.db.before-test-1.unfinished");
    // A start that was killed in the middle of copying.
    std::fs::write(&unfinished, "half of a copy").unwrap();
    db.migrate("test", STEPS).await.unwrap();
    assert_eq!(count(&db).await, 1);
    assert!(!unfinished.exists());
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let old = Db::open(&copy, &DbOptions::default()).unwrap();
    // It has what was there, in the tables of before: the old build takes it.
    old.migrate("test", &STEPS[..1]).await.unwrap();
    assert_eq!(count(&old).await, 1);
    let error = db.migrate("test", &STEPS[..1]).await.unwrap_err();
    assert!(matches!(error, StoreError::NewerSchema { found: 2, known: 1, .. }), "{error}");
}

#[tokio::test]
async fn a_full_store_refuses_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let options = DbOptions { max_pages: Some(24), ..DbOptions::default() };
    let db = Db::open(&folder.path().join("aldis.db"), &options).unwrap();
    db.migrate("test", STEPS).await.unwrap();
    let fill = db.write(|tx| {
        tx.execute("INSERT INTO items (text) VALUES (hex(zeroblob(400000)))", [])?;
        Ok(())
    });
    assert!(fill.await.unwrap_err().is_overloaded());
    insert(&db, "small").await.unwrap();
    assert_eq!(count(&db).await, 1);
}

#[test]
fn one_process_per_service() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("aldis.db");
    let held = ServiceLock::take(&store, "users").unwrap();
    assert!(matches!(ServiceLock::take(&store, "users"), Err(StoreError::Locked("users"))));
    ServiceLock::take(&store, "conversations").unwrap();
    drop(held);
    ServiceLock::take(&store, "users").unwrap();
}

#[tokio::test]
async fn a_store_is_private_and_belongs_to_one_domain() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder);
    db.belongs_to(&"alpha.test".parse().unwrap()).await.unwrap();
    db.belongs_to(&"alpha.test".parse().unwrap()).await.unwrap();
    let error = db.belongs_to(&"beta.test".parse().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("alpha.test"), "{error}");
    for name in ["aldis.db", "aldis.db-wal"] {
        let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}
