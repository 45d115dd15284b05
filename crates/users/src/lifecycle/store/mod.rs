//! Passwords, codes and the end of accounts.

mod sqlite;
#[cfg(test)]
pub(crate) mod suite;

use std::collections::BTreeSet;

use aldis_delivery::Delivery;
use aldis_storage::StoreError;
use aldis_types::{Domain, Email, Qualified, Timestamp, UserId};
use async_trait::async_trait;
pub(crate) use sqlite::SqliteLifecycle;

use crate::{
    accounts::store::FreshCode, audit::AuditEntry, auth::store::Revocation, connections::store::OtherSide,
    events::Effects,
};

/// SHA-256 of a code.
pub(crate) type CodeHash = [u8; 32];

/// What a code from a mail confirms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Confirmation {
    PasswordReset,
    Deletion,
}

/// A new code, and the mail that brings it.
#[derive(Clone)]
pub(crate) struct FreshConfirmation {
    pub(crate) user: UserId,
    pub(crate) what: Confirmation,
    pub(crate) email: Email,
    pub(crate) code: String,
    pub(crate) now: Timestamp,
    pub(crate) expires: Timestamp,
    pub(crate) mail_expires: Timestamp,
}

/// What became of a request for a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Requested {
    /// A mail is on its way.
    Queued,
    /// A deletion waits for its confirmation already, until then.
    Pending(Timestamp),
    /// The account is gone, or no longer has the address.
    NoAccount,
}

/// A code that somebody shows.
#[derive(Clone, Copy)]
pub(crate) struct CodeProof {
    pub(crate) hash: CodeHash,
    /// After so many wrong ones the code is void.
    pub(crate) failures: u32,
}

/// Why a password may be changed; checked once more in the step that changes it.
#[derive(Clone)]
pub(crate) enum Secret {
    /// There is none yet.
    NonePresent,
    /// The stored hash of the password that was given.
    Checked(String),
    /// A code for a new password, which is used up.
    Code(CodeProof),
}

/// A new password.
#[derive(Clone)]
pub(crate) struct PasswordChange {
    pub(crate) secret: Secret,
    /// The hash to store.
    pub(crate) password: String,
    /// The sessions that end; names the account.
    pub(crate) revocation: Revocation,
    pub(crate) audit: AuditEntry,
    pub(crate) now: Timestamp,
}

/// What became of a change of address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EmailChange {
    /// A mail is on its way; until the code comes back nothing changes.
    Queued,
    /// It is the proven address already; a change under way is forgotten.
    Unchanged,
    /// Somebody else has proven the address.
    Taken,
    NoAccount,
}

/// The end of an account.
#[derive(Clone)]
pub(crate) struct Deletion {
    pub(crate) user: Qualified<UserId>,
    /// The code without which nothing is deleted.
    pub(crate) proof: Option<CodeProof>,
    pub(crate) revocation: Revocation,
    pub(crate) audit: AuditEntry,
    pub(crate) now: Timestamp,
    pub(crate) effects: Effects<Departed>,
}

/// Whom the end of an account concerns.
#[derive(Debug, Clone)]
pub(crate) struct Departed {
    pub(crate) user: Qualified<UserId>,
    pub(crate) now: Timestamp,
    /// How others here stood to the user.
    pub(crate) here: Vec<OtherSide>,
    /// Other backends with users to whom there was a connection.
    pub(crate) elsewhere: BTreeSet<Domain>,
}

/// What became of a deletion.
#[derive(Debug)]
pub(crate) enum Deleted {
    Done(Delivery),
    WrongCode,
    NoAccount,
}

/// Changes accounts after they were made.
#[async_trait]
pub(crate) trait LifecycleStore: Send + Sync {
    /// Stores a code and queues its mail, for an account that is not deleted and has the address. A code for a new
    /// password takes the place of the one before; one for a deletion is refused while another is pending.
    async fn request(&self, fresh: FreshConfirmation) -> Result<Requested, StoreError>;

    /// Whether a code fits, without using it. A wrong one counts as a try.
    async fn try_code(
        &self,
        user: UserId,
        what: Confirmation,
        proof: CodeProof,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Stores a password and ends the sessions that the revocation names; pending codes for a new password are void.
    /// `false`, and nothing is changed, when the secret does not hold; a wrong code counts as a try.
    async fn set_password(&self, change: PasswordChange) -> Result<bool, StoreError>;

    /// Notes an address that is still to be proven, in place of an earlier one, and queues the mail with its code.
    async fn change_email(
        &self,
        user: UserId,
        key: String,
        email: Email,
        fresh: FreshCode,
    ) -> Result<EmailChange, StoreError>;

    /// Makes a tombstone of an account: name, address, handle, password, clients, prekeys, sessions, properties, codes
    /// and connections go, its handle and address are free. A wrong code counts as a try.
    async fn delete(&self, deletion: Deletion) -> Result<Deleted, StoreError>;

    /// Removes expired codes, in short jobs; says how many.
    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError>;
}
