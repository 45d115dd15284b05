//! `[federation]`: how this backend meets others.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use aldis_runtime::networks::Networks;
use aldis_types::Domain;
use documented::{Documented, DocumentedFields};
use rustls_pki_types::ServerName;
use serde::{Deserialize, Serialize};

/// How the federator meets other backends. Without this table the backend federates with nobody, and clients that ask for
/// another domain get `federation-not-enabled`. Certificate, key and authorities are looked at every two seconds and put in
/// force when they change, without a restart.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where other backends reach us. TLS ends here and nowhere before.
    pub listen: SocketAddr,
    /// Our certificate and every intermediate after it. It serves both directions: its name must be the target of our
    /// SRV record, and the extended key usages, if any, must include server and client.
    ///
    /// Allowed: PEM.
    pub certificate_file: PathBuf,
    /// The private key of the certificate.
    ///
    /// Allowed: PEM.
    pub key_file: PathBuf,
    /// The authorities whose certificates we accept from other backends. Needed unless `trust` is `"system"`, or pins
    /// bring their own.
    ///
    /// Allowed: PEM.
    pub ca_file: Option<PathBuf>,
    /// Which authorities are trusted: those of `ca_file`, those of the machine, or both.
    ///
    /// Allowed: `private`, `system`, `both`.
    pub trust: Trust,
    /// DNS server to ask instead of the machine's own, as `"127.0.0.1:53"`.
    pub dns: Option<SocketAddr>,
    /// Where backends are that have no SRV record, as in a closed network; such a domain is never looked up in DNS.
    ///
    /// Allowed: 1 to 16 targets per domain.
    pub static_targets: BTreeMap<Domain, Vec<StaticTarget>>,
    /// What the certificate of a backend must fulfil beyond being issued by a trusted authority.
    pub pins: BTreeMap<Domain, Pin>,
    /// Accept TLS 1.2 beside 1.3, for peers behind old software.
    pub tls12: bool,
    /// A TCP load balancer stands in front, and says with the PROXY protocol (version 1 or 2) where a connection
    /// comes from. Connections from `trusted_proxies` must begin with it; all others are taken for what they are.
    ///
    /// Allowed: with `trusted_proxies`.
    pub proxy_protocol: bool,
    /// Those load balancers.
    ///
    /// Allowed: networks or addresses.
    pub trusted_proxies: Vec<String>,
    /// Continue the traces of calls from other backends. Otherwise every call from outside begins a trace of its own,
    /// linked to theirs.
    pub continue_traces: bool,
    /// Time for connecting to one address of a peer, TLS and the first exchange included.
    ///
    /// Allowed: 50 to 60000.
    pub connect_timeout_ms: u64,
    /// Longest time that a call to or from a peer may take. Event streams are exempt, and of files only the beginning
    /// is meant.
    ///
    /// Allowed: 50 to 120000.
    pub call_deadline_ms: u64,
    /// Calls to one peer at the same time; more are refused at once. A peer may have four times as many under way to
    /// us.
    ///
    /// Allowed: 1 to 65536.
    pub max_concurrent_per_peer: u32,
    /// Event streams to one peer at the same time.
    ///
    /// Allowed: 1 to 4096.
    pub max_streams_per_peer: u32,
    /// Files fetched from one peer at the same time; more are refused at once.
    ///
    /// Allowed: 1 to 4096.
    pub max_transfers_per_peer: u32,
    /// Longest pause in the transfer of a file to or from a peer. A transfer that goes on may take as long as it
    /// needs.
    ///
    /// Allowed: 50 to 600000.
    pub transfer_idle_ms: u64,
    /// After so many failures in a row a peer is left alone for a moment.
    ///
    /// Allowed: 1 to 1000.
    pub breaker_failures: u32,
    /// Longest time that a peer is left alone before it is tried again.
    ///
    /// Allowed: 50 to 60000.
    pub breaker_pause_ms: u64,
    /// Pause between two health checks of a listed backend; they keep its connection warm and tell the status page
    /// and `aldis remote list` whether it can be reached. 0: none.
    ///
    /// Allowed: 0 to 3600.
    pub health_check_seconds: u64,
    /// Age at which a connection is replaced. Streams on it end after a short drain and are opened again.
    ///
    /// Allowed: 1 to 604800.
    pub connection_max_age_seconds: u64,
    /// Connections from other backends at the same time, all together.
    ///
    /// Allowed: 1 to 65536.
    pub max_connections: u32,
    /// Calls and streams on one connection from another backend at the same time.
    ///
    /// Allowed: 8 to 65536.
    pub max_streams_per_connection: u32,
    /// For how long the last known policy stays in force without word from the users service; after that everybody is
    /// refused.
    ///
    /// Allowed: 20 to 86400.
    pub max_policy_age_seconds: u64,
    /// Largest message of a call or an event stream to or from a peer; told to peers, which report larger messages as
    /// not sent.
    ///
    /// Allowed: 1048576 to 1073741824.
    pub max_message_bytes: u64,
    /// For how long an expired DNS answer may still be used while DNS does not work.
    ///
    /// Allowed: 0 to 604800.
    pub stale_dns_seconds: u64,
}

/// Which certificate authorities are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// Those of the machine.
    System,
    /// Those of `ca_file`.
    #[default]
    Private,
    /// Both.
    Both,
}

impl Trust {
    pub(crate) fn private(self) -> bool {
        self != Self::System
    }

    pub(crate) fn system(self) -> bool {
        self != Self::Private
    }
}

/// Where a backend is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StaticTarget {
    /// Name in the peer's certificate; also looked up, unless `address` is given.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Address to connect to, instead of looking up `host`.
    #[serde(default)]
    pub address: Option<IpAddr>,
}

/// What the certificate of one backend must fulfil. At least one part is given, and all given parts must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pin {
    /// SHA-256 of the public key (`SubjectPublicKeyInfo`, DER) in hexadecimal; one of these. Proves the peer without DNS.
    pub spki_sha256: Vec<String>,
    /// Names of which the certificate must carry one, instead of a target of the SRV record. Proves the peer without
    /// DNS.
    pub names: Vec<String>,
    /// PEM file, by its absolute path, with the only authorities that may issue this peer's certificate. They are
    /// trusted for no other peer.
    pub ca_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8443)),
            certificate_file: PathBuf::new(),
            key_file: PathBuf::new(),
            ca_file: None,
            trust: Trust::default(),
            dns: None,
            static_targets: BTreeMap::new(),
            pins: BTreeMap::new(),
            tls12: false,
            proxy_protocol: false,
            trusted_proxies: Vec::new(),
            continue_traces: false,
            connect_timeout_ms: 5_000,
            call_deadline_ms: 10_000,
            max_concurrent_per_peer: 256,
            max_streams_per_peer: 64,
            max_transfers_per_peer: 32,
            transfer_idle_ms: 30_000,
            breaker_failures: 5,
            breaker_pause_ms: 5_000,
            health_check_seconds: 10,
            connection_max_age_seconds: 3_600,
            max_connections: 1_024,
            max_streams_per_connection: 512,
            max_policy_age_seconds: 60,
            max_message_bytes: 48 * 1024 * 1024,
            stale_dns_seconds: 24 * 3_600,
        }
    }
}

/// Keys of the section whose values are file names, relative to the folder of the configuration file.
pub const PATHS: &[&str] = &["certificate_file", "key_file", "ca_file"];

const MAX_TARGETS: usize = 16;
const MAX_PIN_PARTS: usize = 16;

fn within<T: PartialOrd + std::fmt::Display>(key: &str, value: T, least: T, most: T) -> Result<(), String> {
    if (&least..=&most).contains(&&value) {
        Ok(())
    } else {
        Err(format!("`federation.{key}` = {value}; allowed: {least} to {most}"))
    }
}

impl Config {
    /// Refuses what cannot be used; the text names the key, the value and what is allowed.
    pub fn check(&self) -> Result<(), String> {
        for (key, file) in [("certificate_file", &self.certificate_file), ("key_file", &self.key_file)] {
            if file.as_os_str().is_empty() {
                return Err(format!("`federation.{key}` is missing; allowed: the path of a PEM file"));
            }
        }
        if self.trust.private() && self.ca_file.is_none() && self.pins.values().all(|pin| pin.ca_file.is_none()) {
            return Err(
                "`federation.ca_file` is missing; it is needed unless `federation.trust` = \"system\"".to_owned()
            );
        }
        self.proxies()?;
        if self.proxy_protocol == self.trusted_proxies.is_empty() {
            return Err("`federation.proxy_protocol` and `federation.trusted_proxies` are needed together".to_owned());
        }
        self.check_limits()?;
        for (domain, targets) in &self.static_targets {
            check_targets(domain, targets)?;
        }
        self.pins.iter().try_for_each(|(domain, pin)| pin.check(domain))
    }

    fn check_limits(&self) -> Result<(), String> {
        within("connect_timeout_ms", self.connect_timeout_ms, 50, 60_000)?;
        within("call_deadline_ms", self.call_deadline_ms, 50, 120_000)?;
        within("max_concurrent_per_peer", self.max_concurrent_per_peer, 1, 65_536)?;
        within("max_streams_per_peer", self.max_streams_per_peer, 1, 4_096)?;
        within("max_transfers_per_peer", self.max_transfers_per_peer, 1, 4_096)?;
        within("transfer_idle_ms", self.transfer_idle_ms, 50, 600_000)?;
        within("breaker_failures", self.breaker_failures, 1, 1_000)?;
        within("breaker_pause_ms", self.breaker_pause_ms, 50, 60_000)?;
        within("health_check_seconds", self.health_check_seconds, 0, 3_600)?;
        within("connection_max_age_seconds", self.connection_max_age_seconds, 1, 7 * 24 * 3_600)?;
        within("max_connections", self.max_connections, 1, 65_536)?;
        within("max_streams_per_connection", self.max_streams_per_connection, 8, 65_536)?;
        within("max_policy_age_seconds", self.max_policy_age_seconds, 20, 24 * 3_600)?;
        within("max_message_bytes", self.max_message_bytes, 1 << 20, 1 << 30)?;
        within("stale_dns_seconds", self.stale_dns_seconds, 0, 7 * 24 * 3_600)
    }

    /// For [`aldis_peers::Policy::new`].
    pub fn max_policy_age(&self) -> Duration {
        Duration::from_secs(self.max_policy_age_seconds)
    }

    /// Who must say where a connection comes from.
    pub(crate) fn proxies(&self) -> Result<Networks, String> {
        Networks::parse("federation.trusted_proxies", &self.trusted_proxies)
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) fn call_deadline(&self) -> Duration {
        Duration::from_millis(self.call_deadline_ms)
    }

    pub(crate) fn health_check(&self) -> Duration {
        Duration::from_secs(self.health_check_seconds)
    }

    pub(crate) fn transfer_idle(&self) -> Duration {
        Duration::from_millis(self.transfer_idle_ms)
    }

    pub(crate) fn connection_max_age(&self) -> Duration {
        Duration::from_secs(self.connection_max_age_seconds)
    }
}

fn valid_name(name: &str) -> bool {
    ServerName::try_from(name).is_ok()
}

fn check_targets(domain: &Domain, targets: &[StaticTarget]) -> Result<(), String> {
    let key = format!("federation.static_targets.\"{domain}\"");
    if targets.is_empty() || targets.len() > MAX_TARGETS {
        return Err(format!("`{key}` has {} targets; allowed: 1 to {MAX_TARGETS}", targets.len()));
    }
    for target in targets {
        if !valid_name(&target.host) {
            return Err(format!("`{key}.host` = {:?}; allowed: a host name or an IP address", target.host));
        }
        if target.port == 0 {
            return Err(format!("`{key}.port` = 0; allowed: 1 to 65535"));
        }
    }
    Ok(())
}

impl Pin {
    /// Whether this pin proves a peer without a look-up in DNS.
    pub(crate) fn proves_alone(&self) -> bool {
        !self.spki_sha256.is_empty() || !self.names.is_empty()
    }

    fn check(&self, domain: &Domain) -> Result<(), String> {
        let key = format!("federation.pins.\"{domain}\"");
        if !self.proves_alone() && self.ca_file.is_none() {
            return Err(format!("`{key}` is empty; allowed: `spki_sha256`, `names`, `ca_file`, or several of them"));
        }
        if self.spki_sha256.len() > MAX_PIN_PARTS || self.names.len() > MAX_PIN_PARTS {
            return Err(format!("`{key}` has too many parts; allowed: {MAX_PIN_PARTS} keys and {MAX_PIN_PARTS} names"));
        }
        if let Some(text) = self.spki_sha256.iter().find(|text| spki(text).is_none()) {
            return Err(format!("`{key}.spki_sha256` = {text:?}; allowed: 64 hexadecimal digits"));
        }
        if let Some(name) = self.names.iter().find(|name| !valid_name(name)) {
            return Err(format!("`{key}.names` = {name:?}; allowed: host names and IP addresses"));
        }
        match &self.ca_file {
            Some(file) if file.is_relative() => {
                Err(format!("`{key}.ca_file` = {:?}; allowed: an absolute path", file.display()))
            }
            _ => Ok(()),
        }
    }
}

/// The hash of a public key from its text.
pub(crate) fn spki(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash).ok()?;
    Some(hash)
}
