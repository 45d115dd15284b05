//! Clients and prekeys.

mod sqlite;
#[cfg(test)]
pub(crate) mod suite;

use std::collections::BTreeMap;

use aldis_api::Session;
use aldis_delivery::{Delivery, Outgoing};
use aldis_storage::StoreError;
use aldis_types::{Capability, ClientId, ClientType, Prekey, PrekeyId, Timestamp, UserId};
use async_trait::async_trait;
pub(crate) use sqlite::SqliteClients;

use super::{Client, PublicClient};
use crate::{
    auth::store::Revocation,
    events::Effects,
    peers::{ClaimedPrekeys, WantedClients},
};

/// A client and the prekeys that come with it, the last resort key among them.
#[derive(Debug, Clone)]
pub(crate) struct NewClient {
    pub(crate) client: Client,
    pub(crate) prekeys: Vec<Prekey>,
}

/// What a registration did.
#[derive(Debug, Clone)]
pub(crate) struct Added {
    /// The client as it is stored now.
    pub(crate) client: Client,
    /// Temporary clients that had to go.
    pub(crate) replaced: Vec<ClientId>,
    /// What is revoked with them.
    pub(crate) revoked: Vec<Revocation>,
}

/// What became of a registration.
#[derive(Debug)]
pub(crate) enum AddOutcome {
    Added {
        added: Box<Added>,
        delivery: Delivery,
    },
    /// It is neither the first of its type nor known, and was not authenticated.
    NeedsPassword,
    /// There are as many permanent clients as allowed.
    TooMany,
    /// The account was deleted.
    NoAccount,
}

/// What is changed of a client; `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClientChange {
    pub(crate) prekeys: Vec<Prekey>,
    pub(crate) last_prekey: Option<Prekey>,
    pub(crate) label: Option<String>,
    pub(crate) capabilities: Option<Vec<Capability>>,
    pub(crate) mls_public_keys: BTreeMap<String, String>,
}

/// What became of a change.
#[derive(Debug)]
pub(crate) enum UpdateOutcome {
    Updated(Delivery),
    NotFound,
    /// A capability is missing that the client had.
    CapabilityRemoved,
    /// The client has another key for a scheme.
    OtherMlsKey,
}

/// What became of a removal.
#[derive(Debug)]
pub(crate) enum RemoveOutcome {
    Removed { delivery: Delivery, revoked: Vec<Revocation> },
    NotFound,
}

/// Keeps clients and prekeys.
#[async_trait]
pub(crate) trait ClientStore: Send + Sync {
    /// One client.
    async fn get(&self, user: UserId, client: ClientId) -> Result<Option<Client>, StoreError>;

    /// The clients of a user, in ascending order of the id.
    async fn list(&self, user: UserId) -> Result<Vec<Client>, StoreError>;

    /// What others may see of the clients of several users: one entry for each, in order of the id.
    async fn public(&self, users: Vec<UserId>) -> Result<Vec<(UserId, Vec<PublicClient>)>, StoreError>;

    /// Whether registering this client needs the password: it is unknown, and not the first of its type.
    async fn needs_password(&self, user: UserId, client: ClientId, kind: ClientType) -> Result<bool, StoreError>;

    /// Registers a client, or renews the one with the same id. At most `limit` permanent ones are kept; a temporary one
    /// replaces the others, whose sessions, but the one that registers, are revoked until `tokens_expire`.
    async fn add(
        &self,
        session: Session,
        new: NewClient,
        authenticated: bool,
        limit: u32,
        tokens_expire: Timestamp,
        effects: Effects<Added>,
    ) -> Result<AddOutcome, StoreError>;

    /// Changes a client, and adds or overwrites prekeys by their number. Capabilities may only grow.
    async fn update(
        &self,
        user: UserId,
        client: ClientId,
        change: ClientChange,
        effects: Vec<Outgoing>,
    ) -> Result<UpdateOutcome, StoreError>;

    /// Removes a client with its prekeys and sessions, but for the family of cookies `except`, and writes the
    /// revocations, until `tokens_expire`.
    async fn remove(
        &self,
        user: UserId,
        client: ClientId,
        except: Option<u32>,
        tokens_expire: Timestamp,
        effects: Vec<Outgoing>,
    ) -> Result<RemoveOutcome, StoreError>;

    /// The numbers of the prekeys that are left, in ascending order, the last resort key's included.
    async fn prekey_ids(&self, user: UserId, client: ClientId) -> Result<Vec<PrekeyId>, StoreError>;

    /// Notes that clients were active at a time, unless they were at it or later; those that do not exist are passed
    /// over.
    async fn note_active(&self, clients: Vec<(UserId, ClientId)>, time: Timestamp) -> Result<(), StoreError>;

    /// Whether other backends were ever given leases on lists of clients.
    async fn had_leases(&self) -> Result<bool, StoreError>;

    /// Notes that other backends are given leases.
    async fn note_leases(&self) -> Result<(), StoreError>;

    /// Takes one prekey of each wanted client: each at most once, in no set order; the last resort key is returned, and
    /// kept, when it is alone. `None` when the client does not exist or never published one. One entry for each user.
    async fn take_prekeys(&self, wanted: Vec<(UserId, WantedClients)>) -> Result<Vec<ClaimedPrekeys>, StoreError>;
}
