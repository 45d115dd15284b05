//! What happens to an account after it was made: its password, its e-mail address, its end.
//!
//! Whoever proves himself does so with the password or with a code that was mailed to him. Codes are stored as hashes,
//! work once, for a while, and for a few tries.

mod deletion;
mod email;
mod error;
pub(crate) mod http;
mod passwords;
pub(crate) mod store;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use aldis_runtime::{SharedClock, SharedRandom};
use aldis_types::{Domain, Email, UserId};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
pub(crate) use error::LifecycleError;
use sha2::{Digest, Sha256};

use self::store::{CodeHash, Confirmation, FreshConfirmation, LifecycleStore};
use crate::{
    accounts::{Account, store::AccountStore},
    auth::Auth,
    clients::ClientCache,
    config::Config,
};

/// Bytes of a code; too many to be guessed.
const CODE_BYTES: usize = 16;

/// The parts that [`Lifecycle`] is made of.
pub(crate) struct LifecycleParts {
    pub(crate) domain: Domain,
    pub(crate) store: Arc<dyn LifecycleStore>,
    pub(crate) accounts: Arc<dyn AccountStore>,
    pub(crate) auth: Arc<Auth>,
    pub(crate) clients: Arc<ClientCache>,
    pub(crate) mail: Arc<tokio::sync::Notify>,
    pub(crate) clock: SharedClock,
    pub(crate) random: SharedRandom,
}

/// Changes of passwords and addresses, and the end of accounts.
#[derive(Clone)]
pub(crate) struct Lifecycle {
    config: Arc<Config>,
    parts: Arc<LifecycleParts>,
}

impl Lifecycle {
    pub(crate) fn new(config: Arc<Config>, parts: LifecycleParts) -> Self {
        Self { config, parts: Arc::new(parts) }
    }

    /// An account that is not deleted.
    async fn account(&self, user: UserId) -> Result<Account, LifecycleError> {
        let account = self.parts.accounts.get(user).await?.filter(|account| !account.deleted);
        account.ok_or(LifecycleError::NotFound)
    }

    /// A new code for something that is to be confirmed by mail.
    fn fresh(&self, user: UserId, what: Confirmation, email: Email) -> FreshConfirmation {
        let mut secret = [0; CODE_BYTES];
        self.parts.random.fill(&mut secret);
        let now = self.parts.clock.now();
        let lifetime = self.config.limits.confirmation_seconds;
        FreshConfirmation {
            user,
            what,
            email,
            code: URL_SAFE_NO_PAD.encode(secret),
            now,
            expires: now.plus(Duration::from_secs(lifetime)),
            mail_expires: now.plus(Duration::from_secs(lifetime.min(self.config.mail.expiry_seconds))),
        }
    }
}

/// What is stored of a code.
pub(crate) fn hash_of(code: &str) -> CodeHash {
    Sha256::digest(code.as_bytes()).into()
}
