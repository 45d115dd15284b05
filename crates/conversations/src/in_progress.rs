//! Requests with the same key one after the other, so that a retry waits for the first answer instead of overtaking it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use crate::groups::store::AnswerKey;

/// How long a retry waits for the first request. Both end the same way then: the store decides.
const PATIENCE: Duration = Duration::from_secs(15);

type Running = Arc<Mutex<HashMap<AnswerKey, watch::Receiver<()>>>>;

/// Keys of requests that are being worked on.
#[derive(Default)]
pub(crate) struct InProgress {
    running: Running,
}

/// Held while a request is worked on.
pub(crate) struct Turn {
    key: AnswerKey,
    running: Running,
    // Closing it wakes whoever waits; only the one that is listed may be taken off.
    held: Option<watch::Sender<()>>,
}

impl InProgress {
    /// Waits for a request with the same key to end.
    pub(crate) async fn enter(&self, key: AnswerKey) -> Turn {
        let waiting = async {
            loop {
                let mut other = {
                    let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                    match running.get(&key) {
                        Some(other) => other.clone(),
                        None => {
                            let (sender, receiver) = watch::channel(());
                            running.insert(key, receiver);
                            return Some(sender);
                        }
                    }
                };
                // It only ever closes.
                let _ = other.changed().await;
            }
        };
        let held = tokio::time::timeout(PATIENCE, waiting).await.ok().flatten();
        Turn { key, running: self.running.clone(), held }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.held.is_some() {
            self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        }
    }
}
