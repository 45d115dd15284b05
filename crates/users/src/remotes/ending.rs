//! Federation with a backend ends: connections with its users are cancelled, and what waits for it is dropped.
//!
//! What is left to do follows from the rows that are left, so that it can be cut off anywhere and goes on after a start. It
//! goes slowly, since others write too. The conversations service does its part by itself, from the same list.

use std::{sync::Arc, time::Duration};

use aldis_delivery::{Outbox, ended_event_id};
use aldis_runtime::SharedClock;
use aldis_storage::StoreError;
use aldis_types::{Domain, RemoteState, Timestamp};

use super::Remotes;
use crate::connections::{events, store::ConnectionStore};

/// Connections per step.
const PAGE: usize = 50;
/// Pause between two steps.
const PAUSE: Duration = Duration::from_millis(20);
/// How often it is looked again for what came in at the last moment.
const AGAIN: Duration = Duration::from_mins(10);
/// Pause after a failure of the store.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Cleans up behind every backend that is ended.
pub(crate) struct CleanUp {
    pub(crate) domain: Domain,
    pub(crate) remotes: Remotes,
    pub(crate) connections: Arc<dyn ConnectionStore>,
    pub(crate) outbox: Outbox,
    pub(crate) clock: SharedClock,
}

impl CleanUp {
    /// Runs for as long as it is polled.
    pub(crate) async fn run(self) {
        let mut changes = self.remotes.watch();
        loop {
            let ended: Vec<_> = {
                let current = changes.borrow_and_update();
                let remotes = current.remotes.iter().filter(|(_, remote)| remote.state == RemoteState::Ended);
                remotes.map(|(domain, remote)| (domain.clone(), remote.ended.unwrap_or_default())).collect()
            };
            let mut pause = AGAIN;
            for (remote, ended) in ended {
                if let Err(error) = self.end(&remote, ended).await {
                    tracing::error!(peer.domain = %remote, %error, "cleaning up after the end of federation failed; trying again");
                    pause = AFTER_FAILURE;
                }
            }
            // Once the sender is gone a change would be told for ever.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Ok(()) = changes.changed() => {}
            }
        }
    }

    fn is_ended(&self, remote: &Domain) -> bool {
        self.remotes.current().remotes.get(remote).is_some_and(|remote| remote.state == RemoteState::Ended)
    }

    /// Does what is left to do, unless federation with the backend begins anew meanwhile.
    async fn end(&self, remote: &Domain, ended: Timestamp) -> Result<(), StoreError> {
        let event = ended_event_id(&self.domain, remote, ended);
        let mut connections = 0;
        while self.is_ended(remote) {
            let domain = remote.clone();
            let effects = Arc::new(move |cancelled: &_| events::federation_ended(cancelled, &domain, event));
            let count = self.connections.cancel_some(remote, PAGE, self.clock.now(), effects).await?;
            connections += count;
            if count == 0 {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        if !self.is_ended(remote) {
            return Ok(());
        }
        let dropped = self.outbox.drop_backlog(remote).await?;
        if connections > 0 || dropped > 0 {
            tracing::info!(peer.domain = %remote, connections, dropped, "cleaned up after the end of federation");
        }
        Ok(())
    }
}
