//! What is known of each file, beside its bytes.

mod scylla;
mod sqlite;
#[cfg(test)]
mod suite;

use aldis_storage::StoreError;
use aldis_types::{AssetKey, MediaType, Timestamp, UserId};
use async_trait::async_trait;

pub(crate) use scylla::{MIGRATIONS as CLUSTER_MIGRATIONS, ScyllaAssets};
pub(crate) use sqlite::{MIGRATIONS, SqliteAssets, key};

use super::token::TokenHash;

/// A file of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asset {
    pub(crate) key: AssetKey,
    /// Who stored it; a user of ours.
    pub(crate) owner: UserId,
    /// What gives access; `None`: everybody has it.
    pub(crate) token: Option<TokenHash>,
    pub(crate) media_type: MediaType,
    pub(crate) size: u64,
    pub(crate) sha256: [u8; 32],
    pub(crate) expires: Option<Timestamp>,
}

/// The files of this backend. A key is used once: what was removed never comes back.
#[async_trait]
pub(crate) trait AssetStore: Send + Sync {
    /// Notes that bytes for this key are about to be written, so that they can be found if nothing comes of it.
    async fn begin(&self, key: AssetKey, owner: UserId, now: Timestamp) -> Result<(), StoreError>;

    /// Makes the file visible. `false`, and nothing happens, unless `begin` noted it and it was not given up since.
    async fn publish(&self, asset: &Asset) -> Result<bool, StoreError>;

    /// A visible file that has not expired.
    async fn get(&self, key: AssetKey, now: Timestamp) -> Result<Option<Asset>, StoreError>;

    /// Replaces the token. `false` when there is no such visible file.
    async fn set_token(&self, key: AssetKey, token: Option<TokenHash>) -> Result<bool, StoreError>;

    /// Makes the file, or the upload, invisible for good. Its bytes are left to [`AssetStore::doomed`].
    async fn doom(&self, key: AssetKey) -> Result<(), StoreError>;

    /// At most `limit` keys whose bytes are to be removed: doomed ones, those that have expired by `now`, and uploads
    /// that began before `stale`. The same ones are given until [`AssetStore::forget`].
    async fn doomed(&self, now: Timestamp, stale: Timestamp, limit: u32) -> Result<Vec<AssetKey>, StoreError>;

    /// Removes what is known of a file whose bytes are gone.
    async fn forget(&self, key: AssetKey) -> Result<(), StoreError>;
}
