//! Conversation types, access and members.

use aldis_types::{Access, AccessRole, ConversationType, Member};

use super::{InvalidWire, qualified_user, to_qualified};
use crate::federation::v1 as pb;

impl From<ConversationType> for pb::ConversationType {
    fn from(value: ConversationType) -> Self {
        match value {
            ConversationType::Regular => Self::Regular,
            ConversationType::SelfConversation => Self::Self_,
            ConversationType::OneToOne => Self::OneToOne,
            ConversationType::Connect => Self::Connect,
        }
    }
}

impl TryFrom<pb::ConversationType> for ConversationType {
    type Error = InvalidWire;

    fn try_from(value: pb::ConversationType) -> Result<Self, InvalidWire> {
        match value {
            pb::ConversationType::Unspecified => Err(InvalidWire("type")),
            pb::ConversationType::Regular => Ok(Self::Regular),
            pb::ConversationType::Self_ => Ok(Self::SelfConversation),
            pb::ConversationType::OneToOne => Ok(Self::OneToOne),
            pb::ConversationType::Connect => Ok(Self::Connect),
        }
    }
}

/// Access modes as they go over the wire.
pub fn to_access(access: &[Access]) -> Vec<i32> {
    access
        .iter()
        .map(|access| {
            match access {
                Access::Private => pb::Access::Private,
                Access::Invite => pb::Access::Invite,
                Access::Link => pb::Access::Link,
                Access::Code => pb::Access::Code,
            }
            .into()
        })
        .collect()
}

/// Access modes; an unknown value is refused.
pub fn from_access(access: &[i32]) -> Result<Vec<Access>, InvalidWire> {
    access
        .iter()
        .map(|access| match pb::Access::try_from(*access) {
            Ok(pb::Access::Private) => Ok(Access::Private),
            Ok(pb::Access::Invite) => Ok(Access::Invite),
            Ok(pb::Access::Link) => Ok(Access::Link),
            Ok(pb::Access::Code) => Ok(Access::Code),
            Ok(pb::Access::Unspecified) | Err(_) => Err(InvalidWire("access")),
        })
        .collect()
}

/// Access roles as they go over the wire.
pub fn to_access_roles(roles: &[AccessRole]) -> Vec<i32> {
    roles
        .iter()
        .map(|role| {
            match role {
                AccessRole::TeamMember => pb::AccessRole::TeamMember,
                AccessRole::NonTeamMember => pb::AccessRole::NonTeamMember,
                AccessRole::Guest => pb::AccessRole::Guest,
                AccessRole::Service => pb::AccessRole::Service,
            }
            .into()
        })
        .collect()
}

/// Access roles; an unknown value is refused.
pub fn from_access_roles(roles: &[i32]) -> Result<Vec<AccessRole>, InvalidWire> {
    roles
        .iter()
        .map(|role| match pb::AccessRole::try_from(*role) {
            Ok(pb::AccessRole::TeamMember) => Ok(AccessRole::TeamMember),
            Ok(pb::AccessRole::NonTeamMember) => Ok(AccessRole::NonTeamMember),
            Ok(pb::AccessRole::Guest) => Ok(AccessRole::Guest),
            Ok(pb::AccessRole::Service) => Ok(AccessRole::Service),
            Ok(pb::AccessRole::Unspecified) | Err(_) => Err(InvalidWire("access_roles")),
        })
        .collect()
}

impl From<&Member> for pb::Member {
    fn from(member: &Member) -> Self {
        Self { user: Some(to_qualified(&member.user)), role: member.role.as_str().to_owned() }
    }
}

impl TryFrom<&pb::Member> for Member {
    type Error = InvalidWire;

    fn try_from(member: &pb::Member) -> Result<Self, InvalidWire> {
        Ok(Self {
            user: qualified_user(member.user.as_ref())?,
            role: member.role.parse().map_err(|_| InvalidWire("role"))?,
        })
    }
}
