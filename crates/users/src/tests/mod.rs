//! The service as a whole: its start, what it answers at start-up, and what other backends may do.

mod federation;
#[cfg(feature = "golden")]
mod golden;
mod leases;
mod start;
mod variations;
