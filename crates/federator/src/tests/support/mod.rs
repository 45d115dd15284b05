//! An authority, a DNS server and peers that misbehave. The harness of the whole product has more of them, but depends on
//! this crate.

pub(super) mod dns;
pub(super) mod pki;
pub(super) mod rogue;
pub(super) mod wait;
