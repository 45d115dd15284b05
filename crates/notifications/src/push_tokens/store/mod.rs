//! Where push tokens are kept.

mod scylla;
mod sqlite;
#[cfg(test)]
pub(crate) mod suite;

use aldis_storage::StoreError;
use aldis_types::{ClientId, UserId};
use async_trait::async_trait;

use super::PushToken;

pub(crate) use scylla::ScyllaPushTokens;
pub(crate) use sqlite::{MIGRATION, SqlitePushTokens};

/// Push tokens of all users.
#[async_trait]
pub(crate) trait PushTokenStore: Send + Sync {
    /// Keeps a token as the user's newest. The same token of anybody, and another one of the same client for the same
    /// app and transport, are gone; above `limit` the user's oldest are.
    async fn add(&self, user: UserId, token: PushToken, limit: u32) -> Result<(), StoreError>;

    /// The user's tokens, oldest first.
    async fn list(&self, user: UserId) -> Result<Vec<PushToken>, StoreError>;

    /// Removes a token; `false` when the user has no such token.
    async fn remove(&self, user: UserId, token: String) -> Result<bool, StoreError>;

    /// Removes the tokens of a client, or all of the user.
    async fn forget(&self, user: UserId, client: Option<ClientId>) -> Result<(), StoreError>;

    /// Everybody who has a token.
    async fn users(&self) -> Result<Vec<UserId>, StoreError>;
}
