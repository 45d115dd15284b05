//! What waits for another backend, as its administrator sees it.

use std::process::Command;

use aldis_harness::{
    backend::{Federation, federator_host},
    client::{User, connect},
    dns::Target,
    local::{LocalFederation, Options},
    rogue::Conduct,
    wait::eventually,
};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::support::{ALPHA, BETA, binary, processes};

fn json_of(federation: &LocalFederation, domain: &str, arguments: &[&str]) -> Result<Value> {
    let text = federation.administer(domain, &[arguments, &["--json"]].concat())?;
    serde_json::from_str(&text).with_context(|| format!("{arguments:?} printed {text}"))
}

fn json(federation: &LocalFederation, arguments: &[&str]) -> Result<Value> {
    json_of(federation, ALPHA, arguments)
}

/// What waits at one backend for the other in the conversations service.
fn waiting_for(federation: &LocalFederation, domain: &str, peer: &str) -> Result<Value> {
    let all = json_of(federation, domain, &["outbox", "list"])?;
    let mut rows = all.as_array().into_iter().flatten();
    Ok(rows.find(|row| row["peer"] == peer && row["service"] == "conversations").cloned().unwrap_or_default())
}

/// What waits for beta.test in the conversations service of alpha.test.
fn waiting(federation: &LocalFederation) -> Result<Value> {
    waiting_for(federation, ALPHA, BETA)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_can_be_held_looked_at_and_dropped_and_both_sides_know() -> Result<()> {
    let options = Options { binary: Some(binary()), apart: true, ..Options::of(&[ALPHA, BETA]) };
    let federation = LocalFederation::start(&options).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    connect(&ann, &bob).await?;
    let conversation = ann.group("Owned by alpha", &[&bob.id]).await?;
    eventually("a first message", async || ann.send(&conversation, "first").await).await?;
    let since = eventually("the first message is there", async || {
        let texts: Vec<_> = bob.inbox(None).await?.into_iter().map(|message| message.text).collect();
        ensure!(texts == ["first"], "{texts:?}");
        bob.last_notification().await
    })
    .await?;

    federation.administer(ALPHA, &["outbox", "pause", BETA])?;
    ann.send(&conversation, "dropped 1").await?;
    ann.send(&conversation, "dropped 2").await?;
    eventually("the relay is held", async || {
        let row = waiting(&federation)?;
        ensure!(row["rows"] == 2 && row["activity"] == "paused" && row["paused"].is_string(), "{row}");
        Ok(())
    })
    .await?;
    let id = conversation.id.to_string();
    let lanes = json(&federation, &["outbox", "list", BETA])?;
    ensure!(lanes[0]["lane"] == id.as_str() && lanes[0]["rows"] == 2, "{lanes}");
    let events = json(&federation, &["outbox", "inspect", BETA, "--lane", &id])?;
    ensure!(events.as_array().is_some_and(|all| all.len() == 2), "{events}");
    ensure!(events[1]["kind"] == "message-sent" && events[1]["bytes"].as_u64() > Some(0), "{events}");
    ensure!(federation.administer(ALPHA, &["outbox", "drop", BETA]).is_err(), "without --yes");
    ensure!(federation.administer(ALPHA, &["outbox", "pause", ALPHA]).is_err(), "its own domain");
    let text = federation.administer(ALPHA, &["outbox", "drop", BETA, "--lane", &id, "--yes"])?;
    ensure!(text.contains("2 events"), "{text}");
    ann.send(&conversation, "second").await?;
    federation.administer(ALPHA, &["outbox", "resume", BETA])?;

    eventually("the rest arrives", async || {
        let texts: Vec<_> = bob.inbox(None).await?.into_iter().map(|message| message.text).collect();
        ensure!(texts == ["first", "second"], "{texts:?}");
        Ok(())
    })
    .await?;
    let answer = bob.get(&format!("/notifications?size=100&since={since}")).await?;
    ensure!(answer.status == 404, "Bob is told that he missed something: {}", answer.status);
    let row = waiting(&federation)?;
    ensure!(row["dropped"] == 2 && row["marked_lanes"] == 1 && row["paused"].is_null(), "{row}");
    let records = json(&federation, &["audit", "list", "--subject", BETA])?;
    for action in ["outbox-paused", "outbox-dropped", "outbox-resumed"] {
        let found =
            records.as_array().into_iter().flatten().any(|it| it["action"] == action && it["outcome"] == "done");
        ensure!(found, "{action} in {records}");
    }
    federation.stop().await
}

/// Texts that a user has got.
async fn texts(user: &User) -> Result<Vec<String>> {
    Ok(user.inbox(None).await?.into_iter().map(|message| message.text).collect())
}

/// Whether the user is told that something is missing after a notification.
async fn misses(user: &User, since: &str) -> Result<bool> {
    let answer = user.get(&format!("/notifications?size=100&since={since}")).await?;
    Ok(answer.expect_one_of(&[200, 404])?.status == 404)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_messages_arrive_once_and_everybody_is_told_what_is_missing() -> Result<()> {
    let mut federation = processes(&[ALPHA, BETA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    connect(&ann, &bob).await?;
    let anns = ann.group("Owned by alpha", &[&bob.id]).await?;
    let bobs = bob.group("Owned by beta", &[&ann.id]).await?;
    let says = async |text: &str| -> Result<()> {
        for (sender, conversation) in [(&ann, &anns), (&bob, &bobs)] {
            let text = format!("{text} of {}", sender.person.name);
            eventually("a message is accepted", async || sender.send(conversation, &text).await).await?;
        }
        Ok(())
    };
    let got = async |user: &User, expected: &[&str]| {
        eventually("the messages, once each", async || {
            let texts = texts(user).await?;
            ensure!(texts == expected, "{texts:?}");
            user.last_notification().await
        })
        .await
    };
    says("first").await?;
    got(&bob, &["first of Ann"]).await?;
    let early = got(&ann, &["first of Bob"]).await?;
    let copy = federation.folder().join("backup.db").display().to_string();
    federation.administer(ALPHA, &["backup", &copy])?;
    says("gone").await?;
    let bobs_last = got(&bob, &["first of Ann", "gone of Ann"]).await?;
    let late = got(&ann, &["first of Bob", "gone of Bob"]).await?;
    // What alpha has acknowledged is removed a little later; until then it would be sent to the restored store again.
    eventually("beta has nothing left for alpha", async || {
        let row = waiting_for(&federation, BETA, ALPHA)?;
        ensure!(row.is_null() || row["rows"] == 0, "{row}");
        Ok(())
    })
    .await?;

    ensure!(federation.administer(ALPHA, &["restore", &copy]).is_err(), "the backend runs");
    federation.kill(ALPHA).await?;
    let text = federation.administer(ALPHA, &["restore", &copy])?;
    ensure!(text.contains("is kept as"), "{text}");
    federation.restart(ALPHA).await?;
    for since in [&early, &late] {
        ensure!(misses(&ann, since).await?, "Ann is not told");
    }
    says("later").await?;
    got(&bob, &["first of Ann", "gone of Ann", "later of Ann"]).await?;
    let ann_now = got(&ann, &["first of Bob", "later of Bob"]).await?;
    ensure!(misses(&bob, &bobs_last).await?, "Bob is not told");
    ensure!(!misses(&ann, &ann_now).await?, "Ann is told again");
    federation.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_can_be_changed_while_the_backend_does_not_run() -> Result<()> {
    let mut federation = processes(&[ALPHA, BETA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    connect(&ann, &bob).await?;
    let conversation = ann.group("Owned by alpha", &[&bob.id]).await?;
    federation.administer(ALPHA, &["outbox", "pause", BETA])?;
    ann.rename(&conversation, "Dropped").await?.expect(200)?;
    ann.rename(&conversation, "Dropped as well").await?.expect(200)?;
    federation.kill(ALPHA).await?;

    // The last threads of a killed process hold its store for a moment.
    let row = eventually("the store", async || waiting(&federation)).await?;
    ensure!(row["rows"] == 2 && row["paused"].is_string(), "{row}");
    let text = federation.administer(ALPHA, &["outbox", "drop", BETA, "--yes"])?;
    ensure!(text.contains("2 events"), "{text}");
    federation.administer(ALPHA, &["outbox", "resume", BETA])?;
    federation.restart(ALPHA).await?;
    ann.rename(&conversation, "Told").await?.expect(200)?;
    eventually("Bob hears of the last name alone", async || {
        let events = bob.queue(None).await?;
        let names: Vec<_> = events.iter().filter(|event| event.kind() == "conversation.rename").collect();
        ensure!(names.len() == 1 && names[0].value["data"]["name"] == "Told", "{names:?}");
        Ok(())
    })
    .await?;
    let records = json(&federation, &["audit", "list", "--subject", BETA])?;
    for (action, outcome) in [("outbox-dropped", "begun"), ("outbox-dropped", "done"), ("outbox-resumed", "done")] {
        let found =
            records.as_array().into_iter().flatten().any(|it| it["action"] == action && it["outcome"] == outcome);
        ensure!(found, "{action} {outcome} in {records}");
    }
    federation.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partner_without_a_common_version_keeps_its_backlog_until_it_is_upgraded() -> Result<()> {
    let mut federation = Federation::start(&[ALPHA, BETA]).await?;
    federation.dns().set_ttl(1);
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    connect(&ann, &bob).await?;
    let conversation = ann.group("Owned by alpha", &[&bob.id]).await?;
    let address = federation.federator(BETA)?;
    federation.stop(BETA).await?;
    let other = federation.rogue(BETA, Conduct::Versions(vec![7])).await?;
    ann.rename(&conversation, "Waits").await?.expect(200)?;
    ann.rename(&conversation, "Waits too").await?.expect(200)?;

    let (config, binary) = (federation.config(ALPHA)?, binary());
    let listed = || -> Result<Value> {
        let mut list = Command::new(&binary);
        let output = list.args(["outbox", "list", "--json", "--config"]).arg(&config).output()?;
        let all: Value = serde_json::from_slice(&output.stdout)?;
        let mut rows = all.as_array().into_iter().flatten();
        let row = rows.find(|row| row["peer"] == BETA && row["service"] == "conversations");
        row.cloned().context("a row of beta")
    };
    eventually("the reason is there", async || {
        let row = listed()?;
        ensure!(row["rows"] == 2 && row["activity"] == "retrying", "{row}");
        let Some(error) = row["last_error"].as_str() else { bail!("{row}") };
        ensure!(error.contains("no common version") && error.contains("[7]"), "{error}");
        let status: Value = federation.operations(ALPHA, "/status.json").await?.json()?;
        let remote = status["remotes"].as_array().and_then(|all| all.iter().find(|it| it["domain"] == BETA));
        let remote = remote.context("the remote on the status page")?;
        ensure!(remote["backlog"]["events"].as_u64() >= Some(2), "{remote}");
        ensure!(remote["peer"]["last_error"] == "federation-version-error", "{remote}");
        Ok(())
    })
    .await?;

    drop(other);
    let dns = federation.dns();
    dns.set_federator(BETA, &[Target::new(federator_host(BETA), address.port())])?;
    if let std::net::IpAddr::V4(host) = address.ip() {
        dns.set_host(&federator_host(BETA), host)?;
    }
    federation.resume_running(BETA).await?;
    eventually("what waited arrives", async || {
        let events = bob.queue(None).await?;
        let renames = events.iter().filter(|event| event.kind() == "conversation.rename");
        let names: Vec<_> = renames.map(|event| event.value["data"]["name"].clone()).collect();
        ensure!(names == ["Waits", "Waits too"], "{names:?}");
        ensure!(listed().is_err() || listed()?["rows"] == 0, "the outbox");
        Ok(())
    })
    .await
}
