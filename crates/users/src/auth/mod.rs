//! Logging in and staying logged in: passwords, tokens, cookies, and taking them back.
//!
//! A session is a cookie, good for `/access` only, and a row; access tokens are signed and carry everything that the
//! other services need. What is revoked before it expires is published to all services ([`Revocations`]).

mod error;
pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod keys;
pub(crate) mod passwords;
mod revocations;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod throttle;

use std::{sync::Arc, time::Duration};

use aldis_api::token::{Claims, Kind, TokenError};
use aldis_runtime::{SharedClock, SharedRandom};
use aldis_storage::StoreError;
use aldis_types::{ClientId, ConnId, Email, Handle, Timestamp, UserId};
pub(crate) use error::AuthError;
pub(crate) use revocations::Revocations;
use sha2::{Digest, Sha256};

use self::{
    keys::{TokenKey, TokenKeys},
    passwords::{Password, Passwords},
    store::{AttemptKind, AttemptLimit, AuthStore, CookieRow, Revocation, Revoked},
};
use crate::{
    accounts::store::AccountStore, audit::AuditEntry, clients::store::ClientStore, config::Config, detached::detached,
};

/// Cookies per account and kind.
const MAX_COOKIES: usize = 32;

/// A cookie to be set.
#[derive(Debug, Clone)]
pub(crate) struct NewCookie {
    pub(crate) value: String,
    /// `None` for a session cookie.
    pub(crate) expires: Option<Timestamp>,
}

/// What a login or a renewal gives.
#[derive(Debug, Clone)]
pub(crate) struct Issued {
    pub(crate) user: UserId,
    pub(crate) access_token: String,
    pub(crate) expires_in: u64,
    pub(crate) cookie: Option<NewCookie>,
}

/// Who wants to log in.
#[derive(Debug, Clone)]
pub(crate) enum Identity {
    Email(Email),
    Handle(Handle),
    /// Neither an address nor a handle: nobody has it, which is found out as slowly as for any other.
    Malformed(String),
}

/// What a request to the `/access` family carries.
#[derive(Debug, Clone, Default)]
pub(crate) struct Presented {
    /// Every cookie of the right name.
    pub(crate) cookies: Vec<String>,
    /// The access token.
    pub(crate) token: Option<String>,
}

/// A session that a cookie names.
struct CookieSession {
    user: UserId,
    row: CookieRow,
    /// When an access token that is issued for it expires.
    expires: i64,
}

/// The parts that [`Auth`] is made of.
pub(crate) struct AuthParts {
    pub(crate) keys: TokenKeys,
    pub(crate) store: Arc<dyn AuthStore>,
    pub(crate) accounts: Arc<dyn AccountStore>,
    pub(crate) clients: Arc<dyn ClientStore>,
    pub(crate) passwords: Passwords,
    pub(crate) revocations: Revocations,
    pub(crate) clock: SharedClock,
    pub(crate) random: SharedRandom,
}

/// Logins, tokens and cookies.
pub(crate) struct Auth {
    config: Arc<Config>,
    parts: AuthParts,
    /// One change of the keys at a time, so that lists come into force in order.
    changing_keys: tokio::sync::Mutex<()>,
}

impl Auth {
    pub(crate) fn new(config: Arc<Config>, parts: AuthParts) -> Self {
        Self { config, parts, changing_keys: tokio::sync::Mutex::default() }
    }

    pub(crate) fn passwords(&self) -> &Passwords {
        &self.parts.passwords
    }

    pub(crate) fn revocations(&self) -> &Revocations {
        &self.parts.revocations
    }

    /// Logs in by password. An account that does not exist is refused as slowly as a wrong password, and locked out as
    /// soon.
    pub(crate) async fn login(
        &self,
        identity: Identity,
        password: Password,
        label: Option<String>,
        persistent: bool,
    ) -> Result<Issued, AuthError> {
        let found = match &identity {
            Identity::Email(email) => self.parts.accounts.by_email(email).await?,
            Identity::Handle(handle) => self.parts.accounts.by_handle(handle).await?,
            Identity::Malformed(_) => None,
        };
        let subject = found.map_or_else(|| nobody(&identity), |user| *user.as_bytes());
        let expires = found.map_or(0, |user| self.token_expiry(user));
        let checked = self.check_counted(found, subject, password).await?;
        let user = found.ok_or(AuthError::InvalidCredentials)?;
        let account = self.parts.accounts.get(user).await?.filter(|account| !account.deleted);
        let account = account.ok_or(AuthError::InvalidCredentials)?;
        if account.suspended {
            return Err(AuthError::Suspended);
        }
        if !account.is_activated() {
            return Err(AuthError::PendingActivation);
        }
        self.begin_session(user, label, persistent, Some(checked), expires).await
    }

    /// Checks the password of somebody who is logged in already, before a change that needs it. Gives the stored hash
    /// that it fits.
    pub(crate) async fn reauthenticate(&self, user: UserId, password: Option<Password>) -> Result<String, AuthError> {
        let password = password.ok_or(AuthError::MissingPassword)?;
        self.check_counted(Some(user), *user.as_bytes(), password).await
    }

    /// Forgets counted attempts: the secret was replaced.
    pub(crate) async fn forgive(&self, kind: AttemptKind, subject: [u8; 16]) -> Result<(), StoreError> {
        self.parts.store.forgive(kind, subject).await
    }

    pub(crate) fn keys(&self) -> &TokenKeys {
        &self.parts.keys
    }

    /// Makes a new key and tells every service of it; it signs a moment later. `None` when there are too many.
    pub(crate) async fn rotate_key(self: Arc<Self>, audit: AuditEntry) -> Result<Option<TokenKey>, StoreError> {
        detached(async move {
            let _changing = self.changing_keys.lock().await;
            let (parts, now) = (&self.parts, self.parts.clock.now());
            let mut fresh = [0; 32];
            parts.random.fill(&mut fresh);
            let all = parts.store.add_key(fresh, now, now.plus(keys::SPREAD), keys::MAX_KEYS, audit).await?;
            let Some(all) = all else { return Ok(None) };
            let new = all.last().cloned();
            self.put_keys(all);
            Ok(new)
        })
        .await
    }

    /// Forgets keys whose tokens have all expired.
    pub(crate) async fn drop_old_keys(&self) -> Result<(), StoreError> {
        let _changing = self.changing_keys.lock().await;
        let now = self.parts.clock.now();
        let kept = self.config.keys_kept();
        let old = |key: &TokenKey| key.retired.is_some_and(|time| time.plus(kept) < now);
        if self.parts.keys.all().iter().any(old) {
            let age = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
            let before = Timestamp::from_millis(now.millis().saturating_sub(age));
            self.put_keys(self.parts.store.drop_keys(before).await?);
        }
        Ok(())
    }

    fn put_keys(&self, all: Vec<TokenKey>) {
        self.parts.keys.replace(all);
        self.parts.revocations.set_keys(&self.parts.keys, self.parts.clock.now());
    }

    /// Counts an attempt at a secret; gives how long to wait when there were too many.
    pub(crate) async fn count(
        &self,
        kind: AttemptKind,
        subject: [u8; 16],
        limit: AttemptLimit,
    ) -> Result<Option<Duration>, StoreError> {
        self.parts.store.attempt(kind, subject, limit, self.parts.clock.now()).await
    }

    /// Counts the attempt before it is made, so that many at once cannot slip past the limit. Gives the stored hash.
    async fn check_counted(
        &self,
        user: Option<UserId>,
        subject: [u8; 16],
        password: Password,
    ) -> Result<String, AuthError> {
        let limits = &self.config.limits;
        let limit =
            AttemptLimit { count: limits.login_failures, window: Duration::from_secs(limits.login_window_seconds) };
        let now = self.parts.clock.now();
        if let Some(wait) = self.parts.store.attempt(AttemptKind::Password, subject, limit, now).await? {
            return Err(AuthError::TooManyFailures(wait));
        }
        let stored = match user {
            Some(user) => self.parts.accounts.password(user).await?,
            None => None,
        };
        if !self.parts.passwords.verify(password, stored.clone()).await? {
            return Err(AuthError::InvalidCredentials);
        }
        self.parts.store.forgive(AttemptKind::Password, subject).await?;
        stored.ok_or(AuthError::InvalidCredentials)
    }

    /// Opens a session for somebody whose account was just created: a new cookie and a first access token.
    pub(crate) async fn grant(
        &self,
        user: UserId,
        label: Option<String>,
        persistent: bool,
    ) -> Result<Issued, AuthError> {
        self.begin_session(user, label, persistent, None, self.token_expiry(user)).await
    }

    /// `password` is the stored hash that was checked; a session is not begun when it has changed since.
    async fn begin_session(
        &self,
        user: UserId,
        label: Option<String>,
        persistent: bool,
        password: Option<String>,
        expires: i64,
    ) -> Result<Issued, AuthError> {
        let now = self.parts.clock.now();
        let gap = Duration::from_secs(self.config.limits.login_gap_seconds);
        let cookies = self.parts.store.cookies(user, now).await?;
        let times: Vec<_> =
            cookies.iter().filter(|cookie| cookie.session != persistent).map(|cookie| cookie.created).collect();
        if let Some(wait) = throttle::too_frequent(&times, now, MAX_COOKIES, gap) {
            return Err(AuthError::TooFrequent(wait));
        }
        let cookie = self.new_row(now, !persistent, label, None, None);
        if !self.parts.store.add_cookie(user, cookie.clone(), MAX_COOKIES, password).await? {
            return Err(AuthError::InvalidCredentials);
        }
        let connection = self.new_connection(cookie.family);
        Ok(self.issue(user, None, connection, expires, Some(self.cookie_value(user, &cookie))))
    }

    /// `POST /access`: a new access token for a cookie; with `client`, bound to that client of the user.
    pub(crate) async fn renew(&self, presented: &Presented, client: Option<ClientId>) -> Result<Issued, AuthError> {
        let CookieSession { user, row, expires } = self.session(presented).await?;
        let old = presented.token.as_deref().map(|token| self.connection_of(user, token)).transpose()?;
        // A session that was ended does not come back to life through another one.
        let connection = old.filter(|id| id.family() == row.family);
        let bound = match (client, row.client) {
            (None, bound) => bound,
            (Some(wanted), Some(bound)) if wanted == bound => Some(bound),
            (Some(_), Some(_)) => return Err(AuthError::OtherClient),
            (Some(wanted), None) => {
                self.parts.clients.get(user, wanted).await?.ok_or(AuthError::OtherClient)?;
                Some(wanted)
            }
        };
        let age = self.parts.clock.now().since(row.created);
        let stale = !row.session && age > self.config.renew_age();
        let cookie = if stale || bound != row.client { Some(self.successor(user, &row, bound).await?) } else { None };
        let connection = connection.unwrap_or_else(|| self.new_connection(row.family));
        Ok(self.issue(user, bound, connection, expires, cookie))
    }

    /// `POST /access/logout`: the cookie and the access tokens of its session end at once.
    pub(crate) async fn logout(&self, presented: &Presented) -> Result<(), AuthError> {
        let CookieSession { user, row, .. } = self.session(presented).await?;
        let token = presented.token.as_deref().ok_or(AuthError::MissingToken)?;
        self.connection_of(user, token)?;
        let revocation = self.parts.store.end_family(user, row.family, self.tokens_expire()).await?;
        self.parts.revocations.add(revocation, self.parts.clock.now());
        Ok(())
    }

    /// Whose session the presented cookie is good for.
    pub(crate) async fn user_of(&self, presented: &Presented) -> Result<UserId, AuthError> {
        Ok(self.session(presented).await?.user)
    }

    /// Ends the sessions of the cookies with one of the ids or labels, or all of them when neither is given.
    pub(crate) async fn remove_cookies(
        self: Arc<Self>,
        user: UserId,
        ids: Vec<u32>,
        labels: Vec<String>,
    ) -> Result<(), AuthError> {
        if ids.is_empty() && labels.is_empty() {
            let audit = AuditEntry::new("client", "sessions-ended", user);
            self.end_sessions(user, audit).await?;
            return Ok(());
        }
        let revoked = self.parts.store.remove_cookies(user, ids, labels, self.tokens_expire()).await?;
        self.parts.revocations.add_all(revoked, self.parts.clock.now());
        Ok(())
    }

    /// The cookies of an account, newest first.
    pub(crate) async fn cookies(&self, user: UserId) -> Result<Vec<CookieRow>, AuthError> {
        Ok(self.parts.store.cookies(user, self.parts.clock.now()).await?)
    }

    /// The revocation of tokens that were issued until now.
    pub(crate) fn revocation(&self, user: UserId, what: Revoked) -> Revocation {
        Revocation { user, what, expires: self.tokens_expire() }
    }

    /// Ends every session of a user at once; says how many cookies there were.
    pub(crate) async fn end_sessions(self: Arc<Self>, user: UserId, audit: AuditEntry) -> Result<usize, StoreError> {
        detached(async move {
            let revocation = self.revocation(user, Revoked::EVERYTHING);
            let now = self.parts.clock.now();
            let ended = self.parts.store.end_sessions(revocation, audit, now).await?;
            self.parts.revocations.add(revocation, now);
            Ok(ended)
        })
        .await
    }

    /// When every token that was issued until now has expired.
    pub(crate) fn tokens_expire(&self) -> Timestamp {
        self.parts.clock.now().plus(Duration::from_secs(self.config.tokens.access_seconds) + Revocation::SLACK)
    }

    /// When a token that is issued now expires. To be asked before the right to it is checked: a revocation that comes
    /// in between then refuses the token too.
    fn token_expiry(&self, user: UserId) -> i64 {
        let lifetime = Duration::from_secs(self.config.tokens.access_seconds);
        let expires = self.parts.clock.now().plus(lifetime).seconds();
        // After a revocation of all tokens a new one is told apart by its later end.
        let refused = self.parts.revocations.refused_until(user);
        refused.map_or(expires, |until| expires.max(until + 1))
    }

    /// The session whose cookie is presented.
    async fn session(&self, presented: &Presented) -> Result<CookieSession, AuthError> {
        let mut refused = match presented.token {
            None => AuthError::MissingCookieAndToken,
            Some(_) => AuthError::MissingCookie,
        };
        for (index, cookie) in presented.cookies.iter().enumerate() {
            match self.session_of(cookie).await {
                Ok(session) => return Ok(session),
                Err(error) if index == 0 => refused = error,
                Err(_) => {}
            }
        }
        Err(refused)
    }

    async fn session_of(&self, cookie: &str) -> Result<CookieSession, AuthError> {
        let claims = self.parts.keys.verify(cookie).map_err(|error| match error {
            TokenError::Malformed => AuthError::MalformedToken,
            _ => AuthError::InvalidToken,
        })?;
        let now = self.parts.clock.now();
        let Kind::User { cookie } = claims.kind else { return Err(AuthError::InvalidToken) };
        if claims.expires.is_some_and(|expires| expires <= now.seconds()) {
            return Err(AuthError::ExpiredToken);
        }
        let expires = self.token_expiry(claims.user);
        let row = self.parts.store.cookie(claims.user, cookie).await?.ok_or(AuthError::InvalidToken)?;
        if row.expires <= now {
            return Err(AuthError::ExpiredToken);
        }
        if row.client != claims.client || row.session != claims.session {
            return Err(AuthError::InvalidToken);
        }
        let account = self.parts.accounts.get(claims.user).await?.filter(|account| !account.deleted);
        if account.ok_or(AuthError::InvalidToken)?.suspended {
            return Err(AuthError::Suspended);
        }
        Ok(CookieSession { user: claims.user, row, expires })
    }

    /// The connection id of an access token of this user, which may have expired.
    fn connection_of(&self, user: UserId, token: &str) -> Result<ConnId, AuthError> {
        let claims = self.parts.keys.verify(token).map_err(|error| match error {
            TokenError::Malformed => AuthError::MalformedToken,
            _ => AuthError::InvalidToken,
        })?;
        let Kind::Access { connection } = claims.kind else { return Err(AuthError::InvalidToken) };
        if claims.user == user { Ok(connection) } else { Err(AuthError::InvalidToken) }
    }

    /// The cookie that replaces `row`: the one that already does, when it is still good, else a new one.
    async fn successor(&self, user: UserId, row: &CookieRow, client: Option<ClientId>) -> Result<NewCookie, AuthError> {
        let now = self.parts.clock.now();
        if let Some(id) = row.successor
            && let Some(next) = self.parts.store.cookie(user, id).await?
            && next.client == client
            && next.expires > now
        {
            return Ok(self.cookie_value(user, &next));
        }
        let next = self.new_row(now, row.session, row.label.clone(), client, Some(row.family));
        let old_expires = now.plus(self.config.renew_age());
        if self.parts.store.renew_cookie(user, row.id, old_expires, next.clone(), MAX_COOKIES).await? {
            Ok(self.cookie_value(user, &next))
        } else {
            Err(AuthError::InvalidToken)
        }
    }

    fn new_row(
        &self,
        now: Timestamp,
        session: bool,
        label: Option<String>,
        client: Option<ClientId>,
        family: Option<u32>,
    ) -> CookieRow {
        let tokens = &self.config.tokens;
        let lifetime = if session { tokens.session_seconds } else { tokens.persistent_seconds };
        let id = self.random_u32();
        let expires = now.plus(Duration::from_secs(lifetime));
        let family = family.unwrap_or_else(|| self.random_u32());
        CookieRow { id, family, session, created: now, expires, label, successor: None, client }
    }

    fn random_u32(&self) -> u32 {
        // Only the low half is used.
        #[allow(clippy::cast_possible_truncation)]
        let number = self.parts.random.next_u64() as u32;
        number
    }

    fn cookie_value(&self, user: UserId, row: &CookieRow) -> NewCookie {
        let claims = Claims {
            user,
            client: row.client,
            kind: Kind::User { cookie: row.id },
            expires: Some(row.expires.seconds()),
            session: row.session,
        };
        let value = self.parts.keys.sign(&claims, self.parts.clock.now());
        NewCookie { value, expires: (!row.session).then_some(row.expires) }
    }

    fn new_connection(&self, family: u32) -> ConnId {
        ConnId::new(family, self.random_u32())
    }

    fn issue(
        &self,
        user: UserId,
        client: Option<ClientId>,
        connection: ConnId,
        expires: i64,
        cookie: Option<NewCookie>,
    ) -> Issued {
        let expires_in = self.config.tokens.access_seconds;
        let now = self.parts.clock.now();
        let claims = Claims { user, client, kind: Kind::Access { connection }, expires: Some(expires), session: false };
        Issued { user, access_token: self.parts.keys.sign(&claims, now), expires_in, cookie }
    }
}

/// Under which attempts are counted for an identity that nobody has.
fn nobody(identity: &Identity) -> [u8; 16] {
    let text = match identity {
        Identity::Email(email) => email.key(),
        Identity::Handle(handle) => format!("@{}", handle.as_str()),
        Identity::Malformed(text) => text.clone(),
    };
    let digest = Sha256::digest(text.as_bytes());
    let mut subject = [0; 16];
    subject.copy_from_slice(&digest[..16]);
    subject
}
