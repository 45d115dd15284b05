//! What an administrator does with accounts and keys while the backend runs, as one process and as several, and when it
//! does not run.

use aldis_harness::{
    client::{User, connect},
    local::{LocalFederation, Options},
    wait::eventually,
};
use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::Value;

use crate::support::{ALPHA, BETA, binary, processes};

fn json(federation: &LocalFederation, arguments: &[&str]) -> Result<Value> {
    let text = federation.administer(ALPHA, arguments)?;
    serde_json::from_str(&text).with_context(|| format!("{arguments:?} printed {text}"))
}

/// The one line with which a command was refused.
fn refusal(federation: &LocalFederation, arguments: &[&str]) -> Result<String> {
    let error = federation.administer(ALPHA, arguments).err().context("it was done")?.to_string();
    ensure!(error.trim_end().lines().count() == 1, "{arguments:?}: more than one line: {error}");
    Ok(error)
}

async fn split() -> Result<LocalFederation> {
    let options = Options { binary: Some(binary()), apart: true, ..Options::of(&[ALPHA, BETA]) };
    LocalFederation::start(&options).await
}

/// Every kind of service refuses the user's token, and accepts it again after `accepted` says so.
async fn everywhere(user: &User, status: u16) -> Result<()> {
    for path in ["/self", "/notifications?size=100", "/feature-configs"] {
        eventually(&format!("{status} from {path}"), async || {
            // As it is: no renewal on 401.
            let answer = user.api.call(Method::GET, path).token(&user.session().token)?.send().await?;
            ensure!(answer.status == status, "{path}: {}", answer.status);
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_reaches_every_service_and_its_sockets() -> Result<()> {
    let federation = split().await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    let conversation = connect(&ann, &bob).await?;
    let mut socket = ann.open_socket().await?;
    let id = ann.id.id.to_string();

    federation.administer(ALPHA, &["user", "suspend", &id])?;
    socket.closed().await?;
    everywhere(&ann, 401).await?;
    ann.access().await?.expect_error(403, "suspended")?;
    let shown = json(&federation, &["user", "show", &ann.person.handle, "--json"])?;
    ensure!(
        shown["state"] == "suspended" && shown["clients"].as_array().is_some_and(|list| list.len() == 1),
        "{shown}"
    );
    bob.send(&conversation, "while you were away").await?;

    federation.administer(ALPHA, &["user", "resume", &ann.person.email])?;
    ann.renew().await?;
    everywhere(&ann, 200).await?;
    eventually("the message that waited", async || {
        let texts: Vec<_> = ann.inbox(None).await?.into_iter().map(|message| message.text).collect();
        ensure!(texts.contains(&"while you were away".to_owned()), "{texts:?}");
        Ok(())
    })
    .await?;
    federation.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn new_keys_and_ended_sessions_reach_every_service() -> Result<()> {
    let federation = split().await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let old = ann.session();
    let made = json(&federation, &["keys", "rotate"])?;
    ensure!(made["position"] == 2, "{made}");
    eventually("a token of the new key", async || {
        ann.renew().await?;
        ensure!(ann.session().token.contains(".k=2."), "still the old key");
        Ok(())
    })
    .await?;
    // Known everywhere by the time it signs, and the old one stays good.
    for path in ["/self", "/notifications?size=100", "/feature-configs"] {
        ann.get(path).await?.expect(200)?;
    }
    let new = ann.session();
    ann.set_session(old);
    everywhere(&ann, 200).await?;
    let keys = json(&federation, &["keys", "list", "--json"])?;
    ensure!(keys[0]["state"] == "retired" && keys[1]["state"] == "signing", "{keys}");

    ann.set_session(new);
    let mut socket = ann.open_socket().await?;
    federation.administer(ALPHA, &["user", "logout", &ann.person.handle])?;
    socket.closed().await?;
    everywhere(&ann, 401).await?;
    ann.access().await?.expect_error(403, "invalid-credentials")?;
    federation.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_administered_with_and_without_a_running_backend() -> Result<()> {
    let mut federation = processes(&[ALPHA, BETA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(ALPHA, "Bob").await?;
    for running in [true, false] {
        if !running {
            federation.kill(ALPHA).await?;
        }
        let first = json(&federation, &["user", "list", "--limit", "1", "--json"])?;
        let next = first["next"].as_str().context("there is more")?.to_owned();
        ensure!(first["users"][0]["id"] == next.as_str(), "{first}");
        let second = json(&federation, &["user", "list", "--after", &next, "--json"])?;
        ensure!(second["users"].as_array().is_some_and(|list| list.len() == 1) && second["next"].is_null(), "{second}");
        let lines = federation.administer(ALPHA, &["user", "list", "--all"])?;
        ensure!(lines.lines().count() == 2 && lines.contains(&ann.id.id.to_string()), "{lines}");
        let text = federation.administer(ALPHA, &["user", "show", &bob.id.id.to_string()])?;
        ensure!(text.contains(&bob.person.email) && text.contains("active"), "{text}");
        for wrong in [
            &["user", "show", "no.such.handle"][..],
            &["user", "suspend", "nobody@mail.test"],
            &["user", "logout", "!"],
            &["user", "reset-password", &bob.person.handle, "--password", "short"],
        ] {
            refusal(&federation, wrong)?;
        }
        let password = if running { "first other password" } else { "second other password" };
        federation.administer(ALPHA, &["user", "reset-password", &bob.person.handle, "--password", password])?;
    }
    federation.restart(ALPHA).await?;
    let login = |password: &str| serde_json::json!({ "handle": bob.person.handle, "password": password });
    bob.api.post("/login", &login("second other password")).await?.expect(200)?;
    bob.api.post("/login", &login("first other password")).await?.expect(403)?;

    let delete = ["user", "delete", &bob.person.handle];
    ensure!(refusal(&federation, &delete)?.contains("--yes"), "says how");
    let cleo = federation.user(ALPHA, "Cleo").await?;
    federation.administer(ALPHA, &["user", "delete", &cleo.person.handle, "--yes"])?;
    let shown = json(&federation, &["user", "show", &cleo.id.id.to_string(), "--json"])?;
    ensure!(shown["state"] == "deleted" && shown["handle"].is_null(), "{shown}");

    let records = json(&federation, &["audit", "list", "--json", "--subject", &bob.id.id.to_string()])?;
    let records = records.as_array().context("records")?;
    let resets = records.iter().filter(|record| record["action"] == "password-reset" && record["outcome"] == "done");
    ensure!(resets.clone().count() == 2, "{records:?}");
    ensure!(resets.clone().all(|record| record["who"].as_str().is_some_and(|who| who.contains("pid "))), "{records:?}");
    let all = federation.administer(ALPHA, &["audit", "list"])?;
    ensure!(all.contains("not-found"), "what was refused is recorded: {all}");
    for secret in [&bob.person.email, &bob.person.handle, "nobody@mail.test", "no.such.handle", "other password"] {
        ensure!(!all.contains(secret), "the audit log tells {secret}");
    }
    federation.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn remotes_are_listed_with_their_live_state() -> Result<()> {
    let mut federation = processes(&[ALPHA, BETA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    connect(&ann, &bob).await?;
    let conversation = ann.group("Owned here", &[&bob.id]).await?;
    ann.send(&conversation, "hello").await?;
    let beta = |federation: &LocalFederation| -> Result<Value> {
        Ok(json(federation, &["remote", "list", "--json"])?[0].take())
    };
    eventually("a reachable remote without backlog", async || {
        let row = beta(&federation)?;
        ensure!(row["reachable"] == true && row["since"].is_string() && row["backlog"]["rows"] == 0, "{row}");
        ensure!(row["fetches_assets"] == serde_json::json!({ "max_bytes": 104_857_632, "types": [] }), "{row}");
        Ok(())
    })
    .await?;
    federation.kill(BETA).await?;
    ann.send(&conversation, "later").await?;
    eventually("an unreachable remote with a backlog", async || {
        let _ = ann.get(&format!("/users/{BETA}/{}", bob.id.id)).await?;
        let row = beta(&federation)?;
        ensure!(row["reachable"] == false && row["since"].is_string() && row["last_error"].is_string(), "{row}");
        ensure!(row["backlog"]["rows"] == 1 && row["backlog"]["oldest"].is_string(), "{row}");
        Ok(())
    })
    .await?;
    let text = federation.administer(ALPHA, &["remote", "list"])?;
    ensure!(text.contains("unreachable since") && text.contains("1 waiting"), "{text}");
    federation.restart(BETA).await?;
    eventually("the end of the backlog", async || {
        let row = beta(&federation)?;
        ensure!(row["reachable"] == true && row["backlog"]["rows"] == 0, "{row}");
        Ok(())
    })
    .await?;
    federation.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_and_a_restriction_hold_until_they_are_taken_back() -> Result<()> {
    let federation = processes(&[ALPHA, BETA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    let path = format!("/users/{BETA}/{}", bob.id.id);
    let back = format!("/users/{ALPHA}/{}", ann.id.id);
    ann.get(&path).await?.expect(200)?;
    bob.get(&back).await?.expect(200)?;

    let stranger = "00".repeat(32);
    federation.administer(ALPHA, &["remote", "set", BETA, "--pin", &stranger])?;
    eventually("the pin", async || {
        ann.get(&path).await?.expect_error(525, "federation-tls-error")?;
        let refused = bob.get(&back).await?;
        ensure!(refused.status != 200, "beta's calls are still believed");
        Ok(())
    })
    .await?;
    let row = json(&federation, &["remote", "list", "--json"])?[0].take();
    ensure!(row["pins"][0] == stranger.as_str() && row["search_policy"] == "full_search", "{row}");
    federation.administer(ALPHA, &["remote", "set", BETA, "--no-pin"])?;
    eventually("the end of the pin", async || {
        ann.get(&path).await?.expect(200)?;
        bob.get(&back).await?.expect(200)
    })
    .await?;

    let team = "5a6b3c4d-0000-4000-8000-000000000001";
    federation.administer(ALPHA, &["remote", "set", BETA, "--team", team])?;
    eventually("the restriction", async || {
        ensure!(bob.find(&ann.person.handle, &ann.id.domain).await?.is_empty(), "still found");
        Ok(())
    })
    .await?;
    let row = json(&federation, &["remote", "list", "--json"])?[0].take();
    ensure!(row["teams"][0] == team, "{row}");
    federation.administer(ALPHA, &["remote", "set", BETA, "--any-team"])?;
    eventually("the end of the restriction", async || {
        ensure!(!bob.find(&ann.person.handle, &ann.id.domain).await?.is_empty(), "not found");
        Ok(())
    })
    .await?;
    for wrong in [
        &["remote", "set", BETA, "--pin", "xy"][..],
        &["remote", "set", "new.test", "--pin", &stranger],
        &["remote", "set", BETA],
    ] {
        ensure!(federation.administer(ALPHA, wrong).is_err(), "{wrong:?} was done");
    }
    ensure!(refusal(&federation, &["remote", "set", "new.test", "--pin", &stranger])?.contains("search"), "says why");
    federation.stop().await
}
