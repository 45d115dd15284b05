//! Conversions between generated types and `aldis-types`, one file per area. Anything that comes from a peer is
//! checked here: a value that passes is valid.

mod conversations;
mod ids;
mod policy;
mod users;

pub use conversations::{from_access, from_access_roles, to_access, to_access_roles};
pub use ids::{
    InvalidWire, bytes_of, client_ids, conversation_id, domain, event_id, optional_team, qualified_conversation,
    qualified_user, team_id, to_qualified, user_id, user_ids,
};
pub use policy::{from_policy, key_pin, to_policy};
pub use users::{
    from_clients, from_prekey, from_profile, from_relation, to_clients, to_prekey, to_profile, to_relation,
};
