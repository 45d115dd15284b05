//! What the administrator does with accounts and token keys, and the record of it.
//!
//! Every change is written together with its audit record; a change that is refused leaves a record too. Nothing here
//! asks for a password or a right: whoever reaches these operations owns the store.

mod error;
pub(crate) mod grpc;
mod keys;
pub(crate) mod outbox;
pub(crate) mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use aldis_runtime::SharedClock;
use aldis_storage::StoreError;
use aldis_types::{Email, Handle, Timestamp, UserId};
pub(crate) use error::AdminError;
pub(crate) use keys::KeyState;

use self::store::{AccountRecord, AccountState, AdminStore, AuditRecord, Changed};
use crate::{
    accounts::store::AccountStore,
    audit::{Administrator, AuditEntry},
    auth::{
        Auth,
        passwords::Password,
        store::{AttemptKind, Revoked},
    },
    clients::{Client, store::ClientStore},
    config::Config,
    detached::detached,
    lifecycle::{Lifecycle, LifecycleError},
};

/// Entries of a page.
pub(crate) const PAGE: std::ops::RangeInclusive<u32> = 1..=1000;

/// Which account.
#[derive(Debug, Clone)]
pub(crate) enum Reference {
    Id(UserId),
    Handle(Handle),
    Email(Email),
}

/// One account with what belongs to it.
#[derive(Debug)]
pub(crate) struct Details {
    pub(crate) record: AccountRecord,
    pub(crate) clients: Vec<Client>,
    /// Cookies that are good now.
    pub(crate) sessions: usize,
}

/// The parts that [`Administration`] is made of.
pub(crate) struct AdministrationParts {
    pub(crate) config: Arc<Config>,
    pub(crate) store: Arc<dyn AdminStore>,
    pub(crate) accounts: Arc<dyn AccountStore>,
    pub(crate) clients: Arc<dyn ClientStore>,
    pub(crate) auth: Arc<Auth>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) clock: SharedClock,
}

/// The operations of an administrator. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Administration(Arc<AdministrationParts>);

impl Administration {
    pub(crate) fn new(parts: AdministrationParts) -> Self {
        Self(Arc::new(parts))
    }

    fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// Accounts after an id, in order, and whether more follow.
    pub(crate) async fn list(
        &self,
        after: Option<UserId>,
        state: Option<AccountState>,
        limit: u32,
    ) -> Result<(Vec<AccountRecord>, bool), AdminError> {
        let wanted = page_size(limit)?;
        let mut found = self.0.store.page(after, state, wanted + 1).await?;
        let more = found.len() > wanted;
        found.truncate(wanted);
        Ok((found, more))
    }

    /// One account, deleted ones included.
    pub(crate) async fn show(&self, who: Reference) -> Result<Details, AdminError> {
        let user = self.find(who).await?;
        let record = self.0.store.get(user).await?.ok_or(AdminError::NotFound)?;
        let clients = self.0.clients.list(user).await?;
        let sessions = self.0.auth.cookies(user).await?.len();
        Ok(Details { record, clients, sessions })
    }

    /// Refuses logins, renewals and every token that was issued, until [`Administration::resume`]. Cookies stay, so that
    /// apps are logged in again afterwards.
    pub(crate) async fn suspend(&self, by: &Administrator, who: Reference) -> Result<UserId, AdminError> {
        let action = "account-suspended";
        let user = self.named(by, action, who).await?;
        let (this, audit) = (self.clone(), by.does(action, user));
        let suspended = detached(async move {
            let revocation = this.0.auth.revocation(user, Revoked::EVERYTHING);
            let changed = this.0.store.suspend(user, revocation, audit, this.now()).await?;
            if changed == Changed::Done {
                this.0.auth.revocations().add(revocation, this.now());
            }
            Ok::<_, AdminError>(changed)
        })
        .await;
        self.done(by, action, user, suspended).await
    }

    /// Takes a suspension back.
    pub(crate) async fn resume(&self, by: &Administrator, who: Reference) -> Result<UserId, AdminError> {
        let action = "account-resumed";
        let user = self.named(by, action, who).await?;
        let resumed = self.0.store.resume(user, by.does(action, user), self.now()).await;
        self.done(by, action, user, resumed.map_err(AdminError::from)).await
    }

    /// Sets a password and ends every session. A lock-out for wrong passwords ends too.
    pub(crate) async fn reset_password(
        &self,
        by: &Administrator,
        who: Reference,
        password: Password,
    ) -> Result<UserId, AdminError> {
        let action = "password-reset";
        if !password.may_be_set() {
            return Err(AdminError::ShortPassword);
        }
        let user = self.named(by, action, who).await?;
        let hash = self.0.auth.passwords().hash(password).await?;
        let (this, audit) = (self.clone(), by.does(action, user));
        let reset = detached(async move {
            let revocation = this.0.auth.revocation(user, Revoked::EVERYTHING);
            let changed = this.0.store.set_password(user, hash, revocation, audit, this.now()).await?;
            if changed == Changed::Done {
                this.0.auth.revocations().add(revocation, this.now());
                this.0.auth.forgive(AttemptKind::Password, *user.as_bytes()).await?;
            }
            Ok::<_, AdminError>(changed)
        })
        .await;
        self.done(by, action, user, reset).await
    }

    /// Ends every session; says how many cookies there were.
    pub(crate) async fn log_out(&self, by: &Administrator, who: Reference) -> Result<(UserId, usize), AdminError> {
        let action = "sessions-ended";
        let user = self.named(by, action, who).await?;
        let ended = self.0.auth.clone().end_sessions(user, by.does(action, user)).await?;
        Ok((user, ended))
    }

    /// Deletes an account for good.
    pub(crate) async fn delete(&self, by: &Administrator, who: Reference) -> Result<UserId, AdminError> {
        let action = "account-deleted";
        let user = self.named(by, action, who).await?;
        match self.0.lifecycle.delete(user, None, None, by.does(action, user)).await {
            Ok(()) => Ok(user),
            Err(LifecycleError::NotFound) => {
                self.refused(by.does(action, user), "not-found").await;
                Err(AdminError::NotFound)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Audit records before a number, newest first.
    pub(crate) async fn records(
        &self,
        before: Option<i64>,
        subject: Option<String>,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, AdminError> {
        Ok(self.0.store.records(before, subject, page_size(limit)?).await?)
    }

    /// Records that something was not done. That it cannot be recorded is no reason to say so to the administrator.
    pub(crate) async fn refused(&self, entry: AuditEntry, why: &'static str) {
        if let Err(error) = self.0.store.record(entry.refused(why), self.now()).await {
            tracing::error!(%error, "an audit record could not be written");
        }
    }

    /// Records that something begins which is not done in one step. Without the record it must not begin.
    pub(crate) async fn begins(&self, mut entry: AuditEntry) -> Result<(), AdminError> {
        entry.outcome = "begun";
        Ok(self.0.store.record(entry, self.now()).await?)
    }

    /// Records something that was done elsewhere too, and so not in the step of the record.
    pub(crate) async fn done_with(&self, entry: AuditEntry) {
        if let Err(error) = self.0.store.record(entry, self.now()).await {
            tracing::error!(%error, "an audit record could not be written");
        }
    }

    async fn find(&self, who: Reference) -> Result<UserId, AdminError> {
        let found = match who {
            Reference::Id(user) => Some(user),
            Reference::Handle(handle) => self.0.accounts.by_handle(&handle).await?,
            Reference::Email(email) => self.0.accounts.by_email(&email).await?,
        };
        found.ok_or(AdminError::NotFound)
    }

    /// The account that is to be changed. Handles and addresses do not get into records, not even unknown ones.
    async fn named(&self, by: &Administrator, action: &'static str, who: Reference) -> Result<UserId, AdminError> {
        let named = match &who {
            Reference::Id(user) => user.to_string(),
            Reference::Handle(_) | Reference::Email(_) => "unknown".to_owned(),
        };
        let found = match self.find(who).await {
            Ok(user) => self.0.store.get(user).await?.filter(|record| record.state() != AccountState::Deleted),
            Err(AdminError::NotFound) => None,
            Err(error) => return Err(error),
        };
        match found {
            Some(record) => Ok(record.account.id),
            None => {
                self.refused(by.does(action, named), "not-found").await;
                Err(AdminError::NotFound)
            }
        }
    }

    async fn done(
        &self,
        by: &Administrator,
        action: &'static str,
        user: UserId,
        outcome: Result<Changed, AdminError>,
    ) -> Result<UserId, AdminError> {
        match outcome? {
            Changed::Done | Changed::Unchanged => Ok(user),
            Changed::NotFound => {
                self.refused(by.does(action, user), "not-found").await;
                Err(AdminError::NotFound)
            }
        }
    }
}

fn page_size(limit: u32) -> Result<usize, AdminError> {
    if PAGE.contains(&limit) { Ok(usize::try_from(limit).unwrap_or(usize::MAX)) } else { Err(AdminError::PageSize) }
}

impl From<StoreError> for AdminError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
