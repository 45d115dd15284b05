//! What clients need for calls: TURN servers with credentials that the servers can check without asking us.

mod discovery;
pub(crate) mod http;
mod servers;
#[cfg(test)]
mod tests;

use aldis_runtime::SharedRandom;
use aldis_types::{Timestamp, UserId};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

pub(crate) use discovery::Dns;
pub(crate) use servers::{Lists, Servers};

use crate::config::{self, TurnCredentials};

/// One server with credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IceServer {
    pub(crate) uri: String,
    pub(crate) username: String,
    pub(crate) credential: String,
}

/// The servers for one user: every one in random order, or `limit` of them, in turn one by UDP, one by TLS, one by TCP.
/// Empty when none is configured.
pub(crate) fn ice_servers(
    config: &config::Calls,
    lists: &Lists,
    random: &SharedRandom,
    user: UserId,
    now: Timestamp,
    limit: Option<usize>,
) -> Vec<IceServer> {
    let Some(secret) = &config.secret else { return Vec::new() };
    let mut uris: Vec<&String> = lists.turn.iter().collect();
    shuffle(&mut uris, random);
    let uris = match limit {
        Some(limit) => in_turn(uris, limit),
        None => uris,
    };
    let Credentials { username, credential } = match config.turn_credentials {
        TurnCredentials::Sha512 => credentials(config, secret, user, now, "t=s"),
        TurnCredentials::Rest => rest_credentials(config, secret, user, now),
    };
    uris.into_iter()
        .map(|uri| IceServer { uri: uri.clone(), username: username.clone(), credential: credential.clone() })
        .collect()
}

/// A name that says until when it is good, and the proof that we gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) username: String,
    pub(crate) credential: String,
}

fn credentials(
    config: &config::Calls,
    secret: &config::Secret,
    user: UserId,
    now: Timestamp,
    right: &str,
) -> Credentials {
    let expires = now.seconds().saturating_add_unsigned(config.credential_seconds);
    let username = format!("d={expires}.v=1.k=0.{right}.r={}", stable_name(user));
    let credential = sign::<Hmac<Sha512>>(secret.expose().as_bytes(), username.as_bytes());
    Credentials { username, credential }
}

/// As coturn checks them with `use-auth-secret`: by HMAC-SHA-1, which its protocol fixes.
fn rest_credentials(config: &config::Calls, secret: &config::Secret, user: UserId, now: Timestamp) -> Credentials {
    let expires = now.seconds().saturating_add_unsigned(config.credential_seconds);
    let username = format!("{expires}:{}", stable_name(user));
    let credential = sign::<Hmac<Sha1>>(secret.expose().as_bytes(), username.as_bytes());
    Credentials { username, credential }
}

/// The conference servers for one user.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SftServers {
    /// Some of them, to choose from.
    pub(crate) some: Vec<String>,
    /// Every one, when the operator wants them told.
    pub(crate) all: Option<Vec<String>>,
    /// With the right to begin conferences, when the servers ask for credentials.
    pub(crate) credentials: Option<Credentials>,
}

/// The conference servers for one user: nothing when there are none.
pub(crate) fn sft_servers(
    config: &config::Calls,
    lists: &Lists,
    random: &SharedRandom,
    user: UserId,
    now: Timestamp,
) -> SftServers {
    if lists.sft.is_empty() {
        return SftServers::default();
    }
    let mut some = lists.sft.clone();
    shuffle(&mut some, random);
    some.truncate(config.sft_list_length);
    let credentials = config.sft_secret.as_ref().map(|secret| credentials(config, secret, user, now, "s=1"));
    SftServers { some, all: config.sft_list_all.then(|| lists.sft.clone()), credentials }
}

/// Fisher and Yates.
fn shuffle<T>(list: &mut [T], random: &SharedRandom) {
    for last in (1..list.len()).rev() {
        let other = random.below(last as u64 + 1);
        list.swap(last, usize::try_from(other).unwrap_or(last));
    }
}

fn in_turn(uris: Vec<&String>, limit: usize) -> Vec<&String> {
    let mut kinds: [Vec<&String>; 3] = Default::default();
    for uri in uris {
        let kind = if uri.starts_with("turns:") {
            1
        } else if uri.ends_with("transport=tcp") {
            2
        } else {
            0
        };
        kinds[kind].push(uri);
    }
    let longest = kinds.iter().map(Vec::len).max().unwrap_or(0);
    let rounds = (0..longest).flat_map(|round| kinds.iter().filter_map(move |kind| kind.get(round).copied()));
    rounds.take(limit).collect()
}

/// A name that is the same for a user every time and tells nobody who it is: SHA-256 of the id, its first 16 bytes as a
/// little-endian number, in base 26 with the digits a to z.
fn stable_name(user: UserId) -> String {
    let digest = Sha256::digest(user.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    let mut number = u128::from_le_bytes(bytes);
    let mut digits = Vec::with_capacity(28);
    loop {
        // Below 26, so it fits.
        #[allow(clippy::cast_possible_truncation)]
        digits.push(b'a' + (number % 26) as u8);
        number /= 26;
        if number == 0 {
            break;
        }
    }
    digits.iter().rev().map(|digit| char::from(*digit)).collect()
}

fn sign<M: Mac + KeyInit>(secret: &[u8], text: &[u8]) -> String {
    // HMAC takes keys of every length.
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(secret) else { return String::new() };
    mac.update(text);
    STANDARD.encode(mac.finalize().into_bytes())
}
