//! What a sender says of a message's delivery is honoured by the backends of all who get it: only for open sockets, whether
//! it may wake an app, and how urgently.

use std::collections::BTreeMap;

use aldis_harness::{
    backend::{Federation, Setup},
    client::{Draft, Recipients, User, connect, wire::Priority},
    push_service::PushService,
    wait::eventually,
};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::support::{ALPHA, BETA};

/// A device that can be woken.
async fn register(user: &User, token: &str) -> Result<()> {
    let client = user.client()?;
    let token = json!({ "transport": "GCM", "app": "org.example.app", "token": token, "client": client });
    user.post("/push/tokens", &token).await?.expect(201).map(drop)
}

/// The ids and priorities with which a token was woken.
fn wakes(service: &PushService, token: &str) -> BTreeMap<String, String> {
    let told = service.told().into_iter().filter(|one| one["token"] == token);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    told.map(|one| (text(&one["payload"]["data"]["id"]), text(&one["priority"]))).collect()
}

/// The priority with which each message has to wake, by the text of the message; `None`: it wakes nobody.
const EXPECTED: [(&str, Option<&str>); 4] =
    [("call", Some("high")), ("text", Some("low")), ("receipt", None), ("again", Some("high"))];

fn drafts(to: &Recipients) -> [Draft; 5] {
    let draft = |text: &str| Draft::new(to.clone(), text);
    let high = Some(Priority::High);
    [
        Draft { native_priority: high, ..draft("call") },
        Draft { native_priority: Some(Priority::Low), ..draft("text") },
        Draft { native_push: Some(false), native_priority: high, ..draft("receipt") },
        Draft { transient: true, native_push: Some(true), native_priority: high, ..draft("of the moment") },
        Draft { native_push: Some(true), native_priority: high, ..draft("again") },
    ]
}

#[tokio::test]
async fn the_flags_of_a_message_hold_at_both_backends() -> Result<()> {
    let service = PushService::start().await?;
    let push = format!("[notifications.push]\nwebhook_url = \"{}\"", service.url());
    let setup = Setup::of(&[ALPHA, BETA]).configure(ALPHA, &push).configure(BETA, &push);
    let federation = Federation::with(setup).await?;
    let (ann, abe) = (federation.user(ALPHA, "Ann").await?, federation.user(ALPHA, "Abe").await?);
    let bob = federation.user(BETA, "Bob").await?;
    connect(&ann, &bob).await?;
    connect(&abe, &bob).await?;
    connect(&ann, &abe).await?;
    let here = ann.group("Owned here", &[&abe.id, &bob.id]).await?;
    let there = bob.group("Owned there", &[&ann.id, &abe.id]).await?;
    let mut to = Recipients::new();
    for user in [&abe, &bob] {
        to.insert(user.id.clone(), [user.client()?].into());
    }
    for (user, token) in [(&abe, "abe's"), (&bob, "bob's")] {
        register(user, token).await?;
    }
    for conversation in [&here, &there] {
        let since = [abe.last_notification().await?, bob.last_notification().await?];
        for draft in drafts(&to) {
            ann.post_draft(conversation, &draft).await?.expect(201)?;
        }
        for ((user, token), since) in [(&abe, "abe's"), (&bob, "bob's")].into_iter().zip(&since) {
            wakes_for(user, token, since, &service).await?;
        }
    }
    Ok(())
}

/// Waits until the queue has all messages that are kept, and the device was woken as their flags say.
async fn wakes_for(user: &User, token: &str, since: &str, service: &PushService) -> Result<()> {
    let stored = eventually("the messages in the queue", async || {
        let mut stored = Vec::new();
        for event in user.queue(Some(since)).await? {
            if let Some(message) = user.read(&event.value)? {
                stored.push((event.id, message.text));
            }
        }
        ensure!(stored.len() >= EXPECTED.len(), "{stored:?}");
        Ok(stored)
    })
    .await?;
    let texts: Vec<_> = stored.iter().map(|(_, text)| text.as_str()).collect();
    ensure!(texts == EXPECTED.map(|(text, _)| text), "what is of the moment is not kept: {texts:?}");
    let expected: BTreeMap<_, _> = stored
        .iter()
        .zip(EXPECTED)
        .filter_map(|((id, _), (_, priority))| Some((id.clone(), priority?.to_owned())))
        .collect();
    let last = &stored.last().context("a message")?.0;
    eventually("the app is woken", async || {
        let woken = wakes(service, token);
        ensure!(woken.contains_key(last), "{woken:?}");
        let woken: BTreeMap<_, _> = woken.into_iter().filter(|(id, _)| stored.iter().any(|(it, _)| it == id)).collect();
        ensure!(woken == expected, "{woken:?} instead of {expected:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_device_that_is_removed_is_woken_no_more() -> Result<()> {
    let service = PushService::start().await?;
    let push = format!("[notifications.push]\nwebhook_url = \"{}\"", service.url());
    let federation = Federation::with(Setup::of(&[ALPHA, BETA]).configure(BETA, &push)).await?;
    let (ann, bob) = (federation.user(ALPHA, "Ann").await?, federation.user(BETA, "Bob").await?);
    let conversation = connect(&ann, &bob).await?;
    let tablet = bob.on_another_device().await?;
    register(&bob, "phone's").await?;
    register(&tablet, "tablet's").await?;
    let removed = format!("/clients/{}", tablet.client()?);
    bob.delete_with(&removed, &json!({ "password": aldis_harness::client::PASSWORD })).await?.expect(200)?;
    eventually("the token is gone", async || {
        let tokens = bob.get("/push/tokens").await?.expect(200)?.value()?;
        let left = tokens["tokens"].as_array().context("tokens")?;
        ensure!(left.len() == 1 && left[0]["token"] == "phone's", "{tokens}");
        Ok(())
    })
    .await?;
    let before = wakes(&service, "tablet's").len();
    ann.send(&conversation, "hello").await?;
    eventually("the phone is woken", async || {
        ensure!(!wakes(&service, "phone's").is_empty());
        Ok(())
    })
    .await?;
    ensure!(wakes(&service, "tablet's").len() == before);
    Ok(())
}
