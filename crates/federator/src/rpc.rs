//! What the federator knows of gRPC without decoding a message: paths, headers and deadlines.

use std::time::Duration;

use aldis_proto::metadata;
use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::Code;

const PREFIX: &str = "/aldis.federation.v1.";
const MAX_SEGMENT_BYTES: usize = 64;
/// W3C trace context.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// What passes in a request, beside deadline, origin and trace context, which are set anew.
const REQUEST_HEADERS: [&str; 4] = ["content-type", "grpc-encoding", "grpc-accept-encoding", metadata::IDEMPOTENCY_KEY];
/// What passes in an answer and in its trailers. Nobody's metadata does: `aldis-own-failure` of a peer least of all.
const ANSWER_HEADERS: [&str; 6] =
    ["content-type", "grpc-encoding", "grpc-accept-encoding", "grpc-status", "grpc-message", "grpc-status-details-bin"];
/// Longest value of a header that passes.
const MAX_VALUE_BYTES: usize = 8 * 1024;

/// A method of `aldis.federation.v1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rpc<'a> {
    pub(crate) service: &'a str,
    pub(crate) method: &'a str,
}

/// How a method uses its streams, and so which bounds it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Has a deadline and a size.
    Call,
    /// Lives as long as the connection does.
    Events,
    /// Begins within the deadline of a call; then it may take long and carry much, but must not pause for long.
    Transfer,
}

/// Who serves a federation service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Component {
    Users,
    Conversations,
    Assets,
    Federator,
}

fn segment(text: &str) -> bool {
    (1..=MAX_SEGMENT_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl<'a> Rpc<'a> {
    /// From the path of a request, which must be exactly `/aldis.federation.v1.<Service>/<Method>`.
    pub(crate) fn parse(uri: &'a http::Uri) -> Option<Self> {
        if uri.query().is_some() {
            return None;
        }
        let (service, method) = uri.path().strip_prefix(PREFIX)?.split_once('/')?;
        (segment(service) && segment(method)).then_some(Self { service, method })
    }

    pub(crate) fn shape(&self) -> Shape {
        match (self.service, self.method) {
            ("UsersDelivery" | "ConversationsDelivery", "Deliver") => Shape::Events,
            ("Assets", "Fetch") => Shape::Transfer,
            _ => Shape::Call,
        }
    }

    /// Who serves it; `None` for a service that does not exist.
    pub(crate) fn component(&self) -> Option<Component> {
        match self.service {
            "Users" | "UsersDelivery" => Some(Component::Users),
            "Conversations" | "ConversationsDelivery" => Some(Component::Conversations),
            "Assets" => Some(Component::Assets),
            "Federator" => Some(Component::Federator),
            _ => None,
        }
    }
}

fn carried(from: &HeaderMap, names: &[&'static str]) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(names.len() + 4);
    for name in names {
        if let Some(value) = from.get(*name).filter(|value| value.len() <= MAX_VALUE_BYTES) {
            kept.insert(HeaderName::from_static(name), value.clone());
        }
    }
    kept
}

/// The headers of a request that pass a federator.
pub(crate) fn request_headers(from: &HeaderMap) -> HeaderMap {
    let mut headers = carried(from, &REQUEST_HEADERS);
    headers.insert("te", HeaderValue::from_static("trailers"));
    headers
}

/// The headers, or trailers, of an answer that pass a federator.
pub(crate) fn answer_headers(from: &HeaderMap) -> HeaderMap {
    carried(from, &ANSWER_HEADERS)
}

/// The status that headers or trailers tell.
pub(crate) fn status_code(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|value| Code::from_bytes(value.as_bytes()))
}

pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let value = headers.get(http::header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    value.starts_with(b"application/grpc") && matches!(value.get(16), None | Some(b'+' | b';'))
}

/// Tells the callee how much time is left, a little less than we wait, so that its own word arrives before our patience
/// ends.
pub(crate) fn state_timeout(headers: &mut HeaderMap, left: Duration) {
    let left = left.saturating_sub((left / 10).min(Duration::from_millis(250)));
    let millis = left.as_millis().clamp(1, 99_999_999);
    if let Ok(value) = HeaderValue::try_from(format!("{millis}m")) {
        headers.insert(aldis_peers::GRPC_TIMEOUT, value);
    }
}
