use std::{borrow::Cow, time::Duration};

use aldis_api::{Fault, Label, label};
use aldis_storage::StoreError;
use serde_json::{Value, json};

use crate::{
    auth::{AuthError, passwords::PasswordError},
    errors::store_label,
};

/// Why a change of an account failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LifecycleError {
    #[error("no such account")]
    NotFound,
    #[error("the old password is missing or wrong")]
    WrongPassword,
    #[error("neither a password nor an address to confirm by")]
    MissingPassword,
    #[error("the password is too short")]
    ShortPassword,
    #[error("the new password is the old one")]
    PasswordMustDiffer,
    #[error("wrong, used or expired code for a password")]
    WrongResetCode,
    #[error("not a key that we have mailed")]
    InvalidKey,
    #[error("wrong, used or expired code for a deletion")]
    WrongDeletionCode,
    #[error("a deletion waits for its confirmation")]
    PendingDeletion(Duration),
    #[error("not an e-mail address")]
    InvalidEmail,
    #[error("the e-mail address is in use")]
    EmailTaken,
    #[error("the e-mail domain is not allowed")]
    EmailDomainNotAllowed,
    #[error("too many mails")]
    TooManyMails(Duration),
    #[error("the only address cannot be removed")]
    LastIdentity,
    #[error("a field of the request: {0}")]
    Invalid(&'static str),
    #[error("session")]
    Auth(#[from] AuthError),
    #[error("password")]
    Password(#[from] PasswordError),
    #[error("account store")]
    Store(#[from] StoreError),
}

impl Fault for LifecycleError {
    fn label(&self) -> Label {
        match self {
            Self::NotFound => label::NOT_FOUND,
            Self::WrongPassword => label::INVALID_CREDENTIALS,
            Self::MissingPassword => label::MISSING_AUTH,
            Self::ShortPassword | Self::Invalid(_) => label::BAD_REQUEST,
            Self::PasswordMustDiffer => label::PASSWORD_MUST_DIFFER,
            Self::WrongResetCode => label::INVALID_RESET_CODE,
            Self::InvalidKey => label::INVALID_KEY,
            Self::WrongDeletionCode => label::INVALID_DELETION_CODE,
            Self::PendingDeletion(_) => label::PENDING_DELETE,
            Self::InvalidEmail => label::INVALID_EMAIL,
            Self::EmailTaken => label::KEY_EXISTS,
            Self::EmailDomainNotAllowed => label::UNAUTHORIZED_EMAIL,
            Self::TooManyMails(_) => label::TOO_MANY_CODES,
            Self::LastIdentity => label::LAST_IDENTITY,
            Self::Auth(error) => error.label(),
            Self::Password(PasswordError::Overloaded) => label::PASSWORDS_OVERLOADED,
            Self::Password(PasswordError::Failed) => label::SERVER_ERROR,
            Self::Store(error) => store_label(error),
        }
    }

    fn message(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::ShortPassword => Some(Cow::Borrowed("A password has at least 8 characters")),
            Self::Invalid(what) => Some(Cow::Borrowed(what)),
            _ => self.passes_on()?.message(),
        }
    }

    fn body(&self) -> Option<Value> {
        let Self::PendingDeletion(wait) = self else { return self.passes_on()?.body() };
        let row = self.label();
        let seconds = wait.as_secs().max(1);
        Some(json!({ "code": row.status, "label": row.label, "message": row.message, "expires_in": seconds }))
    }

    fn passes_on(&self) -> Option<&dyn Fault> {
        match self {
            Self::Auth(error) => Some(error),
            _ => None,
        }
    }

    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::TooManyMails(wait) => Some(wait.as_secs().max(1)),
            _ => self.passes_on()?.retry_after(),
        }
    }
}
