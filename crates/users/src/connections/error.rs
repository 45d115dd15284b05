use aldis_api::{Fault, Label, label};
use aldis_peers::PeerError;
use aldis_storage::StoreError;

use super::store::Refusal;
use crate::errors::store_label;

/// Why a request about connections failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("no such connection")]
    NotFound,
    #[error("not a user to connect with")]
    InvalidUser,
    #[error("the own account is not activated")]
    NotActivated,
    #[error("refused: {0:?}")]
    Refused(Refusal),
    #[error("the team does not federate")]
    TeamNotFederating,
    #[error("a field of the request: {0}")]
    Invalid(&'static str),
    #[error("asking another backend")]
    Peer(#[from] PeerError),
    #[error("connection store")]
    Store(#[from] StoreError),
}

impl Fault for ConnectionError {
    fn label(&self) -> Label {
        match self {
            Self::NotFound => label::NOT_FOUND,
            Self::InvalidUser | Self::Refused(Refusal::Gone) => label::INVALID_USER,
            Self::NotActivated => label::NO_IDENTITY,
            Self::Refused(Refusal::BadUpdate) => label::BAD_CONN_UPDATE,
            Self::Refused(Refusal::NotConnected) => label::NOT_CONNECTED,
            Self::Refused(Refusal::Limit) => label::CONNECTION_LIMIT,
            Self::Refused(Refusal::PendingLimit) => label::TOO_MANY_REQUESTS,
            Self::TeamNotFederating => label::TEAM_NOT_FEDERATING,
            Self::Invalid(_) => label::BAD_REQUEST,
            Self::Peer(error) => error.label(),
            Self::Store(error) => store_label(error),
        }
    }

    fn message(&self) -> Option<std::borrow::Cow<'static, str>> {
        match self {
            Self::Invalid(what) => Some((*what).into()),
            _ => None,
        }
    }

    fn passes_on(&self) -> Option<&dyn Fault> {
        match self {
            Self::Peer(error) => Some(error),
            _ => None,
        }
    }
}
