//! Values that two layers or more share: ids, domains, qualified ids and what clients see of users, clients,
//! connections and conversations.
//!
//! No I/O. A value here is valid by construction and serialises as the JSON of the client API; golden files pin it.

mod asset;
mod client;
mod connection;
mod conversation;
mod domain;
mod id;
mod name;
mod one_to_one;
mod qualified;
mod remote;
mod schema;
mod time;
mod user;

pub use asset::{AssetKey, MediaType, Retention};
pub use client::{Capability, ClientClass, ClientType, Prekey, PrekeyId, UserClients};
pub use connection::Relation;
pub use conversation::{Access, AccessRole, Action, ConversationType, LegacyAccessRole, Member, Protocol, RoleName};
pub use domain::{Domain, InvalidDomain};
pub use id::{ClientId, ConnId, ConversationId, EventId, InvalidId, NotificationId, TeamId, UserId};
pub use name::{AccentId, Email, Handle, InvalidValue, Name};
pub use one_to_one::{OneToOneProtocol, one_to_one};
pub use qualified::{Local, Locality, Qualified, Remote};
pub use remote::{InvalidPolicyValue, KeyPin, PolicySnapshot, RemotePolicy, RemoteState, SearchPolicy, Strategy};
pub use time::{InvalidTimestamp, Timestamp};
pub use user::{AssetSize, Profile, ProfileAsset};

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
