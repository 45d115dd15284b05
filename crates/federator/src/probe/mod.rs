//! Looks at federation as an operator would: at our own set-up, and at each hop of the way to a partner.
//!
//! Needs no running federator, changes nothing here, and leaves nothing at a partner but a greeting. Nothing that is found
//! stops what comes after it, unless that cannot be told without it; then the later checks say so.

mod authority;
mod certificate;
mod names;
mod own;
mod peer;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use aldis_peers::Policy;
use aldis_runtime::{SharedClock, SharedRandom};
use aldis_types::Domain;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::names::Views;
pub use self::{authority::Authority, certificate::CertificateFacts};
use crate::{
    Capabilities, Config,
    discovery::Discovery,
    egress::PeerContext,
    network::{Connector, TcpConnector},
    tls::{Files, Pins, Tls, TlsError},
};

/// On which side something has to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Here.
    Ours,
    /// At the partner.
    Theirs,
    /// In the network between, or at either end.
    Between,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All is well.
    Passed,
    /// It works, and deserves attention.
    Warning,
    /// It does not work.
    Failed,
    /// It could not be told.
    Skipped,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at; the same from release to release.
    pub name: &'static str,
    /// Which of several, such as the target of an SRV record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found, one sentence for people.
    pub found: String,
    /// Who has to act; only after a warning or failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub side: Option<Side>,
    /// What to do; only after a warning or failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Check {
    fn of(name: &'static str, outcome: Outcome, found: impl Into<String>) -> Self {
        Self { name, about: None, outcome, found: found.into(), side: None, advice: None }
    }

    /// All is well.
    pub fn passed(name: &'static str, found: impl Into<String>) -> Self {
        Self::of(name, Outcome::Passed, found)
    }

    /// It could not be told.
    pub fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Self::of(name, Outcome::Skipped, why)
    }

    /// It does not work.
    pub fn failed(name: &'static str, side: Side, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { side: Some(side), advice: Some(advice.into()), ..Self::of(name, Outcome::Failed, found) }
    }

    /// It works, and deserves attention.
    pub fn warning(name: &'static str, side: Side, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { outcome: Outcome::Warning, ..Self::failed(name, side, found, advice) }
    }

    /// The same check of one of several.
    #[must_use]
    pub fn about(mut self, what: impl Into<String>) -> Self {
        self.about = Some(what.into());
        self
    }
}

/// Longest text of somebody else that is shown.
const MAX_TEXT_CHARS: usize = 300;

/// A text of somebody else, fit for a terminal.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT_CHARS).collect()
}

/// What a probe needs.
pub struct ProbeDependencies {
    /// Our own domain.
    pub domain: Domain,
    /// Time of day.
    pub clock: SharedClock,
    /// Randomness.
    pub random: SharedRandom,
    /// What this backend tells peers about itself.
    pub capabilities: Capabilities,
    /// Further DNS servers whose answers are compared, such as a public one.
    pub other_dns: Vec<SocketAddr>,
}

/// Our certificate, keys and trust, as the files say.
struct Own {
    tls: Arc<Tls>,
    chain: Vec<rustls_pki_types::CertificateDer<'static>>,
    facts: CertificateFacts,
    /// The authorities that are trusted from a file.
    authorities: Vec<rustls_pki_types::CertificateDer<'static>>,
}

/// Looks at federation.
pub struct Probe {
    config: Config,
    domain: Domain,
    clock: SharedClock,
    connector: Arc<dyn Connector>,
    views: Views,
    own: Result<Own, TlsError>,
    context: Option<Arc<PeerContext>>,
    /// Ends all connections with the probe.
    _end: tokio_util::sync::DropGuard,
}

impl Probe {
    /// A probe for the federation settings of a backend. Unusable certificates and DNS are findings, not errors.
    pub fn new(config: &Config, deps: ProbeDependencies) -> Self {
        let connector: Arc<dyn Connector> = Arc::new(TcpConnector);
        let views = Views::new(config, &deps.other_dns);
        let pins = Arc::new(Pins::new(config));
        let own = read_own(config, pins, deps.clock.clone());
        let shutdown = CancellationToken::new();
        let context = own.as_ref().ok().map(|own| {
            Arc::new(PeerContext {
                domain: deps.domain.clone(),
                capabilities: deps.capabilities,
                policy: Policy::new(Duration::ZERO),
                clock: deps.clock.clone(),
                random: deps.random,
                tls: own.tls.clone(),
                discovery: Arc::new(Discovery::new(config, views.configured())),
                connector: connector.clone(),
                connect_timeout: config.connect_timeout(),
                call_deadline: config.call_deadline(),
                connection_max_age: config.connection_max_age(),
                max_calls: 1,
                max_streams: 1,
                max_transfers: 1,
                transfer_idle: config.transfer_idle(),
                max_bytes: config.max_message_bytes,
                breaker_failures: config.breaker_failures,
                breaker_pause: Duration::from_millis(config.breaker_pause_ms),
                health_check: Duration::ZERO,
                shutdown: shutdown.clone(),
            })
        });
        Self {
            config: config.clone(),
            domain: deps.domain,
            clock: deps.clock,
            connector,
            views,
            own,
            context,
            _end: shutdown.drop_guard(),
        }
    }

    /// Our certificate as the file says; `None` when it cannot be used.
    pub fn certificate(&self) -> Option<&CertificateFacts> {
        self.own.as_ref().ok().map(|own| &own.facts)
    }

    /// The authority of our certificate, if it is in our files: at the end of the chain, or among those that we trust.
    /// `None` for a public one, and while our certificate is not valid.
    pub fn authority(&self) -> Option<Authority> {
        let own = self.own.as_ref().ok()?;
        let above =
            own.chain.iter().skip(1).rev().filter(|it| CertificateFacts::read(it).is_some_and(|it| it.self_signed));
        let candidates: Vec<_> = above.chain(&own.authorities).cloned().collect();
        authority::of(&own.chain, &candidates, self.clock.now())
    }

    /// The targets of our SRV record, as `host:port`, in no particular order; none when they cannot be found.
    pub async fn targets(&self) -> Vec<String> {
        let found = self.views.srv(&self.config, &self.domain).await;
        found.unwrap_or_default().iter().map(|target| format!("{}:{}", target.host, target.port)).collect()
    }
}

fn read_own(config: &Config, pins: Arc<Pins>, clock: SharedClock) -> Result<Own, TlsError> {
    let tls = Tls::load(config, pins, clock)?;
    let files = Files::read(config)?;
    let chain = Files::certificates(&config.certificate_file, &files.certificate)?;
    let facts = chain.first().and_then(CertificateFacts::read).ok_or_else(|| TlsError::Pem {
        path: config.certificate_file.clone(),
        text: "the first certificate cannot be read".to_owned(),
    })?;
    let authorities = match (&config.ca_file, &files.ca) {
        (Some(path), Some(text)) => Files::certificates(path, text)?,
        _ => Vec::new(),
    };
    Ok(Own { tls, chain, facts, authorities })
}
