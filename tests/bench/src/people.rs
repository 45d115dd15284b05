//! The people of a measurement and the conversations among them.

use std::{path::PathBuf, sync::Arc};

use aldis_harness::{
    client::{User, connect},
    local::{LocalFederation, Options},
};
use aldis_types::{ConversationId, Qualified};
use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::{ALPHA, BETA, process, process::Usage};

/// People who register at the same time; registering costs a password hash each.
const AT_ONCE: usize = 4;

/// The first message of a conversation, which may still be on its way when a measurement begins.
pub(crate) const GREETING: &str = "hello";

/// One sender in one conversation, and everybody who reads it on a device of his own.
pub(crate) struct Flow {
    pub(crate) sender: Arc<User>,
    pub(crate) readers: Vec<Arc<User>>,
    pub(crate) conversation: Qualified<ConversationId>,
}

/// A running federation with its people.
pub(crate) struct Crowd {
    federation: LocalFederation,
    pub(crate) pairs: Vec<Flow>,
    pub(crate) group: Flow,
}

async fn register(federation: &LocalFederation, domain: &str, count: usize) -> Result<Vec<Arc<User>>> {
    let users = (0..count)
        .map(|number| async move { federation.user(domain, &format!("Person {number}")).await.map(Arc::new) });
    stream::iter(users).buffered(AT_ONCE).try_collect().await
}

impl Crowd {
    /// Starts both backends and brings everybody together.
    pub(crate) async fn gather(binary: Option<PathBuf>, pairs: u16, group: u16) -> Result<Self> {
        // A few people open all the idle sockets.
        let settings = "[notifications]\nsockets_per_user = 100000\n".to_owned();
        let options = Options { binary, settings, ..Options::of(&[ALPHA, BETA]) };
        let federation = LocalFederation::start(&options).await?;
        let each = usize::from(pairs).max(usize::from(group.div_ceil(2)));
        eprintln!("registering {each} people on each backend");
        let (alphas, betas) = tokio::try_join!(register(&federation, ALPHA, each), register(&federation, BETA, each))?;
        let pairs = pair_up(&alphas, &betas, pairs.into()).await?;
        let group = assemble(&alphas, &betas, group.into()).await?;
        Ok(Self { federation, pairs, group })
    }

    /// Processor time of both backends so far.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        for domain in [ALPHA, BETA] {
            usage.0.insert(domain.to_owned(), process::cpu(self.federation.pid(domain)?)?);
        }
        Ok(usage)
    }

    /// The process of a backend.
    pub(crate) fn pid(&self, domain: &str) -> Result<i32> {
        self.federation.pid(domain)
    }

    /// Replaces the process of a backend.
    pub(crate) async fn start_again(&mut self, domain: &str) -> Result<()> {
        self.federation.kill(domain).await?;
        self.federation.restart(domain).await
    }

    /// People with devices, of one backend.
    pub(crate) fn people_of<'a>(&'a self, domain: &'a str) -> impl Iterator<Item = &'a Arc<User>> {
        let all = self.pairs.iter().flat_map(|flow| std::iter::once(&flow.sender).chain(&flow.readers));
        all.filter(move |user| user.id.domain.as_str() == domain)
    }

    /// Stops everything.
    pub(crate) async fn leave(self) -> Result<()> {
        self.federation.stop().await
    }
}

/// Connects the first `count` of both sides, writing in turns from alpha to beta and from beta to alpha.
async fn pair_up(alphas: &[Arc<User>], betas: &[Arc<User>], count: usize) -> Result<Vec<Flow>> {
    let mut flows = Vec::with_capacity(count);
    for (number, (alpha, beta)) in alphas.iter().zip(betas).take(count).enumerate() {
        let (sender, reader) = if number % 2 == 0 { (alpha, beta) } else { (beta, alpha) };
        let conversation = connect(sender, reader).await?;
        // The first message finds the devices of the other side, so that the measurement needs no second try.
        sender.send(&conversation, GREETING).await?;
        flows.push(Flow { sender: sender.clone(), readers: vec![reader.clone()], conversation });
    }
    Ok(flows)
}

/// A group of `size` with half of its members on each backend; its creator is the sender.
async fn assemble(alphas: &[Arc<User>], betas: &[Arc<User>], size: usize) -> Result<Flow> {
    let (creator, rest) = alphas.split_first().context("nobody on the first backend")?;
    let local = rest.iter().take(size.div_ceil(2).saturating_sub(1));
    let readers: Vec<Arc<User>> = local.chain(betas.iter().take(size / 2)).cloned().collect();
    for reader in &readers {
        if creator.relation(&reader.id).await? != "accepted" {
            connect(creator, reader).await?;
        }
    }
    let members: Vec<_> = readers.iter().map(|reader| &reader.id).collect();
    let conversation = creator.group("Measured group", &members).await?;
    creator.send(&conversation, GREETING).await?;
    Ok(Flow { sender: creator.clone(), readers, conversation })
}
