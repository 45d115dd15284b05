//! Finding people: here by handle and by the start of a name, elsewhere by the other backend's policy.

pub(crate) mod http;
mod terms;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use aldis_api::{Fault, Label, label};
use aldis_peers::{PeerError, Policy};
use aldis_storage::StoreError;
use aldis_types::{Domain, Handle, Profile, SearchPolicy, UserId};
pub(crate) use terms::{normalise, terms};

use crate::{accounts::store::AccountStore, errors::store_label, peers::UserPeers};

/// Longest text that is searched for, in characters.
pub(crate) const MAX_TERM_CHARS: usize = 256;
/// Most results for another backend.
const MAX_FOR_ORIGIN: usize = 15;

/// Why a search failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SearchError {
    #[error("the searcher is not activated")]
    NotActivated,
    #[error("the text is too long")]
    TooLong,
    #[error("asking another backend")]
    Peer(#[from] PeerError),
    #[error("account store")]
    Store(#[from] StoreError),
}

impl Fault for SearchError {
    fn label(&self) -> Label {
        match self {
            Self::NotActivated => label::INSUFFICIENT_PERMISSIONS,
            Self::TooLong => label::BAD_REQUEST,
            Self::Peer(error) => error.label(),
            Self::Store(error) => store_label(error),
        }
    }

    fn passes_on(&self) -> Option<&dyn Fault> {
        match self {
            Self::Peer(error) => Some(error),
            _ => None,
        }
    }
}

/// What a search gave, and by which policy.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) profiles: Vec<Profile>,
    pub(crate) policy: SearchPolicy,
}

/// Search here and elsewhere.
#[derive(Clone)]
pub(crate) struct Search {
    domain: Domain,
    accounts: Arc<dyn AccountStore>,
    peers: UserPeers,
    policy: Policy,
}

impl Search {
    pub(crate) fn new(domain: Domain, accounts: Arc<dyn AccountStore>, peers: UserPeers, policy: Policy) -> Self {
        Self { domain, accounts, peers, policy }
    }

    /// Searches for a user of ours; `domain` is where.
    pub(crate) async fn search(
        &self,
        searcher: UserId,
        text: &str,
        domain: &Domain,
        size: usize,
    ) -> Result<Found, SearchError> {
        if text.chars().count() > MAX_TERM_CHARS {
            return Err(SearchError::TooLong);
        }
        let account = self.accounts.get(searcher).await?;
        if !account.is_some_and(|account| account.is_activated() && !account.deleted) {
            return Err(SearchError::NotActivated);
        }
        let text = bare(text);
        if *domain == self.domain {
            let profiles = self.here(text, Some(searcher), size).await?;
            return Ok(Found { profiles, policy: SearchPolicy::FullSearch });
        }
        if text.is_empty() {
            return Ok(Found { profiles: Vec::new(), policy: SearchPolicy::NoSearch });
        }
        let teams = self.policy.current().remotes.get(domain).and_then(|remote| remote.teams.clone());
        let (profiles, policy) = self.peers.search(domain, text.to_owned(), teams, size).await?;
        Ok(Found { profiles, policy })
    }

    /// Searches for another backend, by the policy for it.
    pub(crate) async fn for_origin(
        &self,
        policy: SearchPolicy,
        text: &str,
        size: usize,
    ) -> Result<Vec<Profile>, SearchError> {
        if text.chars().count() > MAX_TERM_CHARS {
            return Err(SearchError::TooLong);
        }
        let (text, size) = (bare(text), size.min(MAX_FOR_ORIGIN));
        match policy {
            SearchPolicy::NoSearch => Ok(Vec::new()),
            SearchPolicy::ExactHandleSearch => Ok(self.by_handle(text).await?.into_iter().collect()),
            SearchPolicy::FullSearch => self.here(text, None, size).await,
        }
    }

    /// The exact handle first, then whoever starts with the text.
    async fn here(&self, text: &str, except: Option<UserId>, size: usize) -> Result<Vec<Profile>, SearchError> {
        let prefix = normalise(text);
        if prefix.is_empty() || size == 0 {
            return Ok(Vec::new());
        }
        let mut found: Vec<Profile> =
            self.by_handle(text).await?.into_iter().filter(|profile| Some(profile.id.id) != except).collect();
        let exact = found.first().map(|profile| profile.id.id);
        let others = self.accounts.search(prefix, except, size).await?;
        let others = others.iter().filter(|account| Some(account.id) != exact);
        found.extend(others.map(|account| account.profile(&self.domain)));
        found.truncate(size);
        Ok(found)
    }

    async fn by_handle(&self, text: &str) -> Result<Option<Profile>, SearchError> {
        let Ok(handle) = text.to_lowercase().parse::<Handle>() else { return Ok(None) };
        let Some(user) = self.accounts.by_handle(&handle).await? else { return Ok(None) };
        let account = self.accounts.get(user).await?.filter(|account| !account.deleted && !account.suspended);
        Ok(account.map(|account| account.profile(&self.domain)))
    }
}

fn bare(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('@').unwrap_or(text)
}
