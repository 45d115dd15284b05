//! What a member may change: pure decisions about one version of a conversation.

use std::collections::BTreeSet;

use aldis_types::{Access, Action as Right, ConversationType, Member, Qualified, RoleName, UserId};

use super::{
    error::GroupError,
    model::{Action, Change, Conversation, LeaveReason, MAX_NAME_CHARS, StoredMember},
};

/// The change that `action` amounts to; `None` when it would change nothing.
///
/// Refuses actors that are not members or whose role does not allow it, actions that this kind of conversation does not
/// know, and values out of range. Whether users may be added by this actor is not decided here.
pub(crate) fn plan(
    conversation: &Conversation,
    actor: &Qualified<UserId>,
    action: &Action,
    max_members: usize,
) -> Result<Option<Change>, GroupError> {
    let member = conversation.member(actor).ok_or(GroupError::NoConversation)?;
    let right = right(actor, action);
    match action {
        Action::AddMembers { users, role } => add(conversation, member, right, users, role, max_members),
        Action::RemoveMembers(users) => remove(conversation, member, right, users),
        Action::Rename(name) => {
            groups_only(conversation)?;
            require(member, right)?;
            check_name(name)?;
            Ok((conversation.metadata.name.as_ref() != Some(name)).then(|| Change::Rename(name.clone())))
        }
        Action::SetMemberRole(target) => set_role(conversation, member, right, target),
        Action::SetMessageTimer(timer) => {
            not_alone(conversation)?;
            require(member, right)?;
            if timer.is_some_and(|timer| timer <= 0) {
                return Err(GroupError::BadRequest("message_timer must be positive"));
            }
            Ok((conversation.metadata.message_timer != *timer).then_some(Change::SetMessageTimer(*timer)))
        }
        Action::SetReceiptMode(mode) => {
            not_alone(conversation)?;
            require(member, right)?;
            Ok((conversation.metadata.receipt_mode != Some(*mode)).then_some(Change::SetReceiptMode(*mode)))
        }
    }
}

/// What a role has to allow for `action` of `actor`.
pub(crate) fn right(actor: &Qualified<UserId>, action: &Action) -> Right {
    match action {
        Action::AddMembers { .. } => Right::AddConversationMember,
        Action::RemoveMembers(users) if users.iter().all(|user| user == actor) => Right::LeaveConversation,
        Action::RemoveMembers(_) => Right::RemoveConversationMember,
        Action::Rename(_) => Right::ModifyConversationName,
        Action::SetMemberRole(_) => Right::ModifyOtherConversationMember,
        Action::SetMessageTimer(_) => Right::ModifyConversationMessageTimer,
        Action::SetReceiptMode(_) => Right::ModifyConversationReceiptMode,
    }
}

/// 1–256 characters.
pub(crate) fn check_name(name: &str) -> Result<(), GroupError> {
    if (1..=MAX_NAME_CHARS).contains(&name.chars().count()) {
        Ok(())
    } else {
        Err(GroupError::BadRequest("name must have 1 to 256 characters"))
    }
}

/// The roles that exist here.
pub(crate) fn check_role(role: &RoleName) -> Result<(), GroupError> {
    if *role == RoleName::admin() || *role == RoleName::member() {
        Ok(())
    } else {
        Err(GroupError::BadRequest("conversation_role must be wire_admin or wire_member"))
    }
}

fn add(
    conversation: &Conversation,
    member: &StoredMember,
    right: Right,
    users: &[Qualified<UserId>],
    role: &RoleName,
    max_members: usize,
) -> Result<Option<Change>, GroupError> {
    groups_only(conversation)?;
    require(member, right)?;
    if !conversation.metadata.access.contains(&Access::Invite) {
        return Err(GroupError::AccessDenied);
    }
    check_role(role)?;
    let new: BTreeSet<_> = users.iter().filter(|user| conversation.member(user).is_none()).collect();
    if conversation.members.len() + new.len() > max_members {
        return Err(GroupError::TooManyMembers);
    }
    let new: Vec<_> = new.into_iter().map(|user| Member { user: user.clone(), role: role.clone() }).collect();
    Ok((!new.is_empty()).then_some(Change::Add(new)))
}

fn remove(
    conversation: &Conversation,
    member: &StoredMember,
    right: Right,
    users: &[Qualified<UserId>],
) -> Result<Option<Change>, GroupError> {
    groups_only(conversation)?;
    let present: BTreeSet<_> = users.iter().filter(|user| conversation.member(user).is_some()).cloned().collect();
    require(member, right)?;
    let reason = if right == Right::LeaveConversation { LeaveReason::Left } else { LeaveReason::Removed };
    Ok((!present.is_empty()).then(|| Change::Remove { users: present.into_iter().collect(), reason }))
}

fn set_role(
    conversation: &Conversation,
    member: &StoredMember,
    right: Right,
    target: &Member,
) -> Result<Option<Change>, GroupError> {
    groups_only(conversation)?;
    if target.user == member.member.user {
        return Err(GroupError::InvalidOp);
    }
    require(member, right)?;
    check_role(&target.role)?;
    let present = conversation.member(&target.user).ok_or(GroupError::NoMember)?;
    Ok((present.member.role != target.role).then(|| Change::SetRole(target.clone())))
}

fn require(member: &StoredMember, right: Right) -> Result<(), GroupError> {
    if member.member.role.allows(right) { Ok(()) } else { Err(GroupError::ActionDenied(right)) }
}

fn groups_only(conversation: &Conversation) -> Result<(), GroupError> {
    if conversation.metadata.kind == ConversationType::Regular { Ok(()) } else { Err(GroupError::InvalidOp) }
}

fn not_alone(conversation: &Conversation) -> Result<(), GroupError> {
    match conversation.metadata.kind {
        ConversationType::Regular | ConversationType::OneToOne => Ok(()),
        ConversationType::SelfConversation | ConversationType::Connect => Err(GroupError::InvalidOp),
    }
}
