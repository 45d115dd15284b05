//! Where queues are kept.

mod renewal;
mod scylla;
mod sqlite;
#[cfg(test)]
pub(crate) mod suite;

use std::sync::Arc;

use aldis_storage::StoreError;
use aldis_types::{ClientId, EventId, NotificationId, Timestamp, UserId};
use async_trait::async_trait;
use bytes::Bytes;

pub(crate) use scylla::{MIGRATIONS as CLUSTER_MIGRATIONS, Oldest, ScyllaQueues};
pub(crate) use sqlite::{MIGRATIONS, SqliteQueues};

/// Bounds of one user's queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub events: u64,
    pub bytes: u64,
}

/// Units of 100 ns since 1582-10-15.
fn ticks_of(time: Timestamp) -> u64 {
    const EPOCH: u64 = 0x01B2_1DD2_1381_4000;
    EPOCH + time.millis().unsigned_abs() * 10_000
}

/// Ticks have 60 bits.
fn as_i64(tick: u64) -> i64 {
    i64::try_from(tick).unwrap_or(i64::MAX)
}

/// An event on its way into a queue.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Whose queue.
    pub user: UserId,
    /// The client that it is for; `None`: all clients of the user.
    pub client: Option<ClientId>,
    /// Unique per (user, client or all).
    pub event_id: EventId,
    /// One JSON object, kept and given back as it is.
    pub event: Bytes,
    /// Events are missing before this one: whoever has not read up to it is told.
    pub missed: bool,
}

/// An event in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub id: NotificationId,
    pub event: Bytes,
}

/// Consecutive events of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// Oldest first.
    pub notifications: Vec<Stored>,
    /// Whether newer ones follow.
    pub has_more: bool,
}

/// What a reader of a queue sees: events for all clients and, with a client, those for it; without one, all.
pub(crate) type Reader = Option<ClientId>;

/// The queues of all users.
#[async_trait]
pub(crate) trait QueueStore: Send + Sync {
    /// Appends entries durably and in order, and gives each an id that is greater than every id that its user's queue
    /// ever had. `None` for an entry whose event is in that queue already: nothing changes for it.
    ///
    /// All entries or none; on a cluster that holds for those of one user (up to a few hundred kilobytes), and after an error
    /// those of others may be there: brought again, they change nothing. Calls take effect in the order in which their futures are first polled, and ids grow in
    /// that order. When a user's queue passes its bounds, its oldest events are dropped.
    ///
    /// After an entry before which events are missing, [`QueueStore::page`] knows no earlier event any more, and every
    /// client that acknowledges has missed something. One that follows another such entry within a minute, with nothing in
    /// between, changes nothing and gets no id.
    async fn append(&self, entries: Arc<[Entry]>) -> Result<Vec<Option<NotificationId>>, StoreError>;

    /// At most `size` events after `since`, or from the oldest one without it, and at most `bytes` of them unless
    /// the first alone is larger. `None` when `since` is not in the user's queue, or events are missing after it.
    async fn page(
        &self,
        user: UserId,
        reader: Reader,
        since: Option<NotificationId>,
        size: usize,
        bytes: usize,
    ) -> Result<Option<Page>, StoreError>;

    /// Like [`QueueStore::page`], after a tick, whether or not an event with it is in the queue.
    async fn after(
        &self,
        user: UserId,
        reader: Reader,
        tick: u64,
        size: usize,
        bytes: usize,
    ) -> Result<Page, StoreError>;

    /// The newest event that the reader sees.
    async fn last(&self, user: UserId, reader: Reader) -> Result<Option<Stored>, StoreError>;

    /// One event, if the reader sees it.
    async fn get(&self, user: UserId, reader: Reader, id: NotificationId) -> Result<Option<Stored>, StoreError>;

    /// An id greater than every one given so far, for an event that is not stored.
    fn transient_id(&self) -> NotificationId;

    /// Removes events that were appended before `time`, oldest first, for a few milliseconds. Tells whether more are left.
    async fn expire(&self, time: Timestamp) -> Result<bool, StoreError>;

    /// Removes events for this client only, for a few milliseconds. Tells whether more are left.
    async fn remove_client(&self, user: UserId, client: ClientId) -> Result<bool, StoreError>;

    /// Removes events of the user, for a few milliseconds. Tells whether more are left.
    async fn remove_user(&self, user: UserId) -> Result<bool, StoreError>;
}
