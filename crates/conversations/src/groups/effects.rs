//! What others are told of a change: our users by push, the backends of other members in the conversation's lane.

use std::collections::BTreeSet;

use aldis_delivery::{Outgoing, Peer};
use aldis_proto::{
    convert,
    federation::v1::{self as pb, conversation_event, update_conversation_response},
};
use aldis_types::{ConnId, ConversationId, Domain, Member, Qualified, UserId};
use bytes::Bytes;
use prost::Message;

use super::{
    json::View,
    model::{Change, Conversation},
    store::Stamp,
};
use crate::{
    events::Envelope,
    federated,
    push::{self, Cause, Draft},
};

/// Who changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Actor {
    /// A user of any backend.
    pub user: Qualified<UserId>,
    /// His session, on his own backend.
    pub connection: Option<ConnId>,
}

impl Actor {
    /// The session whose socket needs no word of it, when it is one of ours.
    pub(crate) fn cause(&self, own: &Domain) -> Option<Cause> {
        let connection = self.connection.filter(|_| self.user.domain == *own)?;
        Some(Cause { user: self.user.id, connection })
    }
}

/// A change that lacks its stamp, as other backends are told of it.
#[derive(Debug, Clone)]
pub(crate) struct Telling {
    conversation: ConversationId,
    actor: Actor,
    kind: u32,
    change: conversation_event::Change,
    backends: BTreeSet<Domain>,
}

impl Telling {
    /// The event for the backend `domain`.
    pub(crate) fn event(&self, domain: &Domain, stamp: &Stamp) -> pb::ConversationEvent {
        pb::ConversationEvent {
            conversation: convert::bytes_of(self.conversation),
            time: stamp.time.millis(),
            version: stamp.version,
            actor: Some(convert::to_qualified(&self.actor.user)),
            actor_connection: (self.actor.user.domain == *domain)
                .then_some(self.actor.connection)
                .flatten()
                .map(|connection| connection.0),
            change: Some(self.change.clone()),
        }
    }

    /// Leaves out a backend that is not told.
    pub(crate) fn leave_out(&mut self, domain: &Domain) {
        self.backends.remove(domain);
    }

    /// The answer for the backend that asked for the change.
    pub(crate) fn answer(&self, domain: &Domain, stamp: &Stamp) -> Bytes {
        let outcome = Some(update_conversation_response::Outcome::Updated(self.event(domain, stamp)));
        pb::UpdateConversationResponse { outcome }.encode_to_vec().into()
    }

    fn rows<'a>(&'a self, stamp: &'a Stamp) -> impl Iterator<Item = Outgoing> + 'a {
        self.backends.iter().map(|domain| Outgoing {
            peer: Peer::Backend(domain.clone()),
            lane: *self.conversation.as_bytes(),
            kind: self.kind,
            body: self.event(domain, stamp).encode_to_vec().into(),
        })
    }
}

/// One change of a step, and who makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub actor: Actor,
    pub change: Change,
}

/// Everything that others are told of one change.
#[derive(Debug, Clone)]
pub(crate) struct Effect {
    /// For our users.
    pub drafts: Vec<Draft>,
    /// For other backends.
    pub telling: Telling,
}

impl Effect {
    /// The outbox rows.
    pub(crate) fn rows(self, stamp: &Stamp) -> Vec<Outgoing> {
        let mut rows = push::rows(self.telling.conversation, self.drafts, stamp.time);
        rows.extend(self.telling.rows(stamp));
        rows
    }
}

fn members(conversation: &Conversation) -> Vec<Member> {
    conversation.members.iter().map(|stored| stored.member.clone()).collect()
}

/// Of a new conversation: everybody gets it as he sees it.
pub(crate) fn of_creation(own: &Domain, new: &Conversation, actor: &Actor) -> Effect {
    let id = own.own(new.id).into_qualified();
    let envelope = Envelope { conversation: &id, from: &actor.user };
    let drafts = new
        .users_of(own)
        .filter_map(|user| {
            let view = View::of(id.clone(), new, &own.own(user).into_qualified())?;
            Some(Draft::to_users([user], envelope.created(&view), actor.cause(own)))
        })
        .collect();
    let (kind, change) = federated::write_created(&new.metadata, &members(new));
    let backends = new.backends(own);
    Effect { drafts, telling: Telling { conversation: new.id, actor: actor.clone(), kind, change, backends } }
}

/// The outbox rows of several changes in one step, of which the first has this stamp.
pub(crate) fn rows(effects: Vec<Effect>, first: &Stamp) -> Vec<Outgoing> {
    (0..).zip(effects).flat_map(|(number, effect)| effect.rows(&first.after(number))).collect()
}

/// Of a change: told to everybody who is, or was until then, a member.
pub(crate) fn of_change(
    own: &Domain,
    before: &Conversation,
    after: &Conversation,
    actor: &Actor,
    change: &Change,
) -> Effect {
    let id = own.own(before.id).into_qualified();
    let event = Envelope { conversation: &id, from: &actor.user }.changed(change);
    let users: BTreeSet<UserId> = before.users_of(own).chain(after.users_of(own)).collect();
    let drafts = if users.is_empty() { vec![] } else { vec![Draft::to_users(users, event, actor.cause(own))] };
    let (kind, change) = federated::write_change(change, &after.metadata, &members(after));
    let mut backends = before.backends(own);
    backends.extend(after.backends(own));
    Effect { drafts, telling: Telling { conversation: before.id, actor: actor.clone(), kind, change, backends } }
}
