//! Drift between two backends, made behind their backs, and its repair.

use aldis_proto::{federation::v1 as pb, internal::v1::ReconcileResponse};
use http::StatusCode;
use serde_json::{Value, json};

use super::{PAGE, peers::read};
use crate::testing::{Backend, QualifiedUser, World, domain, eventually, user};

const JOIN: &str = "conversation.member-join";
const LEAVE: &str = "conversation.member-leave";
const CREATE: &str = "conversation.create";

async fn group(backend: &Backend, creator: &QualifiedUser, other: &QualifiedUser) -> String {
    let body = json!({ "name": "Lunch", "qualified_users": [other], "conversation_role": "wire_member" });
    let (status, created) = backend.post(creator, "/conversations", body).await;
    assert_eq!(status, StatusCode::CREATED, "{created}");
    created["qualified_id"]["id"].as_str().unwrap().to_owned()
}

fn hex_id(id: &str) -> String {
    id.replace('-', "")
}

/// What a round said: differing, repaired, waiting.
fn said(answer: &ReconcileResponse) -> [u64; 3] {
    [answer.differing, answer.repaired, answer.waiting]
}

/// Compares until nothing differs; the service may have done so by itself since the backends met.
async fn settle(backend: &Backend, other: &str) {
    assert_eq!(backend.reconcile(other).await.waiting, 0);
    assert_eq!(said(&backend.reconcile(other).await), [0, 0, 0]);
}

/// Ann of alpha and Bob of beta, connected, in a group of each of the two.
async fn two_groups(world: &World) -> (Backend, Backend, [QualifiedUser; 2], [String; 2]) {
    let (alpha, beta) = (world.start("alpha.test").await, world.start("beta.test").await);
    let (ann, bob) = (user(1, "alpha.test"), user(2, "beta.test"));
    world.connect(&[&ann, &bob]);
    let anns = group(&alpha, &ann, &bob).await;
    let bobs = group(&beta, &bob, &ann).await;
    beta.wait_for(&bob, CREATE, 2).await;
    alpha.wait_for(&ann, CREATE, 2).await;
    (alpha, beta, [ann, bob], [anns, bobs])
}

/// Forgets a place of a user in a conversation elsewhere.
async fn forget_place(backend: &Backend, conversation: &str) {
    let id = hex_id(conversation);
    let sql = format!(
        "DELETE FROM conversations_remote WHERE conversation = x'{id}'; \
         DELETE FROM conversations_by_user WHERE conversation = x'{id}';"
    );
    backend.tamper(sql).await;
}

async fn ids(backend: &Backend, user: &QualifiedUser) -> Vec<Value> {
    let (status, page) = backend.post(user, "/conversations/list-ids", json!({})).await;
    assert_eq!(status, StatusCode::OK);
    page["qualified_conversations"].as_array().unwrap().iter().map(|id| id["id"].clone()).collect()
}

#[tokio::test]
async fn what_is_alike_is_left_alone() {
    let world = World::default();
    let (alpha, beta, [ann, bob], _) = two_groups(&world).await;
    for (backend, other, who) in [(&alpha, "beta.test", &ann), (&beta, "alpha.test", &bob)] {
        let answer = backend.reconcile(other).await;
        assert_eq!((answer.compared, said(&answer)), (1, [0, 0, 0]));
        assert_eq!(backend.kinds(who), [CREATE, CREATE]);
    }
}

#[tokio::test]
async fn a_member_whom_his_own_backend_does_not_know_joins_in_both_directions() {
    let world = World::default();
    let (alpha, beta, [ann, bob], [anns, bobs]) = two_groups(&world).await;
    for (backend, other, me, friend, conversation) in
        [(&beta, "alpha.test", &bob, &ann, &anns), (&alpha, "beta.test", &ann, &bob, &bobs)]
    {
        assert_eq!(backend.count("conversations_remote").await, 1);
        forget_place(backend, conversation).await;
        settle(backend, other).await;
        assert!(ids(backend, me).await.contains(&json!(conversation)));
        let joined = backend.wait_for(me, JOIN, 1).await.remove(0).event;
        assert_eq!(joined["qualified_conversation"], json!({ "domain": other, "id": conversation }));
        assert_eq!(joined["qualified_from"], json!(friend));
        assert_eq!(joined["data"]["users"][0]["qualified_id"], json!(me));
        assert_eq!(joined["data"]["users"][0]["conversation_role"], "wire_member");
    }
}

#[tokio::test]
async fn a_place_that_the_owner_does_not_know_goes_in_both_directions() {
    let world = World::default();
    let (alpha, beta, [ann, bob], [anns, bobs]) = two_groups(&world).await;
    for (owner, backend, me, conversation) in [(&alpha, &beta, &bob, &anns), (&beta, &alpha, &ann, &bobs)] {
        let (id, own) = (hex_id(conversation), &backend.domain);
        let sql = format!("DELETE FROM conversations_members WHERE conversation = x'{id}' AND domain = '{own}'");
        owner.tamper(sql).await;
        settle(backend, owner.domain.as_str()).await;
        assert!(!ids(backend, me).await.contains(&json!(conversation)));
        let left = backend.wait_for(me, LEAVE, 1).await.remove(0).event;
        assert_eq!(left["data"]["qualified_user_ids"], json!([me]));
    }
}

#[tokio::test]
async fn a_conversation_that_its_owner_never_made_goes() {
    let world = World::default();
    let (_alpha, beta, [_, bob], [anns, _]) = two_groups(&world).await;
    let ghost = "0a0b0c0d-0000-4000-8000-000000000001";
    let (id, user) = (hex_id(ghost), hex_id(&bob.id.to_string()));
    let sql = format!(
        "INSERT INTO conversations_remote (domain, conversation, user) VALUES ('alpha.test', x'{id}', x'{user}'); \
         INSERT INTO conversations_by_user (user, domain, conversation) VALUES (x'{user}', 'alpha.test', x'{id}');"
    );
    beta.tamper(sql).await;
    settle(&beta, "alpha.test").await;
    let left = beta.wait_for(&bob, LEAVE, 1).await.remove(0).event;
    assert_eq!(left["conversation"], ghost);
    let left = ids(&beta, &bob).await;
    assert!(left.contains(&json!(anns)) && !left.contains(&json!(ghost)), "{left:?}");
}

#[tokio::test]
async fn nothing_is_repaired_while_an_event_is_on_its_way() {
    let world = World::default();
    let (alpha, beta, [ann, bob], [anns, _]) = two_groups(&world).await;
    world.hold("alpha.test", "beta.test", true);
    let path = format!("/conversations/alpha.test/{anns}/members/beta.test/{}", bob.id);
    assert_eq!(alpha.delete(&ann, &path).await.0, StatusCode::OK);
    let answer = beta.reconcile("alpha.test").await;
    assert_eq!((answer.repaired, answer.waiting), (0, 1));
    assert!(ids(&beta, &bob).await.contains(&json!(anns)));
    assert!(!beta.kinds(&bob).contains(&LEAVE.to_owned()));
    world.hold("alpha.test", "beta.test", false);
    let left = beta.wait_for(&bob, LEAVE, 1).await.remove(0).event;
    assert_eq!(left["qualified_from"], json!(ann), "told by the owner, not by a repair");
    assert_eq!(said(&beta.reconcile("alpha.test").await), [0, 0, 0]);
    assert_eq!(beta.wait_for(&bob, LEAVE, 1).await.len(), 1);
}

#[tokio::test]
async fn an_answer_does_not_overtake_what_waits_in_the_lane() {
    let world = World::default();
    let (alpha, beta) = (world.start("alpha.test").await, world.start("beta.test").await);
    let (ann, bob) = (user(1, "alpha.test"), user(2, "beta.test"));
    world.connect(&[&ann, &bob]);
    let body = json!({ "name": "Lunch", "qualified_users": [bob], "conversation_role": "wire_admin" });
    let (status, created) = alpha.post(&ann, "/conversations", body).await;
    assert_eq!(status, StatusCode::CREATED, "{created}");
    let path = format!("/conversations/alpha.test/{}/name", created["qualified_id"]["id"].as_str().unwrap());
    beta.wait_for(&bob, CREATE, 1).await;
    world.hold("alpha.test", "beta.test", true);
    // The first change waits for Bob's backend, and the answer to his own comes at once.
    assert_eq!(alpha.put(&ann, &path, json!({ "name": "One" })).await.0, StatusCode::OK);
    let (status, answer) = beta.put(&bob, &path, json!({ "name": "Two" })).await;
    assert_eq!((status, &answer["data"]["name"]), (StatusCode::OK, &json!("Two")));
    assert_eq!(beta.kinds(&bob), [CREATE], "the second is not applied before the first");
    world.hold("alpha.test", "beta.test", false);
    let renames = beta.wait_for(&bob, "conversation.rename", 2).await;
    let names: Vec<_> = renames.iter().map(|renamed| renamed.event["data"]["name"].clone()).collect();
    assert_eq!(names, ["One", "Two"]);
    assert!(renames[0].event["time"].as_str() < renames[1].event["time"].as_str());
    assert_eq!(renames[1].event["time"], answer["time"]);
    assert_eq!(said(&beta.reconcile("alpha.test").await), [0, 0, 0]);
    assert_eq!(beta.wait_for(&bob, "conversation.rename", 2).await.len(), 2);
}

#[tokio::test]
async fn a_backend_that_lost_what_it_had_acknowledged_is_repaired_without_waiting() {
    let world = World::default();
    let (_alpha, beta, [_, bob], [anns, _]) = two_groups(&world).await;
    forget_place(&beta, &anns).await;
    beta.tamper(format!("DELETE FROM conversations_received WHERE lane = x'{}'", hex_id(&anns))).await;
    eventually("alpha knows that everything was acknowledged", async || {
        beta.reconcile("alpha.test").await.waiting == 0
    })
    .await;
    assert!(ids(&beta, &bob).await.contains(&json!(anns)));
    beta.wait_for(&bob, JOIN, 1).await;
}

#[tokio::test]
async fn a_backend_cannot_put_strangers_into_its_conversations() {
    let world = World::default();
    let (alpha, evil) = (world.start("alpha.test").await, world.start("evil.test").await);
    let (friend, stranger, mallory) = (user(1, "alpha.test"), user(2, "alpha.test"), user(3, "evil.test"));
    world.connect(&[&friend, &mallory]);
    let theirs = group(&evil, &mallory, &friend).await;
    alpha.wait_for(&friend, CREATE, 1).await;
    let (id, user) = (hex_id(&theirs), hex_id(&stranger.id.to_string()));
    let sql = format!(
        "INSERT INTO conversations_members (conversation, domain, user, role) \
         VALUES (x'{id}', 'alpha.test', x'{user}', 'wire_member')"
    );
    evil.tamper(sql).await;
    // The service over there reads its store anew.
    let renamed = evil.put(&mallory, &format!("/conversations/evil.test/{theirs}/name"), json!({ "name": "x" })).await;
    assert_eq!(renamed.0, StatusCode::OK);
    alpha.wait_for(&friend, "conversation.rename", 1).await;
    assert_eq!(alpha.reconcile("evil.test").await.repaired, 0);
    assert_eq!(alpha.kinds(&stranger), Vec::<String>::new());
    assert_eq!(alpha.count("conversations_remote").await, 1);
    eventually("the owner takes out whom we refuse", async || evil.count("conversations_members").await == 2).await;
}

#[tokio::test]
async fn marked_lanes_are_compared_without_being_asked_for() {
    let world = World::default();
    let (_alpha, beta, [_, bob], [anns, _]) = two_groups(&world).await;
    forget_place(&beta, &anns).await;
    let sql = format!(
        "INSERT INTO conversations_reconcile (peer, ours, lane, since, reason) \
         VALUES ('alpha.test', 0, x'{}', CAST(unixepoch('subsec') * 1000 AS INTEGER), 'refused')",
        hex_id(&anns)
    );
    beta.tamper(sql).await;
    beta.wait_for(&bob, JOIN, 1).await;
    eventually("the mark goes", async || beta.count("conversations_reconcile").await == 0).await;
}

#[test]
fn answers_are_bounded() {
    let of = domain("evil.test");
    let membership = |users: usize| pb::Membership {
        conversation: vec![1; 16].into(),
        users: vec![vec![2; 16].into(); users],
        ..pb::Membership::default()
    };
    assert!(read(&of, &[7; 16], &[membership(500)]).is_ok());
    assert!(read(&of, &[7; 16], &[membership(501)]).is_err());
    assert!(read(&of, &[7; 15], &[membership(1)]).is_err());
    assert!(read(&of, &[7; 16], &vec![membership(1); PAGE + 1]).is_err());
    let short = pb::Membership { conversation: vec![1; 15].into(), ..membership(1) };
    assert!(read(&of, &[7; 16], &[short]).is_err());
}
