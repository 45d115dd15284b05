//! DNS as different resolvers see it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use aldis_types::Domain;
use futures::future::join_all;
use tokio::time::timeout;

use super::{Check, Side, shown};
use crate::{
    Config,
    discovery::{Dns, NoDns},
    network::{LookupError, Resolve, SrvRecord},
};

/// Longest time of one look-up.
const LOOKUP: Duration = Duration::from_secs(6);
/// Servers of a zone that are asked.
const MAX_SERVERS: usize = 4;
const DNS_PORT: u16 = 53;

struct View {
    name: String,
    resolver: Arc<dyn Resolve>,
    /// Whether partners see what this one sees, so that a difference matters.
    outside: bool,
}

/// The resolver that the federator uses, and others.
pub(super) struct Views {
    configured: View,
    dns: Option<Dns>,
    others: Vec<View>,
}

impl Views {
    pub(super) fn new(config: &Config, others: &[SocketAddr]) -> Self {
        let (name, servers) = match config.dns {
            Some(address) => (format!("the server of `federation.dns` ({address})"), Some(address)),
            None => ("this machine's resolver".to_owned(), None),
        };
        let (resolver, dns): (Arc<dyn Resolve>, _) = match (Dns::new(servers), Dns::new(servers)) {
            (Ok(resolver), dns) => (Arc::new(resolver), dns.ok()),
            (Err(error), _) => (Arc::new(NoDns(error.to_string())), None),
        };
        let view = |name: String, server: Option<SocketAddr>, outside| {
            let resolver = Arc::new(Dns::new(server).ok()?);
            Some(View { name, resolver, outside })
        };
        let system = config.dns.and_then(|_| view("this machine's resolver".to_owned(), None, false));
        let named = others.iter().filter_map(|address| view(address.to_string(), Some(*address), true));
        Self {
            configured: View { name, resolver, outside: false },
            dns,
            others: system.into_iter().chain(named).collect(),
        }
    }

    pub(super) fn configured(&self) -> Arc<dyn Resolve> {
        self.configured.resolver.clone()
    }

    /// The targets of a domain: the operator's own, else what the resolver in use says.
    pub(super) async fn srv(&self, config: &Config, domain: &Domain) -> Result<Vec<SrvRecord>, LookupError> {
        if let Some(fixed) = config.static_targets.get(domain) {
            let record = |target: &crate::StaticTarget| SrvRecord {
                priority: 0,
                weight: 0,
                port: target.port,
                host: target.host.to_ascii_lowercase(),
            };
            return Ok(fixed.iter().map(record).collect());
        }
        self.configured.srv(domain).await
    }

    /// The addresses of a host, as the resolver in use says.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, LookupError> {
        match host.parse() {
            Ok(address) => Ok(vec![address]),
            Err(_) => self.configured.addresses(host).await,
        }
    }

    /// Compares what the resolver in use says of a domain with what its own name servers and others say.
    pub(super) async fn compare(&self, name: &'static str, side: Side, domain: &Domain) -> Check {
        let ours = self.configured.answer(domain).await;
        let zone = self.name_servers(domain).await;
        let views = self.others.iter().chain(&zone);
        let answers = join_all(views.map(|view| async move { (view, view.answer(domain).await) })).await;
        let mut agreeing = Vec::new();
        let mut silent = Vec::new();
        let mut aside = Vec::new();
        let mut differing = Vec::new();
        for (view, answer) in answers {
            match answer {
                Answer::Silent(why) => silent.push(format!("{} ({why})", view.name)),
                answer if answer == ours => agreeing.push(view.name.clone()),
                answer if view.outside => differing.push(format!("{} says {answer}", view.name)),
                answer => aside.push(format!("{} says {answer}", view.name)),
            }
        }
        if !differing.is_empty() {
            let found = format!("{} says {ours}, but {}", self.configured.name, differing.join(", and "));
            let advice = "publish the same SRV record and addresses inside and outside, or set `federation.dns` to a server \
                          that answers as partners see it";
            return Check::failed(name, side, found, advice);
        }
        let note = if aside.is_empty() { String::new() } else { format!("; apart from that {}", aside.join(", and ")) };
        if agreeing.is_empty() {
            let others = if silent.is_empty() { "nobody else to ask".to_owned() } else { silent.join(", ") };
            return Check::skipped(
                name,
                format!("no second answer to compare with: {others}{note}; name one with --resolver"),
            );
        }
        Check::passed(name, format!("{} and {} agree on {ours}{note}", self.configured.name, agreeing.join(", ")))
    }

    /// The name servers of the zone that holds the domain, as the resolver in use finds them.
    async fn name_servers(&self, domain: &Domain) -> Vec<View> {
        let Some(dns) = &self.dns else { return Vec::new() };
        let servers = timeout(LOOKUP, dns.name_servers(domain)).await.unwrap_or_default();
        let view = |(host, address): (String, IpAddr)| {
            let resolver = Arc::new(Dns::new(Some(SocketAddr::new(address, DNS_PORT))).ok()?);
            Some(View { name: format!("the zone's name server {}", shown(&host)), resolver, outside: true })
        };
        servers.into_iter().take(MAX_SERVERS).filter_map(view).collect()
    }
}

/// What a resolver says of a domain.
#[derive(PartialEq, Eq)]
enum Answer {
    /// Targets with their addresses.
    Targets(BTreeSet<(String, u16, BTreeSet<IpAddr>)>),
    /// There is no record.
    Nothing,
    /// It did not answer.
    Silent(String),
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("that there is no record"),
            Self::Silent(why) => f.write_str(why),
            Self::Targets(targets) => {
                for (index, (host, port, addresses)) in targets.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                    write!(f, "{separator}{}:{port} ({})", shown(host), addresses.join(" "))?;
                }
                Ok(())
            }
        }
    }
}

fn late() -> LookupError {
    LookupError::Failed("no answer in time".to_owned())
}

impl View {
    async fn srv(&self, domain: &Domain) -> Result<Vec<SrvRecord>, LookupError> {
        let (records, _) = timeout(LOOKUP, self.resolver.srv(domain)).await.map_err(|_| late())??;
        let none = || LookupError::NotFound { ttl: Duration::ZERO };
        let records: Vec<_> = records.into_iter().filter(|record| !record.host.is_empty()).collect();
        if records.is_empty() { Err(none()) } else { Ok(records) }
    }

    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, LookupError> {
        let (addresses, _) = timeout(LOOKUP, self.resolver.addresses(host)).await.map_err(|_| late())??;
        Ok(addresses)
    }

    async fn answer(&self, domain: &Domain) -> Answer {
        let records = match self.srv(domain).await {
            Ok(records) => records,
            Err(LookupError::NotFound { .. }) => return Answer::Nothing,
            Err(LookupError::Failed(why)) => return Answer::Silent(shown(&why)),
        };
        let mut targets = BTreeSet::new();
        for record in records {
            let addresses = match self.addresses(&record.host).await {
                Ok(addresses) => addresses.into_iter().collect(),
                Err(LookupError::NotFound { .. }) => BTreeSet::new(),
                Err(LookupError::Failed(why)) => return Answer::Silent(shown(&why)),
            };
            targets.insert((record.host, record.port, addresses));
        }
        Answer::Targets(targets)
    }
}
