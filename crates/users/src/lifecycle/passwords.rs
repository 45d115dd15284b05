//! Changing a password, and getting a new one by mail.

use aldis_api::Session;
use aldis_types::{Email, UserId};

use super::{
    Lifecycle, LifecycleError, hash_of,
    store::{CodeProof, Confirmation, PasswordChange, Requested, Secret},
};
use crate::{
    accounts::activation::count_mail,
    audit::AuditEntry,
    auth::{
        passwords::Password,
        store::{AttemptKind, Revoked},
    },
    detached::detached,
};

/// Whose password is reset.
#[derive(Debug, Clone)]
pub(crate) enum ResetOf {
    User(UserId),
    Email(Email),
}

impl Lifecycle {
    /// Changes the own password, and ends all other sessions. An account that has none needs no old one.
    pub(crate) async fn change_password(
        &self,
        session: Session,
        old: Option<Password>,
        new: Password,
    ) -> Result<(), LifecycleError> {
        check_new(&new)?;
        let user = session.user;
        let secret = match self.parts.accounts.password(user).await? {
            None => Secret::NonePresent,
            Some(_) => {
                let old = old.ok_or(LifecycleError::WrongPassword)?;
                let hash = self.parts.auth.reauthenticate(user, Some(old.clone())).await?;
                if old.is_same(&new) {
                    return Err(LifecycleError::PasswordMustDiffer);
                }
                Secret::Checked(hash)
            }
        };
        let except = Some(session.connection.family());
        let audit = AuditEntry::new("client", "password-changed", user);
        if self.set_password(user, secret, new, except, audit).await? {
            Ok(())
        } else {
            Err(LifecycleError::WrongPassword)
        }
    }

    /// Mails a code with which a new password can be set, when an activated account has the address. Who asks does not
    /// learn whether there is one.
    pub(crate) async fn request_reset(&self, email: Email) -> Result<(), LifecycleError> {
        let Some(user) = self.parts.accounts.by_email(&email).await? else { return Ok(()) };
        let Some(account) = self.parts.accounts.get(user).await? else { return Ok(()) };
        let Some(address) = account.email.filter(|_| !account.deleted && !account.suspended) else { return Ok(()) };
        if count_mail(&self.parts.auth, &self.config, &email).await?.is_some() {
            return Ok(());
        }
        let fresh = self.fresh(user, Confirmation::PasswordReset, address);
        if self.parts.store.request(fresh).await? == Requested::Queued {
            self.parts.mail.notify_one();
        }
        Ok(())
    }

    /// Sets a new password with a code that was mailed, and ends all sessions.
    pub(crate) async fn reset_password(&self, of: ResetOf, code: &str, new: Password) -> Result<(), LifecycleError> {
        check_new(&new)?;
        let user = match of {
            ResetOf::User(user) => Some(user),
            ResetOf::Email(email) => self.parts.accounts.by_email(&email).await?,
        };
        let user = user.ok_or(LifecycleError::WrongResetCode)?;
        let proof = CodeProof { hash: hash_of(code), failures: self.config.limits.code_failures };
        // Before anything costly, so that guessing codes costs us nothing.
        if !self.parts.store.try_code(user, Confirmation::PasswordReset, proof, self.parts.clock.now()).await? {
            return Err(LifecycleError::WrongResetCode);
        }
        let before = self.parts.accounts.password(user).await?;
        if self.parts.auth.passwords().verify(new.clone(), before).await? {
            return Err(LifecycleError::PasswordMustDiffer);
        }
        let audit = AuditEntry::new("client", "password-reset", user);
        if !self.set_password(user, Secret::Code(proof), new, None, audit).await? {
            return Err(LifecycleError::WrongResetCode);
        }
        // Whoever reads the account's mail is not locked out by those who guess its password.
        self.parts.auth.forgive(AttemptKind::Password, *user.as_bytes()).await?;
        Ok(())
    }

    /// Stores a new password and ends all sessions, but one family of cookies. `false` when the secret did not hold.
    async fn set_password(
        &self,
        user: UserId,
        secret: Secret,
        new: Password,
        except: Option<u32>,
        audit: AuditEntry,
    ) -> Result<bool, LifecycleError> {
        let auth = self.parts.auth.clone();
        let change = PasswordChange {
            secret,
            password: auth.passwords().hash(new).await?,
            revocation: auth.revocation(user, Revoked::Everything { except }),
            audit,
            now: self.parts.clock.now(),
        };
        let (store, now) = (self.parts.store.clone(), change.now);
        detached(async move {
            let revocation = change.revocation;
            let done = store.set_password(change).await?;
            if done {
                auth.revocations().add(revocation, now);
            }
            Ok(done)
        })
        .await
    }
}

fn check_new(password: &Password) -> Result<(), LifecycleError> {
    if password.may_be_set() { Ok(()) } else { Err(LifecycleError::ShortPassword) }
}
