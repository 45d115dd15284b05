//! The store without threads, for simulations: the same jobs in the same groups, at moments that the simulation chooses.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc::Receiver};

use async_trait::async_trait;
use rusqlite::Connection;

use crate::writer::{Order, PATIENCE, Writer};

/// A step of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Moment {
    /// A job waits; it is committed next, and with it what waits beside it.
    Waiting,
    /// A job is committed; its caller learns of it next.
    Committed,
    /// A query is about to run.
    Reading,
}

/// Says when the steps of a store without threads are taken.
#[async_trait]
pub trait Pace: Send + Sync {
    /// Returns when the step may be taken. That of a process that was killed never returns.
    async fn reach(&self, moment: Moment);
}

/// The writer, run by whoever writes.
pub(crate) struct Inline {
    writer: Mutex<Writer>,
    pace: Arc<dyn Pace>,
}

impl Inline {
    pub(crate) fn new(connection: Connection, orders: Receiver<Order>, pace: Arc<dyn Pace>) -> Self {
        Self { writer: Mutex::new(Writer::new(connection, orders)), pace }
    }

    pub(crate) async fn reach(&self, moment: Moment) {
        self.pace.reach(moment).await;
    }

    /// A job is committed even if its caller goes away.
    pub(crate) fn commit_soon(self: Arc<Self>) {
        tokio::spawn(async move {
            self.reach(Moment::Waiting).await;
            self.writer().commit_waiting();
        });
    }

    pub(crate) fn commit_later(self: Arc<Self>) {
        tokio::spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            self.reach(Moment::Waiting).await;
            self.writer().commit_all();
        });
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
