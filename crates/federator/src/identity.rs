//! Who calls: proves from a certificate that its holder may speak for a domain.
//!
//! The chain was verified in the handshake. Here the leaf must carry, as a subject alternative name (wildcards for one
//! label; a common name does not count), one of the targets of the domain's SRV record, or fulfil the operator's pin.
//! Proofs are kept for at most the record's time to live.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aldis_peers::Policy;
use aldis_runtime::SharedClock;
use aldis_types::{Domain, Timestamp};
use rustls::{client::verify_server_name, server::ParsedCertificate};
use rustls_pki_types::{CertificateDer, ServerName};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tonic::Code;

use crate::{
    discovery::Discovery,
    failure::{Refusal, label},
    network::LookupError,
    tls::{Pins, Tls, key_of, not_after},
};

/// Longest life of a proof, whatever DNS says.
const MAX_PROOF: Duration = Duration::from_secs(3_600);
/// Life of a proof that rests on a DNS answer served beyond its time.
const STALE_PROOF: Duration = Duration::from_secs(30);
const MAX_PROOFS: usize = 4_096;

/// The certificates that a caller showed in the handshake.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    leaf: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
    fingerprint: [u8; 32],
    pub(crate) not_after: Timestamp,
}

impl Shown {
    /// From the handshake's chain, leaf first; `None` without a readable leaf.
    pub(crate) fn new(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let (leaf, intermediates) = chain.split_first()?;
        Some(Self {
            fingerprint: Sha256::digest(leaf).into(),
            not_after: not_after(leaf)?,
            leaf: leaf.clone().into_owned(),
            intermediates: intermediates.iter().map(|certificate| certificate.clone().into_owned()).collect(),
        })
    }
}

struct Proof {
    until: Instant,
    generation: u64,
    /// The version of the policy, which may pin keys.
    policy: u64,
}

pub(crate) struct Identity {
    discovery: Arc<Discovery>,
    tls: Arc<Tls>,
    pins: Arc<Pins>,
    policy: Policy,
    clock: SharedClock,
    proofs: Mutex<HashMap<([u8; 32], Domain), Proof>>,
}

impl Identity {
    pub(crate) fn new(
        discovery: Arc<Discovery>,
        tls: Arc<Tls>,
        pins: Arc<Pins>,
        policy: Policy,
        clock: SharedClock,
    ) -> Self {
        Self { discovery, tls, pins, policy, clock, proofs: Mutex::default() }
    }

    /// Proves that the holder of the certificate may speak for `origin`; tells until when that holds.
    pub(crate) async fn prove(&self, origin: &Domain, shown: &Shown) -> Result<Instant, Refusal> {
        let material = self.tls.current();
        let policy = self.policy.current();
        let key = (shown.fingerprint, origin.clone());
        let now = Instant::now();
        let wall = self.clock.now();
        if shown.not_after <= wall {
            return Err(Refusal::authentication("the certificate has expired"));
        }
        if let Some(proof) = self.proofs().get(&key)
            && now < proof.until
            && proof.generation == material.generation
            && proof.policy == policy.version
        {
            return Ok(proof.until);
        }
        material.verify_caller(origin, &shown.leaf, &shown.intermediates, wall).map_err(|error| {
            Refusal::authentication(format!("the certificate is not trusted for {origin}: {error}"))
        })?;
        if !key_of(&shown.leaf).is_some_and(|key| policy.allows_key(origin, key)) {
            return Err(Refusal::authentication(format!("the public key is not one pinned for {origin}")));
        }
        let life = self.names(origin, shown).await?.min(shown.not_after.since(wall));
        let until = now + life;
        let mut proofs = self.proofs();
        if proofs.len() >= MAX_PROOFS {
            proofs.retain(|_, proof| now < proof.until);
        }
        if proofs.len() < MAX_PROOFS {
            proofs.insert(key, Proof { until, generation: material.generation, policy: policy.version });
        }
        Ok(until)
    }

    fn proofs(&self) -> std::sync::MutexGuard<'_, HashMap<([u8; 32], Domain), Proof>> {
        self.proofs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks pin and names; tells how long the outcome may be believed.
    async fn names(&self, origin: &Domain, shown: &Shown) -> Result<Duration, Refusal> {
        let leaf = ParsedCertificate::try_from(&shown.leaf)
            .map_err(|_| Refusal::authentication("the certificate cannot be read"))?;
        if let Some(pin) = self.pins.of(origin) {
            if !pin.key_matches(&leaf) || !pin.name_matches(&leaf) {
                return Err(Refusal::authentication(format!("the certificate is not the one pinned for {origin}")));
            }
            if pin.proves_alone() {
                return Ok(MAX_PROOF);
            }
        }
        let located = self.discovery.locate(origin).await.map_err(|error| not_located(origin, &error))?;
        let matches = located.value.iter().any(|target| {
            ServerName::try_from(target.host.as_str()).is_ok_and(|name| verify_server_name(&leaf, &name).is_ok())
        });
        if !matches {
            let hosts: Vec<&str> = located.value.iter().map(|target| target.host.as_str()).collect();
            return Err(Refusal::authentication(format!(
                "the certificate carries none of the names that {origin} may use: {}",
                hosts.join(", ")
            )));
        }
        Ok(if located.fresh_for.is_zero() { STALE_PROOF } else { located.fresh_for.min(MAX_PROOF) })
    }
}

fn not_located(origin: &Domain, error: &LookupError) -> Refusal {
    match error {
        LookupError::NotFound { .. } => Refusal::new(
            Code::FailedPrecondition,
            label::INVALID_DOMAIN,
            format!("SRV record not found: _wire-server-federator._tcp.{origin}"),
        ),
        LookupError::Failed(_) => {
            Refusal::new(Code::Unavailable, label::DISCOVERY, format!("DNS look-up of {origin} failed"))
        }
    }
}
