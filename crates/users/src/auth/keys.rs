//! The keys that sign tokens. The newest signs, once every service has had time to learn of it; older ones are known to
//! every service for as long as their tokens may be good.

use std::{sync::Arc, time::Duration};

use aldis_api::token::{self, Claims, TokenError};
use aldis_types::Timestamp;
use arc_swap::ArcSwap;
use ed25519_dalek::{SigningKey, VerifyingKey};

/// How long a new key is told to the other services before it signs.
pub(crate) const SPREAD: Duration = Duration::from_secs(2);
/// Most keys at a time.
pub(crate) const MAX_KEYS: usize = 32;

/// A key at its place in the list, counted from 1.
#[derive(Clone)]
pub(crate) struct TokenKey {
    pub(crate) position: u32,
    pub(crate) key: SigningKey,
    pub(crate) created: Timestamp,
    /// When the next one took over.
    pub(crate) retired: Option<Timestamp>,
}

/// All keys in order; never empty.
pub(crate) struct TokenKeys(ArcSwap<Vec<TokenKey>>);

impl TokenKeys {
    /// `None` without any key.
    pub(crate) fn new(all: Vec<TokenKey>) -> Option<Self> {
        (!all.is_empty()).then(|| Self(ArcSwap::from_pointee(all)))
    }

    /// Puts another list in force; an empty one changes nothing.
    pub(crate) fn replace(&self, all: Vec<TokenKey>) {
        if !all.is_empty() {
            self.0.store(Arc::new(all));
        }
    }

    /// Every key.
    pub(crate) fn all(&self) -> Arc<Vec<TokenKey>> {
        self.0.load_full()
    }

    /// The position of the key that signs at `now`.
    pub(crate) fn signing(&self, now: Timestamp) -> Option<u32> {
        signing(&self.0.load(), now).map(|key| key.position)
    }

    /// Signs with the key of `now`.
    pub(crate) fn sign(&self, claims: &Claims, now: Timestamp) -> String {
        // The list is never empty.
        signing(&self.0.load(), now).map(|key| token::sign(claims, key.position, &key.key)).unwrap_or_default()
    }

    /// Reads a token signed by any key; says nothing about expiry.
    pub(crate) fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        let all = self.0.load();
        token::verify(token, |position| {
            all.iter().find(|key| key.position == position).map(|key| key.key.verifying_key())
        })
    }

    /// Positions and public keys.
    pub(crate) fn public(&self) -> Vec<(u32, VerifyingKey)> {
        self.0.load().iter().map(|key| (key.position, key.key.verifying_key())).collect()
    }
}

/// The newest key that every service knows by now; without one the first.
fn signing(all: &[TokenKey], now: Timestamp) -> Option<&TokenKey> {
    all.iter().rev().find(|key| key.created.plus(SPREAD) <= now).or_else(|| all.first())
}
