//! Conversations as clients see them.

use aldis_api::ApiVersion;
use aldis_types::{
    Access, AccessRole, ConversationId, ConversationType, LegacyAccessRole, Member, Protocol, Qualified, RoleName,
    Timestamp, UserId,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::model::{Conversation, Metadata, Settings};

/// The first version in which single conversations have no top-level `id`.
const WITHOUT_ID: ApiVersion = ApiVersion(10);

/// In which form a conversation is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// With `id`: lists in every version, single conversations up to version 9.
    Own,
    /// Without `id`: single conversations from version 10 on.
    Single,
    /// Inside events: the oldest, with the legacy `access_role`.
    Event,
}

impl Shape {
    /// The form of a single conversation in a version of the API.
    pub(crate) fn single(version: ApiVersion) -> Self {
        if version < WITHOUT_ID { Self::Own } else { Self::Single }
    }
}

/// A conversation as seen by one of its members.
#[derive(Debug, Clone)]
pub(crate) struct View<'a> {
    pub id: Qualified<ConversationId>,
    pub metadata: &'a Metadata,
    pub me: &'a Member,
    pub settings: &'a Settings,
    pub others: Vec<&'a Member>,
}

impl<'a> View<'a> {
    /// A conversation of ours; `None` when the user is not a member.
    pub(crate) fn of(
        id: Qualified<ConversationId>,
        conversation: &'a Conversation,
        user: &Qualified<UserId>,
    ) -> Option<Self> {
        let me = conversation.member(user)?;
        Some(Self {
            id,
            metadata: &conversation.metadata,
            me: &me.member,
            settings: &me.settings,
            others: conversation.members.iter().map(|m| &m.member).filter(|m| m.user != *user).collect(),
        })
    }

    /// The JSON in the given form.
    pub(crate) fn json(&self, shape: Shape) -> ConversationJson<'_> {
        let metadata = self.metadata;
        let event = shape == Shape::Event;
        ConversationJson {
            id: (shape != Shape::Single).then_some(self.id.id),
            qualified_id: &self.id,
            kind: metadata.kind,
            creator: metadata.creator,
            access: &metadata.access,
            access_role: if event {
                AccessRoleJson::Legacy(LegacyAccessRole::containing(&metadata.access_roles))
            } else {
                AccessRoleJson::List(&metadata.access_roles)
            },
            access_role_v2: event.then_some(&metadata.access_roles),
            name: metadata.name.as_deref(),
            team: (),
            last_event: "0.0",
            last_event_time: Timestamp::EPOCH,
            message_timer: metadata.message_timer,
            receipt_mode: metadata.receipt_mode,
            group_conv_type: (metadata.kind == ConversationType::Regular).then_some("group_conversation"),
            add_permission: (),
            cells_state: "disabled",
            parent: (),
            protocol: metadata.protocol,
            members: MembersJson {
                me: self_member(self.me, self.settings),
                others: self.others.iter().map(|member| OtherMemberJson::of(member)).collect(),
            },
        }
    }
}

/// A conversation as one of its members sees it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConversationJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<ConversationId>,
    qualified_id: &'a Qualified<ConversationId>,
    #[serde(rename = "type")]
    kind: ConversationType,
    creator: Option<UserId>,
    access: &'a [Access],
    access_role: AccessRoleJson<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_role_v2: Option<&'a Vec<AccessRole>>,
    name: Option<&'a str>,
    team: (),
    last_event: &'static str,
    last_event_time: Timestamp,
    message_timer: Option<i64>,
    receipt_mode: Option<i32>,
    group_conv_type: Option<&'static str>,
    add_permission: (),
    cells_state: &'static str,
    parent: (),
    protocol: Protocol,
    members: MembersJson<'a>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "AccessRoles")]
enum AccessRoleJson<'a> {
    Legacy(LegacyAccessRole),
    List(&'a [AccessRole]),
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Members")]
struct MembersJson<'a> {
    #[serde(rename = "self")]
    me: SelfMemberJson<'a>,
    others: Vec<OtherMemberJson<'a>>,
}

/// The caller as a member.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SelfMember")]
pub(crate) struct SelfMemberJson<'a> {
    qualified_id: &'a Qualified<UserId>,
    id: UserId,
    conversation_role: &'a RoleName,
    service: (),
    hidden: bool,
    hidden_ref: Option<&'a str>,
    otr_archived: bool,
    otr_archived_ref: Option<&'a str>,
    otr_muted_status: Option<i32>,
    otr_muted_ref: Option<&'a str>,
    status: u8,
    status_ref: &'static str,
    status_time: Timestamp,
}

/// The caller as a member.
pub(crate) fn self_member<'a>(member: &'a Member, settings: &'a Settings) -> SelfMemberJson<'a> {
    SelfMemberJson {
        qualified_id: &member.user,
        id: member.user.id,
        conversation_role: &member.role,
        service: (),
        hidden: settings.hidden,
        hidden_ref: settings.hidden_ref.as_deref(),
        otr_archived: settings.archived,
        otr_archived_ref: settings.archived_ref.as_deref(),
        otr_muted_status: settings.muted_status,
        otr_muted_ref: settings.muted_ref.as_deref(),
        status: 0,
        status_ref: "0.0",
        status_time: Timestamp::EPOCH,
    }
}

/// Another member.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "OtherMember")]
pub(crate) struct OtherMemberJson<'a> {
    qualified_id: &'a Qualified<UserId>,
    id: UserId,
    conversation_role: &'a RoleName,
    status: u8,
}

impl<'a> OtherMemberJson<'a> {
    fn of(member: &'a Member) -> Self {
        Self { qualified_id: &member.user, id: member.user.id, conversation_role: &member.role, status: 0 }
    }
}
