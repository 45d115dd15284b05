//! Events, written from the values in the samples.

use std::collections::BTreeSet;

use aldis_golden::{Golden, Verdict, read, same};
use aldis_types::{ConversationId, Member, Qualified, RoleName, Timestamp, UserId};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{MLS, Shown, member};
use crate::{
    events::{Envelope, Event},
    groups::model::{Change, LeaveReason, SettingsUpdate, Typing},
    testing::user,
};

pub(super) fn check(golden: &mut Golden) {
    golden.check("Event_conversation", event);
    golden.check("Event_conversation_manual", event);
    golden.check("Event_user", event);
    let kinds = kinds();
    golden.check("EventType_user", |sample| match sample.as_str().unwrap() {
        kind if kinds.contains(kind) => Verdict::Alike,
        kind => not_offered(kind),
    });
    golden.check("Connect_user", |sample| {
        let recipient: Qualified<UserId> = read(&sample["qualified_recipient"]);
        let ours = data(|envelope| envelope.connect_request(&recipient, sample["name"].as_str().unwrap()));
        same(ours, &without_request(sample));
    });
    golden.check("MemberUpdateData_user", |sample| same(own_settings(sample), sample));
    golden.check("MembersJoin_user", |sample| {
        let members = sample["users"].as_array().unwrap().iter().map(member).collect();
        same(data(|envelope| envelope.changed(&Change::Add(members))), sample);
    });
    golden.check("SimpleMember_user", |sample| {
        let ours = data(|envelope| envelope.changed(&Change::Add(vec![member(sample)])));
        same(&ours["users"][0], sample);
    });
    golden.check("OtrMessage_user", |sample| {
        let ours = data(|envelope| message(envelope, sample));
        same(ours, &with_base64(sample));
    });
}

fn parsed(event: Event, time: Timestamp) -> Value {
    serde_json::from_slice(&event.at(time)).unwrap()
}

/// The data of an event, whose envelope is of no interest.
fn data(event: impl FnOnce(Envelope<'_>) -> Event) -> Value {
    let from = user(1, "alpha.test");
    let conversation = Qualified::new(ConversationId::new(from.id.uuid()), from.domain.clone());
    parsed(event(Envelope { conversation: &conversation, from: &from }), Timestamp::EPOCH)["data"].take()
}

/// The types of all events that we write.
fn kinds() -> BTreeSet<String> {
    let user = user(1, "alpha.test");
    let conversation = Qualified::new(ConversationId::new(user.id.uuid()), user.domain.clone());
    let envelope = Envelope { conversation: &conversation, from: &user };
    let member = Member { user: user.clone(), role: RoleName::admin() };
    let changes = [
        Change::Add(vec![member.clone()]),
        Change::Remove { users: vec![user.clone()], reason: LeaveReason::Left },
        Change::Rename("name".to_owned()),
        Change::SetRole(member),
        Change::SetMessageTimer(None),
        Change::SetReceiptMode(1),
        Change::SetAccess { access: vec![], roles: vec![] },
    ];
    let events = changes.iter().map(|change| envelope.changed(change)).chain([
        envelope.connect_request(&user, "name"),
        envelope.typing(Typing::Started),
        envelope.deleted(),
        message(envelope, &json!({ "sender": "1", "recipient": "2", "text": "" })),
    ]);
    events.map(|event| read(&parsed(event, Timestamp::EPOCH)["type"])).collect()
}

fn not_offered(kind: &str) -> Verdict {
    Verdict::LeftOut(match kind {
        "conversation.mls-message-add" | "conversation.mls-welcome" | "conversation.protocol-update" => MLS,
        "conversation.code-update" | "conversation.code-delete" => "guest links are not offered",
        other => panic!("unknown event {other}"),
    })
}

fn event(sample: &Value) -> Verdict {
    let conversation: Qualified<ConversationId> = read(&sample["qualified_conversation"]);
    let from: Qualified<UserId> = read(&sample["qualified_from"]);
    let envelope = Envelope { conversation: &conversation, from: &from };
    let time: Timestamp = read(&sample["time"]);
    let data = &sample["data"];
    let mut expected = sample.clone();
    // Most are of before 1970, which no event of ours is.
    expected["time"] = json!(time);
    let event = match sample["type"].as_str().unwrap() {
        "conversation.connect-request" => {
            expected["data"] = without_request(data);
            envelope.connect_request(&read(&data["qualified_recipient"]), data["name"].as_str().unwrap())
        }
        "conversation.create" => {
            let shown = Shown::of(data).unwrap();
            let event = envelope.created(&shown.view());
            expected["data"] = shown.sample;
            event
        }
        "conversation.member-leave" => envelope.changed(&Change::Remove {
            users: read(&data["qualified_user_ids"]),
            reason: [LeaveReason::Left, LeaveReason::Removed, LeaveReason::UserDeleted]
                .into_iter()
                .find(|reason| data["reason"] == reason.as_str())
                .unwrap(),
        }),
        "conversation.member-update" => {
            // Role and settings come in one event there, in one each here.
            let mut own = own_settings(data);
            let change = Change::SetRole(Member {
                user: read(&data["qualified_target"]),
                role: read(&data["conversation_role"]),
            });
            let mut ours = parsed(envelope.changed(&change), time);
            ours["data"].as_object_mut().unwrap().append(own.as_object_mut().unwrap());
            same(ours, &expected);
            return Verdict::Alike;
        }
        "conversation.message-timer-update" => envelope.changed(&Change::SetMessageTimer(read(&data["message_timer"]))),
        "conversation.otr-message-add" => {
            expected["data"] = with_base64(data);
            message(envelope, data)
        }
        "conversation.rename" => envelope.changed(&Change::Rename(read(&data["name"]))),
        "conversation.typing" => envelope.typing(read(&data["status"])),
        "conversation.delete" => {
            // Of a team's conversation, and there are no teams.
            expected.as_object_mut().unwrap().remove("team");
            envelope.deleted()
        }
        "conversation.access-update" => {
            envelope.changed(&Change::SetAccess { access: read(&data["access"]), roles: read(&data["access_role_v2"]) })
        }
        other => return not_offered(other),
    };
    same(parsed(event, time), &expected);
    Verdict::Alike
}

/// A request to connect has no text here, and tells no address.
fn without_request(sample: &Value) -> Value {
    let mut sample = sample.clone();
    sample["message"] = Value::Null;
    sample["email"] = Value::Null;
    sample
}

/// The event data of a user's own settings.
fn own_settings(sample: &Value) -> Value {
    let target: Qualified<UserId> = read(&sample["qualified_target"]);
    let conversation = Qualified::new(ConversationId::new(target.id.uuid()), target.domain.clone());
    let envelope = Envelope { conversation: &conversation, from: &target };
    let update = SettingsUpdate {
        muted_status: read(&sample["otr_muted_status"]),
        muted_ref: read(&sample["otr_muted_ref"]),
        archived: read(&sample["otr_archived"]),
        archived_ref: read(&sample["otr_archived_ref"]),
        hidden: read(&sample["hidden"]),
        hidden_ref: read(&sample["hidden_ref"]),
    };
    parsed(envelope.settings(&update), Timestamp::EPOCH)["data"].take()
}

fn message(envelope: Envelope<'_>, sample: &Value) -> Event {
    let text = sample["text"].as_str().unwrap();
    envelope.message(read(&sample["sender"]), read(&sample["recipient"]), text.as_bytes(), sample["data"].as_str())
}

/// The samples have any text where real ciphertexts are base64.
fn with_base64(sample: &Value) -> Value {
    let mut sample = sample.clone();
    sample["text"] = STANDARD.encode(sample["text"].as_str().unwrap()).into();
    sample
}
