//! Where it is kept how far clients have acknowledged their queues.

mod scylla;
mod sqlite;
#[cfg(test)]
pub(crate) mod suite;

use aldis_storage::StoreError;
use aldis_types::{ClientId, UserId};
use async_trait::async_trait;

pub(crate) use scylla::{STATEMENTS, mark_missed};

/// How far a client has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Every event up to this tick is acknowledged, or older than the consumer.
    pub floor: u64,
    /// Acknowledged ticks above it; about as many as may be in flight.
    pub acknowledged: Vec<u64>,
    /// Events for the client were dropped before it acknowledged them, and it has not been told.
    pub missed: bool,
}

/// How far clients have acknowledged.
#[async_trait]
pub(crate) trait ConsumerStore: Send + Sync {
    /// Begins: every event that is committed later is to be acknowledged. Changes nothing for a client that has begun.
    async fn open(&self, user: UserId, client: ClientId) -> Result<(), StoreError>;

    /// How far a client is; `None` when it has not begun.
    async fn standing(&self, user: UserId, client: ClientId) -> Result<Option<Standing>, StoreError>;

    /// Everything up to `floor` is acknowledged, and the ticks `above` it. A lower floor than the kept one changes
    /// nothing.
    async fn acknowledge(&self, user: UserId, client: ClientId, floor: u64, above: Vec<u64>) -> Result<(), StoreError>;

    /// The client knows that it missed events.
    async fn knows(&self, user: UserId, client: ClientId) -> Result<(), StoreError>;

    /// Forgets a client, or every one of the user.
    async fn forget(&self, user: UserId, client: Option<ClientId>) -> Result<(), StoreError>;
}
