//! Every kind of change, made by a member of the owner's backend and by one of another; and what does not exist.

use aldis_proto::{
    convert,
    federation::v1::{self as pb, conversations_client::ConversationsClient},
    internal::v1::ListBackendsRequest,
    metadata,
};
use aldis_types::{ConversationId, Qualified};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{at, create, ids};
use crate::testing::{Backend, CONNECTION, QualifiedUser, World, domain, user};

/// Alpha's Ann owns a group with beta's Ben, an admin, and alpha's Cleo, a member.
async fn scene(world: &World) -> (Backend, Backend, [QualifiedUser; 3], String) {
    let (alpha, beta) = (world.start("alpha.test").await, world.start("beta.test").await);
    let (ann, ben, cleo) = (user(1, "alpha.test"), user(2, "beta.test"), user(3, "alpha.test"));
    world.connect(&[&ann, &ben, &cleo]);
    let id = create(&alpha, &ann, &[&ben, &cleo]).await;
    beta.wait_for(&ben, "conversation.create", 1).await;
    let role = json!({ "conversation_role": "wire_admin" });
    let path = at(&alpha, &id, &format!("/members/beta.test/{}", ben.id));
    assert_eq!(alpha.put(&ann, &path, role).await.0, StatusCode::OK);
    beta.wait_for(&ben, "conversation.member-update", 1).await;
    (alpha, beta, [ann, ben, cleo], id)
}

#[tokio::test]
async fn an_admin_changes_everything_from_wherever_he_is() {
    let world = World::default();
    let (alpha, beta, [ann, ben, cleo], id) = scene(&world).await;
    let cases = [
        ("/name", json!({ "name": "New" }), "conversation.rename", json!({ "name": "New" })),
        (
            "/message-timer",
            json!({ "message_timer": 1000 }),
            "conversation.message-timer-update",
            json!({ "message_timer": 1000 }),
        ),
        (
            "/message-timer",
            json!({ "message_timer": null }),
            "conversation.message-timer-update",
            json!({ "message_timer": null }),
        ),
        (
            "/receipt-mode",
            json!({ "receipt_mode": 1 }),
            "conversation.receipt-mode-update",
            json!({ "receipt_mode": 1 }),
        ),
        (
            "/access",
            json!({ "access": ["code", "invite"], "access_role": ["guest", "non_team_member"] }),
            "conversation.access-update",
            json!({
                "access": ["invite", "code"], "access_role": "non_activated",
                "access_role_v2": ["non_team_member", "guest"],
            }),
        ),
    ];
    let mut seen = 0;
    for (path, body, kind, data) in cases {
        seen += 1;
        let path = at(&alpha, &id, path);
        assert_eq!(alpha.put(&cleo, &path, body.clone()).await.1["label"], "action-denied", "{path}");
        let (status, event) = beta.put(&ben, &path, body.clone()).await;
        assert_eq!((status, &event["type"], &event["data"]), (StatusCode::OK, &json!(kind), &data), "{event}");
        assert_eq!(event["qualified_from"], json!({ "domain": "beta.test", "id": ben.id }));
        // The owner's users, and the actor's other clients, hear the same; the actor's own socket is skipped.
        for (backend, who, origin) in
            [(&alpha, &ann, None), (&alpha, &cleo, None), (&beta, &ben, Some((ben.id, CONNECTION)))]
        {
            let got = |backend: &Backend| backend.pushed(who).into_iter().rfind(|pushed| pushed.event == event);
            crate::testing::eventually("the event everywhere", async || got(backend).is_some()).await;
            assert_eq!(got(backend).unwrap().origin, origin);
        }
        assert_eq!(beta.put(&ben, &path, body.clone()).await, (StatusCode::NO_CONTENT, Value::Null), "{path}");
        assert_eq!(alpha.put(&ann, &path, body).await, (StatusCode::NO_CONTENT, Value::Null), "{path}");
    }
    assert_eq!(alpha.kinds(&cleo).len(), 2 + seen);
    let (_, whole) = beta.get(&ben, &at(&alpha, &id, "")).await;
    assert_eq!(
        (&whole["name"], &whole["message_timer"], &whole["receipt_mode"], &whole["access"], &whole["access_role"]),
        (&json!("New"), &Value::Null, &json!(1), &json!(["invite", "code"]), &json!(["non_team_member", "guest"]))
    );
    for bad in [
        json!({ "access": ["private"], "access_role": ["non_team_member"] }),
        json!({ "access": ["invite"], "access_role": [] }),
    ] {
        let (status, refused) = beta.put(&ben, &at(&alpha, &id, "/access"), bad).await;
        assert_eq!((status, &refused["label"]), (StatusCode::FORBIDDEN, &json!("invalid-op")));
    }
    assert_eq!(
        alpha.put(&ann, &at(&alpha, &id, "/access"), json!({ "access": ["invite"] })).await.0,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn whoever_is_no_longer_allowed_is_out_with_the_same_change() {
    let world = World::default();
    let (alpha, beta, [ann, ben, cleo], id) = scene(&world).await;
    let path = at(&alpha, &id, "/access");
    let open = json!({ "access": ["invite"], "access_role": ["team_member", "non_team_member", "guest"] });
    assert_eq!(alpha.put(&ann, &path, open).await.0, StatusCode::OK);
    world.facts().guests.insert(cleo.clone());
    let closed = json!({ "access": ["invite"], "access_role": ["team_member", "non_team_member"] });
    let (status, event) = beta.put(&ben, &path, closed).await;
    assert_eq!((status, &event["type"]), (StatusCode::OK, &json!("conversation.access-update")));
    for (backend, who) in [(&alpha, &cleo), (&alpha, &ann), (&beta, &ben)] {
        let left = backend.wait_for(who, "conversation.member-leave", 1).await.remove(0).event;
        assert_eq!((&left["data"]["user_ids"], &left["data"]["reason"]), (&json!([cleo.id]), &json!("removed")));
        assert!(left["time"].as_str().unwrap() > event["time"].as_str().unwrap(), "{left} after {event}");
        assert_eq!(
            backend.kinds(who).iter().rev().take(2).collect::<Vec<_>>(),
            ["conversation.member-leave", "conversation.access-update"]
        );
    }
    assert_eq!(alpha.get(&cleo, &at(&alpha, &id, "")).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_whole_list_of_members_is_set_at_once() {
    let world = World::default();
    let (alpha, beta, [ann, ben, cleo], id) = scene(&world).await;
    let (dan, eve) = (user(4, "beta.test"), user(5, "alpha.test"));
    world.connect(&[&ben, &dan, &eve]);
    let members = at(&alpha, &id, "/members");
    let put = async |backend: &Backend, who: &QualifiedUser, users: &[&QualifiedUser]| {
        let body = json!({ "qualified_users": ids(users), "conversation_role": "wire_member" });
        backend.send(who, Method::PUT, &members, "application/json", body.to_string().into(), 13).await
    };
    // Ben, of another backend, exchanges Cleo for two whom he is connected with; Ann is not.
    assert_eq!(put(&alpha, &ann, &[&ben, &dan]).await.1["label"], "not-connected");
    assert_eq!(put(&alpha, &cleo, &[&ann]).await.1["label"], "action-denied");
    let stranger = user(9, "beta.test");
    assert_eq!(put(&beta, &ben, &[&ann, &stranger]).await.1["label"], "not-connected");
    assert_eq!(put(&beta, &ben, &[&ann, &dan, &eve]).await, (StatusCode::OK, Value::Null));
    for (backend, who) in [(&alpha, &ann), (&beta, &ben)] {
        let left = backend.wait_for(who, "conversation.member-leave", 1).await.remove(0).event;
        let joined = backend.wait_for(who, "conversation.member-join", 1).await.remove(0).event;
        assert_eq!(left["data"]["user_ids"], json!([cleo.id]));
        let mut users: Vec<_> = joined["data"]["user_ids"].as_array().unwrap().clone();
        users.sort_by_key(ToString::to_string);
        assert_eq!(users, [json!(dan.id), json!(eve.id)]);
        assert!(left["time"].as_str().unwrap() < joined["time"].as_str().unwrap());
    }
    beta.wait_for(&dan, "conversation.member-join", 1).await;
    alpha.wait_for(&eve, "conversation.member-join", 1).await;
    let (_, whole) = beta.get(&dan, &at(&alpha, &id, "")).await;
    assert_eq!(whole["members"]["others"].as_array().unwrap().len(), 3);
    // Again: nothing changes.
    let before = alpha.kinds(&ann).len();
    assert_eq!(put(&beta, &ben, &[&ann, &dan, &eve]).await.0, StatusCode::OK);
    assert_eq!(alpha.kinds(&ann).len(), before);
    assert_eq!(put(&alpha, &ann, &[]).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn nobody_makes_others_type() {
    let world = World::default();
    let (alpha, _beta, [ann, ben, cleo], id) = scene(&world).await;
    let stranger = user(7, "alpha.test");
    let conversation: ConversationId = id.parse().unwrap();
    let mut evil = ConversationsClient::new(world.as_backend("evil.test"));
    let request = |user: &QualifiedUser| {
        let mut request = tonic::Request::new(pb::TypingRequest {
            conversation: convert::bytes_of(conversation),
            user: convert::bytes_of(user.id),
            connection: 0,
            status: pb::TypingStatus::Started.into(),
        });
        request.metadata_mut().insert(metadata::TARGET_DOMAIN, "alpha.test".parse().unwrap());
        request
    };
    // A bare id is one of the caller's, who has nobody in it.
    for user in [&ann, &ben] {
        let answer = evil.typing(request(user)).await.unwrap().into_inner();
        let refused = pb::typing_response::Outcome::Refused(pb::Refused { label: "no-conversation".to_owned() });
        assert_eq!(answer.outcome, Some(refused));
    }
    // Of a conversation of its own in which nobody here is, and with the id of one of ours.
    for id in [conversation, ConversationId::new(uuid::Uuid::from_u128(5))] {
        for user in [&ann, &stranger, &user(8, "evil.test")] {
            let mut request = tonic::Request::new(pb::OnTypingRequest {
                conversation: convert::bytes_of(id),
                user: Some(convert::to_qualified(user)),
                status: pb::TypingStatus::Started.into(),
                time: 1,
            });
            request.metadata_mut().insert(metadata::TARGET_DOMAIN, "alpha.test".parse().unwrap());
            evil.on_typing(request).await.unwrap();
        }
    }
    let mut unsaid = request(&ann);
    unsaid.get_mut().status = 0;
    assert_eq!(evil.typing(unsaid).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    for user in [&ann, &cleo, &stranger] {
        assert!(!alpha.kinds(user).contains(&"conversation.typing".to_owned()));
    }
}

#[tokio::test]
async fn backends_that_refuse_are_told_apart_from_those_that_are_away() {
    let world = World::default();
    let (alpha, beta, [ann, ben, _], id) = scene(&world).await;
    let _gamma = world.start("gamma.test").await;
    let (gus, dora) = (user(4, "gamma.test"), user(5, "delta.test"));
    world.connect(&[&ann, &ben, &gus, &dora]);
    world.set_policy("gamma.test", Some(&["beta.test"]));
    let both = json!({ "unreachable_backends": ["delta.test", "gamma.test"], "denied_backends": ["gamma.test"] });
    let body = json!({ "name": "x", "qualified_users": ids(&[&gus, &dora]) });
    let (status, refused) = alpha.post(&ann, "/conversations", body.clone()).await;
    assert_eq!((status.as_u16(), &refused), (533, &both));
    // The same for a member of another backend, whom the owner answers.
    let (status, refused) = beta.post(&ben, &at(&alpha, &id, "/members"), body).await;
    assert_eq!((status.as_u16(), &refused), (533, &both));
    let only = json!({ "qualified_users": ids(&[&dora]) });
    let (_, refused) = alpha.post(&ann, &at(&alpha, &id, "/members"), only).await;
    assert_eq!(refused, json!({ "unreachable_backends": ["delta.test"] }));
}

#[tokio::test]
async fn what_does_not_exist_is_refused_by_name() {
    let world = World::default();
    let (alpha, _beta, [ann, _, cleo], id) = scene(&world).await;
    let stranger = user(9, "alpha.test");
    let unknown = uuid::Uuid::from_u128(1);
    let path = |rest: &str| at(&alpha, &id, rest);
    let access = json!({ "access": ["invite", "code"], "access_role": ["non_team_member", "guest"] });
    let link = json!({ "key": "k", "code": "c" });
    let code = format!("/conversations/{id}/code");
    assert_eq!(alpha.get(&ann, &code).await.1["label"], "access-denied");
    assert_eq!(alpha.put(&ann, &path("/access"), access).await.0, StatusCode::OK);
    let cases: Vec<(&QualifiedUser, Method, String, Value, u16, &str)> = vec![
        (&ann, Method::POST, code.clone(), json!({}), 409, "guest-links-disabled"),
        (&cleo, Method::GET, code.clone(), Value::Null, 409, "guest-links-disabled"),
        (&ann, Method::DELETE, code.clone(), Value::Null, 404, "no-conversation-code"),
        (&stranger, Method::GET, code, Value::Null, 403, "access-denied"),
        (&ann, Method::GET, format!("/conversations/{unknown}/code"), Value::Null, 404, "no-conversation"),
        (&ann, Method::POST, "/conversations/code-check".into(), link.clone(), 404, "no-conversation-code"),
        (&ann, Method::POST, "/conversations/code-check".into(), json!({ "key": "k" }), 400, "bad-request"),
        (&ann, Method::GET, "/conversations/join?key=k&code=c".into(), Value::Null, 409, "guest-links-disabled"),
        (&ann, Method::GET, "/conversations/join".into(), Value::Null, 400, "bad-request"),
        (&ann, Method::POST, "/conversations/join".into(), link, 409, "guest-links-disabled"),
        (&ann, Method::PUT, path("/protocol"), json!({ "protocol": "mls" }), 400, "mls-not-enabled"),
        (&ann, Method::GET, path("/groupinfo"), Value::Null, 400, "mls-not-enabled"),
        (&ann, Method::GET, path("/subconversations/conference"), Value::Null, 400, "mls-not-enabled"),
        (&ann, Method::DELETE, path("/subconversations/conference/self"), Value::Null, 400, "mls-not-enabled"),
        (&ann, Method::GET, "/conversations/mls-self".into(), Value::Null, 400, "mls-not-enabled"),
        (&ann, Method::PUT, path("/add-permission"), json!({ "add_permission": "admins" }), 403, "invalid-op"),
        (&ann, Method::DELETE, format!("/teams/{unknown}/conversations/{id}"), Value::Null, 404, "no-team"),
        (&stranger, Method::GET, format!("/conversations/{id}/roles"), Value::Null, 403, "access-denied"),
        (&ann, Method::GET, format!("/conversations/{unknown}/roles"), Value::Null, 404, "no-conversation"),
        (
            &stranger,
            Method::GET,
            format!("/conversations/{id}/features/conversationGuestLinks"),
            Value::Null,
            403,
            "access-denied",
        ),
    ];
    for (who, method, path, body, code, label) in cases {
        let (status, answer) = alpha.call(who, method.clone(), &path, body).await;
        assert_eq!((status.as_u16(), &answer["label"]), (code, &json!(label)), "{method} {path}: {answer}");
    }
    let (status, links) = alpha.get(&cleo, &format!("/conversations/{id}/features/conversationGuestLinks")).await;
    assert_eq!(
        (status, &links["status"], &links["lockStatus"]),
        (StatusCode::OK, &json!("disabled"), &json!("locked"))
    );
}

#[tokio::test]
async fn our_own_services_learn_the_backends_of_a_members_conversation() {
    let world = World::default();
    let (alpha, beta) = (world.start("alpha.test").await, world.start("beta.test").await);
    let _gamma = world.start("gamma.test").await;
    let (ann, ben, cleo) = (user(1, "alpha.test"), user(2, "beta.test"), user(3, "gamma.test"));
    world.connect(&[&ann, &ben, &cleo]);
    let id = create(&alpha, &ann, &[&ben, &cleo]).await;
    beta.wait_for(&ben, "conversation.create", 1).await;
    let ask = async |backend: &Backend, user: &QualifiedUser, id: &str| {
        let id: ConversationId = id.parse().unwrap();
        let conversation = Some(convert::to_qualified(&Qualified::new(id, domain("alpha.test"))));
        let request = ListBackendsRequest { user: convert::bytes_of(user.id), conversation };
        backend.audiences().list_backends(request).await.map(|answer| answer.into_inner().domains)
    };
    assert_eq!(ask(&alpha, &ann, &id).await.unwrap(), ["beta.test", "gamma.test"]);
    assert_eq!(ask(&beta, &ben, &id).await.unwrap(), ["alpha.test", "gamma.test"]);
    let (stranger, unknown) = (user(4, "alpha.test"), ann.id.to_string());
    for outcome in [
        ask(&alpha, &stranger, &id).await,
        ask(&beta, &user(5, "beta.test"), &id).await,
        ask(&alpha, &ann, &unknown).await,
    ] {
        assert_eq!(outcome.unwrap_err().code(), tonic::Code::NotFound);
    }
}
