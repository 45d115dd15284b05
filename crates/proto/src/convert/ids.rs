//! Ids and domains.

use aldis_types::{ClientId, ConversationId, Domain, EventId, Qualified, TeamId, UserId};
use bytes::Bytes;
use tonic::Status;

use crate::federation::v1 as pb;

/// A message breaks the rules of `proto/README.md`; names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid or missing field `{0}`")]
pub struct InvalidWire(pub &'static str);

impl From<InvalidWire> for Status {
    fn from(error: InvalidWire) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// The 16 bytes of an id.
pub fn bytes_of(id: impl AsRef<[u8; 16]>) -> Bytes {
    Bytes::copy_from_slice(id.as_ref())
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $type:ty, $field:literal) => {
        $(#[$doc])*
        pub fn $name(bytes: &[u8]) -> Result<$type, InvalidWire> {
            <$type>::from_bytes(bytes).map_err(|_| InvalidWire($field))
        }
    };
}

id!(
    /// A bare user id: exactly 16 bytes.
    user_id, UserId, "user"
);
id!(
    /// A bare conversation id: exactly 16 bytes.
    conversation_id, ConversationId, "conversation"
);
id!(
    /// A team id: exactly 16 bytes.
    team_id, TeamId, "team"
);
id!(
    /// An event id: exactly 16 bytes.
    event_id, EventId, "event_id"
);

/// A list of bare user ids with at most `max` entries.
pub fn user_ids(list: &[Bytes], max: usize) -> Result<Vec<UserId>, InvalidWire> {
    if list.len() > max {
        return Err(InvalidWire("users"));
    }
    list.iter().map(|bytes| user_id(bytes)).collect()
}

/// An optional team id.
pub fn optional_team(bytes: Option<&Bytes>) -> Result<Option<TeamId>, InvalidWire> {
    bytes.map(|bytes| team_id(bytes)).transpose()
}

/// Client ids.
pub fn client_ids(list: &[u64]) -> Vec<ClientId> {
    list.iter().copied().map(ClientId).collect()
}

/// A domain, which must be normalised already.
pub fn domain(text: &str) -> Result<Domain, InvalidWire> {
    let domain: Domain = text.parse().map_err(|_| InvalidWire("domain"))?;
    if domain.as_str() == text { Ok(domain) } else { Err(InvalidWire("domain")) }
}

/// A qualified user id.
pub fn qualified_user(id: Option<&pb::QualifiedId>) -> Result<Qualified<UserId>, InvalidWire> {
    let id = id.ok_or(InvalidWire("user"))?;
    Ok(Qualified::new(user_id(&id.id)?, domain(&id.domain)?))
}

/// A qualified conversation id.
pub fn qualified_conversation(id: Option<&pb::QualifiedId>) -> Result<Qualified<ConversationId>, InvalidWire> {
    let id = id.ok_or(InvalidWire("conversation"))?;
    Ok(Qualified::new(conversation_id(&id.id)?, domain(&id.domain)?))
}

/// Any qualified id as it goes over the wire.
pub fn to_qualified<T: AsRef<[u8; 16]>>(id: &Qualified<T>) -> pb::QualifiedId {
    pb::QualifiedId { id: bytes_of(&id.id), domain: id.domain.as_str().to_owned() }
}
