//! Users who are no longer members although nobody asked for it: their accounts are gone, or their own backend does not
//! let them be added.

use aldis_delivery::{Envelope, Outgoing, Peer, Positions};
use aldis_proto::federation::v1::members_departed::Reason;
use aldis_types::{ConversationId, ConversationType, Domain, Qualified, UserId};
use prost::Message;

use super::{
    effects::{self, Actor},
    error::GroupError,
    model::{Change, LeaveReason},
    store::{Edit, Stamp, Step, Written},
};
use crate::{app::App, federated};

/// Conversations per page.
const PAGE: usize = 500;
/// How often one is tried anew because another change came between.
const MAX_CONFLICTS: usize = 16;

/// Where an event of another backend stands in its lane.
type Position = (Positions, Envelope);

impl App {
    /// Removes a user from our conversations, whose other members are told, and from those of other backends, whose
    /// owners are told. Idempotent.
    pub(crate) async fn remove_user(&self, user: UserId) -> Result<(), GroupError> {
        let gone = self.own_user(user);
        let mut after = None;
        loop {
            let page = self.store.list_own(user, after, PAGE).await?;
            for id in &page {
                self.take_out(*id, std::slice::from_ref(&gone), LeaveReason::UserDeleted, None).await?;
            }
            after = page.last().copied();
            if page.len() < PAGE {
                break;
            }
        }
        let mut after: Option<Qualified<ConversationId>> = None;
        loop {
            let page = self.store.list_remote(user, after.clone(), PAGE).await?;
            for id in &page {
                let told = self.departed(id, &[user], Reason::UserDeleted);
                self.memberships.forget(id.clone(), user, vec![told]).await?;
            }
            after = page.last().cloned();
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// What the owner of a conversation is told about users of ours who are not in it.
    pub(crate) fn departed(
        &self,
        conversation: &Qualified<ConversationId>,
        users: &[UserId],
        reason: Reason,
    ) -> Outgoing {
        let (kind, event) = federated::write_departed(&self.domain, conversation.id, users, reason, self.clock.now());
        Outgoing {
            peer: Peer::Backend(conversation.domain.clone()),
            lane: *conversation.id.as_bytes(),
            kind,
            body: event.encode_to_vec().into(),
        }
    }

    /// Takes users of another backend out of a conversation of ours, as that backend tells us to, and moves its lane on
    /// in the same step.
    pub(crate) async fn take_out_departed(
        &self,
        origin: &Domain,
        id: ConversationId,
        users: &[UserId],
        reason: Reason,
        position: Position,
    ) -> Result<(), GroupError> {
        let users: Vec<_> = users.iter().map(|user| Qualified::new(*user, origin.clone())).collect();
        let reason = match reason {
            Reason::UserDeleted => LeaveReason::UserDeleted,
            Reason::NotAccepted | Reason::Unspecified => LeaveReason::Left,
        };
        if !self.take_out(id, &users, reason, Some(position.clone())).await? {
            let (positions, envelope) = position;
            self.memberships.advance(positions, vec![envelope]).await?;
        }
        Ok(())
    }

    /// Each of the users who is a member leaves by himself; whether anybody did. Of one-to-one conversations nobody is
    /// told: the relation of the other one says what becomes of it.
    async fn take_out(
        &self,
        id: ConversationId,
        users: &[Qualified<UserId>],
        reason: LeaveReason,
        position: Option<Position>,
    ) -> Result<bool, GroupError> {
        for _ in 0..MAX_CONFLICTS {
            let Some(before) = self.find_own(id).await? else { return Ok(false) };
            let leaving: Vec<_> = users.iter().filter(|user| before.member(user).is_some()).cloned().collect();
            if leaving.is_empty() {
                return Ok(false);
            }
            let (edits, told) = if before.metadata.kind == ConversationType::Regular {
                let steps: Vec<_> = leaving
                    .into_iter()
                    .map(|user| effects::Step {
                        change: Change::Remove { users: vec![user.clone()], reason },
                        actor: Actor { user, connection: None },
                    })
                    .collect();
                self.effects_of(&before, &steps)
            } else {
                (vec![Edit { remove: leaving, ..Edit::default() }], Vec::new())
            };
            let position = position.clone();
            let write =
                move |stamp: &Stamp| Written { outgoing: effects::rows(told, stamp), position, ..Written::default() };
            match self.store.change(id, before.version, edits, None, None, Box::new(write)).await? {
                Step::Done(_) | Step::Answered(_) => return Ok(true),
                Step::Conflict => {}
            }
        }
        Err(GroupError::Busy)
    }
}
