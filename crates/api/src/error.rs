//! From a capability's error to the answer that a client, or another service, sees.

use std::{borrow::Cow, error::Error};

use aldis_proto::{error as wire, federation::v1::Hop};
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tonic::Code;

use crate::{Label, label};

/// What a failed capability says to the outside. Implemented by each capability's error enum; `Display` and the source
/// chain are for our log only.
pub trait Fault: Error + Send + Sync + 'static {
    /// The row of the label table.
    fn label(&self) -> Label;

    /// The fault inside that this one passes on. What is not said here is taken from it, its label excepted.
    fn passes_on(&self) -> Option<&dyn Fault> {
        None
    }

    /// A text better than the row's; must not hold secrets.
    fn message(&self) -> Option<Cow<'static, str>> {
        self.passes_on()?.message()
    }

    /// A body that replaces the usual one (the few deviating answers, e.g. `unreachable_backends`).
    fn body(&self) -> Option<Value> {
        self.passes_on()?.body()
    }

    /// For failures of a federated call: `data` of the body.
    fn federation_domain(&self) -> Option<String> {
        self.passes_on()?.federation_domain()
    }

    /// For failures of a federated call: `inner` of the body, the other side's own label and text.
    fn inner(&self) -> Option<(String, String)> {
        self.passes_on()?.inner()
    }

    /// Seconds for `Retry-After`.
    fn retry_after(&self) -> Option<u64> {
        self.passes_on()?.retry_after()
    }
}

/// An answer that is an error. Made from any [`Fault`], or from a bare [`Label`].
#[derive(Debug)]
pub struct HttpError {
    status: StatusCode,
    body: Value,
    retry_after: Option<u64>,
}

impl HttpError {
    /// A row with a text of its own.
    pub fn with_message(label: Label, message: impl Into<Cow<'static, str>>) -> Self {
        // JavaScript clients report every error that has a text, and try again later only where a 420 has none.
        let message = if label.status == 420 { Cow::Borrowed("") } else { message.into() };
        Self {
            status: StatusCode::from_u16(label.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            body: json!({ "code": label.status, "label": label.label, "message": message }),
            retry_after: None,
        }
    }

    /// A status with a body that deviates from the usual one.
    pub fn with_body(status: StatusCode, body: Value) -> Self {
        Self { status, body, retry_after: None }
    }

    /// Adds `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The `label` in the body, empty when the body deviates.
    pub fn label(&self) -> &str {
        self.body.get("label").and_then(Value::as_str).unwrap_or_default()
    }
}

impl From<Label> for HttpError {
    fn from(label: Label) -> Self {
        Self::with_message(label, label.message)
    }
}

impl<F: Fault> From<F> for HttpError {
    fn from(fault: F) -> Self {
        log(&fault);
        let label = fault.label();
        if let Some(body) = fault.body() {
            let status = StatusCode::from_u16(label.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return Self { status, body, retry_after: fault.retry_after() };
        }
        let mut error = Self::with_message(label, fault.message().unwrap_or(Cow::Borrowed(label.message)));
        if let Some(domain) = fault.federation_domain() {
            error.body["data"] = json!({ "type": "federation", "domain": domain, "path": "/federation" });
        }
        if let Some((inner, message)) = fault.inner() {
            let code = label::federation(&inner).map_or(533, |row| row.status);
            error.body["inner"] = json!({ "code": code, "label": inner, "message": message });
        }
        error.retry_after = fault.retry_after();
        error
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(HeaderName::from_static("retry-after"), HeaderValue::from(seconds));
        }
        response
    }
}

impl IntoResponse for Label {
    fn into_response(self) -> Response {
        HttpError::from(self).into_response()
    }
}

/// The gRPC status for a fault; the label travels as typed detail. Called in `grpc.rs` and `federation.rs`.
pub fn status<F: Fault>(fault: &F) -> tonic::Status {
    log(fault);
    let label = fault.label();
    let code = match label.status {
        400 | 422 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        408 => Code::DeadlineExceeded,
        409 => Code::FailedPrecondition,
        413 | 420 | 429 => Code::ResourceExhausted,
        501 => Code::Unimplemented,
        503 | 521 | 525 | 533 => Code::Unavailable,
        _ => Code::Internal,
    };
    let message = fault.message().unwrap_or(Cow::Borrowed(label.message));
    wire::status(code, Hop::PeerService, label.label, "", &message)
}

/// Logs a fault once, at the boundary: our own failures as errors, the rest for debugging.
fn log<F: Fault>(fault: &F) {
    let label = fault.label();
    let mut chain = fault.to_string();
    let mut source = fault.source();
    while let Some(cause) = source {
        chain.push_str(": ");
        chain.push_str(&cause.to_string());
        source = cause.source();
    }
    if label.status == 500 {
        tracing::error!(error.label = label.label, error = %chain, "request failed");
    } else {
        tracing::debug!(error.label = label.label, error = %chain, "request refused");
    }
}
