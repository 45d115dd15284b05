//! Which TURN and SFT servers there are now: those that are listed, those in a file, and those that DNS names.
//!
//! One task looks after files and DNS at a steady interval; requests read the latest lists without waiting. What cannot
//! be read, or is empty, leaves the last good list in force.

use std::{path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::io::AsyncReadExt;

use super::discovery::{FindServers, ServerError};
use crate::config;

/// Largest file of TURN servers.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// Most servers of a kind.
pub(crate) const MAX_SERVERS: usize = 256;

/// The servers of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lists {
    /// `turn:` and `turns:` URIs.
    pub(crate) turn: Vec<String>,
    /// `https:` URLs.
    pub(crate) sft: Vec<String>,
}

/// What was found outside of the configuration.
#[derive(Debug, Default)]
struct Found {
    file: Vec<String>,
    turn: Vec<String>,
    sft: Vec<String>,
}

/// The servers that clients are told of. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Servers {
    config: Arc<config::Config>,
    lists: Arc<ArcSwap<Lists>>,
}

impl Servers {
    /// Those of the configuration; the others come with [`Servers::keep`].
    pub(crate) fn new(config: Arc<config::Config>) -> Self {
        let calls = &config.calls;
        let lists = Lists { turn: calls.turn_uris.clone(), sft: calls.sft_urls.clone() };
        Self { lists: Arc::new(ArcSwap::from_pointee(lists)), config }
    }

    /// The latest lists.
    pub(crate) fn now(&self) -> Arc<Lists> {
        self.lists.load_full()
    }

    /// Whether anything has to be looked after.
    pub(crate) fn changes(&self) -> bool {
        let calls = &self.config.calls;
        calls.turn_uris_file.is_some() || calls.turn_discovery.is_some() || calls.sft_discovery.is_some()
    }

    /// Keeps the lists up to date for as long as it is polled.
    pub(crate) async fn keep(self, dns: Arc<dyn FindServers>) {
        let mut interval = tokio::time::interval(Duration::from_secs(self.config.calls.discovery_seconds));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut found = Found::default();
        loop {
            interval.tick().await;
            self.look(dns.as_ref(), &mut found).await;
        }
    }

    async fn look(&self, dns: &dyn FindServers, found: &mut Found) {
        let calls = &self.config.calls;
        if let Some(path) = &calls.turn_uris_file {
            replace(&mut found.file, read(path).await, "turn_uris_file");
        }
        if let Some(domain) = &calls.turn_discovery {
            replace(&mut found.turn, turn(dns, domain.as_str()).await, "turn_discovery");
        }
        if let Some(domain) = &calls.sft_discovery {
            let name = format!("{}._tcp.{domain}", calls.sft_service);
            let targets = dns.find(&name).await;
            let urls =
                targets.map(|targets| targets.iter().map(|it| format!("https://{}:{}", it.host, it.port)).collect());
            replace(&mut found.sft, urls, "sft_discovery");
        }
        let lists = Lists {
            turn: distinct([&calls.turn_uris, &found.file, &found.turn]),
            sft: distinct([&calls.sft_urls, &found.sft]),
        };
        if **self.lists.load() != lists {
            tracing::info!(turn = lists.turn.len(), sft = lists.sft.len(), "servers for calls changed");
            metrics::gauge!("aldis_calls_servers", "kind" => "turn").set(count(&lists.turn));
            metrics::gauge!("aldis_calls_servers", "kind" => "sft").set(count(&lists.sft));
            self.lists.store(Arc::new(lists));
        }
    }
}

#[allow(clippy::cast_precision_loss)]
fn count(list: &[String]) -> f64 {
    list.len() as f64
}

/// All of them once, in the order in which they are given.
fn distinct<'a>(lists: impl IntoIterator<Item = &'a Vec<String>>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for server in lists.into_iter().flatten() {
        if all.len() < MAX_SERVERS && !all.contains(server) {
            all.push(server.clone());
        }
    }
    all
}

fn replace(kept: &mut Vec<String>, found: Result<Vec<String>, ServerError>, setting: &'static str) {
    match found {
        Ok(found) if !found.is_empty() => *kept = found,
        Ok(_) => tracing::warn!(setting, kept = kept.len(), "no servers for calls found; the last ones stay"),
        Err(error) => {
            tracing::warn!(setting, %error, kept = kept.len(), "servers for calls cannot be found; the last ones stay");
        }
    }
}

/// A URI a line; empty lines and those that begin with `#` are left out.
async fn read(path: &Path) -> Result<Vec<String>, ServerError> {
    let file = tokio::fs::File::open(path).await?;
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).await?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(ServerError::TooLarge(MAX_FILE_BYTES));
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| if config::is_turn_uri(line) { Ok(line.to_owned()) } else { Err(ServerError::NotTurn) }).collect()
}

/// By UDP, TCP and TLS. A service without records is not offered; one that cannot be asked for leaves all unknown.
async fn turn(dns: &dyn FindServers, domain: &str) -> Result<Vec<String>, ServerError> {
    let mut uris = Vec::new();
    for (service, scheme, transport) in
        [("_turn._udp", "turn", "udp"), ("_turn._tcp", "turn", "tcp"), ("_turns._tcp", "turns", "tcp")]
    {
        let targets = dns.find(&format!("{service}.{domain}")).await?;
        uris.extend(targets.iter().map(|it| format!("{scheme}:{}:{}?transport={transport}", it.host, it.port)));
    }
    Ok(uris)
}
