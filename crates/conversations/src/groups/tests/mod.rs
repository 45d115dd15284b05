//! Rules as tables, and groups through the client API: on one backend, on several, with one of them down.

mod changes;
mod departures;

use aldis_peers::PeerError;
use aldis_proto::{
    convert,
    federation::v1::{
        self as pb, conversations_client::ConversationsClient, update_conversation_request,
        update_conversation_response::Outcome,
    },
    metadata,
};
use aldis_types::{Access, AccessRole, ConversationId, ConversationType, Member, Qualified, Relation, RoleName};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use tonic::Request;
use uuid::Uuid;

use super::{
    list::Cursor,
    model::{Action, Change, Conversation, LeaveReason, Metadata, Settings, StoredMember},
    rules::{plan, sorted},
};
use crate::{
    Config, Quotas,
    testing::{Backend, CONNECTION, QualifiedUser, World, domain, eventually, user},
};

fn group(kind: ConversationType, members: &[(&QualifiedUser, RoleName)]) -> Conversation {
    let mut members: Vec<_> = members
        .iter()
        .map(|(user, role)| StoredMember {
            member: Member { user: (*user).clone(), role: role.clone() },
            settings: Settings::default(),
        })
        .collect();
    members.sort_by(|a, b| a.member.user.cmp(&b.member.user));
    let metadata = Metadata { access: vec![Access::Invite], ..Metadata::one_to_one(kind) };
    Conversation { id: ConversationId::new(Uuid::from_u128(9)), metadata, members, version: 1 }
}

type RuleCase<'a> = (&'a Conversation, &'a QualifiedUser, Action, Result<Option<Change>, &'static str>);

#[test]
fn rules_decide_who_may_change_what() {
    let (admin, member, stranger) = (user(1, "alpha.test"), user(2, "alpha.test"), user(3, "beta.test"));
    let members = [(&admin, RoleName::admin()), (&member, RoleName::member())];
    let regular = group(ConversationType::Regular, &members);
    let pair = group(ConversationType::OneToOne, &members);
    let add = |users: &[&QualifiedUser]| Action::AddMembers {
        users: users.iter().map(|user| (*user).clone()).collect(),
        role: RoleName::member(),
    };
    let remove = |user: &QualifiedUser| Action::RemoveMembers(vec![user.clone()]);
    let rename = |name: &str| Action::Rename(name.to_owned());
    let role = |user: &QualifiedUser, role: RoleName| Action::SetMemberRole(Member { user: user.clone(), role });
    let removed = |user: &QualifiedUser, reason| Some(Change::Remove { users: vec![user.clone()], reason });
    let joined =
        |user: &QualifiedUser| Some(Change::Add(vec![Member { user: user.clone(), role: RoleName::member() }]));
    let access =
        |access: &[Access], roles: &[AccessRole]| Action::SetAccess { access: sorted(access), roles: sorted(roles) };
    let open = [AccessRole::NonTeamMember, AccessRole::Guest];
    let set_access = |roles: &[AccessRole]| {
        Some(Change::SetAccess { access: vec![Access::Invite, Access::Code], roles: roles.to_vec() })
    };
    let mut closed = regular.clone();
    closed.metadata.access.clear();
    let mut team_only = regular.clone();
    team_only.metadata.access_roles = vec![AccessRole::TeamMember];
    let cases: Vec<RuleCase<'_>> = vec![
        (&regular, &stranger, rename("x"), Err("no such conversation")),
        (&regular, &member, rename("x"), Err("the role does not allow modify_conversation_name")),
        (&regular, &admin, rename("x"), Ok(Some(Change::Rename("x".to_owned())))),
        (&regular, &admin, rename(""), Err("bad request")),
        (&regular, &admin, rename(&"ü".repeat(256)), Ok(Some(Change::Rename("ü".repeat(256))))),
        (&regular, &admin, rename(&"ü".repeat(257)), Err("bad request")),
        (&pair, &admin, rename("x"), Err("not possible in this kind")),
        (&regular, &member, add(&[&stranger]), Err("the role does not allow add_conversation_member")),
        (&regular, &admin, add(&[&stranger, &stranger, &member]), Ok(joined(&stranger))),
        (&regular, &admin, add(&[&member]), Ok(None)),
        (&pair, &admin, add(&[&stranger]), Err("not possible in this kind")),
        (&regular, &admin, remove(&member), Ok(removed(&member, LeaveReason::Removed))),
        (&regular, &member, remove(&member), Ok(removed(&member, LeaveReason::Left))),
        (&regular, &member, remove(&admin), Err("the role does not allow remove_conversation_member")),
        (&regular, &admin, remove(&stranger), Ok(None)),
        (&pair, &member, remove(&member), Err("not possible in this kind")),
        (&regular, &admin, role(&admin, RoleName::member()), Err("not possible in this kind")),
        (&regular, &admin, role(&stranger, RoleName::member()), Err("no such member")),
        (&regular, &admin, role(&member, RoleName::member()), Ok(None)),
        (&regular, &admin, role(&member, "custom_role".parse().unwrap()), Err("bad request")),
        (&regular, &member, role(&admin, RoleName::member()), Err("the role does not allow modify_other")),
        (&regular, &admin, Action::SetMessageTimer(Some(1000)), Ok(Some(Change::SetMessageTimer(Some(1000))))),
        (&regular, &admin, Action::SetMessageTimer(None), Ok(None)),
        (&regular, &admin, Action::SetMessageTimer(Some(0)), Err("bad request")),
        (&pair, &admin, Action::SetReceiptMode(1), Ok(Some(Change::SetReceiptMode(1)))),
        (&regular, &member, Action::SetReceiptMode(1), Err("the role does not allow modify_conversation_receipt_mode")),
        (&regular, &admin, access(&[Access::Code, Access::Invite], &open), Ok(set_access(&open))),
        (&regular, &admin, access(&[Access::Invite], &regular.metadata.access_roles), Ok(None)),
        (&regular, &member, access(&[Access::Invite], &open), Err("the role does not allow modify_conversation_acc")),
        (&regular, &admin, access(&[Access::Private], &open), Err("nobody could be in")),
        (&regular, &admin, access(&[Access::Invite], &[]), Err("nobody could be in")),
        (&regular, &admin, access(&[Access::Invite], &[AccessRole::TeamMember]), Err("nobody could be in")),
        (&pair, &admin, access(&[Access::Invite], &open), Err("not possible in this kind")),
        (&closed, &admin, add(&[&stranger]), Err("access denied")),
        (&team_only, &admin, add(&[&stranger]), Err("access denied")),
    ];
    for (conversation, actor, action, expected) in cases {
        let outcome = plan(conversation, actor, &action, 500);
        match (&outcome, &expected) {
            (Ok(changes), Ok(expected)) => {
                assert_eq!(*changes, expected.iter().cloned().collect::<Vec<_>>(), "{action:?}");
            }
            (Err(error), Err(text)) => assert!(error.to_string().starts_with(text), "{action:?}: {error}"),
            _ => panic!("{action:?}: {outcome:?}, expected {expected:?}"),
        }
    }
    let full = plan(&regular, &admin, &add(&[&stranger]), 2);
    assert!(matches!(full, Err(super::error::GroupError::TooManyMembers)));
}

#[test]
fn a_new_list_of_members_makes_room_before_it_fills_it() {
    let (admin, ben, cleo, dan) =
        (user(1, "alpha.test"), user(2, "alpha.test"), user(3, "beta.test"), user(4, "beta.test"));
    let regular = group(
        ConversationType::Regular,
        &[(&admin, RoleName::admin()), (&ben, RoleName::admin()), (&cleo, RoleName::member())],
    );
    let to = |users: &[&QualifiedUser]| Action::ReplaceMembers {
        users: users.iter().map(|user| (*user).clone()).collect(),
        role: RoleName::member(),
    };
    let out = |users: &[&QualifiedUser]| Change::Remove {
        users: users.iter().map(|user| (*user).clone()).collect(),
        reason: LeaveReason::Removed,
    };
    let join = |user: &QualifiedUser| Change::Add(vec![Member { user: user.clone(), role: RoleName::member() }]);
    assert_eq!(plan(&regular, &admin, &to(&[&cleo, &dan]), 3).unwrap(), [out(&[&ben]), join(&dan)]);
    // The actor stays, whether he is named or not; the others keep their roles.
    assert_eq!(plan(&regular, &admin, &to(&[&ben, &cleo]), 3).unwrap(), []);
    assert_eq!(plan(&regular, &admin, &to(&[&admin, &ben, &cleo]), 3).unwrap(), []);
    assert_eq!(plan(&regular, &admin, &to(&[&admin]), 3).unwrap(), [out(&[&ben, &cleo])]);
    let full = plan(&regular, &admin, &to(&[&ben, &cleo, &dan]), 3);
    assert!(matches!(full, Err(super::error::GroupError::TooManyMembers)));
    let denied = plan(&regular, &cleo, &to(&[&cleo]), 3);
    assert!(matches!(denied, Err(super::error::GroupError::ActionDenied(_))));
}

#[test]
fn a_cursor_reads_what_it_wrote_and_nothing_else() {
    let id = ConversationId::new(Uuid::from_u128(5));
    for cursor in [
        Cursor::Own(None),
        Cursor::Own(Some(id)),
        Cursor::Remote(None),
        Cursor::Remote(Some(Qualified::new(id, domain("beta.test")))),
    ] {
        assert_eq!(Cursor::from_text(&cursor.to_text()), Some(cursor));
    }
    assert_eq!(Cursor::from_text("AA=="), Some(Cursor::Own(None)));
    for bad in ["", "AA", "Ag==", "AAE=", "AQE=", "!!!!", &"A".repeat(1000)] {
        assert_eq!(Cursor::from_text(bad), None, "{bad}");
    }
}

fn ids(users: &[&QualifiedUser]) -> Value {
    users.iter().map(|user| json!({ "domain": user.domain, "id": user.id })).collect()
}

async fn create(backend: &Backend, creator: &QualifiedUser, others: &[&QualifiedUser]) -> String {
    let body = json!({ "name": "Lunch", "qualified_users": ids(others), "conversation_role": "wire_member" });
    let (status, created) = backend.post(creator, "/conversations", body).await;
    assert_eq!(status, StatusCode::CREATED, "{created}");
    created["qualified_id"]["id"].as_str().unwrap().to_owned()
}

fn at(backend: &Backend, id: &str, rest: &str) -> String {
    format!("/conversations/{}/{id}{rest}", backend.domain)
}

#[tokio::test]
async fn a_group_on_one_backend_is_created_read_listed_and_changed() {
    let world = World::default();
    let alpha = world.start("alpha.test").await;
    let (ann, ben, cleo) = (user(1, "alpha.test"), user(2, "alpha.test"), user(3, "alpha.test"));
    world.connect(&[&ann, &ben, &cleo]);

    let body = json!({ "name": "Lunch", "qualified_users": ids(&[&ben]), "conversation_role": "wire_member", "receipt_mode": 1 });
    let bytes = body.to_string().into();
    let (status, old) = alpha.send(&ann, http::Method::POST, "/conversations", "application/json", bytes, 9).await;
    assert_eq!(status, StatusCode::CREATED);
    let id = old["id"].as_str().unwrap().to_owned();
    assert_eq!(
        old,
        json!({
            "id": id, "qualified_id": { "domain": "alpha.test", "id": id }, "type": 0, "creator": ann.id,
            "access": ["invite"], "access_role": ["team_member", "non_team_member", "service"], "name": "Lunch",
            "team": null, "last_event": "0.0", "last_event_time": "1970-01-01T00:00:00.000Z", "message_timer": null,
            "receipt_mode": 1, "group_conv_type": "group_conversation", "add_permission": null,
            "cells_state": "disabled", "parent": null, "protocol": "proteus", "failed_to_add": [],
            "members": {
                "self": {
                    "qualified_id": { "domain": "alpha.test", "id": ann.id }, "id": ann.id,
                    "conversation_role": "wire_admin", "service": null, "hidden": false, "hidden_ref": null,
                    "otr_archived": false, "otr_archived_ref": null, "otr_muted_status": null, "otr_muted_ref": null,
                    "status": 0, "status_ref": "0.0", "status_time": "1970-01-01T00:00:00.000Z",
                },
                "others": [{
                    "qualified_id": { "domain": "alpha.test", "id": ben.id }, "id": ben.id,
                    "conversation_role": "wire_member", "status": 0,
                }],
            },
        })
    );
    let (status, new) = alpha.get(&ben, &at(&alpha, &id, "")).await;
    assert_eq!((status, new.get("id"), &new["members"]["self"]["id"]), (StatusCode::OK, None, &json!(ben.id)));
    assert_eq!(alpha.get(&cleo, &at(&alpha, &id, "")).await.0, StatusCode::FORBIDDEN);
    let unknown = at(&alpha, &Uuid::from_u128(1).to_string(), "");
    assert_eq!(alpha.get(&cleo, &unknown).await.0, StatusCode::NOT_FOUND);

    let event = &alpha.pushed(&ben)[0];
    assert_eq!((event.kind(), &event.event["data"]["access_role"]), ("conversation.create", &json!("activated")));
    assert_eq!(event.event["data"]["access_role_v2"], json!(["team_member", "non_team_member", "service"]));
    assert_eq!(event.event["data"]["members"]["self"]["id"], json!(ben.id));
    assert_eq!(event.event["data"]["id"], json!(id));
    assert_eq!(event.event["via"], "user");
    assert_eq!(alpha.pushed(&ann)[0].origin, Some((ann.id, CONNECTION)));

    let (status, event) = alpha.put(&ann, &at(&alpha, &id, "/name"), json!({ "name": "Dinner" })).await;
    assert_eq!((status, &event["type"]), (StatusCode::OK, &json!("conversation.rename")));
    assert_eq!(event["data"], json!({ "name": "Dinner" }));
    assert_eq!(alpha.put(&ann, &at(&alpha, &id, "/name"), json!({ "name": "Dinner" })).await.0, StatusCode::NO_CONTENT);
    let (status, denied) = alpha.put(&ben, &at(&alpha, &id, "/name"), json!({ "name": "No" })).await;
    assert_eq!((status, &denied["label"]), (StatusCode::FORBIDDEN, &json!("action-denied")));
    assert_eq!(denied["message"], "Insufficient authorization (missing modify_conversation_name)");
    let pushed = alpha.pushed(&ben);
    assert_eq!(pushed[1].event["time"], event["time"]);
    assert!(pushed[1].event["time"].as_str().unwrap() > pushed[0].event["time"].as_str().unwrap());

    let body = json!({ "qualified_users": ids(&[&cleo, &ben]) });
    let (status, event) = alpha.post(&ann, &at(&alpha, &id, "/members"), body.clone()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(event["data"]["user_ids"], json!([cleo.id]));
    assert_eq!(event["data"]["users"][0]["conversation_role"], "wire_admin");
    assert_eq!(alpha.kinds(&cleo), ["conversation.member-join"]);
    assert_eq!(alpha.post(&ann, &at(&alpha, &id, "/members"), body).await.0, StatusCode::NO_CONTENT);

    let member = format!("/members/alpha.test/{}", ben.id);
    let body = json!({ "conversation_role": "wire_admin" });
    assert_eq!(alpha.put(&ann, &at(&alpha, &id, &member), body).await, (StatusCode::OK, Value::Null));
    let (status, event) = alpha.delete(&ben, &at(&alpha, &id, &format!("/members/alpha.test/{}", cleo.id))).await;
    assert_eq!((status, &event["data"]["reason"]), (StatusCode::OK, &json!("removed")));
    assert_eq!(alpha.delete(&ben, &at(&alpha, &id, &member)).await.1["data"]["reason"], "left");
    assert_eq!(alpha.delete(&ben, &at(&alpha, &id, &member)).await.0, StatusCode::NOT_FOUND);
    assert_eq!(alpha.kinds(&cleo).last().unwrap(), "conversation.member-leave");
    assert_eq!(
        alpha.kinds(&ann),
        ["create", "rename", "member-join", "member-update", "member-leave", "member-leave"]
            .map(|kind| format!("conversation.{kind}"))
    );

    let (_, found) = alpha
        .post(&ann, "/conversations/list", json!({ "qualified_ids": [{ "domain": "alpha.test", "id": id }] }))
        .await;
    assert_eq!((&found["found"][0]["name"], &found["found"][0]["id"]), (&json!("Dinner"), &json!(id)));
    let (_, found) = alpha
        .post(&ben, "/conversations/list", json!({ "qualified_ids": [{ "domain": "alpha.test", "id": id }] }))
        .await;
    assert_eq!(found["not_found"], json!([{ "domain": "alpha.test", "id": id }]));
    let (status, roles) = alpha.get(&ann, &format!("/conversations/{id}/roles")).await;
    assert_eq!((status, roles["conversation_roles"][0]["actions"].as_array().unwrap().len()), (StatusCode::OK, 10));
    assert_eq!(roles["conversation_roles"][1]["actions"], json!(["leave_conversation"]));
}

#[tokio::test]
async fn requests_are_checked_before_anything_is_created() {
    let world = World::default();
    let alpha = world.start("alpha.test").await;
    let (ann, ben, cleo) = (user(1, "alpha.test"), user(2, "alpha.test"), user(3, "alpha.test"));
    world.connect(&[&ann, &ben]);
    world.relate(&ann, &cleo, Relation::Accepted);
    world.relate(&cleo, &ann, Relation::Blocked);
    let cases = [
        (json!({ "qualified_users": ids(&[&ben]), "protocol": "mls" }), 400, "mls-not-enabled"),
        (
            json!({ "qualified_users": ids(&[&ben]), "team": { "teamid": ann.id, "managed": false } }),
            403,
            "no-team-member",
        ),
        (json!({ "qualified_users": ids(&[&ben]), "skip_creator": true }), 403, "operation-denied"),
        (json!({ "qualified_users": ids(&[&ben]), "cells": true }), 403, "operation-denied"),
        (json!({ "qualified_users": ids(&[&ben]), "add_permission": "admins" }), 403, "operation-denied"),
        (json!({ "qualified_users": ids(&[&ben]), "parent": ben.id }), 403, "operation-denied"),
        (json!({ "qualified_users": ids(&[&ben]), "group_conv_type": "meeting" }), 403, "operation-denied"),
        (json!({ "qualified_users": ids(&[&ben]), "group_conv_type": "channel" }), 403, "channels-not-enabled"),
        (json!({ "qualified_users": ids(&[&ben]), "group_conv_type": "party" }), 400, "bad-request"),
        (json!({ "qualified_users": ids(&[&ben]), "name": "" }), 400, "bad-request"),
        (json!({ "qualified_users": ids(&[&ann]) }), 400, "bad-request"),
        (json!({ "qualified_users": ids(&[&user(9, "alpha.test")]) }), 403, "not-connected"),
        (json!({ "qualified_users": ids(&[&cleo]) }), 403, "not-connected"),
        (json!({ "qualified_users": "nobody" }), 400, "bad-request"),
        (
            json!({ "users": (0..500).map(|n| user(1000 + n, "alpha.test").id).collect::<Vec<_>>() }),
            403,
            "too-many-members",
        ),
    ];
    for (body, code, label) in cases {
        let (status, answer) = alpha.post(&ann, "/conversations", body.clone()).await;
        assert_eq!((status.as_u16(), &answer["label"]), (code, &json!(label)), "{body}");
    }
    assert_eq!(alpha.count("conversations_heads").await, 0);
    assert_eq!(alpha.pushed(&ann).len(), 0);
    let unauthorised = http::Request::post("/conversations").body(axum::body::Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(alpha.client.clone(), unauthorised).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn ids_are_listed_page_by_page_with_the_conversation_with_oneself() {
    let world = World::default();
    let alpha = world.start("alpha.test").await;
    let (ann, ben) = (user(1, "alpha.test"), user(2, "alpha.test"));
    world.connect(&[&ann, &ben]);
    let mut expected: Vec<String> = vec![ann.id.to_string()];
    for _ in 0..4 {
        expected.push(create(&alpha, &ann, &[&ben]).await);
    }
    expected.sort();
    let mut seen = Vec::new();
    let mut body = json!({ "size": 2 });
    loop {
        let (status, page) = alpha.post(&ann, "/conversations/list-ids", body).await;
        assert_eq!(status, StatusCode::OK);
        let ids = page["qualified_conversations"].as_array().unwrap();
        assert!(ids.len() <= 2);
        seen.extend(ids.iter().map(|id| id["id"].as_str().unwrap().to_owned()));
        if page["has_more"] == false {
            break;
        }
        body = json!({ "size": 2, "paging_state": page["paging_state"] });
    }
    assert_eq!(seen, expected);
    for bad in [json!({ "size": 0 }), json!({ "size": 1001 }), json!({ "paging_state": "zz" })] {
        assert_eq!(alpha.post(&ann, "/conversations/list-ids", bad).await.0, StatusCode::BAD_REQUEST);
    }
    let (status, own) = alpha.post(&ann, "/conversations/self", Value::Null).await;
    assert_eq!((status, &own["type"], &own["id"]), (StatusCode::OK, &json!(1), &json!(ann.id)));
    let (status, _) = alpha.post(&ben, "/conversations/self", Value::Null).await;
    assert_eq!(status, StatusCode::CREATED);
    let rename = alpha.put(&ann, &at(&alpha, &ann.id.to_string(), "/name"), json!({ "name": "x" })).await;
    assert_eq!((rename.0, &rename.1["label"]), (StatusCode::FORBIDDEN, &json!("invalid-op")));
}

#[tokio::test]
async fn own_settings_are_kept_and_told_to_own_clients_alone() {
    let world = World::default();
    let (alpha, beta) = (world.start("alpha.test").await, world.start("beta.test").await);
    let (ann, ben) = (user(1, "alpha.test"), user(2, "beta.test"));
    world.connect(&[&ann, &ben]);
    let id = create(&alpha, &ann, &[&ben]).await;
    beta.wait_for(&ben, "conversation.create", 1).await;
    for (backend, who, other) in [(&alpha, &ann, &ben), (&beta, &ben, &ann)] {
        let path = at(&alpha, &id, "/self");
        let update =
            json!({ "otr_muted_status": 1, "otr_muted_ref": "2025-01-01T00:00:00.000Z", "otr_archived": true });
        assert_eq!(backend.put(who, &path, update).await, (StatusCode::OK, Value::Null));
        let event = backend.wait_for(who, "conversation.member-update", 1).await.remove(0);
        assert_eq!(event.event["data"]["otr_muted_status"], 1);
        assert_eq!(event.event["data"].get("hidden"), None);
        assert_eq!(event.event["data"]["target"], json!(who.id));
        assert_eq!(event.origin, Some((who.id, CONNECTION)));
        assert!(!backend.kinds(other).contains(&"conversation.member-update".to_owned()));
        let (_, me) = backend.get(who, &path).await;
        assert_eq!((&me["otr_archived"], &me["hidden"]), (&json!(true), &json!(false)));
        let (_, whole) = backend.get(who, &at(&alpha, &id, "")).await;
        assert_eq!(whole["members"]["self"]["otr_muted_status"], 1);
        assert_eq!(whole["members"]["others"].as_array().unwrap().len(), 1);
        assert_eq!(backend.put(who, &path, json!({})).await.0, StatusCode::BAD_REQUEST);
    }
    let stranger = user(9, "beta.test");
    assert_eq!(beta.get(&stranger, &at(&alpha, &id, "/self")).await, (StatusCode::OK, Value::Null));
    assert_eq!(
        beta.put(&stranger, &at(&alpha, &id, "/self"), json!({ "hidden": true })).await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn typing_reaches_open_sockets_of_other_members() {
    let world = World::default();
    let (alpha, beta) = (world.start("alpha.test").await, world.start("beta.test").await);
    let (ann, ben, cleo) = (user(1, "alpha.test"), user(2, "alpha.test"), user(3, "beta.test"));
    world.connect(&[&ann, &ben, &cleo]);
    let id = create(&alpha, &ann, &[&ben, &cleo]).await;
    beta.wait_for(&cleo, "conversation.create", 1).await;
    assert_eq!(alpha.post(&ann, &at(&alpha, &id, "/typing"), json!({ "status": "started" })).await.0, StatusCode::OK);
    let typing = alpha.wait_for(&ben, "conversation.typing", 1).await.remove(0);
    assert!(typing.transient);
    assert_eq!(typing.event["data"], json!({ "status": "started" }));
    assert!(!alpha.kinds(&ann).contains(&"conversation.typing".to_owned()));
    let typing = beta.wait_for(&cleo, "conversation.typing", 1).await.remove(0);
    assert!(typing.transient);
    assert_eq!(typing.event["qualified_from"], json!({ "domain": "alpha.test", "id": ann.id }));
    assert_eq!(typing.event["qualified_conversation"], json!({ "domain": "alpha.test", "id": id }));
    // One of another backend types: the owner's users hear it from the owner, and he himself does not.
    assert_eq!(beta.post(&cleo, &at(&alpha, &id, "/typing"), json!({ "status": "stopped" })).await.0, StatusCode::OK);
    for who in [&ann, &ben] {
        let typing = alpha.wait_for(who, "conversation.typing", if who == &ben { 2 } else { 1 }).await.pop().unwrap();
        assert_eq!(typing.event["data"], json!({ "status": "stopped" }));
        assert_eq!(typing.event["qualified_from"], json!({ "domain": "beta.test", "id": cleo.id }));
    }
    beta.wait_for(&cleo, "conversation.typing", 1).await;
    world.set_down("alpha.test", true);
    let (status, body) = beta.post(&cleo, &at(&alpha, &id, "/typing"), json!({ "status": "started" })).await;
    assert_eq!((status.as_u16(), &body["label"]), (521, &json!("federation-connection-refused")));
    assert_eq!(alpha.post(&ann, &at(&alpha, &id, "/typing"), json!({ "status": "started" })).await.0, StatusCode::OK);
    assert_eq!(
        beta.post(&cleo, &at(&alpha, &id, "/typing"), json!({ "status": "dancing" })).await.0,
        StatusCode::BAD_REQUEST
    );
    let outsider = user(7, "beta.test");
    assert_eq!(
        beta.post(&outsider, &at(&alpha, &id, "/typing"), json!({ "status": "stopped" })).await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_group_lives_on_two_backends() {
    let world = World::default();
    let (alpha, beta) = (world.start("alpha.test").await, world.start("beta.test").await);
    let (ann, ben) = (user(1, "alpha.test"), user(2, "beta.test"));
    let (cleo, dan) = (user(3, "beta.test"), user(4, "alpha.test"));
    world.connect(&[&ann, &ben, &cleo, &dan]);
    let id = create(&alpha, &ann, &[&ben]).await;
    let created = beta.wait_for(&ben, "conversation.create", 1).await.remove(0).event;
    assert_eq!(created["qualified_conversation"], json!({ "domain": "alpha.test", "id": id }));
    assert_eq!(created["qualified_from"], json!({ "domain": "alpha.test", "id": ann.id }));
    assert_eq!(created["data"]["members"]["others"][0]["qualified_id"]["domain"], "alpha.test");
    assert_eq!(created["data"]["members"]["self"]["conversation_role"], "wire_member");
    assert_eq!(created["time"], alpha.pushed(&ann)[0].event["time"]);

    // Seen and listed at the member's backend; the owner does not let others see it.
    let (status, seen) = beta.get(&ben, &at(&alpha, &id, "")).await;
    assert_eq!((status, &seen["name"]), (StatusCode::OK, &json!("Lunch")));
    assert_eq!(beta.get(&cleo, &at(&alpha, &id, "")).await.0, StatusCode::NOT_FOUND);
    let roles = format!("/conversations/{id}/roles");
    assert_eq!(beta.get(&ben, &roles).await, alpha.get(&ann, &roles).await);
    assert_eq!(beta.get(&ben, &roles).await.1["conversation_roles"].as_array().unwrap().len(), 2);
    let (status, unknown) = beta.get(&cleo, &roles).await;
    assert_eq!((status, &unknown["label"]), (StatusCode::NOT_FOUND, &json!("no-conversation")));
    let (_, ids_page) = beta.post(&ben, "/conversations/list-ids", json!({})).await;
    assert_eq!(ids_page["qualified_conversations"][1], json!({ "domain": "alpha.test", "id": id }));

    // A member of another backend has the rights of his role.
    let (status, denied) = beta.put(&ben, &at(&alpha, &id, "/name"), json!({ "name": "Mine" })).await;
    assert_eq!((status, &denied["label"]), (StatusCode::FORBIDDEN, &json!("action-denied")));
    let role = json!({ "conversation_role": "wire_admin" });
    alpha.put(&ann, &at(&alpha, &id, &format!("/members/beta.test/{}", ben.id)), role).await;
    beta.wait_for(&ben, "conversation.member-update", 1).await;
    let (status, event) = beta.put(&ben, &at(&alpha, &id, "/name"), json!({ "name": "Ours" })).await;
    assert_eq!((status, &event["data"]["name"]), (StatusCode::OK, &json!("Ours")));
    let renamed = beta.wait_for(&ben, "conversation.rename", 1).await.remove(0);
    assert_eq!((&renamed.event, renamed.origin), (&event, Some((ben.id, CONNECTION))));
    let renamed = alpha.wait_for(&ann, "conversation.rename", 1).await.remove(0);
    assert_eq!((&renamed.event, renamed.origin), (&event, None));

    // He adds users of both backends.
    let body = json!({ "qualified_users": ids(&[&cleo, &dan]), "conversation_role": "wire_member" });
    let (status, event) = beta.post(&ben, &at(&alpha, &id, "/members"), body).await;
    assert_eq!(status, StatusCode::OK, "{event}");
    beta.wait_for(&cleo, "conversation.member-join", 1).await;
    alpha.wait_for(&dan, "conversation.member-join", 1).await;
    assert_eq!(beta.get(&cleo, &at(&alpha, &id, "")).await.1["members"]["others"].as_array().unwrap().len(), 3);

    // One leaves, one is removed; both hear of it, and their backend forgets them.
    assert_eq!(
        beta.delete(&cleo, &at(&alpha, &id, &format!("/members/beta.test/{}", cleo.id))).await.0,
        StatusCode::OK
    );
    beta.wait_for(&cleo, "conversation.member-leave", 1).await;
    eventually("cleo is gone", async || beta.get(&cleo, &at(&alpha, &id, "")).await.0 == StatusCode::NOT_FOUND).await;
    assert_eq!(alpha.delete(&ann, &at(&alpha, &id, &format!("/members/beta.test/{}", ben.id))).await.0, StatusCode::OK);
    beta.wait_for(&ben, "conversation.member-leave", 2).await;
    assert_eq!(beta.count("conversations_remote").await, 0);
    let (status, gone) = beta.put(&ben, &at(&alpha, &id, "/name"), json!({ "name": "Mine" })).await;
    assert_eq!((status, &gone["label"]), (StatusCode::NOT_FOUND, &json!("no-conversation")));
    eventually("the outbox is empty", async || alpha.count("conversations_outbox").await == 0).await;
}

#[tokio::test]
async fn backends_that_do_not_answer_or_do_not_federate_stop_a_creation() {
    let world = World::default();
    let alpha = world.start("alpha.test").await;
    let _beta = world.start("beta.test").await;
    let _gamma = world.start("gamma.test").await;
    let (ann, ben, cleo) = (user(1, "alpha.test"), user(2, "beta.test"), user(3, "gamma.test"));
    world.connect(&[&ann, &ben, &cleo]);
    let body = json!({ "name": "x", "qualified_users": ids(&[&ben, &cleo]) });
    world.set_down("gamma.test", true);
    let answer = alpha.post(&ann, "/conversations", body.clone()).await;
    assert_eq!((answer.0.as_u16(), answer.1), (533, json!({ "unreachable_backends": ["gamma.test"] })));
    world.set_down("gamma.test", false);
    world.set_policy("gamma.test", Some(&["alpha.test"]));
    let answer = alpha.post(&ann, "/conversations", body.clone()).await;
    assert_eq!((answer.0.as_u16(), answer.1), (409, json!({ "non_federating_backends": ["gamma.test", "beta.test"] })));
    world.set_policy("gamma.test", None);
    world.set_policy("alpha.test", Some(&["beta.test"]));
    let answer = alpha.post(&ann, "/conversations", body.clone()).await;
    assert_eq!((answer.0.as_u16(), &answer.1["label"]), (400, &json!("federation-denied")));
    assert_eq!(answer.1["data"]["domain"], "gamma.test");
    assert_eq!(alpha.count("conversations_heads").await, 0);
    world.set_policy("alpha.test", None);
    // On the other side he is blocked: the creation goes on without him.
    world.relate(&cleo, &ann, Relation::Blocked);
    let (status, created) = alpha.post(&ann, "/conversations", body).await;
    assert_eq!((status, &created["failed_to_add"]), (StatusCode::CREATED, &ids(&[&cleo])));
    assert_eq!(created["members"]["others"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn invitations_are_counted_per_backend_and_per_user() {
    let world = World::default();
    let quotas = Quotas { invites: 250, invites_per_user: 1, ..Quotas::default() };
    let alpha = world.start("alpha.test").await;
    let beta = world.start_with("beta.test", Config { quotas, ..Config::default() }).await;
    let gamma = world.start("gamma.test").await;
    let (ann, gus) = (user(1, "alpha.test"), user(2, "gamma.test"));
    let (ben, other) = (user(3, "beta.test"), user(4, "beta.test"));
    world.connect(&[&ann, &ben, &other]);
    world.connect(&[&gus, &ben]);
    for _ in 0..2 {
        create(&alpha, &ann, &[&ben]).await;
    }
    let body = json!({ "name": "x", "qualified_users": ids(&[&ben]) });
    let (status, refused) = alpha.post(&ann, "/conversations", body).await;
    assert_eq!((status.as_u16(), &refused["label"]), (420, &json!("too-many-requests")));
    assert_eq!(alpha.count("conversations_heads").await, 2, "a refused creation leaves nothing behind");
    // About somebody else, by somebody else, and at home all is as before.
    create(&alpha, &ann, &[&other]).await;
    create(&gamma, &gus, &[&ben]).await;
    create(&beta, &ben, &[&other]).await;

    let request = || {
        let invitees: Vec<Bytes> = (0..400).map(|n| convert::bytes_of(user(100 + n, "beta.test").id)).collect();
        let inviter = Some(convert::to_qualified(&ann));
        let mut request = Request::new(pb::CheckInviteRequest { inviter, invitees, domains: Vec::new() });
        request.metadata_mut().insert(metadata::TARGET_DOMAIN, "beta.test".parse().unwrap());
        request
    };
    let mut client = ConversationsClient::new(world.as_backend("alpha.test"));
    client.check_invite(request()).await.unwrap();
    let status = client.check_invite(request()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert!(PeerError::from_status(&beta.domain, &status).is_quota());
}

#[tokio::test]
async fn only_new_backends_make_everybody_be_asked() {
    let world = World::default();
    let alpha = world.start("alpha.test").await;
    let beta = world.start("beta.test").await;
    let gamma = world.start("gamma.test").await;
    let (ann, ben, gus) = (user(1, "alpha.test"), user(2, "beta.test"), user(3, "beta.test"));
    let (cleo, dan, eve) = (user(4, "gamma.test"), user(5, "alpha.test"), user(6, "delta.test"));
    world.connect(&[&ann, &ben, &gus, &cleo, &dan, &eve]);
    let id = create(&alpha, &ann, &[&ben, &cleo]).await;
    beta.wait_for(&ben, "conversation.create", 1).await;
    gamma.wait_for(&cleo, "conversation.create", 1).await;
    world.set_down("gamma.test", true);
    let members = at(&alpha, &id, "/members");
    let add = |user| json!({ "qualified_users": ids(&[user]) });
    assert_eq!(alpha.post(&ann, &members, add(&gus)).await.0, StatusCode::OK);
    assert_eq!(alpha.post(&ann, &members, add(&dan)).await.0, StatusCode::OK);
    let answer = alpha.post(&ann, &members, add(&eve)).await;
    assert_eq!((answer.0.as_u16(), answer.1), (533, json!({ "unreachable_backends": ["delta.test", "gamma.test"] })));
    // Changes and removals need nobody; the backend that was down hears of all of them, in order.
    assert_eq!(alpha.put(&ann, &at(&alpha, &id, "/name"), json!({ "name": "New" })).await.0, StatusCode::OK);
    assert_eq!(
        alpha.delete(&ann, &at(&alpha, &id, &format!("/members/gamma.test/{}", cleo.id))).await.0,
        StatusCode::OK
    );
    assert_eq!(gamma.kinds(&cleo), ["conversation.create"]);
    world.set_down("gamma.test", false);
    gamma.wait_for(&cleo, "conversation.member-leave", 1).await;
    assert_eq!(
        gamma.kinds(&cleo),
        ["create", "member-join", "member-join", "rename", "member-leave"].map(|kind| format!("conversation.{kind}"))
    );
    assert_eq!(gamma.count("conversations_remote").await, 0);
}

#[tokio::test]
async fn an_owner_that_is_down_is_the_answer() {
    let world = World::default();
    let (alpha, beta) = (world.start("alpha.test").await, world.start("beta.test").await);
    let (ann, ben) = (user(1, "alpha.test"), user(2, "beta.test"));
    world.connect(&[&ann, &ben]);
    let id = create(&alpha, &ann, &[&ben]).await;
    beta.wait_for(&ben, "conversation.create", 1).await;
    world.set_down("alpha.test", true);
    let one = beta.get(&ben, &at(&alpha, &id, "")).await;
    assert_eq!((one.0.as_u16(), &one.1["label"]), (521, &json!("federation-connection-refused")));
    assert_eq!(one.1["data"]["domain"], "alpha.test");
    let ids = json!([{ "domain": "alpha.test", "id": id }]);
    let (status, listed) = beta.post(&ben, "/conversations/list", json!({ "qualified_ids": ids })).await;
    assert_eq!((status, &listed["failed"]), (StatusCode::OK, &ids));
    let leave = beta.delete(&ben, &at(&alpha, &id, &format!("/members/beta.test/{}", ben.id))).await;
    assert_eq!(leave.0.as_u16(), 521);
    assert_eq!(beta.count("conversations_remote").await, 1);
}

#[tokio::test]
async fn other_backends_act_for_their_own_users_alone_and_get_one_answer_per_key() {
    let world = World::default();
    let (alpha, beta) = (world.start("alpha.test").await, world.start("beta.test").await);
    let (ann, ben) = (user(1, "alpha.test"), user(2, "beta.test"));
    world.connect(&[&ann, &ben]);
    let id = create(&alpha, &ann, &[&ben]).await;
    let role = json!({ "conversation_role": "wire_admin" });
    alpha.put(&ann, &at(&alpha, &id, &format!("/members/beta.test/{}", ben.id)), role).await;
    beta.wait_for(&ben, "conversation.member-update", 1).await;
    let request = |actor: &QualifiedUser, name: &str, key: Option<&str>| {
        let mut request = Request::new(pb::UpdateConversationRequest {
            conversation: convert::bytes_of(id.parse::<ConversationId>().unwrap()),
            actor: convert::bytes_of(actor.id),
            actor_connection: 0,
            action: Some(update_conversation_request::Action::Rename(pb::Rename { name: name.to_owned() })),
        });
        request.metadata_mut().insert(metadata::TARGET_DOMAIN, "alpha.test".parse().unwrap());
        if let Some(key) = key {
            request.metadata_mut().insert(metadata::IDEMPOTENCY_KEY, key.parse().unwrap());
        }
        request
    };
    let mut client = ConversationsClient::new(world.as_backend("beta.test"));
    // Ann is of alpha: named by beta she is nobody.
    let answer = client.update_conversation(request(&ann, "Forged", None)).await.unwrap().into_inner();
    assert_eq!(answer.outcome, Some(Outcome::Refused(pb::Refused { label: "no-conversation".to_owned() })));
    let key = "ab".repeat(32);
    let first = client.update_conversation(request(&ben, "One", Some(&key))).await.unwrap().into_inner();
    assert!(matches!(first.outcome, Some(Outcome::Updated(_))), "{first:?}");
    client.update_conversation(request(&ben, "Two", None)).await.unwrap();
    let again = client.update_conversation(request(&ben, "One", Some(&key))).await.unwrap().into_inner();
    assert_eq!(again, first);
    assert_eq!(alpha.get(&ann, &at(&alpha, &id, "")).await.1["name"], "Two");
    let malformed = client.update_conversation(request(&ben, "x", Some("zz"))).await.unwrap_err();
    assert_eq!(malformed.code(), tonic::Code::InvalidArgument);
    // A backend that our policy does not admit gets nothing.
    world.set_policy("alpha.test", Some(&["gamma.test"]));
    let denied = client.update_conversation(request(&ben, "x", None)).await.unwrap_err();
    assert_eq!(denied.code(), tonic::Code::PermissionDenied);
    let mut own = ConversationsClient::new(world.as_backend("alpha.test"));
    assert!(own.update_conversation(request(&ann, "x", None)).await.is_err());
}

#[tokio::test]
async fn concurrent_changes_all_take_effect() {
    let world = World::default();
    let alpha = world.start("alpha.test").await;
    let (ann, ben) = (user(1, "alpha.test"), user(2, "alpha.test"));
    let others: Vec<_> = (10..18).map(|number| user(number, "alpha.test")).collect();
    let mut all: Vec<&QualifiedUser> = others.iter().collect();
    all.extend([&ann, &ben]);
    world.connect(&all);
    let id = create(&alpha, &ann, &[&ben]).await;
    let path = at(&alpha, &id, "/members");
    let adds = others.iter().map(|other| {
        let body = json!({ "qualified_users": ids(&[other]) });
        let (alpha, ann, path) = (&alpha, &ann, &path);
        async move { alpha.post(ann, path, body).await.0 }
    });
    let outcomes = futures::future::join_all(adds).await;
    assert!(outcomes.iter().all(|status| *status == StatusCode::OK), "{outcomes:?}");
    let (_, seen) = alpha.get(&ann, &at(&alpha, &id, "")).await;
    assert_eq!(seen["members"]["others"].as_array().unwrap().len(), 9);
    let events = alpha.wait_for(&ben, "conversation.member-join", 8).await;
    let times: Vec<_> = events.iter().map(|event| event.event["time"].as_str().unwrap().to_owned()).collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
}
