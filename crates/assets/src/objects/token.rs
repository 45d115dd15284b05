//! What gives access to a file: 16 random bytes, of which only a hash is kept.

use aldis_runtime::SharedRandom;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Longest token that is looked at.
pub(crate) const MAX_TOKEN_BYTES: usize = 256;

/// The hash of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenHash(pub(crate) [u8; 32]);

impl TokenHash {
    pub(crate) fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Whether `token` is the one; takes the same time whatever it is.
    pub(crate) fn fits(&self, token: &str) -> bool {
        token.len() <= MAX_TOKEN_BYTES && Self::of(token).0.ct_eq(&self.0).into()
    }
}

/// A new token.
pub(crate) fn generate(random: &SharedRandom) -> String {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}
