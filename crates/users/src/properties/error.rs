use aldis_api::{Fault, Label, label};
use aldis_storage::StoreError;

use crate::errors::store_label;

/// Why a request about properties failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PropertyError {
    #[error("the property is not set")]
    NotFound,
    #[error("the key is not printable ASCII")]
    InvalidKey,
    #[error("the key is too long")]
    KeyTooLarge,
    #[error("the value is not JSON")]
    InvalidValue,
    #[error("the value is too large")]
    ValueTooLarge,
    #[error("too many properties")]
    TooMany,
    #[error("property store")]
    Store(#[from] StoreError),
}

impl Fault for PropertyError {
    fn label(&self) -> Label {
        match self {
            Self::NotFound => label::NOT_FOUND,
            Self::InvalidKey | Self::InvalidValue => label::BAD_REQUEST,
            Self::KeyTooLarge => label::PROPERTY_KEY_TOO_LARGE,
            Self::ValueTooLarge => label::PROPERTY_VALUE_TOO_LARGE,
            Self::TooMany => label::TOO_MANY_PROPERTIES,
            Self::Store(error) => store_label(error),
        }
    }

    fn message(&self) -> Option<std::borrow::Cow<'static, str>> {
        match self {
            Self::InvalidKey => Some("A property key is printable ASCII".into()),
            Self::InvalidValue => Some("A property value is JSON".into()),
            _ => None,
        }
    }
}
