//! Prekeys that a backend accepts: well-formed bundles around random keys.

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ciborium::Value as Cbor;
use rand::Rng as _;
use serde_json::{Value, json};

/// The number of the key that is never used up.
pub const LAST_RESORT: u16 = u16::MAX;

fn public_key() -> Cbor {
    let mut bytes = [0_u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    map([(0, Cbor::Bytes(bytes.to_vec()))])
}

fn map<const N: usize>(entries: [(u8, Cbor); N]) -> Cbor {
    Cbor::Map(entries.into_iter().map(|(key, value)| (Cbor::from(key), value)).collect())
}

/// The base64 text of a bundle with this number: a CBOR map of version, number, public key, identity key and no
/// signature.
pub fn bundle(id: u16) -> Result<String> {
    let bundle = map([
        (0, Cbor::from(1)),
        (1, Cbor::from(id)),
        (2, public_key()),
        (3, map([(0, public_key())])),
        (4, Cbor::Null),
    ]);
    let mut bytes = Vec::new();
    ciborium::into_writer(&bundle, &mut bytes)?;
    Ok(STANDARD.encode(bytes))
}

/// One prekey as JSON.
pub fn prekey(id: u16) -> Result<Value> {
    Ok(json!({ "id": id, "key": bundle(id)? }))
}

/// The body of `POST /clients` with this many one-time keys.
pub fn new_client(kind: &str, keys: u16, password: Option<&str>) -> Result<Value> {
    let prekeys = (0..keys).map(prekey).collect::<Result<Vec<_>>>()?;
    let mut body = json!({
        "type": kind,
        "class": "desktop",
        "model": "harness",
        "label": "harness",
        "cookie": "harness",
        "capabilities": ["legalhold-implicit-consent"],
        "prekeys": prekeys,
        "lastkey": prekey(LAST_RESORT)?,
    });
    if let Some(password) = password {
        body["password"] = json!(password);
    }
    Ok(body)
}
