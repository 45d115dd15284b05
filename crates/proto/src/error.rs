//! The typed detail of a failed call, carried in the details of a gRPC status.

use prost::Message;
use tonic::{Code, Status};

use crate::federation::v1::{ErrorDetail, Hop};

/// Longest text that is put into, or taken from, a detail.
const MAX_MESSAGE_BYTES: usize = 1024;
const MAX_LABEL_BYTES: usize = 64;

/// A status with a typed detail. `message` must not hold secrets.
pub fn status(code: Code, hop: Hop, label: &str, domain: &str, message: &str) -> Status {
    let message: String = message.chars().take(MAX_MESSAGE_BYTES / 4).collect();
    let detail =
        ErrorDetail { hop: hop.into(), label: label.to_owned(), domain: domain.to_owned(), message: message.clone() };
    Status::with_details(code, message, detail.encode_to_vec().into())
}

/// The typed detail of a status; `None` when there is none or it breaks the limits, as a peer may send anything.
pub fn detail(status: &Status) -> Option<ErrorDetail> {
    if status.details().is_empty() || status.details().len() > 2 * MAX_MESSAGE_BYTES {
        return None;
    }
    let detail = ErrorDetail::decode(status.details()).ok()?;
    let label_ok = detail.label.len() <= MAX_LABEL_BYTES
        && detail.label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    (label_ok && detail.message.len() <= MAX_MESSAGE_BYTES && detail.domain.len() <= 253).then_some(detail)
}
