//! Users who leave without asking: deleted accounts, and users whom their own backend does not let be added.

use aldis_proto::{convert, internal::v1::RemoveUserRequest};
use aldis_types::{Relation, UserId};
use http::StatusCode;
use serde_json::{Value, json};

use super::{at, create, ids};
use crate::testing::{Backend, World, eventually, user};

async fn delete(backend: &Backend, user: UserId) {
    let request = RemoveUserRequest { event_id: vec![1; 16].into(), user: convert::bytes_of(user), time: 1 };
    // The relay may tell it twice.
    for _ in 0..2 {
        backend.memberships().remove_user(request.clone()).await.unwrap();
    }
}

#[tokio::test]
async fn a_deleted_user_leaves_everything() {
    let world = World::default();
    let (alpha, beta) = (world.start("alpha.test").await, world.start("beta.test").await);
    let gamma = world.start("gamma.test").await;
    let (ann, ben, cleo, dan) =
        (user(1, "alpha.test"), user(2, "beta.test"), user(3, "gamma.test"), user(4, "alpha.test"));
    world.connect(&[&ann, &ben, &cleo, &dan]);
    let ours = create(&alpha, &ann, &[&ben, &dan]).await;
    let theirs = create(&beta, &ben, &[&ann, &cleo, &dan]).await;
    alpha.wait_for(&ann, "conversation.create", 2).await;
    alpha.wait_for(&dan, "conversation.create", 2).await;
    gamma.wait_for(&cleo, "conversation.create", 1).await;
    beta.wait_for(&ben, "conversation.create", 2).await;
    // The other backend hears of it later, when it is there again.
    world.set_down("beta.test", true);
    world.facts().deleted.insert(ann.clone());
    delete(&alpha, ann.id).await;
    world.set_down("beta.test", false);

    // The owner elsewhere takes her out and tells everybody: its own, hers, and a third backend.
    let left = beta.wait_for(&ben, "conversation.member-leave", 2).await;
    let conversations: Vec<_> = left.iter().map(|it| it.event["qualified_conversation"]["id"].clone()).collect();
    assert!(conversations.contains(&json!(ours)) && conversations.contains(&json!(theirs)), "{conversations:?}");
    let mut told = left;
    told.extend(alpha.wait_for(&dan, "conversation.member-leave", 2).await);
    told.extend(gamma.wait_for(&cleo, "conversation.member-leave", 1).await);
    for event in told {
        assert_eq!(event.event["data"]["reason"], "user-deleted");
        assert_eq!(event.event["data"]["qualified_user_ids"], ids(&[&ann]));
        assert_eq!(event.event["qualified_from"], ids(&[&ann])[0]);
    }
    let (_, page) = alpha.post(&ann, "/conversations/list-ids", json!({})).await;
    assert_eq!(page["qualified_conversations"].as_array().unwrap().len(), 1);
    assert_eq!(alpha.get(&ann, &at(&beta, &theirs, "")).await.0, StatusCode::NOT_FOUND);
    let (_, seen) = beta.get(&ben, &at(&beta, &theirs, "")).await;
    assert_eq!(seen["members"]["others"].as_array().unwrap().len(), 2, "{seen}");
    eventually("nothing waits", async || alpha.count("conversations_outbox").await == 0).await;
    assert_eq!(alpha.count("conversations_outbox_dead").await, 0);
}

#[tokio::test]
async fn the_owner_learns_whom_another_backend_did_not_let_in() {
    let world = World::default();
    let (alpha, beta) = (world.start("alpha.test").await, world.start("beta.test").await);
    let (ann, ben, gus, dan) =
        (user(1, "alpha.test"), user(2, "beta.test"), user(3, "beta.test"), user(4, "alpha.test"));
    world.connect(&[&ann, &ben, &gus, &dan]);
    let id = create(&alpha, &ann, &[&ben, &dan]).await;
    beta.wait_for(&ben, "conversation.create", 1).await;
    // Asked, the other backend agrees; by the time that it hears of it, the user has blocked the one who adds him.
    world.hold("alpha.test", "beta.test", true);
    let body = json!({ "qualified_users": ids(&[&gus]) });
    assert_eq!(alpha.post(&ann, &at(&alpha, &id, "/members"), body).await.0, StatusCode::OK);
    world.relate(&gus, &ann, Relation::Blocked);
    world.hold("alpha.test", "beta.test", false);

    let left = alpha.wait_for(&dan, "conversation.member-leave", 1).await.remove(0).event;
    assert_eq!((&left["data"]["qualified_user_ids"], &left["data"]["reason"]), (&ids(&[&gus]), &json!("left")));
    let (_, seen) = alpha.get(&ann, &at(&alpha, &id, "")).await;
    assert_eq!(seen["members"]["others"].as_array().unwrap().len(), 2, "{seen}");
    // Where he is, nobody has heard of him, and nobody does.
    eventually("nothing waits", async || {
        alpha.count("conversations_outbox").await + beta.count("conversations_outbox").await == 0
    })
    .await;
    assert_eq!(alpha.count("conversations_outbox_dead").await + beta.count("conversations_outbox_dead").await, 0);
    assert!(beta.pushed(&gus).is_empty());
    assert_eq!(beta.kinds(&ben), ["conversation.create"]);
    let (status, _) = beta.get(&gus, &at(&alpha, &id, "")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);

    // The same when the group is new.
    world.connect(&[&ann, &gus]);
    world.hold("alpha.test", "beta.test", true);
    let new = create(&alpha, &ann, &[&gus, &dan]).await;
    world.relate(&gus, &ann, Relation::Blocked);
    world.hold("alpha.test", "beta.test", false);
    alpha.wait_for(&dan, "conversation.member-leave", 2).await;
    let (_, seen) = alpha.get(&ann, &at(&alpha, &new, "")).await;
    assert_eq!(seen["members"]["others"].as_array().unwrap().len(), 1, "{seen}");
    assert!(beta.pushed(&gus).is_empty());
    assert_eq!(seen["members"]["others"][0]["id"], json!(dan.id));
    assert_ne!(seen["members"]["self"], Value::Null);
}
