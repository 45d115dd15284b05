//! Conversations: creating, reading, listing and changing them, and who is in.

mod create;
mod departure;
pub(crate) mod effects;
pub(crate) mod ending;
pub(crate) mod error;
pub(crate) mod grpc;
pub(crate) mod http;
mod invites;
pub(crate) mod json;
pub(crate) mod links;
pub(crate) mod list;
pub(crate) mod model;
mod owner;
mod rules;
pub(crate) mod schema;
mod settings;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod typing;
mod update;

pub(crate) use list::Seen;
pub(crate) use rules::sorted;
pub(crate) use typing::TypingLimit;
pub(crate) use update::Outcome;
