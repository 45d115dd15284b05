//! Where a backend is: the SRV record of its domain, or the operator's static targets.

mod cache;
mod dns;
mod order;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use aldis_types::Domain;
use rustls_pki_types::ServerName;

pub(crate) use self::{
    cache::{Cache, Found},
    dns::{Dns, NoDns},
    order::order,
};
use crate::{
    config::{Config, StaticTarget},
    failure::Failure,
    metering,
    network::{LookupError, Resolve, SrvRecord},
};

/// How long a static target is taken for granted.
const STATIC_FRESH: Duration = Duration::from_secs(3_600);
/// At most this many addresses of one target are tried.
const MAX_ADDRESSES: usize = 4;

/// The targets of a domain. Never empty; every host is a valid name for a certificate.
pub(crate) type Targets = Arc<[SrvRecord]>;

pub(crate) struct Discovery {
    fixed: BTreeMap<Domain, Vec<StaticTarget>>,
    targets: Arc<Cache<Domain, Targets>>,
    addresses: Arc<Cache<String, Vec<IpAddr>>>,
}

impl Discovery {
    pub(crate) fn new(config: &Config, resolver: Arc<dyn Resolve>) -> Self {
        let stale = Duration::from_secs(config.stale_dns_seconds);
        let srv = resolver.clone();
        Self {
            fixed: config.static_targets.clone(),
            targets: Cache::new(
                stale,
                Box::new(move |domain: Domain| {
                    let resolver = srv.clone();
                    Box::pin(async move { metering::looked_up("srv", usable(resolver.srv(&domain).await)) })
                }),
            ),
            addresses: Cache::new(
                stale,
                Box::new(move |host: String| {
                    let resolver = resolver.clone();
                    Box::pin(async move { metering::looked_up("address", some(resolver.addresses(&host).await)) })
                }),
            ),
        }
    }

    /// The targets of a domain, in no particular order.
    pub(crate) async fn locate(&self, domain: &Domain) -> Result<Found<Targets>, LookupError> {
        if let Some(fixed) = self.fixed.get(domain) {
            let targets = fixed.iter().zip(0..).map(|(target, priority)| SrvRecord {
                priority,
                weight: 0,
                port: target.port,
                host: target.host.to_ascii_lowercase(),
            });
            return Ok(Found { value: targets.collect(), fresh_for: STATIC_FRESH });
        }
        self.targets.get(domain.clone()).await
    }

    /// The addresses of one target of a domain.
    pub(crate) async fn addresses(&self, domain: &Domain, target: &SrvRecord) -> Result<Vec<SocketAddr>, LookupError> {
        let fixed = self.fixed.get(domain).into_iter().flatten();
        let stated = fixed
            .filter(|fixed| fixed.port == target.port && fixed.host.eq_ignore_ascii_case(&target.host))
            .find_map(|fixed| fixed.address);
        let addresses = match stated.or_else(|| target.host.parse().ok()) {
            Some(address) => vec![address],
            None => self.addresses.get(target.host.clone()).await?.value,
        };
        Ok(addresses.into_iter().take(MAX_ADDRESSES).map(|address| SocketAddr::new(address, target.port)).collect())
    }
}

/// A look-up's failure as the hop `discovery`.
pub(crate) fn not_located(domain: &Domain, error: &LookupError) -> Failure {
    match error {
        LookupError::NotFound { .. } => {
            Failure::invalid_domain(format!("SRV record not found: _wire-server-federator._tcp.{domain}"))
        }
        LookupError::Failed(error) => Failure::discovery(format!("DNS look-up of {domain} failed: {error}")),
    }
}

type Looked<T> = Result<(T, Duration), LookupError>;

/// Leaves targets that can be connected to. The root as target says that the service is not offered.
fn usable(answer: Looked<Vec<SrvRecord>>) -> Looked<Targets> {
    let (mut records, ttl) = answer?;
    records.retain(|record| record.port != 0 && ServerName::try_from(record.host.as_str()).is_ok());
    if records.is_empty() { Err(LookupError::NotFound { ttl }) } else { Ok((records.into(), ttl)) }
}

fn some(answer: Looked<Vec<IpAddr>>) -> Looked<Vec<IpAddr>> {
    answer.and_then(
        |(addresses, ttl)| {
            if addresses.is_empty() { Err(LookupError::NotFound { ttl }) } else { Ok((addresses, ttl)) }
        },
    )
}
