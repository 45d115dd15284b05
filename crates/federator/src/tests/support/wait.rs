//! Waiting for conditions, never for time alone.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::{Instant, sleep, timeout};

/// Only a failing test reaches it.
const PATIENCE: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(10);

/// Tries until it succeeds.
pub(in crate::tests) async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Err(error) if Instant::now() >= deadline => return Err(error.context(format!("waited for {what}"))),
            Err(_) => sleep(PAUSE).await,
            done => return done,
        }
    }
}

/// Waits for the end of `future`.
pub(in crate::tests) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    timeout(PATIENCE, future).await.with_context(|| format!("waited for {what}"))
}
