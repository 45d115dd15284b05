//! What we answer, written from the values in the samples.

use std::collections::{BTreeMap, BTreeSet};

use aldis_golden::{Golden, Verdict, read, same};
use aldis_proto::{convert, federation::v1 as pb};
use aldis_types::{ClientId, ConversationType, Domain, Qualified, Timestamp, UserId};
use http::StatusCode;
use serde_json::{Value, json};

use super::{MLS, Shown, member, settings, without_service, without_services};
use crate::{
    features::http::feature,
    groups::{
        http::{Created, Listed, RoleJson},
        json::{Shape, View, self_member},
        model::{Metadata, Settings},
    },
    messages::Sent,
    testing::{World, user},
};

pub(super) async fn check(golden: &mut Golden) {
    conversations(golden);
    members(golden);
    golden.check("ConversationRole_user", |sample| same(role(sample), sample));
    golden.check("ConversationRolesList_user", |sample| {
        let roles: Vec<_> = sample["conversation_roles"].as_array().unwrap().iter().map(role).collect();
        same(json!({ "conversation_roles": roles }), sample);
    });
    golden.check("federation/MessageSendResponse", message_status);
    golden.round_trips::<BTreeMap<UserId, BTreeSet<ClientId>>>("UserClients_user");
    golden.check("LockableFeature_team", |sample| {
        let text = |key: &str| sample[key].as_str().unwrap();
        same(json!(feature(text("status"), text("lockStatus"), sample.get("config").cloned())), sample);
    });
    let (alpha, ann) = (World::default().start("alpha.test").await, user(1, "alpha.test"));
    let (status, keys) = alpha.get(&ann, "/mls/public-keys").await;
    assert_eq!(status, StatusCode::OK);
    golden.has_shape("MLSKeysByPurpose", &[("", &keys), ("/removal", &keys["removal"])]);
    golden.has_shape("MLSPublicKeys", &[("", &keys["removal"])]);
}

fn conversations(golden: &mut Golden) {
    let alike = |shape: Shape| {
        move |sample: &Value| {
            let Some(shown) = Shown::of(sample) else { return Verdict::LeftOut(MLS) };
            same(shown.view().json(shape), &shown.sample);
            Verdict::Alike
        }
    };
    golden.check("Conversation_user", |sample| {
        if let Some(mut shown) = Shown::of(sample) {
            shown.sample.as_object_mut().unwrap().remove("id");
            same(shown.view().json(Shape::Single), &shown.sample);
        }
        alike(Shape::Own)(sample)
    });
    golden.check("Conversation_v2_user", alike(Shape::Event));
    golden.check("ConversationsResponse", |sample| {
        let shown: Vec<_> = sample["found"].as_array().unwrap().iter().filter_map(Shown::of).collect();
        let views: Vec<_> = shown.iter().map(Shown::view).collect();
        let ours = Listed {
            found: views.iter().map(|view| view.json(Shape::Own)).collect(),
            not_found: read(&sample["not_found"]),
            failed: read(&sample["failed"]),
        };
        let mut sample = sample.clone();
        sample["found"] = shown.iter().map(|shown| shown.sample.clone()).collect();
        same(ours, &sample);
    });
    golden.check("CreateGroupConversation", |sample| {
        let shown = Shown::of(sample).unwrap();
        let view = shown.view();
        let failed_to_add = read(&sample["failed_to_add"]);
        same(Created { conversation: view.json(Shape::Own), failed_to_add }, &shown.sample);
    });
}

fn members(golden: &mut Golden) {
    golden.check("Member_user", |sample| {
        same(self_member(&member(sample), &settings(sample)), &without_service(sample.clone()));
    });
    let metadata = Metadata::one_to_one(ConversationType::OneToOne);
    let id = Qualified::new(user(9, "alpha.test").id.uuid().into(), "alpha.test".parse().unwrap());
    golden.check("OwnConvMembers_user", |sample| {
        let (me, settings) = (member(&sample["self"]), settings(&sample["self"]));
        let others: Vec<_> = sample["others"].as_array().unwrap().iter().map(member).collect();
        let others = others.iter().collect();
        let view = View { id: id.clone(), metadata: &metadata, me: &me, settings: &settings, others };
        same(&json!(view.json(Shape::Own))["members"], &without_services(sample));
    });
    golden.check("OtherMember_user", |sample| {
        let other = member(sample);
        let view = View {
            id: id.clone(),
            metadata: &metadata,
            me: &other,
            settings: &Settings::default(),
            others: vec![&other],
        };
        same(&json!(view.json(Shape::Own))["members"]["others"][0], &without_service(sample.clone()));
    });
}

fn role(sample: &Value) -> RoleJson {
    RoleJson { conversation_role: read(&sample["conversation_role"]), actions: read(&sample["actions"]) }
}

/// The older backend passes the answer for the client inside of its own.
fn message_status(sample: &Value) -> Verdict {
    let refused = &sample["Left"];
    let missing = match refused["tag"].as_str() {
        None => false,
        Some("MessageNotSentClientMissing") => true,
        Some("MessageNotSentLegalhold") => return Verdict::LeftOut("legal hold is not offered"),
        Some(other) => panic!("unknown outcome {other}"),
    };
    let sample = if missing { &refused["contents"] } else { &sample["Right"] };
    let time: Timestamp = read(&sample["time"]);
    let clients = |key: &str| {
        let clients: BTreeMap<Domain, BTreeMap<UserId, BTreeSet<ClientId>>> = read(&sample[key]);
        let set = |domain: &Domain, (user, clients): (UserId, BTreeSet<ClientId>)| pb::ClientSet {
            user: Some(convert::to_qualified(&Qualified::new(user, domain.clone()))),
            clients: clients.into_iter().map(|client| client.0).collect(),
        };
        let sets = clients
            .into_iter()
            .flat_map(|(domain, users)| users.into_iter().map(|user| set(&domain, user)).collect::<Vec<_>>());
        sets.collect()
    };
    let status = pb::MessageStatus {
        time: time.millis(),
        missing: clients("missing"),
        redundant: clients("redundant"),
        deleted: clients("deleted"),
        failed_to_send: clients("failed_to_send"),
        failed_to_confirm_clients: clients("failed_to_confirm_clients"),
    };
    let sent = if missing { Sent::mismatch(&status) } else { Sent::accepted(&status) };
    let (Sent::Accepted(ours) | Sent::Mismatch(ours)) = sent.unwrap();
    let mut sample = sample.clone();
    // Of before 1970 in the samples, which no message of ours is.
    sample["time"] = json!(time);
    same(ours, &sample);
    Verdict::Alike
}
