//! Profiles of anybody, here or at another backend.

use std::collections::BTreeMap;

use aldis_peers::{FAN_OUT, PeerError};
use aldis_types::{Domain, Handle, Locality, Profile, Qualified, UserId};
use futures::StreamExt;

use super::{AccountError, Accounts};
use crate::peers::MAX_USERS;

/// Profiles that were found, and users whose backend could not be asked.
#[derive(Debug, Default)]
pub(crate) struct FoundProfiles {
    pub(crate) found: Vec<Profile>,
    pub(crate) failed: Vec<Qualified<UserId>>,
}

impl Accounts {
    /// One profile; `None` when there is no such user.
    pub(crate) async fn profile(&self, user: Qualified<UserId>) -> Result<Option<Profile>, AccountError> {
        match self.parts.domain.locate(user) {
            Locality::Local(user) => {
                let account = self.account(*user.id()).await?;
                Ok(account.map(|account| account.profile(&self.parts.domain)))
            }
            Locality::Remote(user) => {
                let found = self.parts.peers.get_users(user.domain(), &[*user.id()]).await?;
                Ok(found.into_iter().next())
            }
        }
    }

    /// Many profiles. Unknown users are left out; those of backends that cannot be asked are listed as failed.
    pub(crate) async fn profiles(&self, users: Vec<Qualified<UserId>>) -> Result<FoundProfiles, AccountError> {
        let mut by_domain: BTreeMap<Domain, Vec<UserId>> = BTreeMap::new();
        for user in users {
            by_domain.entry(user.domain).or_default().push(user.id);
        }
        let mut result = FoundProfiles::default();
        if let Some(mut own) = by_domain.remove(&self.parts.domain) {
            own.sort_unstable();
            own.dedup();
            let accounts = self.accounts(own).await?;
            result.found.extend(accounts.iter().map(|account| account.profile(&self.parts.domain)));
        }
        let asked = by_domain.into_iter().map(|(domain, users)| async move {
            let outcome = self.remote_profiles(&domain, &users).await;
            (domain, users, outcome)
        });
        let mut asked = futures::stream::iter(asked).buffer_unordered(FAN_OUT);
        while let Some((domain, users, outcome)) = asked.next().await {
            match outcome {
                Ok(found) => result.found.extend(found),
                Err(error) => {
                    tracing::debug!(peer.domain = %domain, %error, "profiles of another backend cannot be read");
                    result.failed.extend(users.into_iter().map(|user| Qualified::new(user, domain.clone())));
                }
            }
        }
        Ok(result)
    }

    async fn remote_profiles(&self, domain: &Domain, users: &[UserId]) -> Result<Vec<Profile>, PeerError> {
        let mut found = Vec::with_capacity(users.len());
        for chunk in users.chunks(MAX_USERS) {
            found.extend(self.parts.peers.get_users(domain, chunk).await?);
        }
        Ok(found)
    }

    /// The user with exactly this handle.
    pub(crate) async fn profile_by_handle(
        &self,
        domain: &Domain,
        handle: &Handle,
    ) -> Result<Option<Profile>, AccountError> {
        if *domain != self.parts.domain {
            return Ok(self.parts.peers.user_by_handle(domain, handle).await?);
        }
        let Some(user) = self.parts.store.by_handle(handle).await? else { return Ok(None) };
        let account = self.account(user).await?;
        Ok(account.map(|account| account.profile(domain)))
    }

    /// Several users by handle; those whose backend cannot be asked are left out, as nobody knows their ids.
    pub(crate) async fn profiles_by_handle(
        &self,
        handles: Vec<Qualified<Handle>>,
    ) -> Result<FoundProfiles, AccountError> {
        let mut result = FoundProfiles::default();
        let asked = handles.iter().map(|handle| self.profile_by_handle(&handle.domain, &handle.id));
        for outcome in futures::future::join_all(asked).await {
            match outcome {
                Ok(found) => result.found.extend(found),
                Err(AccountError::Peer(error)) => {
                    tracing::debug!(peer.domain = %error.domain, %error, "a handle of another backend cannot be read");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(result)
    }
}
