//! Who is in which conversation, in the order in which it is compared.

mod sqlite;

use std::collections::BTreeMap;

use aldis_delivery::{LaneEnd, LaneEnds};
use aldis_storage::StoreError;
use aldis_types::{ConversationId, Domain, Qualified};
use async_trait::async_trait;

pub(crate) use sqlite::SqliteReconciliation;

use super::digest::{Digest, Users};

/// Whose side of the memberships.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Users of the other backend in conversations of ours.
    Theirs,
    /// Users of ours in conversations of the other backend.
    Ours,
}

/// Conversations of ours with the users of another backend, and where the lanes for it end at the same moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    pub memberships: Vec<(ConversationId, Users)>,
    /// In the order of `memberships`.
    pub ends: LaneEnds,
    /// Whether there are more conversations.
    pub more: bool,
}

/// Reads memberships. Derived one-to-one conversations are left out everywhere.
#[async_trait]
pub(crate) trait ReconciliationStore: Send + Sync {
    /// One digest per bucket, and how many memberships those are.
    async fn digests(&self, side: Side, domain: &Domain) -> Result<(Vec<Digest>, u64), StoreError>;

    /// A page of one bucket's conversations of ours with users of `domain`, in ascending order, after one; at most `limit`.
    /// `None` while nothing can be said because `domain` is still to be told what is older.
    async fn page(
        &self,
        domain: &Domain,
        bucket: u8,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Option<Page>, StoreError>;

    /// The same of certain conversations, in their order.
    async fn some(&self, domain: &Domain, conversations: Vec<ConversationId>) -> Result<Option<Page>, StoreError>;

    /// Users of ours in conversations of `domain`, of one bucket; at most `limit` conversations. `None` when there are more.
    async fn places(
        &self,
        domain: &Domain,
        bucket: u8,
        limit: usize,
    ) -> Result<Option<BTreeMap<ConversationId, Users>>, StoreError>;

    /// Where what the owner of a conversation is told of it ends; `None` while something of it waits.
    async fn told(&self, conversation: &Qualified<ConversationId>) -> Result<Option<LaneEnd>, StoreError>;

    /// Backends in whose conversations users of ours are.
    async fn owners(&self) -> Result<Vec<Domain>, StoreError>;
}
