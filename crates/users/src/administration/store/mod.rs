//! Accounts as an administrator sees them, and the record of what was done.

mod sqlite;
#[cfg(test)]
pub(crate) mod suite;

use aldis_storage::StoreError;
use aldis_types::{Timestamp, UserId};
use async_trait::async_trait;
pub(crate) use sqlite::SqliteAdministration;

use crate::{accounts::Account, audit::AuditEntry, auth::store::Revocation};

/// Where an account is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccountState {
    Active,
    /// Its address is still to be proven.
    Pending,
    Suspended,
    Deleted,
}

/// An account and when it was created.
#[derive(Debug, Clone)]
pub(crate) struct AccountRecord {
    pub(crate) account: Account,
    pub(crate) created: Timestamp,
}

impl AccountRecord {
    pub(crate) fn state(&self) -> AccountState {
        let account = &self.account;
        if account.deleted {
            AccountState::Deleted
        } else if account.suspended {
            AccountState::Suspended
        } else if account.is_activated() {
            AccountState::Active
        } else {
            AccountState::Pending
        }
    }
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changed {
    Done,
    /// It was so already; nothing was written.
    Unchanged,
    /// No such account, or a deleted one; nothing was written.
    NotFound,
}

/// An audit record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditRecord {
    /// Greater than those of all records before it.
    pub(crate) number: i64,
    pub(crate) time: Timestamp,
    pub(crate) actor: String,
    pub(crate) who: String,
    pub(crate) action: String,
    pub(crate) subject: String,
    pub(crate) detail: String,
    pub(crate) outcome: String,
}

/// What administration reads and changes. Every change is one step with its audit record.
#[async_trait]
pub(crate) trait AdminStore: Send + Sync {
    /// Accounts with a greater id than `after`, in order of the id.
    async fn page(
        &self,
        after: Option<UserId>,
        state: Option<AccountState>,
        limit: usize,
    ) -> Result<Vec<AccountRecord>, StoreError>;

    /// One account; deleted ones are tombstones.
    async fn get(&self, user: UserId) -> Result<Option<AccountRecord>, StoreError>;

    /// Suspends an account and writes the revocation of its tokens.
    async fn suspend(
        &self,
        user: UserId,
        revocation: Revocation,
        audit: AuditEntry,
        now: Timestamp,
    ) -> Result<Changed, StoreError>;

    /// Takes a suspension back.
    async fn resume(&self, user: UserId, audit: AuditEntry, now: Timestamp) -> Result<Changed, StoreError>;

    /// Sets the hash of the password, removes every cookie and writes the revocation of all tokens.
    async fn set_password(
        &self,
        user: UserId,
        hash: String,
        revocation: Revocation,
        audit: AuditEntry,
        now: Timestamp,
    ) -> Result<Changed, StoreError>;

    /// Writes a record.
    async fn record(&self, audit: AuditEntry, now: Timestamp) -> Result<(), StoreError>;

    /// Records with a smaller number than `before`, greatest first; with a subject only those about it.
    async fn records(
        &self,
        before: Option<i64>,
        subject: Option<String>,
        limit: usize,
    ) -> Result<Vec<AuditRecord>, StoreError>;
}
