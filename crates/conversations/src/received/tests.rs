//! A backend that tells what it may not, and one that tells what it may.

use std::{sync::Arc, time::Duration};

use aldis_delivery::{Component, Outbox, Outgoing, Peer, Relays};
use aldis_peers::{Peers, Policy};
use aldis_proto::{
    convert,
    federation::v1::{self as pb, conversation_event::Change},
};
use aldis_runtime::SystemClock;
use aldis_storage::{Db, DbOptions};
use aldis_types::{ConversationId, PolicySnapshot, Strategy};
use prost::Message;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    federated::kind,
    testing::{Backend, QualifiedUser, World, domain, eventually, user},
};

const CREATE: &str = "conversation.create";
const MESSAGE: &str = "conversation.otr-message-add";

/// A backend of which only the outbox is real: it tells whatever a test wants.
pub(super) struct Teller {
    db: Db,
    outbox: Outbox,
    _relay: JoinSet<()>,
    _folder: tempfile::TempDir,
}

impl Teller {
    pub(super) async fn start(world: &World, name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("aldis.db"), &DbOptions::default()).unwrap();
        db.migrate("conversations", crate::groups::store::MIGRATIONS).await.unwrap();
        let outbox =
            Outbox::open(Component::Conversations, domain(name), db.clone(), Arc::new(SystemClock)).await.unwrap();
        let policy = Policy::new(Duration::from_hours(1));
        policy.update(PolicySnapshot { version: 1, strategy: Strategy::AllowAll, ..PolicySnapshot::default() });
        let peers = Peers::new(world.as_backend(name));
        let relays = Relays {
            peers,
            policy,
            notifications: None,
            conversations: None,
            bounds: aldis_delivery::Config::default(),
        };
        let mut relay = JoinSet::new();
        relay.spawn(outbox.clone().run(relays));
        Self { db, outbox, _relay: relay, _folder: folder }
    }

    pub(super) async fn tell_raw(&self, lane: ConversationId, kind: u32, body: Vec<u8>) {
        let row =
            Outgoing { peer: Peer::Backend(domain("alpha.test")), lane: *lane.as_bytes(), kind, body: body.into() };
        let outbox = self.outbox.clone();
        let appended = self.db.write(move |tx| outbox.append(tx, &[row])).await.unwrap();
        self.outbox.committed(appended);
    }

    pub(super) async fn tell(&self, lane: ConversationId, actor: &QualifiedUser, kind: u32, change: Change) {
        let event = pb::ConversationEvent {
            conversation: convert::bytes_of(lane),
            time: 1_700_000_000_000,
            version: 1,
            actor: Some(convert::to_qualified(actor)),
            actor_connection: None,
            change: Some(change),
        };
        self.tell_raw(lane, kind, event.encode_to_vec()).await;
    }

    async fn count(&self, table: &str) -> i64 {
        let query = format!("SELECT count(*) FROM {table}");
        self.db.read(move |tx| Ok(tx.query_row(&query, [], |row| row.get(0))?)).await.unwrap()
    }

    /// Waits until everything was answered; how many were refused.
    pub(super) async fn refused(&self) -> i64 {
        eventually("everything is answered", async || self.count("conversations_outbox").await == 0).await;
        self.count("conversations_outbox_dead").await
    }
}

pub(super) fn conversation(number: u128) -> ConversationId {
    ConversationId::new(Uuid::from_u128(number))
}

fn member(user: &QualifiedUser) -> pb::Member {
    pb::Member { user: Some(convert::to_qualified(user)), role: "wire_admin".to_owned() }
}

fn metadata(kind: pb::ConversationType) -> pb::Metadata {
    pb::Metadata { r#type: kind.into(), name: Some("Theirs".to_owned()), protocol: 1, ..pb::Metadata::default() }
}

pub(super) fn created(members: &[&QualifiedUser]) -> Change {
    let metadata = Some(metadata(pb::ConversationType::Regular));
    Change::Created(pb::Created { metadata, members: members.iter().map(|user| member(user)).collect() })
}

pub(super) fn added(members: &[&QualifiedUser]) -> Change {
    Change::MembersAdded(pb::MembersAdded {
        added: members.iter().map(|user| member(user)).collect(),
        metadata: Some(metadata(pb::ConversationType::Regular)),
        members: vec![],
    })
}

pub(super) fn message(recipients: &[(&QualifiedUser, u64)]) -> Change {
    Change::MessageSent(pb::MessageSent {
        sender_client: 1,
        recipients: recipients
            .iter()
            .map(|(user, client)| pb::message_sent::Recipient {
                user: convert::bytes_of(user.id),
                clients: vec![pb::message_sent::ClientText { client: *client, text: "text".into() }],
            })
            .collect(),
        data: None,
        native_push: true,
        transient: false,
        high_priority: false,
    })
}

pub(super) async fn alpha_and_teller(world: &World) -> (Backend, Teller) {
    (world.start("alpha.test").await, Teller::start(world, "evil.test").await)
}

#[tokio::test]
async fn only_connected_users_are_put_into_a_conversation() {
    let world = World::default();
    let (alpha, evil) = alpha_and_teller(&world).await;
    let (friend, stranger, mallory) = (user(1, "alpha.test"), user(2, "alpha.test"), user(3, "evil.test"));
    let third = user(4, "gamma.test");
    world.connect(&[&friend, &mallory]);
    let lane = conversation(1);
    evil.tell(lane, &mallory, kind::CREATED, created(&[&mallory, &friend, &stranger, &third])).await;
    let event = alpha.wait_for(&friend, CREATE, 1).await.remove(0).event;
    let others = event["data"]["members"]["others"].as_array().unwrap();
    let domains: Vec<_> = others.iter().map(|other| other["qualified_id"]["domain"].as_str().unwrap()).collect();
    assert_eq!(domains, ["evil.test", "gamma.test"]);
    evil.tell(lane, &mallory, kind::MEMBERS_ADDED, added(&[&stranger])).await;
    // A third backend's user has no more power over ours.
    evil.tell(lane, &third, kind::MEMBERS_ADDED, added(&[&stranger])).await;
    evil.tell(lane, &mallory, kind::MESSAGE_SENT, message(&[(&stranger, 1), (&friend, 2)])).await;
    alpha.wait_for(&friend, MESSAGE, 1).await;
    assert_eq!(evil.refused().await, 0);
    assert!(alpha.pushed(&stranger).is_empty());
    assert_eq!(alpha.count("conversations_remote").await, 1);
    assert_eq!(alpha.kinds(&friend), [CREATE, MESSAGE]);
}

#[tokio::test]
async fn members_are_told_that_they_missed_what_the_owner_dropped() {
    const DROPPED: u32 = 2;
    let world = World::default();
    let (alpha, teller) = alpha_and_teller(&world).await;
    let (friend, other, owner) = (user(1, "alpha.test"), user(2, "alpha.test"), user(3, "evil.test"));
    world.connect(&[&friend, &other, &owner]);
    let lane = conversation(1);
    teller.tell(lane, &owner, kind::CREATED, created(&[&owner, &friend])).await;
    teller.tell(conversation(2), &owner, kind::CREATED, created(&[&owner, &other])).await;
    alpha.wait_for(&friend, CREATE, 1).await;
    teller.tell_raw(lane, DROPPED, Vec::new()).await;
    teller.tell_raw(conversation(3), DROPPED, Vec::new()).await;
    teller.tell(lane, &owner, kind::MESSAGE_SENT, message(&[(&friend, 2)])).await;
    alpha.wait_for(&friend, MESSAGE, 1).await;
    assert_eq!(teller.refused().await, 0);
    assert_eq!(alpha.kinds(&friend), [CREATE, "notifications.missed", MESSAGE]);
    assert_eq!(alpha.kinds(&other), [CREATE]);
    assert_eq!(alpha.count("conversations_reconcile").await, 2);
}

#[tokio::test]
async fn members_are_told_when_the_owner_lost_its_store() {
    let world = World::default();
    let (alpha, teller) = alpha_and_teller(&world).await;
    let (friend, other, owner) = (user(1, "alpha.test"), user(2, "alpha.test"), user(3, "evil.test"));
    world.connect(&[&friend, &other, &owner]);
    for number in 1..=3 {
        teller.tell(conversation(number), &owner, kind::CREATED, created(&[&owner, &friend])).await;
    }
    assert_eq!(teller.refused().await, 0);
    drop(teller);
    let restored = Teller::start(&world, "evil.test").await;
    restored.tell(conversation(1), &owner, kind::MESSAGE_SENT, message(&[(&friend, 2)])).await;
    alpha.wait_for(&friend, MESSAGE, 1).await;
    assert_eq!(restored.refused().await, 0);
    assert_eq!(alpha.kinds(&friend), [CREATE, CREATE, CREATE, "notifications.missed", MESSAGE]);
    assert!(alpha.pushed(&other).is_empty());
}

#[tokio::test]
async fn nobody_speaks_for_our_users_or_for_other_backends() {
    let world = World::default();
    let (alpha, evil) = alpha_and_teller(&world).await;
    let (friend, other, mallory) = (user(1, "alpha.test"), user(2, "alpha.test"), user(3, "evil.test"));
    world.connect(&[&friend, &other, &mallory]);
    let lane = conversation(1);
    evil.tell(lane, &mallory, kind::CREATED, created(&[&mallory, &friend])).await;
    alpha.wait_for(&friend, CREATE, 1).await;
    let renamed = || Change::Renamed(pb::Renamed { name: "x".to_owned() });
    let far = user(9, "gamma.test");
    let lies: Vec<(ConversationId, &QualifiedUser, u32, Change)> = vec![
        // Ours, but not a member there.
        (lane, &other, kind::RENAMED, renamed()),
        (lane, &other, kind::MESSAGE_SENT, message(&[(&friend, 1)])),
        (lane, &other, kind::MEMBERS_ADDED, added(&[&other])),
        // Created by somebody else's user.
        (conversation(2), &friend, kind::CREATED, created(&[&friend, &mallory])),
        (conversation(3), &far, kind::CREATED, created(&[&friend])),
        // One-to-one conversations are derived, never told.
        (
            conversation(4),
            &mallory,
            kind::CREATED,
            Change::Created(pb::Created {
                metadata: Some(metadata(pb::ConversationType::OneToOne)),
                members: vec![member(&friend)],
            }),
        ),
        // Kind and content differ.
        (lane, &mallory, kind::RENAMED, message(&[(&friend, 1)])),
        (lane, &mallory, kind::MESSAGE_SENT, message(&[(&friend, 0)])),
        (lane, &mallory, kind::RENAMED, Change::Renamed(pb::Renamed { name: String::new() })),
    ];
    let count = i64::try_from(lies.len()).unwrap();
    for (lane, actor, kind, change) in lies {
        evil.tell(lane, actor, kind, change).await;
    }
    evil.tell_raw(lane, kind::RENAMED, b"junk".to_vec()).await;
    // Another conversation than the lane's.
    let stray = pb::ConversationEvent {
        conversation: convert::bytes_of(conversation(7)),
        actor: Some(convert::to_qualified(&mallory)),
        change: Some(renamed()),
        ..pb::ConversationEvent::default()
    };
    evil.tell_raw(lane, kind::RENAMED, stray.encode_to_vec()).await;
    // The lane goes on after all that.
    evil.tell(lane, &mallory, kind::MESSAGE_SENT, message(&[(&friend, 1)])).await;
    alpha.wait_for(&friend, MESSAGE, 1).await;
    assert_eq!(evil.refused().await, count + 2);
    assert_eq!(alpha.kinds(&friend), [CREATE, MESSAGE]);
    assert!(alpha.pushed(&other).is_empty());
    let event = &alpha.pushed(&friend)[1].event;
    assert_eq!(event["qualified_conversation"]["domain"], "evil.test");
}

#[tokio::test]
async fn who_is_removed_is_told_and_who_is_no_member_is_not() {
    let world = World::default();
    let (alpha, evil) = alpha_and_teller(&world).await;
    let (friend, stranger, mallory) = (user(1, "alpha.test"), user(2, "alpha.test"), user(3, "evil.test"));
    world.connect(&[&friend, &mallory]);
    let lane = conversation(1);
    evil.tell(lane, &mallory, kind::CREATED, created(&[&mallory, &friend])).await;
    let removed = pb::MembersRemoved {
        users: vec![convert::to_qualified(&friend), convert::to_qualified(&stranger)],
        reason: pb::members_removed::Reason::Removed.into(),
    };
    evil.tell(lane, &mallory, kind::MEMBERS_REMOVED, Change::MembersRemoved(removed)).await;
    let event = alpha.wait_for(&friend, "conversation.member-leave", 1).await.remove(0).event;
    assert_eq!(event["data"]["user_ids"], serde_json::json!([friend.id]));
    assert_eq!(event["data"]["reason"], "removed");
    evil.tell(lane, &mallory, kind::MESSAGE_SENT, message(&[(&friend, 1), (&stranger, 1)])).await;
    assert_eq!(evil.refused().await, 0);
    assert_eq!(alpha.kinds(&friend), [CREATE, "conversation.member-leave"]);
    assert!(alpha.pushed(&stranger).is_empty());
    assert_eq!(alpha.count("conversations_remote").await, 0);
}

#[tokio::test]
async fn a_conversation_that_is_deleted_is_gone_for_everybody() {
    let world = World::default();
    let (alpha, evil) = alpha_and_teller(&world).await;
    let (friend, other, mallory) = (user(1, "alpha.test"), user(2, "alpha.test"), user(3, "evil.test"));
    world.connect(&[&friend, &other, &mallory]);
    let lane = conversation(1);
    evil.tell(lane, &mallory, kind::CREATED, created(&[&mallory, &friend, &other])).await;
    let access = pb::AccessChanged {
        access: vec![pb::Access::Invite.into(), pb::Access::Code.into()],
        access_roles: vec![pb::AccessRole::NonTeamMember.into(), pb::AccessRole::TeamMember.into()],
    };
    evil.tell(lane, &mallory, kind::ACCESS_CHANGED, Change::AccessChanged(access)).await;
    let event = alpha.wait_for(&friend, "conversation.access-update", 1).await.remove(0).event;
    let roles = serde_json::json!(["team_member", "non_team_member"]);
    assert_eq!((&event["data"]["access_role"], &event["data"]["access_role_v2"]), (&"activated".into(), &roles));
    evil.tell(lane, &mallory, kind::DELETED, Change::Deleted(pb::Deleted {})).await;
    for user in [&friend, &other] {
        let event = alpha.wait_for(user, "conversation.delete", 1).await.remove(0).event;
        assert!(event["data"].is_null() && event.get("data").is_some(), "{event}");
        assert_eq!(event["qualified_from"]["id"], serde_json::json!(mallory.id));
    }
    // Of one that nobody here is in, nobody hears.
    evil.tell(conversation(2), &mallory, kind::DELETED, Change::Deleted(pb::Deleted {})).await;
    evil.tell(lane, &mallory, kind::MESSAGE_SENT, message(&[(&friend, 1)])).await;
    assert_eq!(evil.refused().await, 0);
    assert_eq!(alpha.count("conversations_remote").await, 0);
    assert_eq!(alpha.kinds(&friend).len(), 3);
}

#[tokio::test]
async fn a_backend_takes_nobody_but_its_own_users_out_of_our_conversations() {
    let world = World::default();
    let (alpha, evil) = alpha_and_teller(&world).await;
    let (ann, ben, mallory) = (user(1, "alpha.test"), user(2, "alpha.test"), user(3, "evil.test"));
    world.connect(&[&ann, &ben, &mallory]);
    let body = serde_json::json!({ "name": "Ours", "users": [ben.id] });
    let (_, ours) = alpha.post(&ann, "/conversations", body).await;
    let id: ConversationId = serde_json::from_value(ours["qualified_id"]["id"].clone()).unwrap();
    let departed = |users: &[&QualifiedUser], reason: pb::members_departed::Reason| {
        let users = users.iter().map(|user| convert::bytes_of(user.id)).collect();
        Change::MembersDeparted(pb::MembersDeparted { users, reason: reason.into() })
    };
    // With a bare id that is one of ours, it names a user of its own.
    let deleted = pb::members_departed::Reason::UserDeleted;
    evil.tell(id, &ben, kind::MEMBERS_DEPARTED, departed(&[&ben], deleted)).await;
    evil.tell(conversation(5), &mallory, kind::MEMBERS_DEPARTED, departed(&[&mallory], deleted)).await;
    assert_eq!(evil.refused().await, 0);
    evil.tell(id, &mallory, kind::MEMBERS_DEPARTED, departed(&[], deleted)).await;
    let unspecified = pb::members_departed::Reason::Unspecified;
    evil.tell(id, &mallory, kind::MEMBERS_DEPARTED, departed(&[&mallory], unspecified)).await;
    assert_eq!(evil.refused().await, 2);
    let (_, seen) = alpha.get(&ann, &format!("/conversations/alpha.test/{id}")).await;
    assert_eq!(seen["members"]["others"].as_array().unwrap().len(), 1);
    assert_eq!(alpha.kinds(&ben), [CREATE]);
}

#[tokio::test]
async fn an_unknown_kind_waits_and_holds_up_its_lane_alone() {
    let world = World::default();
    let (alpha, evil) = alpha_and_teller(&world).await;
    let (friend, mallory) = (user(1, "alpha.test"), user(3, "evil.test"));
    world.connect(&[&friend, &mallory]);
    let (lane, other_lane) = (conversation(1), conversation(2));
    evil.tell(lane, &mallory, kind::CREATED, created(&[&mallory, &friend])).await;
    evil.tell(lane, &mallory, 99, Change::Deleted(pb::Deleted {})).await;
    evil.tell(lane, &mallory, kind::MESSAGE_SENT, message(&[(&friend, 1)])).await;
    evil.tell(other_lane, &mallory, kind::CREATED, created(&[&mallory, &friend])).await;
    alpha.wait_for(&friend, CREATE, 2).await;
    eventually("the other lane is empty", async || evil.count("conversations_outbox").await == 2).await;
    assert_eq!(alpha.kinds(&friend), [CREATE, CREATE]);
    assert_eq!(evil.count("conversations_outbox_dead").await, 0);
}

#[tokio::test]
async fn no_message_overtakes_the_change_before_it() {
    let world = World::default();
    let (alpha, evil) = alpha_and_teller(&world).await;
    let (friend, mallory) = (user(1, "alpha.test"), user(3, "evil.test"));
    world.connect(&[&friend, &mallory]);
    let lane = conversation(1);
    alpha.set_notifications_down(true);
    evil.tell(lane, &mallory, kind::CREATED, created(&[&mallory, &friend])).await;
    for _ in 0..5 {
        evil.tell(lane, &mallory, kind::MESSAGE_SENT, message(&[(&friend, 1)])).await;
    }
    eventually("the change is stored", async || alpha.count("conversations_remote").await == 1).await;
    alpha.set_notifications_down(false);
    alpha.wait_for(&friend, MESSAGE, 5).await;
    assert_eq!(alpha.kinds(&friend)[0], CREATE);
    assert_eq!(evil.refused().await, 0);
}
