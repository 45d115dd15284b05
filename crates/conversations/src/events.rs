//! Events of conversations as clients get them: JSON in the oldest shapes, whatever the version of the API.
//!
//! An event is written before its time is known, since that is fixed with the head of the conversation; the time stands
//! at a fixed place in front and is filled in by [`Event::at`].

use aldis_types::{
    Access, AccessRole, ClientId, ConversationId, LegacyAccessRole, Member, Qualified, RoleName, Timestamp, UserId,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;

use crate::groups::{
    json::{Shape, View},
    model::{Change, SettingsUpdate, Typing},
};

/// `{"time":"` stands before the time, which has always 24 characters.
const TIME_STARTS: usize = 9;
const TIME_ENDS: usize = TIME_STARTS + 24;

/// An event that lacks nothing but its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event(Vec<u8>);

impl Event {
    /// The event with its time.
    pub(crate) fn at(mut self, time: Timestamp) -> Vec<u8> {
        let text = time.to_string();
        if let Some(place) = self.0.get_mut(TIME_STARTS..TIME_ENDS)
            && place.len() == text.len()
        {
            place.copy_from_slice(text.as_bytes());
        }
        self.0
    }
}

/// Where an event belongs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope<'a> {
    /// The conversation.
    pub conversation: &'a Qualified<ConversationId>,
    /// Who caused it.
    pub from: &'a Qualified<UserId>,
}

#[derive(Serialize)]
struct EventJson<'a, D> {
    // First, because its place must be known.
    time: Timestamp,
    #[serde(rename = "type")]
    kind: &'static str,
    conversation: ConversationId,
    qualified_conversation: &'a Qualified<ConversationId>,
    from: UserId,
    qualified_from: &'a Qualified<UserId>,
    via: &'static str,
    data: D,
}

impl Envelope<'_> {
    fn event(self, kind: &'static str, data: impl Serialize) -> Event {
        let json = EventJson {
            time: Timestamp::EPOCH,
            kind,
            conversation: self.conversation.id,
            qualified_conversation: self.conversation,
            from: self.from.id,
            qualified_from: self.from,
            via: "user",
            data,
        };
        // Strings, numbers and structs only: nothing that JSON cannot hold.
        Event(serde_json::to_vec(&json).unwrap_or_else(|error| {
            tracing::error!(%error, event.kind = kind, "an event cannot be written");
            b"{}".to_vec()
        }))
    }

    /// `conversation.create`, for the member whose view it is.
    pub(crate) fn created(self, view: &View<'_>) -> Event {
        self.event("conversation.create", view.json(Shape::Event))
    }

    /// The event of a change.
    pub(crate) fn changed(self, change: &Change) -> Event {
        match change {
            Change::Add(users) => self.event("conversation.member-join", Join::of(users)),
            Change::Remove { users, reason } => {
                let user_ids = users.iter().map(|user| user.id).collect();
                let data = Leave { reason: reason.as_str(), qualified_user_ids: users, user_ids };
                self.event("conversation.member-leave", data)
            }
            Change::Rename(name) => self.event("conversation.rename", Rename { name }),
            Change::SetRole(member) => {
                let data = RoleUpdate {
                    qualified_target: &member.user,
                    target: member.user.id,
                    conversation_role: &member.role,
                };
                self.event("conversation.member-update", data)
            }
            Change::SetMessageTimer(timer) => {
                self.event("conversation.message-timer-update", Timer { message_timer: *timer })
            }
            Change::SetReceiptMode(mode) => {
                self.event("conversation.receipt-mode-update", Receipt { receipt_mode: *mode })
            }
            Change::SetAccess { access, roles } => {
                let access_role = LegacyAccessRole::containing(roles);
                let data = AccessUpdate { access, access_role, access_role_v2: roles };
                self.event("conversation.access-update", data)
            }
        }
    }

    /// `conversation.delete`.
    pub(crate) fn deleted(self) -> Event {
        self.event("conversation.delete", ())
    }

    /// `conversation.member-update` about the user's own settings.
    pub(crate) fn settings(self, update: &SettingsUpdate) -> Event {
        let data = SettingsJson {
            qualified_target: self.from,
            target: self.from.id,
            otr_muted_status: update.muted_status,
            otr_muted_ref: update.muted_ref.as_deref(),
            otr_archived: update.archived,
            otr_archived_ref: update.archived_ref.as_deref(),
            hidden: update.hidden,
            hidden_ref: update.hidden_ref.as_deref(),
        };
        self.event("conversation.member-update", data)
    }

    /// `conversation.connect-request`, for the user who asked.
    pub(crate) fn connect_request(self, recipient: &Qualified<UserId>, name: &str) -> Event {
        let data =
            ConnectRequest { qualified_recipient: recipient, recipient: recipient.id, message: (), name, email: () };
        self.event("conversation.connect-request", data)
    }

    /// `conversation.typing`.
    pub(crate) fn typing(self, status: Typing) -> Event {
        self.event("conversation.typing", TypingJson { status })
    }

    /// `conversation.otr-message-add`, for one client.
    pub(crate) fn message(self, sender: ClientId, recipient: ClientId, text: &[u8], data: Option<&str>) -> Event {
        self.event("conversation.otr-message-add", Message { sender, recipient, text: STANDARD.encode(text), data })
    }
}

/// How long a message event is, from above, without its base64 parts.
pub(crate) const MESSAGE_FRAME_BYTES: usize = 1024;

#[derive(Serialize)]
struct Join<'a> {
    users: Vec<JoinedUser<'a>>,
    user_ids: Vec<UserId>,
    add_type: &'static str,
}

#[derive(Serialize)]
struct JoinedUser<'a> {
    qualified_id: &'a Qualified<UserId>,
    id: UserId,
    conversation_role: &'a RoleName,
}

impl<'a> Join<'a> {
    fn of(members: &'a [Member]) -> Self {
        let joined = |member: &'a Member| JoinedUser {
            qualified_id: &member.user,
            id: member.user.id,
            conversation_role: &member.role,
        };
        Self {
            users: members.iter().map(joined).collect(),
            user_ids: members.iter().map(|member| member.user.id).collect(),
            add_type: "internal_add",
        }
    }
}

#[derive(Serialize)]
struct Leave<'a> {
    reason: &'static str,
    qualified_user_ids: &'a [Qualified<UserId>],
    user_ids: Vec<UserId>,
}

#[derive(Serialize)]
struct Rename<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct RoleUpdate<'a> {
    qualified_target: &'a Qualified<UserId>,
    target: UserId,
    conversation_role: &'a RoleName,
}

#[derive(Serialize)]
struct Timer {
    message_timer: Option<i64>,
}

#[derive(Serialize)]
struct Receipt {
    receipt_mode: i32,
}

#[derive(Serialize)]
struct AccessUpdate<'a> {
    access: &'a [Access],
    access_role: LegacyAccessRole,
    access_role_v2: &'a [AccessRole],
}

#[derive(Serialize)]
struct SettingsJson<'a> {
    qualified_target: &'a Qualified<UserId>,
    target: UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    otr_muted_status: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    otr_muted_ref: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    otr_archived: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    otr_archived_ref: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hidden: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hidden_ref: Option<&'a str>,
}

#[derive(Serialize)]
struct ConnectRequest<'a> {
    qualified_recipient: &'a Qualified<UserId>,
    recipient: UserId,
    message: (),
    name: &'a str,
    email: (),
}

#[derive(Serialize)]
struct TypingJson {
    status: Typing,
}

#[derive(Serialize)]
struct Message<'a> {
    sender: ClientId,
    recipient: ClientId,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
}
