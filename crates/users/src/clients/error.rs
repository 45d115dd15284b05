use aldis_api::{Fault, Label, label};
use aldis_peers::PeerError;
use aldis_storage::StoreError;

use crate::{auth::AuthError, errors::store_label};

/// Why a request about clients or prekeys failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("no such client")]
    NotFound,
    #[error("the account is gone")]
    NoAccount,
    #[error("prekey not found")]
    PrekeyNotFound,
    #[error("malformed prekeys")]
    MalformedPrekeys,
    #[error("legal hold is not offered")]
    LegalHold,
    #[error("another client needs the password")]
    MissingPassword,
    #[error("too many permanent clients")]
    TooMany,
    #[error("too many users asked for")]
    TooManyUsers,
    #[error("a capability cannot be removed")]
    CapabilityRemoved,
    #[error("another MLS key is known")]
    DuplicateMlsKey,
    #[error("the notifications service did not take the event in time")]
    NotAnnounced,
    #[error("a field of the request: {0}")]
    Invalid(&'static str),
    #[error("asking another backend")]
    Peer(#[from] PeerError),
    #[error("re-authentication")]
    Auth(#[from] AuthError),
    #[error("client store")]
    Store(#[from] StoreError),
}

impl Fault for ClientError {
    fn label(&self) -> Label {
        match self {
            Self::NotFound => label::CLIENT_NOT_FOUND,
            Self::NoAccount => label::INVALID_TOKEN_401,
            Self::PrekeyNotFound => label::NOT_FOUND,
            Self::MalformedPrekeys => label::MALFORMED_PREKEYS,
            Self::LegalHold => label::CLIENT_ERROR,
            Self::MissingPassword => label::MISSING_AUTH,
            Self::TooMany | Self::TooManyUsers => label::TOO_MANY_CLIENTS,
            Self::CapabilityRemoved => label::CAPABILITIES_CANNOT_BE_REMOVED,
            Self::DuplicateMlsKey => label::MLS_DUPLICATE_PUBLIC_KEY,
            Self::NotAnnounced => label::OVERLOADED,
            Self::Invalid(_) => label::BAD_REQUEST,
            Self::Peer(error) => error.label(),
            Self::Auth(error) => error.label(),
            Self::Store(error) => store_label(error),
        }
    }

    fn message(&self) -> Option<std::borrow::Cow<'static, str>> {
        match self {
            Self::Invalid(what) => Some((*what).into()),
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
}
