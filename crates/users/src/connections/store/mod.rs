//! Connections, one row per side.

mod sqlite;
#[cfg(test)]
pub(crate) mod suite;

use std::sync::Arc;

use aldis_delivery::{Delivery, Envelope, Positions};
use aldis_storage::StoreError;
use aldis_types::{Domain, Qualified, Relation, Timestamp, UserId};
use async_trait::async_trait;
pub(crate) use sqlite::{SqliteConnections, end_connections};

use crate::events::Effects;

/// One side of a connection: how a user of ours stands to another user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConnectionRow {
    pub(crate) other: Qualified<UserId>,
    pub(crate) status: Relation,
    /// Of the last change; rises with each.
    pub(crate) time: Timestamp,
    /// When the other backend's user did what was applied last, by that backend's clock.
    pub(crate) remote_time: Timestamp,
}

/// A user of another backend, and one of ours.
pub(crate) type Pair = (UserId, UserId);

/// A user of ours wants a connection, as far as the other user's backend was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) user: UserId,
    pub(crate) other: UserId,
    /// When the backend was told so.
    pub(crate) time: Timestamp,
    /// Whether it is known at all.
    pub(crate) known: bool,
}

/// How a user of ours stood to somebody whose account is gone.
pub(crate) type OtherSide = (UserId, ConnectionRow);

/// What a decision is made from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sides {
    pub(crate) mine: Option<ConnectionRow>,
    /// Always `None` for a user of another backend.
    pub(crate) theirs: Option<ConnectionRow>,
    /// My connections in the states sent and accepted.
    pub(crate) open: u32,
    /// My connections in the state pending.
    pub(crate) pending: u32,
}

impl Sides {
    pub(crate) fn my_status(&self) -> Option<Relation> {
        self.mine.as_ref().map(|row| row.status)
    }

    pub(crate) fn their_status(&self) -> Option<Relation> {
        self.theirs.as_ref().map(|row| row.status)
    }
}

/// What is to be written of one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) status: Relation,
    /// The row's time is at least this.
    pub(crate) not_before: Timestamp,
    /// A new time of the other backend.
    pub(crate) remote_time: Option<Timestamp>,
    /// Whether anybody is told.
    pub(crate) announced: bool,
}

impl Write {
    pub(crate) const fn announced(status: Relation) -> Self {
        Self { status, not_before: Timestamp::EPOCH, remote_time: None, announced: true }
    }
}

/// Why a connection does not change as wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The status cannot change so.
    BadUpdate,
    /// There is no connection.
    NotConnected,
    /// Too many connections in the states sent and accepted.
    Limit,
    /// Too many requests are unanswered.
    PendingLimit,
    /// An account has been deleted.
    Gone,
}

/// What is to become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Keep,
    Write { mine: Option<Write>, theirs: Option<Write> },
    Refuse(Refusal),
}

/// Decides from both sides; may be asked again when they changed in between.
pub(crate) type Decide = Arc<dyn Fn(&Sides) -> Decision + Send + Sync>;

/// The sides that were written and are announced.
#[derive(Debug, Clone, Default)]
pub(crate) struct Written {
    pub(crate) mine: Option<ConnectionRow>,
    pub(crate) theirs: Option<ConnectionRow>,
}

/// What became of a change.
#[derive(Debug)]
pub(crate) struct Changed {
    /// My row before.
    pub(crate) before: Option<ConnectionRow>,
    /// My row now.
    pub(crate) after: Option<ConnectionRow>,
    /// The refusal, in which case nothing was written.
    pub(crate) refused: Option<Refusal>,
    /// To wait until our own services know of it.
    pub(crate) delivery: Option<Delivery>,
}

/// A change of a connection.
#[derive(Clone)]
pub(crate) struct Change {
    pub(crate) user: UserId,
    pub(crate) other: Qualified<UserId>,
    /// Whether the other user is ours too, so that there are two sides.
    pub(crate) local: bool,
    pub(crate) now: Timestamp,
    pub(crate) decide: Decide,
    pub(crate) effects: Effects<Written>,
}

/// Connections of users of ours that were cancelled together.
pub(crate) type CancelledRows = Vec<(UserId, ConnectionRow)>;

/// Keeps connections.
#[async_trait]
pub(crate) trait ConnectionStore: Send + Sync {
    /// How a user stands to another.
    async fn get(&self, user: UserId, other: &Qualified<UserId>) -> Result<Option<ConnectionRow>, StoreError>;

    /// A page of a user's connections, ordered by domain and id, from the one after `after` on.
    async fn list(
        &self,
        user: UserId,
        after: Option<Qualified<UserId>>,
        limit: usize,
    ) -> Result<Vec<ConnectionRow>, StoreError>;

    /// How a user stands to each of the others, in their order.
    async fn relations(
        &self,
        user: UserId,
        others: Vec<Qualified<UserId>>,
    ) -> Result<Vec<Option<Relation>>, StoreError>;

    /// How many connections a user has in the states sent and accepted.
    async fn open(&self, user: UserId) -> Result<u32, StoreError>;

    /// Users of `domain`, which is ours, with whom a user has an accepted connection.
    async fn local_contacts(&self, user: UserId, domain: Domain) -> Result<Vec<UserId>, StoreError>;

    /// Other backends with users to whom a user, of the domain `own`, has an accepted connection.
    async fn contact_backends(&self, user: UserId, own: Domain) -> Result<Vec<Domain>, StoreError>;

    /// Decides and writes in one step, both sides and the effects together. Times of a row rise with every change.
    async fn change(&self, change: Change) -> Result<Changed, StoreError>;

    /// Cancels at most `limit` connections with users of `domain`, but for those that are blocked or cancelled already,
    /// as many as fit into one job, and writes the effects; how many those were, 0 only when none is left.
    async fn cancel_some(
        &self,
        domain: &Domain,
        limit: usize,
        now: Timestamp,
        effects: Effects<CancelledRows>,
    ) -> Result<usize, StoreError>;

    /// As [`ConnectionStore::change`], and moves the lane of the envelope that told of it on, in the same step.
    async fn receive(&self, change: Change, positions: Positions, envelope: Envelope) -> Result<Changed, StoreError>;

    /// Removes every connection with a user of another backend whose account is gone, and moves the lane of the envelope
    /// that told of it on, in one step. The effects are made from the connections that there were.
    async fn end_with(
        &self,
        gone: Qualified<UserId>,
        positions: Positions,
        envelope: Envelope,
        effects: Effects<Vec<OtherSide>>,
    ) -> Result<(), StoreError>;

    /// As [`ConnectionStore::end_with`], of an account of which a comparison says that it is gone.
    async fn end(&self, gone: Qualified<UserId>, effects: Effects<Vec<OtherSide>>) -> Result<(), StoreError>;

    /// A page of the connections with users of `domain` that users of ours want, as that backend was told, in ascending
    /// order of (user, other), after a pair; at most `limit`. Blocking changes nothing about it.
    async fn wanted(
        &self,
        domain: &Domain,
        after: Option<(UserId, UserId)>,
        limit: usize,
    ) -> Result<Vec<Wanted>, StoreError>;

    /// A page of all rows about users of `domain`, in ascending order of (other, user), after a pair; at most `limit`.
    async fn with(
        &self,
        domain: &Domain,
        after: Option<Pair>,
        limit: usize,
    ) -> Result<Vec<(Pair, ConnectionRow)>, StoreError>;

    /// Other backends with whose users there are connections.
    async fn backends(&self, own: &Domain) -> Result<Vec<Domain>, StoreError>;

    /// Writes what those who have an accepted connection with `other` are told, and moves the lane of the envelope on,
    /// in one step.
    async fn tell_contacts(
        &self,
        other: Qualified<UserId>,
        positions: Positions,
        envelope: Envelope,
        effects: Effects<Vec<UserId>>,
    ) -> Result<(), StoreError>;

    /// Moves a lane on past an envelope that changes nothing.
    async fn skip(&self, positions: Positions, envelope: Envelope) -> Result<(), StoreError>;
}
