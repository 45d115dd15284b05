//! DNS by hickory-resolver, without its cache: ours serves stale answers.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use aldis_runtime::dns;
use aldis_types::Domain;
use async_trait::async_trait;
use hickory_resolver::{
    TokioResolver,
    net::{DnsError, NetError},
    proto::rr::{Name, RData, RecordType},
};

use crate::network::{LookupError, Resolve, SrvRecord};

const SERVICE: &str = "_wire-server-federator._tcp";
/// At most this many records of one answer are used.
const MAX_RECORDS: usize = 16;

/// Asks the DNS servers of this machine, or the one that is given.
pub(crate) struct Dns(TokioResolver);

impl Dns {
    pub(crate) fn new(server: Option<SocketAddr>) -> Result<Self, NetError> {
        let mut builder = dns::resolver(server)?;
        builder.options_mut().cache_size = 0;
        Ok(Self(builder.build()?))
    }

    /// The name servers of the zone that holds a domain, with one address each; none when they cannot be found.
    pub(crate) async fn name_servers(&self, domain: &Domain) -> Vec<(String, IpAddr)> {
        let labels: Vec<&str> = domain.as_str().split('.').collect();
        // The zone's name is the domain or one above it; top level domains are nobody's own.
        for first in 0..labels.len().saturating_sub(1) {
            let Ok(name) = absolute(&labels[first..].join(".")) else { return Vec::new() };
            let Ok(lookup) = self.0.lookup(name, RecordType::NS).await else { continue };
            let mut servers = Vec::new();
            for record in lookup.answers().iter().take(MAX_RECORDS) {
                if let RData::NS(server) = &record.data {
                    let host = server.0.to_ascii();
                    let addresses = self.addresses(host.trim_end_matches('.')).await;
                    servers.extend(addresses.ok().and_then(|(list, _)| list.first().copied()).map(|it| (host, it)));
                }
            }
            if !servers.is_empty() {
                return servers;
            }
        }
        Vec::new()
    }
}

fn failed(error: &NetError) -> LookupError {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => LookupError::NotFound {
            ttl: none.negative_ttl.map_or(Duration::ZERO, |seconds| Duration::from_secs(u64::from(seconds))),
        },
        error => LookupError::Failed(error.to_string()),
    }
}

fn absolute(name: &str) -> Result<Name, LookupError> {
    let mut name = Name::from_ascii(name).map_err(|error| LookupError::Failed(error.to_string()))?;
    name.set_fqdn(true);
    Ok(name)
}

#[async_trait]
impl Resolve for Dns {
    async fn srv(&self, domain: &Domain) -> Result<(Vec<SrvRecord>, Duration), LookupError> {
        let name = absolute(&format!("{SERVICE}.{domain}"))?;
        let lookup = self.0.lookup(name, RecordType::SRV).await.map_err(|error| failed(&error))?;
        let mut ttl = u32::MAX;
        let mut records = Vec::new();
        for record in lookup.answers() {
            ttl = ttl.min(record.ttl);
            if let RData::SRV(srv) = &record.data
                && records.len() < MAX_RECORDS
            {
                records.push(SrvRecord {
                    priority: srv.priority,
                    weight: srv.weight,
                    port: srv.port,
                    host: srv.target.to_ascii().trim_end_matches('.').to_ascii_lowercase(),
                });
            }
        }
        Ok((records, Duration::from_secs(u64::from(ttl))))
    }

    async fn addresses(&self, host: &str) -> Result<(Vec<IpAddr>, Duration), LookupError> {
        let lookup = self.0.lookup_ip(absolute(host)?).await.map_err(|error| failed(&error))?;
        let ttl = lookup.as_lookup().answers().iter().map(|record| record.ttl).min().unwrap_or(0);
        Ok((lookup.iter().take(MAX_RECORDS).collect(), Duration::from_secs(u64::from(ttl))))
    }
}

/// Stands in when the machine has no usable DNS settings: closed networks with static targets need none.
pub(crate) struct NoDns(pub(crate) String);

#[async_trait]
impl Resolve for NoDns {
    async fn srv(&self, _: &Domain) -> Result<(Vec<SrvRecord>, Duration), LookupError> {
        Err(LookupError::Failed(self.0.clone()))
    }

    async fn addresses(&self, _: &str) -> Result<(Vec<IpAddr>, Duration), LookupError> {
        Err(LookupError::Failed(self.0.clone()))
    }
}
