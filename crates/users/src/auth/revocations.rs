//! What every service has to know to check access tokens: public keys, and which tokens are refused before they
//! expire.

use std::sync::{Arc, Mutex, PoisonError};

use aldis_types::{Timestamp, UserId};
use tokio::sync::watch;

use super::{
    keys::TokenKeys,
    store::{Revocation, Revoked},
};

/// Keys and revocations at one version.
#[derive(Debug, Clone, Default)]
pub(crate) struct Published {
    /// Positions and public keys.
    pub(crate) keys: Vec<(u32, [u8; 32])>,
    /// What is refused.
    pub(crate) revocations: Vec<Revocation>,
    /// Differs from every earlier one, those before a restart included.
    pub(crate) version: u64,
}

/// The revocations in force; tells everybody who watches.
pub(crate) struct Revocations {
    current: Mutex<Published>,
    watched: watch::Sender<Arc<Published>>,
}

impl Revocations {
    /// Starts with what was stored.
    pub(crate) fn new(keys: &TokenKeys, stored: Vec<Revocation>, now: Timestamp) -> Self {
        let keys = keys.public().map(|(position, key)| (position, key.to_bytes())).collect();
        let published = Published { keys, revocations: stored, version: now.millis().unsigned_abs() };
        Self { watched: watch::Sender::new(Arc::new(published.clone())), current: Mutex::new(published) }
    }

    /// Puts a revocation, which is stored already, in force.
    pub(crate) fn add(&self, revocation: Revocation, now: Timestamp) {
        self.change(now, |list| list.push(revocation));
    }

    /// Takes a revocation back, after the store did: the client has come back.
    pub(crate) fn lift(&self, user: UserId, what: Revoked, now: Timestamp) {
        if self.contains(user, what) {
            self.change(now, |list| list.retain(|revoked| revoked.user != user || revoked.what != what));
        }
    }

    fn change(&self, now: Timestamp, change: impl FnOnce(&mut Vec<Revocation>)) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.revocations.retain(|old| old.expires > now);
        change(&mut current.revocations);
        current.version = (current.version + 1).max(now.millis().unsigned_abs());
        // Sent under the lock, so that watchers see versions in order.
        self.watched.send_replace(Arc::new(current.clone()));
    }

    /// Whether this is revoked.
    pub(crate) fn contains(&self, user: UserId, what: Revoked) -> bool {
        self.watched.borrow().revocations.iter().any(|revoked| revoked.user == user && revoked.what == what)
    }

    /// Follows keys and revocations.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Published>> {
        self.watched.subscribe()
    }
}
