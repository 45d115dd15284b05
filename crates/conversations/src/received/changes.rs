//! Changes of conversations of other backends.

use std::collections::BTreeSet;

use aldis_delivery::{Envelope, Positions, Verdict};
use aldis_proto::federation::v1::members_departed::Reason;
use aldis_types::{Domain, Member, Qualified, RoleName, UserId};

use super::{
    MALFORMED, Received, judged,
    store::{MemberChange, RemoteConversation, StoredRecipients},
};
use crate::{
    events,
    federated::{self, Head, Told},
    groups::{
        error::GroupError,
        json::View,
        model::{Change, LeaveReason, Metadata, Settings},
    },
    push::{self, Cause, Draft},
    users::UsersError,
};

/// What an event means for us.
#[derive(Default)]
struct Meaning {
    rows: MemberChange,
    drafts: Vec<Draft>,
    /// Users of ours whom the owner takes for members, and who are not.
    refused: Vec<UserId>,
}

/// Why an event is not applied.
enum Refusal {
    /// For good.
    Rejected(Verdict),
    /// For now.
    Later(GroupError),
}

impl<E: Into<GroupError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Later(error.into())
    }
}

impl Received {
    /// Applies one change: rows, position and what our users are told in one job.
    pub(super) async fn apply(
        &self,
        origin: &Domain,
        envelope: Envelope,
        head: &Head,
        told: Told,
        positions: &Positions,
    ) -> Verdict {
        let lane = envelope.lane;
        if let Told::Departed { users, reason } = told {
            let position = (positions.clone(), envelope);
            return self.depart(origin, head, &users, reason, position).await;
        }
        let (verdict, meaning) = match self.meaning(origin, head, told).await {
            Ok(meaning) => (Verdict::Applied, meaning),
            Err(Refusal::Rejected(verdict)) => (verdict, Meaning::default()),
            Err(Refusal::Later(error)) => {
                tracing::warn!(%error, "a change of another backend's conversation waits");
                return Verdict::Deferred;
            }
        };
        let mut outgoing = push::rows(head.conversation.id, meaning.drafts, head.time);
        let told = !outgoing.is_empty();
        if !meaning.refused.is_empty() {
            outgoing.push(self.app.departed(&head.conversation, &meaning.refused, Reason::NotAccepted));
        }
        let position = (positions.clone(), judged(envelope, verdict));
        let id = head.conversation.clone();
        match self.app.memberships.apply_event(id, meaning.rows, position, outgoing).await {
            Ok(delivery) => {
                if told {
                    self.watch(origin, lane, delivery).await;
                }
                metrics::counter!("aldis_events_received_total").increment(1);
                verdict
            }
            Err(error) => {
                tracing::error!(%error, "a change of another backend's conversation cannot be stored");
                Verdict::Deferred
            }
        }
    }

    /// Users of the origin are out of a conversation of ours.
    async fn depart(
        &self,
        origin: &Domain,
        head: &Head,
        users: &[UserId],
        reason: Reason,
        position: (Positions, Envelope),
    ) -> Verdict {
        match self.app.take_out_departed(origin, head.conversation.id, users, reason, position).await {
            Ok(()) => {
                metrics::counter!("aldis_events_received_total").increment(1);
                Verdict::Applied
            }
            Err(error) => {
                tracing::warn!(%error, "the departure of another backend's users waits");
                Verdict::Deferred
            }
        }
    }

    async fn meaning(&self, origin: &Domain, head: &Head, told: Told) -> Result<Meaning, Refusal> {
        let stored = self.app.find_elsewhere(&head.conversation).await?;
        let stored = stored.as_deref();
        match told {
            Told::Created { metadata, members } => self.created(origin, head, stored, &metadata, members).await,
            Told::Changed(change) => {
                if self.may_act(&head.actor, stored) {
                    return self.changed(head, stored, change).await;
                }
                match change {
                    Change::Remove { users, reason } if users.as_slice() == std::slice::from_ref(&head.actor) => {
                        self.left_before(head, stored, users, reason).await
                    }
                    _ => Err(Refusal::Rejected(MALFORMED)),
                }
            }
            Told::Deleted => {
                if !self.may_act(&head.actor, stored) {
                    return Err(Refusal::Rejected(MALFORMED));
                }
                Ok(self.deleted(head, stored))
            }
            Told::Message(_) | Told::Departed { .. } => Err(Refusal::Rejected(MALFORMED)),
        }
    }

    /// A user of ours is out who was no member here any more, or never was one: the owner knows it from us. That his
    /// account is gone is news for the others.
    async fn left_before(
        &self,
        head: &Head,
        stored: Option<&RemoteConversation>,
        users: Vec<Qualified<UserId>>,
        reason: LeaveReason,
    ) -> Result<Meaning, Refusal> {
        let recipients = StoredRecipients::everybody(stored, &MemberChange::default());
        let is_news = reason == LeaveReason::UserDeleted
            && !recipients.is_empty()
            && self.app.users.is_deleted(head.actor.id).await?;
        if !is_news {
            return Ok(Meaning::default());
        }
        let envelope = events::Envelope { conversation: &head.conversation, from: &head.actor };
        let event = envelope.changed(&Change::Remove { users, reason });
        Ok(Meaning { drafts: vec![Draft::to_users(recipients.iter(), event, None)], ..Meaning::default() })
    }

    /// Everybody of ours is out.
    fn deleted(&self, head: &Head, stored: Option<&RemoteConversation>) -> Meaning {
        let recipients = StoredRecipients::everybody(stored, &MemberChange::default());
        if recipients.is_empty() {
            return Meaning::default();
        }
        let envelope = events::Envelope { conversation: &head.conversation, from: &head.actor };
        let drafts = vec![Draft::to_users(recipients.iter(), envelope.deleted(), self.cause(head))];
        let rows = MemberChange { leave: recipients.iter().collect(), ..MemberChange::default() };
        Meaning { rows, drafts, ..Meaning::default() }
    }

    /// A peer speaks for our users only if we know them as members.
    pub(super) fn may_act(&self, actor: &Qualified<UserId>, stored: Option<&RemoteConversation>) -> bool {
        actor.domain != self.app.domain || stored.is_some_and(|stored| stored.contains(actor.id))
    }

    fn cause(&self, head: &Head) -> Option<Cause> {
        let connection = head.connection.filter(|_| head.actor.domain == self.app.domain)?;
        Some(Cause { user: head.actor.id, connection })
    }

    /// Those of our users among the members whom the actor may have added.
    async fn admissible(
        &self,
        members: &[Member],
        stored: Option<&RemoteConversation>,
        actor: &Qualified<UserId>,
    ) -> Result<BTreeSet<UserId>, UsersError> {
        let own = members.iter().filter(|member| member.user.domain == self.app.domain).map(|member| member.user.id);
        let (mut known, new): (BTreeSet<_>, BTreeSet<_>) =
            own.partition(|user| stored.is_some_and(|stored| stored.contains(*user)));
        let connected = self.app.users.connected(&new, actor).await?;
        if connected.len() < new.len() {
            tracing::warn!(refused = new.len() - connected.len(), "a backend adds users of ours without a connection");
        }
        known.extend(connected);
        Ok(known)
    }

    async fn created(
        &self,
        origin: &Domain,
        head: &Head,
        stored: Option<&RemoteConversation>,
        metadata: &Metadata,
        members: Vec<Member>,
    ) -> Result<Meaning, Refusal> {
        if head.actor.domain != *origin || !federated::may_be_told(metadata.kind) {
            return Err(Refusal::Rejected(MALFORMED));
        }
        let ours = self.admissible(&members, stored, &head.actor).await?;
        let refused = self.refused(&members, &ours);
        let rows = MemberChange { join: ours, leave: BTreeSet::new() };
        let recipients = StoredRecipients::everybody(stored, &rows);
        let seen = |member: &&Member| member.user.domain != self.app.domain || recipients.contains(member.user.id);
        let members: Vec<&Member> = members.iter().filter(seen).collect();
        let envelope = events::Envelope { conversation: &head.conversation, from: &head.actor };
        let drafts = recipients
            .iter()
            .map(|user| {
                let me = self.app.own_user(user);
                let role = members.iter().find(|member| member.user == me).map(|member| member.role.clone());
                let view = View {
                    id: head.conversation.clone(),
                    metadata,
                    me: &Member { user: me.clone(), role: role.unwrap_or_else(RoleName::member) },
                    settings: &Settings::default(),
                    others: members.iter().copied().filter(|member| member.user != me).collect(),
                };
                Draft::to_users([user], envelope.created(&view), None)
            })
            .collect();
        Ok(Meaning { rows, drafts, refused })
    }

    /// Users of ours whom the owner added in vain.
    fn refused(&self, members: &[Member], admitted: &BTreeSet<UserId>) -> Vec<UserId> {
        let own = members.iter().map(|member| &member.user).filter(|user| user.domain == self.app.domain);
        own.map(|user| user.id).filter(|user| !admitted.contains(user)).collect()
    }

    async fn changed(
        &self,
        head: &Head,
        stored: Option<&RemoteConversation>,
        change: Change,
    ) -> Result<Meaning, Refusal> {
        let own = &self.app.domain;
        let known =
            |user: &Qualified<UserId>| user.domain != *own || stored.is_some_and(|stored| stored.contains(user.id));
        let mut rows = MemberChange::default();
        let mut refused = Vec::new();
        // What the event says of users of ours that are not members is left out of it.
        let change = match change {
            Change::Add(mut members) => {
                let ours = self.admissible(&members, stored, &head.actor).await?;
                refused = self.refused(&members, &ours);
                members.retain(|member| member.user.domain != *own || ours.contains(&member.user.id));
                rows.join = ours;
                (!members.is_empty()).then_some(Change::Add(members))
            }
            Change::Remove { mut users, reason } => {
                users.retain(|user| known(user));
                rows.leave = users.iter().filter(|user| user.domain == *own).map(|user| user.id).collect();
                (!users.is_empty()).then_some(Change::Remove { users, reason })
            }
            Change::SetRole(member) => known(&member.user).then_some(Change::SetRole(member)),
            change @ (Change::Rename(_)
            | Change::SetMessageTimer(_)
            | Change::SetReceiptMode(_)
            | Change::SetAccess { .. }) => Some(change),
        };
        let recipients = StoredRecipients::everybody(stored, &rows);
        let mut drafts = Vec::new();
        if let Some(change) = change
            && !recipients.is_empty()
        {
            let envelope = events::Envelope { conversation: &head.conversation, from: &head.actor };
            drafts.push(Draft::to_users(recipients.iter(), envelope.changed(&change), self.cause(head)));
        }
        Ok(Meaning { rows, drafts, refused })
    }
}
