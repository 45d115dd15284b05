//! Clients (devices) and their prekeys.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ClientId, UserId};

/// How long a client is meant to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientType {
    /// Kept until it is removed; at most seven per user.
    Permanent,
    /// One per user, replaced by the next.
    Temporary,
    /// For legal hold, which Aldis does not offer: refused on registration.
    Legalhold,
}

/// What kind of device a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientClass {
    /// A phone.
    Phone,
    /// A tablet.
    Tablet,
    /// A desktop program or browser.
    Desktop,
    /// A legal hold device.
    Legalhold,
}

/// What a client says that it can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// It shows legal hold; assumed of every client.
    LegalholdImplicitConsent,
    /// It reads the acknowledged socket `/events`.
    ConsumableNotifications,
}

/// The number of a prekey on its client: 0–65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct PrekeyId(pub u16);

impl PrekeyId {
    /// The key that is handed out when no other is left, and never consumed.
    pub const LAST_RESORT: Self = Self(u16::MAX);
}

/// A single-use public Proteus key; JSON `{"id": 3, "key": "<base64>"}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Prekey {
    /// Its number on the client.
    pub id: PrekeyId,
    /// Base64 text as uploaded; checked on upload.
    pub key: String,
}

/// The clients of one user, without the user's domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserClients {
    /// Whose they are.
    pub user: UserId,
    /// Each client with its class, in ascending order of the id.
    pub clients: Vec<(ClientId, Option<ClientClass>)>,
}
