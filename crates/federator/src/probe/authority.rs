//! The authority behind our certificate: what partners put into their `ca_file`.

use std::{sync::Arc, time::Duration};

use aldis_types::Timestamp;
use rustls::{RootCertStore, crypto::aws_lc_rs, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::certificate::CertificateFacts;

/// An authority's certificate.
#[derive(Debug, Clone)]
pub struct Authority {
    /// What it says.
    pub facts: CertificateFacts,
    /// The certificate itself (DER).
    pub certificate: Vec<u8>,
}

/// The one of `candidates` under which a chain holds, if any: the name alone would also fit somebody else's.
pub(super) fn of(
    chain: &[CertificateDer<'static>],
    candidates: &[CertificateDer<'static>],
    now: Timestamp,
) -> Option<Authority> {
    let (leaf, rest) = chain.split_first()?;
    let found = candidates.iter().find(|candidate| *candidate != leaf && is_issued(leaf, rest, candidate, now))?;
    Some(Authority { facts: CertificateFacts::read(found)?, certificate: found.to_vec() })
}

fn is_issued(
    leaf: &CertificateDer<'_>,
    rest: &[CertificateDer<'_>],
    authority: &CertificateDer<'static>,
    now: Timestamp,
) -> bool {
    let mut roots = RootCertStore::empty();
    if roots.add(authority.clone()).is_err() {
        return false;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let Ok(verifier) = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build() else {
        return false;
    };
    let now = Duration::from_millis(u64::try_from(now.millis()).unwrap_or(0));
    verifier.verify_client_cert(leaf, rest, UnixTime::since_unix_epoch(now)).is_ok()
}
