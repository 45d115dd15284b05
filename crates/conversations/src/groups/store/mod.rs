//! Where conversations of ours are kept: one partition each, with a head that every change advances by one step.

mod rows;
mod sqlite;
#[cfg(test)]
pub(crate) mod suite;

use std::sync::Arc;

use aldis_delivery::{Delivery, Envelope, Outgoing, Positions};
use aldis_storage::StoreError;
use aldis_types::{ConversationId, Domain, Member, Qualified, Relation, Timestamp, UserId};
use async_trait::async_trait;
use bytes::Bytes;

pub(crate) use rows::{MIGRATIONS, SettingsRow, index, put_mark, unindex};
pub(crate) use sqlite::SqliteConversations;

use super::model::{Conversation, Metadata, SettingsUpdate, StoredMember};

/// Where a change stands in its conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Later than that of everything before it.
    pub time: Timestamp,
    /// The version of the conversation afterwards.
    pub version: u64,
    /// Counts changes and messages.
    pub sequence: u64,
}

impl Stamp {
    /// Where the change stands that comes `number` after this one, in the same step.
    pub(crate) fn after(self, number: u32) -> Self {
        let count = u64::from(number);
        Self {
            time: Timestamp::from_millis(self.time.millis().saturating_add(i64::from(number))),
            version: self.version + count,
            sequence: self.sequence + count,
        }
    }
}

/// Names a request whose answer is kept, so that a retry gets the first one.
pub(crate) type AnswerKey = [u8; 32];

/// What is written with a change.
#[derive(Default)]
pub(crate) struct Written {
    /// What others are told.
    pub outgoing: Vec<Outgoing>,
    /// Kept under the key of the step.
    pub answer: Bytes,
    /// The event of another backend that the change answers; its lane moves on.
    pub position: Option<(Positions, Envelope)>,
}

/// Makes what is written with a step once the stamp of its first change is known. Runs inside the write job: it should be cheap.
pub(crate) type Effects = Box<dyn FnOnce(&Stamp) -> Written + Send>;

/// How a conditional step ended.
#[derive(Debug)]
pub(crate) enum Step {
    /// It is durable.
    Done(Committed),
    /// A step with this key was done before; its answer.
    Answered(Bytes),
    /// The conversation is not as expected; nothing was written.
    Conflict,
}

/// A durable step.
#[derive(Debug)]
pub(crate) struct Committed {
    /// Where its first change stands.
    pub stamp: Stamp,
    /// For those who wait until our own services know.
    pub delivery: Delivery,
}

/// What changes in the rows of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Edit {
    /// Members that are new.
    pub add: Vec<Member>,
    /// Members that are no longer.
    pub remove: Vec<Qualified<UserId>>,
    /// A member with a new role.
    pub role: Option<Member>,
    /// The metadata afterwards, when it changes.
    pub metadata: Option<Metadata>,
}

impl Edit {
    /// The conversation afterwards; its version is one more.
    pub(crate) fn apply(&self, conversation: &Conversation) -> Conversation {
        let mut after = conversation.clone();
        after.version += 1;
        after.members.retain(|stored| !self.remove.contains(&stored.member.user));
        after.members.extend(
            self.add
                .iter()
                .map(|member| StoredMember { member: member.clone(), settings: super::model::Settings::default() }),
        );
        after.members.sort_by(|a, b| a.member.user.cmp(&b.member.user));
        if let Some(role) = &self.role {
            for stored in &mut after.members {
                if stored.member.user == role.user {
                    stored.member.role = role.role.clone();
                }
            }
        }
        if let Some(metadata) = &self.metadata {
            after.metadata = metadata.clone();
        }
        after
    }
}

/// The relation of one of our users that a one-to-one conversation was last brought in line with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The conversation of the two.
    pub conversation: ConversationId,
    /// Whose relation.
    pub user: UserId,
    /// When the relation changed.
    pub time: Timestamp,
    /// What it is.
    pub relation: Option<Relation>,
}

/// Conversations of ours, the index of every user's conversations, and answers to retried requests.
#[async_trait]
pub(crate) trait ConversationStore: Send + Sync {
    /// The conversations that exist, in no set order; every change that was answered is seen.
    async fn load(&self, ids: &[ConversationId]) -> Result<Vec<Arc<Conversation>>, StoreError>;

    /// Creates a conversation with version 1; `Conflict` when there is one with this id, or when `mark` is older than
    /// the one stored.
    async fn create(&self, new: Conversation, mark: Option<Mark>, effects: Effects) -> Result<Step, StoreError>;

    /// Changes the conversation if it is still of `version`, which rises by one with each edit; `Conflict` otherwise, or
    /// when `mark` is older than the one stored. There is at least one; each has a stamp of its own, and all or none take effect. Members that
    /// leave lose their settings and their place in the index.
    async fn change(
        &self,
        id: ConversationId,
        version: u64,
        edits: Vec<Edit>,
        mark: Option<Mark>,
        key: Option<AnswerKey>,
        effects: Effects,
    ) -> Result<Step, StoreError>;

    /// Gives a message its place if the conversation is still of `version`.
    async fn record_message(
        &self,
        id: ConversationId,
        version: u64,
        key: Option<AnswerKey>,
        effects: Effects,
    ) -> Result<Step, StoreError>;

    /// Changes what one of our users has set for himself; `None` when he is not a member. The version stays.
    async fn update_settings(
        &self,
        id: ConversationId,
        user: UserId,
        update: SettingsUpdate,
        effects: Effects,
    ) -> Result<Option<Committed>, StoreError>;

    /// The answer that was kept under the key in the last 24 hours.
    async fn answer(&self, key: AnswerKey) -> Result<Option<Bytes>, StoreError>;

    /// Forgets answers that are older, in short jobs; how many.
    async fn sweep_answers(&self, before: Timestamp) -> Result<u64, StoreError>;

    /// Whether one of our users is in a conversation of another backend, whichever, that has this id.
    async fn is_in_elsewhere(&self, user: UserId, id: ConversationId) -> Result<bool, StoreError>;

    /// Conversations of ours that one of our users is in, in ascending order of the id, from the one after `after` on.
    async fn list_own(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError>;

    /// Conversations of ours with members of a backend, in ascending order of the id, from the one after `after` on.
    async fn list_with_backend(
        &self,
        domain: &Domain,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError>;

    /// Conversations of other backends that one of our users is in, ordered by domain and id.
    async fn list_remote(
        &self,
        user: UserId,
        after: Option<Qualified<ConversationId>>,
        limit: usize,
    ) -> Result<Vec<Qualified<ConversationId>>, StoreError>;

    /// What a one-to-one conversation was last brought in line with.
    async fn mark(&self, conversation: ConversationId, user: UserId) -> Result<Option<Mark>, StoreError>;

    /// Notes a relation that changes nothing else; an older one than the stored is ignored.
    async fn set_mark(&self, mark: Mark) -> Result<(), StoreError>;
}
