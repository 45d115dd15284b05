//! Tokens, revocations and the label table.

use aldis_proto::internal::v1::{AuthSnapshot, auth_snapshot};
use aldis_types::{ClientId, ConnId, UserId};
use axum::response::IntoResponse;
use ed25519_dalek::SigningKey;

use crate::{
    HttpError, TokenVerifier,
    auth::AuthState,
    label,
    token::{Claims, Kind, TokenError, sign, verify},
};

/// The upper half of the connection id below.
const FAMILY: u32 = (8_875_802_285_613_998_639_u64 >> 32) as u32;
const USER: &str = "c5eda68f-93f3-4413-93fe-d45e81f8a9f9";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn user() -> UserId {
    USER.parse().unwrap()
}

fn access(expires: i64) -> Claims {
    Claims {
        user: user(),
        client: Some(ClientId(0xb17)),
        kind: Kind::Access { connection: ConnId(8_875_802_285_613_998_639) },
        expires: Some(expires),
        session: false,
    }
}

fn snapshot() -> AuthSnapshot {
    let public_key = key(7).verifying_key().to_bytes().to_vec().into();
    AuthSnapshot { keys: vec![auth_snapshot::Key { index: 1, public_key }], version: 1, ..AuthSnapshot::default() }
}

#[test]
fn tokens_have_the_documented_form() {
    let token = sign(&access(1_419_834_921), 1, &key(7));
    let (signature, data) = token.split_once('.').unwrap();
    assert_eq!(signature.len(), 88);
    assert_eq!(data, format!("v=1.k=1.d=1419834921.t=a.l=.u={USER}.i=b17.c=8875802285613998639"));
    let cookie = Claims { kind: Kind::User { cookie: 0xab }, client: None, session: true, expires: None, ..access(0) };
    let token = sign(&cookie, 2, &key(7));
    assert!(token.ends_with(&format!("v=1.k=2.d=-1.t=u.l=s.u={USER}.r=ab")), "{token}");
    assert_eq!(verify(&token, |_| Some(key(7).verifying_key())), Ok(cookie));
}

#[test]
fn altered_foreign_and_malformed_tokens_are_refused() {
    let keys = |index| (index == 1).then(|| key(7).verifying_key());
    let token = sign(&access(10), 1, &key(7));
    assert_eq!(verify(&token, keys), Ok(access(10)));
    assert_eq!(verify(&token.replace("d=10", "d=99"), keys), Err(TokenError::Signature));
    assert_eq!(verify(&sign(&access(10), 2, &key(7)), keys), Err(TokenError::Signature));
    assert_eq!(verify(&sign(&access(10), 1, &key(8)), keys), Err(TokenError::Signature));
    for bad in ["", ".", "x", "x.v=1", &token.replace("v=1", "v=2"), &token.replace("t=a", "t=b"), &"a".repeat(2000)] {
        assert_eq!(verify(bad, keys), Err(TokenError::Malformed), "{bad}");
    }
}

#[test]
fn a_verifier_knows_expiry_and_revocations() {
    let verifier = TokenVerifier::new();
    let token = sign(&access(1000), 1, &key(7));
    assert_eq!(verifier.verify(&token, 0), Err(TokenError::Signature));
    verifier.update(AuthState::from_snapshot(&snapshot()));
    assert_eq!(verifier.verify(&token, 999).unwrap().client, Some(ClientId(0xb17)));
    assert_eq!(verifier.verify(&token, 1000), Err(TokenError::Expired));
    let cookie = sign(&Claims { kind: Kind::User { cookie: 1 }, ..access(1000) }, 1, &key(7));
    assert_eq!(verifier.verify(&cookie, 0), Err(TokenError::Malformed));

    let user = || aldis_proto::convert::bytes_of(user());
    let revocations = [
        AuthSnapshot {
            users: vec![auth_snapshot::UserRevocation {
                user: user(),
                refuse_expiring_until: 1000,
                except_family: None,
            }],
            ..snapshot()
        },
        AuthSnapshot { clients: vec![auth_snapshot::ClientRevocation { user: user(), client: 0xb17 }], ..snapshot() },
        AuthSnapshot { families: vec![auth_snapshot::FamilyRevocation { user: user(), family: FAMILY }], ..snapshot() },
    ];
    for revocation in revocations {
        verifier.update(AuthState::from_snapshot(&revocation));
        assert_eq!(verifier.verify(&token, 0), Err(TokenError::Revoked));
    }
    // Later tokens, and those of the family that is let be.
    for (until, except) in [(999, None), (1000, Some(FAMILY))] {
        let revocation =
            auth_snapshot::UserRevocation { user: user(), refuse_expiring_until: until, except_family: except };
        verifier.update(AuthState::from_snapshot(&AuthSnapshot { users: vec![revocation], ..snapshot() }));
        assert!(verifier.verify(&token, 0).is_ok());
    }
}

#[tokio::test]
async fn clients_try_again_after_420_because_it_has_no_text() {
    let response = HttpError::from(label::TOO_MANY_REQUESTS).into_response();
    let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body, serde_json::json!({ "code": 420, "label": "too-many-requests", "message": "" }));
}

#[test]
fn the_label_table_is_sane() {
    for row in label::ALL {
        assert!((400..600).contains(&row.status) && !row.message.is_empty(), "{row:?}");
        assert!(row.label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{row:?}");
    }
    assert_eq!(label::federation("federation-denied"), Some(label::FEDERATION_DENIED));
    assert_eq!(label::federation("not-found"), None);
}
