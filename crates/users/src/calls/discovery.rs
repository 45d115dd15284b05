//! Servers for calls by SRV records (RFC 2782). Not the servers of other backends: those are the federator's.

use std::net::SocketAddr;

use aldis_runtime::dns;
use async_trait::async_trait;
use hickory_resolver::{
    ResolverBuilder, TokioResolver,
    net::{DnsError, NetError},
    proto::rr::{Name, RData, RecordType},
};

use super::servers::MAX_SERVERS;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// Why servers are not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    #[error("DNS: {0}")]
    Dns(String),
    #[error("the file cannot be read: {0}")]
    File(#[from] std::io::Error),
    #[error("the file is larger than {0} bytes")]
    TooLarge(u64),
    #[error("a line is no turn: or turns: URI")]
    NotTurn,
}

/// Looks servers up.
#[async_trait]
pub(crate) trait FindServers: Send + Sync {
    /// The targets of an SRV record; empty when there is none.
    async fn find(&self, name: &str) -> Result<Vec<Target>, ServerError>;
}

/// Asks the DNS servers of this machine, or the one that is given.
pub(crate) struct Dns(TokioResolver);

impl Dns {
    pub(crate) fn new(server: Option<SocketAddr>) -> Result<Self, ServerError> {
        let failed = |error: NetError| ServerError::Dns(error.to_string());
        Ok(Self(dns::resolver(server).and_then(ResolverBuilder::build).map_err(failed)?))
    }
}

#[async_trait]
impl FindServers for Dns {
    async fn find(&self, name: &str) -> Result<Vec<Target>, ServerError> {
        let mut name = Name::from_ascii(name).map_err(|error| ServerError::Dns(error.to_string()))?;
        name.set_fqdn(true);
        let lookup = match self.0.lookup(name, RecordType::SRV).await {
            Ok(lookup) => lookup,
            Err(NetError::Dns(DnsError::NoRecordsFound(_))) => return Ok(Vec::new()),
            Err(error) => return Err(ServerError::Dns(error.to_string())),
        };
        let mut records: Vec<_> = lookup
            .answers()
            .iter()
            .filter_map(|record| if let RData::SRV(srv) = &record.data { Some(srv) } else { None })
            .collect();
        records.sort_by_key(|srv| srv.priority);
        let target = |srv: &&hickory_resolver::proto::rr::rdata::SRV| Target {
            host: srv.target.to_ascii().trim_end_matches('.').to_ascii_lowercase(),
            port: srv.port,
        };
        // A single target of "." says that the service is not offered.
        Ok(records.iter().map(target).filter(|target| !target.host.is_empty()).take(MAX_SERVERS).collect())
    }
}
