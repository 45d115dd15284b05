//! The callers on one connection, and when it has to end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aldis_types::Domain;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Ingress;
use crate::{failure::Refusal, identity::Shown};

/// How often standing and proofs are looked at; a change of policy is acted on at once.
const TICK: Duration = Duration::from_secs(1);
/// Backends that one connection may speak for, such as several domains of one installation.
const MAX_ORIGINS: usize = 64;
/// A connection that has proven nothing by then ends.
const PROVE_WITHIN: Duration = Duration::from_secs(30);
/// How often a proof is tried again, at most.
const PROVE_AGAIN: Duration = Duration::from_secs(1);

struct Standing {
    proven_until: Instant,
    ended: CancellationToken,
}

/// Who was proven on one connection.
pub(super) struct Callers {
    pub(super) shown: Shown,
    since: Instant,
    origins: Mutex<HashMap<Domain, Standing>>,
}

impl Callers {
    pub(super) fn new(shown: Shown) -> Self {
        Self { shown, since: Instant::now(), origins: Mutex::default() }
    }

    fn origins(&self) -> MutexGuard<'_, HashMap<Domain, Standing>> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Proves the origin unless it is proven. Gives what ends its calls.
    pub(super) async fn prove(&self, ingress: &Ingress, origin: &Domain) -> Result<CancellationToken, Refusal> {
        let now = Instant::now();
        if let Some(standing) = self.origins().get(origin)
            && now < standing.proven_until
            && !standing.ended.is_cancelled()
        {
            return Ok(standing.ended.clone());
        }
        let proven_until = ingress.identity.prove(origin, &self.shown).await?;
        let mut origins = self.origins();
        if let Some(standing) = origins.get_mut(origin).filter(|standing| !standing.ended.is_cancelled()) {
            standing.proven_until = proven_until;
            return Ok(standing.ended.clone());
        }
        if origins.len() >= MAX_ORIGINS && !origins.contains_key(origin) {
            return Err(Refusal::authentication("too many origins on one connection"));
        }
        let ended = CancellationToken::new();
        origins.insert(origin.clone(), Standing { proven_until, ended: ended.clone() });
        drop(origins);
        ingress.pool.heard(origin);
        Ok(ended)
    }

    fn end(&self, origin: &Domain) {
        if let Some(standing) = self.origins().remove(origin) {
            standing.ended.cancel();
        }
    }

    /// Ends whatever still runs.
    pub(super) fn end_all(&self) {
        self.origins().drain().for_each(|(_, standing)| standing.ended.cancel());
    }

    fn proven(&self) -> Vec<(Domain, Instant)> {
        self.origins().iter().map(|(domain, standing)| (domain.clone(), standing.proven_until)).collect()
    }
}

/// Watches over a connection; returns, with the reason, when it has to end.
pub(super) async fn review(ingress: &Arc<Ingress>, callers: &Callers, oldest: Instant) -> &'static str {
    let mut policy = ingress.policy.changes();
    let mut certificates = ingress.tls.changes();
    let mut reloaded = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            // It may pin other keys.
            Ok(()) = policy.changed() => reloaded = true,
            Ok(()) = certificates.changed() => reloaded = true,
            () = tokio::time::sleep_until(oldest) => return "age",
        }
        let proven = callers.proven();
        if proven.is_empty() && callers.since.elapsed() >= PROVE_WITHIN {
            return "nothing proven";
        }
        let mut lost = None;
        for (origin, until) in proven {
            if !ingress.policy.allows(&origin) {
                tracing::info!(peer.domain = %origin, "calls of the peer end: denied by policy");
                callers.end(&origin);
                lost = Some("policy");
            } else if reloaded || until <= Instant::now() {
                // Bounded by the look-up's own limit; other streams of the connection go on meanwhile.
                if let Err(refusal) = ingress.identity.prove(&origin, &callers.shown).await.map(|until| {
                    if let Some(standing) = callers.origins().get_mut(&origin) {
                        standing.proven_until = until.max(Instant::now() + PROVE_AGAIN);
                    }
                }) {
                    tracing::warn!(peer.domain = %origin, label = refusal.label, "calls of the peer end: no longer proven");
                    callers.end(&origin);
                    lost = Some("proof");
                }
            }
        }
        reloaded = false;
        if let Some(reason) = lost {
            return reason;
        }
    }
}
