//! Creating accounts.

use aldis_types::{AccentId, Email, Handle, Name, ProfileAsset, Protocol, UserId};

use super::{
    Account, AccountError, Accounts, Locale,
    activation::activation_key,
    store::{AccountProof, Created},
};
use crate::{
    audit::{Administrator, AuditEntry},
    auth::passwords::Password,
    detached::detached,
};

/// What somebody who registers says.
#[derive(Debug, Clone)]
pub(crate) struct Registrant {
    pub(crate) name: Name,
    pub(crate) email: Email,
    /// Proves the address; without it the account waits for activation.
    pub(crate) email_code: Option<String>,
    pub(crate) password: Password,
    pub(crate) locale: Locale,
    pub(crate) accent_id: AccentId,
    pub(crate) assets: Vec<ProfileAsset>,
    pub(crate) protocols: Vec<Protocol>,
}

/// An account to be created; `email` is proven or not by the [`AccountProof`] that goes with it.
#[derive(Debug, Clone)]
pub(crate) struct NewAccount {
    pub(crate) id: UserId,
    pub(crate) name: Name,
    pub(crate) handle: Option<Handle>,
    pub(crate) email: Email,
    pub(crate) password: String,
    pub(crate) locale: Locale,
    pub(crate) accent_id: AccentId,
    pub(crate) assets: Vec<ProfileAsset>,
    pub(crate) protocols: Vec<Protocol>,
}

impl Accounts {
    /// Registers through the client API, by the setting for who may.
    pub(crate) async fn register(&self, registrant: Registrant) -> Result<Account, AccountError> {
        self.may_register(&registrant.email)?;
        if !registrant.password.may_be_set() {
            return Err(AccountError::Invalid("A password has at least 8 characters"));
        }
        let proof = match registrant.email_code {
            Some(code) => {
                let key = activation_key(&registrant.email);
                // Before the costly hash, so that guessing codes costs us nothing.
                self.try_code(key.clone(), code.clone()).await?;
                AccountProof::Code { key, code, failures: self.config.limits.code_failures }
            }
            None => {
                self.count_mail(&registrant.email).await?;
                let (key, fresh) = self.pending_code(&registrant.email);
                AccountProof::Pending { key, fresh }
            }
        };
        let account = NewAccount {
            id: self.new_id(),
            name: registrant.name,
            handle: None,
            email: registrant.email,
            password: self.parts.auth.passwords().hash(registrant.password).await?,
            locale: registrant.locale,
            accent_id: registrant.accent_id,
            assets: registrant.assets,
            protocols: registrant.protocols,
        };
        let audit = AuditEntry::new("client", "account-created", account.id);
        self.create(account, proof, audit).await
    }

    /// Creates an activated account for the administrator, whatever the setting for registration.
    pub(crate) async fn create_by_admin(
        &self,
        by: &Administrator,
        email: Email,
        password: Password,
        name: Name,
        handle: Option<Handle>,
    ) -> Result<Account, AccountError> {
        if !password.may_be_set() {
            return Err(AccountError::Invalid("a password has at least 8 characters"));
        }
        let account = NewAccount {
            id: self.new_id(),
            name,
            handle,
            email,
            password: self.parts.auth.passwords().hash(password).await?,
            locale: Locale::default(),
            accent_id: AccentId::default(),
            assets: Vec::new(),
            protocols: vec![Protocol::Proteus],
        };
        let audit = by.does("account-created", account.id);
        self.create(account, AccountProof::Administrator, audit).await
    }

    async fn create(
        &self,
        account: NewAccount,
        proof: AccountProof,
        audit: AuditEntry,
    ) -> Result<Account, AccountError> {
        let now = self.parts.clock.now();
        let (store, mail) = (self.parts.store.clone(), self.parts.mail.clone());
        detached(async move {
            match store.create(account, proof, audit, now).await? {
                Created::Account(account) => {
                    mail.notify_one();
                    Ok(*account)
                }
                Created::EmailTaken => Err(AccountError::EmailTaken),
                Created::HandleTaken => Err(AccountError::HandleTaken),
                Created::WrongCode => Err(AccountError::InvalidCode),
            }
        })
        .await
    }
}
