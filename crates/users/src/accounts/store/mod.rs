//! Accounts, their addresses, handles and codes.

mod sqlite;
mod sqlite_codes;
mod sqlite_ends;
#[cfg(test)]
pub(crate) mod suite;

use aldis_delivery::Delivery;
use aldis_storage::StoreError;
use aldis_types::{AccentId, Email, Handle, Name, ProfileAsset, Protocol, Timestamp, UserId};
use async_trait::async_trait;
pub(crate) use sqlite::{ACCOUNT, SqliteAccounts, read_account};

/// What jobs of other capabilities do to the rows of accounts.
pub(crate) mod rows {
    pub(crate) use super::{
        sqlite::{email_is_proven, get},
        sqlite_codes::{put_code, queue_mail},
        sqlite_ends::{bury, expect_email},
    };
}

use super::{Account, Locale, NewAccount};
use crate::{audit::AuditEntry, events::Effects};

/// What is changed of a profile; `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProfileChange {
    pub(crate) name: Option<Name>,
    pub(crate) accent_id: Option<AccentId>,
    pub(crate) assets: Option<Vec<ProfileAsset>>,
    /// An empty one takes the status line away.
    pub(crate) text_status: Option<String>,
    pub(crate) locale: Option<Locale>,
    pub(crate) protocols: Option<Vec<Protocol>>,
}

impl ProfileChange {
    pub(crate) fn is_empty(&self) -> bool {
        self.is_private() && self.locale.is_none()
    }

    /// Whether nothing that others see is changed.
    pub(crate) fn is_private(&self) -> bool {
        self.name.is_none()
            && self.accent_id.is_none()
            && self.assets.is_none()
            && self.text_status.is_none()
            && self.protocols.is_none()
    }
}

/// A code to be used unless one is pending, and the times that go with it.
#[derive(Debug, Clone)]
pub(crate) struct FreshCode {
    pub(crate) code: String,
    pub(crate) now: Timestamp,
    pub(crate) expires: Timestamp,
    pub(crate) mail_expires: Timestamp,
}

/// Why the address of a new account counts as proven, or not.
#[derive(Debug, Clone)]
pub(crate) enum AccountProof {
    /// By the code that was sent there, which is used up.
    Code { key: String, code: String, failures: u32 },
    /// Not yet: a code is mailed.
    Pending { key: String, fresh: FreshCode },
    /// By the administrator's word.
    Administrator,
}

/// What became of a new account.
#[derive(Debug)]
pub(crate) enum Created {
    Account(Box<Account>),
    EmailTaken,
    HandleTaken,
    WrongCode,
}

/// What became of a request for a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CodeRequest {
    /// A mail is on its way.
    Queued,
    /// An activated account has the address.
    EmailTaken,
}

/// Whether a code fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CodeTry {
    Fits,
    Wrong,
}

/// An account whose address has just been proven.
#[derive(Debug, Clone)]
pub(crate) struct Proven {
    pub(crate) account: Account,
    /// Whether it is the first one, so that the account is active from now on.
    pub(crate) first: bool,
}

/// What an activation did.
#[derive(Debug)]
pub(crate) enum Activation {
    /// The address is proven now.
    Now(Box<Proven>),
    /// This code was used before.
    Before,
    /// Another account has proven the address in the meantime.
    EmailTaken,
    /// Wrong, expired, or of no account.
    Wrong,
}

/// What became of a handle.
#[derive(Debug)]
pub(crate) enum HandleOutcome {
    Set(Delivery),
    /// It is the user's already.
    Unchanged,
    Taken,
    NoAccount,
}

/// Keeps accounts.
#[async_trait]
pub(crate) trait AccountStore: Send + Sync {
    /// One account; deleted ones are tombstones.
    async fn get(&self, user: UserId) -> Result<Option<Account>, StoreError>;

    /// Several accounts, in no set order; unknown ones are left out.
    async fn get_many(&self, users: Vec<UserId>) -> Result<Vec<Account>, StoreError>;

    /// The stored hash of the password.
    async fn password(&self, user: UserId) -> Result<Option<String>, StoreError>;

    /// Who has, or waits for, an address.
    async fn by_email(&self, email: &Email) -> Result<Option<UserId>, StoreError>;

    /// Who has a handle.
    async fn by_handle(&self, handle: &Handle) -> Result<Option<UserId>, StoreError>;

    /// Which of the handles somebody has.
    async fn taken_handles(&self, handles: Vec<Handle>) -> Result<Vec<Handle>, StoreError>;

    /// Creates an account. An address belongs to the account that proves it first; one that merely waits for an address
    /// gives way. A wrong code counts as a try.
    async fn create(
        &self,
        account: NewAccount,
        proof: AccountProof,
        audit: AuditEntry,
        now: Timestamp,
    ) -> Result<Created, StoreError>;

    /// Queues a mail with the pending code of an address, or else with the fresh one.
    async fn request_code(&self, key: String, email: Email, fresh: FreshCode) -> Result<CodeRequest, StoreError>;

    /// Tries a code without using it. The code is void after `failures` wrong tries.
    async fn try_code(&self, key: String, code: String, failures: u32, now: Timestamp) -> Result<CodeTry, StoreError>;

    /// Uses a code to prove the address that an account waits for, which takes the place of the one before. A wrong one
    /// counts as a try.
    async fn activate(
        &self,
        key: String,
        code: String,
        failures: u32,
        now: Timestamp,
        effects: Effects<Proven>,
    ) -> Result<Activation, StoreError>;

    /// Changes a profile and raises its version; `None` without such an account. The effects are made from the account
    /// as it is then.
    async fn update(
        &self,
        user: UserId,
        change: ProfileChange,
        effects: Effects<Account>,
    ) -> Result<Option<Delivery>, StoreError>;

    /// Gives a user a handle that nobody else has; the old one is free from then on.
    async fn set_handle(
        &self,
        user: UserId,
        handle: Handle,
        effects: Effects<Account>,
    ) -> Result<HandleOutcome, StoreError>;

    /// Users with a search term that starts with `prefix` (normalised), in order of the term; suspended and deleted
    /// ones are left out, and `except`. At most `limit`.
    async fn search(&self, prefix: String, except: Option<UserId>, limit: usize) -> Result<Vec<Account>, StoreError>;

    /// Removes expired codes, accounts that were created before `unactivated_before` and never activated, and audit
    /// records of before `audit_before`, in short jobs; says how many.
    async fn sweep(
        &self,
        now: Timestamp,
        unactivated_before: Timestamp,
        audit_before: Timestamp,
    ) -> Result<u64, StoreError>;
}
