//! One conversation is brought in line with what its owner says.

use std::collections::BTreeMap;

use aldis_delivery::{Outgoing, ReconcileError};
use aldis_proto::federation::v1::members_departed::Reason;
use aldis_types::{ConversationId, Member, Qualified, Relation, UserId};

use super::{Difference, Memberships, Statement, Users};
use crate::{
    app::App,
    events, federated,
    groups::model::{Change, LeaveReason},
    push::{self, Draft},
    received::store::{MemberChange, RemoteConversation, Repaired, StoredRecipients},
    users::UsersError,
};

/// What became of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// There is none any more.
    Alike,
    /// It is gone.
    Repaired,
    /// It may be one; something is on its way.
    Waits,
}

/// What is to become of users of ours whom the owner takes for members.
#[derive(Debug, Clone, Default)]
struct Newcomers {
    /// Who joins, with whom each is connected.
    admitted: BTreeMap<UserId, (Member, Qualified<UserId>)>,
    /// Who is connected with nobody there, or has no account any more; the owner is told.
    refused: Vec<(UserId, Reason)>,
}

impl From<UsersError> for ReconcileError {
    fn from(error: UsersError) -> Self {
        Self::Service(error.to_string())
    }
}

impl Memberships {
    /// Repairs one conversation, unless its lane moves meanwhile.
    pub(super) async fn repair(&self, difference: Difference) -> Result<Outcome, ReconcileError> {
        let app = self.received.app();
        let Difference { mut statement, ours } = difference;
        let (mut told, mut newcomers) = (None, Newcomers::default());
        if !statement.users.is_subset(&ours) {
            // Whom we have just refused may still be a member there: the owner is asked again once he knows all that we told.
            let conversation = statement.conversation.clone();
            told = self.store.told(&conversation).await?;
            if told.is_none() {
                return Ok(Outcome::Waits);
            }
            let again = app.backends.get_memberships(&conversation.domain, &[conversation.id]).await?;
            let Some(again) = again.into_iter().next() else { return Ok(Outcome::Waits) };
            statement = again;
            let unknown: Users = statement.users.difference(&ours).copied().collect();
            if !unknown.is_empty() {
                let Some(found) = self.newcomers(&conversation, unknown).await? else { return Ok(Outcome::Waits) };
                newcomers = found;
            }
        }
        let Statement { conversation, users, place } = statement;
        let nobody_joins = newcomers.admitted.is_empty() && !newcomers.refused.is_empty();
        let (lane, origin) = (place.lane, place.origin.clone());
        let (of, id) = (app.clone(), conversation.clone());
        let change =
            Box::new(move |stored: Option<&RemoteConversation>| of.brought_in_line(&id, &users, stored, newcomers));
        match app.memberships.repair(conversation, place, told, change).await? {
            Repaired::Waits => Ok(Outcome::Waits),
            Repaired::Alike => Ok(Outcome::Alike),
            Repaired::Done(delivery) => {
                self.received.watch(&origin, lane, delivery).await;
                // Whom we refused, the owner has to take out.
                Ok(if nobody_joins { Outcome::Waits } else { Outcome::Repaired })
            }
        }
    }

    /// Whom of our users the conversation may have. `None` when the owner shows it to none of them just now.
    async fn newcomers(
        &self,
        conversation: &Qualified<ConversationId>,
        unknown: Users,
    ) -> Result<Option<Newcomers>, ReconcileError> {
        let app = self.received.app();
        let Some(first) = unknown.first() else { return Ok(None) };
        let me = app.own_user(*first);
        let views = app.backends.get_conversations(&conversation.domain, &me, &[conversation.id]).await?;
        let Some(view) = views.into_iter().next().filter(|view| federated::may_be_told(view.metadata.kind)) else {
            return Ok(None);
        };
        let mut newcomers = Newcomers::default();
        for user in unknown {
            let me = app.own_user(user);
            let Some(member) = view.members.iter().find(|member| member.user == me) else { continue };
            let others: Vec<_> =
                view.members.iter().map(|member| &member.user).filter(|user| **user != me).cloned().collect();
            let relations = app.users.relations(user, &others).await?;
            let friend = others.into_iter().zip(relations).find(|(_, it)| *it == Some(Relation::Accepted));
            match friend {
                Some((friend, _)) => drop(newcomers.admitted.insert(user, (member.clone(), friend))),
                None if app.users.is_deleted(user).await? => newcomers.refused.push((user, Reason::UserDeleted)),
                None => newcomers.refused.push((user, Reason::NotAccepted)),
            }
        }
        Ok(Some(newcomers))
    }
}

impl App {
    /// What follows when the owner takes exactly `stated` of our users for members. Runs inside the write job.
    fn brought_in_line(
        &self,
        id: &Qualified<ConversationId>,
        stated: &Users,
        stored: Option<&RemoteConversation>,
        newcomers: Newcomers,
    ) -> (MemberChange, Vec<Outgoing>) {
        let is_in = |user: &UserId| stored.is_some_and(|stored| stored.contains(*user));
        let leave: Users =
            stored.into_iter().flat_map(RemoteConversation::users).filter(|user| !stated.contains(user)).collect();
        let joining: Vec<_> = newcomers.admitted.into_iter().filter(|(user, _)| !is_in(user)).collect();
        let rows = MemberChange { join: joining.iter().map(|(user, _)| *user).collect(), leave };
        let recipients = StoredRecipients::everybody(stored, &rows);
        let mut joined: BTreeMap<Qualified<UserId>, Vec<Member>> = BTreeMap::new();
        for (_, (member, friend)) in joining {
            joined.entry(friend).or_default().push(member);
        }
        let mut drafts = Vec::new();
        for (friend, members) in joined {
            let event = events::Envelope { conversation: id, from: &friend }.changed(&Change::Add(members));
            drafts.push(Draft::to_users(recipients.iter(), event, None));
        }
        let gone: Vec<_> = rows.leave.iter().map(|user| self.own_user(*user)).collect();
        if let Some(from) = gone.first().cloned() {
            let change = Change::Remove { users: gone, reason: LeaveReason::Removed };
            let event = events::Envelope { conversation: id, from: &from }.changed(&change);
            drafts.push(Draft::to_users(recipients.iter(), event, None));
        }
        let mut outgoing = push::rows(id.id, drafts, self.clock.now());
        for reason in [Reason::NotAccepted, Reason::UserDeleted] {
            let refused: Vec<_> =
                newcomers.refused.iter().filter(|(_, why)| *why == reason).map(|(user, _)| *user).collect();
            if !refused.is_empty() {
                outgoing.push(self.departed(id, &refused, reason));
            }
        }
        (rows, outgoing)
    }
}
