//! The single writer, which commits jobs in groups: a thread, or inline for simulations.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use rusqlite::Connection;
use tokio::time::Instant;

use crate::StoreError;

/// Most jobs in one commit.
const MAX_GROUP: usize = 512;
/// How long a job that waits for company is put off.
pub(crate) const PATIENCE: Duration = Duration::from_millis(250);

/// What to do with a job's answer once the fate of its group is known.
pub(crate) type Finish = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// A job runs inside the open transaction and returns how to answer. It must not answer before.
pub(crate) type Job = Box<dyn FnOnce(&Connection) -> Finish + Send>;

/// A job and its hurry.
pub(crate) enum Order {
    /// Somebody waits for it.
    Now(Job),
    /// Nobody does: it goes along with the next group, and makes one of its own only after [`PATIENCE`].
    Along(Job),
}

/// Runs until every sender is gone, and does then what was put off.
pub(crate) fn run(connection: Connection, orders: Receiver<Order>) {
    let mut writer = Writer::new(connection, orders);
    loop {
        let order = match writer.due {
            None => writer.orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => writer.orders.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        match order {
            Ok(Order::Now(job)) => writer.commit_group(Some(job)),
            Ok(Order::Along(job)) => writer.put_off(job),
            Err(RecvTimeoutError::Timeout) => writer.commit_group(None),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    writer.commit_all();
}

pub(crate) struct Writer {
    connection: Connection,
    orders: Receiver<Order>,
    answers: Vec<Finish>,
    /// Jobs that wait for company, and until when.
    along: Vec<Job>,
    due: Option<Instant>,
}

impl Writer {
    pub(crate) fn new(connection: Connection, orders: Receiver<Order>) -> Self {
        Self { connection, orders, answers: Vec::with_capacity(MAX_GROUP), along: Vec::new(), due: None }
    }

    /// Commits what is in a hurry, and with it what was put off.
    pub(crate) fn commit_waiting(&mut self) {
        while let Some(job) = self.next_now() {
            self.commit_group(Some(job));
        }
    }

    /// Commits whatever waits.
    pub(crate) fn commit_all(&mut self) {
        self.commit_waiting();
        if self.due.is_some() {
            self.commit_group(None);
        }
    }

    fn put_off(&mut self, job: Job) {
        self.along.push(job);
        self.due.get_or_insert_with(|| Instant::now() + PATIENCE);
    }

    /// One transaction with `first`, whatever else is waiting, and what was put off.
    fn commit_group(&mut self, first: Option<Job>) {
        let begun = Instant::now();
        let opened = self.execute("BEGIN IMMEDIATE");
        let mut intact = true;
        let mut next = first;
        while let Some(job) = next.take() {
            intact = self.join(job, &opened);
            if intact && self.answers.len() < MAX_GROUP {
                next = self.next_now();
            }
        }
        if intact {
            self.due = None;
            for job in std::mem::take(&mut self.along) {
                intact = intact && self.join(job, &opened);
            }
        }
        self.end_group(opened, begun);
    }

    /// The next waiting job that is in a hurry.
    fn next_now(&mut self) -> Option<Job> {
        loop {
            match self.orders.try_recv().ok()? {
                Order::Now(job) => return Some(job),
                Order::Along(job) => self.put_off(job),
            }
        }
    }

    fn execute(&self, sql: &str) -> Result<(), rusqlite::Error> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }

    /// Runs a job in the open transaction; `false` when that is lost, so that no job may follow.
    fn join(&mut self, job: Job, opened: &Result<(), rusqlite::Error>) -> bool {
        self.answers.push(match opened {
            Ok(()) => job(&self.connection),
            Err(error) => refuse(job, error),
        });
        // SQLite rolls a whole transaction back by itself when the disk is full: the group is lost and must end here.
        opened.is_err() || !self.connection.is_autocommit()
    }

    fn end_group(&mut self, opened: Result<(), rusqlite::Error>, begun: Instant) {
        let connection = &self.connection;
        let outcome = match opened {
            Ok(()) if connection.is_autocommit() => Err(StoreError::Full),
            Ok(()) => self.execute("COMMIT").map_err(StoreError::from),
            Err(error) => Err(error.into()),
        };
        if outcome.is_err() && !connection.is_autocommit() {
            // The group is lost either way; what matters is that the next one can begin.
            if let Err(error) = self.execute("ROLLBACK") {
                tracing::error!(%error, "rolling back a group failed");
            }
        }
        metrics::histogram!("aldis_store_group_jobs").record(u32::try_from(self.answers.len()).unwrap_or(u32::MAX));
        metrics::histogram!("aldis_store_commit_seconds").record(begun.elapsed());
        for answer in self.answers.drain(..) {
            answer(match &outcome {
                Ok(()) => Ok(()),
                Err(error) => Err(copy_error(error)),
            });
        }
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
        error if error.is_overloaded() => StoreError::Full,
        StoreError::Sqlite(rusqlite::Error::SqliteFailure(code, text)) => {
            StoreError::Sqlite(rusqlite::Error::SqliteFailure(*code, text.clone()))
        }
        _ => StoreError::Closed,
    }
}
