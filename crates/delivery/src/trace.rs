//! The trace of a change travels with what the change has to tell.

use std::sync::Arc;

use aldis_runtime::telemetry;
use http::{HeaderMap, HeaderName, HeaderValue};
use tracing::Span;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The W3C trace context of the current span; `None` when it is not traced.
pub(crate) fn current() -> Option<Arc<str>> {
    let mut headers = HeaderMap::new();
    telemetry::state_trace(&Span::current(), &mut headers);
    headers.get(TRACEPARENT)?.to_str().ok().map(Into::into)
}

/// Lets `span` continue the trace of the change that an envelope or a notification tells of.
pub fn continue_trace(span: &Span, traceparent: Option<&str>) {
    if let Some(value) = traceparent.and_then(|text| HeaderValue::from_str(text).ok()) {
        telemetry::continue_trace(span, &HeaderMap::from_iter([(TRACEPARENT, value)]));
    }
}
