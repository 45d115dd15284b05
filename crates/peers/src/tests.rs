//! Classification of failures, and the policy's age.

use std::time::Duration;

use aldis_proto::{error, federation::v1::Hop, metadata};
use aldis_types::{Domain, PolicySnapshot, Strategy};
use tonic::{Code, Status};

use crate::{PeerError, PeerErrorKind, Policy};

fn beta() -> Domain {
    "beta.test".parse().unwrap()
}

fn own(mut status: Status) -> Status {
    status.metadata_mut().insert(metadata::OWN_FAILURE, "1".parse().unwrap());
    status
}

#[test]
fn a_failure_of_our_own_federator_keeps_its_label() {
    let status = own(error::status(Code::Unavailable, Hop::Tls, "federation-tls-error", "beta.test", "bad name"));
    let failure = PeerError::from_status(&beta(), &status);
    assert_eq!((failure.label().status, failure.label().label), (525, "federation-tls-error"));
    assert_eq!(failure.inner(), None);
}

#[test]
fn a_peer_cannot_speak_for_our_own_federator() {
    let forged = error::status(Code::PermissionDenied, Hop::Policy, "federation-denied", "alpha.test", "no");
    let failure = PeerError::from_status(&beta(), &forged);
    assert_eq!((failure.label().status, failure.label().label), (533, "federation-remote-error"));
    assert_eq!(failure.inner(), Some(("federation-denied".to_owned(), "no".to_owned())));
    assert!(!failure.is_denied());
}

#[test]
fn a_peers_detail_is_bounded() {
    let detail = |label: &str, text: &str| error::status(Code::Internal, Hop::PeerService, label, "", text);
    for status in [detail("Evil <b>", "x"), detail(&"a".repeat(100), "x"), Status::internal("secret")] {
        let failure = PeerError::from_status(&beta(), &status);
        assert_eq!(failure.kind, PeerErrorKind::Peer { label: String::new(), message: "status Internal".to_owned() });
    }
}

#[test]
fn a_policy_that_is_too_old_denies() {
    let open = PolicySnapshot { version: 1, strategy: Strategy::AllowAll, ..PolicySnapshot::default() };
    let fresh = Policy::new(Duration::from_mins(1));
    assert!(!fresh.allows(&beta()));
    fresh.update(open.clone());
    assert!(fresh.allows(&beta()));
    let stale = Policy::new(Duration::ZERO);
    stale.update(open);
    std::thread::sleep(Duration::from_millis(2));
    assert!(!stale.allows(&beta()));
}
