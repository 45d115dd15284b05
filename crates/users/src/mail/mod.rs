//! Mail: rows written with the change that wants them, sent in the background with retries until they expire.
//!
//! A request never waits for a mail server. What a mail says is never logged.

mod deliver;
pub(crate) mod store;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use aldis_runtime::SharedClock;
use aldis_types::{Domain, Email, Timestamp};
pub(crate) use deliver::{Delivery, MailError};
use tokio::sync::Notify;

use self::store::{MailStore, StoredMail};
use crate::config;

/// Mails sent before the store is asked again.
const BATCH: usize = 32;
/// First pause after a failure; doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(900);
/// How often the store is asked without being woken.
const IDLE: Duration = Duration::from_secs(60);

/// Why a mail is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To activate an account that exists.
    Activation,
    /// To verify an address before the account is created.
    Verification,
    /// To set a new password.
    PasswordReset,
    /// To confirm that an account is to be deleted.
    Deletion,
}

impl Purpose {
    /// The value of `X-Zeta-Purpose`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Activation => "Activation",
            Self::Verification => "Verification",
            Self::PasswordReset => "PasswordReset",
            Self::Deletion => "Delete",
        }
    }
}

impl std::str::FromStr for Purpose {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let all = [Self::Activation, Self::Verification, Self::PasswordReset, Self::Deletion];
        all.into_iter().find(|purpose| purpose.as_str() == text).ok_or(())
    }
}

/// A mail to be sent.
#[derive(Debug, Clone)]
pub(crate) struct NewMail {
    /// To whom.
    pub(crate) recipient: Email,
    /// Why.
    pub(crate) purpose: Purpose,
    /// Names the code.
    pub(crate) key: String,
    /// The secret.
    pub(crate) code: String,
    /// After this it is useless.
    pub(crate) expires: Timestamp,
}

/// Sends what is in the store.
pub(crate) struct Mailer {
    store: Arc<dyn MailStore>,
    delivery: Delivery,
    clock: SharedClock,
    wake: Arc<Notify>,
}

impl Mailer {
    pub(crate) fn new(
        config: &config::Mail,
        domain: &Domain,
        store: Arc<dyn MailStore>,
        clock: SharedClock,
        wake: Arc<Notify>,
    ) -> Result<Self, MailError> {
        Ok(Self { store, delivery: Delivery::new(config, domain)?, clock, wake })
    }

    /// Runs until it is dropped.
    pub(crate) async fn run(self) {
        loop {
            match self.send_due().await {
                Ok(BATCH) => {}
                Ok(_) => self.pause().await,
                Err(error) => {
                    tracing::error!(%error, "reading the mail queue failed");
                    tokio::time::sleep(FIRST_PAUSE).await;
                }
            }
        }
    }

    async fn pause(&self) {
        let due = match self.store.next_due().await {
            Ok(Some(next)) => next.since(self.clock.now()).max(Duration::from_millis(50)),
            _ => IDLE,
        };
        // Woken, or the next retry is due: either way the store is asked.
        let _ = tokio::time::timeout(due.min(IDLE), self.wake.notified()).await;
    }

    /// Sends what is due now, at most a batch; says how many were tried.
    pub(crate) async fn send_due(&self) -> Result<usize, aldis_storage::StoreError> {
        let due = self.store.due(self.clock.now(), BATCH).await?;
        let count = due.len();
        for mail in due {
            self.send(mail).await?;
        }
        Ok(count)
    }

    async fn send(&self, mail: StoredMail) -> Result<(), aldis_storage::StoreError> {
        let now = self.clock.now();
        if mail.expires <= now {
            tracing::warn!(
                mail.purpose = mail.purpose.as_str(),
                mail.attempts,
                "a mail could not be delivered in time"
            );
            metrics::counter!("aldis_mail_dropped_total").increment(1);
            return self.store.remove(mail.id).await;
        }
        match self.delivery.deliver(&mail).await {
            Ok(()) => {
                metrics::counter!("aldis_mail_sent_total").increment(1);
                self.store.remove(mail.id).await
            }
            Err(error) => {
                tracing::warn!(%error, mail.purpose = mail.purpose.as_str(), mail.attempts, "delivering a mail failed");
                metrics::counter!("aldis_mail_failed_total").increment(1);
                self.store.retry(mail.id, now.plus(pause_after(mail.attempts))).await
            }
        }
    }
}

fn pause_after(attempts: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(attempts.min(16))).min(LONGEST_PAUSE)
}
