//! The client-API kit: who is calling, how a request is read, how an error is answered.
//!
//! Every service of ours uses the same table of labels, the same token check and the same reading of bodies, paths and
//! queries, so that a client sees one backend.

pub mod auth;
pub mod caller;
pub mod error;
pub mod extract;
pub mod label;
mod objects;
pub mod routes;
pub mod serve;
pub mod token;

pub use auth::TokenVerifier;
pub use caller::{ApiVersion, Session, UserCaller};
pub use error::{Fault, HttpError, status};
pub use extract::{Json, Path, Query};
pub use label::Label;
pub use objects::read_json;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
