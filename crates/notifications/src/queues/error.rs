//! Why a request about queues failed.

use std::sync::Arc;

use aldis_api::{Fault, Label, label};
use aldis_storage::StoreError;

/// Why a request about queues failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum QueueError {
    #[error("page size {0} is outside of 100 to 10000")]
    PageSize(u32),
    #[error("`since` is not a time based UUID")]
    Since,
    #[error("no such notification")]
    NotFound,
    #[error("a call holds more than is allowed of `{0}`")]
    TooMany(&'static str),
    #[error("the service is stopping")]
    Stopping,
    #[error("queue store")]
    Store(#[source] Arc<StoreError>),
}

impl From<StoreError> for QueueError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl Fault for QueueError {
    fn label(&self) -> Label {
        match self {
            Self::PageSize(_) | Self::Since | Self::TooMany(_) => label::BAD_REQUEST,
            Self::NotFound => label::NOT_FOUND,
            Self::Stopping => label::OVERLOADED,
            Self::Store(error) if error.is_overloaded() => label::OVERLOADED,
            Self::Store(_) => label::SERVER_ERROR,
        }
    }

    fn message(&self) -> Option<std::borrow::Cow<'static, str>> {
        match self {
            Self::PageSize(_) => Some("The page size must be 100 to 10000".into()),
            Self::Since => Some("`since` must be the id of a notification".into()),
            _ => None,
        }
    }
}
