//! Streams to our own services: the whole state at once, again on every change, and a beat without one.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use tokio::sync::watch;
use tonic::Status;

/// A beat without change.
pub(crate) const BEAT: Duration = Duration::from_secs(15);
/// Changes in close succession are sent as one.
const GATHER: Duration = Duration::from_millis(20);

/// Streams a watched value until its sender is gone.
pub(crate) fn stream<T, M>(
    watched: watch::Receiver<Arc<T>>,
    message: fn(&Arc<T>) -> M,
) -> BoxStream<'static, Result<M, Status>>
where
    T: Send + Sync + 'static,
    M: Send + 'static,
{
    futures::stream::unfold((watched, true), move |(mut watched, first)| async move {
        if !first {
            match tokio::time::timeout(BEAT, watched.changed()).await {
                Ok(Ok(())) => tokio::time::sleep(GATHER).await,
                Ok(Err(_)) => return None,
                Err(_) => {}
            }
        }
        let next = message(&watched.borrow_and_update());
        Some((Ok(next), (watched, false)))
    })
    .boxed()
}
