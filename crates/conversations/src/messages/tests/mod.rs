//! The comparison as tables, the wire format, and messages through the client API on one backend and on several.

mod older;

use std::collections::BTreeSet;

use aldis_proto::{
    convert,
    federation::v1::{self as pb, conversations_client::ConversationsClient, send_message_response},
    metadata,
};
use aldis_types::{ClientId, ConversationId};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tonic::Request;

use super::{
    mismatch::{Clients, Comparison, Present, compare, of_user},
    wire::{InvalidMessage, NewMessage, Recipient, Strategy, write},
};
use crate::testing::{Backend, QualifiedUser, World, domain, eventually, user};

fn recipient(user: &QualifiedUser, client: u64) -> Recipient {
    let text = format!("for {client:x}").into_bytes().into();
    Recipient { user: user.clone(), client: ClientId(client), text }
}

fn message(sender: u64, recipients: &[(&QualifiedUser, u64)]) -> NewMessage {
    NewMessage {
        sender: ClientId(sender),
        recipients: recipients.iter().map(|(user, client)| recipient(user, *client)).collect(),
        blob: None,
        native_push: true,
        high_priority: false,
        transient: false,
        strategy: Strategy::ReportAll,
    }
}

fn clients(entries: &[(&QualifiedUser, &[u64])]) -> Clients {
    let mut clients = Clients::new();
    for (user, ids) in entries {
        of_user(&mut clients, user).extend(ids.iter().copied().map(ClientId));
    }
    clients
}

type Case<'a> = (&'static str, Vec<(&'a QualifiedUser, u64)>, Strategy, &'static [&'static str], Comparison);

#[test]
fn recipients_are_compared_with_who_is_there() {
    let (ann, ben, cleo) = (user(1, "alpha.test"), user(2, "alpha.test"), user(3, "beta.test"));
    let outsider = user(4, "alpha.test");
    let far_outsider = user(5, "beta.test");
    let present = |failed: &[&str]| Present {
        members: BTreeSet::from([ann.clone(), ben.clone(), cleo.clone()]),
        clients: if failed.is_empty() {
            clients(&[(&ann, &[1, 2]), (&ben, &[3]), (&cleo, &[4])])
        } else {
            clients(&[(&ann, &[1, 2]), (&ben, &[3])])
        },
        failed: failed.iter().map(|name| domain(name)).collect(),
    };
    let all = [(&ann, 2), (&ben, 3), (&cleo, 4)];
    let cases: Vec<Case<'_>> = vec![
        (
            "complete",
            all.to_vec(),
            Strategy::ReportAll,
            &[],
            Comparison { valid: vec![0, 1, 2], ..Comparison::default() },
        ),
        (
            "missing",
            vec![(&ann, 2)],
            Strategy::ReportAll,
            &[],
            Comparison { missing: clients(&[(&ben, &[3]), (&cleo, &[4])]), valid: vec![0], ..Comparison::default() },
        ),
        (
            "missing of the listed",
            vec![(&ann, 2)],
            Strategy::ReportOnly(vec![cleo.clone()]),
            &[],
            Comparison { missing: clients(&[(&cleo, &[4])]), valid: vec![0], ..Comparison::default() },
        ),
        (
            "missing of all but the listed",
            vec![(&ann, 2)],
            Strategy::IgnoreOnly(vec![cleo.clone()]),
            &[],
            Comparison { missing: clients(&[(&ben, &[3])]), valid: vec![0], ..Comparison::default() },
        ),
        (
            "missing ignored",
            vec![(&ann, 2)],
            Strategy::IgnoreAll,
            &[],
            Comparison { valid: vec![0], ..Comparison::default() },
        ),
        (
            "deleted, redundant, the sending client itself, twice the same",
            vec![(&ann, 2), (&ben, 9), (&outsider, 8), (&ann, 1), (&ann, 2), (&ben, 3), (&cleo, 4)],
            Strategy::ReportAll,
            &[],
            Comparison {
                deleted: clients(&[(&ben, &[9])]),
                redundant: clients(&[(&ann, &[1]), (&outsider, &[8])]),
                valid: vec![0, 5, 6],
                ..Comparison::default()
            },
        ),
        (
            "a backend is down and its clients are known",
            all.to_vec(),
            Strategy::ReportAll,
            &["beta.test"],
            Comparison { failed_to_confirm: clients(&[(&cleo, &[4])]), valid: vec![0, 1, 2], ..Comparison::default() },
        ),
        (
            "a backend is down and its clients are not known",
            vec![(&ann, 2), (&ben, 3), (&far_outsider, 7)],
            Strategy::ReportAll,
            &["beta.test"],
            Comparison {
                failed_to_send: clients(&[(&cleo, &[]), (&far_outsider, &[7])]),
                valid: vec![0, 1],
                ..Comparison::default()
            },
        ),
    ];
    for (name, recipients, strategy, failed, expected) in cases {
        let recipients = message(1, &recipients).recipients;
        assert_eq!(compare((&ann, ClientId(1)), &recipients, &strategy, &present(failed)), expected, "{name}");
    }
}

#[test]
fn what_a_backend_does_not_take_is_reported_as_not_sent() {
    let (ben, cleo) = (user(2, "alpha.test"), user(3, "beta.test"));
    let sent = message(1, &[(&ben, 3), (&cleo, 4), (&cleo, 5)]);
    let mut compared =
        Comparison { failed_to_confirm: clients(&[(&cleo, &[4, 5])]), valid: vec![0, 1, 2], ..Comparison::default() };
    compared.withhold(&cleo.domain, &sent.recipients);
    let expected = Comparison { failed_to_send: clients(&[(&cleo, &[4, 5])]), valid: vec![0], ..Comparison::default() };
    assert_eq!(compared, expected);
    compared.withhold(&domain("gamma.test"), &sent.recipients);
    assert_eq!(compared, expected);
}

#[test]
fn a_message_is_read_as_it_was_written_and_junk_is_refused() {
    let (ann, ben) = (user(1, "alpha.test"), user(2, "beta.test"));
    for strategy in [
        Strategy::ReportAll,
        Strategy::IgnoreAll,
        Strategy::ReportOnly(vec![ann.clone(), ben.clone()]),
        Strategy::IgnoreOnly(vec![]),
    ] {
        let message = NewMessage {
            blob: Some(Bytes::from_static(b"blob")),
            native_push: false,
            high_priority: true,
            transient: true,
            strategy,
            ..message(u64::MAX, &[(&ann, 1), (&ann, 2), (&ben, 3)])
        };
        assert_eq!(NewMessage::read(write(&message)), Ok(message));
    }
    // The boolean `true` that a client may assign to the oneof is an empty field on the wire.
    let defaults = NewMessage::read(Bytes::from_static(&[0x0a, 2, 8, 5, 0x3a, 0])).unwrap();
    assert_eq!(defaults, NewMessage { recipients: vec![], ..message(5, &[]) });
    let unsaid = NewMessage::read(Bytes::from_static(&[0x0a, 2, 8, 5]));
    assert_eq!(unsaid, Err(InvalidMessage("ClientMismatchStrategy not specified")));
    let written = write(&message(1, &[(&ann, 1)]));
    for cut in 1..written.len() {
        // No cut may panic; most are refused.
        let _ = NewMessage::read(written.slice(..cut));
    }
    let short_id = [0x0a, 2, 8, 5, 0x12, 0x0c, 0x0a, 3, b'a', b'.', b'b', 0x12, 5, 0x0a, 3, 0x0a, 1, 7, 0x3a, 0];
    assert_eq!(
        NewMessage::read(Bytes::copy_from_slice(&short_id)),
        Err(InvalidMessage("A user id does not have 16 bytes"))
    );
    // Two bytes each on the wire, many times that in memory.
    let bomb: Bytes = [0x12, 0].repeat(30_000).into();
    assert_eq!(NewMessage::read(bomb), Err(InvalidMessage("The message has too many recipients")));
    let mut inner = [0x12, 0].repeat(30_000);
    let mut bomb = vec![0x12];
    prost::encoding::encode_varint(inner.len() as u64, &mut bomb);
    bomb.append(&mut inner);
    assert_eq!(NewMessage::read(bomb.into()), Err(InvalidMessage("The message has too many recipients")));
}

async fn group(backend: &Backend, creator: &QualifiedUser, others: &[&QualifiedUser]) -> String {
    let users: Value = others.iter().map(|user| json!({ "domain": user.domain, "id": user.id })).collect();
    let (status, created) = backend.post(creator, "/conversations", json!({ "qualified_users": users })).await;
    assert_eq!(status, StatusCode::CREATED, "{created}");
    created["qualified_id"]["id"].as_str().unwrap().to_owned()
}

async fn post(
    backend: &Backend,
    owner: &Backend,
    id: &str,
    sender: &QualifiedUser,
    message: &NewMessage,
) -> (StatusCode, Value) {
    let path = format!("/conversations/{}/{id}/proteus/messages", owner.domain);
    backend.send(sender, Method::POST, &path, "application/x-protobuf", write(message), 10).await
}

fn empty_status(status: &Value) -> bool {
    let maps = ["missing", "redundant", "deleted", "failed_to_send", "failed_to_confirm_clients"];
    maps.iter().all(|map| status[map] == json!({})) && status["time"].is_string()
}

const MESSAGE: &str = "conversation.otr-message-add";

#[tokio::test]
async fn a_message_reaches_every_other_client_on_one_backend() {
    let world = World::default();
    let alpha = world.start("alpha.test").await;
    let (ann, ben) = (user(1, "alpha.test"), user(2, "alpha.test"));
    world.connect(&[&ann, &ben]);
    world.set_clients(&ann, &[0xa1, 0xa2]);
    world.set_clients(&ben, &[0xb1]);
    let id = group(&alpha, &ann, &[&ben]).await;
    let blob = Some(Bytes::from_static(b"blob"));
    let sent = NewMessage { blob, ..message(0xa1, &[(&ann, 0xa2), (&ben, 0xb1)]) };
    let (status, body) = post(&alpha, &alpha, &id, &ann, &sent).await;
    assert_eq!(status, StatusCode::CREATED);
    assert!(empty_status(&body), "{body}");
    let got = &alpha.wait_for(&ben, MESSAGE, 1).await[0];
    assert_eq!(
        got.event,
        json!({
            "type": MESSAGE, "conversation": id, "qualified_conversation": { "domain": "alpha.test", "id": id },
            "from": ann.id, "qualified_from": { "domain": "alpha.test", "id": ann.id }, "time": body["time"],
            "via": "user",
            "data": { "sender": "a1", "recipient": "b1", "text": "Zm9yIGIx", "data": "YmxvYg==" },
        })
    );
    assert_eq!((got.client, got.transient), (Some(ClientId(0xb1)), false));
    assert_eq!(alpha.wait_for(&ann, MESSAGE, 1).await[0].client, Some(ClientId(0xa2)));

    // The same again is the same message.
    let again = post(&alpha, &alpha, &id, &ann, &sent).await;
    assert_eq!(again, (StatusCode::CREATED, body.clone()));
    // Even when it could not be sent any more.
    world.set_clients(&ben, &[0xb1, 0xb2]);
    assert_eq!(post(&alpha, &alpha, &id, &ann, &sent).await, again);
    alpha.wait_for(&ben, MESSAGE, 1).await;

    // At the same time, too.
    let twice = message(0xa1, &[(&ann, 0xa2), (&ben, 0xb1), (&ben, 0xb2)]);
    let (first, second) =
        tokio::join!(post(&alpha, &alpha, &id, &ann, &twice), post(&alpha, &alpha, &id, &ann, &twice));
    assert_eq!(first, second);
    alpha.wait_for(&ben, MESSAGE, 3).await;

    let (status, mismatch) = post(&alpha, &alpha, &id, &ann, &message(0xa1, &[(&ben, 0xb1), (&ben, 0xb9)])).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(
        mismatch["missing"],
        json!({ "alpha.test": { ann.id.to_string(): ["a2"], ben.id.to_string(): ["b2"] } })
    );
    assert_eq!(mismatch["deleted"], json!({ "alpha.test": { ben.id.to_string(): ["b9"] } }));
    let transient = NewMessage { transient: true, strategy: Strategy::IgnoreAll, ..message(0xa1, &[(&ben, 0xb2)]) };
    assert_eq!(post(&alpha, &alpha, &id, &ann, &transient).await.0, StatusCode::CREATED);
    let got = alpha.wait_for(&ben, MESSAGE, 4).await;
    assert!(got[3].transient);
}

#[tokio::test]
async fn messages_that_cannot_be_sent_are_refused() {
    let world = World::default();
    let (alpha, beta) = (world.start("alpha.test").await, world.start("beta.test").await);
    let (ann, ben, cleo) = (user(1, "alpha.test"), user(2, "beta.test"), user(3, "alpha.test"));
    world.connect(&[&ann, &ben]);
    world.set_clients(&ann, &[0xa1]);
    world.set_clients(&ben, &[0xb1]);
    world.set_clients(&cleo, &[0xc1]);
    let id = group(&alpha, &ann, &[&ben]).await;
    beta.wait_for(&ben, "conversation.create", 1).await;
    let none = &uuid::Uuid::from_u128(1).to_string();
    let label = async |backend, id, who, message| {
        let (status, body) = post(backend, &alpha, id, who, &message).await;
        format!("{} {}", status.as_u16(), body["label"].as_str().unwrap_or_default())
    };
    assert_eq!(label(&alpha, none, &ann, message(0xa1, &[])).await, "404 no-conversation");
    assert_eq!(label(&beta, none, &ben, message(0xb1, &[])).await, "404 no-conversation");
    assert_eq!(label(&alpha, &id, &cleo, message(0xc1, &[])).await, "404 no-conversation");
    assert_eq!(label(&alpha, &id, &ann, message(0xb1, &[(&ben, 0xb1)])).await, "403 unknown-client");
    assert_eq!(label(&beta, &id, &ben, message(0xa1, &[(&ann, 0xa1)])).await, "403 unknown-client");
    let path = format!("/conversations/alpha.test/{id}/proteus/messages");
    let junk = Bytes::from_static(b"junk");
    let answer = alpha.send(&ann, Method::POST, &path, "application/x-protobuf", junk.clone(), 10).await;
    assert_eq!((answer.0, &answer.1["label"]), (StatusCode::BAD_REQUEST, &json!("bad-request")));
    let answer = alpha.send(&ann, Method::POST, &path, "application/json", junk, 10).await;
    assert_eq!(answer.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(alpha.post(&ann, "/broadcast/proteus/messages", json!({})).await.1["label"], "non-binding-team");
    assert_eq!(alpha.count("conversations_answers").await, 0);
}

#[tokio::test]
async fn a_message_crosses_backends_both_ways() {
    let world = World::default();
    let (alpha, beta) = (world.start("alpha.test").await, world.start("beta.test").await);
    let gamma = world.start("gamma.test").await;
    let (ann, ben, cleo) = (user(1, "alpha.test"), user(2, "beta.test"), user(3, "gamma.test"));
    let gus = user(4, "beta.test");
    world.connect(&[&ann, &ben, &cleo, &gus]);
    for (user, client) in [(&ann, 0xa1), (&ben, 0xb1), (&cleo, 0xc1), (&gus, 0xb2)] {
        world.set_clients(user, &[client]);
    }
    let id = group(&alpha, &ann, &[&ben, &cleo, &gus]).await;
    beta.wait_for(&ben, "conversation.create", 1).await;
    gamma.wait_for(&cleo, "conversation.create", 1).await;

    let from_owner = message(0xa1, &[(&ben, 0xb1), (&cleo, 0xc1), (&gus, 0xb2)]);
    let (status, body) = post(&alpha, &alpha, &id, &ann, &from_owner).await;
    assert_eq!(status, StatusCode::CREATED);
    for (backend, who) in [(&beta, &ben), (&beta, &gus), (&gamma, &cleo)] {
        let got = backend.wait_for(who, MESSAGE, 1).await.remove(0);
        assert_eq!(got.event["qualified_from"], json!({ "domain": "alpha.test", "id": ann.id }));
        assert_eq!(got.event["qualified_conversation"]["domain"], "alpha.test");
        assert_eq!(got.event["time"], body["time"]);
    }

    // A member of another backend: the owner compares with what the sender's backend says of its own clients.
    world.facts().calls.clear();
    let incomplete = message(0xb1, &[(&ann, 0xa1)]);
    let (status, mismatch) = post(&beta, &alpha, &id, &ben, &incomplete).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(
        mismatch["missing"],
        json!({ "beta.test": { gus.id.to_string(): ["b2"] }, "gamma.test": { cleo.id.to_string(): ["c1"] } })
    );
    let complete = message(0xb1, &[(&ann, 0xa1), (&cleo, 0xc1), (&gus, 0xb2)]);
    let (status, body) = post(&beta, &alpha, &id, &ben, &complete).await;
    assert_eq!((status, empty_status(&body)), (StatusCode::CREATED, true), "{body}");
    assert!(
        !world.facts().calls.iter().any(|call| call.starts_with("alpha.test>beta.test") && call.contains(".Users/"))
    );
    let got = alpha.wait_for(&ann, MESSAGE, 1).await.remove(0);
    assert_eq!(got.event["qualified_from"]["domain"], "beta.test");
    assert_eq!(got.event["data"], json!({ "sender": "b1", "recipient": "a1", "text": "Zm9yIGEx" }));
    beta.wait_for(&gus, MESSAGE, 2).await;
    gamma.wait_for(&cleo, MESSAGE, 2).await;
    // A lost answer costs nothing.
    assert_eq!(post(&beta, &alpha, &id, &ben, &complete).await, (status, body));
    let nobody_twice = |backend: &Backend, who| backend.kinds(who).iter().filter(|kind| *kind == MESSAGE).count();
    assert_eq!((nobody_twice(&alpha, &ann), nobody_twice(&gamma, &cleo), nobody_twice(&beta, &ben)), (1, 2, 1));
}

#[tokio::test]
async fn a_backend_that_is_down_costs_nobody_else_a_message() {
    let world = World::default();
    let (alpha, beta) = (world.start("alpha.test").await, world.start("beta.test").await);
    let (ann, dan, ben) = (user(1, "alpha.test"), user(2, "alpha.test"), user(3, "beta.test"));
    let gus = user(4, "beta.test");
    world.connect(&[&ann, &dan, &ben, &gus]);
    for (user, client) in [(&ann, 0xa1), (&dan, 0xd1), (&ben, 0xb1), (&gus, 0xb2)] {
        world.set_clients(user, &[client]);
    }
    let id = group(&alpha, &ann, &[&dan, &ben, &gus]).await;
    beta.wait_for(&ben, "conversation.create", 1).await;
    world.set_down("beta.test", true);
    for number in 0..20_u8 {
        let mut sent = message(0xa1, &[(&dan, 0xd1), (&ben, 0xb1)]);
        sent.recipients[1].text = Bytes::from(vec![number]);
        let (status, body) = post(&alpha, &alpha, &id, &ann, &sent).await;
        assert_eq!(status, StatusCode::CREATED);
        assert_eq!(body["failed_to_confirm_clients"], json!({ "beta.test": { ben.id.to_string(): ["b1"] } }));
        assert_eq!(body["failed_to_send"], json!({ "beta.test": { gus.id.to_string(): [] } }));
    }
    alpha.wait_for(&dan, MESSAGE, 20).await;
    let (status, body) = post(&beta, &alpha, &id, &ben, &message(0xb1, &[(&ann, 0xa1)])).await;
    assert_eq!((status.as_u16(), &body["label"]), (521, &json!("federation-connection-refused")));
    assert!(!beta.kinds(&ben).contains(&MESSAGE.to_owned()));
    world.set_down("beta.test", false);
    let got = beta.wait_for(&ben, MESSAGE, 20).await;
    let times: Vec<_> = got.iter().map(|got| got.event["time"].as_str().unwrap().to_owned()).collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    eventually("the outbox is empty", async || alpha.count("conversations_outbox").await == 0).await;
}

#[tokio::test]
async fn another_backend_sends_for_its_own_users_alone() {
    let world = World::default();
    let (alpha, beta) = (world.start("alpha.test").await, world.start("beta.test").await);
    let (ann, ben) = (user(1, "alpha.test"), user(2, "beta.test"));
    world.connect(&[&ann, &ben]);
    world.set_clients(&ann, &[0xa1, 0xa2]);
    world.set_clients(&ben, &[0xb1]);
    let id = group(&alpha, &ann, &[&ben]).await;
    beta.wait_for(&ben, "conversation.create", 1).await;
    let own_clients = |user: &QualifiedUser, client| pb::UserClients {
        user: convert::bytes_of(user.id),
        clients: vec![pb::Client { id: client, class: 0 }],
    };
    let request = |sender: &QualifiedUser, client: u64, written: u64| {
        let mut request = Request::new(pb::SendMessageRequest {
            conversation: convert::bytes_of(id.parse::<ConversationId>().unwrap()),
            sender: convert::bytes_of(sender.id),
            sender_client: client,
            origin_clients: vec![own_clients(sender, client)],
            message: write(&message(written, &[(&ann, 0xa1), (&ann, 0xa2)])),
            sender_connection: 0,
        });
        request.metadata_mut().insert(metadata::TARGET_DOMAIN, "alpha.test".parse().unwrap());
        request
    };
    let mut client = ConversationsClient::new(world.as_backend("beta.test"));
    let mut refused = async |request| match client.send_message(request).await.unwrap().into_inner().outcome {
        Some(send_message_response::Outcome::Refused(refused)) => refused.label,
        other => panic!("{other:?}"),
    };
    // Ann is of alpha: as a user of beta she is not a member.
    assert_eq!(refused(request(&ann, 0xa1, 0xa1)).await, "no-conversation");
    // The client in the message is the one that is asked for.
    assert_eq!(refused(request(&ben, 0xb1, 0xb9)).await, "unknown-client");
    let mut client = ConversationsClient::new(world.as_backend("beta.test"));
    assert!(matches!(
        client.send_message(request(&ben, 0xb1, 0xb1)).await.unwrap().into_inner().outcome,
        Some(send_message_response::Outcome::Sent(_))
    ));
    assert_eq!(alpha.wait_for(&ann, MESSAGE, 2).await[0].event["qualified_from"]["domain"], "beta.test");
}

#[tokio::test]
async fn messages_wait_for_our_own_notifications_without_loss() {
    let world = World::default();
    let (alpha, beta) = (world.start("alpha.test").await, world.start("beta.test").await);
    let (ann, ben) = (user(1, "alpha.test"), user(2, "beta.test"));
    world.connect(&[&ann, &ben]);
    world.set_clients(&ann, &[0xa1]);
    world.set_clients(&ben, &[0xb1]);
    let id = group(&alpha, &ann, &[&ben]).await;
    beta.wait_for(&ben, "conversation.create", 1).await;
    beta.set_notifications_down(true);
    for number in 0..10_u8 {
        let mut sent = message(0xa1, &[(&ben, 0xb1)]);
        sent.recipients[0].text = Bytes::from(vec![number]);
        assert_eq!(post(&alpha, &alpha, &id, &ann, &sent).await.0, StatusCode::CREATED);
    }
    assert!(!beta.kinds(&ben).contains(&MESSAGE.to_owned()));
    beta.set_notifications_down(false);
    let got = beta.wait_for(&ben, MESSAGE, 10).await;
    let expected: Vec<_> =
        (0..10_u8).map(|number| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [number])).collect();
    let texts: Vec<_> = got.iter().map(|got| got.event["data"]["text"].as_str().unwrap().to_owned()).collect();
    assert_eq!(texts, expected);
}
