//! Changes of conversations as one backend tells them to another, and back.
//!
//! What comes from a peer is checked and bounded here: a value that passes is valid, though not yet believed.

use aldis_proto::{
    convert::{self, InvalidWire},
    federation::v1::{self as pb, conversation_event},
};
use aldis_types::{ConnId, ConversationId, ConversationType, Domain, Member, Protocol, Qualified, Timestamp, UserId};

use crate::groups::model::{Change, LeaveReason, MAX_NAME_CHARS, Metadata};

/// More members than any backend allows; a longer list is refused.
const MAX_MEMBERS: usize = 2000;
/// More kinds of access, or of access roles, than exist.
const MAX_ACCESS: usize = 8;

/// Kinds of envelopes: the field number of the change in `ConversationEvent`.
pub(crate) mod kind {
    pub(crate) const CREATED: u32 = 10;
    pub(crate) const MEMBERS_ADDED: u32 = 11;
    pub(crate) const MEMBERS_REMOVED: u32 = 12;
    pub(crate) const RENAMED: u32 = 13;
    pub(crate) const MEMBER_ROLE_CHANGED: u32 = 14;
    pub(crate) const MESSAGE_TIMER_CHANGED: u32 = 15;
    pub(crate) const RECEIPT_MODE_CHANGED: u32 = 16;
    pub(crate) const MESSAGE_SENT: u32 = 30;

    /// Every kind that this build understands.
    pub(crate) const ALL: &[u32] = &[
        CREATED,
        MEMBERS_ADDED,
        MEMBERS_REMOVED,
        RENAMED,
        MEMBER_ROLE_CHANGED,
        MESSAGE_TIMER_CHANGED,
        RECEIPT_MODE_CHANGED,
        MESSAGE_SENT,
    ];
}

/// The number of a change's kind.
pub(crate) fn kind_of(change: &conversation_event::Change) -> u32 {
    use conversation_event::Change as Wire;
    match change {
        Wire::Created(_) => kind::CREATED,
        Wire::MembersAdded(_) => kind::MEMBERS_ADDED,
        Wire::MembersRemoved(_) => kind::MEMBERS_REMOVED,
        Wire::Renamed(_) => kind::RENAMED,
        Wire::MemberRoleChanged(_) => kind::MEMBER_ROLE_CHANGED,
        Wire::MessageTimerChanged(_) => kind::MESSAGE_TIMER_CHANGED,
        Wire::ReceiptModeChanged(_) => kind::RECEIPT_MODE_CHANGED,
        Wire::AccessChanged(_) => 17,
        Wire::Deleted(_) => 18,
        Wire::MessageSent(_) => kind::MESSAGE_SENT,
    }
}

/// What an event of another backend's conversation says, beside its change.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// The conversation, qualified with the origin.
    pub conversation: Qualified<ConversationId>,
    /// When, by the owner.
    pub time: Timestamp,
    /// Who, as the owner says.
    pub actor: Qualified<UserId>,
    /// The session of ours that caused it.
    pub connection: Option<ConnId>,
}

/// The change of an event.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// A new conversation with everybody in it.
    Created { metadata: Box<Metadata>, members: Vec<Member> },
    /// Anything but a message.
    Changed(Change),
    /// A message for users of ours.
    Message(pb::MessageSent),
}

/// Reads an event of the backend `origin`.
pub(crate) fn read_event(
    event: pb::ConversationEvent,
    origin: &Domain,
    lane: &[u8; 16],
) -> Result<(Head, Told), InvalidWire> {
    let conversation = convert::conversation_id(&event.conversation)?;
    if conversation.as_bytes() != lane {
        return Err(InvalidWire("conversation"));
    }
    let head = Head {
        conversation: Qualified::new(conversation, origin.clone()),
        time: Timestamp::from_millis(event.time),
        actor: convert::qualified_user(event.actor.as_ref())?,
        connection: event.actor_connection.map(ConnId),
    };
    Ok((head, read_change(event.change.ok_or(InvalidWire("change"))?)?))
}

fn read_change(change: conversation_event::Change) -> Result<Told, InvalidWire> {
    use conversation_event::Change as Wire;
    Ok(match change {
        Wire::Created(created) => Told::Created {
            metadata: Box::new(read_metadata(created.metadata.as_ref())?),
            members: read_members(&created.members)?,
        },
        Wire::MembersAdded(added) => Told::Changed(Change::Add(read_members(&added.added)?)),
        Wire::MembersRemoved(removed) => {
            let reason = match removed.reason() {
                pb::members_removed::Reason::Unspecified => return Err(InvalidWire("reason")),
                pb::members_removed::Reason::Left => LeaveReason::Left,
                pb::members_removed::Reason::Removed => LeaveReason::Removed,
                pb::members_removed::Reason::UserDeleted => LeaveReason::UserDeleted,
            };
            Told::Changed(Change::Remove { users: read_users(&removed.users)?, reason })
        }
        Wire::Renamed(renamed) => Told::Changed(Change::Rename(read_name(&renamed.name)?)),
        Wire::MemberRoleChanged(changed) => Told::Changed(Change::SetRole(Member {
            user: convert::qualified_user(changed.user.as_ref())?,
            role: changed.role.parse().map_err(|_| InvalidWire("role"))?,
        })),
        Wire::MessageTimerChanged(changed) => Told::Changed(Change::SetMessageTimer(changed.message_timer_ms)),
        Wire::ReceiptModeChanged(changed) => Told::Changed(Change::SetReceiptMode(changed.receipt_mode)),
        Wire::MessageSent(message) => Told::Message(message),
        Wire::AccessChanged(_) | Wire::Deleted(_) => return Err(InvalidWire("change")),
    })
}

/// Qualified ids of users, at most as many as a conversation can have members.
pub(crate) fn read_users(users: &[pb::QualifiedId]) -> Result<Vec<Qualified<UserId>>, InvalidWire> {
    if users.len() > MAX_MEMBERS {
        return Err(InvalidWire("users"));
    }
    users.iter().map(|user| convert::qualified_user(Some(user))).collect()
}

/// Members, at most as many as a conversation can have.
pub(crate) fn read_members(members: &[pb::Member]) -> Result<Vec<Member>, InvalidWire> {
    if members.len() > MAX_MEMBERS {
        return Err(InvalidWire("members"));
    }
    members.iter().map(Member::try_from).collect()
}

fn read_name(name: &str) -> Result<String, InvalidWire> {
    if (1..=MAX_NAME_CHARS).contains(&name.chars().count()) { Ok(name.to_owned()) } else { Err(InvalidWire("name")) }
}

/// What a peer says of a conversation that it owns.
pub(crate) fn read_metadata(metadata: Option<&pb::Metadata>) -> Result<Metadata, InvalidWire> {
    let metadata = metadata.ok_or(InvalidWire("metadata"))?;
    if metadata.access.len() > MAX_ACCESS || metadata.access_roles.len() > MAX_ACCESS {
        return Err(InvalidWire("access"));
    }
    Ok(Metadata {
        kind: metadata.r#type().try_into()?,
        creator: metadata.creator.as_ref().map(|id| convert::user_id(id)).transpose()?,
        name: metadata.name.as_deref().map(read_name).transpose()?,
        access: convert::from_access(&metadata.access)?,
        access_roles: convert::from_access_roles(&metadata.access_roles)?,
        message_timer: metadata.message_timer_ms,
        receipt_mode: metadata.receipt_mode,
        protocol: match metadata.protocol {
            1 => Protocol::Proteus,
            2 => Protocol::Mls,
            3 => Protocol::Mixed,
            _ => return Err(InvalidWire("protocol")),
        },
    })
}

/// What we say of a conversation of ours.
pub(crate) fn write_metadata(metadata: &Metadata) -> pb::Metadata {
    pb::Metadata {
        r#type: pb::ConversationType::from(metadata.kind).into(),
        creator: metadata.creator.map(convert::bytes_of),
        name: metadata.name.clone(),
        access: convert::to_access(&metadata.access),
        access_roles: convert::to_access_roles(&metadata.access_roles),
        message_timer_ms: metadata.message_timer,
        receipt_mode: metadata.receipt_mode,
        protocol: match metadata.protocol {
            Protocol::Proteus => 1,
            Protocol::Mls => 2,
            Protocol::Mixed => 3,
        },
    }
}

/// The change with the number of its kind. `after` is the conversation as it is then: backends that join with new
/// members need it whole.
pub(crate) fn write_change(
    change: &Change,
    metadata: &Metadata,
    after: &[Member],
) -> (u32, conversation_event::Change) {
    use conversation_event::Change as Wire;
    match change {
        Change::Add(added) => {
            let added = added.iter().map(pb::Member::from).collect();
            let members = after.iter().map(pb::Member::from).collect();
            let change = pb::MembersAdded { added, metadata: Some(write_metadata(metadata)), members };
            (kind::MEMBERS_ADDED, Wire::MembersAdded(change))
        }
        Change::Remove { users, reason } => {
            let reason = match reason {
                LeaveReason::Left => pb::members_removed::Reason::Left,
                LeaveReason::Removed => pb::members_removed::Reason::Removed,
                LeaveReason::UserDeleted => pb::members_removed::Reason::UserDeleted,
            };
            let users = users.iter().map(convert::to_qualified).collect();
            (kind::MEMBERS_REMOVED, Wire::MembersRemoved(pb::MembersRemoved { users, reason: reason.into() }))
        }
        Change::Rename(name) => (kind::RENAMED, Wire::Renamed(pb::Renamed { name: name.clone() })),
        Change::SetRole(member) => {
            let user = Some(convert::to_qualified(&member.user));
            let role = member.role.as_str().to_owned();
            (kind::MEMBER_ROLE_CHANGED, Wire::MemberRoleChanged(pb::MemberRoleChanged { user, role }))
        }
        Change::SetMessageTimer(timer) => {
            let change = pb::MessageTimerChanged { message_timer_ms: *timer };
            (kind::MESSAGE_TIMER_CHANGED, Wire::MessageTimerChanged(change))
        }
        Change::SetReceiptMode(mode) => {
            let change = pb::ReceiptModeChanged { receipt_mode: *mode };
            (kind::RECEIPT_MODE_CHANGED, Wire::ReceiptModeChanged(change))
        }
    }
}

/// A new conversation with the number of its kind.
pub(crate) fn write_created(metadata: &Metadata, members: &[Member]) -> (u32, conversation_event::Change) {
    let created = pb::Created {
        metadata: Some(write_metadata(metadata)),
        members: members.iter().map(pb::Member::from).collect(),
    };
    (kind::CREATED, conversation_event::Change::Created(created))
}

/// Whether a conversation of another backend may be of this type: what is derived or private is never told of.
pub(crate) fn may_be_told(kind: ConversationType) -> bool {
    kind == ConversationType::Regular
}
