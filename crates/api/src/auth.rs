//! Checking access tokens in every service: with public keys and revocations that the users service streams.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use aldis_proto::{
    channel::Channel,
    convert,
    internal::v1::{AuthSnapshot, WatchAuthRequest, auth_client::AuthClient},
};
use aldis_types::{ClientId, UserId};
use arc_swap::ArcSwap;
use ed25519_dalek::VerifyingKey;
use tokio::sync::watch;

use crate::{
    caller::Session,
    token::{self, Claims, Kind, TokenError},
};

/// Pause before the stream from users is opened again.
const RECONNECT: Duration = Duration::from_millis(500);
/// Users sends a beat every 15 s; a stream that is silent for longer is opened again.
const SILENCE: Duration = Duration::from_secs(40);
/// Verified tokens kept in memory; each about 400 bytes.
const CACHE_TOKENS: u64 = 100_000;

/// Which tokens of a user are refused: those that expire until then, but one family of cookies.
#[derive(Debug, Clone, Copy)]
struct UserRevocation {
    until: i64,
    except: Option<u32>,
}

/// Keys and revocations at one version.
#[derive(Debug, Default)]
pub struct AuthState {
    keys: HashMap<u32, VerifyingKey>,
    users: HashMap<UserId, UserRevocation>,
    clients: HashSet<(UserId, ClientId)>,
    families: HashSet<(UserId, u32)>,
    version: u64,
}

impl AuthState {
    /// Reads a snapshot; entries that break the wire rules are left out and logged.
    pub fn from_snapshot(snapshot: &AuthSnapshot) -> Self {
        let mut state = Self { version: snapshot.version, ..Self::default() };
        for key in &snapshot.keys {
            let bytes = <&[u8; 32]>::try_from(key.public_key.as_ref()).ok();
            match bytes.and_then(|bytes| VerifyingKey::from_bytes(bytes).ok()) {
                Some(verifying) => drop(state.keys.insert(key.index, verifying)),
                None => tracing::error!(key.index, "token key from users is not an Ed25519 key"),
            }
        }
        for user in &snapshot.users {
            if let Ok(id) = convert::user_id(&user.user) {
                let revocation = UserRevocation { until: user.refuse_expiring_until, except: user.except_family };
                state.users.insert(id, revocation);
            }
        }
        for client in &snapshot.clients {
            if let Ok(id) = convert::user_id(&client.user) {
                state.clients.insert((id, ClientId(client.client)));
            }
        }
        for family in &snapshot.families {
            if let Ok(id) = convert::user_id(&family.user) {
                state.families.insert((id, family.family));
            }
        }
        state
    }

    /// Users of whose sessions some may be revoked; [`AuthState::revokes`] tells which. One may come more than once.
    pub fn revoked_users(&self) -> impl Iterator<Item = UserId> {
        let clients = self.clients.iter().map(|(user, _)| *user);
        let families = self.families.iter().map(|(user, _)| *user);
        self.users.keys().copied().chain(clients).chain(families)
    }

    /// Whether a token with these claims was revoked.
    pub fn revokes(&self, session: &Session) -> bool {
        let family = session.connection.family();
        let all = self.users.get(&session.user).is_some_and(|revoked| {
            revoked.except != Some(family) && session.expires.is_some_and(|expires| expires <= revoked.until)
        });
        all || session.client.is_some_and(|client| self.clients.contains(&(session.user, client)))
            || self.families.contains(&(session.user, family))
    }
}

/// Checks access tokens without asking anybody. Cheap to clone; clones share keys, revocations and cache.
#[derive(Clone)]
pub struct TokenVerifier {
    state: Arc<ArcSwap<AuthState>>,
    verified: moka::sync::Cache<Box<str>, Claims>,
    changes: watch::Sender<u64>,
}

impl Default for TokenVerifier {
    fn default() -> Self {
        Self::new()
    }
}

impl TokenVerifier {
    /// A verifier that refuses everything until it has keys.
    pub fn new() -> Self {
        Self { state: Arc::default(), verified: moka::sync::Cache::new(CACHE_TOKENS), changes: watch::Sender::new(0) }
    }

    /// Puts keys and revocations in force.
    pub fn update(&self, state: AuthState) {
        let version = state.version;
        self.state.store(Arc::new(state));
        self.changes.send_replace(version);
    }

    /// Whether keys are known, so that tokens can be checked at all.
    pub fn is_ready(&self) -> bool {
        !self.state.load().keys.is_empty()
    }

    /// The keys and revocations in force.
    pub fn state(&self) -> Arc<AuthState> {
        self.state.load_full()
    }

    /// Ticks whenever keys or revocations change; sockets are checked again then.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Checks an access token at `now` (seconds since 1970).
    pub fn verify(&self, token: &str, now: i64) -> Result<Session, TokenError> {
        let state = self.state.load();
        let claims = match self.verified.get(token) {
            Some(claims) => claims,
            None => {
                let claims = token::verify(token, |index| state.keys.get(&index).copied())?;
                self.verified.insert(token.into(), claims);
                claims
            }
        };
        let Kind::Access { connection } = claims.kind else { return Err(TokenError::Malformed) };
        if claims.expires.is_some_and(|expires| expires <= now) {
            return Err(TokenError::Expired);
        }
        let session = Session { user: claims.user, client: claims.client, connection, expires: claims.expires };
        if state.revokes(&session) { Err(TokenError::Revoked) } else { Ok(session) }
    }

    /// Follows the users service for as long as the future is polled, reconnecting after failures.
    pub async fn follow(self, users: Channel) {
        let mut client = AuthClient::new(users);
        loop {
            if let Err(status) = self.follow_once(&mut client).await {
                tracing::debug!(grpc.code = ?status.code(), "stream of token keys ended");
            }
            tokio::time::sleep(RECONNECT).await;
        }
    }

    async fn follow_once(&self, client: &mut AuthClient<Channel>) -> Result<(), tonic::Status> {
        let mut stream = client.watch(WatchAuthRequest {}).await?.into_inner();
        while let Some(snapshot) = tokio::time::timeout(SILENCE, stream.message())
            .await
            .map_err(|_| tonic::Status::deadline_exceeded("no beat from users"))??
        {
            if snapshot.version != self.state.load().version || !self.is_ready() {
                self.update(AuthState::from_snapshot(&snapshot));
            }
        }
        Ok(())
    }
}
