//! The acknowledged socket, when backends are killed: what a device has not acknowledged comes again, and nothing else.

use aldis_harness::{
    client::{Consumed, MESSAGE, User, connect},
    wait::eventually,
};
use anyhow::{Result, ensure};

use crate::support::{ALPHA, BETA, processes, texts};

/// The texts of the messages among events.
fn read(reader: &User, events: &[Consumed]) -> Result<Vec<String>> {
    let messages = events.iter().filter(|consumed| consumed.event["type"] == MESSAGE);
    let read = messages.map(|consumed| reader.read(&consumed.event));
    read.filter_map(Result::transpose).map(|message| message.map(|message| message.text)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_acknowledged_comes_again_after_a_crash() -> Result<()> {
    let mut federation = processes(&[ALPHA, BETA]).await?;
    let (ann, bob) = (federation.user(ALPHA, "Ann").await?, federation.user(BETA, "Bob").await?);
    connect(&ann, &bob).await?;
    // Of alpha, so that it takes messages while beta is down.
    let conversation = ann.group("Group", &[&bob.id]).await?;
    bob.become_consumer().await?;
    let sent = texts("message", 5);
    let mut socket = bob.consume().await?;
    socket.catch_up().await?;
    for text in &sent {
        ann.send(&conversation, text).await?;
    }
    let mut got = Vec::new();
    while read(&bob, &got)?.len() < sent.len() {
        got.push(socket.event().await?);
    }
    ensure!(read(&bob, &got)? == sent, "{got:?}");
    let second = got.iter().filter(|consumed| consumed.event["type"] == MESSAGE).nth(1).map_or(0, |it| it.tag);
    socket.acknowledge(second).await?;
    drop(socket);
    // An acknowledgement has no answer; that it was taken shows when the socket is opened again.
    eventually("the acknowledgement", async || {
        let waited = bob.consume().await?.catch_up().await?;
        ensure!(read(&bob, &waited)? == sent[2..], "{waited:?}");
        Ok(())
    })
    .await?;

    federation.kill(BETA).await?;
    ann.send(&conversation, "while it was down").await?;
    federation.restart(BETA).await?;
    let mut socket = bob.consume().await?;
    let mut got = socket.catch_up().await?;
    while read(&bob, &got)?.len() < 4 {
        got.push(socket.event().await?);
    }
    let expected = [&sent[2..], &["while it was down".to_owned()]].concat();
    ensure!(read(&bob, &got)? == expected, "{got:?}");
    socket.acknowledge(got.last().map_or(0, |it| it.tag)).await?;
    drop(socket);
    eventually("an empty queue", async || {
        let waited = bob.consume().await?.catch_up().await?;
        ensure!(waited.is_empty(), "{waited:?}");
        Ok(())
    })
    .await?;
    federation.stop().await
}
