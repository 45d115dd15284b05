//! An object store for tests: a folder behind S3, over HTTP on a free port of loopback.

#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
pub use server::{serve, serve_tls};

/// Id of the access key that it takes.
pub const ACCESS_KEY_ID: &str = "aldis-test";
/// The access key that it takes.
pub const SECRET_ACCESS_KEY: &str = "aldis-test-secret";
/// The bucket that it has.
pub const BUCKET: &str = "aldis-test";
