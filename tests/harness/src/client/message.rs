//! Proteus messages without the cryptography: each "ciphertext" names the client that it is for, so that a reader
//! notices a mix-up, and then holds the text.

use std::collections::{BTreeMap, BTreeSet};

use aldis_types::{ClientId, ConversationId, Domain, Qualified, UserId};
use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::Method;
use prost::Message as _;
use serde::Deserialize;
use serde_json::Value;

use super::{
    account::{Body, User},
    http::Answer,
    socket::Event,
    wire,
};

/// Clients by user.
pub type Recipients = BTreeMap<Qualified<UserId>, BTreeSet<ClientId>>;

/// The content type of a message.
pub const PROTOBUF: &str = "application/x-protobuf";

/// How often a sender corrects its list of recipients before it gives up.
const CORRECTIONS: usize = 4;

/// A message before it is encoded.
#[derive(Debug, Clone)]
pub struct Draft {
    /// For whom.
    pub recipients: Recipients,
    /// What to do about missing clients; `None` leaves the mandatory field away.
    pub strategy: Option<wire::Strategy>,
    /// The text.
    pub text: String,
    /// Bytes for all recipients.
    pub blob: Option<Bytes>,
    /// Only for open sockets.
    pub transient: bool,
    /// Whether it may wake apps; `None` leaves the choice to the backend.
    pub native_push: Option<bool>,
    /// How urgently it wakes them; `None` leaves the choice to the backend.
    pub native_priority: Option<wire::Priority>,
}

impl Draft {
    /// A message that is not sent while any client is missing.
    pub fn new(recipients: Recipients, text: &str) -> Self {
        let strategy = Some(wire::Strategy::ReportAll(wire::Nothing {}));
        let text = text.to_owned();
        Self { recipients, strategy, text, blob: None, transient: false, native_push: None, native_priority: None }
    }

    /// The same with another strategy.
    #[must_use]
    pub fn strategy(self, strategy: wire::Strategy) -> Self {
        Self { strategy: Some(strategy), ..self }
    }

    /// The body of the request, from this client.
    pub fn encode(&self, sender: ClientId) -> Bytes {
        let mut domains: BTreeMap<&Domain, Vec<wire::UserEntry>> = BTreeMap::new();
        for (user, clients) in &self.recipients {
            let clients = clients.iter().map(|client| wire::ClientEntry {
                client: Some(wire::ClientId { client: client.0 }),
                text: seal(user, *client, &self.text),
            });
            let entry = wire::UserEntry {
                user: Some(wire::UserId { uuid: user.id.as_bytes().to_vec() }),
                clients: clients.collect(),
            };
            domains.entry(&user.domain).or_default().push(entry);
        }
        let recipients = domains
            .into_iter()
            .map(|(domain, entries)| wire::QualifiedUserEntry { domain: domain.to_string(), entries })
            .collect();
        let message = wire::QualifiedNewOtrMessage {
            sender: Some(wire::ClientId { client: sender.0 }),
            recipients,
            native_push: self.native_push,
            blob: self.blob.clone(),
            native_priority: self.native_priority.map(Into::into),
            transient: self.transient.then_some(true),
            strategy: self.strategy.clone(),
        };
        message.encode_to_vec().into()
    }
}

fn seal(user: &Qualified<UserId>, client: ClientId, text: &str) -> Bytes {
    format!("{user}/{client}|{text}").into()
}

/// The strategy that names only these users.
pub fn users(of: &[&Qualified<UserId>]) -> wire::Users {
    let user_ids = of
        .iter()
        .map(|user| wire::QualifiedUserId { id: user.id.to_string(), domain: user.domain.to_string() })
        .collect();
    wire::Users { user_ids }
}

type ByUser = BTreeMap<Domain, BTreeMap<UserId, BTreeSet<ClientId>>>;

/// The answer to a message: 201 and 412 have the same shape.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// When it was accepted.
    pub time: String,
    missing: ByUser,
    redundant: ByUser,
    deleted: ByUser,
    failed_to_send: ByUser,
    failed_to_confirm_clients: ByUser,
}

fn flat(map: &ByUser) -> Recipients {
    let mut flat = Recipients::new();
    for (domain, users) in map {
        for (user, clients) in users {
            flat.insert(Qualified::new(*user, domain.clone()), clients.clone());
        }
    }
    flat
}

impl Status {
    /// Reads an answer with status 201 or 412; empty inner maps are an error, and so are empty lists but for those in
    /// `failed_to_send`.
    pub fn of(answer: &Answer) -> Result<Self> {
        let status: Self = answer.json()?;
        let maps = [
            &status.missing,
            &status.redundant,
            &status.deleted,
            &status.failed_to_send,
            &status.failed_to_confirm_clients,
        ];
        ensure!(!maps.iter().any(|map| map.values().any(BTreeMap::is_empty)), "empty inner maps in {status:?}");
        // A user of whose devices nothing is known is named without one.
        let mut lists = maps[..3].iter().chain(&maps[4..]).flat_map(|map| map.values().flat_map(BTreeMap::values));
        ensure!(!lists.any(BTreeSet::is_empty), "empty lists in {status:?}");
        Ok(status)
    }

    /// Clients that the sender left out.
    pub fn missing(&self) -> Recipients {
        flat(&self.missing)
    }

    /// Recipients that are no members.
    pub fn redundant(&self) -> Recipients {
        flat(&self.redundant)
    }

    /// Clients that members don't have any more.
    pub fn deleted(&self) -> Recipients {
        flat(&self.deleted)
    }

    /// Recipients that will not get it.
    pub fn failed_to_send(&self) -> Recipients {
        flat(&self.failed_to_send)
    }

    /// Recipients that get it although their backend could not be asked.
    pub fn failed_to_confirm(&self) -> Recipients {
        flat(&self.failed_to_confirm_clients)
    }

    /// Whether nothing but the time is in it.
    pub fn is_clean(&self) -> bool {
        self.missing.is_empty()
            && self.redundant.is_empty()
            && self.deleted.is_empty()
            && self.failed_to_send.is_empty()
            && self.failed_to_confirm_clients.is_empty()
    }
}

/// A message as the recipient's device reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Where.
    pub conversation: Qualified<ConversationId>,
    /// From whom.
    pub from: Qualified<UserId>,
    /// From which device.
    pub sender: ClientId,
    /// When it was accepted.
    pub time: String,
    /// The text.
    pub text: String,
    /// The bytes for all recipients.
    pub blob: Option<Vec<u8>>,
}

#[derive(Deserialize)]
struct OtrAdd {
    qualified_conversation: Qualified<ConversationId>,
    conversation: ConversationId,
    qualified_from: Qualified<UserId>,
    from: UserId,
    time: String,
    data: OtrData,
}

#[derive(Deserialize)]
struct OtrData {
    sender: ClientId,
    recipient: ClientId,
    text: String,
    data: Option<String>,
}

/// The type of the event of a message.
pub const MESSAGE: &str = "conversation.otr-message-add";

/// The path of a conversation, or of something in it.
pub fn path_of(conversation: &Qualified<ConversationId>, rest: &str) -> String {
    format!("/conversations/{}/{}{rest}", conversation.domain, conversation.id)
}

impl User {
    /// Posts an encoded message.
    pub async fn post_message(&self, conversation: &Qualified<ConversationId>, body: Bytes) -> Result<Answer> {
        let path = path_of(conversation, "/proteus/messages");
        self.request(Method::POST, &path, Body::Bytes(PROTOBUF, body)).await
    }

    /// Posts a draft once.
    pub async fn post_draft(&self, conversation: &Qualified<ConversationId>, draft: &Draft) -> Result<Answer> {
        self.post_message(conversation, draft.encode(self.client()?)).await
    }

    /// Sends a text to every device of every member but this one. As apps do, starts from the devices it knows and
    /// corrects its list when the backend answers 412.
    pub async fn send(&self, conversation: &Qualified<ConversationId>, text: &str) -> Result<Status> {
        for _ in 0..CORRECTIONS {
            let draft = Draft::new(self.recipients(conversation), text);
            let answer = self.post_draft(conversation, &draft).await?.expect_one_of(&[201, 412])?;
            let status = Status::of(&answer)?;
            self.correct(conversation, &status);
            if answer.status == 201 {
                return Ok(status);
            }
        }
        bail!("the recipients of {conversation} were still wrong after {CORRECTIONS} corrections")
    }

    /// The devices in this conversation that this device knows.
    pub fn recipients(&self, conversation: &Qualified<ConversationId>) -> Recipients {
        let known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.get(conversation).cloned().unwrap_or_default()
    }

    /// Learns from the answer to a message.
    pub fn correct(&self, conversation: &Qualified<ConversationId>, status: &Status) {
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let recipients = known.entry(conversation.clone()).or_default();
        for (user, clients) in status.missing() {
            recipients.entry(user).or_default().extend(clients);
        }
        for (user, clients) in status.deleted().into_iter().chain(status.redundant()) {
            if let Some(kept) = recipients.get_mut(&user) {
                kept.retain(|client| !clients.contains(client));
            }
        }
        recipients.retain(|_, clients| !clients.is_empty());
    }

    /// Reads an event that is a message for this device; `None` for other events.
    pub fn read(&self, event: &Value) -> Result<Option<Received>> {
        if event["type"] != MESSAGE {
            return Ok(None);
        }
        let add: OtrAdd = serde_json::from_value(event.clone()).with_context(|| format!("event {event}"))?;
        let consistent = add.conversation == add.qualified_conversation.id && add.from == add.qualified_from.id;
        ensure!(consistent, "ids of event {event} contradict each other");
        let client = self.client()?;
        ensure!(add.data.recipient == client, "{client} got an event for {}", add.data.recipient);
        let sealed = String::from_utf8(STANDARD.decode(&add.data.text)?)?;
        let text = sealed
            .strip_prefix(&format!("{}/{client}|", self.id))
            .with_context(|| format!("{}/{client} got what is for another: {sealed}", self.id))?
            .to_owned();
        Ok(Some(Received {
            conversation: add.qualified_conversation,
            from: add.qualified_from,
            sender: add.data.sender,
            time: add.time,
            text,
            blob: add.data.data.map(|blob| STANDARD.decode(blob)).transpose()?,
        }))
    }

    /// Reads those of the events that are messages.
    pub fn read_all<'a>(&self, events: impl IntoIterator<Item = &'a Event>) -> Result<Vec<Received>> {
        let read = events.into_iter().map(|event| self.read(&event.value));
        read.filter_map(Result::transpose).collect()
    }
}
