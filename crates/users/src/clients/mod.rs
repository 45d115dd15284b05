//! Clients (devices) of users, and their prekeys.
//!
//! Lists of clients are what sending a message reads most, so they are kept in memory. Every change goes through this
//! process, and an entry that a change may have outdated is never put back (see `cache.rs`).

mod cache;
mod error;
pub(crate) mod grpc;
pub(crate) mod http;
mod leases;
pub(crate) mod prekeys;
pub(crate) mod store;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aldis_api::Session;
use aldis_peers::FAN_OUT;
use aldis_runtime::SharedClock;
use aldis_types::{
    Capability, ClientClass, ClientId, ClientType, Domain, Locality, Prekey, PrekeyId, Qualified, Timestamp,
    UserClients, UserId,
};
pub(crate) use cache::ClientCache;
pub(crate) use error::ClientError;
use futures::StreamExt;
pub(crate) use leases::Leases;

use self::store::{AddOutcome, Added, ClientChange, ClientStore, NewClient, RemoveOutcome, UpdateOutcome};
use crate::{
    accounts::LOCAL_DELIVERY,
    auth::{Auth, passwords::Password, store::Revoked},
    config::Config,
    detached::detached,
    events::{self, Effects},
    peers::{MAX_USERS, UserPeers},
};

/// A client with everything that its owner may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) id: ClientId,
    pub(crate) kind: ClientType,
    pub(crate) class: Option<ClientClass>,
    pub(crate) label: Option<String>,
    pub(crate) model: Option<String>,
    /// Label of the cookies that go with it.
    pub(crate) cookie: Option<String>,
    pub(crate) created: Timestamp,
    pub(crate) capabilities: Vec<Capability>,
    /// Public signature keys by scheme, base64.
    pub(crate) mls_public_keys: BTreeMap<String, String>,
    /// The week in which it last fetched notifications.
    pub(crate) last_active: Option<Timestamp>,
}

/// How exactly it is known when a client was last active.
const WEEK: i64 = 7 * 86_400_000;

/// What others may see of a client.
pub(crate) type PublicClient = (ClientId, Option<ClientClass>);

/// What somebody who registers a client says.
#[derive(Debug, Clone)]
pub(crate) struct Registration {
    pub(crate) kind: ClientType,
    pub(crate) class: Option<ClientClass>,
    pub(crate) label: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) cookie: Option<String>,
    pub(crate) capabilities: Vec<Capability>,
    pub(crate) mls_public_keys: BTreeMap<String, String>,
    pub(crate) prekeys: Vec<Prekey>,
    pub(crate) last_prekey: Prekey,
    pub(crate) password: Option<Password>,
}

/// The parts that [`Clients`] is made of.
pub(crate) struct ClientParts {
    pub(crate) domain: Domain,
    pub(crate) store: Arc<dyn ClientStore>,
    pub(crate) cache: Arc<ClientCache>,
    pub(crate) auth: Arc<Auth>,
    pub(crate) peers: UserPeers,
    pub(crate) leases: Leases,
    pub(crate) clock: SharedClock,
}

/// Clients and prekeys.
#[derive(Clone)]
pub(crate) struct Clients {
    config: Arc<Config>,
    parts: Arc<ClientParts>,
}

impl Clients {
    pub(crate) fn new(config: Arc<Config>, parts: ClientParts) -> Self {
        Self { config, parts: Arc::new(parts) }
    }

    /// Registers a client, or renews the one with the same last resort key. When this returns, its `user.client-add` is in
    /// every queue of the user, its own included, and no other backend sends without knowing of it.
    pub(crate) async fn register(&self, session: Session, mut new: Registration) -> Result<Client, ClientError> {
        if new.kind == ClientType::Legalhold || new.class == Some(ClientClass::Legalhold) {
            return Err(ClientError::LegalHold);
        }
        prekeys::check(&new.prekeys)?;
        prekeys::check_last(&new.last_prekey)?;
        let password = new.password.take();
        let user = session.user;
        let id = ClientId::from_last_prekey(&new.last_prekey.key);
        let kind = new.kind;
        let client = self.new_client(id, new);
        let mut authenticated = false;
        if self.parts.store.needs_password(user, id, kind).await? {
            self.parts.auth.reauthenticate(user, password.clone()).await?;
            authenticated = true;
        }
        match self.add(session, client.clone(), authenticated).await {
            // Another client of the type was registered in between.
            Err(ClientError::MissingPassword) if !authenticated && password.is_some() => {
                self.parts.auth.reauthenticate(user, password).await?;
                self.add(session, client, true).await
            }
            outcome => outcome,
        }
    }

    async fn add(&self, session: Session, new: NewClient, authenticated: bool) -> Result<Client, ClientError> {
        let (user, id) = (session.user, new.client.id);
        let effects = Self::registration_effects(session);
        let (limit, this) = (self.config.limits.permanent_clients, self.clone());
        let now = self.parts.clock.now();
        let tokens_expire = self.parts.auth.tokens_expire();
        detached(async move {
            let outcome = this.parts.store.add(session, new, authenticated, limit, tokens_expire, effects).await;
            this.parts.cache.changed(user);
            match outcome? {
                AddOutcome::Added { added, delivery } => {
                    let revocations = this.parts.auth.revocations();
                    revocations.lift(user, Revoked::Client(id), now);
                    revocations.add_all(added.revoked, now);
                    if !futures::join!(delivery.local(LOCAL_DELIVERY), this.parts.leases.settle(user)).0 {
                        return Err(ClientError::NotAnnounced);
                    }
                    Ok(added.client)
                }
                AddOutcome::NeedsPassword => Err(ClientError::MissingPassword),
                AddOutcome::TooMany => Err(ClientError::TooMany),
                AddOutcome::NoAccount => Err(ClientError::NoAccount),
            }
        })
        .await
    }

    fn new_client(&self, id: ClientId, new: Registration) -> NewClient {
        let mut prekeys = new.prekeys;
        prekeys.push(new.last_prekey);
        let client = Client {
            id,
            kind: new.kind,
            class: new.class,
            label: new.label,
            model: new.model,
            cookie: new.cookie,
            created: self.parts.clock.now(),
            capabilities: new.capabilities,
            mls_public_keys: new.mls_public_keys,
            last_active: None,
        };
        NewClient { client, prekeys }
    }

    fn registration_effects(session: Session) -> Effects<Added> {
        let user = session.user;
        Arc::new(move |added: &Added| {
            let mut effects = Vec::with_capacity(1 + 2 * added.replaced.len());
            for replaced in &added.replaced {
                effects.push(events::to_users(user, &[user], &http::remove_event(*replaced), Some(&session)));
                effects.push(events::remove_client(user, *replaced));
            }
            if added.client.capabilities.contains(&Capability::ConsumableNotifications) {
                effects.push(events::open_consumer(user, added.client.id));
            }
            effects.push(events::to_users(user, &[user], &http::add_event(&added.client), Some(&session)));
            effects
        })
    }

    /// The own clients, in ascending order of the id.
    pub(crate) async fn own(&self, user: UserId) -> Result<Vec<Client>, ClientError> {
        Ok(self.parts.store.list(user).await?)
    }

    /// One own client.
    pub(crate) async fn own_client(&self, user: UserId, client: ClientId) -> Result<Client, ClientError> {
        self.parts.store.get(user, client).await?.ok_or(ClientError::NotFound)
    }

    /// Changes an own client and adds prekeys.
    pub(crate) async fn update(&self, user: UserId, client: ClientId, change: ClientChange) -> Result<(), ClientError> {
        prekeys::check(&change.prekeys)?;
        if let Some(last) = &change.last_prekey {
            prekeys::check_last(last)?;
        }
        let consumes = change.capabilities.iter().flatten().any(|it| *it == Capability::ConsumableNotifications);
        let effects = if consumes { vec![events::open_consumer(user, client)] } else { Vec::new() };
        let outcome = self.parts.store.update(user, client, change, effects).await?;
        match outcome {
            // The client may open its socket as soon as it has the answer.
            UpdateOutcome::Updated(delivery) => {
                if consumes && !delivery.local(LOCAL_DELIVERY).await {
                    return Err(ClientError::NotAnnounced);
                }
                Ok(())
            }
            UpdateOutcome::NotFound => Err(ClientError::NotFound),
            UpdateOutcome::CapabilityRemoved => Err(ClientError::CapabilityRemoved),
            UpdateOutcome::OtherMlsKey => Err(ClientError::DuplicateMlsKey),
        }
    }

    /// The numbers of the prekeys that are left, the last resort key included.
    pub(crate) async fn prekey_ids(&self, user: UserId, client: ClientId) -> Result<Vec<PrekeyId>, ClientError> {
        self.own_client(user, client).await?;
        Ok(self.parts.store.prekey_ids(user, client).await?)
    }

    /// Removes an own client with everything that belongs to it. Permanent ones need the password.
    pub(crate) async fn remove(
        &self,
        session: Session,
        client: ClientId,
        password: Option<Password>,
    ) -> Result<(), ClientError> {
        let user = session.user;
        if self.own_client(user, client).await?.kind == ClientType::Permanent {
            self.parts.auth.reauthenticate(user, password).await?;
        }
        let effects = vec![
            events::to_users(user, &[user], &http::remove_event(client), Some(&session)),
            events::remove_client(user, client),
        ];
        let tokens_expire = self.parts.auth.tokens_expire();
        let now = self.parts.clock.now();
        // Clients may share a cookie label, and whoever removes another one stays.
        let except = (session.client != Some(client)).then(|| session.connection.family());
        let this = self.clone();
        detached(async move {
            let outcome = this.parts.store.remove(user, client, except, tokens_expire, effects).await;
            this.parts.cache.changed(user);
            match outcome? {
                RemoveOutcome::Removed { delivery, revoked } => {
                    this.parts.auth.revocations().add_all(revoked, now);
                    futures::join!(delivery.local(LOCAL_DELIVERY), this.parts.leases.settle(user));
                    Ok(())
                }
                RemoveOutcome::NotFound => Err(ClientError::NotFound),
            }
        })
        .await
    }

    /// Notes that clients are active, to the week.
    pub(crate) async fn note_active(&self, clients: Vec<(UserId, ClientId)>) -> Result<(), ClientError> {
        let now = self.parts.clock.now().millis();
        Ok(self.parts.store.note_active(clients, Timestamp::from_millis(now - now % WEEK)).await?)
    }

    /// The clients of several of our users; users without any are left out.
    pub(crate) async fn list_local(&self, users: &[UserId]) -> Result<Vec<UserClients>, ClientError> {
        let mut found = Vec::with_capacity(users.len());
        let mut missing = Vec::new();
        let mark = self.parts.cache.mark();
        for user in users {
            match self.parts.cache.get(*user) {
                Some(clients) => found.push((*user, clients)),
                None => missing.push(*user),
            }
        }
        if !missing.is_empty() {
            for (user, clients) in self.parts.store.public(missing).await? {
                let clients: Arc<[PublicClient]> = clients.into();
                self.parts.cache.put(mark, user, clients.clone());
                found.push((user, clients));
            }
        }
        let listed = found.into_iter().filter(|(_, clients)| !clients.is_empty());
        Ok(listed.map(|(user, clients)| UserClients { user, clients: clients.to_vec() }).collect())
    }

    /// Like [`Clients::list_local`], for another backend, which may rely on it for as long as the answer says, if at all.
    pub(crate) async fn lease(
        &self,
        holder: &Domain,
        users: &[UserId],
    ) -> Result<(Vec<UserClients>, Option<Duration>), ClientError> {
        let lease = self.parts.leases.grant(holder, users).await;
        Ok((self.list_local(users).await?, lease))
    }

    /// The clients of one user, anywhere.
    pub(crate) async fn list_of(&self, user: Qualified<UserId>) -> Result<Vec<PublicClient>, ClientError> {
        let found = match self.parts.domain.locate(user) {
            Locality::Local(user) => self.list_local(&[*user.id()]).await?,
            Locality::Remote(user) => self.parts.peers.list_clients(user.domain(), &[*user.id()]).await?,
        };
        Ok(found.into_iter().next().map(|clients| clients.clients).unwrap_or_default())
    }

    /// The clients of many users, by domain; backends that cannot be asked are missing.
    pub(crate) async fn list_many(
        &self,
        users: Vec<Qualified<UserId>>,
    ) -> Result<BTreeMap<Domain, Vec<UserClients>>, ClientError> {
        let mut by_domain: BTreeMap<Domain, Vec<UserId>> = BTreeMap::new();
        for user in users {
            by_domain.entry(user.domain).or_default().push(user.id);
        }
        let mut result = BTreeMap::new();
        if let Some(mut own) = by_domain.remove(&self.parts.domain) {
            own.sort_unstable();
            own.dedup();
            result.insert(self.parts.domain.clone(), self.list_local(&own).await?);
        }
        let asked = by_domain.into_iter().map(|(domain, users)| async move {
            let mut found = Vec::new();
            for chunk in users.chunks(MAX_USERS) {
                match self.parts.peers.list_clients(&domain, chunk).await {
                    Ok(clients) => found.extend(clients),
                    Err(error) => {
                        tracing::debug!(peer.domain = %domain, %error, "clients of another backend cannot be read");
                        return None;
                    }
                }
            }
            Some((domain, found))
        });
        let asked: Vec<_> = futures::stream::iter(asked).buffer_unordered(FAN_OUT).collect().await;
        result.extend(asked.into_iter().flatten());
        Ok(result)
    }
}
