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

fn public(keys: &TokenKeys) -> Vec<(u32, [u8; 32])> {
    keys.public().into_iter().map(|(position, key)| (position, key.to_bytes())).collect()
}

/// The revocations in force; tells everybody who watches.
pub(crate) struct Revocations {
    current: Mutex<Published>,
    watched: watch::Sender<Arc<Published>>,
}

impl Revocations {
    /// Starts with what was stored.
    pub(crate) fn new(keys: &TokenKeys, stored: Vec<Revocation>, now: Timestamp) -> Self {
        let keys = public(keys);
        let published = Published { keys, revocations: stored, version: now.millis().unsigned_abs() };
        Self { watched: watch::Sender::new(Arc::new(published.clone())), current: Mutex::new(published) }
    }

    /// Puts a revocation, which is stored already, in force.
    pub(crate) fn add(&self, revocation: Revocation, now: Timestamp) {
        self.add_all(vec![revocation], now);
    }

    /// Puts several in force at once. One of everything takes the place of an earlier one.
    pub(crate) fn add_all(&self, revocations: Vec<Revocation>, now: Timestamp) {
        self.change(now, |published| {
            for revocation in revocations {
                let same = |old: &Revocation| {
                    old.what == revocation.what || (old.what.is_everything() && revocation.what.is_everything())
                };
                published.revocations.retain(|old| old.user != revocation.user || !same(old));
                published.revocations.push(revocation);
            }
        });
    }

    /// Tells everybody of another list of keys.
    pub(crate) fn set_keys(&self, keys: &TokenKeys, now: Timestamp) {
        self.change(now, |published| published.keys = public(keys));
    }

    /// When all tokens of a user were revoked: until when a new one must be good in order not to be refused with them.
    pub(crate) fn refused_until(&self, user: UserId) -> Option<i64> {
        let published = self.watched.borrow();
        let found = published.revocations.iter().find(|old| old.user == user && old.what.is_everything());
        found.map(Revocation::refused_until)
    }

    /// Takes a revocation back, after the store did: the client has come back.
    pub(crate) fn lift(&self, user: UserId, what: Revoked, now: Timestamp) {
        if self.contains(user, what) {
            self.change(now, |published| {
                published.revocations.retain(|revoked| revoked.user != user || revoked.what != what);
            });
        }
    }

    fn change(&self, now: Timestamp, change: impl FnOnce(&mut Published)) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.revocations.retain(|old| old.expires > now);
        change(&mut current);
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
