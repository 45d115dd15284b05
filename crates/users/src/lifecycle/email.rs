//! Changing the e-mail address: the new one counts once a code that was sent there comes back.

use std::time::Duration;

use aldis_types::{Email, UserId};

use super::{Lifecycle, LifecycleError, store::EmailChange};
use crate::{
    accounts::activation::{activation_key, count_mail, fresh_code},
    auth::store::{AttemptKind, AttemptLimit},
    config::Registration,
};

impl Lifecycle {
    /// Mails a code to another address. `false` when the address is the user's already.
    pub(crate) async fn change_email(&self, user: UserId, email: Email) -> Result<bool, LifecycleError> {
        if let Registration::Domains(domains) = &self.config.registration
            && !domains.iter().any(|domain| domain == email.domain())
        {
            return Err(LifecycleError::EmailDomainNotAllowed);
        }
        let own = self.account(user).await?.email;
        if own.is_none_or(|own| own.key() != email.key()) {
            self.count_email_change(user).await?;
            if let Some(wait) = count_mail(&self.parts.auth, &self.config, &email).await? {
                return Err(LifecycleError::TooManyMails(wait));
            }
        }
        let fresh = fresh_code(&self.config, &self.parts.clock, &self.parts.random);
        match self.parts.store.change_email(user, activation_key(&email), email, fresh).await? {
            EmailChange::Queued => {
                self.parts.mail.notify_one();
                Ok(true)
            }
            EmailChange::Unchanged => Ok(false),
            EmailChange::Taken => Err(LifecycleError::EmailTaken),
            EmailChange::NoAccount => Err(LifecycleError::NotFound),
        }
    }

    /// Counts the mails that one account makes us send to addresses of its choice.
    async fn count_email_change(&self, user: UserId) -> Result<(), LifecycleError> {
        let limit = AttemptLimit { count: self.config.limits.code_mails_per_hour, window: Duration::from_secs(3600) };
        match self.parts.auth.count(AttemptKind::EmailChange, *user.as_bytes(), limit).await? {
            None => Ok(()),
            Some(wait) => Err(LifecycleError::TooManyMails(wait)),
        }
    }
}
