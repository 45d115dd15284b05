//! The keys that sign tokens: a new one now and then, so that one that leaked is of no use for long.

use std::time::Duration;

use aldis_types::Timestamp;

use super::{AdminError, Administration};
use crate::{
    audit::Administrator,
    auth::keys::{MAX_KEYS, TokenKey},
};

/// A key as an administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyState {
    pub(crate) position: u32,
    pub(crate) created: Timestamp,
    pub(crate) retired: Option<Timestamp>,
    /// Until when tokens of a retired one are accepted.
    pub(crate) kept_until: Option<Timestamp>,
    pub(crate) signing: bool,
    pub(crate) public_key: [u8; 32],
}

impl KeyState {
    fn of(key: &TokenKey, signing: Option<u32>, kept: Duration) -> Self {
        Self {
            position: key.position,
            created: key.created,
            retired: key.retired,
            kept_until: key.retired.map(|time| time.plus(kept)),
            signing: signing == Some(key.position),
            public_key: key.key.verifying_key().to_bytes(),
        }
    }
}

impl Administration {
    /// Every key, oldest first.
    pub(crate) fn keys(&self) -> Vec<KeyState> {
        let (auth, kept) = (&self.0.auth, self.0.config.keys_kept());
        let signing = auth.keys().signing(self.now());
        auth.keys().all().iter().map(|key| KeyState::of(key, signing, kept)).collect()
    }

    /// Makes a new key. It signs once every service has had time to learn of it; tokens of the others stay good.
    pub(crate) async fn rotate_key(&self, by: &Administrator) -> Result<KeyState, AdminError> {
        let entry = by.does("token-key-rotated", "token-keys");
        match self.0.auth.clone().rotate_key(entry.clone()).await? {
            Some(key) => Ok(KeyState::of(&key, self.0.auth.keys().signing(self.now()), self.0.config.keys_kept())),
            None => {
                self.refused(entry, "too-many").await;
                Err(AdminError::TooManyKeys(MAX_KEYS))
            }
        }
    }
}
