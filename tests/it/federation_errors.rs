//! What users are told when another backend cannot or may not be reached, in both directions.

use std::time::{Duration, Instant};

use aldis_harness::{
    backend::{Federation, Setup, federator_host, reachable},
    client::{Answer, User, connect},
    dns::{Mood, Target},
    pki::Authority,
    rogue::{Conduct, Rogue},
    wait::eventually,
};
use aldis_types::{Domain, Qualified, SearchPolicy, UserId};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::support::{ALPHA, BETA, GAMMA, Pair, Three, texts};

const EVIL: &str = "evil.test";

fn somebody_of(domain: &str) -> Result<Qualified<UserId>> {
    Ok(Qualified::new(UserId::new(uuid::Uuid::new_v4()), domain.parse()?))
}

/// Every call with one target, as the client API has them.
async fn single_target_calls(user: &User, domain: &str) -> Result<Vec<Answer>> {
    let other = somebody_of(domain)?;
    let domain: Domain = domain.parse()?;
    Ok(vec![
        user.get(&format!("/users/{domain}/{}", other.id)).await?,
        user.get(&format!("/users/by-handle/{domain}/some_handle")).await?,
        user.search("some", &domain).await?,
        user.get(&format!("/users/{domain}/{}/clients", other.id)).await?,
        user.get(&format!("/users/{domain}/{}/prekeys", other.id)).await?,
        user.get(&format!("/users/{domain}/{}/prekeys/1", other.id)).await?,
        user.request_connection(&other).await?,
    ])
}

/// Checks that every call with one target fails with this error.
async fn all_fail(user: &User, domain: &str, status: u16, label: &str) -> Result<()> {
    for answer in single_target_calls(user, domain).await? {
        let body = answer.expect_error(status, label)?;
        ensure!(body["data"]["type"] == "federation" && body["data"]["domain"] == domain, "{body}");
    }
    Ok(())
}

async fn profile_error(user: &User, domain: &str, status: u16, label: &str) -> Result<Value> {
    let other = somebody_of(domain)?;
    eventually("the documented error", async || {
        user.get(&format!("/users/{domain}/{}", other.id)).await?.expect_error(status, label)
    })
    .await
}

#[tokio::test]
async fn a_domain_that_is_not_listed_is_denied() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    all_fail(&ann, "unlisted.test", 400, "federation-denied").await
}

#[tokio::test]
async fn a_domain_without_a_record_is_invalid() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    federation.set_remote(ALPHA, "nowhere.test", SearchPolicy::FullSearch).await?;
    eventually("the new policy", async || all_fail(&ann, "nowhere.test", 422, "invalid-domain").await).await?;
    // A target of "." says that there is no federation.
    federation.set_remote(ALPHA, "closed.test", SearchPolicy::FullSearch).await?;
    federation.dns().set_federator("closed.test", &[Target::new(".", 0)])?;
    profile_error(&ann, "closed.test", 422, "invalid-domain").await?;
    Ok(())
}

#[tokio::test]
async fn a_look_up_that_fails_is_a_discovery_failure() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    federation.set_remote(ALPHA, "unknown.test", SearchPolicy::FullSearch).await?;
    federation.dns().set_mood(Mood::Failing);
    profile_error(&ann, "unknown.test", 400, "discovery-failure").await?;
    Ok(())
}

#[tokio::test]
async fn a_backend_that_does_not_run_refuses_connections() -> Result<()> {
    let mut federation = Federation::start(&[ALPHA, BETA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    federation.stop(BETA).await?;
    all_fail(&ann, BETA, 521, "federation-connection-refused").await?;
    federation.resume_running(BETA).await?;
    let bob = federation.user(BETA, "Bob").await?;
    reachable(&ann, &bob).await
}

#[tokio::test]
async fn a_certificate_of_another_name_is_a_tls_error() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    federation.set_remote(ALPHA, EVIL, SearchPolicy::FullSearch).await?;
    let authority = federation.authority();
    let stranger = Authority::new("Somebody else")?;
    let bad = [
        authority.issue(&["federator.other.test"])?,
        authority.issue(&[EVIL])?,
        authority.issue_expired(&[&federator_host(EVIL)])?,
        stranger.issue(&[&federator_host(EVIL)])?,
    ];
    for identity in &bad {
        let _rogue = federation.rogue_with(EVIL, identity, Conduct::Silent).await?;
        profile_error(&ann, EVIL, 525, "federation-tls-error").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_backend_with_a_wrong_certificate_is_refused_where_it_calls() -> Result<()> {
    let federation = Federation::start(&[ALPHA, BETA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    reachable(&bob, &ann).await?;
    // From now on beta proves to be somebody else.
    federation.set_identity(BETA, &federation.authority().issue(&["federator.other.test"])?)?;
    let refused = profile_error(&bob, ALPHA, 533, "federation-remote-error").await?;
    ensure!(refused["inner"]["label"] == "authentication-failure", "{refused}");
    profile_error(&ann, BETA, 525, "federation-tls-error").await?;
    // And it is taken back without a restart.
    federation.set_identity(BETA, &federation.authority().issue(&[&federator_host(BETA)])?)?;
    reachable(&bob, &ann).await?;
    reachable(&ann, &bob).await
}

#[tokio::test]
async fn a_backend_that_cannot_be_found_is_refused_where_it_calls() -> Result<()> {
    let federation = Federation::start(&[ALPHA, BETA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    // Nobody can check who calls when the caller's domain has no record.
    federation.dns().set_federator(ALPHA, &[])?;
    let refused = profile_error(&ann, BETA, 533, "federation-remote-error").await?;
    ensure!(refused["inner"]["label"] == "invalid-domain", "{refused}");
    Ok(())
}

#[tokio::test]
async fn who_is_not_listed_there_sees_that_it_was_the_other_side() -> Result<()> {
    let federation = Federation::with(Setup::of(&[ALPHA, BETA]).unlisted(ALPHA, BETA)).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    all_fail(&ann, BETA, 400, "federation-denied").await?;
    for answer in single_target_calls(&bob, ALPHA).await? {
        let body = answer.expect_error(533, "federation-remote-error")?;
        ensure!(body["inner"]["label"] == "federation-denied" && body["data"]["domain"] == ALPHA, "{body}");
    }
    Ok(())
}

#[tokio::test]
async fn a_suspended_backend_is_denied_both_ways_and_events_wait() -> Result<()> {
    let Pair { federation, ann, bob, conversation } = Pair::connected().await?;
    ann.send(&conversation, "before").await?;
    bob.send(&conversation, "before").await?;
    let group = ann.group("Paused", &[&bob.id]).await?;
    ann.send(&group, "in the group").await?;
    federation.suspend(ALPHA, BETA).await?;
    profile_error(&ann, BETA, 400, "federation-denied").await?;
    let refused = profile_error(&bob, ALPHA, 533, "federation-remote-error").await?;
    ensure!(refused["inner"]["label"] == "federation-denied", "{refused}");
    let waiting = texts("waiting", 5);
    for text in &waiting {
        let draft = aldis_harness::client::Draft::new(ann.recipients(&group), text);
        ann.post_draft(&group, &draft).await?.expect(201)?;
    }
    ann.rename(&group, "Renamed meanwhile").await?.expect(200)?;
    federation.resume(ALPHA, BETA).await?;
    eventually("what waited", async || {
        let inbox = bob.inbox(None).await?;
        let in_group: Vec<_> = inbox.iter().filter(|it| it.conversation == group).map(|it| it.text.clone()).collect();
        let expected: Vec<_> = std::iter::once("in the group".to_owned()).chain(waiting.clone()).collect();
        ensure!(in_group == expected, "{in_group:?}");
        let seen = bob.conversation(&group).await?.expect(200)?.value()?;
        ensure!(seen["name"] == "Renamed meanwhile", "{seen}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn calls_with_many_targets_go_on_without_the_one_that_fails() -> Result<()> {
    let Three { mut federation, ann, bob, cleo } = Three::connected().await?;
    federation.stop(GAMMA).await?;
    let users = json!({ "qualified_ids": [bob.id, cleo.id] });
    let listed = ann.post("/list-users", &users).await?.expect(200)?.value()?;
    ensure!(listed["found"][0]["qualified_id"] == json!(bob.id) && listed["failed"] == json!([cleo.id]), "{listed}");
    let users = json!({ "qualified_users": [bob.id, cleo.id] });
    let clients = ann.post("/users/list-clients", &users).await?.expect(200)?.value()?["qualified_user_map"].clone();
    ensure!(clients.get(BETA).is_some() && clients.get(GAMMA).is_none(), "{clients}");
    let claims = json!({
        BETA: { bob.id.id.to_string(): [bob.client()?] },
        GAMMA: { cleo.id.id.to_string(): [cleo.client()?] },
    });
    let keys = ann.post("/users/list-prekeys", &claims).await?.expect(200)?.value()?;
    ensure!(keys["failed_to_list"] == json!([cleo.id]), "{keys}");
    let bobs = &keys["qualified_user_client_prekeys"][BETA][bob.id.id.to_string()];
    ensure!(bobs[bob.client()?.to_string()].is_object(), "{keys}");
    Ok(())
}

/// A federation in which evil.test misbehaves and beta.test does not.
async fn with_evil(conduct: Conduct) -> Result<(Federation, Rogue, User, User)> {
    let federation = Federation::with(
        Setup::of(&[ALPHA, BETA]).configure(ALPHA, "[federation]\ncall_deadline_ms = 2000\nconnect_timeout_ms = 1000"),
    )
    .await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    let rogue = federation.rogue(EVIL, conduct).await?;
    federation.set_remote(ALPHA, EVIL, SearchPolicy::FullSearch).await?;
    reachable(&ann, &bob).await?;
    Ok((federation, rogue, ann, bob))
}

#[tokio::test]
async fn answers_that_are_none_are_errors_of_the_connection_or_body() -> Result<()> {
    for conduct in [Conduct::Garbage, Conduct::Oversized(1 << 30), Conduct::Oversized(64 << 20)] {
        let (_federation, _rogue, ann, bob) = with_evil(conduct).await?;
        let other = somebody_of(EVIL)?;
        let answer = eventually("an answer", async || {
            let answer = ann.get(&format!("/users/{EVIL}/{}", other.id)).await?;
            ensure!(answer.label() != "federation-denied", "the policy is on its way");
            Ok(answer)
        })
        .await?;
        ensure!(answer.status == 533, "{answer:?}");
        let labels = ["federation-http2-error", "federation-invalid-body", "federation-remote-error"];
        ensure!(labels.contains(&answer.label().as_str()), "{answer:?}");
        reachable(&ann, &bob).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_backend_that_never_answers_slows_nobody_else() -> Result<()> {
    for conduct in [Conduct::Mute, Conduct::Silent] {
        let (_federation, _rogue, ann, bob) = with_evil(conduct).await?;
        connect(&ann, &bob).await?;
        let other = somebody_of(EVIL)?;
        let path = format!("/users/{EVIL}/{}", other.id);
        let stuck = futures::future::try_join_all((0..20).map(|_| ann.get(&path)));
        let conversation = ann.one_to_one(&bob.id);
        let busy = async {
            let begun = Instant::now();
            for number in 0..20 {
                ann.send(&conversation, &format!("meanwhile {number}")).await?;
                ann.get(&format!("/users/{BETA}/{}", bob.id.id)).await?.expect(200)?;
            }
            anyhow::Ok(begun.elapsed())
        };
        let begun = Instant::now();
        let (answers, busy) = tokio::try_join!(stuck, busy)?;
        // The stuck calls end by their deadline; the others did not wait for them one by one.
        ensure!(begun.elapsed() < Duration::from_secs(30) && busy < Duration::from_secs(15), "{busy:?}");
        for answer in answers {
            ensure!([521, 525, 533].contains(&answer.status), "{answer:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_second_target_takes_over() -> Result<()> {
    let federation = Federation::start(&[ALPHA, BETA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    let real = federation.federator(BETA)?;
    // A host of the first priority at which nobody listens.
    let targets = [
        Target { priority: 1, ..Target::new("absent.beta.test", 1) },
        Target { priority: 2, ..Target::new(federator_host(BETA), real.port()) },
    ];
    federation.set_remote(ALPHA, GAMMA, SearchPolicy::FullSearch).await?;
    federation.dns().set_federator(BETA, &targets)?;
    reachable(&ann, &bob).await?;
    connect(&ann, &bob).await?;
    Ok(())
}
