//! The textual tokens of the client API.
//!
//! ```text
//! token  = base64url(signature) "." data
//! data   = "v=1.k=" key ".d=" expiry ".t=" type ".l=" tag "." specific
//! access = "u=" uuid [".i=" client] ".c=" connection      (type "a")
//! user   = "u=" uuid ".r=" cookie-id [".i=" client]       (type "u")
//! ```
//!
//! The signature is Ed25519 over the ASCII bytes of `data`, written in base64url with padding.

use std::fmt::Write as _;

use aldis_types::{ClientId, ConnId, UserId};
use base64::{Engine, engine::general_purpose::URL_SAFE};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

/// Longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 1024;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A short-lived bearer token of a session.
    Access {
        /// Names the session and its sockets.
        connection: ConnId,
    },
    /// The content of the `zuid` cookie, good for `/access` only.
    User {
        /// Numeric id of the cookie.
        cookie: u32,
    },
}

/// The content of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claims {
    /// Whose token it is.
    pub user: UserId,
    /// The client that the session was bound to.
    pub client: Option<ClientId>,
    /// What it is for.
    pub kind: Kind,
    /// When it expires, in seconds since 1970; `None`: never.
    pub expires: Option<i64>,
    /// A session token, whose cookie has no expiry in the browser.
    pub session: bool,
}

/// Why a token was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not of the form above, or of a version or kind that we do not issue.
    #[error("token cannot be read")]
    Malformed,
    /// Expired.
    #[error("token has expired")]
    Expired,
    /// The signature or key does not fit.
    #[error("token signature is wrong")]
    Signature,
    /// Revoked since it was issued.
    #[error("token was revoked")]
    Revoked,
}

/// Signs `claims` with the key that has this 1-based index.
pub fn sign(claims: &Claims, key_index: u32, key: &SigningKey) -> String {
    let mut data = String::with_capacity(160);
    let (kind, tag) = match claims.kind {
        Kind::Access { .. } => ("a", ""),
        Kind::User { .. } => ("u", if claims.session { "s" } else { "" }),
    };
    let expires = claims.expires.unwrap_or(-1);
    // Writing to a String cannot fail.
    let _ = write!(data, "v=1.k={key_index}.d={expires}.t={kind}.l={tag}.u={}", claims.user);
    if let Kind::User { cookie } = claims.kind {
        let _ = write!(data, ".r={cookie:x}");
    }
    if let Some(client) = claims.client {
        let _ = write!(data, ".i={client}");
    }
    if let Kind::Access { connection } = claims.kind {
        let _ = write!(data, ".c={connection}");
    }
    let signature = key.sign(data.as_bytes());
    format!("{}.{data}", URL_SAFE.encode(signature.to_bytes()))
}

/// Reads a token and checks its signature with the key that `key` gives for its index; says nothing about expiry.
pub fn verify(token: &str, key: impl Fn(u32) -> Option<VerifyingKey>) -> Result<Claims, TokenError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::Malformed);
    }
    let (signature, data) = token.split_once('.').ok_or(TokenError::Malformed)?;
    let field = |name: &str| data.split('.').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let required = |name: &str| field(name).ok_or(TokenError::Malformed);
    if required("v")? != "1" {
        return Err(TokenError::Malformed);
    }
    let index: u32 = required("k")?.parse().map_err(|_| TokenError::Malformed)?;
    let expires: i64 = required("d")?.parse().map_err(|_| TokenError::Malformed)?;
    let kind = match required("t")? {
        "a" => Kind::Access { connection: required("c")?.parse().map_err(|_| TokenError::Malformed)? },
        "u" => Kind::User { cookie: u32::from_str_radix(required("r")?, 16).map_err(|_| TokenError::Malformed)? },
        _ => return Err(TokenError::Malformed),
    };
    let claims = Claims {
        user: required("u")?.parse().map_err(|_| TokenError::Malformed)?,
        client: field("i").map(str::parse).transpose().map_err(|_| TokenError::Malformed)?,
        kind,
        expires: (expires >= 0).then_some(expires),
        session: required("l")? == "s",
    };
    let signature = URL_SAFE.decode(signature).map_err(|_| TokenError::Malformed)?;
    let signature = Signature::from_slice(&signature).map_err(|_| TokenError::Malformed)?;
    let key = key(index).ok_or(TokenError::Signature)?;
    key.verify_strict(data.as_bytes(), &signature).map_err(|_| TokenError::Signature)?;
    Ok(claims)
}
