//! Changes of conversations as one backend tells them to another, and back.
//!
//! What comes from a peer is checked and bounded here: a value that passes is valid, though not yet believed.

use aldis_proto::{
    convert::{self, InvalidWire},
    federation::v1::{self as pb, conversation_event},
};
use aldis_types::{
    Access, AccessRole, ConnId, ConversationId, ConversationType, Domain, Member, Protocol, Qualified, Timestamp,
    UserId,
};

use crate::groups::{
    model::{Change, LeaveReason, MAX_NAME_CHARS, Metadata, Typing},
    sorted,
};

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
    pub(crate) const ACCESS_CHANGED: u32 = 17;
    pub(crate) const DELETED: u32 = 18;
    pub(crate) const MEMBERS_DEPARTED: u32 = 19;
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
        ACCESS_CHANGED,
        DELETED,
        MEMBERS_DEPARTED,
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
        Wire::AccessChanged(_) => kind::ACCESS_CHANGED,
        Wire::Deleted(_) => kind::DELETED,
        Wire::MembersDeparted(_) => kind::MEMBERS_DEPARTED,
        Wire::MessageSent(_) => kind::MESSAGE_SENT,
    }
}

/// What an event of another backend's conversation says, beside its change.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// The conversation, qualified with the origin. Only for [`Told::Departed`] it is one of ours.
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
    /// Anything else but a message.
    Changed(Change),
    /// The conversation is no more.
    Deleted,
    /// Users of the origin are not in a conversation of ours.
    Departed { users: Vec<UserId>, reason: pb::members_departed::Reason },
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
        Wire::AccessChanged(changed) => {
            let (access, roles) = read_access(&changed.access, &changed.access_roles)?;
            Told::Changed(Change::SetAccess { access, roles })
        }
        Wire::Deleted(_) => Told::Deleted,
        Wire::MembersDeparted(departed) => {
            let users = convert::user_ids(&departed.users, MAX_MEMBERS)?;
            match departed.reason() {
                pb::members_departed::Reason::Unspecified => return Err(InvalidWire("reason")),
                _ if users.is_empty() => return Err(InvalidWire("users")),
                reason => Told::Departed { users, reason },
            }
        }
        Wire::MessageSent(message) => Told::Message(message),
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

/// How people get in and who may, each kind once.
pub(crate) fn read_access(access: &[i32], roles: &[i32]) -> Result<(Vec<Access>, Vec<AccessRole>), InvalidWire> {
    if access.len() > MAX_ACCESS || roles.len() > MAX_ACCESS {
        return Err(InvalidWire("access"));
    }
    let (access, roles) = (convert::from_access(access)?, convert::from_access_roles(roles)?);
    Ok((sorted(&access), sorted(&roles)))
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
        Change::SetAccess { access, roles } => {
            let (access, access_roles) = (convert::to_access(access), convert::to_access_roles(roles));
            (kind::ACCESS_CHANGED, Wire::AccessChanged(pb::AccessChanged { access, access_roles }))
        }
    }
}

/// What the owner of a conversation is told about users of ours who are not in it.
pub(crate) fn write_departed(
    own: &Domain,
    conversation: ConversationId,
    users: &[UserId],
    reason: pb::members_departed::Reason,
    time: Timestamp,
) -> (u32, pb::ConversationEvent) {
    let actor = users.first().map(|user| convert::to_qualified(&own.own(*user).into_qualified()));
    let users = users.iter().map(convert::bytes_of).collect();
    let event = pb::ConversationEvent {
        conversation: convert::bytes_of(conversation),
        time: time.millis(),
        version: 0,
        actor,
        actor_connection: None,
        change: Some(conversation_event::Change::MembersDeparted(pb::MembersDeparted { users, reason: reason.into() })),
    };
    (kind::MEMBERS_DEPARTED, event)
}

/// A new conversation with the number of its kind.
pub(crate) fn write_created(metadata: &Metadata, members: &[Member]) -> (u32, conversation_event::Change) {
    let created = pb::Created {
        metadata: Some(write_metadata(metadata)),
        members: members.iter().map(pb::Member::from).collect(),
    };
    (kind::CREATED, conversation_event::Change::Created(created))
}

/// What somebody does, on the wire.
pub(crate) fn write_typing(typing: Typing) -> pb::TypingStatus {
    match typing {
        Typing::Started => pb::TypingStatus::Started,
        Typing::Stopped => pb::TypingStatus::Stopped,
    }
}

/// What somebody does, from the wire.
pub(crate) fn read_typing(status: pb::TypingStatus) -> Result<Typing, InvalidWire> {
    match status {
        pb::TypingStatus::Unspecified => Err(InvalidWire("status")),
        pb::TypingStatus::Started => Ok(Typing::Started),
        pb::TypingStatus::Stopped => Ok(Typing::Stopped),
    }
}

/// Whether a conversation of another backend may be of this type: what is derived or private is never told of.
pub(crate) fn may_be_told(kind: ConversationType) -> bool {
    kind == ConversationType::Regular
}
