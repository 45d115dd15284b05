//! The list of remotes.

mod sqlite;
#[cfg(test)]
pub(crate) mod suite;

use std::collections::BTreeMap;

use aldis_storage::StoreError;
use aldis_types::{Domain, RemotePolicy, Timestamp};
use async_trait::async_trait;
pub(crate) use sqlite::SqliteRemotes;

use crate::audit::AuditEntry;

/// Keeps the list of remotes under one version.
#[async_trait]
pub(crate) trait RemoteStore: Send + Sync {
    /// The version and the whole list.
    async fn load(&self) -> Result<(u64, BTreeMap<Domain, RemotePolicy>), StoreError>;

    /// Adds or replaces an entry; the list has `version` from then on.
    async fn put(
        &self,
        domain: Domain,
        remote: RemotePolicy,
        version: u64,
        audit: AuditEntry,
        now: Timestamp,
    ) -> Result<(), StoreError>;
}
