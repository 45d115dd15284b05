//! What a conversation owned here is made of, and how it changes.

use std::collections::BTreeSet;

use aldis_types::{
    Access, AccessRole, ConversationId, ConversationType, Domain, Member, Protocol, Qualified, RoleName, UserId,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most members that a conversation can have by the protocol, whatever the settings say.
pub(crate) const MAX_MEMBERS: usize = 500;
/// Longest name of a conversation, in characters.
pub(crate) const MAX_NAME_CHARS: usize = 256;
/// Longest text of a reference in a member's own settings.
pub(crate) const MAX_REF_BYTES: usize = 256;

/// What every member sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// The kind of conversation.
    pub kind: ConversationType,
    /// Who created it, a user of the owner; `None` for derived one-to-one conversations.
    pub creator: Option<UserId>,
    /// Display name, 1–256 characters.
    pub name: Option<String>,
    /// How people get in.
    pub access: Vec<Access>,
    /// Who may be in.
    pub access_roles: Vec<AccessRole>,
    /// Lifetime of messages in milliseconds.
    pub message_timer: Option<i64>,
    /// Clients give it a meaning.
    pub receipt_mode: Option<i32>,
    /// How it is encrypted.
    pub protocol: Protocol,
}

/// The access roles of a conversation that says nothing else.
pub(crate) const DEFAULT_ACCESS_ROLES: [AccessRole; 3] =
    [AccessRole::TeamMember, AccessRole::NonTeamMember, AccessRole::Service];

impl Metadata {
    /// A conversation between two users.
    pub(crate) fn one_to_one(kind: ConversationType) -> Self {
        Self {
            kind,
            creator: None,
            name: None,
            access: vec![Access::Private],
            access_roles: DEFAULT_ACCESS_ROLES.to_vec(),
            message_timer: None,
            receipt_mode: None,
            protocol: Protocol::Proteus,
        }
    }

    /// A user's conversation with himself.
    pub(crate) fn of_self(user: UserId) -> Self {
        Self { creator: Some(user), access_roles: vec![], ..Self::one_to_one(ConversationType::SelfConversation) }
    }
}

/// How one of our users wants to see a conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub muted_status: Option<i32>,
    pub muted_ref: Option<String>,
    pub archived: bool,
    pub archived_ref: Option<String>,
    pub hidden: bool,
    pub hidden_ref: Option<String>,
}

/// A change of [`Settings`]; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SettingsUpdate {
    pub muted_status: Option<i32>,
    pub muted_ref: Option<String>,
    pub archived: Option<bool>,
    pub archived_ref: Option<String>,
    pub hidden: Option<bool>,
    pub hidden_ref: Option<String>,
}

impl SettingsUpdate {
    /// The settings afterwards.
    pub(crate) fn apply(&self, mut settings: Settings) -> Settings {
        let update = self.clone();
        settings.muted_status = update.muted_status.or(settings.muted_status);
        settings.muted_ref = update.muted_ref.or(settings.muted_ref);
        settings.archived = update.archived.unwrap_or(settings.archived);
        settings.archived_ref = update.archived_ref.or(settings.archived_ref);
        settings.hidden = update.hidden.unwrap_or(settings.hidden);
        settings.hidden_ref = update.hidden_ref.or(settings.hidden_ref);
        settings
    }
}

/// A member with what only his own backend knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredMember {
    /// Who and with which rights.
    pub member: Member,
    /// His settings when he is ours, the default otherwise.
    pub settings: Settings,
}

/// A conversation owned here, as of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conversation {
    /// Its bare id; the domain is ours.
    pub id: ConversationId,
    /// What every member sees.
    pub metadata: Metadata,
    /// Everybody, in ascending order of the qualified id.
    pub members: Vec<StoredMember>,
    /// Rises with every change.
    pub version: u64,
}

impl Conversation {
    /// The member, if the user is one.
    pub(crate) fn member(&self, user: &Qualified<UserId>) -> Option<&StoredMember> {
        let place = self.members.binary_search_by(|stored| stored.member.user.cmp(user)).ok()?;
        self.members.get(place)
    }

    /// The users of `domain` among the members.
    pub(crate) fn users_of<'a>(&'a self, domain: &'a Domain) -> impl Iterator<Item = UserId> + 'a {
        self.members.iter().filter(move |stored| stored.member.user.domain == *domain).map(|s| s.member.user.id)
    }

    /// The other backends with members.
    pub(crate) fn backends(&self, own: &Domain) -> BTreeSet<Domain> {
        backends(self.members.iter().map(|stored| &stored.member.user), own)
    }
}

/// The backends of users, without our own.
pub(crate) fn backends<'a>(users: impl Iterator<Item = &'a Qualified<UserId>>, own: &Domain) -> BTreeSet<Domain> {
    users.filter(|user| user.domain != *own).map(|user| user.domain.clone()).collect()
}

/// Why somebody is no longer a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaveReason {
    /// He left.
    Left,
    /// Somebody removed him.
    Removed,
    /// His account is gone.
    UserDeleted,
}

impl LeaveReason {
    /// The word in events.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Removed => "removed",
            Self::UserDeleted => "user-deleted",
        }
    }
}

/// Whether somebody types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Typing {
    /// He does.
    Started,
    /// No longer.
    Stopped,
}

/// A change of a conversation that every member is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// These joined; none was a member before.
    Add(Vec<Member>),
    /// These left; all were members before.
    Remove { users: Vec<Qualified<UserId>>, reason: LeaveReason },
    /// It has this name now.
    Rename(String),
    /// This member has this role now.
    SetRole(Member),
    /// Messages live this long now.
    SetMessageTimer(Option<i64>),
    /// This receipt mode holds now.
    SetReceiptMode(i32),
    /// People get in like this now, and these may be in.
    SetAccess { access: Vec<Access>, roles: Vec<AccessRole> },
}

/// What a member asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    AddMembers {
        users: Vec<Qualified<UserId>>,
        role: RoleName,
    },
    RemoveMembers(Vec<Qualified<UserId>>),
    Rename(String),
    SetMemberRole(Member),
    SetMessageTimer(Option<i64>),
    SetReceiptMode(i32),
    SetAccess {
        access: Vec<Access>,
        roles: Vec<AccessRole>,
    },
    /// Everybody else is to be one of these; the role is that of those who are new.
    ReplaceMembers {
        users: Vec<Qualified<UserId>>,
        role: RoleName,
    },
}
