//! Proving that an e-mail address is one's own: by a six-digit code that is sent there.

use std::time::Duration;

use aldis_runtime::{SharedClock, SharedRandom};
use aldis_storage::StoreError;
use aldis_types::{Email, UserId};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::{
    AccountError, Accounts,
    store::{Activation, CodeRequest, CodeTry, FreshCode, Proven},
};
use crate::{
    auth::{
        Auth,
        store::{AttemptKind, AttemptLimit},
    },
    config::{Config, Registration},
    detached::detached,
    events::{self, Effects},
};

/// The name of an address in mails and requests; it gives the address away to nobody.
pub(crate) fn activation_key(email: &Email) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(email.key().as_bytes()))
}

/// A code of six digits.
pub(crate) fn six_digits(random: &SharedRandom) -> String {
    format!("{:06}", random.below(1_000_000))
}

/// A code that proves an address.
pub(crate) fn fresh_code(config: &Config, clock: &SharedClock, random: &SharedRandom) -> FreshCode {
    let now = clock.now();
    let lifetime = config.limits.code_seconds;
    FreshCode {
        code: six_digits(random),
        now,
        expires: now.plus(Duration::from_secs(lifetime)),
        mail_expires: now.plus(Duration::from_secs(config.mail.expiry_seconds.min(lifetime))),
    }
}

/// Counts a mail to an address, so that nobody can be flooded. Gives how long to wait when there were too many.
pub(crate) async fn count_mail(auth: &Auth, config: &Config, email: &Email) -> Result<Option<Duration>, StoreError> {
    let mut subject = [0; 16];
    subject.copy_from_slice(&Sha256::digest(email.key().as_bytes())[..16]);
    let limit = AttemptLimit { count: config.limits.code_mails_per_hour, window: Duration::from_secs(3600) };
    auth.count(AttemptKind::ActivationMail, subject, limit).await
}

/// What an activation did.
pub(crate) enum Activated {
    /// The address is proven from now on; the first one makes the account active.
    Now { email: Email, first: bool },
    /// It was before.
    Before,
}

impl Accounts {
    fn fresh_code(&self) -> FreshCode {
        fresh_code(&self.config, &self.parts.clock, &self.parts.random)
    }

    /// Refuses everybody while registration is closed.
    pub(crate) fn registration_is_open(&self) -> Result<(), AccountError> {
        if self.config.registration == Registration::Closed { Err(AccountError::RegistrationClosed) } else { Ok(()) }
    }

    pub(super) fn may_register(&self, email: &Email) -> Result<(), AccountError> {
        match &self.config.registration {
            Registration::Closed => Err(AccountError::RegistrationClosed),
            Registration::Open => Ok(()),
            Registration::Domains(domains) => {
                if domains.iter().any(|domain| domain == email.domain()) {
                    Ok(())
                } else {
                    Err(AccountError::EmailDomainNotAllowed)
                }
            }
        }
    }

    /// Mails a code to an address that nobody uses yet; the pending one, when there is one.
    pub(crate) async fn send_code(&self, email: Email) -> Result<(), AccountError> {
        self.may_register(&email)?;
        self.count_mail(&email).await?;
        let key = activation_key(&email);
        match self.parts.store.request_code(key, email, self.fresh_code()).await? {
            CodeRequest::Queued => {
                self.parts.mail.notify_one();
                Ok(())
            }
            CodeRequest::EmailTaken => Err(AccountError::EmailTaken),
        }
    }

    pub(super) async fn count_mail(&self, email: &Email) -> Result<(), AccountError> {
        match count_mail(&self.parts.auth, &self.config, email).await? {
            None => Ok(()),
            Some(wait) => Err(AccountError::TooManyCodes(wait)),
        }
    }

    /// Whether the code fits, without using it. A wrong one counts.
    pub(crate) async fn try_code(&self, key: String, code: String) -> Result<(), AccountError> {
        let failures = self.config.limits.code_failures;
        match self.parts.store.try_code(key, code, failures, self.parts.clock.now()).await? {
            CodeTry::Fits => Ok(()),
            CodeTry::Wrong => Err(AccountError::InvalidCode),
        }
    }

    /// Proves the address that an account waits for: activates the account, or changes its address.
    pub(crate) async fn activate(&self, key: String, code: String) -> Result<Activated, AccountError> {
        let failures = self.config.limits.code_failures;
        let now = self.parts.clock.now();
        let domain = self.parts.domain.clone();
        let effects: Effects<Proven> = std::sync::Arc::new(move |proven: &Proven| {
            let account = &proven.account;
            let event = match &account.email {
                Some(email) if !proven.first => super::json::email_event(account.id, email),
                _ => super::json::activate_event(account, &domain),
            };
            vec![events::to_users(account.id, &[account.id], &event, None)]
        });
        let store = self.parts.store.clone();
        detached(async move {
            match store.activate(key, code, failures, now, effects).await? {
                Activation::Now(proven) => {
                    let first = proven.first;
                    Ok(proven.account.email.map_or(Activated::Before, |email| Activated::Now { email, first }))
                }
                Activation::Before => Ok(Activated::Before),
                Activation::EmailTaken => Err(AccountError::EmailTaken),
                Activation::Wrong => Err(AccountError::InvalidCode),
            }
        })
        .await
    }

    /// Writes the code and mail for an account that is created without a proven address.
    pub(super) fn pending_code(&self, email: &Email) -> (String, FreshCode) {
        (activation_key(email), self.fresh_code())
    }

    pub(super) fn new_id(&self) -> UserId {
        UserId::new(self.parts.random.uuid())
    }
}
