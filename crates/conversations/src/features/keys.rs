//! The keys with which this backend, as owner of MLS groups, signs proposals to remove clients. Made once per backend
//! and kept: groups are founded on them.

use aldis_runtime::SharedRandom;
use aldis_storage::{Db, StoreError};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use p256::elliptic_curve::sec1::ToSec1Point;
use rusqlite::{OptionalExtension, params};
use serde_json::{Value, json};

const ED25519: &str = "ed25519";
const P256: &str = "ecdsa_secp256r1_sha256";
/// A random number is not a P-256 key once in 2^32 times.
const ATTEMPTS: usize = 8;

/// The keys cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("store")]
    Store(#[from] StoreError),
    #[error("the stored key `{0}` is not valid")]
    Invalid(&'static str),
}

/// The removal keys.
#[derive(Clone)]
pub(crate) struct RemovalKeys {
    ed25519: ed25519_dalek::SigningKey,
    p256: p256::SecretKey,
}

impl RemovalKeys {
    /// Reads the keys, making those that do not exist yet.
    pub(crate) async fn load(db: &Db, random: &SharedRandom) -> Result<Self, KeyError> {
        let mut fresh = [0; 32];
        random.fill(&mut fresh);
        let ed25519 = ed25519_dalek::SigningKey::from_bytes(&keep(db, ED25519, fresh).await?);
        let mut fresh = [0; 32];
        for _ in 0..ATTEMPTS {
            random.fill(&mut fresh);
            if p256::SecretKey::from_slice(&fresh).is_ok() {
                break;
            }
        }
        let secret = keep(db, P256, fresh).await?;
        let p256 = p256::SecretKey::from_slice(&secret).map_err(|_| KeyError::Invalid(P256))?;
        Ok(Self { ed25519, p256 })
    }

    /// The public keys as base64 of what MLS puts on the wire: 32 bytes, and the uncompressed point of 65 bytes.
    pub(crate) fn raw(&self) -> Value {
        let point = self.p256.public_key().to_sec1_point(false);
        json!({ "removal": {
            ED25519: STANDARD.encode(self.ed25519.verifying_key().as_bytes()),
            P256: STANDARD.encode(point.as_bytes()),
        }})
    }

    /// The public keys as JSON web keys.
    pub(crate) fn jwk(&self) -> Value {
        let point = self.p256.public_key().to_sec1_point(false);
        // An uncompressed point is 4, x, y.
        let bytes = point.as_bytes();
        let (x, y) = bytes.get(1..).map_or((&[][..], &[][..]), |bytes| bytes.split_at(bytes.len() / 2));
        json!({ "removal": {
            ED25519: {
                "kty": "OKP", "crv": "Ed25519",
                "x": URL_SAFE_NO_PAD.encode(self.ed25519.verifying_key().as_bytes()),
            },
            P256: { "kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y) },
        }})
    }
}

/// The secret under this name; `fresh` when there was none.
async fn keep(db: &Db, name: &'static str, fresh: [u8; 32]) -> Result<[u8; 32], KeyError> {
    let kept: Option<Vec<u8>> = db
        .write(move |tx| {
            let sql = "INSERT INTO conversations_keys (name, secret) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING";
            tx.prepare_cached(sql)?.execute(params![name, fresh])?;
            let sql = "SELECT secret FROM conversations_keys WHERE name = ?1";
            Ok(tx.prepare_cached(sql)?.query_row([name], |row| row.get(0)).optional()?)
        })
        .await?;
    kept.and_then(|secret| secret.try_into().ok()).ok_or(KeyError::Invalid(name))
}
