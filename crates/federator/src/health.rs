//! What an operator should look at. None of it makes a federator unready: partners being down is not our illness.

use std::sync::Arc;

use crate::{egress::Pool, probe::CertificateFacts, tls::Tls};

/// Days of validity below which our certificate is worth a word.
const CERTIFICATE_DAYS: i64 = 14;

/// A view of the federator's troubles. Cheap to clone.
#[derive(Clone)]
pub struct Health {
    pool: Arc<Pool>,
    tls: Arc<Tls>,
}

impl Health {
    pub(crate) fn new(pool: Arc<Pool>, tls: Arc<Tls>) -> Self {
        Self { pool, tls }
    }

    /// One line per trouble, for `degraded` in the body of `/readyz`; empty when all is well.
    pub fn degraded(&self) -> Vec<String> {
        let days = self.tls.days_left();
        let certificate = (days < CERTIFICATE_DAYS).then(|| match days {
            ..0 => "federation certificate has expired".to_owned(),
            days => format!("federation certificate expires in {days} days"),
        });
        let peers = self.pool.states().into_iter().filter(|peer| peer.breaker != "closed");
        let peers = peers.map(|peer| {
            let label = peer.last_error.map_or("unknown", |(_, label)| label);
            format!("peer {} does not answer: {label}", peer.domain)
        });
        certificate.into_iter().chain(peers).collect()
    }

    /// Our certificate in force.
    pub fn certificate(&self) -> Option<CertificateFacts> {
        self.tls.certificate()
    }

    /// Days until our certificate expires; negative afterwards.
    pub fn certificate_days_left(&self) -> i64 {
        self.tls.days_left()
    }
}
