//! Process start: configuration, telemetry, listeners, TLS, shutdown, and the seams for time and randomness.

mod balance;
pub mod channel;
pub mod config;
pub mod dns;
mod followed;
pub mod http2;
pub mod https;
pub mod listen;
pub mod networks;
pub mod operations;
mod seams;
mod secret;
pub mod shutdown;
pub mod telemetry;
pub mod workload;

#[cfg(test)]
mod tests;

pub use seams::{Clock, ManualClock, Random, SharedClock, SharedRandom, SystemClock, SystemRandom};
pub use secret::Secret;
