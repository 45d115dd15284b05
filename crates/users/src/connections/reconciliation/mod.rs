//! What is known here of the wishes of another backend's users, compared with what that backend says, and brought in line
//! with it by the state machine. Each side does so with its own rows; in the end both agree.
//!
//! Guarantees: a backend is believed about its own users alone; it is told nothing but what it was told before, so that
//! blocking and ignoring stay unknown; a row that has changed since the other backend was asked is left to a later
//! comparison, and so is a pair about which a request is on its way; what clients have to know is written with the repair.
//! One pass is bounded: what is left is done by the next.

mod peers;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aldis_delivery::{Found, Reconcile, ReconcileError};
use aldis_storage::StoreError;
use aldis_types::{Domain, Name, Profile, Qualified, Relation, Timestamp, UserId};
use async_trait::async_trait;

use self::peers::Statement;
pub(crate) use self::peers::{read_pair, write_pair};
use super::{
    ConnectionError, Connections, Decide, Decision, Refusal, Write, events,
    machine::{self, RemoteAction},
    store::{ConnectionRow, OtherSide, Pair},
};
use crate::{detached::detached, events::Effects, peers::MAX_USERS, quotas::Quotas};

/// Wishes in one answer, and rows that are looked at together.
const PAGE: usize = 500;
/// Most wishes in one answer, with those about which a request is on its way.
const MOST: usize = 2 * PAGE;
/// Most pages of one pass.
const MAX_PAGES: usize = 4000;
/// Most connections that one pass repairs.
const MAX_REPAIRS: usize = 500;

/// What we say of a pair to the backend of the second user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) user: UserId,
    pub(crate) other: UserId,
    pub(crate) time: Timestamp,
    pub(crate) unsettled: bool,
}

/// Compares and repairs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Consents {
    connections: Connections,
    quotas: Arc<Quotas>,
}

/// What the other backend's user did, as far as we can tell from its statement and our row.
#[derive(Debug)]
struct Difference {
    pair: Pair,
    row: Option<ConnectionRow>,
    action: RemoteAction,
    /// When it was told, if it is wanted.
    time: Option<Timestamp>,
}

/// What became of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Repaired,
    /// The row has changed meanwhile.
    Waits,
    /// Our user takes no more requests, or is gone.
    Refused,
}

impl From<ConnectionError> for ReconcileError {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::Peer(error) => Self::Peer(error),
            ConnectionError::Store(error) => Self::Store(error),
            error => Self::Service(error.to_string()),
        }
    }
}

/// What brings a row in line with the wish of the other user. Whoever blocks or ignores does not care.
const fn correction(status: Option<Relation>, is_wanted: bool) -> Option<RemoteAction> {
    match (status, is_wanted) {
        (None | Some(Relation::Sent | Relation::Cancelled), true) => Some(RemoteAction::Connect),
        (Some(Relation::Pending | Relation::Accepted), false) => Some(RemoteAction::Rescind),
        _ => None,
    }
}

impl Connections {
    /// A page of what users of ours want of users of `domain`, in order, after a pair, and whether there is more. `None` when
    /// so much is on its way that nothing can be said.
    pub(crate) async fn told(
        &self,
        domain: &Domain,
        after: Option<(UserId, UserId)>,
    ) -> Result<Option<(Vec<Told>, bool)>, StoreError> {
        // Before the snapshot: what ends in between is in it.
        let under_way = self.parts.in_progress.with(domain);
        if under_way.len() > MOST - PAGE {
            return Ok(None);
        }
        let mut rows = self.parts.store.wanted(domain, after, PAGE + 1).await?;
        let more = rows.len() > PAGE;
        rows.truncate(PAGE);
        let last = rows.last().filter(|_| more).map(|row| (row.user, row.other));
        let mut told: BTreeMap<_, _> =
            rows.into_iter().map(|row| ((row.user, row.other), (row.time, !row.known))).collect();
        for pair in under_way {
            if after.is_none_or(|after| pair > after) && last.is_none_or(|last| pair <= last) {
                told.entry(pair).or_default().1 = true;
            }
        }
        let told = told.into_iter().map(|((user, other), (time, unsettled))| Told { user, other, time, unsettled });
        Ok(Some((told.collect(), more)))
    }
}

impl Consents {
    pub(crate) fn new(connections: Connections, quotas: Arc<Quotas>) -> Self {
        Self { connections, quotas }
    }

    /// Compares rows of ours with statements about the same pairs, and repairs them.
    async fn part(
        &self,
        domain: &Domain,
        mut rows: BTreeMap<Pair, ConnectionRow>,
        mut stated: BTreeMap<Pair, Statement>,
        (found, left): (&mut Found, &mut usize),
    ) -> Result<(), ReconcileError> {
        found.compared += rows.len() as u64;
        let known: BTreeSet<UserId> = rows.keys().map(|(other, _)| *other).collect();
        let pairs: BTreeSet<Pair> = rows.keys().chain(stated.keys()).copied().collect();
        let (mut differences, mut others) = (Vec::new(), BTreeSet::new());
        for pair in pairs {
            let (row, statement) = (rows.remove(&pair), stated.remove(&pair));
            if statement.is_some_and(|statement| statement.unsettled) {
                continue;
            }
            let (status, time) = (row.as_ref().map(|row| row.status), statement.map(|statement| statement.time));
            let action = correction(status, time.is_some());
            let is_unanswered = status == Some(Relation::Sent) && time.is_none();
            if status.is_none() && !self.connections.can_be_connected(pair.1).await? {
                continue;
            }
            if action.is_some() || is_unanswered {
                others.insert(pair.0);
            }
            differences.extend(action.map(|action| Difference { pair, row, action, time }));
        }
        let profiles = self.profiles(domain, others).await?;
        for gone in profiles.values().filter(|profile| profile.deleted && known.contains(&profile.id.id)) {
            self.end(gone.id.clone()).await?;
            found.differing += 1;
            found.repaired += 1;
        }
        for difference in differences {
            let profile = profiles.get(&difference.pair.0);
            if profile.is_some_and(|profile| profile.deleted) {
                continue;
            }
            if difference.action == RemoteAction::Connect && !self.may_connect(domain, profile) {
                continue;
            }
            found.differing += 1;
            if *left == 0 || !self.takes_request(domain, &difference) {
                found.waiting += 1;
                continue;
            }
            *left -= 1;
            match self.repair(domain, difference, profile.map(|profile| profile.name.clone())).await? {
                Outcome::Repaired => found.repaired += 1,
                Outcome::Waits => found.waiting += 1,
                Outcome::Refused => {}
            }
        }
        Ok(())
    }

    async fn profiles(
        &self,
        domain: &Domain,
        others: BTreeSet<UserId>,
    ) -> Result<BTreeMap<UserId, Profile>, ReconcileError> {
        let mut profiles = BTreeMap::new();
        let others: Vec<_> = others.into_iter().collect();
        for some in others.chunks(MAX_USERS) {
            let found = self.connections.parts.peers.get_users(domain, some).await?;
            profiles.extend(found.into_iter().map(|profile| (profile.id.id, profile)));
        }
        Ok(profiles)
    }

    /// Whether somebody of whom it is said that he wants a connection is there, and of a team that may connect.
    fn may_connect(&self, domain: &Domain, profile: Option<&Profile>) -> bool {
        let policy = self.connections.parts.policy.current();
        profile.is_some_and(|profile| policy.allows_team(domain, profile.team))
    }

    /// Requests that appear by a comparison count as if they had been made.
    fn takes_request(&self, domain: &Domain, difference: &Difference) -> bool {
        let is_open = difference.row.as_ref().is_some_and(|row| row.status == Relation::Sent);
        difference.action == RemoteAction::Rescind
            || is_open
            || self.quotas.connection(domain, difference.pair.1).is_ok()
    }

    /// Writes one correction, unless the row has changed since it was read.
    async fn repair(
        &self,
        domain: &Domain,
        difference: Difference,
        name: Option<Name>,
    ) -> Result<Outcome, ReconcileError> {
        let connections = &self.connections;
        let Difference { pair: (other, user), row, action, time } = difference;
        let limit = connections.config.limits.pending_connections;
        let expected = row.clone();
        let decide: Decide = Arc::new(move |sides| {
            if sides.mine != expected {
                return Decision::Keep;
            }
            let Some(status) = machine::after_remote(sides.my_status(), action) else { return Decision::Keep };
            if status == Relation::Pending && sides.pending >= limit {
                return Decision::Refuse(Refusal::PendingLimit);
            }
            let known = expected.as_ref().map(|row| row.remote_time).unwrap_or_default();
            let write = Write { remote_time: time.map(|time| time.max(known)), ..Write::announced(status) };
            Decision::Write { mine: Some(write), theirs: None }
        });
        let other = Qualified::new(other, domain.clone());
        let change = connections.remote_change(user, other, decide, connections.remote_effects(user, name));
        let store = connections.parts.store.clone();
        let changed = detached(async move { store.change(change).await }).await?;
        Ok(match changed.refused {
            Some(_) => Outcome::Refused,
            None if changed.before != row => Outcome::Waits,
            None => Outcome::Repaired,
        })
    }

    /// An account is gone, and we have not heard of it.
    async fn end(&self, gone: Qualified<UserId>) -> Result<(), ReconcileError> {
        let parts = &self.connections.parts;
        let (domain, now, who) = (parts.domain.clone(), parts.clock.now(), gone.clone());
        let effects: Effects<Vec<OtherSide>> =
            Arc::new(move |sides: &Vec<OtherSide>| events::of_departure(&who, sides, &domain, now));
        let store = parts.store.clone();
        Ok(detached(async move { store.end(gone, effects).await }).await?)
    }
}

#[async_trait]
impl Reconcile for Consents {
    async fn known(&self) -> Result<Vec<Domain>, StoreError> {
        let parts = &self.connections.parts;
        parts.store.backends(&parts.domain).await
    }

    async fn pass(&self, domain: &Domain, both: bool) -> Result<Found, ReconcileError> {
        let parts = &self.connections.parts;
        let (mut found, mut left, mut after) = (Found::default(), MAX_REPAIRS, None);
        for _ in 0..MAX_PAGES {
            // In this order: whatever the other backend's users did up to here is in its statement, or marked as unsettled.
            let rows = parts.store.with(domain, after, PAGE).await?;
            let (stated, more) = parts.peers.list_connections(domain, after, both && after.is_none()).await?;
            let ends = [
                rows.last().filter(|_| rows.len() == PAGE).map(|(pair, _)| *pair),
                stated.last().filter(|_| more).map(|(pair, _)| *pair),
            ];
            let end = ends.into_iter().flatten().min();
            let rows = rows.into_iter().filter(|(pair, _)| end.is_none_or(|end| *pair <= end)).collect();
            let stated = stated.into_iter().filter(|(pair, _)| end.is_none_or(|end| *pair <= end)).collect();
            self.part(domain, rows, stated, (&mut found, &mut left)).await?;
            if end.is_none() {
                return Ok(found);
            }
            after = end;
        }
        tracing::warn!(peer.domain = %domain, "too many connections to compare");
        found.waiting += 1;
        Ok(found)
    }
}
