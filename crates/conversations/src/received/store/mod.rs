//! Our users in conversations of other backends: who is in, and what each has set for himself.

mod sqlite;
#[cfg(test)]
pub(crate) mod suite;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aldis_delivery::{Delivery, Envelope, LaneEnd, Outgoing, Place, Positions};
use aldis_storage::StoreError;
use aldis_types::{ConversationId, Domain, Qualified, UserId};
use async_trait::async_trait;

pub(crate) use sqlite::SqliteMemberships;

use crate::groups::{
    model::{Settings, SettingsUpdate},
    store::{Effects, Mark},
};

/// Our users in one conversation of another backend; there is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteConversation {
    /// The conversation.
    pub id: Qualified<ConversationId>,
    members: BTreeMap<UserId, Settings>,
}

impl RemoteConversation {
    /// Whether the user is in.
    pub(crate) fn contains(&self, user: UserId) -> bool {
        self.members.contains_key(&user)
    }

    /// Our users in it.
    pub(crate) fn users(&self) -> impl Iterator<Item = UserId> + '_ {
        self.members.keys().copied()
    }

    /// What the user has set; `None` when he is not in.
    pub(crate) fn settings(&self, user: UserId) -> Option<&Settings> {
        self.members.get(&user)
    }
}

/// Users of ours who are stored members of a conversation, before or with the change that they are told of. Whatever a
/// peer says is pushed to these and nobody else: there is no other way to make one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StoredRecipients(BTreeSet<UserId>);

impl StoredRecipients {
    /// Everybody who is stored, and everybody who is stored with this change.
    pub(crate) fn everybody(conversation: Option<&RemoteConversation>, change: &MemberChange) -> Self {
        let stored = conversation.into_iter().flat_map(|conversation| conversation.members.keys().copied());
        Self(stored.chain(change.join.iter().copied()).collect())
    }

    /// Whether the user is one.
    pub(crate) fn contains(&self, user: UserId) -> bool {
        self.0.contains(&user)
    }

    /// Whether there is nobody.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Who they are.
    pub(crate) fn iter(&self) -> impl Iterator<Item = UserId> + '_ {
        self.0.iter().copied()
    }
}

/// Which of our users are in from now on, and which no longer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MemberChange {
    /// New members; those who are in already keep their settings.
    pub join: BTreeSet<UserId>,
    /// They lose their settings.
    pub leave: BTreeSet<UserId>,
}

/// What follows from a statement of the owner, made from who is in. Runs inside the write job.
pub(crate) type Repair = Box<dyn FnOnce(Option<&RemoteConversation>) -> (MemberChange, Vec<Outgoing>) + Send>;

/// What became of a repair.
#[derive(Debug)]
pub(crate) enum Repaired {
    /// The owner's statement is of another moment, or the conversation is a derived one; nothing was written.
    Waits,
    /// There was nothing to do.
    Alike,
    /// It is durable.
    Done(Delivery),
}

/// Makes what users are told. Runs inside the write job.
pub(crate) type Told = Box<dyn FnOnce(&BTreeSet<UserId>) -> Vec<Outgoing> + Send>;

/// Memberships of our users elsewhere.
#[async_trait]
pub(crate) trait MembershipStore: Send + Sync {
    /// The conversations in which at least one of our users is; every change that was answered is seen.
    async fn load(&self, ids: &[Qualified<ConversationId>]) -> Result<Vec<Arc<RemoteConversation>>, StoreError>;

    /// At most `limit` places of our users in conversations of a backend, in order, after one.
    async fn places(
        &self,
        domain: &Domain,
        after: Option<(ConversationId, UserId)>,
        limit: usize,
    ) -> Result<Vec<(ConversationId, UserId)>, StoreError>;

    /// Applies an event of the owner: rows, the lane's position and what our users are told, in one job.
    async fn apply_event(
        &self,
        id: Qualified<ConversationId>,
        change: MemberChange,
        position: (Positions, Envelope),
        outgoing: Vec<Outgoing>,
    ) -> Result<Delivery, StoreError>;

    /// Brings our users' places in a conversation in line with what its owner stated at a place of its lane, which must be
    /// the one that is applied here: rows, and what is told, in one job. Where users of ours may join, `told` is where what
    /// we tell the owner of the conversation ended before he was asked; nothing may have been added to it.
    async fn repair(
        &self,
        id: Qualified<ConversationId>,
        stated: Place,
        told: Option<LaneEnd>,
        repair: Repair,
    ) -> Result<Repaired, StoreError>;

    /// Brings a one-to-one conversation in line with a relation; `None` when the stored mark is newer.
    async fn apply_relation(
        &self,
        id: Qualified<ConversationId>,
        change: MemberChange,
        mark: Mark,
        outgoing: Vec<Outgoing>,
    ) -> Result<Option<Delivery>, StoreError>;

    /// Forgets at most `limit` places of our users in conversations of a backend, as many as fit into one job, and
    /// writes what those users are told; how many places those were, 0 only when none is left.
    async fn forget_some(&self, domain: &Domain, limit: usize, told: Told) -> Result<usize, StoreError>;

    /// Forgets one of our users in a conversation, and appends what its owner is told.
    async fn forget(
        &self,
        id: Qualified<ConversationId>,
        user: UserId,
        outgoing: Vec<Outgoing>,
    ) -> Result<(), StoreError>;

    /// Moves lanes on past envelopes whose effect is durable, in order.
    async fn advance(&self, positions: Positions, envelopes: Vec<Envelope>) -> Result<(), StoreError>;

    /// Appends rows that belong to no change.
    async fn tell(&self, outgoing: Vec<Outgoing>) -> Result<Delivery, StoreError>;

    /// Changes what one of our users has set for himself; `None` when he is not in.
    async fn update_settings(
        &self,
        id: Qualified<ConversationId>,
        user: UserId,
        update: SettingsUpdate,
        effects: Effects,
    ) -> Result<Option<Delivery>, StoreError>;
}
