//! What is left after a loss of power: of every group of jobs all or nothing, and all of those that were answered.
//!
//! The files are taken as they are right before and right after a group, and what a disk may have kept of the difference is
//! put together from the two: the log cut at every byte of the group, with rubbish after the cut, with sectors missing in
//! the middle, over a log that grows and over one that is written from its beginning again; and the file itself with any
//! part of a checkpoint. The index of the log is memory, and gone.

use std::{
    fs::{self, File},
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::mpsc,
};

use aldis_storage::{Db, DbOptions, Migration, StoreError};
use rusqlite::{Connection, config::DbConfig};
use tokio::task::JoinSet;

const STEPS: &[Migration] = &[Migration {
    name: "items",
    sql: "CREATE TABLE items (text TEXT PRIMARY KEY) WITHOUT ROWID; \
          CREATE TABLE copies (text TEXT PRIMARY KEY) WITHOUT ROWID;",
}];

/// What a disk writes whole or not at all, at the least.
const SECTOR: usize = 512;
const PAGE: usize = 8192;
/// Before the first frame of a log, and before the page in each.
const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// The two files.
struct Files {
    store: Vec<u8>,
    log: Vec<u8>,
}

fn log_of(store: &Path) -> PathBuf {
    store.with_file_name("aldis.db-wal")
}

impl Files {
    fn of(store: &Path) -> Self {
        Self { store: fs::read(store).unwrap(), log: fs::read(log_of(store)).unwrap() }
    }
}

/// A backend's store in use.
struct InUse {
    db: Db,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

/// A job that writes to two tables, and so to two pages.
async fn insert(db: Db, text: String) -> Result<(), StoreError> {
    db.write(move |tx| {
        tx.execute("INSERT INTO copies (text) VALUES (?)", [&text])?;
        tx.execute("INSERT INTO items (text) VALUES (?)", [&text])?;
        Ok(())
    })
    .await
}

impl InUse {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("aldis.db");
        let db = Db::open(&path, &DbOptions::default()).unwrap();
        db.migrate("test", STEPS).await.unwrap();
        for number in 0..4 {
            insert(db.clone(), format!("earlier-{number}")).await.unwrap();
        }
        Self { db, path, _folder: folder }
    }

    /// Several jobs in one commit, and one of them fails. Gives the files of before and after.
    async fn group(&self, name: &str, size: usize) -> (Files, Files) {
        let before = Files::of(&self.path);
        let (release, released) = mpsc::channel::<()>();
        let mut jobs = JoinSet::new();
        let db = self.db.clone();
        // The writer takes into the group whatever has come by the time its first job is done.
        jobs.spawn(async move {
            db.write(move |_| {
                released.recv().unwrap();
                Ok(())
            })
            .await
        });
        for number in 0..size {
            jobs.spawn(insert(self.db.clone(), format!("{name}-{number}-{}", "x".repeat(700))));
        }
        jobs.spawn(insert(self.db.clone(), "earlier-0".to_owned()));
        jobs.spawn(async move {
            release.send(()).unwrap();
            Ok(())
        });
        let failed = jobs.join_all().await.into_iter().filter(Result::is_err).count();
        assert_eq!(failed, 1, "what is there already");
        (before, Files::of(&self.path))
    }

    /// Copies the log into the file, so that the log is written from its beginning again.
    fn checkpoint(&self) {
        let connection = Connection::open(&self.path).unwrap();
        let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get(0)).unwrap();
        assert_eq!(busy, 0);
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    }
}

/// Files as power left them.
struct Left {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Left {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { path: folder.path().join("aldis.db"), _folder: folder }
    }

    fn put(&self, store: &[u8], log: &[u8]) {
        fs::write(&self.path, store).unwrap();
        fs::write(log_of(&self.path), log).unwrap();
    }

    /// What is in the store; the files stay as they are.
    fn look(&self) -> Vec<String> {
        let connection = Connection::open(&self.path).unwrap();
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        contents(&connection).unwrap()
    }

    /// The same through the engine, which also goes on writing.
    async fn open(&self) -> Vec<String> {
        let db = Db::open(&self.path, &DbOptions { readers: 1, max_pages: None }).unwrap();
        db.migrate("test", STEPS).await.unwrap();
        let found = db.read(contents).await.unwrap();
        insert(db.clone(), "later".to_owned()).await.unwrap();
        assert_eq!(db.read(contents).await.unwrap().len(), found.len() + 1);
        found
    }
}

fn contents(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    assert_eq!(sound, "ok");
    let read = |sql| -> Result<Vec<String>, StoreError> {
        let mut query = connection.prepare(sql)?;
        let found = query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(found)
    };
    let found = read("SELECT text FROM items ORDER BY text")?;
    assert_eq!(read("SELECT text FROM copies ORDER BY text")?, found, "half of a job");
    Ok(found)
}

/// Numbers without a pattern, the same on every run.
fn rubbish(seed: usize, count: usize) -> impl Iterator<Item = u8> {
    let mut state = (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32).to_le_bytes()[0]
    })
}

/// A group's part of the log, and what the store holds without and with it.
struct Group {
    before: Files,
    after: Files,
    without: Vec<String>,
    with: Vec<String>,
    /// Where its first byte is, and where the one after its last.
    begin: usize,
    end: usize,
}

impl Group {
    fn new(before: Files, after: Files, size: usize) -> Self {
        let left = Left::new();
        left.put(&before.store, &before.log);
        let without = left.look();
        left.put(&after.store, &after.log);
        let with = left.look();
        assert_eq!(with.len(), without.len() + size, "without the one that failed");
        assert!(before.store == after.store, "nothing was copied out of the log meanwhile");
        let differs = |at: &usize| before.log.get(*at) != after.log.get(*at);
        let begin = (0..after.log.len()).find(differs).unwrap();
        let end = (begin..after.log.len()).rfind(differs).unwrap() + 1;
        Self { before, after, without, with, begin, end }
    }

    /// The log with the first bytes of the group, over what was there before.
    fn upto(&self, cut: usize) -> Vec<u8> {
        let mut log = self.after.log[..cut].to_vec();
        log.extend(self.before.log.get(cut..).unwrap_or_default());
        log
    }

    /// Cuts where something begins or ends, and some in between.
    fn telling(&self) -> impl Iterator<Item = usize> {
        (self.begin..=self.end).filter(|cut| {
            let within = (cut + FRAME_HEADER + PAGE - LOG_HEADER) % (PAGE + FRAME_HEADER);
            within <= FRAME_HEADER + 1 || within >= PAGE + FRAME_HEADER - 1 || cut % 509 == 0
        })
    }

    fn check(&self, found: &[String], what: &str, at: usize) {
        let whole = found == self.with;
        assert!(whole || found == self.without, "{what} at {at}: half of a group: {found:?}");
        assert!(whole || at < self.end, "{what} at {at}: what was answered is gone");
    }
}

/// Cuts the log at every byte from one on; where the log was longer, what was there before follows.
fn every_byte(group: &Group, from: usize) {
    let left = Left::new();
    left.put(&group.after.store, &group.after.log);
    let log = File::options().write(true).open(log_of(&left.path)).unwrap();
    for cut in (from..=group.end).rev() {
        match group.before.log.get(cut) {
            Some(byte) => log.write_all_at(&[*byte], cut as u64).unwrap(),
            None => log.set_len(cut as u64).unwrap(),
        }
        group.check(&left.look(), "cut", cut);
    }
    assert_eq!(left.look(), group.without);
}

/// Cuts the log where something begins or ends.
fn telling_bytes(group: &Group) {
    let left = Left::new();
    for cut in group.telling() {
        left.put(&group.after.store, &group.upto(cut));
        group.check(&left.look(), "cut", cut);
    }
}

/// Rubbish in the rest of the sector in which the log ends, and in a page after it.
fn torn_sectors(group: &Group) {
    let left = Left::new();
    for cut in group.telling().filter(|cut| *cut < group.end) {
        for tail in [SECTOR - cut % SECTOR, PAGE] {
            let mut log = group.upto(cut);
            log.resize(log.len().max(cut + tail), 0);
            for (byte, bad) in log[cut..].iter_mut().zip(rubbish(cut, tail)) {
                *byte = bad;
            }
            left.put(&group.after.store, &log);
            group.check(&left.look(), "rubbish", cut);
        }
    }
}

/// A disk writes sectors in any order: each is missing while all others are there.
fn missing_sectors(group: &Group) {
    let left = Left::new();
    for sector in group.begin / SECTOR..=(group.end - 1) / SECTOR {
        let from = sector * SECTOR;
        let mut log = group.after.log.clone();
        let old = group.before.log.get(from..).unwrap_or_default().iter().copied().chain(std::iter::repeat(0));
        for (byte, old) in log[from..].iter_mut().take(SECTOR).zip(old) {
            *byte = old;
        }
        if log != group.after.log {
            left.put(&group.after.store, &log);
            assert_eq!(left.look(), group.without, "sector {sector} is missing");
        }
    }
}

async fn through_the_engine(group: &Group) {
    for cut in group.telling().step_by(5).chain([group.end - 1, group.end]) {
        let left = Left::new();
        left.put(&group.after.store, &group.upto(cut));
        group.check(&left.open().await, "opened", cut);
    }
}

async fn lose_power_in(group: Group, every_byte_from: usize) {
    every_byte(&group, every_byte_from);
    telling_bytes(&group);
    torn_sectors(&group);
    missing_sectors(&group);
    through_the_engine(&group).await;
}

#[tokio::test]
async fn a_log_that_is_cut_has_all_of_a_group_or_nothing() {
    let store = InUse::new().await;
    let (before, after) = store.group("last", 5).await;
    let group = Group::new(before, after, 5);
    let (begin, frame) = (group.begin, FRAME_HEADER + PAGE);
    assert_eq!(begin, group.before.log.len(), "the log grows");
    assert_eq!(group.end, begin + 2 * frame);
    lose_power_in(group, begin).await;
}

#[tokio::test]
async fn a_log_that_began_anew_has_all_of_a_group_or_nothing() {
    let store = InUse::new().await;
    store.group("old", 5).await;
    store.checkpoint();
    let (before, after) = store.group("last", 5).await;
    let group = Group::new(before, after, 5);
    assert!(group.begin < LOG_HEADER && group.end < group.before.log.len(), "old frames follow");
    // The last frame makes the group valid.
    let last = group.end - FRAME_HEADER - PAGE;
    lose_power_in(group, last).await;
}

#[tokio::test]
async fn a_checkpoint_that_was_interrupted_loses_nothing() {
    let store = InUse::new().await;
    let (_, before) = store.group("last", 40).await;
    store.checkpoint();
    let after = Files::of(&store.path);
    assert!(before.log == after.log && before.store != after.store);
    let left = Left::new();
    left.put(&before.store, &before.log);
    let all = left.look();
    assert_eq!(all.len(), 44);
    let old = |range: Range<usize>| range.map(|at| before.store.get(at).copied().unwrap_or(0));
    let size = after.store.len();
    // The file is written from its beginning, or from its end, up to a sector that is torn.
    for at in (0..size).step_by(SECTOR) {
        let torn = |range: Range<usize>| range.clone().zip(rubbish(at, SECTOR)).map(|(_, byte)| byte);
        let here = at..at + SECTOR;
        let begun = after.store[..at].iter().copied().chain(torn(here.clone())).chain(old(here.end..size));
        left.put(&begun.collect::<Vec<_>>(), &before.log);
        assert_eq!(left.look(), all, "written up to {at}");
        let ended = old(0..at).chain(torn(here.clone())).chain(after.store[here.end..].iter().copied());
        left.put(&ended.collect::<Vec<_>>(), &before.log);
        assert_eq!(left.look(), all, "written from {at}");
    }
}
