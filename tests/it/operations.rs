//! What an operator has: health, metrics, traces, logs, commands and clear errors.

use std::process::Command;

use aldis_harness::{
    backend::Federation,
    client::{User, connect},
    collector::Collector,
    local::{LocalFederation, Options},
    wait::eventually,
};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::support::{ALPHA, BETA, Pair, binary, processes};

#[tokio::test]
async fn health_and_metrics_tell_the_state() -> Result<()> {
    let Pair { mut federation, ann, bob, conversation } = Pair::connected().await?;
    let mut socket = bob.open_socket().await?;
    ann.send(&conversation, "counted").await?;
    socket.message(&bob).await?;
    for path in ["/healthz", "/readyz"] {
        federation.operations(ALPHA, path).await?.expect(200)?;
    }
    eventually("all metrics", async || {
        let metrics = federation.operations(BETA, "/metrics").await?.expect(200)?;
        let text = String::from_utf8(metrics.body.to_vec())?;
        for name in [
            "aldis_http_request_seconds",
            "aldis_peer_calls_total",
            "aldis_peer_call_duration_seconds",
            "aldis_peer_breaker_state",
            "aldis_outbox_rows",
            "aldis_outbox_oldest_seconds",
            "aldis_notifications_sockets",
            "aldis_notifications_queued_total",
            "aldis_store_commit_seconds",
            "aldis_store_bytes",
            "aldis_store_table_rows{table=\"notifications_queue\"}",
            "aldis_federation_certificate_expiry_days",
        ] {
            ensure!(text.contains(name), "{name} is missing");
        }
        ensure!(!text.contains(&ann.id.id.to_string()), "a metric names a user");
        let page = include_str!("../../docs/operations.md");
        let exported = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let undocumented: Vec<_> = exported.filter(|name| !page.contains(&format!("| `{name}`"))).collect();
        ensure!(undocumented.is_empty(), "not in docs/operations.md: {undocumented:?}");
        Ok(())
    })
    .await?;
    // Trouble with a peer is told, and makes nobody unready.
    federation.stop(BETA).await?;
    let _ = ann.get(&format!("/users/{BETA}/{}", bob.id.id)).await?;
    federation.operations(ALPHA, "/readyz").await?.expect(200)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_can_be_followed_to_the_receivers_socket() -> Result<()> {
    let collector = Collector::start().await?;
    let settings = format!("[tracing]\nendpoint = \"{}\"\n", collector.endpoint());
    let options = Options { binary: Some(binary()), settings, ..Options::of(&[ALPHA, BETA]) };
    let federation = LocalFederation::start(&options).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    connect(&ann, &bob).await?;
    let group = ann.group("Traced", &[&bob.id]).await?;
    ann.send(&group, "first").await?;
    let mut socket = bob.open_socket().await?;
    ann.send(&group, "traced").await?;
    socket.message(&bob).await?;
    // Spans are sent in batches, every few seconds.
    eventually("a trace through both backends", async || {
        let spans = collector.spans();
        let mut sends = spans.iter().filter(|span| span.name == "http.messages.send" && span.domain == ALPHA);
        let send = sends.next_back().context("no span of the request")?;
        let way = collector.follow(&send.trace);
        let has = |domain: &str, name: &str| way.iter().any(|span| span.domain == domain && span.name == name);
        let names: Vec<_> = way.iter().map(|span| format!("{} {}", span.domain, span.name)).collect();
        ensure!(has(BETA, "sockets.push"), "{names:?}");
        Ok(())
    })
    .await?;
    let spans = collector.spans();
    for secret in secrets_of(&[&ann, &bob]) {
        let told = spans.iter().flat_map(|span| &span.attributes).any(|(_, value)| value.contains(&secret));
        ensure!(!told, "a trace tells {secret}");
    }
    federation.stop().await
}

/// What must never be in a log or trace.
fn secrets_of(users: &[&User]) -> Vec<String> {
    let of = |user: &&User| {
        let session = user.session();
        [
            user.person.password.clone(),
            user.person.email.clone(),
            user.person.handle.clone(),
            session.cookie,
            session.token,
        ]
    };
    users.iter().flat_map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_tell_no_secrets() -> Result<()> {
    let settings = "[log]\nfilter = \"debug\"\nformat = \"json\"".to_owned();
    let options = Options { binary: Some(binary()), settings, ..Options::of(&[ALPHA, BETA]) };
    let mut federation = LocalFederation::start(&options).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    let conversation = connect(&ann, &bob).await?;
    let mut socket = bob.open_socket().await?;
    ann.send(&conversation, "a very private text").await?;
    socket.message(&bob).await?;
    ann.find(&bob.person.handle, &bob.id.domain).await?;
    let wrong = serde_json::json!({ "email": ann.person.email, "password": "a wrong password" });
    ann.api.post("/login", &wrong).await?.expect(403)?;
    // With errors as well: a peer that is gone, a message that waits.
    federation.kill(BETA).await?;
    let draft = aldis_harness::client::Draft::new(ann.recipients(&conversation), "a private text that waits");
    let _ = ann.post_draft(&conversation, &draft).await?;
    let _ = ann.find(&bob.person.handle, &bob.id.domain).await;
    ann.logout().await?.expect(200)?;
    let log = federation.output()?;
    ensure!(log.contains("alpha.test"), "nothing was logged: {log}");
    let mut secrets = secrets_of(&[&ann, &bob]);
    secrets.extend(["a wrong password", "private text"].map(str::to_owned));
    for secret in secrets {
        let line = log.lines().find(|line| line.contains(&secret));
        ensure!(line.is_none(), "the log tells {secret}: {line:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn remotes_are_administered_from_the_command_line() -> Result<()> {
    let federation = processes(&[ALPHA, BETA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    let listed: Value = serde_json::from_str(&federation.administer(ALPHA, &["remote", "list", "--json"])?)?;
    ensure!(listed[0]["domain"] == BETA && listed[0]["search_policy"] == "full_search", "{listed}");
    let path = format!("/users/{BETA}/{}", bob.id.id);
    ann.get(&path).await?.expect(200)?;
    federation.administer(ALPHA, &["remote", "suspend", BETA])?;
    eventually("the suspension", async || ann.get(&path).await?.expect_error(400, "federation-denied")).await?;
    federation.administer(ALPHA, &["remote", "resume", BETA])?;
    eventually("the end of the suspension", async || ann.get(&path).await?.expect(200)).await?;
    federation.administer(ALPHA, &["remote", "set", "new.test", "--search-policy", "no_search"])?;
    for arguments in [
        ["remote", "suspend", "unknown.test"],
        ["remote", "suspend", ALPHA],
        ["remote", "suspend", "not a domain"],
        ["remote", "end", "unknown.test"],
        ["remote", "end", ALPHA],
    ] {
        let error = federation.administer(ALPHA, &arguments).err().context("it was done")?.to_string();
        ensure!(error.trim_end().lines().count() == 1, "{arguments:?}: more than one line: {error}");
    }
    let created = federation.administer(
        ALPHA,
        &[
            "user",
            "create",
            "--email",
            "dora@mail.test",
            "--password",
            "correct horse",
            "--name",
            "Dora",
            "--handle",
            "dora",
        ],
    )?;
    let created: Value = serde_json::from_str(&created).context("nothing but JSON on standard output")?;
    ensure!(created["domain"] == ALPHA && created["id"].is_string(), "{created}");
    let found = bob.find("dora", &ann.id.domain).await?;
    ensure!(serde_json::json!(found) == serde_json::json!([created]), "{found:?}");
    federation.stop().await
}

#[tokio::test]
async fn a_wrong_setting_stops_the_start_and_is_named() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("aldis-it-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let cases = [
        ("domain = \"alpha.test\"\n[store]\npath = \"x.db\"\n[client]\nlisen = \"127.0.0.1:1\"", "client.lisen"),
        ("domain = \"alpha.test\"\n[store]\npath = \"x.db\"\n[client]\nlisten = \"nowhere\"", "client.listen"),
        ("domain = \"not a domain\"\n[store]\npath = \"x.db\"", "domain"),
        ("domain = \"alpha.test\"\n[store]\npath = \"x.db\"\n[users]\nregistration = \"maybe\"", "users.registration"),
    ];
    for (number, (text, key)) in cases.into_iter().enumerate() {
        let file = folder.join(format!("{number}.toml"));
        std::fs::write(&file, text)?;
        let output = Command::new(binary()).args(["all", "--config"]).arg(&file).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && error.contains(key), "{key}: {error}");
    }
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

#[tokio::test]
async fn a_backend_without_partners_serves_its_own_people() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(ALPHA, "Bob").await?;
    let conversation = connect(&ann, &bob).await?;
    let mut socket = bob.open_socket().await?;
    ann.send(&conversation, "hello").await?;
    ensure!(socket.message(&bob).await?.text == "hello");
    federation.operations(ALPHA, "/readyz").await?.expect(200)?;
    Ok(())
}
