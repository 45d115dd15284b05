//! Why a message was refused.

use std::borrow::Cow;

use aldis_api::{Fault, Label, label};
use aldis_peers::PeerError;
use aldis_storage::StoreError;
use aldis_types::Domain;

use super::wire::InvalidMessage;
use crate::{groups::error::GroupError, users::UsersError};

/// Why a message was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("conversation")]
    Group(#[source] GroupError),
    #[error("the client is not the sender's")]
    UnknownClient,
    #[error("malformed message: {0}")]
    Invalid(#[from] InvalidMessage),
    #[error("the message is too large")]
    TooLarge,
}

impl MessageError {
    /// Our policy denies the owner.
    pub(crate) fn denied(domain: Domain) -> Self {
        Self::Group(GroupError::Denied(domain))
    }
}

macro_rules! through_group {
    ($($source:ty),*) => {
        $(
            impl From<$source> for MessageError {
                fn from(error: $source) -> Self {
                    Self::Group(error.into())
                }
            }
        )*
    };
}

through_group!(GroupError, PeerError, StoreError, UsersError);

impl Fault for MessageError {
    fn label(&self) -> Label {
        match self {
            Self::Group(error) => error.label(),
            Self::UnknownClient => label::UNKNOWN_CLIENT,
            Self::Invalid(_) => label::BAD_REQUEST,
            Self::TooLarge => label::TOO_LARGE,
        }
    }

    fn passes_on(&self) -> Option<&dyn Fault> {
        match self {
            Self::Group(error) => Some(error),
            _ => None,
        }
    }

    fn message(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Invalid(error) => Some(Cow::Borrowed(error.0)),
            _ => self.passes_on()?.message(),
        }
    }
}
