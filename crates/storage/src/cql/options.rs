//! What must be known of a cluster to use it.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf, time::Duration};

use crate::StoreError;

/// How many replicas must have seen what is written and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Quorum {
    /// Most replicas of the own datacenter: `LOCAL_QUORUM` and `LOCAL_SERIAL`.
    #[default]
    Local,
    /// Most replicas of all datacenters: `QUORUM` and `SERIAL`, for a backend that writes in more than one.
    All,
}

/// Files for connections with TLS.
#[derive(Debug, Clone)]
pub struct CqlTls {
    /// The authority of the nodes' certificates, as PEM.
    pub ca_file: PathBuf,
    /// Our certificate and its private key, as PEM, for clusters that ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A cluster, and how to use it.
#[derive(Clone)]
pub struct CqlOptions {
    /// Nodes (`host:port`) of which one must answer; the others are learned from it.
    pub addresses: Vec<String>,
    /// The tables of a service are in the keyspace `<prefix>_<service>`.
    pub keyspace_prefix: String,
    /// The datacenter whose nodes are asked; no other one is.
    pub datacenter: String,
    /// Copies of everything by datacenter, for keyspaces that are made; empty: three in the own one.
    pub replication: BTreeMap<String, u8>,
    /// With TLS.
    pub tls: Option<CqlTls>,
    /// User and password.
    pub credentials: Option<(String, String)>,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long a statement may take, with everything that is tried for it.
    pub request_timeout: Duration,
    /// After this time another replica is asked as well, for reads only.
    pub ask_another_after: Option<Duration>,
    /// How many replicas must agree.
    pub quorum: Quorum,
}

impl std::fmt::Debug for CqlOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CqlOptions")
            .field("addresses", &self.addresses)
            .field("keyspace_prefix", &self.keyspace_prefix)
            .field("datacenter", &self.datacenter)
            .finish_non_exhaustive()
    }
}

/// Longest keyspace prefix; with the longest name of a service it stays within the 48 characters of a keyspace.
const MAX_PREFIX: usize = 32;

/// Whether a keyspace may begin with it: a letter, then letters, digits and underscores, all lower-case.
pub fn is_keyspace_prefix(text: &str) -> bool {
    let mut letters = text.bytes();
    text.len() <= MAX_PREFIX
        && letters.next().is_some_and(|first| first.is_ascii_lowercase())
        && letters.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Whether it can be the name of a datacenter: 1 to 64 letters, digits, and `_`, `-`, `.`.
pub fn is_datacenter(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

impl CqlOptions {
    /// Names become part of statements.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let datacenters = self.replication.keys().chain([&self.datacenter]).all(|name| is_datacenter(name));
        if is_keyspace_prefix(&self.keyspace_prefix) && datacenters && !self.addresses.is_empty() {
            Ok(())
        } else {
            Err(StoreError::Options)
        }
    }

    /// The replication of a new keyspace.
    pub(super) fn replication(&self) -> String {
        let mut text = "{'class': 'NetworkTopologyStrategy'".to_owned();
        let own = BTreeMap::from([(self.datacenter.clone(), 3)]);
        for (datacenter, copies) in if self.replication.is_empty() { &own } else { &self.replication } {
            // Writing to a String cannot fail.
            let _ = write!(text, ", '{datacenter}': {copies}");
        }
        text.push('}');
        text
    }
}
