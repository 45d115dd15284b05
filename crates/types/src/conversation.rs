//! What members see of a conversation.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Unexpected};

use crate::{InvalidValue, Qualified, UserId};

/// How a conversation is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Pairwise sessions between clients.
    Proteus,
    /// One MLS group.
    Mls,
    /// On the way from Proteus to MLS.
    Mixed,
}

/// The kind of a conversation; JSON number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConversationType {
    /// A group: 0.
    Regular,
    /// A user with himself: 1.
    SelfConversation,
    /// Two connected users: 2.
    OneToOne,
    /// Two users whose connection is pending: 3.
    Connect,
}

impl ConversationType {
    /// The client API's number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Regular => 0,
            Self::SelfConversation => 1,
            Self::OneToOne => 2,
            Self::Connect => 3,
        }
    }

    /// From the client API's number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Regular),
            1 => Some(Self::SelfConversation),
            2 => Some(Self::OneToOne),
            3 => Some(Self::Connect),
            _ => None,
        }
    }
}

impl Serialize for ConversationType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.number())
    }
}

impl<'de> Deserialize<'de> for ConversationType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u8::deserialize(deserializer)?;
        Self::from_number(number)
            .ok_or_else(|| serde::de::Error::invalid_value(Unexpected::Unsigned(number.into()), &"0, 1, 2 or 3"))
    }
}

/// How people may get into a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Nobody can be added.
    Private,
    /// Members add users.
    Invite,
    /// By link.
    Link,
    /// By guest code.
    Code,
}

/// Which kinds of account may be members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccessRole {
    /// Members of the conversation's team.
    TeamMember,
    /// Other accounts with an address.
    NonTeamMember,
    /// Accounts without an address.
    Guest,
    /// Bots.
    Service,
}

/// The older way to say which accounts may be members, still used in events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LegacyAccessRole {
    /// Nobody.
    Private,
    /// Team members.
    Team,
    /// Accounts with an address, and bots.
    Activated,
    /// Everybody.
    NonActivated,
}

impl LegacyAccessRole {
    /// The smallest legacy role that contains all of `roles`.
    pub fn containing(roles: &[AccessRole]) -> Self {
        if roles.contains(&AccessRole::Guest) {
            Self::NonActivated
        } else if roles.contains(&AccessRole::NonTeamMember) || roles.contains(&AccessRole::Service) {
            Self::Activated
        } else if roles.is_empty() {
            Self::Private
        } else {
            Self::Team
        }
    }
}

/// The name of a role in a conversation: `wire_admin`, `wire_member` or 2–128 characters of `a-z0-9_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoleName(Box<str>);

impl RoleName {
    /// May do everything.
    pub fn admin() -> Self {
        Self("wire_admin".into())
    }

    /// May leave.
    pub fn member() -> Self {
        Self("wire_member".into())
    }

    /// The role as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a member with this role may do `action`. Unknown roles may leave, no more.
    pub fn allows(&self, action: Action) -> bool {
        &*self.0 == "wire_admin" || action == Action::LeaveConversation
    }
}

impl FromStr for RoleName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let valid = (2..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(InvalidValue("a role name has 2 to 128 characters of a-z, 0-9, '_'"))
        }
    }
}

impl Serialize for RoleName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RoleName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What a role may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Add users.
    AddConversationMember,
    /// Remove others.
    RemoveConversationMember,
    /// Rename.
    ModifyConversationName,
    /// Change the message timer.
    ModifyConversationMessageTimer,
    /// Change the receipt mode.
    ModifyConversationReceiptMode,
    /// Change access and access roles.
    ModifyConversationAccess,
    /// Change the role of others.
    ModifyOtherConversationMember,
    /// Leave.
    LeaveConversation,
    /// Delete.
    DeleteConversation,
    /// Change who may add (channels).
    ModifyAddPermission,
}

impl Action {
    /// Every action, in the order in which the client API lists them.
    pub const ALL: [Self; 10] = [
        Self::AddConversationMember,
        Self::RemoveConversationMember,
        Self::ModifyConversationName,
        Self::ModifyConversationMessageTimer,
        Self::ModifyConversationReceiptMode,
        Self::ModifyConversationAccess,
        Self::ModifyOtherConversationMember,
        Self::LeaveConversation,
        Self::DeleteConversation,
        Self::ModifyAddPermission,
    ];
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// A member of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who, of any backend.
    pub user: Qualified<UserId>,
    /// With which rights.
    pub role: RoleName,
}
