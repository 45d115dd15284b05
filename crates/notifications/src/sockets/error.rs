//! Why a socket is not opened.

use aldis_api::{Fault, Label, label};

/// Why a socket is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SocketError {
    #[error("too many sockets on this process")]
    TooMany,
    #[error("too many sockets of one user")]
    TooManyOfUser,
    #[error("the session was revoked while the socket was opened")]
    Revoked,
    #[error("malformed handshake")]
    Handshake,
}

impl Fault for SocketError {
    fn label(&self) -> Label {
        match self {
            Self::TooMany => label::OVERLOADED,
            Self::TooManyOfUser => label::TOO_MANY_REQUESTS,
            Self::Revoked => label::INVALID_TOKEN_401,
            Self::Handshake => label::MALFORMED_REQUEST,
        }
    }
}
