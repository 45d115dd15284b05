//! A connection that ends between a commit at the owner and its answer: what the owner did reaches the backend of the actor
//! in the lane of the conversation like everybody else, once and in order, and doing it again changes nothing.

use std::{collections::BTreeSet, net::SocketAddr};

use aldis_harness::{
    backend::{Federation, federator_host},
    client::{Draft, Recipients, Status, User, connect, path_of},
    dns::Target,
    wait::eventually,
};
use anyhow::{Result, ensure};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use crate::support::{ALPHA, BETA};

/// What happens to the answers on a link.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    Pass,
    /// They are held back, while requests pass.
    Held,
    /// The connections end, and what was held is gone.
    Cut,
}

/// The way to a federator.
struct Link {
    port: u16,
    answers: watch::Sender<Answers>,
    accepting: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Link {
    /// Listens beside a federator.
    async fn to(federator: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((federator.ip(), 0)).await?;
        let port = listener.local_addr()?.port();
        let (answers, state) = watch::channel(Answers::Pass);
        let accepting = tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                tokio::spawn(carry(caller, federator, state.clone()));
            }
        });
        Ok(Self { port, answers, accepting })
    }

    fn set(&self, answers: Answers) {
        self.answers.send_replace(answers);
    }
}

async fn carry(from: TcpStream, federator: SocketAddr, mut state: watch::Receiver<Answers>) -> Result<()> {
    let to = TcpStream::connect(federator).await?;
    let ((mut requests, mut back), (mut answers, mut on)) = (from.into_split(), to.into_split());
    let mut held = state.clone();
    let backward = async move {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let count = answers.read(&mut bytes).await?;
            held.wait_for(|state| *state == Answers::Pass).await?;
            if count == 0 {
                return anyhow::Ok(());
            }
            back.write_all(&bytes[..count]).await?;
        }
    };
    tokio::select! {
        end = tokio::io::copy(&mut requests, &mut on) => end.map(drop)?,
        end = backward => end?,
        cut = state.wait_for(|state| *state == Answers::Cut) => drop(cut?),
    }
    Ok(())
}

/// Ann of alpha.test with a group in which Bob and Dora of beta.test are, and the way from beta.test to alpha.test.
struct Scene {
    _federation: Federation,
    link: Link,
    ann: User,
    bob: User,
    dora: User,
}

impl Scene {
    async fn set() -> Result<Self> {
        let federation = Federation::start(&[ALPHA, BETA]).await?;
        let link = Link::to(federation.federator(ALPHA)?).await?;
        federation.dns().set_federator(ALPHA, &[Target::new(federator_host(ALPHA), link.port)])?;
        let ann = federation.user(ALPHA, "Ann").await?;
        let bob = federation.user(BETA, "Bob").await?;
        let dora = federation.user(BETA, "Dora").await?;
        connect(&ann, &bob).await?;
        connect(&ann, &dora).await?;
        Ok(Self { _federation: federation, link, ann, bob, dora })
    }
}

/// Names that the conversation got, and texts, in the order of the queue.
async fn heard(user: &User) -> Result<Vec<String>> {
    let mut heard = Vec::new();
    for event in user.queue(None).await? {
        if event.kind() == "conversation.rename" {
            heard.push(event.value["data"]["name"].as_str().unwrap_or_default().to_owned());
        }
        heard.extend(user.read_all([&event])?.into_iter().map(|message| message.text));
    }
    Ok(heard)
}

async fn hears(user: &User, expected: &[&str]) -> Result<()> {
    eventually("everything is heard, once and in order", async || {
        let heard = heard(user).await?;
        ensure!(heard == expected, "{heard:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_owner_did_without_answering_arrives_once_and_in_order() -> Result<()> {
    let Scene { _federation, link, ann, bob, dora } = Scene::set().await?;
    let group = ann.group("First", &[&bob.id, &dora.id]).await?;
    eventually("the group", async || bob.conversation(&group).await?.expect(200)).await?;
    let role = path_of(&group, &format!("/members/{}/{}", bob.id.domain, bob.id.id));
    ann.put(&role, &json!({ "conversation_role": "wire_admin" })).await?.expect(200)?;
    bob.rename(&group, "Answered").await?.expect(200)?;
    hears(&dora, &["Answered"]).await?;

    // A change: the answer is lost after everybody has heard of it.
    link.set(Answers::Held);
    let asking = async {
        let answer = bob.rename(&group, "Unanswered").await?;
        answer.expect_one_of(&[521, 525, 533])
    };
    let losing = async {
        hears(&dora, &["Answered", "Unanswered"]).await?;
        link.set(Answers::Cut);
        anyhow::Ok(())
    };
    tokio::try_join!(asking, losing)?;
    link.set(Answers::Pass);
    eventually("the way is open again", async || bob.rename(&group, "Unanswered").await?.expect(204)).await?;
    bob.rename(&group, "Next").await?.expect(200)?;
    hears(&dora, &["Answered", "Unanswered", "Next"]).await?;

    // A message: sent again, it gets the answer that was lost.
    let devices = [&ann, &dora].map(|user| Ok((user.id.clone(), BTreeSet::from([user.client()?]))));
    let recipients: Recipients = devices.into_iter().collect::<Result<_>>()?;
    let body = Draft::new(recipients, "Hello").encode(bob.client()?);
    link.set(Answers::Held);
    let sending = async {
        let answer = bob.post_message(&group, body.clone()).await?;
        answer.expect_one_of(&[521, 525, 533])
    };
    let losing = async {
        hears(&dora, &["Answered", "Unanswered", "Next", "Hello"]).await?;
        link.set(Answers::Cut);
        anyhow::Ok(())
    };
    tokio::try_join!(sending, losing)?;
    link.set(Answers::Pass);
    let again = async || bob.post_message(&group, body.clone()).await?.expect(201);
    let first = Status::of(&eventually("the way is open again", again).await?)?;
    ensure!(Status::of(&again().await?)? == first, "the answers differ");
    bob.rename(&group, "Last").await?.expect(200)?;
    for user in [&ann, &dora] {
        hears(user, &["Answered", "Unanswered", "Next", "Hello", "Last"]).await?;
    }
    let seen = bob.conversation(&group).await?.expect(200)?.value()?;
    ensure!(seen["name"] == "Last", "{seen}");
    Ok(())
}
