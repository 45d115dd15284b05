//! The protobuf messages of `POST …/proteus/messages`, as a client encodes them.

use prost::{Message, Oneof};

/// A message with a ciphertext for each recipient client.
#[derive(Clone, PartialEq, Message)]
pub struct QualifiedNewOtrMessage {
    /// Who sends.
    #[prost(message, optional, tag = "1")]
    pub sender: Option<ClientId>,
    /// Who gets what.
    #[prost(message, repeated, tag = "2")]
    pub recipients: Vec<QualifiedUserEntry>,
    /// May wake mobile apps; true when absent.
    #[prost(bool, optional, tag = "3")]
    pub native_push: Option<bool>,
    /// Shared by all recipients.
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub blob: Option<bytes::Bytes>,
    /// How urgently it wakes mobile apps; low when absent.
    #[prost(enumeration = "Priority", optional, tag = "5")]
    pub native_priority: Option<i32>,
    /// Only for open sockets.
    #[prost(bool, optional, tag = "6")]
    pub transient: Option<bool>,
    /// Which missing clients matter.
    #[prost(oneof = "Strategy", tags = "7, 8, 9, 10")]
    pub strategy: Option<Strategy>,
}

/// How urgently a message wakes mobile apps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Priority {
    /// When the device thinks fit.
    Low = 1,
    /// At once.
    High = 2,
}

/// Which missing clients keep a message from being sent.
#[derive(Clone, PartialEq, Oneof)]
pub enum Strategy {
    /// All.
    #[prost(message, tag = "7")]
    ReportAll(Nothing),
    /// None.
    #[prost(message, tag = "8")]
    IgnoreAll(Nothing),
    /// Those of these users.
    #[prost(message, tag = "9")]
    ReportOnly(Users),
    /// Those of all but these users.
    #[prost(message, tag = "10")]
    IgnoreOnly(Users),
}

/// No fields.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Nothing {}

/// A list of users.
#[derive(Clone, PartialEq, Message)]
pub struct Users {
    /// The users.
    #[prost(message, repeated, tag = "1")]
    pub user_ids: Vec<QualifiedUserId>,
}

/// A user by text.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct QualifiedUserId {
    /// UUID text.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Domain.
    #[prost(string, tag = "2")]
    pub domain: String,
}

/// Recipients of one domain.
#[derive(Clone, PartialEq, Message)]
pub struct QualifiedUserEntry {
    /// Domain.
    #[prost(string, tag = "1")]
    pub domain: String,
    /// Users of the domain.
    #[prost(message, repeated, tag = "2")]
    pub entries: Vec<UserEntry>,
}

/// One recipient user.
#[derive(Clone, PartialEq, Message)]
pub struct UserEntry {
    /// The user.
    #[prost(message, optional, tag = "1")]
    pub user: Option<UserId>,
    /// Its clients.
    #[prost(message, repeated, tag = "2")]
    pub clients: Vec<ClientEntry>,
}

/// A user by bytes.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct UserId {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub uuid: Vec<u8>,
}

/// One recipient client.
#[derive(Clone, PartialEq, Message)]
pub struct ClientEntry {
    /// The client.
    #[prost(message, optional, tag = "1")]
    pub client: Option<ClientId>,
    /// Its ciphertext.
    #[prost(bytes = "bytes", tag = "2")]
    pub text: bytes::Bytes,
}

/// A client.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ClientId {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub client: u64,
}
