//! Sending a Proteus message to a conversation of ours, for a member of any backend.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use aldis_delivery::{Delivery, Outgoing, Peer};
use aldis_peers::FAN_OUT;
use aldis_proto::{
    convert,
    federation::v1::{self as pb, conversation_event, message_sent},
    internal::v1::Notification,
};
use aldis_types::{ClientId, ConversationId, Domain, EventId, Protocol, Qualified, Timestamp, UserId};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::{StreamExt, stream};
use prost::Message;

use super::{
    error::MessageError,
    mismatch::{Comparison, Present, compare},
    status::{Sent, Status},
    wire::NewMessage,
};
use crate::{
    app::{App, LOCAL_DELIVERY},
    events::{Envelope, MESSAGE_FRAME_BYTES},
    federated::kind,
    groups::{
        error::GroupError,
        model::Conversation,
        store::{AnswerKey, Stamp, Step, Written},
    },
    push::{self, Draft},
    users::ClientMap,
};

/// How often a message is compared anew because the conversation changed in between.
const MAX_CONFLICTS: usize = 16;
/// Largest event for one client, and all events of one message together: a blob is repeated for every client of ours.
const MAX_EVENT_BYTES: usize = 40 * 1024 * 1024;
const MAX_EVENTS_BYTES: usize = 256 * 1024 * 1024;
/// Every backend takes messages of this size.
const ALWAYS_TAKEN_BYTES: usize = 1024 * 1024;
/// What names of users and clients, and the envelope, add to a ciphertext; more than enough.
const TOLD_FRAME_BYTES: usize = 128;

/// A message on its way to a conversation of ours.
#[derive(Debug)]
pub(crate) struct Sending {
    pub conversation: ConversationId,
    /// A user of any backend.
    pub sender: Qualified<UserId>,
    /// Clients of the users of the sender's backend, when that is another one.
    pub origin_clients: Option<ClientMap>,
    /// How long the sender's backend waits, when that is another one and says so.
    pub patience: Option<Duration>,
    /// Names the request, so that a retry gets the first answer.
    pub key: AnswerKey,
    pub message: NewMessage,
}

impl App {
    /// Sends a message, once: a retry with the same key gets the first answer.
    pub(crate) async fn send_here(&self, sending: &Sending) -> Result<Sent, MessageError> {
        // Ciphertexts never repeat; a message without any may, and repeating it changes nothing.
        let key = (!sending.message.recipients.is_empty()).then_some(sending.key);
        let Some(key) = key else { return self.try_to_send(sending, None).await };
        let _turn = self.in_progress.enter(key).await;
        let outcome = self.try_to_send(sending, Some(key)).await;
        if !matches!(outcome, Ok(Sent::Accepted(_)))
            && let Some(answer) = self.store.answer(key).await?
        {
            // It was sent before, and something has changed since.
            return read_kept(answer);
        }
        outcome
    }

    async fn try_to_send(&self, sending: &Sending, key: Option<AnswerKey>) -> Result<Sent, MessageError> {
        let Sending { sender, message, .. } = sending;
        for _ in 0..MAX_CONFLICTS {
            let found = self.find_own(sending.conversation).await?.ok_or(GroupError::NoConversation)?;
            found.member(sender).ok_or(GroupError::NoConversation)?;
            if found.metadata.protocol == Protocol::Mls {
                return Err(GroupError::InvalidOp.into());
            }
            let present = self.present(&found, sending).await?;
            if !present.has_client(sender, message.sender) {
                return Err(MessageError::UnknownClient);
            }
            let compared = compare((sender, message.sender), &message.recipients, &message.strategy, &present);
            if !compared.missing.is_empty() {
                metrics::counter!("aldis_messages_mismatched_total").increment(1);
                return Ok(Sent::Mismatch(Status::new(self.clock.now(), compared)));
            }
            let mut compared = compared;
            self.withhold_too_large(message, &mut compared).await;
            let (step, status, later) = self.commit_message(&found, sending, compared, key).await?;
            match step {
                Step::Done(committed) => {
                    self.deliver(committed.delivery, later, committed.stamp.time).await;
                    metrics::counter!("aldis_messages_accepted_total").increment(1);
                    return Ok(Sent::Accepted(Status { time: committed.stamp.time, ..status }));
                }
                Step::Answered(answer) => return read_kept(answer),
                Step::Conflict => {}
            }
        }
        Err(GroupError::Busy.into())
    }

    /// A backend that takes only smaller messages gets none; every backend takes those of 1 MiB.
    async fn withhold_too_large(&self, message: &NewMessage, compared: &mut Comparison) {
        let blob = message.blob.as_ref().map_or(0, Bytes::len);
        let mut sizes: BTreeMap<&Domain, usize> = BTreeMap::new();
        for recipient in compared.valid.iter().filter_map(|place| message.recipients.get(*place)) {
            let size = sizes.entry(&recipient.user.domain).or_insert(blob + TOLD_FRAME_BYTES);
            *size += recipient.text.len() + TOLD_FRAME_BYTES;
        }
        sizes.remove(&self.domain);
        for (domain, size) in sizes.into_iter().filter(|(_, size)| *size > ALWAYS_TAKEN_BYTES) {
            let limit = self.backends.max_message_bytes(domain).await;
            if limit.is_some_and(|limit| size as u64 > limit) {
                compared.withhold(domain, &message.recipients);
            }
        }
    }

    /// Everybody in the conversation with his clients: one call per backend, all at the same time.
    async fn present(&self, found: &Conversation, sending: &Sending) -> Result<Present, MessageError> {
        let mut present = Present::default();
        let mut by_domain: BTreeMap<Domain, Vec<UserId>> = BTreeMap::new();
        for stored in &found.members {
            let user = &stored.member.user;
            by_domain.entry(user.domain.clone()).or_default().push(user.id);
            present.members.insert(user.clone());
        }
        if let Some(users) = by_domain.remove(&self.domain) {
            let clients = self.users.clients(&users).await?;
            present.clients.insert(self.domain.clone(), sorted(clients));
        }
        if let Some(clients) = &sending.origin_clients
            && let Some(users) = by_domain.remove(&sending.sender.domain)
        {
            let known = users.into_iter().filter_map(|user| Some((user, clients.get(&user)?.clone()))).collect();
            present.clients.insert(sending.sender.domain.clone(), sorted(known));
        }
        // Who waits at another backend still has to get the answer when one of those that are asked hangs.
        let patience = sending.patience.map(|left| left / 2);
        let answers: Vec<_> = stream::iter(by_domain)
            .map(|(domain, users)| async move {
                let clients = if self.policy.allows(&domain) {
                    self.backends.list_clients(&domain, &users, patience).await.map_err(Some)
                } else {
                    Err(None)
                };
                (domain, clients)
            })
            .buffer_unordered(FAN_OUT)
            .collect()
            .await;
        for (domain, answer) in answers {
            match answer {
                Ok(clients) => drop(present.clients.insert(domain, sorted(clients))),
                Err(error) => {
                    tracing::debug!(peer.domain = %domain, ?error, "a backend's clients are not known");
                    present.failed.insert(domain);
                }
            }
        }
        Ok(present)
    }

    /// Writes the message for everybody who gets it. What is not stored for our users is handed back.
    async fn commit_message(
        &self,
        found: &Conversation,
        sending: &Sending,
        compared: Comparison,
        key: Option<AnswerKey>,
    ) -> Result<(Step, Status, Vec<Draft>), MessageError> {
        let message = &sending.message;
        let drafts = self.drafts(sending, &compared.valid)?;
        let (drafts, later) = if message.transient { (vec![], drafts) } else { (drafts, vec![]) };
        let tellings = self.tellings(sending, &compared.valid);
        let status = Status::new(Timestamp::EPOCH, compared);
        let answered = status.clone();
        let id = found.id;
        let sender = sending.sender.clone();
        let write = move |stamp: &Stamp| {
            let answer = if key.is_some() {
                let sent = Sent::Accepted(Status { time: stamp.time, ..answered });
                sent.write().encode_to_vec().into()
            } else {
                Bytes::new()
            };
            let mut outgoing = push::rows(id, drafts, stamp.time);
            outgoing.extend(tellings.into_iter().map(|(domain, change)| told(id, &sender, stamp, domain, change)));
            Written { outgoing, answer, position: None }
        };
        let step = self.store.record_message(id, found.version, key, Box::new(write)).await?;
        Ok((step, status, later))
    }

    /// One notification for each client of ours.
    fn drafts(&self, sending: &Sending, valid: &[usize]) -> Result<Vec<Draft>, MessageError> {
        let message = &sending.message;
        let conversation = self.domain.own(sending.conversation).into_qualified();
        let envelope = Envelope { conversation: &conversation, from: &sending.sender };
        let own = valid.iter().filter_map(|place| message.recipients.get(*place));
        let own: Vec<_> = own.filter(|recipient| recipient.user.domain == self.domain).collect();
        let blob_bytes = message.blob.as_ref().map_or(0, |blob| base64_len(blob.len()));
        let mut total = 0_usize;
        for recipient in &own {
            let size = base64_len(recipient.text.len()) + blob_bytes + MESSAGE_FRAME_BYTES;
            total = total.saturating_add(size);
            if size > MAX_EVENT_BYTES || total > MAX_EVENTS_BYTES {
                return Err(MessageError::TooLarge);
            }
        }
        let blob = message.blob.as_ref().filter(|_| !own.is_empty()).map(|blob| STANDARD.encode(blob));
        let draft = |recipient: &&super::wire::Recipient| Draft {
            targets: vec![(recipient.user.id, vec![recipient.client])],
            event: envelope.message(message.sender, recipient.client, &recipient.text, blob.as_deref()),
            cause: None,
            native_push: message.native_push,
            high_priority: message.high_priority,
            transient: message.transient,
        };
        Ok(own.iter().map(draft).collect())
    }

    /// One copy for each backend, with the recipients of that backend alone.
    fn tellings(&self, sending: &Sending, valid: &[usize]) -> BTreeMap<Domain, pb::MessageSent> {
        let message = &sending.message;
        let mut by_domain: BTreeMap<&Domain, BTreeMap<UserId, Vec<message_sent::ClientText>>> = BTreeMap::new();
        for recipient in valid.iter().filter_map(|place| message.recipients.get(*place)) {
            if recipient.user.domain != self.domain {
                let text = message_sent::ClientText { client: recipient.client.0, text: recipient.text.clone() };
                by_domain.entry(&recipient.user.domain).or_default().entry(recipient.user.id).or_default().push(text);
            }
        }
        let told = |users: BTreeMap<UserId, Vec<message_sent::ClientText>>| pb::MessageSent {
            sender_client: message.sender.0,
            recipients: users
                .into_iter()
                .map(|(user, clients)| message_sent::Recipient { user: convert::bytes_of(user), clients })
                .collect(),
            data: message.blob.clone(),
            native_push: message.native_push,
            transient: message.transient,
            high_priority: message.high_priority,
        };
        by_domain.into_iter().map(|(domain, users)| (domain.clone(), told(users))).collect()
    }

    /// Waits until our users have it, and pushes at once what is not stored.
    async fn deliver(&self, delivery: Delivery, later: Vec<Draft>, time: Timestamp) {
        if !later.is_empty() {
            let notifications: Vec<Notification> = later
                .into_iter()
                .map(|draft| Notification {
                    event_id: convert::bytes_of(EventId::new(self.random.uuid())),
                    ..draft.at(time)
                })
                .collect();
            if let Err(error) = self.pushes.push(notifications).await {
                // Transient: nobody is to get it later.
                tracing::debug!(%error, "a transient message was not pushed");
            }
        }
        delivery.local(LOCAL_DELIVERY).await;
    }
}

fn told(
    conversation: ConversationId,
    sender: &Qualified<UserId>,
    stamp: &Stamp,
    domain: Domain,
    message: pb::MessageSent,
) -> Outgoing {
    let event = pb::ConversationEvent {
        conversation: convert::bytes_of(conversation),
        time: stamp.time.millis(),
        version: stamp.version,
        actor: Some(convert::to_qualified(sender)),
        actor_connection: None,
        change: Some(conversation_event::Change::MessageSent(message)),
    };
    Outgoing {
        peer: Peer::Backend(domain),
        lane: *conversation.as_bytes(),
        kind: kind::MESSAGE_SENT,
        body: event.encode_to_vec().into(),
    }
}

fn read_kept(answer: Bytes) -> Result<Sent, MessageError> {
    Sent::read_kept(answer).map_err(|_| MessageError::from(aldis_storage::StoreError::Corrupt("conversations_answers")))
}

fn sorted(clients: HashMap<UserId, Vec<ClientId>>) -> BTreeMap<UserId, BTreeSet<ClientId>> {
    clients.into_iter().map(|(user, clients)| (user, clients.into_iter().collect())).collect()
}

const fn base64_len(bytes: usize) -> usize {
    bytes.div_ceil(3).saturating_mul(4)
}
