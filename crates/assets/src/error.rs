//! Why a request about files failed.

use std::{io, sync::Arc};

use aldis_api::{Fault, Label, label};
use aldis_peers::PeerError;
use aldis_storage::StoreError;
use aldis_types::Domain;

/// Why a request about files failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum AssetError {
    /// There is none, or the token does not fit.
    #[error("no such asset")]
    NotFound,
    /// Only the uploader may do this.
    #[error("not the uploader")]
    Unauthorised,
    /// Our rules on size and type.
    #[error("not allowed here")]
    NotAllowed,
    /// These backends of the conversation that it is for would not fetch it.
    #[error("not allowed at the backend of a member")]
    NotAllowedThere(Arc<[Domain]>),
    /// Larger than our users may store.
    #[error("too large")]
    TooLarge,
    /// The body of an upload is not what it must be; the text says why.
    #[error("malformed upload: {0}")]
    Malformed(&'static str),
    /// Not `multipart/mixed`.
    #[error("not multipart/mixed")]
    MediaType,
    /// No bytes, or their number is not stated.
    #[error("empty")]
    Empty,
    /// Fewer bytes than stated.
    #[error("incomplete")]
    Incomplete,
    /// Other bytes than `Content-MD5` says.
    #[error("wrong digest")]
    Digest,
    /// An upload pauses or lasts too long.
    #[error("too slow")]
    TooSlow,
    /// The range begins after the end.
    #[error("no such range")]
    Range,
    /// Too many uploads at once.
    #[error("busy")]
    Busy,
    /// The operation is for our own files only.
    #[error("not for files of other backends")]
    Elsewhere,
    /// The owner could not be asked, or broke off.
    #[error("asking the owner")]
    Peer(#[from] PeerError),
    /// What is known of files.
    #[error("asset store")]
    Store(#[source] Arc<StoreError>),
    /// The bytes of files.
    #[error("bytes of assets")]
    Bytes(#[source] Arc<io::Error>),
}

impl From<StoreError> for AssetError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<io::Error> for AssetError {
    fn from(error: io::Error) -> Self {
        Self::Bytes(Arc::new(error))
    }
}

impl Fault for AssetError {
    fn label(&self) -> Label {
        match self {
            Self::NotFound => label::NOT_FOUND,
            Self::Unauthorised => label::ASSET_UNAUTHORISED,
            Self::NotAllowed | Self::NotAllowedThere(_) => label::ASSET_NOT_ALLOWED,
            Self::TooLarge => label::ASSET_TOO_LARGE,
            Self::Malformed(_) => label::CLIENT_ERROR,
            Self::MediaType => label::UNSUPPORTED_MEDIA_TYPE,
            Self::Empty => label::ASSET_EMPTY,
            Self::Incomplete => label::ASSET_INCOMPLETE,
            Self::Digest => label::ASSET_DIGEST,
            Self::TooSlow => label::TIMEOUT,
            Self::Range => label::RANGE_NOT_SATISFIABLE,
            Self::Busy => label::OVERLOADED,
            Self::Elsewhere => label::FEDERATION_NOT_IMPLEMENTED,
            Self::Peer(error) => error.label(),
            Self::Store(_) | Self::Bytes(_) => label::SERVER_ERROR,
        }
    }

    fn passes_on(&self) -> Option<&dyn Fault> {
        match self {
            Self::Peer(error) => Some(error),
            _ => None,
        }
    }

    fn message(&self) -> Option<std::borrow::Cow<'static, str>> {
        match self {
            Self::Malformed(text) => Some((*text).into()),
            Self::NotAllowedThere(domains) => {
                let domains: Vec<&str> = domains.iter().map(Domain::as_str).collect();
                let domains = domains.join(", ");
                Some(
                    format!("Members of the conversation could not fetch an asset of this size or type: {domains}")
                        .into(),
                )
            }
            _ => self.passes_on()?.message(),
        }
    }
}
