//! What a member may change: pure decisions about one version of a conversation.

use std::collections::BTreeSet;

use aldis_types::{Access, AccessRole, Action as Right, ConversationType, Member, Qualified, RoleName, UserId};

use super::{
    error::GroupError,
    model::{Action, Change, Conversation, LeaveReason, MAX_NAME_CHARS, StoredMember},
};

/// The changes that `action` amounts to, in order; none when it would change nothing.
///
/// Refuses actors that are not members or whose role does not allow it, actions that this kind of conversation does not
/// know, and values out of range. Whether users may be added by this actor is not decided here.
pub(crate) fn plan(
    conversation: &Conversation,
    actor: &Qualified<UserId>,
    action: &Action,
    max_members: usize,
) -> Result<Vec<Change>, GroupError> {
    let member = conversation.member(actor).ok_or(GroupError::NoConversation)?;
    let right = right(actor, action);
    let change = match action {
        Action::ReplaceMembers { users, role } => return replace(conversation, member, users, role, max_members),
        Action::AddMembers { users, role } => add(conversation, member, right, users, role, max_members),
        Action::RemoveMembers(users) => remove(conversation, member, right, users),
        Action::SetAccess { access, roles } => set_access(conversation, member, right, access, roles),
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
    };
    Ok(change?.into_iter().collect())
}

/// What a role has to allow for `action` of `actor`.
pub(crate) fn right(actor: &Qualified<UserId>, action: &Action) -> Right {
    match action {
        Action::AddMembers { .. } | Action::ReplaceMembers { .. } => Right::AddConversationMember,
        Action::RemoveMembers(users) if users.iter().all(|user| user == actor) => Right::LeaveConversation,
        Action::RemoveMembers(_) => Right::RemoveConversationMember,
        Action::Rename(_) => Right::ModifyConversationName,
        Action::SetMemberRole(_) => Right::ModifyOtherConversationMember,
        Action::SetMessageTimer(_) => Right::ModifyConversationMessageTimer,
        Action::SetReceiptMode(_) => Right::ModifyConversationReceiptMode,
        Action::SetAccess { .. } => Right::ModifyConversationAccess,
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
    let open = conversation.metadata.access.contains(&Access::Invite);
    // Whoever can be added has an account with an address and is in no team of the conversation.
    if !open || !conversation.metadata.access_roles.contains(&AccessRole::NonTeamMember) {
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

/// Whoever goes, goes first, so that there is room for whoever comes.
fn replace(
    conversation: &Conversation,
    member: &StoredMember,
    users: &[Qualified<UserId>],
    role: &RoleName,
    max_members: usize,
) -> Result<Vec<Change>, GroupError> {
    groups_only(conversation)?;
    let wanted: BTreeSet<_> = users.iter().collect();
    let others = conversation.members.iter().map(|stored| &stored.member.user);
    let leaving: Vec<_> =
        others.filter(|user| **user != member.member.user && !wanted.contains(user)).cloned().collect();
    require(member, Right::AddConversationMember)?;
    require(member, Right::RemoveConversationMember)?;
    let room = max_members.saturating_add(leaving.len());
    let coming = if wanted.iter().all(|user| conversation.member(user).is_some()) {
        None
    } else {
        add(conversation, member, Right::AddConversationMember, users, role, room)?
    };
    let leaving = (!leaving.is_empty()).then_some(Change::Remove { users: leaving, reason: LeaveReason::Removed });
    Ok(leaving.into_iter().chain(coming).collect())
}

/// Nobody is in a team here, and no conversation is a team's: without the role of those who are in none it would be
/// closed to everybody, the actor included.
fn set_access(
    conversation: &Conversation,
    member: &StoredMember,
    right: Right,
    access: &[Access],
    roles: &[AccessRole],
) -> Result<Option<Change>, GroupError> {
    groups_only(conversation)?;
    require(member, right)?;
    if access.contains(&Access::Private) || !roles.contains(&AccessRole::NonTeamMember) {
        return Err(GroupError::InvalidTargetAccess);
    }
    let (access, roles) = (sorted(access), sorted(roles));
    let same = sorted(&conversation.metadata.access) == access && sorted(&conversation.metadata.access_roles) == roles;
    Ok((!same).then_some(Change::SetAccess { access, roles }))
}

/// Each once, in the order of the client API.
pub(crate) fn sorted<T: Copy + Ord>(values: &[T]) -> Vec<T> {
    values.iter().copied().collect::<BTreeSet<_>>().into_iter().collect()
}

/// Whether this member may remove others.
pub(crate) fn require_removal(conversation: &Conversation, actor: &Qualified<UserId>) -> Result<(), GroupError> {
    let member = conversation.member(actor).ok_or(GroupError::NoConversation)?;
    require(member, Right::RemoveConversationMember)
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
