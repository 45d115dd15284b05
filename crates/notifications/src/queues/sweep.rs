//! Removing what has passed its retention.

use std::{sync::Arc, time::Duration};

use aldis_runtime::SharedClock;
use aldis_storage::StoreError;
use aldis_types::Timestamp;

use super::store::QueueStore;

/// Pause between two writes of the sweep, in which others have their turn.
const PAUSE: Duration = Duration::from_millis(10);

/// Removes old events for as long as it is polled.
pub(crate) async fn sweep(store: Arc<dyn QueueStore>, clock: SharedClock, retention: Duration, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let age = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let before = Timestamp::from_millis(clock.now().millis().saturating_sub(age));
        if let Err(error) = sweep_before(store.as_ref(), before).await {
            tracing::warn!(%error, "removing old notifications failed");
        }
    }
}

/// Removes every event appended before `time`, in small writes.
pub(super) async fn sweep_before(store: &dyn QueueStore, time: Timestamp) -> Result<(), StoreError> {
    while store.expire(time).await? {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
