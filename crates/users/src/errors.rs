//! What the errors of several capabilities have in common.

use aldis_api::{Label, label};
use aldis_peers::{PeerError, PeerErrorKind};
use aldis_storage::StoreError;

/// The row for a failure of the store.
pub(crate) fn store_label(error: &StoreError) -> Label {
    if error.is_full() { label::OVERLOADED } else { label::SERVER_ERROR }
}

/// The row for a failed call to another backend; a quota there is told as what it is.
pub(crate) fn peer_label(error: &PeerError) -> Label {
    match &error.kind {
        PeerErrorKind::Peer { label, .. } if label == label::TOO_MANY_REQUESTS.label => label::TOO_MANY_REQUESTS,
        _ => error.label(),
    }
}
