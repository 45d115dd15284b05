//! Fuzz targets: tokens and paths from outside.
//!
//! Run as tests with random input; `cargo bolero test -p aldis-api <name>` lets a fuzzing engine search for longer.

use aldis_types::{ClientId, ConnId, UserId};
use bolero::{check, generator::TypeGenerator};
use ed25519_dalek::SigningKey;

use crate::{
    serve::strip_version,
    token::{Claims, Kind, sign, verify},
};

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

#[derive(Debug, Clone, TypeGenerator)]
struct Session {
    user: [u8; 16],
    client: Option<u64>,
    connection: u64,
    cookie: Option<u32>,
    expires: Option<i64>,
    transient: bool,
}

impl Session {
    fn claims(&self) -> Claims {
        Claims {
            user: UserId::from_bytes(&self.user).unwrap(),
            client: self.client.map(ClientId),
            kind: match self.cookie {
                Some(cookie) => Kind::User { cookie },
                None => Kind::Access { connection: ConnId(self.connection) },
            },
            expires: self.expires.map(|seconds| seconds & i64::MAX),
            session: self.transient && self.cookie.is_some(),
        }
    }
}

/// Nothing but the text that was signed is accepted, and it says what was signed.
#[test]
fn tokens_from_outside() {
    check!().with_type::<(Session, u16, u8)>().for_each(|(session, place, byte)| {
        let claims = session.claims();
        let token = sign(&claims, 1, &key());
        let keys = |index| (index == 1).then(|| key().verifying_key());
        assert_eq!(verify(&token, keys), Ok(claims));
        let mut altered = token.clone().into_bytes();
        let place = usize::from(*place) % altered.len();
        altered[place] = *byte;
        if let Ok(altered) = String::from_utf8(altered)
            && altered != token
        {
            assert!(verify(&altered, keys).is_err(), "accepted an altered token");
        }
    });
    check!().with_type::<String>().for_each(|text| assert!(verify(text, |_| Some(key().verifying_key())).is_err()));
}

/// A path without a prefix stays as it is; one with a prefix loses just that, and keeps its query.
#[test]
fn paths_from_outside() {
    const ALPHABET: &[u8] = b"/v0123489iapi-version?=%2fx.";
    check!().with_type::<Vec<u8>>().for_each(|bytes| {
        let picked: String =
            bytes.iter().map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect();
        let Ok(uri) = format!("/{picked}").parse::<http::Uri>() else { return };
        if let Ok((Some(stripped), _)) = strip_version(&uri) {
            assert!(uri.path().ends_with(stripped.path()) || stripped.path() == "/");
            assert_eq!(uri.query(), stripped.query());
        }
    });
}
