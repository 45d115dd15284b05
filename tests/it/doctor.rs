//! `aldis doctor` finds what can be wrong with federation, each made for real, and names the side.

use std::{path::Path, process::Command};

use aldis::doctor::{Examination, Report, examine};
use aldis_harness::{
    backend::{Federation, Setup, federator_host},
    dns::{Dns, Target},
    pki::{Authority, Identity, Usage},
    rogue::Conduct,
    wait::eventually,
};
use aldis_types::SearchPolicy;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::support::{ALPHA, BETA, binary};

const EVIL: &str = "evil.test";
/// Keeps the waits for those who never answer short.
const IMPATIENT: &str = "[federation]\nconnect_timeout_ms = 1500\n";

async fn examined(federation: &Federation, partner: &str) -> Result<Report> {
    let partner = Some(partner.parse()?);
    examine(&federation.config(ALPHA)?, &Examination { partner, ..Examination::default() }).await
}

/// The first check of a name, as JSON.
fn check(report: &Report, name: &str) -> Result<Value> {
    let check = report.named(name).next().with_context(|| format!("no check {name} in\n{report}"))?;
    Ok(serde_json::to_value(check)?)
}

/// Asserts how a check ended and on which side something is to be done.
fn expect(report: &Report, name: &str, outcome: &str, side: &str) -> Result<()> {
    let check = check(report, name)?;
    ensure!(check["outcome"] == outcome, "{name} should have {outcome}:\n{report}");
    ensure!(check["side"] == side, "{name} should be on the side {side}:\n{report}");
    ensure!(check["advice"].as_str().is_some_and(|advice| !advice.is_empty()), "{name} gives no advice");
    ensure!(outcome != "failed" || report.failed(), "the whole should have failed");
    Ok(())
}

fn passes(report: &Report, name: &str) -> Result<()> {
    let check = check(report, name)?;
    ensure!(check["outcome"] == "passed", "{name} should have passed:\n{report}");
    Ok(())
}

/// Alpha, which lists evil.test.
async fn alone() -> Result<Federation> {
    let federation = Federation::with(Setup::of(&[ALPHA]).configure(ALPHA, IMPATIENT)).await?;
    federation.set_remote(ALPHA, EVIL, SearchPolicy::FullSearch).await?;
    Ok(federation)
}

/// What is found when evil.test shows this certificate.
async fn with_certificate(federation: &Federation, identity: &Identity) -> Result<Report> {
    let _rogue = federation.rogue_with(EVIL, identity, Conduct::Garbage).await?;
    examined(federation, EVIL).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_federation_has_nothing_to_find() -> Result<()> {
    let watchful = "[federation]\nhealth_check_seconds = 1\n";
    let federation = Federation::with(Setup::of(&[ALPHA, BETA]).configure(ALPHA, watchful)).await?;
    // Until the first health check the running backend knows nothing of its partner.
    let report = eventually("a report without failures", async || {
        let report = examined(&federation, BETA).await?;
        ensure!(!report.failed(), "{report}");
        passes(&report, "peer-state")?;
        Ok(report)
    })
    .await?;
    let names = [
        "configuration",
        "store",
        "process",
        "health",
        "listeners",
        "certificate-files",
        "certificate-expiry",
        "certificate-usage",
        "certificate-chain",
        "srv",
        "address",
        "certificate-names",
        "listener",
        "policy",
        "peer-srv",
        "peer-address",
        "peer-connect",
        "peer-certificate",
        "peer-certificate-names",
        "peer-certificate-expiry",
        "peer-certificate-usage",
        "peer-trust",
        "peer-accepts-certificate",
        "peer-admits",
        "peer-versions",
        "peer-clock",
        "peer-search",
        "peer-backlog",
    ];
    names.iter().try_for_each(|name| passes(&report, name))?;

    let other = Dns::start().await?;
    let host = federator_host(ALPHA);
    other.set_federator(ALPHA, &[Target::new(&*host, 8443)])?;
    other.set_host(&host, [10, 0, 0, 1].into())?;
    let examination =
        Examination { partner: Some(BETA.parse()?), resolvers: vec![other.address()], ..Examination::default() };
    let report = examine(&federation.config(ALPHA)?, &examination).await?;
    expect(&report, "split-dns", "failed", "ours")?;
    expect(&report, "peer-split-dns", "failed", "between")?;

    let Some(std::net::SocketAddr::V4(real)) = Some(federation.federator(ALPHA)?) else { return Ok(()) };
    other.set_host(&host, *real.ip())?;
    let report = examine(&federation.config(ALPHA)?, &examination).await?;
    passes(&report, "split-dns")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partners_certificate_is_looked_at_before_it_is_trusted() -> Result<()> {
    let federation = alone().await?;
    let authority = federation.authority();
    let host = federator_host(EVIL);

    let stranger = Authority::new("A stranger")?;
    let report = with_certificate(&federation, &stranger.issue(&[&host])?).await?;
    expect(&report, "peer-trust", "failed", "between")?;
    passes(&report, "peer-certificate-names")?;

    let intermediate = authority.intermediate("In between")?;
    let leaf = intermediate.issue(&[&host])?;
    let report = with_certificate(&federation, &leaf).await?;
    expect(&report, "peer-trust", "failed", "between")?;
    let advice = check(&report, "peer-trust")?["advice"].to_string();
    ensure!(advice.contains("intermediate"), "{advice}");
    let report = with_certificate(&federation, &leaf.with_intermediate(&intermediate)).await?;
    passes(&report, "peer-trust")?;

    let report = with_certificate(&federation, &authority.issue(&["elsewhere.test"])?).await?;
    expect(&report, "peer-certificate-names", "failed", "theirs")?;
    let report = with_certificate(&federation, &authority.issue_expired(&[&host])?).await?;
    expect(&report, "peer-certificate-expiry", "failed", "theirs")?;
    let report = with_certificate(&federation, &authority.issue_for_one(&[&host], Usage::ClientAuth)?).await?;
    expect(&report, "peer-certificate-usage", "failed", "theirs")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partner_that_is_away_silent_or_late_is_told_apart() -> Result<()> {
    let federation = alone().await?;
    federation.dns().set_ttl(1);
    let report = examined(&federation, EVIL).await?;
    expect(&report, "peer-srv", "failed", "theirs")?;

    let rogue = federation.rogue(EVIL, Conduct::Ahead(3_600_000)).await?;
    let report = examined(&federation, EVIL).await?;
    expect(&report, "peer-clock", "failed", "between")?;
    let rogue_port = rogue.port();
    drop(rogue);
    let report = eventually("the port to be closed", async || {
        let report = examined(&federation, EVIL).await?;
        expect(&report, "peer-connect", "failed", "between")?;
        Ok(report)
    })
    .await?;
    passes(&report, "peer-srv")?;

    federation.dns().set_federator(EVIL, &[Target::new(".", rogue_port)])?;
    let report = examined(&federation, EVIL).await?;
    expect(&report, "peer-srv", "failed", "theirs")?;

    let _mute = federation.rogue(EVIL, Conduct::Mute).await?;
    let report = examined(&federation, EVIL).await?;
    expect(&report, "peer-certificate", "failed", "theirs")?;
    federation.suspend(ALPHA, EVIL).await?;
    let report = examined(&federation, EVIL).await?;
    expect(&report, "policy", "failed", "ours")
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_certificate_is_judged_here_and_by_the_partner() -> Result<()> {
    let federation = Federation::start(&[ALPHA, BETA]).await?;
    let authority = federation.authority();
    let host = federator_host(ALPHA);
    let report = async |identity: &Identity| {
        federation.set_identity(ALPHA, identity)?;
        examined(&federation, BETA).await
    };

    let found = report(&authority.issue(&["elsewhere.test"])?).await?;
    expect(&found, "certificate-names", "failed", "ours")?;
    expect(&found, "peer-accepts-certificate", "failed", "ours")?;

    let found = report(&authority.issue_expired(&[&host])?).await?;
    expect(&found, "certificate-expiry", "failed", "ours")?;
    expect(&found, "peer-accepts-certificate", "failed", "ours")?;

    let found = report(&authority.issue_for_one(&[&host], Usage::ServerAuth)?).await?;
    expect(&found, "certificate-usage", "failed", "ours")?;
    expect(&found, "peer-accepts-certificate", "failed", "ours")?;

    let intermediate = authority.intermediate("In between")?;
    let leaf = intermediate.issue(&[&host])?;
    let found = report(&leaf).await?;
    expect(&found, "certificate-chain", "warning", "ours")?;
    expect(&found, "peer-accepts-certificate", "failed", "ours")?;
    let found = report(&leaf.with_intermediate(&intermediate)).await?;
    passes(&found, "certificate-chain")?;
    passes(&found, "peer-accepts-certificate")?;

    let found = report(&Authority::new("A stranger")?.issue(&[&host])?).await?;
    expect(&found, "peer-accepts-certificate", "failed", "ours")?;

    let mut unfit = authority.issue(&[&host])?;
    unfit.key_pem = authority.issue(&[&host])?.key_pem;
    let found = report(&unfit).await?;
    expect(&found, "certificate-files", "failed", "ours")?;
    passes(&found, "peer-certificate-names")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_partners_word_about_us_is_explained() -> Result<()> {
    let mut federation = Federation::start(&[ALPHA, BETA]).await?;
    federation.dns().set_ttl(1);
    federation.suspend(BETA, ALPHA).await?;
    let report = examined(&federation, BETA).await?;
    expect(&report, "peer-admits", "failed", "theirs")?;
    federation.resume(BETA, ALPHA).await?;

    federation.dns().set_federator(ALPHA, &[])?;
    federation.set_identity(ALPHA, &federation.authority().issue(&[&federator_host(ALPHA)])?)?;
    let report = eventually("the partner to forget our record", async || {
        let report = examined(&federation, BETA).await?;
        expect(&report, "peer-admits", "failed", "ours")?;
        Ok(report)
    })
    .await?;
    expect(&report, "srv", "failed", "ours")?;

    federation.stop(ALPHA).await?;
    let report = examined(&federation, BETA).await?;
    expect(&report, "process", "warning", "ours")?;
    passes(&report, "store")?;
    passes(&report, "policy")?;
    passes(&report, "listeners")?;
    let skipped = check(&report, "peer-state")?;
    ensure!(skipped["outcome"] == "skipped", "{skipped}");

    let wrong = federation.config(ALPHA)?.with_file_name("wrong.toml");
    std::fs::write(&wrong, "domain = 'alpha.test'\nstore.path = 'missing/aldis.db'\n")?;
    let report = examine(&wrong, &Examination::default()).await?;
    expect(&report, "configuration", "failed", "ours")
}

fn doctor(config: &Path, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let output = Command::new(binary()).arg("doctor").args(arguments).arg("--config").arg(config).output()?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_tells_by_its_exit_status_and_as_json() -> Result<()> {
    let federation = alone().await?;
    let config = federation.config(ALPHA)?;
    let (status, text) = eventually("a sound set-up", async || {
        let found = doctor(&config, &[])?;
        ensure!(found.0 == Some(0), "{}", found.1);
        Ok(found)
    })
    .await?;
    ensure!(status == Some(0) && text.contains("certificate-names") && text.contains("0 failed"), "{text}");
    let (status, text) = doctor(&config, &[EVIL, "--json"])?;
    let report: Value = serde_json::from_str(&text)?;
    ensure!(status == Some(1) && report["outcome"] == "failed" && report["partner"] == EVIL, "{text}");
    ensure!(report["way"].as_array().is_some_and(|way| way.iter().any(|it| it["name"] == "peer-srv")), "{text}");
    ensure!(doctor(&config, &[ALPHA])?.0 == Some(2), "our own domain is no partner");
    ensure!(doctor(Path::new("/nowhere/aldis.toml"), &[])?.0 == Some(2), "no file");

    let (status, text) = doctor(&config, &["--share"])?;
    ensure!(status == Some(0) && text.contains(&federator_host(ALPHA)) && text.contains("spki_sha256"), "{text}");
    ensure!(text.contains(&format!("_wire-server-federator._tcp.{ALPHA}")), "{text}");
    ensure!(text.contains(&format!("aldis remote set {ALPHA}")), "{text}");
    let (_, text) = doctor(&config, &["--share", "--json"])?;
    let shared: Value = serde_json::from_str(&text)?;
    ensure!(shared["certificate"]["spki_sha256"].as_str().is_some_and(|key| key.len() == 64), "{text}");
    ensure!(shared["certificate"]["names"][0] == federator_host(ALPHA) && shared["strategy"] == "allow_list", "{text}");
    // The authority that a partner needs is the one that the federation's certificates come from.
    let authority = shared["authority"]["pem"].as_str().context("no authority")?;
    ensure!(authority.trim() == federation.authority().pem().trim(), "{authority}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_elsewhere_are_asked_instead() -> Result<()> {
    let federation = alone().await?;
    let file = federation.config(ALPHA)?;
    let settings = std::fs::read_to_string(&file)?;
    let operations = settings.split("[operations]").nth(1).context("no listener")?;
    let answering =
        operations.split("listen = \"").nth(1).and_then(|rest| rest.split('"').next()).context("no listener")?;
    let answering = answering.to_owned();
    let ask = async |places: &[String]| {
        examine(&file, &Examination { operations: places.to_vec(), ..Examination::default() }).await
    };
    let report = ask(std::slice::from_ref(&answering)).await?;
    passes(&report, "health")?;
    ensure!(report.named("listeners").next().is_none() && report.named("store").next().is_none(), "{report}");

    let report = ask(&[answering, "127.0.0.1:9".to_owned()]).await?;
    expect(&report, "process", "failed", "ours")?;
    passes(&report, "health")?;
    Ok(())
}
