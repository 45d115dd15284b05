//! The conversation of two users, brought in line with their connection on one backend and on two.

use aldis_proto::{convert, internal::v1::ApplyRelationRequest};
use aldis_types::{OneToOneProtocol, Relation, one_to_one};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::json;

use super::{membership, rules::Membership};
use crate::{
    messages::wire::{NewMessage, Recipient, Strategy, write},
    testing::{Backend, CONNECTION, QualifiedUser, World, eventually, user},
};

#[test]
fn membership_follows_the_relation() {
    let cases = [
        (Some(Relation::Accepted), Some(true), Some(true)),
        (Some(Relation::Sent), Some(true), Some(false)),
        (Some(Relation::Pending), Some(false), Some(true)),
        (Some(Relation::Ignored), Some(false), Some(true)),
        (Some(Relation::Blocked), Some(false), None),
        (Some(Relation::Cancelled), Some(false), Some(false)),
        (None, None, Some(false)),
    ];
    for (relation, user, other) in cases {
        assert_eq!(membership(relation, false), Membership { user, other }, "{relation:?}");
        assert_eq!(membership(relation, true), Membership { user, other: None }, "{relation:?}");
    }
}

/// Tells the user's backend of his new relation, as its users service would.
async fn apply(
    world: &World,
    backend: &Backend,
    user: &QualifiedUser,
    other: &QualifiedUser,
    relation: Relation,
    time: i64,
) {
    world.relate(user, other, relation);
    let request = ApplyRelationRequest {
        event_id: Bytes::from(vec![1; 16]),
        user: convert::bytes_of(user.id),
        other: Some(convert::to_qualified(other)),
        relation: convert::to_relation(Some(relation)).into(),
        time,
        connection: Some(CONNECTION),
        name: (relation == Relation::Sent).then(|| "Ann".to_owned()),
    };
    backend.memberships().apply_relation(request).await.unwrap();
}

fn path(a: &QualifiedUser, b: &QualifiedUser) -> String {
    let id = one_to_one(a, b, OneToOneProtocol::Proteus);
    format!("/conversations/{}/{}", id.domain, id.id)
}

async fn send(backend: &Backend, from: &QualifiedUser, to: &QualifiedUser, text: &'static str) -> u16 {
    let recipient =
        Recipient { user: to.clone(), client: aldis_types::ClientId(2), text: Bytes::from_static(text.as_bytes()) };
    let message = NewMessage {
        sender: aldis_types::ClientId(2),
        recipients: vec![recipient],
        blob: None,
        native_push: true,
        high_priority: false,
        transient: false,
        strategy: Strategy::ReportAll,
    };
    let path = format!("{}/proteus/messages", path(from, to));
    backend.send(from, Method::POST, &path, "application/x-protobuf", write(&message), 10).await.0.as_u16()
}

const CREATE: &str = "conversation.create";
const JOIN: &str = "conversation.member-join";
const MESSAGE: &str = "conversation.otr-message-add";

#[tokio::test]
async fn two_users_of_one_backend() {
    let world = World::default();
    let alpha = world.start("alpha.test").await;
    let (ann, ben) = (user(1, "alpha.test"), user(2, "alpha.test"));
    apply(&world, &alpha, &ann, &ben, Relation::Sent, 10).await;
    apply(&world, &alpha, &ben, &ann, Relation::Pending, 10).await;
    assert_eq!(alpha.kinds(&ann), [CREATE, "conversation.connect-request"]);
    let pushed = alpha.pushed(&ann);
    assert_eq!((&pushed[0].event["data"]["type"], pushed[0].origin), (&json!(3), Some((ann.id, CONNECTION))));
    assert_eq!(pushed[0].event["data"]["members"]["others"], json!([]));
    assert_eq!(
        pushed[1].event["data"],
        json!({
            "qualified_recipient": { "domain": "alpha.test", "id": ben.id }, "recipient": ben.id, "message": null,
            "name": "Ann", "email": null,
        })
    );
    assert!(alpha.pushed(&ben).is_empty());
    let one_to_one = json!({ "qualified_users": [{ "domain": "alpha.test", "id": ben.id }] });
    assert_eq!(alpha.post(&ann, "/one2one-conversations", one_to_one.clone()).await.1["label"], "not-connected");

    apply(&world, &alpha, &ben, &ann, Relation::Accepted, 20).await;
    apply(&world, &alpha, &ann, &ben, Relation::Accepted, 20).await;
    assert_eq!(alpha.kinds(&ben), [CREATE]);
    assert_eq!(alpha.pushed(&ben)[0].event["data"]["type"], 2);
    assert_eq!(alpha.kinds(&ann)[2..], [JOIN]);
    let (status, seen) = alpha.get(&ann, &path(&ann, &ben)).await;
    assert_eq!((status, &seen["type"], &seen["creator"]), (StatusCode::OK, &json!(2), &json!(null)));
    let (status, found) = alpha.post(&ann, "/one2one-conversations", one_to_one).await;
    assert_eq!((status, &found["id"]), (StatusCode::OK, &seen["qualified_id"]["id"]));

    // Told again, or late, it changes nothing.
    apply(&world, &alpha, &ben, &ann, Relation::Accepted, 20).await;
    apply(&world, &alpha, &ben, &ann, Relation::Blocked, 19).await;
    world.relate(&ben, &ann, Relation::Accepted);
    assert_eq!((alpha.pushed(&ann).len(), alpha.pushed(&ben).len()), (3, 1));
    assert_eq!(alpha.get(&ben, &path(&ann, &ben)).await.0, StatusCode::OK);

    // Blocking takes the one who blocks out, unseen by the other.
    apply(&world, &alpha, &ben, &ann, Relation::Blocked, 30).await;
    assert_eq!(alpha.get(&ben, &path(&ann, &ben)).await.0, StatusCode::FORBIDDEN);
    assert_eq!(alpha.get(&ann, &path(&ann, &ben)).await.1["type"], 2);
    assert_eq!((alpha.pushed(&ann).len(), alpha.pushed(&ben).len()), (3, 1));
    apply(&world, &alpha, &ben, &ann, Relation::Accepted, 40).await;
    assert_eq!(alpha.get(&ben, &path(&ann, &ben)).await.0, StatusCode::OK);
    let rename = alpha.put(&ann, &format!("{}/name", path(&ann, &ben)), json!({ "name": "x" })).await;
    assert_eq!((rename.0, &rename.1["label"]), (StatusCode::FORBIDDEN, &json!("invalid-op")));
}

/// Finds a pair of users of two backends whose conversation is owned by `owner`.
fn pair_owned_by(owner: &str) -> (QualifiedUser, QualifiedUser) {
    let ann = user(1, "alpha.test");
    let others = (2..100).map(|number| user(number, "beta.test"));
    let mut found = others.filter(|ben| one_to_one(&ann, ben, OneToOneProtocol::Proteus).domain.as_str() == owner);
    let ben = found.next().unwrap();
    (ann, ben)
}

#[tokio::test]
async fn two_users_of_two_backends_whichever_owns_their_conversation() {
    for owner in ["alpha.test", "beta.test"] {
        let world = World::default();
        let (alpha, beta) = (world.start("alpha.test").await, world.start("beta.test").await);
        let (ann, ben) = pair_owned_by(owner);
        world.set_clients(&ann, &[2]);
        world.set_clients(&ben, &[2]);
        apply(&world, &alpha, &ann, &ben, Relation::Sent, 10).await;
        apply(&world, &beta, &ben, &ann, Relation::Pending, 10).await;
        assert_eq!(alpha.kinds(&ann), [CREATE, "conversation.connect-request"], "{owner}");
        assert_eq!(alpha.pushed(&ann)[0].event["data"]["type"], 3);
        assert!(beta.pushed(&ben).is_empty());
        let (status, seen) = alpha.get(&ann, &path(&ann, &ben)).await;
        assert_eq!((status, &seen["members"]["others"]), (StatusCode::OK, &json!([])), "{owner}");
        assert!(beta.get(&ben, &path(&ann, &ben)).await.0.is_client_error());

        // The acceptance reaches the asking side first, as its backend answers the other's call.
        apply(&world, &alpha, &ann, &ben, Relation::Accepted, 20).await;
        apply(&world, &beta, &ben, &ann, Relation::Accepted, 20).await;
        assert_eq!(alpha.kinds(&ann)[2..], [JOIN], "{owner}");
        assert_eq!(alpha.pushed(&ann)[2].event["qualified_from"]["domain"], "beta.test");
        assert_eq!(beta.kinds(&ben), [CREATE], "{owner}");
        assert_eq!(beta.pushed(&ben)[0].event["data"]["type"], 2);
        for (backend, who, other) in [(&alpha, &ann, &ben), (&beta, &ben, &ann)] {
            let (status, seen) = backend.get(who, &path(&ann, &ben)).await;
            assert_eq!((status, &seen["type"]), (StatusCode::OK, &json!(2)), "{owner}");
            assert_eq!(seen["members"]["others"][0]["id"], json!(other.id));
        }
        assert_eq!(send(&alpha, &ann, &ben, "hello").await, 201);
        beta.wait_for(&ben, MESSAGE, 1).await;
        assert_eq!(send(&beta, &ben, &ann, "hello yourself").await, 201);
        alpha.wait_for(&ann, MESSAGE, 1).await;

        // A block is not told: what the other sends is accepted and reaches nobody.
        apply(&world, &beta, &ben, &ann, Relation::Blocked, 30).await;
        assert_eq!(send(&alpha, &ann, &ben, "anybody there?").await, 201, "{owner}");
        assert_eq!(send(&beta, &ben, &ann, "no").await, 404, "{owner}");
        eventually("it is dropped", async || alpha.count("conversations_outbox").await == 0).await;
        apply(&world, &beta, &ben, &ann, Relation::Accepted, 40).await;
        assert_eq!(send(&alpha, &ann, &ben, "back?").await, 201);
        beta.wait_for(&ben, MESSAGE, 2).await;
    }
}

#[tokio::test]
async fn a_message_waits_for_an_acceptance_that_is_under_way() {
    let world = World::default();
    let (alpha, beta) = (world.start("alpha.test").await, world.start("beta.test").await);
    let (ann, ben) = pair_owned_by("alpha.test");
    world.set_clients(&ann, &[2]);
    world.set_clients(&ben, &[2]);
    apply(&world, &alpha, &ann, &ben, Relation::Sent, 10).await;
    apply(&world, &alpha, &ann, &ben, Relation::Accepted, 20).await;
    // Users of beta knows of the acceptance, conversations of beta does not yet.
    world.relate(&ben, &ann, Relation::Accepted);
    assert_eq!(send(&alpha, &ann, &ben, "first").await, 201);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert!(beta.pushed(&ben).is_empty());
    apply(&world, &beta, &ben, &ann, Relation::Accepted, 20).await;
    beta.wait_for(&ben, MESSAGE, 1).await;
    assert_eq!(beta.kinds(&ben), [CREATE, MESSAGE]);
}

#[tokio::test]
async fn what_is_not_a_relation_is_refused() {
    let world = World::default();
    let alpha = world.start("alpha.test").await;
    let ann = user(1, "alpha.test");
    let request = ApplyRelationRequest {
        event_id: Bytes::new(),
        user: convert::bytes_of(ann.id),
        other: Some(convert::to_qualified(&ann)),
        relation: convert::to_relation(Some(Relation::Accepted)).into(),
        time: 1,
        connection: None,
        name: None,
    };
    let with_himself = alpha.memberships().apply_relation(request.clone()).await.unwrap_err();
    assert_eq!(with_himself.code(), tonic::Code::InvalidArgument);
    let unspecified = ApplyRelationRequest { relation: 0, ..request };
    assert_eq!(alpha.memberships().apply_relation(unspecified).await.unwrap_err().code(), tonic::Code::InvalidArgument);
}
