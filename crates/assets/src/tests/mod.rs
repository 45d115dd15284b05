//! The service through its client API and its federation API.

#[cfg(feature = "golden")]
mod golden;
mod local;
mod remote;
#[cfg(feature = "s3")]
mod s3;
mod world;
