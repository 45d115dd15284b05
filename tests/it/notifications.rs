//! The queue of each device and its socket: nothing lost, nothing twice, nothing for others.

use std::collections::BTreeSet;

use aldis_harness::{
    backend::{Federation, Setup},
    client::{Event, User},
    wait::{eventually, soon},
};
use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::{Value, json};

use crate::support::{ALPHA, Pair, texts};

/// Makes `count` events for every device of a user, by one of them.
async fn make_events(user: &User, prefix: &str, count: usize) -> Result<()> {
    for number in 0..count {
        user.put("/properties/webapp", &json!(format!("{prefix} {number}"))).await?.expect(200)?;
    }
    Ok(())
}

fn property_values(events: &[Event]) -> Vec<String> {
    let set = events.iter().filter(|event| event.kind() == "user.properties-set");
    set.filter_map(|event| event.value["value"].as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn the_queue_is_read_page_by_page() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let client = ann.client()?;
    make_events(&ann, "event", 120).await?;
    let get = async |query: &str| ann.get(&format!("/notifications?client={client}{query}")).await;
    let ids = |page: &Value| -> Vec<String> {
        let list = page["notifications"].as_array().into_iter().flatten();
        list.filter_map(|one| one["id"].as_str().map(str::to_owned)).collect()
    };
    let first = get("&size=100").await?.expect(200)?.value()?;
    let first_ids = ids(&first);
    ensure!(first["has_more"] == true && first_ids.len() == 100 && first["time"].is_string(), "{first}");
    let last = first_ids.last().context("an id")?;
    let second = get(&format!("&size=100&since={last}")).await?.expect(200)?.value()?;
    let second_ids = ids(&second);
    ensure!(second["has_more"] == false && !second_ids.contains(last), "since is exclusive");
    let all: BTreeSet<_> = first_ids.iter().chain(&second_ids).collect();
    ensure!(all.len() == first_ids.len() + second_ids.len(), "an id came twice");
    for id in &all {
        ensure!(id.as_bytes().get(14) == Some(&b'1'), "not a time based UUID: {id}");
    }
    ensure!(property_values(&ann.queue(None).await?) == texts("event", 120));

    let one = ann.get(&format!("/notifications/{last}?client={client}")).await?.expect(200)?.value()?;
    ensure!(one["id"] == last.as_str() && one["payload"].is_array(), "{one}");
    ensure!(ann.last_notification().await? == *second_ids.last().context("an id")?);

    for size in [99, 10_001, 0] {
        get(&format!("&size={size}")).await?.expect(400)?;
    }
    get("&since=nonsense").await?.expect_error(400, "bad-request")?;
    get("&since=11111111-1111-4111-8111-111111111111").await?.expect_error(400, "bad-request")?;
    get("&since=11111111-1111-1111-8111-111111111111").await?.expect_error(404, "not-found")?;
    Ok(())
}

#[tokio::test]
async fn each_device_reads_what_is_for_it() -> Result<()> {
    let Pair { federation: _federation, ann, bob, conversation } = Pair::connected().await?;
    let tablet = bob.on_another_device().await?;
    ann.send(&conversation, "to both").await?;
    for device in [&bob, &tablet] {
        eventually("the message", async || {
            // Reading fails when a message for another device is among them.
            let inbox = device.inbox(None).await?;
            ensure!(inbox.len() == 1 && inbox[0].text == "to both", "{inbox:?}");
            Ok(())
        })
        .await?;
    }
    // Without a device all of the user's are there.
    let all = bob.get("/notifications?size=1000").await?.expect(200)?.value()?;
    let list = all["notifications"].as_array().context("notifications")?;
    let messages = list.iter().filter(|one| one["payload"][0]["type"] == aldis_harness::client::MESSAGE);
    ensure!(messages.count() == 2, "{all}");
    // And nothing of somebody else.
    ann.get(&format!("/notifications/{}", bob.last_notification().await?)).await?.expect(404)?;
    Ok(())
}

#[tokio::test]
async fn a_socket_answers_pings_and_repeats_nothing() -> Result<()> {
    let Pair { federation: _federation, ann, bob, conversation } = Pair::connected().await?;
    ann.send(&conversation, "before").await?;
    eventually("the first message", async || {
        ensure!(bob.inbox(None).await?.len() == 1);
        Ok(())
    })
    .await?;
    let (mut one, mut two) = (bob.open_socket().await?, bob.open_socket().await?);
    one.ping().await?;
    ann.send(&conversation, "after").await?;
    for socket in [&mut one, &mut two] {
        ensure!(socket.message(&bob).await?.text == "after");
        ensure!(socket.seen().len() == 1, "nothing is replayed: {:?}", socket.seen());
        socket.ping().await?;
    }
    one.close().await?;
    ann.send(&conversation, "to the other").await?;
    ensure!(two.message(&bob).await?.text == "to the other");
    Ok(())
}

#[tokio::test]
async fn the_session_that_acts_is_skipped_on_its_own_socket_only() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let tablet = ann.on_another_device().await?;
    let (mut own, mut other) = (ann.open_socket().await?, tablet.open_socket().await?);
    make_events(&ann, "own", 1).await?;
    ensure!(other.event("user.properties-set").await?["value"] == "own 0");
    // A renewed token is the same session.
    ann.renew().await?;
    make_events(&ann, "renewed", 1).await?;
    ensure!(other.event("user.properties-set").await?["value"] == "renewed 0");
    make_events(&tablet, "tablet", 1).await?;
    ensure!(own.event("user.properties-set").await?["value"] == "tablet 0", "the first that is not its own");
    // All of them are stored for both.
    for device in [&ann, &tablet] {
        ensure!(property_values(&device.queue(None).await?) == ["own 0", "renewed 0", "tablet 0"]);
    }
    Ok(())
}

#[tokio::test]
async fn between_queue_and_socket_nothing_is_lost_or_doubled() -> Result<()> {
    const EVENTS: usize = 150;
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let tablet = ann.on_another_device().await?;
    let since = tablet.last_notification().await?;
    let writing = make_events(&ann, "event", EVENTS);
    let reading = async {
        // In the middle of it, as an app that comes back: first the socket, then the queue, then what the socket got.
        eventually("some events", async || {
            ensure!(property_values(&tablet.queue(Some(&since)).await?).len() > 20);
            Ok(())
        })
        .await?;
        let mut socket = tablet.open_socket().await?;
        let fetched = tablet.queue(Some(&since)).await?;
        let known: BTreeSet<_> = fetched.iter().map(|event| event.id.clone()).collect();
        let mut values = property_values(&fetched);
        while values.len() < EVENTS {
            let event = socket.next().await?;
            if !known.contains(&event.id) {
                values.extend(property_values(&[event]));
            }
        }
        ensure!(values == texts("event", EVENTS), "{values:?}");
        anyhow::Ok(())
    };
    tokio::try_join!(writing, soon("all events", reading))?.1
}

#[tokio::test]
async fn a_socket_needs_a_valid_token() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let api = federation.api(ALPHA)?;
    let token = ann.session().token;
    let forged = token.replacen(&token[..4], if token.starts_with("AAAA") { "BBBB" } else { "AAAA" }, 1);
    for query in [String::new(), "?access_token=nonsense".to_owned(), format!("?access_token={forged}")] {
        let status = User::refused_socket(&api.socket_url(&format!("/await{query}"))).await?;
        ensure!(status == 401, "{query}: {status}");
    }
    let versioned = api.socket_url(&format!("/v13/await?access_token={}", aldis_harness::client::encode(&token)));
    ensure!(User::refused_socket(&versioned).await.is_err(), "the route has a version too");
    let plain = ann.api.call(Method::GET, format!("/await?access_token={token}")).send().await?;
    ensure!((400..500).contains(&plain.status), "a request that is no socket: {plain:?}");
    Ok(())
}

#[tokio::test]
async fn a_socket_that_does_not_read_is_closed_and_finds_everything_in_the_queue() -> Result<()> {
    let setup = Setup::of(&[ALPHA]).configure(
        ALPHA,
        "[notifications]\nsocket_backlog_events = 16\nsocket_backlog_bytes = 65536\nping_interval_seconds = 3600",
    );
    let federation = Federation::with(setup).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let tablet = ann.on_another_device().await?;
    let mut slow = tablet.open_socket().await?;
    // More than the kernel's buffers hold.
    let value = "x".repeat(400_000);
    for number in 0..40 {
        ann.put("/properties/webapp", &json!(format!("{number} {value}"))).await?.expect(200)?;
    }
    slow.closed().await?;
    let numbers: Vec<_> = property_values(&tablet.queue(None).await?)
        .iter()
        .filter_map(|value| value.split(' ').next().and_then(|number| number.parse::<usize>().ok()))
        .collect();
    ensure!(numbers == (0..40).collect::<Vec<_>>(), "{numbers:?}");
    let mut again = tablet.open_socket().await?;
    make_events(&ann, "live", 1).await?;
    ensure!(again.event("user.properties-set").await?["value"] == "live 0");
    Ok(())
}

#[tokio::test]
async fn a_queue_survives_a_restart() -> Result<()> {
    let Pair { mut federation, ann, bob, conversation } = Pair::connected().await?;
    let since = bob.last_notification().await?;
    ann.send(&conversation, "before").await?;
    eventually("the message", async || {
        ensure!(bob.inbox(None).await?.len() == 1);
        Ok(())
    })
    .await?;
    federation.stop(&bob.id.domain.to_string()).await?;
    federation.resume_running(&bob.id.domain.to_string()).await?;
    ann.send(&conversation, "after").await?;
    eventually("both messages", async || {
        let inbox = bob.inbox(Some(&since)).await?;
        let texts: Vec<_> = inbox.iter().map(|message| message.text.as_str()).collect();
        ensure!(texts == ["before", "after"], "{texts:?}");
        Ok(())
    })
    .await
}
