//! `[store.cql]`: the cluster on which services keep their data, where `store.engine` says so.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use aldis_runtime::Secret;
use aldis_storage::cql::{CqlOptions, CqlTls, Quorum, is_datacenter, is_keyspace_prefix};
use documented::{Documented, DocumentedFields};
use serde::{Deserialize, Serialize};

/// What services keep their data in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Engine {
    #[default]
    Sqlite,
    Cql,
}

/// How many replicas must agree on what is written and read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Consistency {
    #[default]
    LocalQuorum,
    Quorum,
}

/// A cluster of ScyllaDB or Cassandra, for `store.engine = "cql"`. `aldis migrate` makes the keyspaces and their tables, and
/// must have run before services of a new version start. See docs/storage.md for what can be kept there.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterConfig {
    /// Nodes of which one must answer at the start; the others are learned from it.
    ///
    /// Allowed: `host:port`, one or more.
    pub(crate) addresses: Vec<String>,
    /// Each service has the keyspace `<prefix>_<service>`. Two backends on one cluster need different prefixes.
    ///
    /// Allowed: a lower-case letter, then up to 31 lower-case letters, digits and `_`.
    #[serde(default = "keyspace_prefix")]
    pub(crate) keyspace_prefix: String,
    /// The datacenter whose nodes are asked. No other one is, also when all of them are down.
    ///
    /// Allowed: letters, digits, `_`, `-`, `.`.
    #[serde(default = "datacenter")]
    pub(crate) datacenter: String,
    /// Copies of everything by datacenter (`{dc1 = 3}`), for keyspaces that are made. Without it: 3 in `datacenter`.
    #[serde(default)]
    pub(crate) replication: BTreeMap<String, u8>,
    /// How many replicas must agree: most of those in `datacenter`, or most of all, which a backend needs that runs in several
    /// datacenters at once.
    ///
    /// Allowed: `local_quorum`, `quorum`.
    #[serde(default)]
    pub(crate) consistency: Consistency,
    /// The authority of the nodes' certificates. With it connections have TLS, and nodes are checked for their addresses.
    ///
    /// Allowed: PEM.
    pub(crate) ca_file: Option<PathBuf>,
    /// Our certificate, for a cluster that asks for one; with `key_file` and `ca_file`.
    ///
    /// Allowed: PEM.
    pub(crate) certificate_file: Option<PathBuf>,
    /// The private key of that certificate.
    ///
    /// Allowed: PEM.
    pub(crate) key_file: Option<PathBuf>,
    /// Who we are to the cluster, with `password` or `password_file`.
    pub(crate) user: Option<String>,
    /// Our password; better as `ALDIS_STORE__CQL__PASSWORD` in the environment, or in a file.
    #[serde(default, skip_serializing)]
    pub(crate) password: Option<Secret>,
    /// A file that holds the password and nothing else; read at the start.
    pub(crate) password_file: Option<PathBuf>,
    /// How long a connection may take to be made, in milliseconds.
    ///
    /// Allowed: 100 to 60000.
    #[serde(default = "connect_timeout_ms")]
    pub(crate) connect_timeout_ms: u64,
    /// How long a statement may take with everything that is tried for it, in milliseconds.
    ///
    /// Allowed: 100 to 60000.
    #[serde(default = "request_timeout_ms")]
    pub(crate) request_timeout_ms: u64,
    /// After so many milliseconds without an answer a read is asked of another replica as well. 0: never.
    ///
    /// Allowed: 0 to 60000.
    #[serde(default = "ask_another_after_ms")]
    pub(crate) ask_another_after_ms: u64,
}

fn keyspace_prefix() -> String {
    "aldis".to_owned()
}

fn datacenter() -> String {
    "datacenter1".to_owned()
}

fn connect_timeout_ms() -> u64 {
    5_000
}

fn request_timeout_ms() -> u64 {
    5_000
}

fn ask_another_after_ms() -> u64 {
    200
}

/// Largest password.
const MAX_PASSWORD_BYTES: u64 = 4096;
/// Keys of the section whose values are file names.
pub(super) const PATHS: &[&str] = &["ca_file", "certificate_file", "key_file", "password_file"];

impl ClusterConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        let is_address = |text: &String| text.parse::<http::uri::Authority>().is_ok_and(|it| it.port().is_some());
        if self.addresses.is_empty() || !self.addresses.iter().all(is_address) {
            return Err(format!("`store.cql.addresses` = {:?}; allowed: host:port, one or more", self.addresses));
        }
        if !is_keyspace_prefix(&self.keyspace_prefix) {
            let allowed = "a lower-case letter, then up to 31 lower-case letters, digits and `_`";
            return Err(format!("`store.cql.keyspace_prefix` = {:?}; allowed: {allowed}", self.keyspace_prefix));
        }
        if let Some(name) = self.replication.keys().chain([&self.datacenter]).find(|name| !is_datacenter(name)) {
            return Err(format!("`store.cql.datacenter` = {name:?}; allowed: letters, digits, `_`, `-`, `.`"));
        }
        if self.certificate_file.is_some() != self.key_file.is_some()
            || (self.certificate_file.is_some() && self.ca_file.is_none())
        {
            return Err("`store.cql.certificate_file`, `key_file` and `ca_file` are needed together".to_owned());
        }
        if self.user.is_some() != (self.password.is_some() || self.password_file.is_some()) {
            return Err("`store.cql.user` and `store.cql.password` or `password_file` are needed together".to_owned());
        }
        let times = [
            ("connect_timeout_ms", self.connect_timeout_ms, 100),
            ("request_timeout_ms", self.request_timeout_ms, 100),
            ("ask_another_after_ms", self.ask_another_after_ms, 0),
        ];
        match times.into_iter().find(|(_, value, least)| !(*least..=60_000).contains(value)) {
            Some((key, value, least)) => Err(format!("`store.cql.{key}` = {value}; allowed: {least} to 60000")),
            None => Ok(()),
        }
    }

    /// What the engine needs to know. Reads the file of the password.
    pub(crate) fn options(&self) -> std::io::Result<CqlOptions> {
        let password = match (&self.password, &self.password_file) {
            (Some(password), _) => Some(password.expose().to_owned()),
            (None, Some(file)) => {
                use std::io::Read as _;
                let mut text = String::new();
                std::fs::File::open(file)?.take(MAX_PASSWORD_BYTES).read_to_string(&mut text)?;
                Some(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            (None, None) => None,
        };
        let identity = self.certificate_file.clone().zip(self.key_file.clone());
        Ok(CqlOptions {
            addresses: self.addresses.clone(),
            keyspace_prefix: self.keyspace_prefix.clone(),
            datacenter: self.datacenter.clone(),
            replication: self.replication.clone(),
            tls: self.ca_file.clone().map(|ca_file| CqlTls { ca_file, identity }),
            credentials: self.user.clone().zip(password),
            connect_timeout: Duration::from_millis(self.connect_timeout_ms),
            request_timeout: Duration::from_millis(self.request_timeout_ms),
            ask_another_after: (self.ask_another_after_ms > 0)
                .then(|| Duration::from_millis(self.ask_another_after_ms)),
            quorum: match self.consistency {
                Consistency::LocalQuorum => Quorum::Local,
                Consistency::Quorum => Quorum::All,
            },
        })
    }
}
