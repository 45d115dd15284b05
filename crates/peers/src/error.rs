//! Failures of calls to other backends, classified by hop.

use aldis_api::{Fault, Label, label};
use aldis_proto::{
    error,
    federation::v1::{ErrorDetail, Hop},
    metadata,
};
use aldis_types::Domain;
use tonic::{Code, Status};

/// A call to another backend failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("call to {domain} failed: {kind}")]
pub struct PeerError {
    /// The backend that was asked.
    pub domain: Domain,
    /// At which hop and how.
    pub kind: PeerErrorKind,
}

/// At which hop a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerErrorKind {
    /// Our own federator does not run or is overloaded.
    #[error("own federator not available")]
    FederatorUnavailable,
    /// Our federator classified the failure: policy, discovery, connection, TLS, transport.
    #[error("{label}: {message}")]
    Hop {
        /// A label of the federation rows.
        label: &'static str,
        /// For operators.
        message: String,
    },
    /// The peer refused or failed; its own label and text.
    #[error("refused by the peer: {label}: {message}")]
    Peer {
        /// The peer's label; empty when it gave none.
        label: String,
        /// The peer's text; bounded.
        message: String,
    },
    /// The peer does not know the call: it runs a build that is older.
    #[error("the peer does not know the call")]
    Unimplemented,
    /// The peer's answer breaks the rules of the protocol.
    #[error("the answer is invalid: {0}")]
    InvalidAnswer(String),
}

impl PeerError {
    /// Reads the status of a failed call. Only our own federator marks a failure as its own; whatever else the status
    /// says came from the peer and is believed about the peer alone.
    pub fn from_status(domain: &Domain, status: &Status) -> Self {
        let detail = error::detail(status);
        let own = status.metadata().contains_key(metadata::OWN_FAILURE);
        let kind = match detail {
            Some(detail) if own => Self::own_failure(&detail),
            None if own => PeerErrorKind::FederatorUnavailable,
            Some(detail) => PeerErrorKind::Peer { label: detail.label, message: detail.message },
            None => match status.code() {
                Code::Unimplemented => PeerErrorKind::Unimplemented,
                // The channel to our own federator reports its failures without detail and without the mark.
                Code::Unavailable | Code::Unknown if std::error::Error::source(status).is_some() => {
                    PeerErrorKind::FederatorUnavailable
                }
                Code::DeadlineExceeded | Code::Cancelled => PeerErrorKind::Hop {
                    label: label::FEDERATION_HTTP2_ERROR.label,
                    message: "no answer in time".to_owned(),
                },
                code => PeerErrorKind::Peer { label: String::new(), message: format!("status {code:?}") },
            },
        };
        Self { domain: domain.clone(), kind }
    }

    fn own_failure(detail: &ErrorDetail) -> PeerErrorKind {
        if detail.hop() == Hop::OwnFederator && detail.label.is_empty() {
            return PeerErrorKind::FederatorUnavailable;
        }
        let label = label::federation(&detail.label).map_or(label::FEDERATION_LOCAL_ERROR.label, |row| row.label);
        PeerErrorKind::Hop { label, message: detail.message.clone() }
    }

    /// The answer was well-formed gRPC but breaks a rule.
    pub fn invalid_answer(domain: &Domain, what: impl ToString) -> Self {
        Self { domain: domain.clone(), kind: PeerErrorKind::InvalidAnswer(what.to_string()) }
    }

    /// What a client sees.
    pub fn label(&self) -> Label {
        match &self.kind {
            PeerErrorKind::FederatorUnavailable => label::FEDERATION_NOT_AVAILABLE,
            PeerErrorKind::Hop { label, .. } => label::federation(label).unwrap_or(label::FEDERATION_LOCAL_ERROR),
            // Our quota there is used up, which a client can do something about.
            PeerErrorKind::Peer { .. } if self.is_quota() => label::TOO_MANY_REQUESTS,
            PeerErrorKind::Peer { .. } | PeerErrorKind::Unimplemented => label::FEDERATION_REMOTE_ERROR,
            PeerErrorKind::InvalidAnswer(_) => label::FEDERATION_INVALID_BODY,
        }
    }

    /// The peer's own label and text, for `inner` of the error body.
    pub fn inner(&self) -> Option<(String, String)> {
        match &self.kind {
            PeerErrorKind::Peer { label, message } if !label.is_empty() => Some((label.clone(), message.clone())),
            _ => None,
        }
    }

    /// The peer refused because we asked for too much in too short a time.
    pub fn is_quota(&self) -> bool {
        matches!(&self.kind, PeerErrorKind::Peer { label, .. } if label == label::TOO_MANY_REQUESTS.label)
    }

    /// Our own policy refused: asking again is pointless until it changes.
    pub fn is_denied(&self) -> bool {
        matches!(&self.kind, PeerErrorKind::Hop { label, .. } if *label == label::FEDERATION_DENIED.label)
    }

    /// The peer's policy refused us.
    pub fn is_denied_there(&self) -> bool {
        matches!(&self.kind, PeerErrorKind::Peer { label, .. } if label == label::FEDERATION_DENIED.label)
    }
}

impl Fault for PeerError {
    fn label(&self) -> Label {
        self.label()
    }

    fn federation_domain(&self) -> Option<String> {
        Some(self.domain.to_string())
    }

    fn inner(&self) -> Option<(String, String)> {
        self.inner()
    }
}
