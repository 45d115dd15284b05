//! Passwords: argon2id, on threads of their own, a bounded number at once.

use std::{fmt, sync::Arc};

use aldis_runtime::SharedRandom;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version, password_hash::phc::PasswordHash};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::config;

const MIN_NEW_CHARS: usize = 8;
const MAX_CHARS: usize = 1024;
const SALT_BYTES: usize = 16;

/// A password as somebody typed it: at most 1,024 characters. Wiped from memory when dropped, never shown.
#[derive(Clone, JsonSchema)]
pub(crate) struct Password(#[schemars(with = "String", length(max = 1024))] Zeroizing<String>);

impl Password {
    /// Takes a text of at most 1,024 characters.
    pub(crate) fn new(text: String) -> Option<Self> {
        let text = Zeroizing::new(text);
        (text.len() <= MAX_CHARS || text.chars().count() <= MAX_CHARS).then_some(Self(text))
    }

    /// Whether an account may get it: at least 8 characters.
    pub(crate) fn may_be_set(&self) -> bool {
        self.0.chars().count() >= MIN_NEW_CHARS
    }
}

impl Password {
    /// Whether the two are the same. Not for a secret that is stored: how long it takes gives away how they differ.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        *self.0 == *other.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(text).ok_or_else(|| de::Error::custom("a password has at most 1024 characters"))
    }
}

/// Why a password was neither hashed nor checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PasswordError {
    /// Too many are waiting.
    #[error("too many passwords are being checked")]
    Overloaded,
    /// The hash function refused its parameters or a stored hash.
    #[error("hashing a password failed")]
    Failed,
}

/// Hashes and checks passwords.
pub(crate) struct Passwords {
    argon2: Argon2<'static>,
    random: SharedRandom,
    /// Checked in place of the hash of an account that does not exist, so that it takes as long.
    nobody: String,
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
}

impl Passwords {
    pub(crate) fn new(config: &config::Passwords, random: SharedRandom) -> Result<Self, PasswordError> {
        let params = Params::new(config.memory_kib, config.passes, 1, None).map_err(|_| PasswordError::Failed)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut password = [0; 32];
        random.fill(&mut password);
        let nobody = hash(&argon2, &password, &salt(&random))?;
        Ok(Self {
            argon2,
            random,
            nobody,
            running: Arc::new(Semaphore::new(config.concurrent)),
            admitted: Arc::new(Semaphore::new(config.concurrent.saturating_add(config.waiting))),
        })
    }

    /// The text to store for a password.
    pub(crate) async fn hash(&self, password: Password) -> Result<String, PasswordError> {
        let (argon2, salt) = (self.argon2.clone(), salt(&self.random));
        self.run(move || hash(&argon2, password.0.as_bytes(), &salt)).await
    }

    /// Whether the password fits the stored text. Takes as long when there is none, and is `false` then.
    pub(crate) async fn verify(&self, password: Password, stored: Option<String>) -> Result<bool, PasswordError> {
        let exists = stored.is_some();
        let stored = Zeroizing::new(stored.unwrap_or_else(|| self.nobody.clone()));
        let argon2 = self.argon2.clone();
        self.run(move || {
            let parsed = PasswordHash::new(&stored).map_err(|_| PasswordError::Failed)?;
            Ok(argon2.verify_password(password.0.as_bytes(), &parsed).is_ok() && exists)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let admitted = self.admitted.clone().try_acquire_owned().map_err(|_| PasswordError::Overloaded)?;
        let running = self.running.clone().acquire_owned().await.map_err(|_| PasswordError::Overloaded)?;
        // The thread owns the permits: a caller that goes away does not make room before the work is done.
        let work = move || {
            let outcome = work();
            drop((admitted, running));
            outcome
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| PasswordError::Failed)?
    }
}

fn salt(random: &SharedRandom) -> [u8; SALT_BYTES] {
    let mut salt = [0; SALT_BYTES];
    random.fill(&mut salt);
    salt
}

fn hash(argon2: &Argon2<'_>, password: &[u8], salt: &[u8]) -> Result<String, PasswordError> {
    let hash: PasswordHash = argon2.hash_password_with_salt(password, salt).map_err(|_| PasswordError::Failed)?;
    Ok(hash.to_string())
}
