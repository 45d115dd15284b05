//! The life of a process: it runs until it is told to stop or one of its parts ends by itself, then drains.

use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// A part of the process, without which it must not go on, ended or panicked.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` ended unexpectedly")]
pub struct Ended(pub String);

/// The parts of a running process.
///
/// Listeners are told to stop and may finish what is under way; background work goes on until they have, and is then
/// dropped. Either ending by itself ends the process with an error: half a backend is worse than a restart.
#[derive(Debug, Default)]
pub struct Parts {
    listeners: JoinSet<String>,
    background: JoinSet<String>,
    stop: CancellationToken,
}

impl Parts {
    /// No parts yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends when the process is asked to stop.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Adds a listener: a future that ends soon after [`Parts::stop`].
    pub fn listener(&mut self, name: impl Into<String>, serve: impl Future<Output = ()> + Send + 'static) {
        let name = name.into();
        self.listeners.spawn(async move {
            serve.await;
            name
        });
    }

    /// Adds background work: a future that never ends by itself.
    pub fn background(&mut self, name: impl Into<String>, work: impl Future<Output = ()> + Send + 'static) {
        let name = name.into();
        self.background.spawn(async move {
            work.await;
            name
        });
    }

    /// Adds the background work of a service. A task of it may be done at some time; one that panics ends the process,
    /// and so does the end of the last.
    pub fn adopt(&mut self, name: &str, mut tasks: JoinSet<()>) {
        if tasks.is_empty() {
            return;
        }
        self.background(name, async move {
            while let Some(ended) = tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "background task failed");
                    return;
                }
            }
        });
    }

    /// Runs until `asked` ends, or a part does unexpectedly. Then drains for at most `drain`.
    pub async fn run(mut self, asked: impl Future<Output = ()>, drain: Duration) -> Result<(), Ended> {
        let outcome = tokio::select! {
            () = asked => Ok(()),
            Some(ended) = self.listeners.join_next() => Err(ended_part(ended)),
            Some(ended) = self.background.join_next() => Err(ended_part(ended)),
        };
        tracing::info!("stopping");
        self.stop.cancel();
        let listeners = async { while self.listeners.join_next().await.is_some() {} };
        if tokio::time::timeout(drain, listeners).await.is_err() {
            tracing::warn!("some requests were still under way at the end");
        }
        self.listeners.shutdown().await;
        self.background.shutdown().await;
        outcome
    }
}

fn ended_part(ended: Result<String, JoinError>) -> Ended {
    match ended {
        Ok(name) => Ended(name),
        Err(error) => {
            tracing::error!(%error, "a part of the process failed");
            Ended(if error.is_panic() { "a part that panicked" } else { "a part" }.to_owned())
        }
    }
}
