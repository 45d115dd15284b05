//! What a federator counts. Labels name peers only after their name was proven or our own services asked for them.

use std::time::Duration;

use aldis_types::Domain;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::network::LookupError;

const CALLS: &str = "aldis_peer_calls_total";
const CALL_SECONDS: &str = "aldis_peer_call_duration_seconds";
const BREAKER: &str = "aldis_peer_breaker_state";
const CONNECTIONS: &str = "aldis_peer_connections";
const IN_FLIGHT: &str = "aldis_peer_in_flight";
const PEER_CERTIFICATE: &str = "aldis_peer_certificate_expiry_days";
const CERTIFICATE: &str = "aldis_federation_certificate_expiry_days";
const REFUSED: &str = "aldis_federation_refused_total";
const LOOKUPS: &str = "aldis_federation_dns_lookups_total";

/// Where a call goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Direction {
    Out,
    In,
}

impl Direction {
    fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
        }
    }
}

pub(crate) fn describe() {
    describe_counter!(CALLS, "Calls to and from a peer by outcome: ok, refused (by the called service), or a label");
    describe_histogram!(CALL_SECONDS, "Duration of calls to and from a peer, event streams left out");
    describe_gauge!(BREAKER, "0: the peer answers, 1: it is being tried, 2: it is left alone");
    describe_gauge!(CONNECTIONS, "Open connections to a peer");
    describe_gauge!(IN_FLIGHT, "Calls and event streams with a peer that are under way");
    describe_gauge!(PEER_CERTIFICATE, "Days until the certificate of a peer expires");
    describe_gauge!(CERTIFICATE, "Days until our own federation certificate expires");
    describe_counter!(REFUSED, "Connections and calls from outside that were refused before the origin was proven");
    describe_counter!(LOOKUPS, "DNS look-ups by kind and outcome");
}

pub(crate) fn call(domain: &Domain, direction: Direction, outcome: &'static str, took: Option<Duration>) {
    let domain = domain.as_str().to_owned();
    counter!(CALLS, "domain" => domain.clone(), "direction" => direction.as_str(), "outcome" => outcome).increment(1);
    if let Some(took) = took {
        histogram!(CALL_SECONDS, "domain" => domain, "direction" => direction.as_str()).record(took.as_secs_f64());
    }
}

pub(crate) fn refused(reason: &'static str) {
    counter!(REFUSED, "reason" => reason).increment(1);
}

pub(crate) fn breaker(domain: &Domain, kind: &'static str, state: u8) {
    gauge!(BREAKER, "domain" => domain.as_str().to_owned(), "kind" => kind).set(f64::from(state));
}

pub(crate) fn certificate_days(days: f64) {
    gauge!(CERTIFICATE).set(days);
}

pub(crate) fn peer_certificate_days(domain: &Domain, days: f64) {
    gauge!(PEER_CERTIFICATE, "domain" => domain.as_str().to_owned()).set(days);
}

pub(crate) fn looked_up<T>(kind: &'static str, outcome: Result<T, LookupError>) -> Result<T, LookupError> {
    let result = match &outcome {
        Ok(_) => "ok",
        Err(LookupError::NotFound { .. }) => "not-found",
        Err(LookupError::Failed(_)) => "failed",
    };
    counter!(LOOKUPS, "kind" => kind, "outcome" => result).increment(1);
    outcome
}

/// Counts one more for as long as it lives.
pub(crate) struct Gauged(metrics::Gauge);

impl Gauged {
    fn new(gauge: metrics::Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }

    pub(crate) fn connection(domain: &Domain) -> Self {
        Self::new(gauge!(CONNECTIONS, "domain" => domain.as_str().to_owned()))
    }

    pub(crate) fn in_flight(domain: &Domain, direction: Direction) -> Self {
        Self::new(gauge!(IN_FLIGHT, "domain" => domain.as_str().to_owned(), "direction" => direction.as_str()))
    }
}

impl Drop for Gauged {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
