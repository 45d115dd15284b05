//! Code generated from `proto/`, the conversions between it and `aldis-types`, and the channel over which our
//! services call each other.
//!
//! Generated types stop at a service's `grpc.rs` and `federation.rs`; everything inside uses `aldis-types`.

pub mod channel;
pub mod convert;
pub mod deadline;
pub mod error;

/// Between backends.
pub mod federation {
    /// `aldis.federation.v1`.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
    pub mod v1 {
        tonic::include_proto!("aldis.federation.v1");
    }
}

/// Between our own services.
pub mod internal {
    /// `aldis.internal.v1`.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
    pub mod v1 {
        tonic::include_proto!("aldis.internal.v1");
    }
}

/// Whether a call to this path may be made again when nobody knows whether the first one arrived: its
/// `idempotency_level` in `proto/` says so.
pub fn is_repeatable(path: &str) -> bool {
    const SORTED: &[&str] = include!(concat!(env!("OUT_DIR"), "/repeatable.rs"));
    SORTED.binary_search(&path).is_ok()
}

/// Names of gRPC metadata that only our own federator may set towards services, or services towards it.
pub mod metadata {
    /// Service → own federator: the backend to call.
    pub const TARGET_DOMAIN: &str = "aldis-target-domain";
    /// Federator → service: the backend that calls, proven by its certificate.
    pub const ORIGIN_DOMAIN: &str = "aldis-origin-domain";
    /// Caller → callee, passed through: a retry with the same key gets the first answer.
    pub const IDEMPOTENCY_KEY: &str = "aldis-idempotency-key";
    /// Own federator → service: present on every failure that this backend's federator made itself, absent on what
    /// the peer answered. Stripped from everything that comes from outside.
    pub const OWN_FAILURE: &str = "aldis-own-failure";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_may_be_repeated_that_say_so() {
        assert!(is_repeatable("/aldis.internal.v1.Profiles/GetAccounts"));
        assert!(is_repeatable("/aldis.internal.v1.Push/Push"));
        assert!(!is_repeatable("/aldis.internal.v1.UserAdmin/CreateUser"));
        assert!(!is_repeatable("/aldis.internal.v1.Profiles"));
    }
}
