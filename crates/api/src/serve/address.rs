//! Where a request comes from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use aldis_runtime::{listen::Encrypted, networks::Networks};
use axum::extract::ConnectInfo;
use http::{HeaderMap, HeaderName, request::Parts};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Longest chain of proxies that is looked at.
const MAX_HOPS: usize = 16;

/// The address of the client, an extension of every request: of the connection, or as trusted proxies state it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// What the connection and trusted proxies say about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) address: IpAddr,
    /// Through one of our proxies, or from this machine.
    pub(super) near: bool,
    /// The client's connection, to us or to our proxy, is encrypted.
    pub(super) https: bool,
}

impl Source {
    /// Walks the forwarding chain from our end for as long as the hops are trusted.
    pub(super) fn of(parts: &Parts, proxies: &Networks) -> Self {
        let connection = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let mut address =
            connection.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |connection| connection.0.ip().to_canonical());
        let trusted = |address: IpAddr| proxies.contains(address);
        let by_proxy = trusted(address);
        let near = by_proxy || address.is_loopback();
        for hop in hops(&parts.headers) {
            if !trusted(address) {
                break;
            }
            let Some(hop) = hop else { break };
            address = hop;
        }
        let stated = || parts.headers.get(FORWARDED_PROTO).is_some_and(|proto| proto.as_bytes() == b"https");
        let https = parts.extensions.get::<Encrypted>().is_some() || (by_proxy && stated());
        Self { address, near, https }
    }
}

/// The addresses of `X-Forwarded-For`, nearest first; `None` for one that cannot be read.
fn hops(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    let lines: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().map(|value| value.to_str().unwrap_or_default()).collect();
    let hops: Vec<Option<IpAddr>> = lines
        .iter()
        .rev()
        .flat_map(|line| line.rsplit(','))
        .take(MAX_HOPS)
        .map(|hop| hop.trim().parse::<IpAddr>().ok().map(|address| address.to_canonical()))
        .collect();
    hops.into_iter()
}
