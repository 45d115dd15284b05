//! The keys that sign tokens. The last one that is not retired signs; all of them are known to every service, so that
//! tokens of an older key stay good until they expire.

use aldis_api::token::{self, Claims, TokenError};
use ed25519_dalek::{SigningKey, VerifyingKey};

/// A key at its place in the list, counted from 1.
#[derive(Clone)]
pub(crate) struct TokenKey {
    pub(crate) position: u32,
    pub(crate) key: SigningKey,
    pub(crate) retired: bool,
}

/// All keys; never empty.
#[derive(Clone)]
pub(crate) struct TokenKeys {
    all: Vec<TokenKey>,
    signing: usize,
}

impl TokenKeys {
    /// `None` when no key may sign.
    pub(crate) fn new(all: Vec<TokenKey>) -> Option<Self> {
        let signing = all.iter().rposition(|key| !key.retired)?;
        Some(Self { all, signing })
    }

    /// Signs with the current key.
    pub(crate) fn sign(&self, claims: &Claims) -> String {
        let key = &self.all[self.signing];
        token::sign(claims, key.position, &key.key)
    }

    /// Reads a token signed by any key; says nothing about expiry.
    pub(crate) fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        token::verify(token, |position| {
            self.all.iter().find(|key| key.position == position).map(|key| key.key.verifying_key())
        })
    }

    /// Positions and public keys.
    pub(crate) fn public(&self) -> impl Iterator<Item = (u32, VerifyingKey)> + '_ {
        self.all.iter().map(|key| (key.position, key.key.verifying_key()))
    }
}
