use std::borrow::Cow;

use aldis_api::{Fault, Label, label};
use aldis_peers::PeerError;
use aldis_storage::StoreError;

use crate::{
    auth::{AuthError, passwords::PasswordError},
    errors::store_label,
};

/// Why a request about accounts or profiles failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    #[error("no such account")]
    NotFound,
    #[error("registration is closed")]
    RegistrationClosed,
    #[error("the e-mail domain may not register")]
    EmailDomainNotAllowed,
    #[error("registration without e-mail address")]
    EmailMissing,
    #[error("not an e-mail address")]
    InvalidEmail,
    #[error("the e-mail address is in use")]
    EmailTaken,
    #[error("wrong, used or expired code")]
    InvalidCode,
    #[error("too many codes for one address")]
    TooManyCodes(std::time::Duration),
    #[error("a field of the request: {0}")]
    Invalid(&'static str),
    #[error("not a handle that can be taken")]
    InvalidHandle,
    #[error("the handle is taken")]
    HandleTaken,
    #[error("the account is not activated")]
    NotActivated,
    #[error("a protocol cannot be removed")]
    ProtocolRemoved,
    #[error("only for oneself")]
    NotOwn,
    #[error("asking another backend")]
    Peer(#[from] PeerError),
    #[error("password")]
    Password(#[from] PasswordError),
    #[error("session")]
    Auth(#[from] AuthError),
    #[error("account store")]
    Store(#[from] StoreError),
}

impl Fault for AccountError {
    fn label(&self) -> Label {
        match self {
            Self::NotFound => label::NOT_FOUND,
            Self::RegistrationClosed => label::USER_CREATION_RESTRICTED,
            Self::EmailDomainNotAllowed => label::UNAUTHORIZED_EMAIL,
            Self::EmailMissing => label::EPHEMERAL_DISABLED,
            Self::InvalidEmail => label::INVALID_EMAIL,
            Self::EmailTaken => label::KEY_EXISTS,
            Self::InvalidCode => label::INVALID_CODE,
            Self::TooManyCodes(_) => label::TOO_MANY_CODES,
            Self::Invalid(_) => label::BAD_REQUEST,
            Self::InvalidHandle => label::INVALID_HANDLE,
            Self::HandleTaken => label::HANDLE_EXISTS,
            Self::NotActivated => label::NO_IDENTITY,
            Self::ProtocolRemoved => label::MLS_PROTOCOL_ERROR_409,
            Self::NotOwn => label::INSUFFICIENT_PERMISSIONS,
            Self::Peer(error) => error.label(),
            Self::Password(PasswordError::Overloaded) => label::PASSWORDS_OVERLOADED,
            Self::Password(PasswordError::Failed) => label::SERVER_ERROR,
            Self::Auth(error) => error.label(),
            Self::Store(error) => store_label(error),
        }
    }

    fn message(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Invalid(what) => Some(Cow::Borrowed(what)),
            _ => self.passes_on()?.message(),
        }
    }

    fn passes_on(&self) -> Option<&dyn Fault> {
        match self {
            Self::Peer(error) => Some(error),
            Self::Auth(error) => Some(error),
            _ => None,
        }
    }

    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::TooManyCodes(wait) => Some(wait.as_secs().max(1)),
            _ => self.passes_on()?.retry_after(),
        }
    }
}
