//! The protobuf messages (version 2) in which clients post Proteus messages.

use aldis_types::{ClientId, Domain, Qualified, UserId};
use bytes::{Buf, Bytes};
use prost::{
    Message,
    encoding::{WireType, decode_key, decode_varint},
};

/// Most users, clients and listed ids in one message: several times what the largest conversation needs.
pub(super) const MAX_ENTRIES: usize = 20_000;
/// Messages inside messages: domains, users, clients, ids.
const MAX_DEPTH: usize = 4;
/// Where counting begins in a body of the older form, which has no domains.
const OLDER_FORM: usize = 10;

#[derive(Clone, PartialEq, Message)]
struct ClientIdMessage {
    #[prost(uint64, required, tag = "1")]
    client: u64,
}

#[derive(Clone, PartialEq, Message)]
struct UserIdMessage {
    #[prost(bytes = "bytes", required, tag = "1")]
    uuid: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct ClientEntry {
    #[prost(message, required, tag = "1")]
    client: ClientIdMessage,
    #[prost(bytes = "bytes", required, tag = "2")]
    text: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct UserEntry {
    #[prost(message, required, tag = "1")]
    user: UserIdMessage,
    #[prost(message, repeated, tag = "2")]
    clients: Vec<ClientEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct QualifiedUserEntry {
    #[prost(string, required, tag = "1")]
    domain: String,
    #[prost(message, repeated, tag = "2")]
    entries: Vec<UserEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct QualifiedUserIdMessage {
    #[prost(string, required, tag = "1")]
    id: String,
    #[prost(string, required, tag = "2")]
    domain: String,
}

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

#[derive(Clone, PartialEq, Message)]
struct UserList {
    #[prost(message, repeated, tag = "1")]
    user_ids: Vec<QualifiedUserIdMessage>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum StrategyMessage {
    #[prost(message, tag = "7")]
    ReportAll(Nothing),
    #[prost(message, tag = "8")]
    IgnoreAll(Nothing),
    #[prost(message, tag = "9")]
    ReportOnly(UserList),
    #[prost(message, tag = "10")]
    IgnoreOnly(UserList),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum Priority {
    Low = 1,
    High = 2,
}

#[derive(Clone, PartialEq, Message)]
struct QualifiedNewOtrMessage {
    #[prost(message, required, tag = "1")]
    sender: ClientIdMessage,
    #[prost(message, repeated, tag = "2")]
    recipients: Vec<QualifiedUserEntry>,
    #[prost(bool, optional, tag = "3", default = true)]
    native_push: Option<bool>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    blob: Option<Bytes>,
    #[prost(enumeration = "Priority", optional, tag = "5")]
    native_priority: Option<i32>,
    #[prost(bool, optional, tag = "6", default = false)]
    transient: Option<bool>,
    #[prost(oneof = "StrategyMessage", tags = "7, 8, 9, 10")]
    strategy: Option<StrategyMessage>,
}

/// The older form: users of our own backend alone.
#[derive(Clone, PartialEq, Message)]
struct NewOtrMessage {
    #[prost(message, required, tag = "1")]
    sender: ClientIdMessage,
    #[prost(message, repeated, tag = "2")]
    recipients: Vec<UserEntry>,
    #[prost(bool, optional, tag = "3", default = true)]
    native_push: Option<bool>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    blob: Option<Bytes>,
    #[prost(enumeration = "Priority", optional, tag = "5")]
    native_priority: Option<i32>,
    #[prost(bool, optional, tag = "6", default = false)]
    transient: Option<bool>,
    #[prost(message, repeated, tag = "7")]
    report_missing: Vec<UserIdMessage>,
}

/// The body is not a message, or breaks a limit; says how, for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct InvalidMessage(pub &'static str);

/// Of which missing clients the sender wants to hear before anything is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// Of all.
    ReportAll,
    /// Of none.
    IgnoreAll,
    /// Of those of these users.
    ReportOnly(Vec<Qualified<UserId>>),
    /// Of all but those of these users.
    IgnoreOnly(Vec<Qualified<UserId>>),
}

/// A ciphertext for one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipient {
    pub user: Qualified<UserId>,
    pub client: ClientId,
    pub text: Bytes,
}

/// What a client posts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewMessage {
    /// The client that sends.
    pub sender: ClientId,
    pub recipients: Vec<Recipient>,
    /// Shared by all recipients.
    pub blob: Option<Bytes>,
    pub native_push: bool,
    pub high_priority: bool,
    /// Only for open sockets.
    pub transient: bool,
    pub strategy: Strategy,
}

impl NewMessage {
    /// Reads a body. The ciphertexts are slices of it, not copies.
    pub(crate) fn read(body: Bytes) -> Result<Self, InvalidMessage> {
        let mut room = MAX_ENTRIES;
        count_messages(&body, 0, &mut room)?;
        let message = QualifiedNewOtrMessage::decode(body).map_err(|_| InvalidMessage("The body is not a message"))?;
        let strategy = match message.strategy.ok_or(InvalidMessage("ClientMismatchStrategy not specified"))? {
            StrategyMessage::ReportAll(_) => Strategy::ReportAll,
            StrategyMessage::IgnoreAll(_) => Strategy::IgnoreAll,
            StrategyMessage::ReportOnly(list) => Strategy::ReportOnly(list.read()?),
            StrategyMessage::IgnoreOnly(list) => Strategy::IgnoreOnly(list.read()?),
        };
        Ok(Self {
            sender: ClientId(message.sender.client),
            recipients: read_recipients(message.recipients)?,
            blob: message.blob,
            native_push: message.native_push.unwrap_or(true),
            high_priority: message.native_priority == Some(Priority::High.into()),
            transient: message.transient.unwrap_or(false),
            strategy,
        })
    }
}

impl NewMessage {
    /// Reads a body of the older form; `strategy` holds unless the body lists users itself.
    pub(crate) fn read_older(body: Bytes, own: &Domain, strategy: Strategy) -> Result<Self, InvalidMessage> {
        let mut room = MAX_ENTRIES;
        count_messages(&body, OLDER_FORM, &mut room)?;
        let message = NewOtrMessage::decode(body).map_err(|_| InvalidMessage("The body is not a message"))?;
        let listed = message.report_missing.iter().map(|user| Ok(Qualified::new(user.read()?, own.clone())));
        let listed: Vec<_> = listed.collect::<Result<_, _>>()?;
        let mut recipients = Vec::new();
        for entry in message.recipients {
            let user = Qualified::new(entry.user.read()?, own.clone());
            recipients.extend(entry.clients.into_iter().map(|entry| Recipient {
                user: user.clone(),
                client: ClientId(entry.client.client),
                text: entry.text,
            }));
        }
        Ok(Self {
            sender: ClientId(message.sender.client),
            recipients,
            blob: message.blob,
            native_push: message.native_push.unwrap_or(true),
            high_priority: message.native_priority == Some(Priority::High.into()),
            transient: message.transient.unwrap_or(false),
            strategy: if listed.is_empty() { strategy } else { Strategy::ReportOnly(listed) },
        })
    }
}

impl UserIdMessage {
    fn read(&self) -> Result<UserId, InvalidMessage> {
        UserId::from_bytes(&self.uuid).map_err(|_| InvalidMessage("A user id does not have 16 bytes"))
    }
}

fn read_recipients(domains: Vec<QualifiedUserEntry>) -> Result<Vec<Recipient>, InvalidMessage> {
    let mut recipients = Vec::new();
    for entry in domains {
        let domain: Domain = entry.domain.parse().map_err(|_| InvalidMessage("A domain is malformed"))?;
        for entry in entry.entries {
            let user = Qualified::new(entry.user.read()?, domain.clone());
            recipients.extend(entry.clients.into_iter().map(|entry| Recipient {
                user: user.clone(),
                client: ClientId(entry.client.client),
                text: entry.text,
            }));
        }
    }
    Ok(recipients)
}

impl UserList {
    fn read(self) -> Result<Vec<Qualified<UserId>>, InvalidMessage> {
        let read = |user: QualifiedUserIdMessage| {
            let id = user.id.parse().map_err(|_| InvalidMessage("A user id is malformed"))?;
            let domain = user.domain.parse().map_err(|_| InvalidMessage("A domain is malformed"))?;
            Ok(Qualified::new(id, domain))
        };
        self.user_ids.into_iter().map(read).collect()
    }
}

/// Counts what would become values in memory before anything is allocated: an empty entry has two bytes on the wire and
/// many times that as a value.
fn count_messages(mut bytes: &[u8], depth: usize, room: &mut usize) -> Result<(), InvalidMessage> {
    const MALFORMED: InvalidMessage = InvalidMessage("The body is not a message");
    while bytes.has_remaining() {
        let (tag, wire_type) = decode_key(&mut bytes).map_err(|_| MALFORMED)?;
        match wire_type {
            WireType::Varint => {
                decode_varint(&mut bytes).map_err(|_| MALFORMED)?;
            }
            WireType::SixtyFourBit => skip(&mut bytes, 8)?,
            WireType::ThirtyTwoBit => skip(&mut bytes, 4)?,
            WireType::LengthDelimited => {
                let length = decode_varint(&mut bytes).map_err(|_| MALFORMED)?;
                let length = usize::try_from(length).map_err(|_| MALFORMED)?;
                let inner = bytes.get(..length).ok_or(MALFORMED)?;
                bytes.advance(length);
                if repeats(depth, tag) {
                    *room = room.checked_sub(1).ok_or(InvalidMessage("The message has too many recipients"))?;
                    count_messages(inner, depth_below(depth, tag), room)?;
                }
            }
            WireType::StartGroup | WireType::EndGroup => return Err(MALFORMED),
        }
    }
    Ok(())
}

fn skip(bytes: &mut &[u8], count: usize) -> Result<(), InvalidMessage> {
    if bytes.len() < count {
        return Err(InvalidMessage("The body is not a message"));
    }
    bytes.advance(count);
    Ok(())
}

/// Whether the field is one of those that become lists: domains, their users, their clients; listed ids.
fn repeats(depth: usize, tag: u32) -> bool {
    match depth {
        0 => matches!(tag, 2 | 9 | 10),
        1 | 2 => tag == 2,
        MAX_DEPTH => tag == 1,
        OLDER_FORM => matches!(tag, 2 | 7),
        _ => false,
    }
}

fn depth_below(depth: usize, tag: u32) -> usize {
    match (depth, tag) {
        (0, 9 | 10) => MAX_DEPTH,
        (MAX_DEPTH, _) | (OLDER_FORM, 7) => MAX_DEPTH + 1,
        // A user with his clients.
        (OLDER_FORM, _) => 2,
        _ => depth + 1,
    }
}

/// Writes a message in the older form, for tests; domains and the kind of strategy are lost.
#[cfg(test)]
pub(crate) fn write_older(message: &NewMessage) -> Bytes {
    let id = |user: &Qualified<UserId>| UserIdMessage { uuid: Bytes::copy_from_slice(user.id.as_bytes()) };
    let recipients = message.recipients.iter().map(|recipient| UserEntry {
        user: id(&recipient.user),
        clients: vec![ClientEntry {
            client: ClientIdMessage { client: recipient.client.0 },
            text: recipient.text.clone(),
        }],
    });
    NewOtrMessage {
        sender: ClientIdMessage { client: message.sender.0 },
        recipients: recipients.collect(),
        native_push: Some(message.native_push),
        blob: message.blob.clone(),
        native_priority: message.high_priority.then(|| Priority::High.into()),
        transient: Some(message.transient),
        report_missing: match &message.strategy {
            Strategy::ReportOnly(users) => users.iter().map(id).collect(),
            _ => vec![],
        },
    }
    .encode_to_vec()
    .into()
}

/// Writes a message, for tests.
#[cfg(test)]
pub(crate) fn write(message: &NewMessage) -> Bytes {
    let list = |users: &[Qualified<UserId>]| UserList {
        user_ids: users
            .iter()
            .map(|user| QualifiedUserIdMessage { id: user.id.to_string(), domain: user.domain.to_string() })
            .collect(),
    };
    let recipients = message.recipients.iter().map(|recipient| QualifiedUserEntry {
        domain: recipient.user.domain.to_string(),
        entries: vec![UserEntry {
            user: UserIdMessage { uuid: Bytes::copy_from_slice(recipient.user.id.as_bytes()) },
            clients: vec![ClientEntry {
                client: ClientIdMessage { client: recipient.client.0 },
                text: recipient.text.clone(),
            }],
        }],
    });
    QualifiedNewOtrMessage {
        sender: ClientIdMessage { client: message.sender.0 },
        recipients: recipients.collect(),
        native_push: Some(message.native_push),
        blob: message.blob.clone(),
        native_priority: message.high_priority.then(|| Priority::High.into()),
        transient: Some(message.transient),
        strategy: Some(match &message.strategy {
            Strategy::ReportAll => StrategyMessage::ReportAll(Nothing {}),
            Strategy::IgnoreAll => StrategyMessage::IgnoreAll(Nothing {}),
            Strategy::ReportOnly(users) => StrategyMessage::ReportOnly(list(users)),
            Strategy::IgnoreOnly(users) => StrategyMessage::IgnoreOnly(list(users)),
        }),
    }
    .encode_to_vec()
    .into()
}
