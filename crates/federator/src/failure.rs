//! Failures that this federator finds itself, by hop: [`Failure`] is what our own services see of calls to others,
//! [`Refusal`] what others see of calls to us.

use aldis_proto::{error, federation::v1::Hop, metadata};
use http::HeaderMap;
use tonic::{Code, Status, body::Body, metadata::AsciiMetadataValue};

/// Labels of federation.md section 6.1 that a federator gives.
pub(crate) mod label {
    pub(crate) const DENIED: &str = "federation-denied";
    pub(crate) const INVALID_DOMAIN: &str = "invalid-domain";
    pub(crate) const DISCOVERY: &str = "discovery-failure";
    pub(crate) const LOCAL: &str = "federation-local-error";
    pub(crate) const CONNECT: &str = "federation-connection-refused";
    pub(crate) const TLS: &str = "federation-tls-error";
    pub(crate) const TRANSPORT: &str = "federation-http2-error";
    pub(crate) const REMOTE: &str = "federation-remote-error";
    pub(crate) const INVALID_BODY: &str = "federation-invalid-body";
    pub(crate) const VERSION: &str = "federation-version-error";
    pub(crate) const AUTHENTICATION: &str = "authentication-failure";
    pub(crate) const NO_ORIGIN: &str = "no-origin-domain";
    pub(crate) const DOMAIN_SYNTAX: &str = "domain-parse-error";
    pub(crate) const UNKNOWN_COMPONENT: &str = "unknown-component";
    pub(crate) const BUSY: &str = "busy";
    pub(crate) const UNAVAILABLE: &str = "component-unavailable";
}

/// A call to another backend failed before, or instead of, an answer of that backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) hop: Hop,
    pub(crate) label: &'static str,
    code: Code,
    message: String,
}

impl Failure {
    fn new(code: Code, hop: Hop, label: &'static str, message: impl Into<String>) -> Self {
        Self { hop, label, code, message: message.into() }
    }

    /// What happened, for operators.
    pub(crate) fn reason(&self) -> &str {
        &self.message
    }

    /// A request of our own services that makes no sense.
    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, Hop::OwnFederator, label::LOCAL, message)
    }

    pub(crate) fn denied(message: impl Into<String>) -> Self {
        Self::new(Code::PermissionDenied, Hop::Policy, label::DENIED, message)
    }

    pub(crate) fn invalid_domain(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, Hop::Discovery, label::INVALID_DOMAIN, message)
    }

    pub(crate) fn discovery(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, Hop::Discovery, label::DISCOVERY, message)
    }

    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, Hop::Connect, label::CONNECT, message)
    }

    pub(crate) fn tls(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, Hop::Tls, label::TLS, message)
    }

    pub(crate) fn transport(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, Hop::Transport, label::TRANSPORT, message)
    }

    pub(crate) fn busy() -> Self {
        Self::new(Code::ResourceExhausted, Hop::Transport, label::TRANSPORT, "busy: too many calls to this backend")
    }

    pub(crate) fn deadline() -> Self {
        Self::new(Code::DeadlineExceeded, Hop::Transport, label::TRANSPORT, "no answer in time")
    }

    pub(crate) fn version(message: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, Hop::Transport, label::VERSION, message)
    }

    /// The peer answered, but not with gRPC.
    pub(crate) fn not_grpc(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, Hop::PeerFederator, label::REMOTE, message)
    }

    pub(crate) fn oversized() -> Self {
        Self::new(Code::ResourceExhausted, Hop::PeerService, label::INVALID_BODY, "the answer is larger than allowed")
    }

    /// Whether it says that the peer cannot be reached or does not answer, as opposed to our own refusals.
    pub(crate) fn is_outage(&self) -> bool {
        matches!(self.hop, Hop::Connect | Hop::Tls | Hop::Transport)
            && !matches!(self.code, Code::ResourceExhausted | Code::FailedPrecondition)
    }

    /// The status for our own services, marked as our federator's own word.
    pub(crate) fn status(&self, domain: &str) -> Status {
        let mut status = error::status(self.code, self.hop, self.label, domain, &self.message);
        status.metadata_mut().insert(metadata::OWN_FAILURE, AsciiMetadataValue::from_static("1"));
        status
    }
}

/// A call from another backend is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) label: &'static str,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(code: Code, label: &'static str, message: impl Into<String>) -> Self {
        Self { code, label, message: message.into() }
    }

    pub(crate) fn denied() -> Self {
        Self::new(Code::PermissionDenied, label::DENIED, "this backend does not federate with the origin")
    }

    pub(crate) fn authentication(message: impl Into<String>) -> Self {
        Self::new(Code::Unauthenticated, label::AUTHENTICATION, message)
    }

    /// The status for the calling backend.
    pub(crate) fn status(&self, origin: &str) -> Status {
        error::status(self.code, Hop::PeerFederator, self.label, origin, &self.message)
    }
}

/// A complete answer that carries nothing but this status.
pub(crate) fn answer(status: &Status) -> http::Response<Body> {
    let mut response = http::Response::new(Body::empty());
    *response.headers_mut() = trailers(status);
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
    response
}

/// The status as trailers.
pub(crate) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // Not possible for the texts used here, which are percent-encoded.
        trailers.insert("grpc-status", http::HeaderValue::from_static("13"));
    }
    trailers
}
