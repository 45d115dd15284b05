//! Processes that are killed and stopped: what was confirmed arrives, once and in order.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use aldis_harness::{
    client::{Draft, Received, Status, User, connect},
    local::{LocalFederation, Options, service_of},
    wait::{eventually, within},
};
use aldis_types::{ConversationId, Qualified};
use anyhow::{Context as _, Result, bail, ensure};
use tokio::sync::watch;

use crate::support::{ALPHA, BETA, GAMMA, binary, processes, texts};

const MESSAGES: usize = 200;
/// How long one message may take while its backend is being started again.
const RETRY: Duration = Duration::from_secs(120);

/// Posts the same body until the backend confirms it: only then does the sender know that it was accepted.
async fn confirm(sender: &User, conversation: &Qualified<ConversationId>, text: &str) -> Result<Status> {
    let body = Draft::new(sender.recipients(conversation), text).encode(sender.client()?);
    within(RETRY, "the confirmation of a message", async || {
        let answer = sender.post_message(conversation, body.clone()).await?;
        if answer.status == 412 {
            bail!("a device is missing: {:?}", Status::of(&answer)?);
        }
        Status::of(&answer.expect(201)?)
    })
    .await
}

/// Sends numbered messages one after the other, and tells how many were confirmed.
async fn send_all(
    sender: &User,
    conversation: &Qualified<ConversationId>,
    prefix: &str,
    progress: Option<&watch::Sender<usize>>,
) -> Result<()> {
    for text in texts(prefix, MESSAGES) {
        confirm(sender, conversation, &text).await?;
        if let Some(progress) = progress {
            progress.send_modify(|count| *count += 1);
        }
    }
    Ok(())
}

/// Waits until so many messages were confirmed.
async fn reached(progress: &mut watch::Receiver<usize>, count: usize) -> Result<()> {
    within_test(progress.wait_for(|confirmed| *confirmed >= count)).await?.map(drop).context("the sender stopped")
}

async fn within_test<T>(future: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(RETRY, future).await.context("the test takes too long")
}

/// Waits until the reader has all messages with this prefix, each once and in order.
async fn got_all(reader: &User, prefix: &str) -> Result<()> {
    let expected = texts(prefix, MESSAGES);
    let inbox = within(RETRY, "every confirmed message", async || {
        let inbox = reader.inbox(None).await?;
        let mine: Vec<Received> = inbox.into_iter().filter(|it| it.text.starts_with(prefix)).collect();
        ensure!(mine.len() >= MESSAGES, "{} of {MESSAGES} arrived", mine.len());
        Ok(mine)
    })
    .await?;
    let got: Vec<_> = inbox.into_iter().map(|message| message.text).collect();
    let first_wrong = got.iter().zip(&expected).find(|(got, expected)| got != expected);
    ensure!(got == expected, "{} messages instead of {MESSAGES}, first difference {first_wrong:?}", got.len());
    Ok(())
}

struct World {
    federation: LocalFederation,
    ann: User,
    bob: User,
    one_to_one: Qualified<ConversationId>,
    /// Owned by alpha.test.
    anns: Qualified<ConversationId>,
    /// Owned by beta.test.
    bobs: Qualified<ConversationId>,
}

impl World {
    async fn start() -> Result<Self> {
        Self::of(processes(&[ALPHA, BETA]).await?).await
    }

    async fn of(federation: LocalFederation) -> Result<Self> {
        let ann = federation.user(ALPHA, "Ann").await?;
        let bob = federation.user(BETA, "Bob").await?;
        let one_to_one = connect(&ann, &bob).await?;
        let anns = ann.group("Owned by alpha", &[&bob.id]).await?;
        let bobs = bob.group("Owned by beta", &[&ann.id]).await?;
        for conversation in [&one_to_one, &anns, &bobs] {
            for user in [&ann, &bob] {
                eventually("a first message", async || user.send(conversation, "warm").await).await?;
            }
        }
        Ok(Self { federation, ann, bob, one_to_one, anns, bobs })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_confirmed_survives_the_receiver() -> Result<()> {
    let World { mut federation, ann, bob, one_to_one, anns, bobs } = World::start().await?;
    let (progress, mut confirmed) = watch::channel(0);
    // Owned here: accepted while beta.test is away. The others wait for their owner, with the same body.
    let sending = async {
        tokio::try_join!(
            send_all(&ann, &anns, "group", Some(&progress)),
            send_all(&ann, &one_to_one, "alone", None),
            send_all(&ann, &bobs, "theirs", None),
        )
    };
    let killing = async {
        reached(&mut confirmed, 60).await?;
        federation.kill(BETA).await?;
        reached(&mut confirmed, 140).await?;
        federation.restart(BETA).await
    };
    tokio::try_join!(sending, killing)?;
    for prefix in ["group", "alone", "theirs"] {
        got_all(&bob, prefix).await?;
    }
    federation.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_gone_keeps_nobody_from_a_new_device() -> Result<()> {
    let World { mut federation, ann, bob, anns, .. } = World::start().await?;
    // Alpha now relies on what beta says of Bob's devices.
    confirm(&ann, &anns, "leased").await?;
    let known = ann.recipients(&anns);
    federation.kill(ALPHA).await?;
    let device = bob.on_another_device().await?;
    federation.restart(ALPHA).await?;
    let answer = ann.post_draft(&anns, &Draft::new(known, "too few")).await?.expect(412)?;
    ensure!(Status::of(&answer)?.missing().keys().eq([&bob.id]));
    // A backend that was just started still waits for those who may rely on what it said before.
    confirm_on(&ann, &anns, &device).await?;
    federation.kill(BETA).await?;
    federation.restart(BETA).await?;
    let known = ann.recipients(&anns);
    bob.on_another_device().await?;
    let answer = ann.post_draft(&anns, &Draft::new(known, "too few")).await?.expect(412)?;
    ensure!(Status::of(&answer)?.missing().keys().eq([&bob.id]));
    federation.stop().await
}

/// Sends to all devices that the sender hears of; the new one gets it.
async fn confirm_on(sender: &User, conversation: &Qualified<ConversationId>, device: &User) -> Result<()> {
    sender.send(conversation, "to all").await?;
    eventually("the message on the new device", async || {
        let inbox = device.inbox(None).await?;
        ensure!(inbox.iter().any(|message| message.text == "to all"));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_confirmed_survives_the_sender() -> Result<()> {
    let World { mut federation, ann, bob, one_to_one, anns, bobs } = World::start().await?;
    let (progress, mut confirmed) = watch::channel(0);
    let sending = async {
        tokio::try_join!(
            send_all(&ann, &anns, "group", Some(&progress)),
            send_all(&ann, &one_to_one, "alone", None),
            send_all(&ann, &bobs, "theirs", None),
            send_all(&bob, &anns, "back", None),
        )
    };
    let killing = async {
        for count in [50, 120] {
            reached(&mut confirmed, count).await?;
            federation.kill(ALPHA).await?;
            federation.restart(ALPHA).await?;
        }
        Ok(())
    };
    tokio::try_join!(sending, killing)?;
    for prefix in ["group", "alone", "theirs"] {
        got_all(&bob, prefix).await?;
    }
    got_all(&ann, "back").await?;
    federation.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn membership_is_whole_after_a_kill() -> Result<()> {
    let World { mut federation, ann, bob, .. } = World::start().await?;
    let mut groups = Vec::new();
    // Each group is there for both or for nobody, however the kills fall.
    for round in 0..3 {
        let creating = async {
            let mut created = Vec::new();
            for number in 0..6 {
                let name = format!("Round {round} group {number}");
                if let Ok(group) = ann.group(&name, &[&bob.id]).await {
                    created.push(group);
                }
            }
            anyhow::Ok(created)
        };
        let killing = async {
            federation.kill(if round % 2 == 0 { BETA } else { ALPHA }).await?;
            federation.restart(if round % 2 == 0 { BETA } else { ALPHA }).await
        };
        let (created, ()) = tokio::try_join!(creating, killing)?;
        groups.extend(created);
    }
    let sees = async |user: &User| {
        within(RETRY, "every group that was confirmed", async || {
            let ids = user.conversation_ids().await?;
            let missing = groups.iter().filter(|group| !ids.contains(group)).count();
            ensure!(missing == 0, "{} misses {missing} of {} groups", user.person.name, groups.len());
            Ok(())
        })
        .await
    };
    sees(&ann).await?;
    sees(&bob).await?;
    // A group that was not confirmed may be there all the same, but then for both.
    let shared = async |user: &User| -> Result<BTreeSet<_>> {
        let ids = user.conversation_ids().await?.into_iter();
        Ok(ids.filter(|conversation| conversation.id.uuid() != user.id.id.uuid()).collect())
    };
    within(RETRY, "the same groups on both sides", async || {
        let (anns, bobs) = (shared(&ann).await?, shared(&bob).await?);
        ensure!(anns == bobs, "{anns:?} and {bobs:?}");
        Ok(())
    })
    .await?;
    let last = eventually("a group in the end", async || ann.group("After everything", &[&bob.id]).await).await?;
    eventually("a message in the end", async || ann.send(&last, "still works").await).await?;
    federation.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_backend_slows_nobody_else() -> Result<()> {
    let federation = processes(&[ALPHA, BETA, GAMMA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let dora = federation.user(ALPHA, "Dora").await?;
    let bob = federation.user(BETA, "Bob").await?;
    let cleo = federation.user(GAMMA, "Cleo").await?;
    let direct = connect(&ann, &bob).await?;
    connect(&dora, &cleo).await?;
    connect(&dora, &bob).await?;
    let mixed = dora.group("With the stopped one", &[&bob.id, &cleo.id]).await?;
    for (user, conversation) in [(&ann, &direct), (&bob, &direct), (&dora, &mixed)] {
        eventually("a first message", async || user.send(conversation, "warm").await).await?;
    }
    federation.freeze(GAMMA)?;
    let (progress, mut running) = watch::channel(false);
    // Dora writes to the stopped backend all the while, and asks it for things.
    let stuck = async {
        for text in texts("mixed", 5) {
            confirm(&dora, &mixed, &text).await?;
            progress.send_replace(true);
            let path = format!("/users/{GAMMA}/{}", cleo.id.id);
            let answer = dora.get(&path).await?;
            ensure!([521, 525, 533].contains(&answer.status), "{answer:?}");
        }
        anyhow::Ok(())
    };
    let others = async {
        // From the start, when nobody knows yet that the backend hangs, until the last.
        let mut slowest = Duration::ZERO;
        for text in texts("direct", 100) {
            let begun = Instant::now();
            ann.send(&direct, &text).await?;
            slowest = slowest.max(begun.elapsed());
        }
        let begun = Instant::now();
        ann.get(&format!("/users/{BETA}/{}", bob.id.id)).await?.expect(200)?;
        slowest = slowest.max(begun.elapsed());
        within_test(running.wait_for(|running| *running)).await??;
        Ok(slowest)
    };
    let ((), slowest) = tokio::try_join!(stuck, others)?;
    // A call to the stopped backend takes as long as its deadline; whoever waited for one would show it.
    ensure!(slowest < Duration::from_secs(5), "somebody waited {slowest:?} for the stopped backend");
    federation.thaw(GAMMA)?;
    let expected = texts("mixed", 5);
    within(RETRY, "the backlog of the backend that goes on", async || {
        let inbox = cleo.inbox(None).await?;
        let got: Vec<_> = inbox.into_iter().map(|it| it.text).filter(|text| text.starts_with("mixed")).collect();
        ensure!(got == expected, "{got:?}");
        Ok(())
    })
    .await?;
    federation.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn any_service_may_be_killed_at_any_time() -> Result<()> {
    let options = Options { binary: Some(binary()), apart: true, ..Options::of(&[ALPHA, BETA]) };
    let World { mut federation, ann, bob, one_to_one, anns, bobs } =
        World::of(LocalFederation::start(&options).await?).await?;
    let (progress, mut confirmed) = watch::channel(0);
    let sending = async {
        tokio::try_join!(
            send_all(&ann, &anns, "group", Some(&progress)),
            send_all(&ann, &one_to_one, "alone", None),
            send_all(&bob, &anns, "back", None),
            send_all(&bob, &bobs, "theirs", None),
        )
    };
    let killing = async {
        for (number, service) in ["conversations", "notifications", "federator", "users"].into_iter().enumerate() {
            reached(&mut confirmed, 30 * (number + 1)).await?;
            let service = service_of(ALPHA, service);
            federation.kill(&service).await?;
            federation.restart(&service).await?;
        }
        Ok(())
    };
    tokio::try_join!(sending, killing)?;
    for prefix in ["group", "alone"] {
        got_all(&bob, prefix).await?;
    }
    for prefix in ["back", "theirs"] {
        got_all(&ann, prefix).await?;
    }
    federation.stop().await
}
