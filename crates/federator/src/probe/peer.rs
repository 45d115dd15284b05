//! The way to a partner, hop by hop.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use aldis_proto::{
    error,
    federation::v1::{Hop, SearchPolicy, SearchUsersRequest, users_client::UsersClient},
};
use aldis_types::Domain;
use rustls_pki_types::CertificateDer;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;

use super::{
    Check, Own, Probe, Side,
    certificate::{self, CertificateFacts},
    own::{describe, no_address, no_srv},
    shown,
};
use crate::{
    egress::{Connection, PeerContext, Unusable, attempt},
    failure::{Failure, label},
    network::SrvRecord,
};

const SRV: &str = "peer-srv";
const ADDRESS: &str = "peer-address";
const SPLIT: &str = "peer-split-dns";
const CONNECT: &str = "peer-connect";
const SHOWN: &str = "peer-certificate";
const NAMES: &str = "peer-certificate-names";
const EXPIRY: &str = "peer-certificate-expiry";
const USAGE: &str = "peer-certificate-usage";
const TRUST: &str = "peer-trust";
const ACCEPTS: &str = "peer-accepts-certificate";
const ADMITS: &str = "peer-admits";
const VERSIONS: &str = "peer-versions";
const CLOCK: &str = "peer-clock";
const SEARCH: &str = "peer-search";

/// Difference of clocks that deserves attention, and one that does harm.
const SKEW: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// What is searched for to hear of the search policy; nobody needs to be found.
const SEARCHED: &str = "aldis-doctor";

impl Probe {
    /// Checks each hop to a partner.
    pub async fn peer(&self, peer: &Domain) -> Vec<Check> {
        let mut checks = Vec::new();
        match self.views.srv(&self.config, peer).await {
            Ok(targets) => {
                let list: Vec<String> = targets.iter().map(describe).collect();
                checks.push(Check::passed(SRV, list.join(", ")));
                checks.push(self.views.compare(SPLIT, Side::Between, peer).await);
                for target in &targets {
                    self.target(peer, target, &mut checks).await;
                }
            }
            Err(error) => {
                checks.push(no_srv(SRV, Side::Theirs, peer.as_str(), &error));
                checks.push(self.views.compare(SPLIT, Side::Between, peer).await);
                let rest = [ADDRESS, CONNECT, SHOWN, TRUST, ACCEPTS, ADMITS, VERSIONS, CLOCK, SEARCH];
                checks.extend(rest.map(|name| Check::skipped(name, "the partner cannot be found in DNS")));
            }
        }
        checks
    }

    async fn target(&self, peer: &Domain, target: &SrvRecord, checks: &mut Vec<Check>) {
        let about = format!("{}:{}", target.host, target.port);
        let fixed = self.config.static_targets.get(peer).into_iter().flatten();
        let stated =
            fixed.filter(|fixed| fixed.host.eq_ignore_ascii_case(&target.host)).find_map(|fixed| fixed.address);
        let addresses = match stated {
            Some(address) => Ok(vec![address]),
            None => self.views.addresses(&target.host).await,
        };
        let addresses = match addresses {
            Ok(addresses) if !addresses.is_empty() => addresses,
            outcome => {
                checks.push(no_address(ADDRESS, Side::Theirs, &target.host, outcome.err().as_ref()).about(&about));
                return;
            }
        };
        let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        checks.push(Check::passed(ADDRESS, list.join(", ")).about(&about));
        for address in addresses {
            let address = SocketAddr::new(address, target.port);
            let about = format!("{} at {address}", target.host);
            let found = self.address(peer, target, address).await;
            checks.extend(found.into_iter().map(|check| check.about(&about)));
        }
    }

    /// Everything behind one address.
    async fn address(&self, peer: &Domain, target: &SrvRecord, address: SocketAddr) -> Vec<Check> {
        let mut checks = Vec::new();
        let until = Instant::now() + self.config.connect_timeout();
        let began = Instant::now();
        let advice = "ask the partner whether the federator runs; look at firewalls on both sides, and at port and address \
                      in the partner's DNS";
        let io = match timeout_at(until, self.connector.connect(address)).await {
            Ok(Ok(io)) => io,
            outcome => {
                let why = outcome.map_or_else(|_| "no answer in time".to_owned(), |io| reason(io.err()));
                checks.push(Check::failed(CONNECT, Side::Between, format!("no TCP connection: {why}"), advice));
                return checks;
            }
        };
        checks.push(Check::passed(CONNECT, format!("connected in {} ms", began.elapsed().as_millis())));
        let chain = match certificate::look(io, &target.host, until).await {
            Ok(chain) => chain,
            Err(why) => {
                let advice = "something else than a federator answers there: look at port, load balancer (it must pass TCP \
                              through) and at the TLS versions (1.3, or 1.2 with `federation.tls12` on both sides)";
                checks.push(Check::failed(SHOWN, Side::Theirs, format!("no TLS: {why}"), advice));
                return checks;
            }
        };
        self.shown_certificate(peer, target, &chain, &mut checks);
        let (Ok(own), Some(context)) = (&self.own, &self.context) else {
            checks.push(Check::skipped(TRUST, "our own certificate files cannot be used"));
            return checks;
        };
        let until = Instant::now() + self.config.connect_timeout();
        match attempt(context, peer, target, address, until).await {
            Ok(connection) => self.greeted(own, context, peer, &connection, &mut checks).await,
            Err(failure) => self.not_connected(own, &chain, &failure, &mut checks),
        }
        checks
    }

    /// What the partner's certificate says, whether it is trusted or not.
    fn shown_certificate(
        &self,
        peer: &Domain,
        target: &SrvRecord,
        chain: &[CertificateDer<'static>],
        checks: &mut Vec<Check>,
    ) {
        let Some((leaf, facts)) = chain.first().and_then(|leaf| Some((leaf, CertificateFacts::read(leaf)?))) else {
            let advice = "tell the partner to install a valid X.509 certificate";
            checks.push(Check::failed(SHOWN, Side::Theirs, "the certificate cannot be read", advice));
            return;
        };
        let names = facts.names.join(", ");
        let found =
            format!("{names}, issued by {}, {} in the chain, key {}", facts.issuer, chain.len(), facts.spki_sha256);
        checks.push(Check::passed(SHOWN, found));
        let pinned = self.config.pins.get(peer).map(|pin| pin.names.as_slice()).unwrap_or_default();
        let covered =
            certificate::covers(leaf, &target.host) || pinned.iter().any(|name| certificate::covers(leaf, name));
        checks.push(if covered {
            Check::passed(NAMES, format!("the certificate carries {}", target.host))
        } else {
            let found = format!("the certificate carries {names}, not the SRV target {}", target.host);
            let advice = "the partner needs a certificate with its SRV target as subject alternative name, or an SRV record \
                          that names a host of the certificate";
            Check::failed(NAMES, Side::Theirs, found, advice)
        });
        checks.push(facts.expiry(EXPIRY, Side::Theirs, self.clock.now()));
        checks.push(facts.usage(USAGE, Side::Theirs));
    }

    /// The handshake or the greeting failed.
    fn not_connected(&self, own: &Own, chain: &[CertificateDer<'static>], failure: &Failure, checks: &mut Vec<Check>) {
        let why = shown(failure.reason());
        if failure.hop == Hop::Tls && why.contains("fatal alert") {
            checks.push(Check::passed(TRUST, "the certificate is trusted here"));
            checks.push(refused_certificate(own, &why));
        } else if failure.hop == Hop::Tls && why.contains("UnknownIssuer") {
            checks.push(self.untrusted(chain));
        } else if failure.hop == Hop::Tls {
            let told = checks.iter().any(|check| check.outcome == super::Outcome::Failed);
            let advice = "see what the certificate lacks; a pin is in `federation.pins` here";
            checks.push(if told {
                Check::skipped(TRUST, format!("the certificate is refused for the above: {why}"))
            } else {
                Check::failed(TRUST, Side::Theirs, format!("the handshake failed: {why}"), advice)
            });
        } else {
            let advice = "ask the partner to look at the log of the federator; see whether it is overloaded";
            checks.push(Check::failed(ADMITS, Side::Theirs, format!("no answer to our greeting: {why}"), advice));
        }
        let done: Vec<&str> = checks.iter().map(|check| check.name).collect();
        let rest = [ACCEPTS, ADMITS, VERSIONS, CLOCK, SEARCH].into_iter().filter(|name| !done.contains(name));
        checks.extend(rest.map(|name| Check::skipped(name, "the connection did not come about")));
    }

    fn untrusted(&self, chain: &[CertificateDer<'static>]) -> Check {
        let top = chain.last().and_then(CertificateFacts::read);
        let (issuer, whole) =
            top.map_or_else(Default::default, |top| (top.issuer.clone(), top.self_signed && chain.len() > 1));
        let trusted = match &self.config.ca_file {
            Some(file) if self.config.trust.private() => format!("`federation.ca_file` ({})", file.display()),
            _ => "the authorities of this machine".to_owned(),
        };
        if whole {
            let found = format!("the chain is complete, but its authority {issuer} is not in {trusted}");
            return Check::failed(
                TRUST,
                Side::Ours,
                found,
                "get the authority's certificate from the partner and add it",
            );
        }
        let found = format!("issued by {issuer}, which is neither in the chain of {} nor in {trusted}", chain.len());
        let advice = "if that is an intermediate, the partner's chain is incomplete: its certificate file must hold the leaf \
                      first and then every intermediate; if it is the partner's authority, get its certificate and add it here";
        Check::failed(TRUST, Side::Between, found, advice)
    }

    async fn greeted(
        &self,
        own: &Own,
        context: &Arc<PeerContext>,
        peer: &Domain,
        connection: &Connection,
        checks: &mut Vec<Check>,
    ) {
        checks.push(Check::passed(TRUST, "the certificate is trusted here"));
        let deadline = Instant::now() + self.config.connect_timeout();
        match connection.greet(context, deadline).await {
            Err(Unusable::Refused(status)) => {
                checks.extend(self.refused(peer, &status));
                let rest = [VERSIONS, CLOCK, SEARCH];
                checks.extend(rest.map(|name| Check::skipped(name, "the partner does not talk to us")));
                return;
            }
            Err(Unusable::Failed(failure)) if failure.label == label::VERSION => {
                checks.extend([ACCEPTS, ADMITS].map(|name| Check::passed(name, "yes")));
                let advice = "update the older side";
                checks.push(Check::failed(VERSIONS, Side::Between, shown(failure.reason()), advice));
            }
            Err(Unusable::Failed(failure)) => {
                let chain: Vec<CertificateDer<'static>> = Vec::new();
                checks.retain(|check| check.name != TRUST);
                self.not_connected(own, &chain, &failure, checks);
                return;
            }
            Ok(()) => {
                checks.push(Check::passed(ACCEPTS, "the partner accepts our certificate"));
                checks.push(Check::passed(ADMITS, "the partner lists us and has proven who we are"));
                checks.push(versions(context, connection));
            }
        }
        checks.push(self.compared_clock(context, connection).await);
        checks.push(granted_search(context, connection).await);
    }

    /// The partner's own word on why it does not talk to us.
    fn refused(&self, peer: &Domain, status: &Status) -> [Check; 2] {
        let detail = error::detail(status).unwrap_or_default();
        let why = shown(status.message());
        let own = &self.domain;
        let accepted = || Check::passed(ACCEPTS, "the partner trusts the authority of our certificate");
        match detail.label.as_str() {
            label::DENIED => {
                let found = format!("{peer} does not have {own} on its list, or has suspended or ended it");
                let advice =
                    format!("ask the partner to run `aldis remote set {own} …`, or `aldis remote resume {own}`");
                [accepted(), Check::failed(ADMITS, Side::Theirs, found, advice)]
            }
            label::AUTHENTICATION => {
                let found = format!("the partner cannot prove from our certificate that we are {own}: {why}");
                let advice = "the certificate must carry the target of our SRV record as the partner sees it, or the name or \
                              key that is pinned there; wait for the record's time to live after a change";
                [
                    Check::failed(ACCEPTS, Side::Ours, found, advice),
                    Check::skipped(ADMITS, "that comes after the proof"),
                ]
            }
            label::INVALID_DOMAIN => {
                let found = format!("the partner finds no SRV record of {own}");
                let advice = "publish it where the partner's resolver sees it (split DNS), or let the partner pin our key or \
                              list our targets in `federation.static_targets`";
                [accepted(), Check::failed(ADMITS, Side::Ours, found, advice)]
            }
            label::DISCOVERY => {
                let found = format!("DNS does not answer the partner when it looks up {own}");
                [accepted(), Check::failed(ADMITS, Side::Theirs, found, "tell the partner to look at its resolver")]
            }
            other => {
                let found = format!("the partner answers {other:?}: {why}");
                [
                    accepted(),
                    Check::failed(ADMITS, Side::Theirs, found, "ask the partner to look at the federator's log"),
                ]
            }
        }
    }

    async fn compared_clock(&self, context: &PeerContext, connection: &Connection) -> Check {
        let before = self.clock.now();
        let theirs = connection.clock(context, self.config.connect_timeout()).await;
        let after = self.clock.now();
        let theirs = match theirs {
            Ok(theirs) if theirs > 0 => theirs,
            Ok(_) => return Check::skipped(CLOCK, "the partner did not tell its time"),
            Err(why) => return Check::skipped(CLOCK, shown(&why)),
        };
        let middle = before.millis() + (after.millis() - before.millis()) / 2;
        let difference = Duration::from_millis(theirs.abs_diff(middle));
        let direction = if theirs > middle { "ahead of" } else { "behind" };
        let found = format!("the partner's clock is {:.1} s {direction} ours", difference.as_secs_f64());
        let advice = "see that both machines keep time (NTP): certificates seem expired or not valid yet, and events bear \
                      wrong times";
        if difference >= SKEW.1 {
            Check::failed(CLOCK, Side::Between, found, advice)
        } else if difference >= SKEW.0 {
            Check::warning(CLOCK, Side::Between, found, advice)
        } else {
            Check::passed(CLOCK, found)
        }
    }
}

fn reason(error: Option<std::io::Error>) -> String {
    error.map(|error| shown(&error.to_string())).unwrap_or_default()
}

/// The partner ended TLS because of our certificate.
fn refused_certificate(own: &Own, why: &str) -> Check {
    let facts = &own.facts;
    let advice = if why.contains("UnknownCA") {
        "send the partner the certificate of our authority for its `ca_file`; append every intermediate to \
         `federation.certificate_file` here"
    } else if why.contains("Expired") {
        "install a renewed certificate here; if ours is valid, the partner's clock is wrong"
    } else if !facts.client_auth || why.contains("Unsupported") {
        "have our certificate issued with clientAuth beside serverAuth"
    } else {
        "look at expiry, usage and chain of our certificate above; the partner's log says more"
    };
    let found = format!("{why}; ours is issued by {} and valid to {}", facts.issuer, facts.not_after);
    Check::failed(ACCEPTS, Side::Ours, found, advice)
}

fn versions(context: &PeerContext, connection: &Connection) -> Check {
    let Some(theirs) = connection.capabilities() else { return Check::skipped(VERSIONS, "the partner did not tell") };
    let ours = &context.capabilities;
    let unknown = |ours: &[u32], theirs: &[u32]| -> Vec<u32> {
        ours.iter().copied().filter(|kind| !theirs.contains(kind)).collect()
    };
    let (users, conversations) = (
        unknown(&ours.users_kinds, &theirs.users_kinds),
        unknown(&ours.conversations_kinds, &theirs.conversations_kinds),
    );
    let found = format!(
        "{}, version {:?}, messages up to {} MiB",
        theirs.build,
        theirs.versions,
        theirs.max_message_bytes >> 20
    );
    if users.is_empty() && conversations.is_empty() {
        return Check::passed(VERSIONS, found);
    }
    let found =
        format!("{found}; it does not know events of kinds {users:?} (users) and {conversations:?} (conversations)");
    Check::warning(VERSIONS, Side::Theirs, found, "such events wait until the partner has updated")
}

/// What our users may find there.
async fn granted_search(context: &PeerContext, connection: &Connection) -> Check {
    let request = SearchUsersRequest { term: SEARCHED.to_owned(), size: 1, ..SearchUsersRequest::default() };
    let mut users = UsersClient::new(connection.greeting(context));
    match timeout(context.connect_timeout, users.search_users(request)).await {
        Ok(Ok(answer)) => match answer.into_inner().policy() {
            SearchPolicy::NoSearch | SearchPolicy::Unspecified => {
                let advice = "searches stay empty without an error: ask the partner for `exact_handle_search` or \
                              `full_search`, if your users shall find theirs";
                Check::warning(SEARCH, Side::Theirs, "our users find nobody there (`no_search`)", advice)
            }
            SearchPolicy::ExactHandleSearch => Check::passed(SEARCH, "our users find theirs by exact handle"),
            SearchPolicy::FullSearch => Check::passed(SEARCH, "our users find theirs by name and handle"),
        },
        Ok(Err(status)) => {
            let label = error::detail(&status).unwrap_or_default().label;
            let advice = "its federator answers, but its users service does not: ask the partner to look at it";
            Check::failed(SEARCH, Side::Theirs, format!("the partner's users service answers {label:?}"), advice)
        }
        Err(_) => Check::skipped(SEARCH, "no answer in time"),
    }
}
