//! All peers that were used since the start.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use aldis_types::Domain;
use tokio::sync::Semaphore;

use super::peer::{Context, Peer, PeerView};
use crate::{discovery::not_located, failure::Failure};

/// How often connections and permissions are looked after; a change of policy is acted on at once.
const TICK: Duration = Duration::from_secs(1);
/// Peers that are kept in mind. More than this many at once are refused unless some are idle.
const MAX_PEERS: usize = 4_096;
/// Health checks at the same time.
const MAX_CHECKS: usize = 16;

pub(crate) struct Pool {
    shared: Arc<Context>,
    peers: RwLock<HashMap<Domain, Arc<Peer>>>,
}

impl Pool {
    pub(crate) fn new(shared: Arc<Context>) -> Arc<Self> {
        Arc::new(Self { shared, peers: RwLock::default() })
    }

    pub(crate) fn shared(&self) -> &Arc<Context> {
        &self.shared
    }

    fn known(&self, domain: &Domain) -> Option<Arc<Peer>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).get(domain).cloned()
    }

    /// The peer of a domain. A new one that is not listed must be found in DNS first, so that names that people make up
    /// leave nothing behind.
    pub(crate) async fn peer(&self, domain: &Domain) -> Result<Arc<Peer>, Failure> {
        if let Some(peer) = self.known(domain) {
            return Ok(peer);
        }
        if !self.shared.policy.current().remotes.contains_key(domain) {
            self.shared.discovery.locate(domain).await.map_err(|error| not_located(domain, &error))?;
        }
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= MAX_PEERS {
            peers.retain(|_, peer| peer.is_busy() || peer.state().connected_since.is_some());
        }
        if peers.len() >= MAX_PEERS && !peers.contains_key(domain) {
            return Err(Failure::busy());
        }
        Ok(peers.entry(domain.clone()).or_insert_with(|| Peer::new(domain.clone(), self.shared.clone())).clone())
    }

    /// A peer that calls us is there: our own calls to it need not wait.
    pub(crate) fn heard(&self, domain: &Domain) {
        if let Some(peer) = self.known(domain) {
            peer.heard();
        }
    }

    fn all(&self) -> Vec<Arc<Peer>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// What is known of every peer, by domain.
    pub(crate) fn states(&self) -> Vec<PeerView> {
        let mut states: Vec<_> = self.all().iter().map(|peer| peer.state()).collect();
        states.sort_by(|a, b| a.domain.cmp(&b.domain));
        states
    }

    /// Looks after connections and ends those with peers that the policy refuses, for as long as it is polled.
    pub(crate) async fn maintain(self: Arc<Self>) {
        let mut policy = self.shared.policy.changes();
        let mut certificates = self.shared.tls.changes();
        let places = Arc::new(Semaphore::new(MAX_CHECKS));
        loop {
            // Once the sender is gone a change would be told for ever; the tick does the work then.
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                Ok(()) = policy.changed() => {}
                Ok(()) = certificates.changed() => {}
            }
            for peer in self.all() {
                if self.shared.policy.allows(&peer.domain) {
                    peer.maintain();
                } else {
                    peer.revoke();
                }
            }
            if !self.shared.health_check.is_zero() {
                self.check_listed(&places).await;
            }
        }
    }

    /// Starts the health checks of listed peers that are due.
    async fn check_listed(&self, places: &Arc<Semaphore>) {
        let policy = self.shared.policy.current();
        for domain in policy.remotes.keys().filter(|domain| policy.allows(domain)) {
            let Ok(peer) = self.peer(domain).await else { continue };
            // Without a place it is due again at the next tick.
            let Ok(place) = places.clone().try_acquire_owned() else { return };
            if peer.is_due(self.shared.health_check) {
                tokio::spawn(async move {
                    peer.check().await;
                    drop(place);
                });
            }
        }
    }
}
