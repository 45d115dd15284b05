//! Requests that are spoilt in every way: each is accepted, or refused as the table of routes says, and nothing breaks.

use std::sync::LazyLock;

use aldis_api::routes::Table;
use aldis_golden::{expect_documented, variations};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::testing::{Backend, QualifiedUser, World, user};

const ANY_ID: &str = "8dd0ab5d-cdb3-4b3f-9dd8-39a5e9f7e4b5";

/// Ann and Bob of one backend, and a group of hers with him.
pub(crate) struct Scene {
    alpha: Backend,
    ann: QualifiedUser,
    bob: QualifiedUser,
    id: String,
    _world: World,
}

/// A request with a body, and the types of golden samples that are such bodies.
pub(crate) struct Request {
    method: Method,
    path: String,
    /// As in the table.
    route: &'static str,
    #[cfg_attr(not(feature = "golden"), allow(dead_code))] // there are samples with the feature alone
    pub(crate) golden: &'static [&'static str],
    body: Value,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let world = World::default();
        let alpha = world.start("alpha.test").await;
        let (ann, bob, cleo) = (user(1, "alpha.test"), user(2, "alpha.test"), user(3, "alpha.test"));
        world.connect(&[&ann, &bob, &cleo]);
        world.set_clients(&ann, &[1]);
        world.set_clients(&bob, &[2]);
        let body = json!({ "qualified_users": [bob], "conversation_role": "wire_member" });
        let (status, group) = alpha.post(&ann, "/conversations", body).await;
        assert_eq!(status, StatusCode::CREATED, "{group}");
        let id = group["qualified_id"]["id"].as_str().unwrap().to_owned();
        Self { alpha, ann, bob, id, _world: world }
    }

    /// Every request that has a body.
    pub(crate) fn requests(&self) -> Vec<Request> {
        let of = |method, route: &'static str, golden, body| {
            let path = route
                .replace("{domain}", "alpha.test")
                .replace("{id}", &self.id)
                .replace("{user_domain}", "alpha.test")
                .replace("{user}", &self.bob.id.to_string());
            Request { method, path, route, golden, body }
        };
        let qualified = json!({ "domain": "alpha.test", "id": self.id });
        let group = json!({
            "name": "Lunch", "qualified_users": [self.bob], "users": [user(3, "alpha.test").id], "access": ["invite", "code"],
            "access_role": ["team_member", "guest"], "conversation_role": "wire_member", "receipt_mode": 1,
            "message_timer": 5, "protocol": "proteus", "group_conv_type": "group_conversation", "team": null,
            "add_permission": null, "cells": false, "skip_creator": false, "parent": null,
        });
        let settings = json!({
            "otr_muted_status": 3, "otr_muted_ref": "1970-01-01T00:00:00.000Z", "otr_archived": true,
            "otr_archived_ref": "x", "hidden": true, "hidden_ref": "y",
        });
        let older = json!({
            "sender": "1", "recipients": { self.bob.id.to_string(): { "2": "aGVsbG8=" } }, "native_push": true,
            "transient": false, "native_priority": "low", "data": "eA==", "report_missing": [self.bob.id],
        });
        let access = json!({ "access": ["invite"], "access_role": ["non_team_member", "team_member"] });
        let members = json!({ "qualified_users": [self.bob], "conversation_role": "wire_member" });
        let groups = &["NewConv_user", "fromJSON/NewConv_user"];
        vec![
            of(Method::POST, "/conversations", groups, group),
            of(Method::POST, "/conversations/list", &["ListConversations"], json!({ "qualified_ids": [qualified] })),
            of(
                Method::POST,
                "/conversations/list-ids",
                &["GetPaginatedConversationIds"],
                json!({ "size": 10, "paging_state": "AA==" }),
            ),
            of(
                Method::POST,
                "/one2one-conversations",
                &["NewOne2OneConv_user"],
                json!({ "qualified_users": [self.bob] }),
            ),
            of(Method::PUT, "/conversations/{domain}/{id}/name", &["ConversationRename_user"], json!({ "name": "x" })),
            of(Method::POST, "/conversations/{domain}/{id}/members", &[], members.clone()),
            of(Method::PUT, "/conversations/{domain}/{id}/members", &[], members),
            of(Method::PUT, "/conversations/{domain}/{id}/access", &[], access),
            of(
                Method::PUT,
                "/conversations/{domain}/{id}/add-permission",
                &[],
                json!({ "add_permission": "everyone" }),
            ),
            of(
                Method::PUT,
                "/conversations/{domain}/{id}/members/{user_domain}/{user}",
                &["OtherMemberUpdate_user", "fromJSON/OtherMemberUpdate_user"],
                json!({ "conversation_role": "wire_admin" }),
            ),
            of(
                Method::PUT,
                "/conversations/{domain}/{id}/message-timer",
                &["ConversationMessageTimerUpdate_user"],
                json!({ "message_timer": 1000 }),
            ),
            of(
                Method::PUT,
                "/conversations/{domain}/{id}/receipt-mode",
                &["ConversationReceiptModeUpdate_user"],
                json!({ "receipt_mode": 1 }),
            ),
            of(
                Method::PUT,
                "/conversations/{domain}/{id}/self",
                &["MemberUpdate_user", "fromJSON/MemberUpdate_user"],
                settings,
            ),
            of(
                Method::POST,
                "/conversations/{domain}/{id}/typing",
                &["TypingStatus_user"],
                json!({ "status": "started" }),
            ),
            of(
                Method::POST,
                "/conversations/{id}/otr/messages",
                &["NewOtrMessage_user", "fromJSON/NewOtrMessage_user"],
                older,
            ),
            of(Method::POST, "/conversations/code-check", &[], json!({ "key": ANY_ID, "code": "abc" })),
            of(Method::POST, "/conversations/join", &[], json!({ "key": ANY_ID, "code": "abc", "password": null })),
        ]
    }

    /// Sends a body as Ann, and checks that the answer is a documented one.
    async fn send(&self, request: &Request, body: &Value) -> bool {
        static TABLE: LazyLock<Table> = LazyLock::new(crate::routes::table);
        let (bytes, version) = (body.to_string().into(), 13);
        let (method, path) = (request.method.clone(), &request.path);
        let (status, answer) = self.alpha.send(&self.ann, method, path, "application/json", bytes, version).await;
        expect_documented(&TABLE, (request.method.as_str(), request.route), body, (status.as_u16(), &answer));
        status.is_success()
    }

    /// Sends variations of a body; how many were accepted, and how many refused.
    pub(crate) async fn vary(&self, request: &Request, body: &Value, pairs: usize) -> [usize; 2] {
        let mut answers = [0, 0];
        for body in variations(body, pairs) {
            let accepted = self.send(request, &body).await;
            answers[usize::from(!accepted)] += 1;
        }
        answers
    }
}

#[tokio::test]
async fn spoilt_requests_are_accepted_or_refused_as_documented() {
    let scene = Scene::new().await;
    for request in scene.requests() {
        scene.send(&request, &request.body).await;
        let [accepted, refused] = scene.vary(&request, &request.body, 40).await;
        println!("{} {}: {accepted} accepted, {refused} refused", request.method, request.path);
        assert!(refused > 20, "{} {} accepts anything", request.method, request.path);
    }
}
