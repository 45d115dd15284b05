//! The single writer: a thread that commits jobs in groups.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::Receiver,
};

use rusqlite::Connection;

use crate::StoreError;

/// Most jobs in one commit.
const MAX_GROUP: usize = 512;

/// What to do with a job's answer once the fate of its group is known.
pub(crate) type Finish = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// A job runs inside the open transaction and returns how to answer. It must not answer before.
pub(crate) type Job = Box<dyn FnOnce(&Connection) -> Finish + Send>;

/// Runs until every sender is gone.
pub(crate) fn run(connection: Connection, jobs: Receiver<Job>) {
    let mut answers = Vec::with_capacity(MAX_GROUP);
    while let Ok(first) = jobs.recv() {
        commit_group(&connection, first, &jobs, &mut answers);
    }
}

/// One transaction with `first` and whatever else is waiting.
fn commit_group(connection: &Connection, first: Job, jobs: &Receiver<Job>, answers: &mut Vec<Finish>) {
    let begun = std::time::Instant::now();
    let opened = connection.execute_batch("BEGIN IMMEDIATE");
    let mut next = Some(first);
    while let Some(job) = next.take() {
        answers.push(match &opened {
            Ok(()) => job(connection),
            Err(error) => refuse(job, error),
        });
        // SQLite rolls a whole transaction back by itself when the disk is full: the group is lost and must end here.
        let lost = opened.is_ok() && connection.is_autocommit();
        if answers.len() < MAX_GROUP && !lost {
            next = jobs.try_recv().ok();
        }
    }
    let outcome = match opened {
        Ok(()) if connection.is_autocommit() => Err(StoreError::Full),
        Ok(()) => connection.execute_batch("COMMIT").map_err(StoreError::from),
        Err(error) => Err(error.into()),
    };
    if outcome.is_err() && !connection.is_autocommit() {
        // The group is lost either way; what matters is that the next one can begin.
        if let Err(error) = connection.execute_batch("ROLLBACK") {
            tracing::error!(%error, "rolling back a group failed");
        }
    }
    metrics::histogram!("aldis_store_group_jobs").record(u32::try_from(answers.len()).unwrap_or(u32::MAX));
    metrics::histogram!("aldis_store_commit_seconds").record(begun.elapsed());
    for answer in answers.drain(..) {
        answer(match &outcome {
            Ok(()) => Ok(()),
            Err(error) => Err(copy_error(error)),
        });
    }
}

/// The transaction could not be opened: the job is dropped, which its caller sees as a closed store.
fn refuse(job: Job, error: &rusqlite::Error) -> Finish {
    tracing::error!(%error, "a write transaction could not be opened");
    drop(job);
    Box::new(|_| ())
}

/// Runs one job in its savepoint. A job that fails or panics is rolled back alone.
pub(crate) fn in_savepoint<T>(
    connection: &Connection,
    job: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    connection.prepare_cached("SAVEPOINT job")?.execute([])?;
    let result = catch_unwind(AssertUnwindSafe(|| job(connection))).unwrap_or(Err(StoreError::Panicked));
    if result.is_err() && !connection.is_autocommit() {
        connection.prepare_cached("ROLLBACK TO job")?.execute([])?;
    }
    if connection.is_autocommit() {
        // A full disk makes SQLite roll the whole group back by itself.
        return result.and(Err(StoreError::Full));
    }
    connection.prepare_cached("RELEASE job")?.execute([])?;
    result
}

fn copy_error(error: &StoreError) -> StoreError {
    tracing::error!(%error, "a group of writes could not be committed");
    match error {
        error if error.is_full() => StoreError::Full,
        StoreError::Sqlite(rusqlite::Error::SqliteFailure(code, text)) => {
            StoreError::Sqlite(rusqlite::Error::SqliteFailure(*code, text.clone()))
        }
        _ => StoreError::Closed,
    }
}
