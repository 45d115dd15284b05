//! Process start: configuration, telemetry, listeners, TLS, shutdown, and the seams for time and randomness.

mod seams;

pub use seams::{Clock, ManualClock, Random, SharedClock, SharedRandom, SystemClock, SystemRandom};
