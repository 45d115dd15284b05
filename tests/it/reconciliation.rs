//! Backends that have come to say different things of a conversation, and agree again.

use aldis_harness::{
    client::{Event, User, connect},
    local::{LocalFederation, Options},
    wait::eventually,
};
use aldis_types::{ConversationId, Qualified};
use anyhow::{Result, ensure};
use serde_json::Value;

use crate::support::{ALPHA, BETA, binary, processes};

const JOIN: &str = "conversation.member-join";
const LEAVE: &str = "conversation.member-leave";

async fn sees(user: &User, conversation: &Qualified<ConversationId>) -> Result<bool> {
    Ok(user.conversation_ids().await?.contains(conversation))
}

/// Waits until the user is, or is not, in a conversation and has got the event that says so.
async fn learns(user: &User, conversation: &Qualified<ConversationId>, kind: &str) -> Result<()> {
    eventually(kind, async || {
        ensure!(sees(user, conversation).await? == (kind == JOIN), "the conversation of the user");
        let events = user.queue(None).await?;
        let told = events
            .iter()
            .filter(|event| event.kind() == kind && event.value["conversation"] == conversation.id.to_string());
        ensure!(told.count() == 1, "the event {kind}");
        Ok(())
    })
    .await
}

fn compare_both(federation: &LocalFederation, on: &str, other: &str) -> Result<Value> {
    Ok(serde_json::from_str(&federation.administer(on, &["remote", "reconcile", other, "--json"])?)?)
}

fn compare(federation: &LocalFederation, on: &str, other: &str) -> Result<Value> {
    Ok(compare_both(federation, on, other)?["conversations"].take())
}

/// Waits until the user stands to another one like this, and was told so last.
async fn stands(user: &User, other: &User, relation: &str) -> Result<()> {
    eventually(relation, async || {
        let found = user.relation(&other.id).await?;
        ensure!(found == relation, "{found}");
        let events = user.queue(None).await?;
        let about = |event: &&Event| {
            event.kind() == "user.connection" && event.value["connection"]["to"] == other.id.id.to_string()
        };
        let last = events.iter().rfind(about).map(|event| event.value["connection"]["status"].clone());
        ensure!(last == Some(relation.into()), "told {last:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_members_that_were_dropped_are_made_good() -> Result<()> {
    let options = Options { binary: Some(binary()), apart: true, ..Options::of(&[ALPHA, BETA]) };
    let federation = LocalFederation::start(&options).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    connect(&ann, &bob).await?;
    let left = ann.group("Bob leaves", &[&bob.id]).await?;
    let joined = ann.group("Bob joins", &[]).await?;
    eventually("Bob is in the first group", async || {
        ensure!(sees(&bob, &left).await?);
        Ok(())
    })
    .await?;

    federation.administer(ALPHA, &["outbox", "pause", BETA])?;
    ann.remove_member(&left, &bob.id).await?.expect(200)?;
    ann.add_members(&joined, &[&bob.id]).await?.expect(200)?;
    // Both events are still to come: nothing may be repaired from what alpha says now.
    let found = compare(&federation, BETA, ALPHA)?;
    ensure!(found["repaired"] == 0 && found["waiting"] == 2, "{found}");
    ensure!(sees(&bob, &left).await? && !sees(&bob, &joined).await?, "repaired too early");
    let dropped = federation.administer(ALPHA, &["outbox", "drop", BETA, "--yes"])?;
    ensure!(dropped.contains("2 events"), "{dropped}");
    federation.administer(ALPHA, &["outbox", "resume", BETA])?;

    // Beta learns that something was dropped, and compares by itself.
    learns(&bob, &left, LEAVE).await?;
    learns(&bob, &joined, JOIN).await?;
    eventually("a message in the second group", async || ann.send(&joined, "for Bob").await).await?;
    eventually("the message arrives", async || {
        let texts: Vec<_> = bob.inbox(None).await?.into_iter().map(|message| message.text).collect();
        ensure!(texts == ["for Bob"], "{texts:?}");
        Ok(())
    })
    .await?;
    let found = compare(&federation, BETA, ALPHA)?;
    ensure!(found["compared"] == 1 && found["differing"] == 0 && found["waiting"] == 0, "{found}");
    ensure!(federation.administer(BETA, &["remote", "reconcile", BETA]).is_err(), "its own domain");
    federation.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_both_sides_agree_with_the_owners() -> Result<()> {
    let mut federation = processes(&[ALPHA, BETA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    connect(&ann, &bob).await?;
    let [carl, dora] = [federation.user(BETA, "Carl").await?, federation.user(BETA, "Dora").await?];
    ann.request_connection(&dora.id).await?.expect(201)?;
    let copy = federation.folder().join("backup.db").display().to_string();
    federation.administer(ALPHA, &["backup", &copy])?;
    connect(&ann, &carl).await?;
    dora.set_connection(&ann.id, "accepted").await?.expect(200)?;
    let anns = ann.group("Forgotten by its owner", &[&bob.id]).await?;
    let bobs = bob.group("Forgotten by a member's backend", &[&ann.id]).await?;
    eventually("both are in both groups", async || {
        for user in [&ann, &bob] {
            ensure!(sees(user, &anns).await? && sees(user, &bobs).await?);
        }
        Ok(())
    })
    .await?;

    federation.kill(ALPHA).await?;
    // The last threads of a killed process hold its store for a moment.
    eventually("the restore", async || federation.administer(ALPHA, &["restore", &copy])).await?;
    federation.restart(ALPHA).await?;
    ensure!(!sees(&ann, &bobs).await?, "Ann's own backend knows of a later group");
    // Bob's group meets the restored backend, and Ann's is unknown to it.
    let found = eventually("alpha compares", async || compare(&federation, ALPHA, BETA)).await?;
    ensure!(found["waiting"] == 0, "{found}");
    learns(&ann, &bobs, JOIN).await?;
    eventually("beta compares", async || compare(&federation, BETA, ALPHA)).await?;
    learns(&bob, &anns, LEAVE).await?;

    // What Ann has told is forgotten, and what others have told her is not.
    stands(&ann, &carl, "pending").await?;
    stands(&carl, &ann, "sent").await?;
    ensure!(ann.relation(&dora.id).await? == "accepted" && dora.relation(&ann.id).await? == "accepted", "Dora");
    ensure!(ann.relation(&bob.id).await? == "accepted" && bob.relation(&ann.id).await? == "accepted", "Bob");
    ann.set_connection(&carl.id, "accepted").await?.expect(200)?;
    for (other, text) in [(&carl, "for Carl"), (&dora, "for Dora")] {
        stands(&ann, other, "accepted").await?;
        stands(other, &ann, "accepted").await?;
        let conversation = ann.one_to_one(&other.id);
        eventually(text, async || ann.send(&conversation, text).await).await?;
        eventually(text, async || {
            let texts: Vec<_> = other.inbox(None).await?.into_iter().map(|message| message.text).collect();
            ensure!(texts == [text], "{texts:?}");
            Ok(())
        })
        .await?;
    }
    federation.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_were_ended_in_vain_end() -> Result<()> {
    let options = Options { binary: Some(binary()), apart: true, ..Options::of(&[ALPHA, BETA]) };
    let federation = LocalFederation::start(&options).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let [bob, carl] = [federation.user(BETA, "Bob").await?, federation.user(BETA, "Carl").await?];
    ann.request_connection(&bob.id).await?.expect(201)?;
    let conversation = connect(&ann, &carl).await?;
    federation.administer(ALPHA, &["outbox", "pause", BETA])?;
    ann.set_connection(&bob.id, "cancelled").await?.expect(200)?;
    ann.set_connection(&carl.id, "cancelled").await?.expect(200)?;
    ensure!(bob.relation(&ann.id).await? == "pending" && carl.relation(&ann.id).await? == "accepted", "drift");
    let dropped = federation.administer(ALPHA, &["outbox", "drop", BETA, "--yes"])?;
    ensure!(dropped.contains("events"), "{dropped}");
    federation.administer(ALPHA, &["outbox", "resume", BETA])?;
    stands(&bob, &ann, "cancelled").await?;
    stands(&carl, &ann, "sent").await?;

    // She asked nothing of him since; he may take it back or she may accept again.
    ann.set_connection(&carl.id, "accepted").await?.expect(200)?;
    stands(&carl, &ann, "accepted").await?;
    eventually("the conversation goes on", async || ann.send(&conversation, "again").await).await?;
    let found = eventually("nothing differs", async || {
        let found = compare_both(&federation, ALPHA, BETA)?;
        ensure!(found["connections"]["compared"] == 2 && found["connections"]["differing"] == 0, "{found}");
        Ok(found)
    })
    .await?;
    ensure!(found["connections"]["waiting"] == 0, "{found}");
    federation.stop().await
}
