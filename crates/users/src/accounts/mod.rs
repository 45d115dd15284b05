//! Accounts: registration and activation, the own profile, handles, and the profiles of others.

pub(crate) mod activation;
mod error;
pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod json;
mod profiles;
mod registration;
pub(crate) mod store;
#[cfg(test)]
mod tests;

use std::{collections::HashSet, sync::Arc, time::Duration};

use aldis_api::Session;
use aldis_proto::{
    convert::to_profile,
    federation::v1::{ProfileChanged, users_event::Change},
};
use aldis_runtime::{SharedClock, SharedRandom};
use aldis_types::{AccentId, Domain, Email, Handle, Name, Profile, ProfileAsset, Protocol, Qualified, UserId};
pub(crate) use error::AccountError;
pub(crate) use registration::{NewAccount, Registrant};
use schemars::JsonSchema;
use serde::Serialize;

use self::store::{AccountStore, HandleOutcome, ProfileChange};
use crate::{
    auth::Auth,
    config::Config,
    connections::store::ConnectionStore,
    detached::detached,
    events::{self, Effects},
    peers::UserPeers,
};

/// Handles that nobody may take.
const RESERVED_HANDLES: [&str; 9] =
    ["admin", "administrator", "aldis", "all", "everyone", "here", "root", "support", "system"];
/// How long a request waits until its event is in the queues.
pub(crate) const LOCAL_DELIVERY: Duration = Duration::from_secs(5);

/// A language with an optional region, as `en` or `en-GB`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Locale(Box<str>);

impl Locale {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Locale {
    fn default() -> Self {
        Self("en".into())
    }
}

impl std::str::FromStr for Locale {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (language, region) = text.split_once(['-', '_']).map_or((text, None), |(l, r)| (l, Some(r)));
        let language_ok = (2..=3).contains(&language.len()) && language.bytes().all(|b| b.is_ascii_alphabetic());
        let region_ok =
            region.is_none_or(|region| region.len() == 2 && region.bytes().all(|b| b.is_ascii_alphabetic()));
        if !language_ok || !region_ok {
            return Err(());
        }
        let language = language.to_ascii_lowercase();
        Ok(Self(match region {
            None => language.into(),
            Some(region) => format!("{language}-{}", region.to_ascii_uppercase()).into(),
        }))
    }
}

/// An account of ours.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) id: UserId,
    pub(crate) name: Name,
    pub(crate) handle: Option<Handle>,
    /// The address that is proven to be the user's; with it the account is activated.
    pub(crate) email: Option<Email>,
    /// The address that is still to be proven.
    pub(crate) unverified_email: Option<Email>,
    pub(crate) locale: Locale,
    pub(crate) accent_id: AccentId,
    pub(crate) assets: Vec<ProfileAsset>,
    pub(crate) text_status: Option<String>,
    pub(crate) protocols: Vec<Protocol>,
    pub(crate) suspended: bool,
    pub(crate) deleted: bool,
    /// Rises with every change of the profile.
    pub(crate) version: u64,
}

impl Account {
    pub(crate) fn is_activated(&self) -> bool {
        self.email.is_some()
    }

    /// What others see.
    pub(crate) fn profile(&self, domain: &Domain) -> Profile {
        Profile {
            id: Qualified::new(self.id, domain.clone()),
            name: self.name.clone(),
            accent_id: self.accent_id,
            handle: self.handle.clone(),
            assets: self.assets.clone(),
            text_status: self.text_status.clone(),
            deleted: self.deleted,
            supported_protocols: self.protocols.clone(),
            team: None,
            version: self.version,
        }
    }
}

/// The parts that [`Accounts`] is made of.
pub(crate) struct AccountParts {
    pub(crate) domain: Domain,
    pub(crate) store: Arc<dyn AccountStore>,
    pub(crate) auth: Arc<Auth>,
    pub(crate) connections: Arc<dyn ConnectionStore>,
    pub(crate) peers: UserPeers,
    pub(crate) mail: Arc<tokio::sync::Notify>,
    pub(crate) clock: SharedClock,
    pub(crate) random: SharedRandom,
}

/// Accounts and profiles.
#[derive(Clone)]
pub(crate) struct Accounts {
    config: Arc<Config>,
    parts: Arc<AccountParts>,
}

impl Accounts {
    pub(crate) fn new(config: Arc<Config>, parts: AccountParts) -> Self {
        Self { config, parts: Arc::new(parts) }
    }

    /// One of our accounts; `None` when it never existed.
    pub(crate) async fn account(&self, user: UserId) -> Result<Option<Account>, AccountError> {
        Ok(self.parts.store.get(user).await?)
    }

    /// Several of our accounts; unknown ones are left out.
    pub(crate) async fn accounts(&self, users: Vec<UserId>) -> Result<Vec<Account>, AccountError> {
        Ok(self.parts.store.get_many(users).await?)
    }

    /// The caller's own account.
    pub(crate) async fn own(&self, user: UserId) -> Result<Account, AccountError> {
        self.account(user).await?.ok_or(AccountError::NotFound)
    }

    pub(crate) async fn has_password(&self, user: UserId) -> Result<bool, AccountError> {
        Ok(self.parts.store.password(user).await?.is_some())
    }

    /// Changes the own profile and tells oneself and every contact, here and elsewhere.
    pub(crate) async fn update(&self, session: Session, change: ProfileChange) -> Result<(), AccountError> {
        if change.is_empty() {
            return Ok(());
        }
        // Nobody else is told of a language.
        let private = change.is_private();
        let user = session.user;
        let event = json::update_event(user, &change);
        let effects = self.effects(session, private, event).await?;
        let store = self.parts.store.clone();
        detached(async move {
            let delivery = store.update(user, change, effects).await?.ok_or(AccountError::NotFound)?;
            delivery.local(LOCAL_DELIVERY).await;
            Ok(())
        })
        .await
    }

    /// Replaces the protocols. MLS, once announced, cannot be taken back.
    pub(crate) async fn set_protocols(&self, session: Session, protocols: Vec<Protocol>) -> Result<(), AccountError> {
        let own = self.own(session.user).await?;
        if own.protocols.contains(&Protocol::Mls) && !protocols.contains(&Protocol::Mls) {
            return Err(AccountError::ProtocolRemoved);
        }
        if own.protocols == protocols {
            return Ok(());
        }
        self.update(session, ProfileChange { protocols: Some(protocols), ..ProfileChange::default() }).await
    }

    /// Takes a handle, giving up the one before.
    pub(crate) async fn set_handle(&self, session: Session, handle: Handle) -> Result<(), AccountError> {
        if is_reserved(&handle) {
            return Err(AccountError::InvalidHandle);
        }
        if !self.own(session.user).await?.is_activated() {
            return Err(AccountError::NotActivated);
        }
        let user = session.user;
        let effects = self.effects(session, false, json::handle_event(user, &handle)).await?;
        let store = self.parts.store.clone();
        detached(async move {
            match store.set_handle(user, handle, effects).await? {
                HandleOutcome::Set(delivery) => {
                    delivery.local(LOCAL_DELIVERY).await;
                    Ok(())
                }
                HandleOutcome::Unchanged => Ok(()),
                HandleOutcome::Taken => Err(AccountError::HandleTaken),
                HandleOutcome::NoAccount => Err(AccountError::NotFound),
            }
        })
        .await
    }

    /// The first `wanted` of the handles that are valid and free, in their order.
    pub(crate) async fn free_handles(&self, handles: Vec<String>, wanted: usize) -> Result<Vec<Handle>, AccountError> {
        let valid: Vec<Handle> =
            handles.iter().filter_map(|handle| handle.parse().ok()).filter(|handle| !is_reserved(handle)).collect();
        let taken: HashSet<Handle> = self.parts.store.taken_handles(valid.clone()).await?.into_iter().collect();
        Ok(valid.into_iter().filter(|handle| !taken.contains(handle)).take(wanted).collect())
    }

    /// Whether somebody here has the handle, or nobody may have it.
    pub(crate) async fn handle_is_taken(&self, handle: &Handle) -> Result<bool, AccountError> {
        Ok(is_reserved(handle) || self.parts.store.by_handle(handle).await?.is_some())
    }

    /// What a change of a profile tells: `event` to the user and the contacts here, the new profile to backends where
    /// there are contacts. Nobody but the user is told of what is private.
    async fn effects(
        &self,
        session: Session,
        private: bool,
        event: serde_json::Value,
    ) -> Result<Effects<Account>, AccountError> {
        let (user, domain) = (session.user, self.parts.domain.clone());
        let mut audience = vec![user];
        let mut backends = Vec::new();
        if !private {
            audience.extend(self.parts.connections.local_contacts(user, domain.clone()).await?);
            backends = self.parts.connections.contact_backends(user, domain.clone()).await?;
        }
        let now = self.parts.clock.now();
        Ok(Arc::new(move |account: &Account| {
            let mut effects = vec![events::to_users(user, &audience, &event, Some(&session))];
            effects.extend(backends.iter().map(|backend| {
                let profile = Some(to_profile(&account.profile(&domain)));
                events::to_backend(backend, user, now, Change::ProfileChanged(ProfileChanged { profile }))
            }));
            effects
        }))
    }
}

fn is_reserved(handle: &Handle) -> bool {
    RESERVED_HANDLES.contains(&handle.as_str())
}
