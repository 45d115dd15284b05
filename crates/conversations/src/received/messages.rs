//! Messages of conversations of other backends.

use std::time::Duration;

use aldis_delivery::{Envelope, Verdict, derive_event_id};
use aldis_proto::{convert, federation::v1 as pb, internal::v1::Notification};
use aldis_types::{ClientId, Domain, OneToOneProtocol, Relation, UserId, one_to_one};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    MALFORMED, Received,
    store::{MemberChange, StoredRecipients},
};
use crate::{
    events::{self, MESSAGE_FRAME_BYTES},
    federated::Head,
    push::Draft,
};

/// More clients than any message reaches.
const MAX_CLIENTS: usize = 20_000;
/// All events of one message together: the shared data is repeated for every client.
const MAX_EVENTS_BYTES: usize = 256 * 1024 * 1024;
/// How long a message of a one-to-one conversation waits for our user's acceptance, which may be on its way.
const PATIENCE: Duration = Duration::from_secs(10);
const UNKNOWN_RECIPIENT: Verdict = Verdict::Rejected("no-conversation");

impl Received {
    /// What is pushed for a message, with the verdict that holds once it is pushed; `None` when it cannot be applied
    /// right now. Recipients that are not stored members are left out.
    pub(super) async fn prepare_message(
        &self,
        origin: &Domain,
        envelope: &Envelope,
        head: &Head,
        message: &pb::MessageSent,
    ) -> Option<(Verdict, Vec<Notification>)> {
        if !self.may_push(origin, &envelope.lane) {
            return None;
        }
        if !within_limits(message) {
            return Some((MALFORMED, vec![]));
        }
        let stored = match self.app.find_elsewhere(&head.conversation).await {
            Ok(stored) => stored,
            Err(error) => {
                tracing::warn!(%error, "a message of another backend waits");
                return None;
            }
        };
        if !self.may_act(&head.actor, stored.as_deref()) {
            return Some((MALFORMED, vec![]));
        }
        let recipients = StoredRecipients::everybody(stored.as_deref(), &MemberChange::default());
        let traceparent = traced(envelope);
        let mut notifications = Vec::new();
        let mut index = 0;
        let data = message.data.as_ref().map(|data| STANDARD.encode(data));
        let event = events::Envelope { conversation: &head.conversation, from: &head.actor };
        for recipient in &message.recipients {
            let Ok(user) = convert::user_id(&recipient.user) else { return Some((MALFORMED, vec![])) };
            let is_stored = recipients.contains(user);
            if !is_stored && let Some(verdict) = self.stranger(origin, envelope, head, user).await {
                return match verdict {
                    Verdict::Deferred => None,
                    verdict => Some((verdict, vec![])),
                };
            }
            for text in &recipient.clients {
                let event_id = derive_event_id(envelope.event_id, index);
                index += 1;
                if !is_stored {
                    continue;
                }
                let client = ClientId(text.client);
                let draft = Draft {
                    targets: vec![(user, vec![client])],
                    event: event.message(ClientId(message.sender_client), client, &text.text, data.as_deref()),
                    cause: None,
                    native_push: message.native_push,
                    high_priority: message.high_priority,
                    transient: message.transient,
                };
                notifications.push(Notification {
                    event_id: convert::bytes_of(event_id),
                    traceparent: traceparent.clone(),
                    ..draft.at(head.time)
                });
            }
        }
        Some((Verdict::Applied, notifications))
    }

    /// A recipient who is no stored member: usually left out (`None`). In a one-to-one conversation the other side may
    /// know of an acceptance before we have applied it.
    async fn stranger(&self, origin: &Domain, envelope: &Envelope, head: &Head, user: UserId) -> Option<Verdict> {
        let user = self.app.own_user(user);
        if one_to_one(&user, &head.actor, OneToOneProtocol::Proteus) != head.conversation {
            return None;
        }
        let relations = match self.app.users.relations(user.id, std::slice::from_ref(&head.actor)).await {
            Ok(relations) => relations,
            Err(error) => {
                tracing::warn!(%error, "a message of another backend waits");
                return Some(Verdict::Deferred);
            }
        };
        match relations.first() {
            Some(Some(Relation::Sent | Relation::Pending | Relation::Accepted)) => {
                let late = self.out_of_patience(origin, envelope, PATIENCE);
                Some(if late { UNKNOWN_RECIPIENT } else { Verdict::Deferred })
            }
            _ => None,
        }
    }
}

/// The trace under which our users are told, when the message is traced.
fn traced(envelope: &Envelope) -> Option<String> {
    if !envelope.trace.is_stated() {
        return None;
    }
    let span = tracing::info_span!(parent: None, "received.message");
    envelope.trace.join(&span);
    aldis_delivery::traceparent(&span)
}

fn within_limits(message: &pb::MessageSent) -> bool {
    let data = message.data.as_ref().map_or(0, bytes::Bytes::len);
    let mut clients = 0;
    let mut bytes = 0_usize;
    for recipient in &message.recipients {
        clients += recipient.clients.len().max(1);
        for text in &recipient.clients {
            // No client has this id, and our queues give it a meaning.
            if text.client == 0 {
                return false;
            }
            bytes = bytes.saturating_add((text.text.len() + data).div_ceil(3) * 4 + MESSAGE_FRAME_BYTES);
        }
    }
    clients <= MAX_CLIENTS && bytes <= MAX_EVENTS_BYTES
}
