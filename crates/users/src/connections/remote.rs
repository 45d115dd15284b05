//! Connections with users of other backends: our side of them.

use std::sync::Arc;

use aldis_api::Session;
use aldis_delivery::{Envelope, Positions, missed_event_id};
use aldis_types::{Name, Profile, Qualified, Relation, Remote, TeamId, Timestamp, UserId};

use super::{
    Change, Changed, ConnectionError, Connections, Decide, Decision, Refusal, Write, Written, events, exceeds, is_open,
    machine::{self, Action, RemoteAction},
    store::OtherSide,
};
use crate::{
    accounts::Account,
    detached::detached,
    events::Effects,
    peers::{ConnectionRequest, RemoteAnswer},
};

/// What we answer another backend that asks to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Noted; `true` when our user is, or becomes, connected too.
    Noted(bool),
    NotActivated,
    TeamNotFederating,
}

impl Connections {
    /// Asks the other backend, then changes our side as the two answers together say.
    pub(super) async fn connect_remote(
        &self,
        session: Session,
        name: Name,
        other: Remote<UserId>,
    ) -> Result<Changed, ConnectionError> {
        let user = session.user;
        let before = self.parts.store.get(user, other.as_qualified()).await?;
        self.check_team(&other).await?;
        let limit = self.config.limits.connections;
        if !is_open(before.as_ref().map(|row| row.status)) && self.parts.store.open(user).await? >= limit {
            return Err(ConnectionError::Refused(Refusal::Limit));
        }
        let after_last = before.map_or(Timestamp::EPOCH, |row| Timestamp::from_millis(row.time.millis() + 1));
        let time = self.parts.clock.now().max(after_last);
        // From here on the other backend may know of the request: our side must follow whatever becomes of the caller.
        let this = self.clone();
        let under_way = self.parts.in_progress.begin(user, other.as_qualified().clone());
        detached(async move {
            let _under_way = under_way;
            let request = ConnectionRequest { from: user, from_name: name.clone(), time };
            let reacts = match this.parts.peers.request_connection(&request, &other).await? {
                RemoteAnswer::Connected(reacts) => reacts,
                RemoteAnswer::NotActivated => return Err(ConnectionError::InvalidUser),
                RemoteAnswer::TeamNotFederating => return Err(ConnectionError::TeamNotFederating),
            };
            let decide: Decide = Arc::new(move |sides| {
                let before = sides.my_status();
                let mut after = machine::after(before, Action::Connect);
                if reacts {
                    after = machine::after_remote(after, RemoteAction::Connect).or(after);
                }
                let Some(status) = after else { return Decision::Keep };
                if exceeds(sides, after, limit) {
                    return Decision::Refuse(Refusal::Limit);
                }
                // The time is kept even when nothing else changes: what follows must be later for the other backend.
                let mine = Write { not_before: time, announced: after != before, ..Write::announced(status) };
                Decision::Write { mine: Some(mine), theirs: None }
            });
            let domain = this.parts.domain.clone();
            let effects: Effects<Written> = Arc::new(move |written: &Written| {
                let mine = written.mine.iter();
                mine.flat_map(|row| events::of_own_change(&session, row, &domain, &name)).collect()
            });
            this.apply(this.remote_change(user, other.into_qualified(), decide, effects)).await
        })
        .await
    }

    /// Blocks, ignores or takes back; connects where there is something to connect.
    pub(super) async fn update_remote(
        &self,
        session: Session,
        me: Account,
        other: Remote<UserId>,
        wanted: Relation,
    ) -> Result<Changed, ConnectionError> {
        let bad = ConnectionError::Refused(Refusal::BadUpdate);
        let action = Action::towards(wanted).ok_or(bad)?;
        let user = session.user;
        if action == Action::Connect {
            let row = self.parts.store.get(user, other.as_qualified()).await?;
            let row = row.ok_or(ConnectionError::Refused(Refusal::NotConnected))?;
            if row.status != wanted {
                if !me.is_activated() {
                    return Err(ConnectionError::NotActivated);
                }
                return self.connect_remote(session, me.name, other).await;
            }
        }
        let decide: Decide = Arc::new(move |sides| {
            let before = sides.my_status();
            if before == Some(wanted) {
                return Decision::Keep;
            }
            match machine::after(before, action) {
                Some(status) => Decision::Write { mine: Some(Write::announced(status)), theirs: None },
                None if before.is_none() => Decision::Refuse(Refusal::BadUpdate),
                None => Decision::Keep,
            }
        });
        let domain = self.parts.domain.clone();
        let effects: Effects<Written> = Arc::new(move |written: &Written| {
            let Some(mine) = &written.mine else { return Vec::new() };
            let mut effects = Vec::from(events::of_own_change(&session, mine, &domain, &me.name));
            if action == Action::Rescind {
                effects.push(events::rescinded(user, mine));
            }
            effects
        });
        self.apply(self.remote_change(user, other.into_qualified(), decide, effects)).await
    }

    pub(super) fn remote_change(
        &self,
        user: UserId,
        other: Qualified<UserId>,
        decide: Decide,
        effects: Effects<Written>,
    ) -> Change {
        Change { user, other, local: false, now: self.parts.clock.now(), decide, effects }
    }

    /// Whether our policy lets users of the other one's team connect. The profile is fetched only when it matters.
    async fn check_team(&self, other: &Remote<UserId>) -> Result<(), ConnectionError> {
        let policy = self.parts.policy.current();
        let restricted = policy.remotes.get(other.domain()).is_some_and(|remote| remote.teams.is_some());
        if !restricted {
            return Ok(());
        }
        let found = self.parts.peers.get_users(other.domain(), &[*other.id()]).await?;
        let profile = found.into_iter().next().ok_or(ConnectionError::InvalidUser)?;
        if policy.allows_team(other.domain(), profile.team) { Ok(()) } else { Err(ConnectionError::TeamNotFederating) }
    }

    /// Another backend's user asks to connect with one of ours.
    pub(crate) async fn asked(
        &self,
        from: Qualified<UserId>,
        from_name: Name,
        from_team: Option<TeamId>,
        to: UserId,
        time: Timestamp,
    ) -> Result<Asked, ConnectionError> {
        if !self.can_be_connected(to).await? {
            return Ok(Asked::NotActivated);
        }
        if !self.parts.policy.current().allows_team(&from.domain, from_team) {
            return Ok(Asked::TeamNotFederating);
        }
        let limit = self.config.limits.pending_connections;
        let decide = remote_decision(RemoteAction::Connect, time, limit);
        let change = self.remote_change(to, from, decide, self.remote_effects(to, Some(from_name)));
        match self.apply(change).await {
            Ok(changed) => Ok(Asked::Noted(machine::reacts(changed.after.map(|row| row.status)))),
            Err(ConnectionError::Refused(Refusal::Gone)) => Ok(Asked::NotActivated),
            Err(error) => Err(error),
        }
    }

    /// Another backend's user has taken back a request or a connection.
    pub(crate) async fn taken_back(
        &self,
        from: Qualified<UserId>,
        to: UserId,
        time: Timestamp,
        positions: Positions,
        envelope: Envelope,
    ) -> Result<(), ConnectionError> {
        let decide = remote_decision(RemoteAction::Rescind, time, u32::MAX);
        let change = self.remote_change(to, from, decide, self.remote_effects(to, None));
        let store = self.parts.store.clone();
        detached(async move {
            store.receive(change, positions, envelope).await?;
            Ok(())
        })
        .await
    }

    /// The account of another backend's user is gone.
    pub(crate) async fn departed(
        &self,
        gone: Qualified<UserId>,
        positions: Positions,
        envelope: Envelope,
    ) -> Result<(), ConnectionError> {
        let (domain, now, who) = (self.parts.domain.clone(), self.parts.clock.now(), gone.clone());
        let effects: Effects<Vec<OtherSide>> =
            Arc::new(move |sides: &Vec<OtherSide>| events::of_departure(&who, sides, &domain, now));
        let store = self.parts.store.clone();
        detached(async move { Ok(store.end_with(gone, positions, envelope, effects).await?) }).await
    }

    /// Another backend's user has changed the profile.
    pub(crate) async fn profile_changed(
        &self,
        profile: Profile,
        positions: Positions,
        envelope: Envelope,
    ) -> Result<(), ConnectionError> {
        let (store, other) = (self.parts.store.clone(), profile.id.clone());
        let effects: Effects<Vec<UserId>> =
            Arc::new(move |contacts: &Vec<UserId>| events::of_profile(&profile, contacts));
        detached(async move { Ok(store.tell_contacts(other, positions, envelope, effects).await?) }).await
    }

    /// Something that another backend's user did was dropped before it came.
    pub(crate) async fn missed(
        &self,
        user: Qualified<UserId>,
        positions: Positions,
        envelope: Envelope,
    ) -> Result<(), ConnectionError> {
        let (store, id, who) = (self.parts.store.clone(), missed_event_id(envelope.event_id), user.id);
        let effects: Effects<Vec<UserId>> =
            Arc::new(move |contacts: &Vec<UserId>| events::of_missed(who, contacts, id));
        detached(async move { Ok(store.tell_contacts(user, positions, envelope, effects).await?) }).await
    }

    pub(super) fn remote_effects(&self, user: UserId, actor: Option<Name>) -> Effects<Written> {
        let domain = self.parts.domain.clone();
        Arc::new(move |written: &Written| {
            let mine = written.mine.iter();
            mine.flat_map(|row| events::of_others_change(user, row, &domain, actor.as_ref())).collect()
        })
    }
}

/// Applies what the other backend's user did, unless something newer was applied already.
fn remote_decision(action: RemoteAction, time: Timestamp, pending_limit: u32) -> Decide {
    Arc::new(move |sides| {
        if sides.mine.as_ref().is_some_and(|row| time <= row.remote_time) {
            return Decision::Keep;
        }
        let before = sides.my_status();
        let after = machine::after_remote(before, action);
        let Some(status) = after.or(before) else { return Decision::Keep };
        if status == Relation::Pending && before != after && sides.pending >= pending_limit {
            return Decision::Refuse(Refusal::PendingLimit);
        }
        let announced = before != Some(status);
        let write = Write { status, not_before: Timestamp::EPOCH, remote_time: Some(time), announced };
        Decision::Write { mine: Some(write), theirs: None }
    })
}
