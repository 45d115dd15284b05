//! Schema versions, one count per service.

use std::{
    fs::{self, File},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OptionalExtension, params};

use crate::StoreError;

/// One step of a service's schema: step `n` of the list brings version `n` to `n + 1`. Steps are never changed once
/// released, only added.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// What it brings, for the log.
    pub name: &'static str,
    /// Statements, run in one transaction.
    pub sql: &'static str,
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_versions (\
     service TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID";

fn version(tx: &Connection, service: &str) -> Result<u32, StoreError> {
    tx.execute_batch(TABLE)?;
    let found = tx
        .query_row("SELECT version FROM schema_versions WHERE service = ?", [service], |row| row.get(0))
        .optional()?;
    Ok(found.unwrap_or(0))
}

/// Refuses a schema that is newer than this build.
pub(crate) fn check(tx: &Connection, service: &'static str, steps: &[Migration]) -> Result<(), StoreError> {
    let found = version(tx, service)?;
    let known = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    if found > known { Err(StoreError::NewerSchema { service, found, known }) } else { Ok(()) }
}

/// Applies what is missing. A file that holds tables of this service already is copied beside itself first.
pub(crate) fn apply(
    tx: &Connection,
    path: &Path,
    service: &'static str,
    steps: &'static [Migration],
) -> Result<(), StoreError> {
    let found = version(tx, service)?;
    let missing = steps.iter().skip(usize::try_from(found).unwrap_or(usize::MAX));
    if found > 0 && missing.len() > 0 {
        snapshot(path, service, found)?;
    }
    for step in missing {
        tracing::info!(service, migration = step.name, "migrating the store");
        tx.execute_batch(step.sql)?;
    }
    tx.execute(
        "INSERT INTO schema_versions (service, version) VALUES (?, ?) \
         ON CONFLICT (service) DO UPDATE SET version = excluded.version",
        params![service, u32::try_from(steps.len()).unwrap_or(u32::MAX)],
    )?;
    Ok(())
}

/// Copies the last committed state to `<file>.before-<service>-<version>`, unless that copy exists. A copy that is there is
/// whole: a start that was killed on the way leaves none.
fn snapshot(path: &Path, service: &str, version: u32) -> Result<(), StoreError> {
    let beside = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".before-{service}-{version}{end}"));
        PathBuf::from(name)
    };
    let (target, unfinished) = (beside(""), beside(".unfinished"));
    if target.exists() {
        return Ok(());
    }
    tracing::info!(service, copy = %target.display(), "copying the store before it is migrated");
    if let Err(error) = fs::remove_file(&unfinished)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error.into());
    }
    let source = Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    // What is in the store is for its owner alone.
    File::options().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    let mut copy = Connection::open(&unfinished)?;
    rusqlite::backup::Backup::new(&source, &mut copy)?.run_to_completion(1024, std::time::Duration::ZERO, None)?;
    drop(copy);
    File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, &target)?;
    // The name is durable with its folder.
    if let Some(folder) = target.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
