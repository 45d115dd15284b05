//! Mails on their way.

mod sqlite;
#[cfg(test)]
pub(crate) mod suite;

use aldis_storage::StoreError;
use aldis_types::{Email, Timestamp};
use async_trait::async_trait;
pub(crate) use sqlite::{SqliteMail, enqueue};

use super::Purpose;

/// A mail that is not delivered yet.
#[derive(Debug, Clone)]
pub(crate) struct StoredMail {
    pub(crate) id: i64,
    pub(crate) recipient: Email,
    pub(crate) purpose: Purpose,
    pub(crate) key: String,
    pub(crate) code: String,
    pub(crate) created: Timestamp,
    pub(crate) expires: Timestamp,
    pub(crate) attempts: u32,
}

/// Keeps mails until they are delivered or expire. They are written by the stores whose changes want them.
#[async_trait]
pub(crate) trait MailStore: Send + Sync {
    /// Mails whose next attempt is at or before `now`, oldest first.
    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<StoredMail>, StoreError>;

    /// When the next attempt is due; `None` without mails.
    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Counts an attempt and puts the next one off.
    async fn retry(&self, id: i64, next: Timestamp) -> Result<(), StoreError>;

    /// Forgets a mail.
    async fn remove(&self, id: i64) -> Result<(), StoreError>;
}
