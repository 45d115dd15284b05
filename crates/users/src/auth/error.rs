use std::{borrow::Cow, time::Duration};

use aldis_api::{Fault, Label, label};
use aldis_storage::StoreError;

use super::passwords::PasswordError;
use crate::errors::store_label;

/// Why a login or a renewal was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("neither e-mail address nor handle")]
    NoIdentity,
    #[error("wrong password or unknown account")]
    InvalidCredentials,
    #[error("no password given")]
    MissingPassword,
    #[error("the account is suspended")]
    Suspended,
    #[error("the account is not activated")]
    PendingActivation,
    #[error("locked out after too many wrong passwords")]
    TooManyFailures(Duration),
    #[error("too many logins in a short time")]
    TooFrequent(Duration),
    #[error("neither cookie nor access token")]
    MissingCookieAndToken,
    #[error("no cookie")]
    MissingCookie,
    #[error("no access token")]
    MissingToken,
    #[error("a token cannot be read")]
    MalformedToken,
    #[error("a token is not valid")]
    InvalidToken,
    #[error("the cookie has expired")]
    ExpiredToken,
    #[error("the session belongs to another client, or the client does not exist")]
    OtherClient,
    #[error("password")]
    Password(#[from] PasswordError),
    #[error("auth store")]
    Store(#[from] StoreError),
}

impl Fault for AuthError {
    fn label(&self) -> Label {
        match self {
            Self::NoIdentity => label::BAD_REQUEST,
            Self::InvalidCredentials => label::INVALID_CREDENTIALS,
            Self::MissingPassword => label::MISSING_AUTH,
            Self::Suspended => label::SUSPENDED,
            Self::PendingActivation => label::PENDING_ACTIVATION,
            Self::TooManyFailures(_) => label::TOO_MANY_FAILED_LOGINS,
            Self::TooFrequent(_) => label::LOGINS_TOO_FREQUENT,
            Self::MissingCookieAndToken => label::MISSING_COOKIE_AND_TOKEN,
            Self::MissingCookie => label::MISSING_COOKIE,
            Self::MissingToken => label::MISSING_TOKEN,
            Self::MalformedToken => label::INVALID_ZAUTH,
            Self::InvalidToken | Self::OtherClient => label::INVALID_TOKEN,
            Self::ExpiredToken => label::EXPIRED_ZAUTH,
            Self::Password(PasswordError::Overloaded) => label::PASSWORDS_OVERLOADED,
            Self::Password(PasswordError::Failed) => label::SERVER_ERROR,
            Self::Store(error) => store_label(error),
        }
    }

    fn message(&self) -> Option<Cow<'static, str>> {
        matches!(self, Self::NoIdentity).then_some(Cow::Borrowed("An e-mail address or a handle is required"))
    }

    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::TooManyFailures(wait) | Self::TooFrequent(wait) => Some(wait.as_secs().max(1)),
            _ => None,
        }
    }
}
