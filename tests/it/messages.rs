//! Proteus messages: who gets them, in which order, and what the sender is told.

use std::collections::BTreeSet;

use aldis_harness::{
    client::{Draft, Received, Recipients, Status, User, connect, path_of, users, wire},
    wait::eventually,
};
use aldis_types::{ClientId, ConversationId, Qualified};
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use serde_json::json;

use crate::support::{ALPHA, BETA, GAMMA, Pair, Three, texts};

fn texts_of(messages: &[Received]) -> Vec<&str> {
    messages.iter().map(|message| message.text.as_str()).collect()
}

/// Waits until exactly these texts are in the queue, in this order. No order is promised across conversations.
async fn got(reader: &User, expected: &[String]) -> Result<Vec<Received>> {
    eventually("all messages", async || {
        let inbox = reader.inbox(None).await?;
        ensure!(texts_of(&inbox) == expected, "{} of {}: {:?}", inbox.len(), expected.len(), texts_of(&inbox));
        Ok(inbox)
    })
    .await
}

fn to(reader: &User) -> Result<Recipients> {
    Ok(Recipients::from([(reader.id.clone(), BTreeSet::from([reader.client()?]))]))
}

/// One conversation that the sender's backend owns, and one that it does not.
async fn both_ways(ann: &User, bob: &User) -> Result<[(Qualified<ConversationId>, &'static str); 2]> {
    let own = ann.group("Own", &[&bob.id]).await?;
    let theirs = bob.group("Theirs", &[&ann.id]).await?;
    for (user, conversation) in [(bob, &own), (ann, &theirs)] {
        eventually("the group", async || user.conversation(conversation).await?.expect(200)).await?;
    }
    Ok([(own, "owned here"), (theirs, "owned there")])
}

#[tokio::test]
async fn messages_go_both_ways_in_order() -> Result<()> {
    let Pair { federation: _federation, ann, bob, conversation } = Pair::connected().await?;
    let (mut anns, mut bobs) = (ann.open_socket().await?, bob.open_socket().await?);
    for number in 0..20 {
        let status = ann.send(&conversation, &format!("ann {number}")).await?;
        ensure!(status.is_clean(), "{status:?}");
        let received = bobs.message(&bob).await?;
        ensure!(received.text == format!("ann {number}") && received.time == status.time, "{received:?} {status:?}");
        ensure!(received.from == ann.id && received.sender == ann.client()?, "{received:?}");
        ensure!(received.conversation == conversation && received.blob.is_none(), "{received:?}");
        bob.send(&conversation, &format!("bob {number}")).await?;
        ensure!(anns.message(&ann).await?.text == format!("bob {number}"));
    }
    // What the socket gave is what the queue holds.
    got(&bob, &texts("ann", 20)).await?;
    got(&ann, &texts("bob", 20)).await?;
    Ok(())
}

#[tokio::test]
async fn fifty_messages_wait_for_who_is_offline() -> Result<()> {
    let Pair { federation: _federation, ann, bob, conversation } = Pair::connected().await?;
    let since = bob.last_notification().await?;
    for text in texts("offline", 50) {
        ann.send(&conversation, &text).await?;
    }
    got(&bob, &texts("offline", 50)).await?;
    let caught_up = bob.inbox(Some(&since)).await?;
    ensure!(texts_of(&caught_up) == texts("offline", 50));
    let times: Vec<_> = caught_up.iter().map(|message| &message.time).collect();
    ensure!(times.windows(2).all(|pair| pair[0] < pair[1]), "times rise: {times:?}");
    Ok(())
}

#[tokio::test]
async fn the_strategies_decide_about_missing_devices() -> Result<()> {
    let Pair { federation, ann, bob, .. } = Pair::connected().await?;
    let cleo = federation.user(BETA, "Cleo").await?;
    connect(&ann, &cleo).await?;
    connect(&bob, &cleo).await?;
    let conversations =
        [ann.group("Own", &[&bob.id, &cleo.id]).await?, bob.group("Theirs", &[&ann.id, &cleo.id]).await?];
    for conversation in &conversations {
        for user in [&ann, &bob, &cleo] {
            eventually("the group", async || user.conversation(conversation).await?.expect(200)).await?;
        }
        let only_bob = to(&bob)?;
        let cleos = to(&cleo)?;
        let nothing = wire::Nothing {};
        let cases = [
            (wire::Strategy::ReportAll(nothing), 412),
            (wire::Strategy::IgnoreAll(nothing), 201),
            (wire::Strategy::ReportOnly(users(&[&cleo.id])), 412),
            (wire::Strategy::ReportOnly(users(&[&bob.id])), 201),
            (wire::Strategy::IgnoreOnly(users(&[&cleo.id])), 201),
            (wire::Strategy::IgnoreOnly(users(&[&bob.id])), 412),
        ];
        for (strategy, expected) in cases {
            let text = format!("{strategy:?}");
            let draft = Draft::new(only_bob.clone(), &text).strategy(strategy);
            let answer = ann.post_draft(conversation, &draft).await?.expect(expected)?;
            let status = Status::of(&answer)?;
            if expected == 412 {
                ensure!(status.missing() == cleos, "{text}: {status:?}");
            }
            eventually("the fate of a message", async || {
                let arrived = bob.inbox(None).await?.iter().any(|message| message.text == text);
                ensure!(arrived == (expected == 201), "{text}: arrived {arrived}");
                Ok(())
            })
            .await?;
        }
        let draft = Draft { strategy: None, ..Draft::new(only_bob, "no strategy") };
        ann.post_draft(conversation, &draft).await?.expect_error(400, "bad-request")?;
    }
    // Nothing of all this went to Cleo, and nothing that was refused to Bob.
    ensure!(cleo.inbox(None).await?.is_empty());
    ensure!(bob.inbox(None).await?.len() == 6);
    Ok(())
}

#[tokio::test]
async fn recipients_that_do_not_belong_are_named_and_skipped() -> Result<()> {
    let Pair { federation, ann, bob, .. } = Pair::connected().await?;
    let outsider = federation.user(BETA, "Outsider").await?;
    let mut expected = Vec::new();
    for (conversation, how) in both_ways(&ann, &bob).await? {
        let gone = ClientId(0xdead);
        let mut recipients = to(&bob)?;
        recipients.extend(to(&outsider)?);
        recipients.get_mut(&bob.id).context("Bob")?.insert(gone);
        // Sending to oneself counts as redundant too.
        recipients.insert(ann.id.clone(), BTreeSet::from([ann.client()?]));
        let answer = ann.post_draft(&conversation, &Draft::new(recipients, how)).await?.expect(201)?;
        let status = Status::of(&answer)?;
        ensure!(status.deleted() == Recipients::from([(bob.id.clone(), BTreeSet::from([gone]))]), "{status:?}");
        let mut redundant = to(&outsider)?;
        redundant.extend(to(&ann)?);
        ensure!(status.redundant() == redundant && status.missing().is_empty(), "{how}: {status:?}");
        expected.push(how.to_owned());
        got(&bob, &expected).await?;
    }
    ensure!(outsider.inbox(None).await?.is_empty() && ann.inbox(None).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_sender_has_to_be_a_member_with_his_own_device() -> Result<()> {
    let Pair { federation, ann, bob, .. } = Pair::connected().await?;
    let outsider = federation.user(ALPHA, "Outsider").await?;
    for (conversation, _) in both_ways(&ann, &bob).await? {
        let draft = Draft::new(to(&bob)?, "from whom?");
        outsider.post_draft(&conversation, &draft).await?.expect_error(404, "no-conversation")?;
        for foreign in [ClientId(1), bob.client()?, outsider.client()?] {
            let body = draft.encode(foreign);
            ann.post_message(&conversation, body).await?.expect_error(403, "unknown-client")?;
        }
        let nonsense = Bytes::from_static(b"\xff\xff\xff\xff");
        ann.post_message(&conversation, nonsense).await?.expect_error(400, "bad-request")?;
    }
    let nowhere = Qualified::new(ConversationId::new(uuid::Uuid::new_v4()), ann.id.domain.clone());
    ann.post_draft(&nowhere, &Draft::new(to(&bob)?, "x")).await?.expect_error(404, "no-conversation")?;
    ensure!(bob.inbox(None).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn the_same_message_again_gets_the_same_answer_and_arrives_once() -> Result<()> {
    let Pair { federation: _federation, ann, bob, .. } = Pair::connected().await?;
    let mut expected = Vec::new();
    for (conversation, how) in both_ways(&ann, &bob).await? {
        let body = Draft::new(to(&bob)?, how).encode(ann.client()?);
        let first = Status::of(&ann.post_message(&conversation, body.clone()).await?.expect(201)?)?;
        // At the same time and one after the other.
        let again = || async { Status::of(&ann.post_message(&conversation, body.clone()).await?.expect(201)?) };
        let (second, third) = tokio::try_join!(again(), again())?;
        ensure!(first == second && second == third && again().await? == first, "the answers differ");
        ann.send(&conversation, &format!("after {how}")).await?;
        expected.extend([how.to_owned(), format!("after {how}")]);
        got(&bob, &expected).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_new_device_is_noticed_with_the_next_message() -> Result<()> {
    let Pair { federation: _federation, ann, bob, .. } = Pair::connected().await?;
    let mut expected = Vec::new();
    for (conversation, _) in both_ways(&ann, &bob).await? {
        ann.send(&conversation, "to one").await?;
        let known = ann.recipients(&conversation);
        let tablet = bob.on_another_device().await?;
        let answer = ann.post_draft(&conversation, &Draft::new(known, "too few")).await?.expect(412)?;
        let missing = Status::of(&answer)?.missing();
        ensure!(missing == to(&tablet)?, "{missing:?}");
        ann.send(&conversation, "to all").await?;
        got(&tablet, &["to all".to_owned()]).await?;
        expected.extend(["to one", "to all"].map(str::to_owned));
        got(&bob, &expected).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_new_device_is_never_missed_while_messages_flow() -> Result<()> {
    let Pair { federation: _federation, ann, bob, .. } = Pair::connected().await?;
    let group = ann.group("Busy", &[&bob.id]).await?;
    eventually("the group", async || bob.send(&group, "before").await).await?;
    ann.send(&group, "to one").await?;
    let done = tokio::sync::Notify::new();
    // Keeps alpha's knowledge of Bob's devices fresh: it only reads who is there.
    let asking = async {
        let too_few = Draft::new(to(&ann)?, "too few");
        loop {
            tokio::select! {
                answer = ann.post_draft(&group, &too_few) => drop(answer?.expect(412)?),
                () = done.notified() => return anyhow::Ok(()),
            }
        }
    };
    let registering = async {
        for text in texts("to all", 5) {
            let known = ann.recipients(&group);
            let device = bob.on_another_device().await?;
            let answer = ann.post_draft(&group, &Draft::new(known, "too few")).await?.expect(412)?;
            let missing = Status::of(&answer)?.missing();
            ensure!(missing == to(&device)?, "{missing:?}");
            ann.send(&group, &text).await?;
        }
        done.notify_one();
        anyhow::Ok(())
    };
    tokio::try_join!(asking, registering)?;
    Ok(())
}

#[tokio::test]
async fn a_backend_that_is_down_gets_its_messages_later() -> Result<()> {
    let Three { mut federation, ann, bob, cleo } = Three::connected().await?;
    let dora = federation.user(GAMMA, "Dora").await?;
    connect(&ann, &dora).await?;
    let group = ann.group("Away", &[&bob.id, &cleo.id, &dora.id]).await?;
    ann.send(&group, "all here").await?;
    let mut known = ann.recipients(&group);
    federation.stop(GAMMA).await?;
    known.remove(&dora.id);
    // For a few seconds alpha may rely on what gamma said of its devices, and so can tell that Dora's is missing.
    eventually("the end of what is known of gamma's devices", async || {
        ann.post_draft(&group, &Draft::new(known.clone(), "away?")).await?.expect(201)
    })
    .await?;
    let expected = texts("away", 10);
    for text in &expected {
        let answer = ann.post_draft(&group, &Draft::new(known.clone(), text)).await?.expect(201)?;
        let status = Status::of(&answer)?;
        ensure!(status.failed_to_confirm() == to(&cleo)?, "{status:?}");
        // Dora's device is not known to the sender: nobody can tell.
        ensure!(status.failed_to_send() == Recipients::from([(dora.id.clone(), BTreeSet::new())]), "{status:?}");
        ensure!(
            status.missing().is_empty() && status.deleted().is_empty() && status.redundant().is_empty(),
            "{status:?}"
        );
    }
    let all: Vec<_> = ["all here", "away?"].map(str::to_owned).into_iter().chain(expected).collect();
    got(&bob, &all).await?;
    federation.resume_running(GAMMA).await?;
    got(&cleo, &all).await?;
    got(&dora, &all[..1]).await?;
    Ok(())
}

#[tokio::test]
async fn without_the_owner_nothing_is_sent() -> Result<()> {
    let Three { mut federation, ann, bob, cleo } = Three::connected().await?;
    let group = ann.group("Orphan", &[&bob.id, &cleo.id]).await?;
    eventually("the group", async || bob.send(&group, "before").await).await?;
    federation.stop(ALPHA).await?;
    let draft = Draft::new(bob.recipients(&group), "while it is down");
    bob.post_draft(&group, &draft).await?.expect_error(521, "federation-connection-refused")?;
    federation.resume_running(ALPHA).await?;
    eventually("the owner's return", async || bob.send(&group, "after").await).await?;
    got(&cleo, &["before".to_owned(), "after".to_owned()]).await?;
    Ok(())
}

#[tokio::test]
async fn transient_messages_reach_open_sockets_only() -> Result<()> {
    let Pair { federation: _federation, ann, bob, .. } = Pair::connected().await?;
    let mut socket = bob.open_socket().await?;
    for (conversation, how) in both_ways(&ann, &bob).await? {
        let draft = Draft { transient: true, ..Draft::new(to(&bob)?, how) };
        ann.post_draft(&conversation, &draft).await?.expect(201)?;
        ensure!(socket.message(&bob).await?.text == how);
        ensure!(socket.seen().last().is_some_and(|event| event.transient), "it is marked");
        ann.send(&conversation, &format!("kept, {how}")).await?;
        socket.message(&bob).await?;
    }
    got(&bob, &["kept, owned here".to_owned(), "kept, owned there".to_owned()]).await?;
    Ok(())
}

#[tokio::test]
async fn large_messages_and_shared_bytes_cross() -> Result<()> {
    let Pair { federation: _federation, ann, bob, .. } = Pair::connected().await?;
    let mut socket = bob.open_socket().await?;
    for (conversation, _) in both_ways(&ann, &bob).await? {
        let blob = Bytes::from(vec![7; 3_000_000]);
        let draft = Draft { blob: Some(blob.clone()), ..Draft::new(to(&bob)?, &"x".repeat(500_000)) };
        ann.post_draft(&conversation, &draft).await?.expect(201)?;
        let received = socket.message(&bob).await?;
        ensure!(received.text.len() == 500_000 && received.blob.as_deref() == Some(&blob[..]), "it changed");
    }
    let path = path_of(&bob.one_to_one(&ann.id), "/proteus/messages");
    let body = aldis_harness::client::Body::Bytes(aldis_harness::client::PROTOBUF, Bytes::from(vec![0; 42 << 20]));
    // Too much: the backend answers before it has read everything, and may hang up on who goes on writing.
    if let Ok(answer) = ann.request(http::Method::POST, &path, body).await {
        answer.expect(413)?;
    }
    Ok(())
}

#[tokio::test]
async fn everybody_in_a_group_gets_every_message_in_the_same_order() -> Result<()> {
    let Three { federation, ann, bob, cleo } = Three::connected().await?;
    let dora = federation.user(ALPHA, "Dora").await?;
    connect(&ann, &dora).await?;
    let group = ann.group("Busy", &[&bob.id, &cleo.id, &dora.id]).await?;
    let everybody = [&ann, &bob, &cleo, &dora];
    for user in everybody {
        eventually("the group", async || user.send(&group, "warm").await).await?;
    }
    let speak = async |user: &User| -> Result<()> {
        for number in 0..10 {
            user.send(&group, &format!("{} {number}", user.person.name)).await?;
        }
        Ok(())
    };
    tokio::try_join!(speak(&ann), speak(&bob), speak(&cleo), speak(&dora))?;
    let mut orders = Vec::new();
    for reader in everybody {
        let inbox = eventually("all messages of the group", async || {
            let inbox: Vec<_> = reader.inbox(None).await?.into_iter().filter(|it| it.text != "warm").collect();
            ensure!(inbox.len() == 30, "{} has {}", reader.person.name, inbox.len());
            Ok(inbox)
        })
        .await?;
        for sender in everybody.iter().filter(|sender| sender.id != reader.id) {
            let from: Vec<_> = inbox.iter().filter(|it| it.from == sender.id).map(|it| it.text.as_str()).collect();
            ensure!(from == texts(&sender.person.name, 10), "{} reads {from:?}", reader.person.name);
        }
        orders.push(inbox);
    }
    // Two readers agree about what both of them got.
    for pair in orders.windows(2) {
        let shared = |one: &[Received], other: &[Received]| -> Vec<String> {
            let texts: BTreeSet<_> = other.iter().map(|it| it.text.clone()).collect();
            one.iter().map(|it| it.text.clone()).filter(|text| texts.contains(text)).collect()
        };
        ensure!(shared(&pair[0], &pair[1]) == shared(&pair[1], &pair[0]), "the orders differ");
    }
    ensure!(json!(group)["domain"] == ALPHA);
    Ok(())
}
