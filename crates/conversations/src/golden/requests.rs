//! What we are asked: samples sent to a running service, and what becomes of them.

use std::collections::BTreeSet;

use aldis_golden::{Golden, read, same};
use aldis_types::{Access, AccessRole, ConversationId, Qualified, Timestamp, UserId};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    groups::http as groups,
    messages::{
        mismatch::{Clients, Comparison},
        older::{OlderStatus, read_json},
        status::Status,
        wire::Strategy,
    },
    testing::{Backend, QualifiedUser, World, domain, user},
};

/// A group of Ann, who may do everything, and Bob.
struct Scene {
    world: World,
    alpha: Backend,
    ann: QualifiedUser,
    bob: QualifiedUser,
    path: String,
}

impl Scene {
    async fn new() -> Self {
        let world = World::default();
        let alpha = world.start("alpha.test").await;
        let (ann, bob) = (user(1, "alpha.test"), user(2, "alpha.test"));
        world.connect(&[&ann, &bob]);
        let body = json!({ "qualified_users": [bob], "conversation_role": "wire_member" });
        let (status, group) = alpha.post(&ann, "/conversations", body).await;
        assert_eq!(status, StatusCode::CREATED, "{group}");
        let path = format!("/conversations/alpha.test/{}", group["qualified_id"]["id"].as_str().unwrap());
        Self { world, alpha, ann, bob, path }
    }

    fn path(&self, rest: &str) -> String {
        format!("{}/{rest}", self.path)
    }

    /// The data of the event that is the answer to a change.
    async fn change(&self, rest: &str, body: &Value) -> Value {
        let (status, mut event) = self.alpha.put(&self.ann, &self.path(rest), body.clone()).await;
        assert_eq!(status, StatusCode::OK, "{event}");
        event["data"].take()
    }

    async fn set_own(&self, body: &Value) {
        let (status, answer) = self.alpha.put(&self.ann, &self.path("self"), body.clone()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let (_, me) = self.alpha.get(&self.ann, &self.path("self")).await;
        for (key, value) in body.as_object().unwrap() {
            assert_eq!(&me[key], value, "{key}");
        }
    }

    async fn refused(&self, path: &str, body: &Value) {
        let (status, answer) = self.alpha.put(&self.ann, path, body.clone()).await;
        assert_eq!((status, &answer["label"]), (StatusCode::BAD_REQUEST, &json!("bad-request")));
    }
}

pub(super) async fn check(golden: &mut Golden) {
    let scene = Scene::new().await;
    changes(golden, &scene).await;
    lists(golden, &scene).await;
    older_messages(golden).await;
    for kind in ["NewConv_user", "fromJSON/NewConv_user"] {
        golden.ask(kind, async |sample| new_group(&scene, sample).await).await;
    }
    golden
        .ask("NewOne2OneConv_user", async |sample| {
            // Members of a team, and named without a domain, which is not offered.
            drop(read::<groups::OneToOneBody>(sample));
            let (status, answer) = scene.alpha.post(&scene.ann, "/one2one-conversations", sample.clone()).await;
            assert_eq!((status, &answer["label"]), (StatusCode::BAD_REQUEST, &json!("bad-request")));
        })
        .await;
}

async fn changes(golden: &mut Golden, scene: &Scene) {
    for (kind, rest) in [
        ("ConversationMessageTimerUpdate_user", "message-timer"),
        ("ConversationReceiptModeUpdate_user", "receipt-mode"),
        ("ConversationRename_user", "name"),
    ] {
        golden.ask(kind, async |sample| same(scene.change(rest, sample).await, sample)).await;
    }
    golden
        .ask("ReceiptMode_user", async |sample| {
            let body = json!({ "receipt_mode": sample });
            same(scene.change("receipt-mode", &body).await, &body);
        })
        .await;
    golden.ask("MemberUpdate_user", async |sample| scene.set_own(sample).await).await;
    golden.ask("MutedStatus_user", async |sample| scene.set_own(&json!({ "otr_muted_status": sample })).await).await;
    golden.ask("fromJSON/MemberUpdate_user", async |sample| scene.refused(&scene.path("self"), sample).await).await;
    let role_of_bob = scene.path(&format!("members/alpha.test/{}", scene.bob.id));
    for kind in ["OtherMemberUpdate_user", "fromJSON/OtherMemberUpdate_user"] {
        // Roles of one's own are not offered.
        golden.ask(kind, async |sample| scene.refused(&role_of_bob, sample).await).await;
    }
    golden
        .ask("TypingStatus_user", async |sample| {
            let (status, _) = scene.alpha.post(&scene.ann, &scene.path("typing"), sample.clone()).await;
            assert_eq!(status, StatusCode::OK);
            same(&scene.alpha.wait_for(&scene.bob, "conversation.typing", 1).await[0].event["data"], sample);
        })
        .await;
}

/// The older form of a message: what is posted, and what is answered.
async fn older_messages(golden: &mut Golden) {
    let own = domain("alpha.test");
    let read_body = |body: &Value| read_json(body.to_string().as_bytes(), &own, Strategy::ReportAll).unwrap();
    for kind in ["NewOtrMessage_user", "fromJSON/NewOtrMessage_user"] {
        golden
            .ask(kind, async |sample| {
                let message = read_body(sample);
                assert_eq!(json!(message.sender), sample["sender"]);
                assert_eq!(message.high_priority, sample["native_priority"] == "high");
                assert_eq!(message.native_push, sample["native_push"] != false);
                assert_eq!(message.transient, sample["transient"] == true);
                assert_eq!(message.strategy, Strategy::ReportOnly(vec![]));
            })
            .await;
    }
    golden
        .ask("Priority_user", async |sample| {
            let message = read_body(&json!({ "sender": "1", "recipients": {}, "native_priority": sample }));
            assert_eq!(message.high_priority, sample == "high");
        })
        .await;
    golden
        .ask("OtrRecipients_user", async |sample| {
            // The samples have any text where real ciphertexts are base64.
            let mut recipients = sample.clone();
            for text in
                recipients.as_object_mut().unwrap().values_mut().flat_map(|it| it.as_object_mut().unwrap().values_mut())
            {
                *text = STANDARD.encode(text.as_str().unwrap()).into();
            }
            let mut read = json!({});
            for recipient in read_body(&json!({ "sender": "1", "recipients": recipients })).recipients {
                let text = String::from_utf8(recipient.text.to_vec()).unwrap();
                read[recipient.user.id.to_string()][recipient.client.to_string()] = text.into();
            }
            same(read, sample);
        })
        .await;
    golden
        .ask("ClientMismatch_user", async |sample| {
            let clients = |key: &str| Clients::from([(domain("alpha.test"), read(&sample[key]))]);
            let compared = Comparison {
                missing: clients("missing"),
                redundant: clients("redundant"),
                deleted: clients("deleted"),
                ..Comparison::default()
            };
            let status = Status::new(read(&sample["time"]), compared);
            let mut expected = sample.clone();
            expected["time"] = json!(read::<Timestamp>(&sample["time"]));
            same(json!(OlderStatus::of(status, &domain("alpha.test"))), &expected);
        })
        .await;
}

async fn lists(golden: &mut Golden, scene: &Scene) {
    golden
        .ask("ListConversations", async |sample| {
            let (status, listed) = scene.alpha.post(&scene.ann, "/conversations/list", sample.clone()).await;
            assert_eq!(status, StatusCode::OK);
            let unknown = json!({ "found": [], "not_found": sample["qualified_ids"], "failed": [] });
            same(listed, &unknown);
        })
        .await;
    let ids = async |body: Value| {
        let (status, page) = scene.alpha.post(&scene.ann, "/conversations/list-ids", body).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        page
    };
    let all = ids(json!({})).await;
    assert_eq!(all["qualified_conversations"].as_array().unwrap().len(), 2);
    golden.ask("GetPaginatedConversationIds", async |sample| same(ids(sample.clone()).await, &all)).await;
    golden
        .ask("ConversationPagingState", async |sample| {
            // It begins with our own conversations, or with those of other backends, of which there are none.
            let page = ids(json!({ "paging_state": sample })).await;
            let nothing =
                json!({ "qualified_conversations": [], "has_more": false, "paging_state": all["paging_state"] });
            same(page, if sample == "AA==" { &all } else { &nothing });
        })
        .await;
}

/// A sample creates a group once its team is left out and its role is one of ours.
async fn new_group(scene: &Scene, sample: &Value) {
    drop(read::<groups::CreateBody>(sample));
    let (status, answer) = scene.alpha.post(&scene.ann, "/conversations", sample.clone()).await;
    assert_eq!((status, &answer["label"]), (StatusCode::FORBIDDEN, &json!("no-team-member")));

    let users: BTreeSet<UserId> = read(&sample["users"]);
    let qualified: Vec<_> = users.iter().map(|user| Qualified::new(*user, domain("alpha.test"))).collect();
    scene.world.connect(&qualified.iter().chain([&scene.ann]).collect::<Vec<_>>());
    let mut body = sample.clone();
    body.as_object_mut().unwrap().remove("team");
    let (status, answer) = scene.alpha.post(&scene.ann, "/conversations", body.clone()).await;
    assert_eq!((status, &answer["label"]), (StatusCode::BAD_REQUEST, &json!("bad-request")), "{answer}");

    body["conversation_role"] = "wire_member".into();
    let (status, created) = scene.alpha.post(&scene.ann, "/conversations", body).await;
    assert_eq!(status, StatusCode::CREATED, "{created}");
    read::<Qualified<ConversationId>>(&created["qualified_id"]);
    assert_eq!(read::<BTreeSet<Access>>(&created["access"]), read(&sample["access"]));
    assert_eq!(read::<BTreeSet<AccessRole>>(&created["access_role"]), read(&sample["access_role"]));
    for key in ["message_timer", "receipt_mode"] {
        assert_eq!(created[key], sample[key], "{key}");
    }
    let others = created["members"]["others"].as_array().unwrap();
    assert_eq!(others.iter().map(|other| read(&other["id"])).collect::<BTreeSet<UserId>>(), users);
    assert!(others.iter().all(|other| other["conversation_role"] == "wire_member"));
}
