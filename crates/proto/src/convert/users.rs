//! Profiles, clients, prekeys and relations.

use aldis_types::{
    AccentId, AssetSize, ClientClass, ClientId, Domain, Prekey, PrekeyId, Profile, ProfileAsset, Protocol, Qualified,
    Relation, UserClients,
};

use super::{InvalidWire, bytes_of, optional_team, user_id};
use crate::{federation::v1 as pb, internal::v1 as internal};

/// More clients than any user can have; a longer list is refused.
const MAX_CLIENTS: usize = 64;
/// Longest accepted status line and asset key.
const MAX_TEXT_BYTES: usize = 1024;
const MAX_ASSETS: usize = 16;

/// A profile as it goes to another backend.
pub fn to_profile(profile: &Profile) -> pb::Profile {
    pb::Profile {
        id: bytes_of(profile.id.id),
        name: profile.name.as_str().to_owned(),
        accent_id: profile.accent_id.0,
        handle: profile.handle.as_ref().map(|handle| handle.as_str().to_owned()),
        assets: profile
            .assets
            .iter()
            .map(|asset| pb::ProfileAsset {
                key: asset.key.clone(),
                size: match asset.size {
                    None => pb::AssetSize::Unspecified,
                    Some(AssetSize::Preview) => pb::AssetSize::Preview,
                    Some(AssetSize::Complete) => pb::AssetSize::Complete,
                }
                .into(),
            })
            .collect(),
        text_status: profile.text_status.clone(),
        deleted: profile.deleted,
        supported_protocols: profile.supported_protocols.iter().map(|p| to_protocol(*p).into()).collect(),
        team: profile.team.map(bytes_of),
        version: profile.version,
    }
}

fn to_protocol(protocol: Protocol) -> pb::Protocol {
    match protocol {
        Protocol::Proteus => pb::Protocol::Proteus,
        Protocol::Mls => pb::Protocol::Mls,
        Protocol::Mixed => pb::Protocol::Mixed,
    }
}

/// A profile that `domain` gave: qualified with that domain, whatever it may claim. Unknown protocols are left out.
pub fn from_profile(profile: &pb::Profile, domain: &Domain) -> Result<Profile, InvalidWire> {
    if profile.assets.len() > MAX_ASSETS || profile.assets.iter().any(|asset| asset.key.len() > MAX_TEXT_BYTES) {
        return Err(InvalidWire("assets"));
    }
    if profile.text_status.as_ref().is_some_and(|text| text.len() > MAX_TEXT_BYTES) {
        return Err(InvalidWire("text_status"));
    }
    Ok(Profile {
        id: Qualified::new(user_id(&profile.id)?, domain.clone()),
        name: profile.name.parse().map_err(|_| InvalidWire("name"))?,
        accent_id: AccentId(profile.accent_id),
        handle: profile.handle.as_deref().map(str::parse).transpose().map_err(|_| InvalidWire("handle"))?,
        assets: profile
            .assets
            .iter()
            .map(|asset| ProfileAsset {
                key: asset.key.clone(),
                size: match asset.size() {
                    pb::AssetSize::Unspecified => None,
                    pb::AssetSize::Preview => Some(AssetSize::Preview),
                    pb::AssetSize::Complete => Some(AssetSize::Complete),
                },
            })
            .collect(),
        text_status: profile.text_status.clone(),
        deleted: profile.deleted,
        supported_protocols: profile
            .supported_protocols()
            .filter_map(|protocol| match protocol {
                pb::Protocol::Unspecified => None,
                pb::Protocol::Proteus => Some(Protocol::Proteus),
                pb::Protocol::Mls => Some(Protocol::Mls),
                pb::Protocol::Mixed => Some(Protocol::Mixed),
            })
            .collect(),
        team: optional_team(profile.team.as_ref())?,
        version: profile.version,
    })
}

/// The clients of one user as they go over the wire.
pub fn to_clients(clients: &UserClients) -> pb::UserClients {
    pb::UserClients {
        user: bytes_of(clients.user),
        clients: clients
            .clients
            .iter()
            .map(|(id, class)| pb::Client {
                id: id.0,
                class: match class {
                    None => pb::ClientClass::Unspecified,
                    Some(ClientClass::Phone) => pb::ClientClass::Phone,
                    Some(ClientClass::Tablet) => pb::ClientClass::Tablet,
                    Some(ClientClass::Desktop) => pb::ClientClass::Desktop,
                    Some(ClientClass::Legalhold) => pb::ClientClass::Legalhold,
                }
                .into(),
            })
            .collect(),
    }
}

/// The clients of one user; more than any user can have are refused.
pub fn from_clients(clients: &pb::UserClients) -> Result<UserClients, InvalidWire> {
    if clients.clients.len() > MAX_CLIENTS {
        return Err(InvalidWire("clients"));
    }
    let mut list: Vec<_> = clients
        .clients
        .iter()
        .map(|client| {
            let class = match client.class() {
                pb::ClientClass::Unspecified => None,
                pb::ClientClass::Phone => Some(ClientClass::Phone),
                pb::ClientClass::Tablet => Some(ClientClass::Tablet),
                pb::ClientClass::Desktop => Some(ClientClass::Desktop),
                pb::ClientClass::Legalhold => Some(ClientClass::Legalhold),
            };
            (ClientId(client.id), class)
        })
        .collect();
    list.sort_unstable_by_key(|(id, _)| *id);
    list.dedup_by_key(|(id, _)| *id);
    Ok(UserClients { user: user_id(&clients.user)?, clients: list })
}

/// A prekey as it goes over the wire.
pub fn to_prekey(prekey: &Prekey) -> pb::Prekey {
    pb::Prekey { id: prekey.id.0.into(), key: prekey.key.clone() }
}

/// A prekey that a peer gave.
pub fn from_prekey(prekey: &pb::Prekey) -> Result<Prekey, InvalidWire> {
    let id = u16::try_from(prekey.id).map_err(|_| InvalidWire("prekey.id"))?;
    if prekey.key.is_empty() || prekey.key.len() > MAX_TEXT_BYTES {
        return Err(InvalidWire("prekey.key"));
    }
    Ok(Prekey { id: PrekeyId(id), key: prekey.key.clone() })
}

/// A relation, `None` for no row, as it goes between our services.
pub fn to_relation(relation: Option<Relation>) -> internal::Relation {
    match relation {
        None => internal::Relation::None,
        Some(Relation::Sent) => internal::Relation::Sent,
        Some(Relation::Pending) => internal::Relation::Pending,
        Some(Relation::Accepted) => internal::Relation::Accepted,
        Some(Relation::Ignored) => internal::Relation::Ignored,
        Some(Relation::Blocked) => internal::Relation::Blocked,
        Some(Relation::Cancelled) => internal::Relation::Cancelled,
    }
}

/// A relation; the outer `Err` is an unspecified value, the inner `None` no row.
pub fn from_relation(relation: internal::Relation) -> Result<Option<Relation>, InvalidWire> {
    Ok(match relation {
        internal::Relation::Unspecified => return Err(InvalidWire("relation")),
        internal::Relation::None => None,
        internal::Relation::Sent => Some(Relation::Sent),
        internal::Relation::Pending => Some(Relation::Pending),
        internal::Relation::Accepted => Some(Relation::Accepted),
        internal::Relation::Ignored => Some(Relation::Ignored),
        internal::Relation::Blocked => Some(Relation::Blocked),
        internal::Relation::Cancelled => Some(Relation::Cancelled),
    })
}
