//! What many tests begin with.

use std::path::PathBuf;

use aldis_harness::{
    backend::Federation,
    client::{User, connect},
    local::{LocalFederation, Options},
};
use aldis_types::{ConversationId, Qualified};
use anyhow::Result;

pub(crate) const ALPHA: &str = "alpha.test";
pub(crate) const BETA: &str = "beta.test";
pub(crate) const GAMMA: &str = "gamma.test";

/// Ann of alpha.test and Bob of beta.test, connected.
pub(crate) struct Pair {
    pub(crate) federation: Federation,
    pub(crate) ann: User,
    pub(crate) bob: User,
    /// Their one-to-one conversation.
    pub(crate) conversation: Qualified<ConversationId>,
}

impl Pair {
    pub(crate) async fn connected() -> Result<Self> {
        let federation = Federation::start(&[ALPHA, BETA]).await?;
        let ann = federation.user(ALPHA, "Ann").await?;
        let bob = federation.user(BETA, "Bob").await?;
        let conversation = connect(&ann, &bob).await?;
        Ok(Self { federation, ann, bob, conversation })
    }
}

/// Ann of alpha.test, Bob of beta.test and Cleo of gamma.test; Ann is connected with both.
pub(crate) struct Three {
    pub(crate) federation: Federation,
    pub(crate) ann: User,
    pub(crate) bob: User,
    pub(crate) cleo: User,
}

impl Three {
    pub(crate) async fn connected() -> Result<Self> {
        let federation = Federation::start(&[ALPHA, BETA, GAMMA]).await?;
        let ann = federation.user(ALPHA, "Ann").await?;
        let bob = federation.user(BETA, "Bob").await?;
        let cleo = federation.user(GAMMA, "Cleo").await?;
        connect(&ann, &bob).await?;
        connect(&ann, &cleo).await?;
        Ok(Self { federation, ann, bob, cleo })
    }
}

/// A federation in processes of its own, run by the binary that was built with these tests.
pub(crate) async fn processes(domains: &[&str]) -> Result<LocalFederation> {
    let options = Options { binary: Some(binary()), ..Options::of(domains) };
    LocalFederation::start(&options).await
}

/// The binary that was built with these tests.
pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_aldis-it"))
}

/// Texts of messages, numbered from 0.
pub(crate) fn texts(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix} {number}")).collect()
}

/// The sum of a metric of a backend, or of one of its services, over all its labels.
pub(crate) async fn metric(federation: &LocalFederation, of: &str, name: &str) -> Result<f64> {
    let page = federation.operations(of, "/metrics").await?.expect(200)?;
    let text = String::from_utf8(page.body.to_vec())?;
    let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}
