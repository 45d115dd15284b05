//! Asking other backends, and being asked by them: the hops between are known here, no use case is.
//!
//! - [`Peers`] makes requests that our own federator carries to another backend.
//! - [`PeerError`] says at which hop such a call failed and which label a client sees for it.
//! - [`Origin`] is the backend that calls us, proven by its certificate.
//! - [`Policy`] is the federation policy in force, followed from the users service.
//! - [`Quota`] counts what one backend asks for.

mod error;
mod origin;
mod peers;
mod policy;
mod quota;

pub use aldis_proto::deadline::{GRPC_TIMEOUT, timeout};
pub use error::{PeerError, PeerErrorKind};
pub use origin::{Origin, federation_listener};
pub use peers::{AssetLimits, CallOptions, FAN_OUT, Peers};
pub use policy::{Denied, Policy};
pub use quota::{QUOTA_SWEEP, Quota};

#[cfg(test)]
mod tests;
