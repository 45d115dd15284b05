use std::borrow::Cow;

use aldis_api::{Fault, Label, label};
use aldis_storage::StoreError;

use crate::{
    auth::{AuthError, passwords::PasswordError},
    errors::store_label,
    lifecycle::LifecycleError,
};

/// Why an administrator was refused something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    #[error("there is no such account, or it is deleted")]
    NotFound,
    #[error("a page has 1 to 1000 entries")]
    PageSize,
    #[error("a password has at least 8 characters")]
    ShortPassword,
    #[error("there are {0} token keys already; the oldest goes when its tokens have expired")]
    TooManyKeys(usize),
    #[error("password")]
    Password(#[from] PasswordError),
    #[error("session")]
    Auth(#[from] AuthError),
    #[error("end of an account")]
    Lifecycle(#[from] LifecycleError),
    #[error("store of the administration")]
    Store(#[source] StoreError),
}

impl Fault for AdminError {
    fn label(&self) -> Label {
        match self {
            Self::NotFound => label::NOT_FOUND,
            Self::PageSize | Self::ShortPassword => label::BAD_REQUEST,
            Self::TooManyKeys(_) => label::TOO_MANY_REQUESTS,
            Self::Password(PasswordError::Overloaded) => label::PASSWORDS_OVERLOADED,
            Self::Password(PasswordError::Failed) => label::SERVER_ERROR,
            Self::Auth(error) => error.label(),
            Self::Lifecycle(error) => error.label(),
            Self::Store(error) => store_label(error),
        }
    }

    fn message(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::NotFound | Self::PageSize | Self::ShortPassword | Self::TooManyKeys(_) => {
                Some(self.to_string().into())
            }
            Self::Password(_) | Self::Auth(_) | Self::Lifecycle(_) | Self::Store(_) => None,
        }
    }
}
