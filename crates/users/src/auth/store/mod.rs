//! What logins need kept: keys, cookies, revocations, counted attempts.

mod sqlite;
#[cfg(test)]
pub(crate) mod suite;

use std::time::Duration;

use aldis_storage::StoreError;
use aldis_types::{ClientId, Timestamp, UserId};
use async_trait::async_trait;
pub(crate) use sqlite::{
    SqliteAuth, forget_client_sessions, forget_sessions, lift_client_revocation, write_revocation,
};

use super::keys::TokenKey;
use crate::audit::AuditEntry;

/// A session's cookie, without its value: that is signed and can be made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CookieRow {
    pub(crate) id: u32,
    /// The same for a cookie and those that replaced it; the upper half of their connection ids.
    pub(crate) family: u32,
    /// Gone when the browser is closed.
    pub(crate) session: bool,
    pub(crate) created: Timestamp,
    pub(crate) expires: Timestamp,
    pub(crate) label: Option<String>,
    /// The cookie that replaced this one.
    pub(crate) successor: Option<u32>,
    /// The client that the session is bound to.
    pub(crate) client: Option<ClientId>,
}

/// Access tokens that are refused before they expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Revoked {
    /// Tokens of a client that was removed.
    Client(ClientId),
    /// Tokens of a family of cookies that was removed.
    Family(u32),
    /// Every token of the user that was issued so far, but those of one family of cookies; see
    /// [`Revocation::refused_until`].
    Everything { except: Option<u32> },
}

impl Revoked {
    /// Every token of the user.
    pub(crate) const EVERYTHING: Self = Self::Everything { except: None };

    pub(crate) const fn is_everything(self) -> bool {
        matches!(self, Self::Everything { .. })
    }
}

/// A revocation, kept until every token that it is about has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Revocation {
    pub(crate) user: UserId,
    pub(crate) what: Revoked,
    pub(crate) expires: Timestamp,
}

impl Revocation {
    /// For how long a revocation outlives the tokens that it is about, as clocks differ.
    pub(crate) const SLACK: Duration = Duration::from_secs(60);
    /// How far a token that is being issued at this very moment may be ahead.
    const MARGIN: i64 = 5;

    /// For [`Revoked::Everything`]: tokens that expire at or before this time, in seconds since 1970, are refused.
    pub(crate) fn refused_until(&self) -> i64 {
        self.expires.seconds() - Self::SLACK.as_secs().cast_signed() + Self::MARGIN
    }
}

/// What is counted to guard a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttemptKind {
    /// Passwords of an account.
    Password,
    /// Mails with a code to an address.
    ActivationMail,
    /// Mails to new addresses of an account.
    EmailChange,
}

/// At most `count` attempts within `window`, which starts with the first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttemptLimit {
    pub(crate) count: u32,
    pub(crate) window: Duration,
}

/// Keeps keys, cookies, revocations and attempts.
#[async_trait]
pub(crate) trait AuthStore: Send + Sync {
    /// Every key in order; `fresh` becomes the first one when there is none yet.
    async fn token_keys(&self, fresh: [u8; 32], now: Timestamp) -> Result<Vec<TokenKey>, StoreError>;

    /// Adds a key that signs from `signs` on, and retires the one before at that time; gives every key. `None`, and nothing
    /// is changed, when there are `most` already.
    async fn add_key(
        &self,
        fresh: [u8; 32],
        now: Timestamp,
        signs: Timestamp,
        most: usize,
        audit: AuditEntry,
    ) -> Result<Option<Vec<TokenKey>>, StoreError>;

    /// Forgets keys that were retired before this time; gives those that are left.
    async fn drop_keys(&self, retired_before: Timestamp) -> Result<Vec<TokenKey>, StoreError>;

    /// The cookies of an account that have not expired, newest first.
    async fn cookies(&self, user: UserId, now: Timestamp) -> Result<Vec<CookieRow>, StoreError>;

    /// One cookie, expired or not.
    async fn cookie(&self, user: UserId, id: u32) -> Result<Option<CookieRow>, StoreError>;

    /// Adds a cookie. Older ones with the same label go, and of those of the same kind only the `keep - 1` that expire
    /// last stay beside it. `false`, and nothing is changed, when `password`, the stored hash that was checked, is no
    /// longer that of an account that is neither deleted nor suspended.
    async fn add_cookie(
        &self,
        user: UserId,
        cookie: CookieRow,
        keep: usize,
        password: Option<String>,
    ) -> Result<bool, StoreError>;

    /// Adds `next` as successor of `old`, which expires at `old_expires` if that is earlier than it would have. `false`,
    /// and nothing is changed, when `old` is gone.
    async fn renew_cookie(
        &self,
        user: UserId,
        old: u32,
        old_expires: Timestamp,
        next: CookieRow,
        keep: usize,
    ) -> Result<bool, StoreError>;

    /// Removes a family of cookies and writes its revocation until `tokens_expire`.
    async fn end_family(&self, user: UserId, family: u32, tokens_expire: Timestamp) -> Result<Revocation, StoreError>;

    /// Removes the cookies with one of the ids or labels together with their families, and writes the revocations.
    async fn remove_cookies(
        &self,
        user: UserId,
        ids: Vec<u32>,
        labels: Vec<String>,
        tokens_expire: Timestamp,
    ) -> Result<Vec<Revocation>, StoreError>;

    /// Removes every cookie of a user, and writes the revocation of all tokens; says how many cookies there were.
    async fn end_sessions(
        &self,
        revocation: Revocation,
        audit: AuditEntry,
        now: Timestamp,
    ) -> Result<usize, StoreError>;

    /// Revocations that are still needed.
    async fn revocations(&self, now: Timestamp) -> Result<Vec<Revocation>, StoreError>;

    /// Counts an attempt. `None` when it is allowed, else how long to wait.
    async fn attempt(
        &self,
        kind: AttemptKind,
        subject: [u8; 16],
        limit: AttemptLimit,
        now: Timestamp,
    ) -> Result<Option<Duration>, StoreError>;

    /// Forgets the attempts: the secret was known.
    async fn forgive(&self, kind: AttemptKind, subject: [u8; 16]) -> Result<(), StoreError>;

    /// Removes expired rows, in short jobs; says how many.
    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError>;
}
