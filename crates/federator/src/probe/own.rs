//! Our own set-up.

use aldis_types::Timestamp;
use tokio::time::Instant;

use super::{Check, Own, Probe, Side, certificate, shown};
use crate::network::{LookupError, SrvRecord};

const FILES: &str = "certificate-files";
const EXPIRY: &str = "certificate-expiry";
const USAGE: &str = "certificate-usage";
const CHAIN: &str = "certificate-chain";
const SRV: &str = "srv";
const ADDRESS: &str = "address";
const NAMES: &str = "certificate-names";
const SPLIT: &str = "split-dns";
const LISTENER: &str = "listener";
/// What cannot be told without usable files.
const NEEDS_FILES: [&str; 5] = [EXPIRY, USAGE, CHAIN, NAMES, LISTENER];

impl Probe {
    /// Checks certificate files, DNS of our own domain, and whether the names in DNS lead to our own federator.
    pub async fn own(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        match &self.own {
            Ok(own) => checks.extend(self.own_certificate(own)),
            Err(error) => {
                let advice = "correct `federation.certificate_file`, `key_file` and `ca_file`: PEM, the key must fit the \
                              certificate";
                checks.push(Check::failed(FILES, Side::Ours, error.to_string(), advice));
                checks.extend(NEEDS_FILES.map(|name| Check::skipped(name, "the files cannot be used")));
            }
        }
        match self.views.srv(&self.config, &self.domain).await {
            Ok(targets) => {
                let list: Vec<String> = targets.iter().map(describe).collect();
                checks.push(Check::passed(SRV, list.join(", ")));
                for target in &targets {
                    self.own_target(target, &mut checks).await;
                }
            }
            Err(error) => {
                checks.push(no_srv(SRV, Side::Ours, self.domain.as_str(), &error));
                checks.push(Check::skipped(ADDRESS, "there is no SRV record"));
                if self.own.is_ok() {
                    checks.extend([NAMES, LISTENER].map(|name| Check::skipped(name, "there is no SRV record")));
                }
            }
        }
        checks.push(self.views.compare(SPLIT, Side::Ours, &self.domain).await);
        checks
    }

    fn own_certificate(&self, own: &Own) -> Vec<Check> {
        let facts = &own.facts;
        let found = format!("{}, issued by {}", facts.names.join(", "), facts.issuer);
        let now = self.clock.now();
        vec![
            Check::passed(FILES, found),
            facts.expiry(EXPIRY, Side::Ours, now),
            facts.usage(USAGE, Side::Ours),
            self.own_chain(own, now),
        ]
    }

    /// Whether the chain in the file reaches an authority.
    fn own_chain(&self, own: &Own, now: Timestamp) -> Check {
        let Some((leaf, rest)) = own.chain.split_first() else { return Check::skipped(CHAIN, "the file is empty") };
        let top = own.chain.last().and_then(certificate::CertificateFacts::read);
        let verified = own.tls.current().verify_caller(&self.domain, leaf, rest, now);
        let length = own.chain.len();
        match (verified, top) {
            (Ok(()), _) => {
                Check::passed(CHAIN, format!("{length} in the file, up to an authority that is trusted here"))
            }
            (Err(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)), Some(top)) => {
                if top.self_signed && length > 1 {
                    return Check::passed(CHAIN, format!("{length} in the file, up to the authority {}", top.subject));
                }
                let found = format!(
                    "{length} in the file; the last is issued by {}, which is neither in the file nor trusted here",
                    top.issuer
                );
                let advice = "if that is an intermediate, append its certificate to `federation.certificate_file`, or \
                              partners refuse yours; if it is the authority itself, partners need it in their `ca_file`";
                Check::warning(CHAIN, Side::Ours, found, advice)
            }
            // Expiry and usage have checks of their own.
            (Err(error), _) => Check::skipped(CHAIN, error.to_string()),
        }
    }

    async fn own_target(&self, target: &SrvRecord, checks: &mut Vec<Check>) {
        let about = format!("{}:{}", target.host, target.port);
        if let Ok(own) = &self.own
            && let Some(leaf) = own.chain.first()
        {
            let names = own.facts.names.join(", ");
            checks.push(
                if certificate::covers(leaf, &target.host) {
                    Check::passed(NAMES, format!("the certificate carries {}", target.host))
                } else {
                    let found = format!("the certificate carries {names}, not the SRV target {}", target.host);
                    let advice = "have a certificate issued with the SRV target as subject alternative name, or let the \
                                  SRV record name a host that the certificate carries; partners refuse the rest";
                    Check::failed(NAMES, Side::Ours, found, advice)
                }
                .about(&about),
            );
        }
        let addresses = match self.views.addresses(&target.host).await {
            Ok(addresses) if !addresses.is_empty() => addresses,
            outcome => {
                checks.push(no_address(ADDRESS, Side::Ours, &target.host, outcome.err().as_ref()).about(&about));
                if self.own.is_ok() {
                    checks.push(Check::skipped(LISTENER, "the target has no address").about(&about));
                }
                return;
            }
        };
        let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        checks.push(Check::passed(ADDRESS, list.join(", ")).about(&about));
        let Ok(own) = &self.own else { return };
        for address in addresses {
            let address = std::net::SocketAddr::new(address, target.port);
            checks.push(
                self.own_listener(own, &target.host, address).await.about(format!("{} at {address}", target.host)),
            );
        }
    }

    /// Knocks at our own door, as a partner would.
    async fn own_listener(&self, own: &Own, host: &str, address: std::net::SocketAddr) -> Check {
        let until = Instant::now() + self.config.connect_timeout();
        let advice = "start the backend; look at `federation.listen`, the port of the SRV record, and the firewall (some \
                      networks cannot reach their own public address from inside: try from elsewhere)";
        let io = match tokio::time::timeout_at(until, self.connector.connect(address)).await {
            Ok(Ok(io)) => io,
            Ok(Err(error)) => return Check::failed(LISTENER, Side::Ours, format!("no connection: {error}"), advice),
            Err(_) => return Check::failed(LISTENER, Side::Ours, "no connection in time", advice),
        };
        let chain = match certificate::look(io, host, until).await {
            Ok(chain) => chain,
            Err(why) => {
                let advice = "something else than a federator listens there, or a load balancer ends TLS: it must pass TCP \
                              through";
                return Check::failed(LISTENER, Side::Ours, format!("no TLS: {why}"), advice);
            }
        };
        let served = chain.first().and_then(certificate::CertificateFacts::read);
        match served {
            Some(served) if served.fingerprint == own.facts.fingerprint && chain.len() >= own.chain.len() => {
                Check::passed(LISTENER, "our federator answers with the certificate of the file")
            }
            Some(served) => {
                let found = format!(
                    "it shows another certificate or chain than the file holds: {}, issued by {}, valid to {}",
                    shown(&served.names.join(", ")),
                    served.issuer,
                    served.not_after
                );
                let advice = "wait some seconds for the running federator to read the file; if it stays so, look at its log, \
                              or for a load balancer that ends TLS: it must pass TCP through";
                Check::failed(LISTENER, Side::Ours, found, advice)
            }
            None => Check::failed(LISTENER, Side::Ours, "the certificate that it shows cannot be read", advice),
        }
    }
}

pub(super) fn describe(target: &SrvRecord) -> String {
    let SrvRecord { priority, weight, port, host } = target;
    format!("{}:{port} (priority {priority}, weight {weight})", shown(host))
}

pub(super) fn no_srv(name: &'static str, side: Side, domain: &str, error: &LookupError) -> Check {
    let record = format!("_wire-server-federator._tcp.{domain}");
    match error {
        LookupError::NotFound { .. } => {
            let advice = "publish the record, with the host of the federator as target; if it is there, this resolver sees \
                          another zone (split DNS)";
            Check::failed(name, side, format!("there is no SRV record {record}, or its target is \".\""), advice)
        }
        LookupError::Failed(why) => {
            let advice = "look at this machine's resolver, `federation.dns`, and the firewall (UDP and TCP 53)";
            Check::failed(name, Side::Ours, format!("DNS did not answer for {record}: {}", shown(why)), advice)
        }
    }
}

pub(super) fn no_address(name: &'static str, side: Side, host: &str, error: Option<&LookupError>) -> Check {
    match error {
        Some(LookupError::Failed(why)) => {
            let found = format!("DNS did not answer for {host}: {}", shown(why));
            Check::failed(name, Side::Ours, found, "look at this machine's resolver and `federation.dns`")
        }
        _ => {
            let found = format!("{host} has no address");
            Check::failed(name, side, found, "publish an A or AAAA record for the target of the SRV record")
        }
    }
}
