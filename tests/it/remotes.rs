//! Federation with a partner ends and begins anew.

use aldis_harness::{
    client::{User, connect},
    wait::{eventually, soon},
};
use aldis_types::SearchPolicy;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::support::{ALPHA, BETA, Three, processes};

/// Groups that are cleaned up one after the other.
const GROUPS: usize = 40;

/// How often a device was told that federation with a domain ended.
async fn endings(user: &User, domain: &str) -> Result<usize> {
    let events = user.queue(None).await?;
    Ok(events.iter().filter(|event| event.kind() == "federation.delete" && event.value["domain"] == domain).count())
}

async fn kinds_after(user: &User, since: &str) -> Result<Vec<String>> {
    Ok(user.queue(Some(since)).await?.iter().map(|event| event.kind().to_owned()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn ending_takes_their_users_out_and_tells_each_of_ours_once() -> Result<()> {
    let Three { mut federation, ann, bob, cleo } = Three::connected().await?;
    let dora = federation.user(ALPHA, "Dora").await?;
    let emma = federation.user(ALPHA, "Emma").await?;
    connect(&ann, &emma).await?;
    let ours = ann.group("Ours", &[&bob.id, &cleo.id, &emma.id]).await?;
    let second = ann.group("Ours too", &[&bob.id]).await?;
    let theirs = bob.group("Theirs", &[&ann.id]).await?;
    eventually("the group of the other backend", async || {
        let ids = ann.conversation_ids().await?;
        ensure!(ids.contains(&theirs));
        Ok(())
    })
    .await?;
    ann.send(&ours, "before").await?;
    eventually("the message", async || {
        ensure!(bob.inbox(None).await?.iter().any(|message| message.text == "before"));
        Ok(())
    })
    .await?;
    federation.stop(BETA).await?;
    ann.send(&ours, "waits in vain").await?;
    // What is counted below is what comes afterwards.
    eventually("the message at the third backend", async || {
        ensure!(cleo.inbox(None).await?.iter().any(|message| message.text == "waits in vain"));
        Ok(())
    })
    .await?;
    let (heard, cleo_heard) = (ann.last_notification().await?, cleo.last_notification().await?);

    federation.end(ALPHA, BETA).await?;
    eventually("their members to be gone", async || {
        let members = ann.members(&ours).await?;
        ensure!(!members.contains(&bob.id) && members.len() == 3, "{members:?}");
        ensure!(ann.members(&second).await? == std::slice::from_ref(&ann.id));
        let left = ann.conversation_ids().await?;
        ensure!(left.iter().all(|id| id.domain.as_str() != BETA), "{left:?}");
        ensure!(ann.relation(&bob.id).await? == "cancelled");
        ensure!(endings(&ann, BETA).await? == 1 && endings(&emma, BETA).await? == 1);
        let status: Value = federation.operations(ALPHA, "/status.json").await?.json()?;
        let remote = status["remotes"].as_array().and_then(|all| all.iter().find(|it| it["domain"] == BETA));
        let remote = remote.context("the remote on the status page")?;
        ensure!(remote["state"] == "ended" && remote["backlog"]["events"] == 0, "{remote}");
        Ok(())
    })
    .await?;
    eventually("the third backend to hear of it", async || {
        let kinds = kinds_after(&cleo, &cleo_heard).await?;
        ensure!(kinds == ["conversation.member-leave"], "{kinds:?}");
        ensure!(!cleo.members(&ours).await?.contains(&bob.id));
        Ok(())
    })
    .await?;
    ensure!(kinds_after(&ann, &heard).await? == ["federation.delete"], "one event, however many conversations");
    ensure!(endings(&dora, BETA).await? == 0, "whoever has nothing to do with it hears nothing");
    let path = format!("/users/{BETA}/{}", bob.id.id);
    ann.get(&path).await?.expect_error(400, "federation-denied")?;
    ensure!(federation.resume(ALPHA, BETA).await.is_err(), "what was ended is not resumed");

    federation.resume_running(BETA).await?;
    federation.set_remote(ALPHA, BETA, SearchPolicy::FullSearch).await?;
    eventually("a new connection", async || {
        ann.request_connection(&bob.id).await?.expect_one_of(&[200, 201])?;
        ensure!(ann.relation(&bob.id).await? == "accepted");
        Ok(())
    })
    .await?;
    ann.add_members(&ours, &[&bob.id]).await?.expect(200)?;
    ann.send(&ours, "after").await?;
    ann.send(&ann.one_to_one(&bob.id), "to you alone").await?;
    eventually("what is sent from now on", async || {
        let texts: Vec<String> = bob.inbox(None).await?.into_iter().map(|message| message.text).collect();
        ensure!(
            texts.iter().any(|text| text == "after") && texts.iter().any(|text| text == "to you alone"),
            "{texts:?}"
        );
        ensure!(!texts.iter().any(|text| text == "waits in vain"), "{texts:?}");
        Ok(())
    })
    .await?;
    ensure!(endings(&ann, BETA).await? == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ending_goes_on_after_a_kill() -> Result<()> {
    let mut federation = processes(&[ALPHA, BETA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    connect(&ann, &bob).await?;
    let mut groups = Vec::new();
    for number in 0..GROUPS {
        groups.push(soon("a group", ann.group(&format!("Group {number}"), &[&bob.id])).await??);
    }
    federation.administer(ALPHA, &["remote", "end", BETA])?;
    federation.kill(ALPHA).await?;
    federation.restart(ALPHA).await?;
    eventually("everything to be cleaned up", async || {
        for group in &groups {
            ensure!(ann.members(group).await? == std::slice::from_ref(&ann.id));
        }
        ensure!(ann.relation(&bob.id).await? == "cancelled");
        ensure!(endings(&ann, BETA).await? >= 1);
        Ok(())
    })
    .await?;
    ensure!(endings(&ann, BETA).await? == 1, "told once, although it began twice");
    federation.stop().await
}
