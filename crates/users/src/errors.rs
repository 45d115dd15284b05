//! What the errors of several capabilities have in common.

use aldis_api::{Label, label};
use aldis_storage::StoreError;

/// The row for a failure of the store.
pub(crate) fn store_label(error: &StoreError) -> Label {
    if error.is_overloaded() { label::OVERLOADED } else { label::SERVER_ERROR }
}
