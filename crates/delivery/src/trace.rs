//! The trace of a change travels with what the change has to tell.

use std::sync::Arc;

use aldis_runtime::telemetry;
use http::{HeaderMap, HeaderName, HeaderValue};
use tracing::Span;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The W3C trace context of the current span; `None` when it is not traced.
pub(crate) fn current() -> Option<Arc<str>> {
    traceparent(&Span::current()).map(Into::into)
}

/// Lets `span` continue the trace of what one of our own services tells.
pub fn continue_trace(span: &Span, traceparent: Option<&str>) {
    if let Some(headers) = traceparent.and_then(stated) {
        telemetry::continue_trace(span, &headers);
    }
}

fn stated(traceparent: &str) -> Option<HeaderMap> {
    let value = HeaderValue::from_str(traceparent).ok()?;
    Some(HeaderMap::from_iter([(TRACEPARENT, value)]))
}

/// The trace that another backend states with an event, and whether it is to be continued here.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    stated: Option<Box<str>>,
    continued: bool,
}

impl Trace {
    pub(crate) fn new(stated: Option<String>, continued: bool) -> Self {
        Self { stated: stated.map(Into::into), continued }
    }

    /// Whether the event is traced at all.
    pub fn is_stated(&self) -> bool {
        self.stated.is_some()
    }

    /// Lets `span`, the first one here, continue the trace or link to it.
    pub fn join(&self, span: &Span) {
        match self.stated.as_deref().and_then(stated) {
            Some(headers) if self.continued => telemetry::continue_trace(span, &headers),
            Some(headers) => telemetry::link_trace(span, &headers),
            None => {}
        }
    }
}

/// The W3C trace context of `span`, for what is told on; `None` when it is not traced.
pub fn traceparent(span: &Span) -> Option<String> {
    let mut headers = HeaderMap::new();
    telemetry::state_trace(span, &mut headers);
    headers.get(TRACEPARENT)?.to_str().ok().map(str::to_owned)
}
