//! Work that is finished even when whoever asked for it goes away.

use aldis_storage::StoreError;
use tracing::Instrument;

/// Runs `work` to its end. A change whose caller disconnects in the middle would otherwise be committed without its
/// effects being announced.
pub(crate) async fn detached<T, E>(work: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    match tokio::spawn(work.in_current_span()).await {
        Ok(outcome) => outcome,
        Err(_) => Err(StoreError::Panicked.into()),
    }
}
