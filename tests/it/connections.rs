//! Consent between users, on one backend and across two.

use aldis_harness::{
    backend::{Federation, reachable},
    client::{User, connect},
    wait::eventually,
};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::support::{ALPHA, BETA, Pair};

/// Waits until both sides are as told.
async fn settle(one: &User, other: &User, expected: [&str; 2]) -> Result<()> {
    eventually("both sides of a connection", async || {
        let seen = [one.relation(&other.id).await?, other.relation(&one.id).await?];
        ensure!(seen == expected, "{seen:?} instead of {expected:?}");
        Ok(())
    })
    .await
}

struct Strangers {
    federation: Federation,
    ann: User,
    bob: User,
}

async fn strangers() -> Result<Strangers> {
    let federation = Federation::start(&[ALPHA, BETA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    Ok(Strangers { federation, ann, bob })
}

fn check_connection(event: &Value, own: &User, other: &User, status: &str) -> Result<()> {
    let connection = &event["connection"];
    let right = connection["from"] == json!(own.id.id)
        && connection["to"] == json!(other.id.id)
        && connection["qualified_to"] == json!(other.id)
        && connection["status"] == status
        && connection["qualified_conversation"] == json!(own.one_to_one(&other.id));
    ensure!(right, "expected {status} between {} and {}: {event}", own.id, other.id);
    Ok(())
}

#[tokio::test]
async fn a_request_is_accepted_across_backends() -> Result<()> {
    let Strangers { federation: _federation, ann, bob } = strangers().await?;
    let phone = ann.on_another_device().await?;
    let (mut anns, mut phones, mut bobs) =
        (ann.open_socket().await?, phone.open_socket().await?, bob.open_socket().await?);

    let sent = ann.request_connection(&bob.id).await?.expect(201)?.value()?;
    check_connection(&json!({ "connection": sent }), &ann, &bob, "sent")?;
    check_connection(&phones.event("user.connection").await?, &ann, &bob, "sent")?;
    let asked = bobs.event("user.connection").await?;
    check_connection(&asked, &bob, &ann, "pending")?;
    ensure!(asked["user"]["name"] == "Ann", "who asks has a name: {asked}");
    ann.request_connection(&bob.id).await?.expect(200)?;

    let accepted = bob.set_connection(&ann.id, "accepted").await?.expect(200)?.value()?;
    check_connection(&json!({ "connection": accepted }), &bob, &ann, "accepted")?;
    for (socket, reader) in [(&mut anns, &ann), (&mut phones, &phone)] {
        check_connection(&socket.event("user.connection").await?, reader, &bob, "accepted")?;
    }
    bob.set_connection(&ann.id, "accepted").await?.expect(204)?;

    // The conversation is there for both.
    let conversation = ann.one_to_one(&bob.id);
    let mut both = vec![ann.id.clone(), bob.id.clone()];
    both.sort();
    for user in [&ann, &bob] {
        eventually("the conversation", async || {
            let seen = user.conversation(&conversation).await?.expect(200)?.value()?;
            ensure!(seen["type"] == 2 && aldis_harness::client::members_of(&seen)? == both, "{seen}");
            Ok(())
        })
        .await?;
        ensure!(user.conversation_ids().await?.contains(&conversation));
    }
    // The session that asked was skipped: its first event is that of the acceptance.
    let first = anns.seen().iter().find(|event| event.kind() == "user.connection");
    ensure!(first.is_some_and(|event| event.value["connection"]["status"] == "accepted"), "{:?}", anns.seen());
    Ok(())
}

#[tokio::test]
async fn requests_that_cross_are_an_agreement() -> Result<()> {
    let Strangers { federation: _federation, ann, bob } = strangers().await?;
    ann.request_connection(&bob.id).await?.expect(201)?;
    bob.request_connection(&ann.id).await?.expect(200)?;
    settle(&ann, &bob, ["accepted", "accepted"]).await
}

#[tokio::test]
async fn a_request_is_taken_back_across_backends() -> Result<()> {
    let Strangers { federation: _federation, ann, bob } = strangers().await?;
    ann.request_connection(&bob.id).await?.expect(201)?;
    ann.set_connection(&bob.id, "cancelled").await?.expect(200)?;
    settle(&ann, &bob, ["cancelled", "cancelled"]).await?;
    // And asked again.
    ann.request_connection(&bob.id).await?.expect_one_of(&[200, 201])?;
    settle(&ann, &bob, ["sent", "pending"]).await
}

#[tokio::test]
async fn who_ignored_can_still_agree() -> Result<()> {
    let Strangers { federation: _federation, ann, bob } = strangers().await?;
    ann.request_connection(&bob.id).await?.expect(201)?;
    bob.set_connection(&ann.id, "ignored").await?.expect(200)?;
    settle(&ann, &bob, ["sent", "ignored"]).await?;
    bob.set_connection(&ann.id, "accepted").await?.expect(200)?;
    settle(&ann, &bob, ["accepted", "accepted"]).await
}

#[tokio::test]
async fn blocking_works_while_the_other_backend_is_down() -> Result<()> {
    let Pair { mut federation, ann, bob, conversation } = Pair::connected().await?;
    federation.stop(BETA).await?;
    let blocked = ann.set_connection(&bob.id, "blocked").await?.expect(200)?.value()?;
    ensure!(blocked["status"] == "blocked", "{blocked}");
    // Asking and taking back need the other side; nothing changes when it is down.
    let stranger = aldis_types::Qualified::new(aldis_types::UserId::new(uuid::Uuid::new_v4()), bob.id.domain.clone());
    ann.request_connection(&stranger).await?.expect_error(521, "federation-connection-refused")?;
    ensure!(ann.relation(&stranger).await? == "none", "a failed request leaves nothing");
    federation.resume_running(BETA).await?;

    // Who is blocked does not notice, and is not heard.
    ensure!(bob.relation(&ann.id).await? == "accepted");
    bob.send(&conversation, "do you hear me?").await.ok();
    reachable(&ann, &bob).await?;
    ann.set_connection(&bob.id, "accepted").await?.expect(200)?;
    settle(&ann, &bob, ["accepted", "accepted"]).await?;
    eventually("a message after unblocking", async || bob.send(&conversation, "and now?").await).await?;
    eventually("the message after unblocking", async || {
        let inbox = ann.inbox(None).await?;
        ensure!(inbox.iter().any(|message| message.text == "and now?"), "{inbox:?}");
        ensure!(inbox.iter().all(|message| message.text != "do you hear me?"), "{inbox:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn ignoring_and_taking_back_work_while_the_other_backend_is_down_or_suspended() -> Result<()> {
    let Strangers { mut federation, ann, bob } = strangers().await?;
    let (carl, dora) = (federation.user(BETA, "Carl").await?, federation.user(BETA, "Dora").await?);
    let (eve, fred) = (federation.user(ALPHA, "Eve").await?, federation.user(BETA, "Fred").await?);
    bob.request_connection(&ann.id).await?.expect(201)?;
    ann.request_connection(&carl.id).await?.expect(201)?;
    dora.request_connection(&ann.id).await?.expect(201)?;
    connect(&ann, &fred).await?;
    ann.request_connection(&fred.id).await?.expect(200)?;
    let expect = async |user: &User, other: &User, status: &str| -> Result<()> {
        let answer = user.set_connection(&other.id, status).await?.expect(200)?.value()?;
        ensure!(answer["status"] == status, "{answer}");
        Ok(())
    };
    federation.stop(BETA).await?;
    expect(&ann, &bob, "ignored").await?;
    expect(&ann, &carl, "cancelled").await?;
    expect(&ann, &dora, "blocked").await?;
    ann.set_connection(&dora.id, "blocked").await?.expect(204)?;
    // Agreeing needs the other side: nothing changes.
    ann.set_connection(&bob.id, "accepted").await?.expect_error(521, "federation-connection-refused")?;
    ensure!(ann.relation(&bob.id).await? == "ignored");

    federation.suspend(ALPHA, BETA).await?;
    eventually("the denial", async || {
        ann.set_connection(&bob.id, "accepted").await?.expect_error(400, "federation-denied")
    })
    .await?;
    expect(&ann, &bob, "blocked").await?;
    expect(&ann, &fred, "blocked").await?;
    eve.request_connection(&fred.id).await?.expect_error(400, "federation-denied")?;
    ensure!(eve.relation(&fred.id).await? == "none");

    federation.resume(ALPHA, BETA).await?;
    federation.resume_running(BETA).await?;
    settle(&ann, &bob, ["blocked", "sent"]).await?;
    settle(&ann, &carl, ["cancelled", "cancelled"]).await?;
    settle(&ann, &dora, ["blocked", "sent"]).await?;
    settle(&ann, &fred, ["blocked", "accepted"]).await
}

#[tokio::test]
async fn people_of_one_backend_connect() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(ALPHA, "Bob").await?;
    let phone = ann.on_another_device().await?;
    let (mut anns, mut bobs) = (phone.open_socket().await?, bob.open_socket().await?);

    ann.request_connection(&bob.id).await?.expect(201)?;
    let created = anns.event("conversation.create").await?;
    ensure!(created["data"]["type"] == 3, "pending so far: {created}");
    let request = anns.event("conversation.connect-request").await?;
    ensure!(request["data"]["qualified_recipient"] == json!(bob.id), "{request}");
    check_connection(&bobs.event("user.connection").await?, &bob, &ann, "pending")?;

    bob.set_connection(&ann.id, "accepted").await?.expect(200)?;
    settle(&ann, &bob, ["accepted", "accepted"]).await?;
    let conversation = ann.one_to_one(&bob.id);
    let seen = bob.conversation(&conversation).await?.expect(200)?.value()?;
    ensure!(seen["type"] == 2, "{seen}");
    ann.send(&conversation, "hello").await?;
    ensure!(bobs.message(&bob).await?.text == "hello");
    Ok(())
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() -> Result<()> {
    let Strangers { federation: _federation, ann, bob } = strangers().await?;
    ann.request_connection(&ann.id).await?.expect_error(400, "invalid-user")?;
    for domain in [&ann.id.domain, &bob.id.domain] {
        let nobody = aldis_types::Qualified::new(aldis_types::UserId::new(uuid::Uuid::new_v4()), domain.clone());
        ann.request_connection(&nobody).await?.expect_error(400, "invalid-user")?;
        ensure!(ann.relation(&nobody).await? == "none");
    }
    ann.set_connection(&bob.id, "accepted").await?.expect(403)?;
    ann.request_connection(&bob.id).await?.expect(201)?;
    ann.set_connection(&bob.id, "pending").await?.expect_error(403, "bad-conn-update")?;
    Ok(())
}

#[tokio::test]
async fn connections_are_listed_page_by_page() -> Result<()> {
    let federation = Federation::start(&[ALPHA, BETA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let mut others = Vec::new();
    for number in 0..3 {
        for domain in [ALPHA, BETA] {
            let other = federation.account(domain, &format!("Person {number}")).await?;
            ann.request_connection(&other.id).await?.expect(201)?;
            others.push(json!(other.id));
        }
    }
    let mut seen = Vec::new();
    let mut body = json!({ "size": 2 });
    loop {
        let page = ann.post("/list-connections", &body).await?.expect(200)?.value()?;
        seen.extend(page["connections"].as_array().into_iter().flatten().map(|one| one["qualified_to"].clone()));
        if page["has_more"] != true {
            break;
        }
        body = json!({ "size": 2, "paging_state": page["paging_state"] });
    }
    seen.sort_by_key(ToString::to_string);
    others.sort_by_key(ToString::to_string);
    ensure!(seen == others, "{seen:?}");
    let nonsense = json!({ "paging_state": "!!" });
    ann.post("/list-connections", &nonsense).await?.expect(400)?;
    Ok(())
}

#[tokio::test]
async fn connecting_again_changes_nothing() -> Result<()> {
    let Pair { federation, ann, bob, conversation } = Pair::connected().await?;
    ensure!(connect_again(&ann, &bob).await? == json!(conversation));
    ensure!(connect_again(&bob, &ann).await? == json!(conversation));
    settle(&ann, &bob, ["accepted", "accepted"]).await?;
    let dora = federation.user(BETA, "Dora").await?;
    connect(&ann, &dora).await?;
    Ok(())
}

async fn connect_again(from: &User, to: &User) -> Result<Value> {
    let connection = from.request_connection(&to.id).await?.expect(200)?.value()?;
    Ok(connection["qualified_conversation"].clone())
}
