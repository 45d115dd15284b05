//! Properties.

mod sqlite;
#[cfg(test)]
pub(crate) mod suite;

use std::collections::BTreeMap;

use aldis_delivery::{Delivery, Outgoing};
use aldis_storage::StoreError;
use aldis_types::UserId;
use async_trait::async_trait;
use serde_json::value::RawValue;
pub(crate) use sqlite::SqliteProperties;

/// What became of a value.
#[derive(Debug)]
pub(crate) enum SetOutcome {
    Set(Delivery),
    /// The user has as many properties as allowed, and this would be another.
    TooMany,
}

/// Keeps properties.
#[async_trait]
pub(crate) trait PropertyStore: Send + Sync {
    /// One value, as it was given.
    async fn get(&self, user: UserId, key: String) -> Result<Option<Box<RawValue>>, StoreError>;

    /// Every value of a user.
    async fn all(&self, user: UserId) -> Result<BTreeMap<String, Box<RawValue>>, StoreError>;

    /// Sets a value; a user has at most `limit`.
    async fn set(
        &self,
        user: UserId,
        key: String,
        value: Box<RawValue>,
        limit: u32,
        effects: Vec<Outgoing>,
    ) -> Result<SetOutcome, StoreError>;

    /// Removes one value, or all; `None` when there was none.
    async fn remove(
        &self,
        user: UserId,
        key: Option<String>,
        effects: Vec<Outgoing>,
    ) -> Result<Option<Delivery>, StoreError>;
}
