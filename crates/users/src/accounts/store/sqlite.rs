use aldis_delivery::{Appended, Delivery, Outbox};
use aldis_storage::{Db, StoreError};
use aldis_types::{AccentId, Email, Handle, Timestamp, UserId};
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    AccountProof, AccountStore, Activation, CodeRequest, CodeTry, Created, FreshCode, HandleOutcome, ProfileChange,
    Proven,
    sqlite_codes::{code, drop_code, fitting_code, put_code, queue_mail},
    sqlite_ends::replace_email,
};
use crate::{
    accounts::{Account, NewAccount},
    audit::AuditEntry,
    events::Effects,
    mail::Purpose,
    search::terms,
    sql,
};

/// Accounts in `SQLite`.
pub(crate) struct SqliteAccounts {
    db: Db,
    outbox: Outbox,
}

impl SqliteAccounts {
    pub(crate) fn new(db: Db, outbox: Outbox) -> Self {
        Self { db, outbox }
    }
}

/// Columns for [`read_account`].
pub(crate) const ACCOUNT: &str = "id, name, handle, email, unverified_email, locale, accent_id, assets, text_status, protocols, \
                       suspended, deleted, version";

/// Search rows that are looked at for each account wanted.
const SEARCH_ROWS_PER_ACCOUNT: usize = 16;

/// From the columns of [`ACCOUNT`], which come first.
pub(crate) fn read_account(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        id: sql::user_id(row, 0)?,
        name: sql::parsed(row, 1)?,
        handle: sql::parsed_option(row, 2)?,
        email: sql::parsed_option(row, 3)?,
        unverified_email: sql::parsed_option(row, 4)?,
        locale: sql::parsed(row, 5)?,
        accent_id: AccentId(row.get(6)?),
        assets: sql::json(row, 7)?,
        text_status: row.get(8)?,
        protocols: sql::json(row, 9)?,
        suspended: row.get(10)?,
        deleted: row.get(11)?,
        version: row.get::<_, i64>(12)?.cast_unsigned(),
    })
}

pub(crate) fn get(tx: &Connection, user: UserId) -> rusqlite::Result<Option<Account>> {
    tx.prepare_cached(&format!("SELECT {ACCOUNT} FROM users_accounts WHERE id = ?"))?
        .query_row([user.as_bytes().as_slice()], read_account)
        .optional()
}

fn owner(tx: &Connection, table: &str, column: &str, key: &str) -> rusqlite::Result<Option<UserId>> {
    tx.prepare_cached(&format!("SELECT user FROM {table} WHERE {column} = ?"))?
        .query_row([key], |row| sql::user_id(row, 0))
        .optional()
}

fn email_owner(tx: &Connection, email: &Email) -> rusqlite::Result<Option<UserId>> {
    owner(tx, "users_emails", "email", &email.key())
}

fn handle_owner(tx: &Connection, handle: &Handle) -> rusqlite::Result<Option<UserId>> {
    owner(tx, "users_handles", "handle", handle.as_str())
}

/// Whether an activated account other than `except` has the address.
pub(crate) fn email_is_proven(tx: &Connection, email: &Email, except: Option<UserId>) -> rusqlite::Result<bool> {
    let Some(user) = email_owner(tx, email)?.filter(|user| Some(*user) != except) else { return Ok(false) };
    Ok(get(tx, user)?.is_some_and(|account| account.is_activated()))
}

pub(super) fn claim_email(tx: &Connection, email: &Email, user: UserId) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT OR REPLACE INTO users_emails (email, user) VALUES (?, ?)")?
        .execute(params![email.key(), user.as_bytes().as_slice()])?;
    Ok(())
}

pub(super) fn set_terms(tx: &Connection, account: &Account, findable: bool) -> rusqlite::Result<()> {
    let statement = if findable {
        "INSERT OR IGNORE INTO users_search (term, user) VALUES (?, ?)"
    } else {
        "DELETE FROM users_search WHERE term = ? AND user = ?"
    };
    let mut statement = tx.prepare_cached(statement)?;
    for term in terms(account.name.as_str(), account.handle.as_ref().map(Handle::as_str)) {
        statement.execute(params![term, account.id.as_bytes().as_slice()])?;
    }
    Ok(())
}

fn insert(tx: &Connection, new: &NewAccount, proven: bool, now: Timestamp) -> rusqlite::Result<()> {
    let email = new.email.as_str();
    tx.prepare_cached(
        "INSERT INTO users_accounts (id, name, handle, email, unverified_email, password, locale, accent_id, assets, \
         text_status, protocols, suspended, deleted, version, created) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?, 0, 0, 1, ?)",
    )?
    .execute(params![
        new.id.as_bytes().as_slice(),
        new.name.as_str(),
        new.handle.as_ref().map(Handle::as_str),
        proven.then_some(email),
        (!proven).then_some(email),
        new.password,
        new.locale.as_str(),
        new.accent_id.0,
        sql::to_json(&new.assets)?,
        sql::to_json(&new.protocols)?,
        now.millis()
    ])?;
    Ok(())
}

fn create(
    tx: &Connection,
    new: &NewAccount,
    proof: &AccountProof,
    audit: &AuditEntry,
    now: Timestamp,
) -> Result<Created, StoreError> {
    if let AccountProof::Code { key, code, failures } = proof {
        if fitting_code(tx, key, code, *failures, now)?.is_none_or(|found| found.used) {
            return Ok(Created::WrongCode);
        }
        drop_code(tx, key)?;
    }
    if email_is_proven(tx, &new.email, None)? {
        return Ok(Created::EmailTaken);
    }
    if let Some(handle) = &new.handle {
        if handle_owner(tx, handle)?.is_some() {
            return Ok(Created::HandleTaken);
        }
        tx.prepare_cached("INSERT INTO users_handles (handle, user) VALUES (?, ?)")?
            .execute(params![handle.as_str(), new.id.as_bytes().as_slice()])?;
    }
    let pending = match proof {
        AccountProof::Pending { key, fresh } => Some((key, fresh)),
        AccountProof::Code { .. } | AccountProof::Administrator => None,
    };
    insert(tx, new, pending.is_none(), now)?;
    claim_email(tx, &new.email, new.id)?;
    if let Some((key, fresh)) = pending {
        put_code(tx, key, &new.email, Some(new.id), fresh)?;
        queue_mail(tx, Purpose::Activation, key, &new.email, fresh.code.clone(), fresh)?;
    }
    sql::audit(tx, audit, now)?;
    let account = get(tx, new.id)?.ok_or(StoreError::Corrupt("users_accounts"))?;
    set_terms(tx, &account, true)?;
    Ok(Created::Account(Box::new(account)))
}

fn request_code(tx: &Connection, key: &str, email: &Email, fresh: &FreshCode) -> Result<CodeRequest, StoreError> {
    if email_is_proven(tx, email, None)? {
        return Ok(CodeRequest::EmailTaken);
    }
    let pending = code(tx, key, fresh.now)?.filter(|pending| !pending.used);
    let (code, user) = match pending {
        Some(pending) => (pending.digits, pending.user),
        None => {
            // An account may still wait for this address though its code has expired.
            let waiting = email_owner(tx, email)?;
            put_code(tx, key, email, waiting, fresh)?;
            (fresh.code.clone(), waiting)
        }
    };
    let purpose = if user.is_some() { Purpose::Activation } else { Purpose::Verification };
    queue_mail(tx, purpose, key, email, code, fresh)?;
    Ok(CodeRequest::Queued)
}

/// As [`Activation`], before the effects are written.
fn activate(tx: &Connection, key: &str, given: &str, failures: u32, now: Timestamp) -> Result<Activation, StoreError> {
    let Some(found) = fitting_code(tx, key, given, failures, now)? else { return Ok(Activation::Wrong) };
    if found.used {
        return Ok(Activation::Before);
    }
    let Some(user) = found.user else { return Ok(Activation::Wrong) };
    let Some(before) = get(tx, user)?.filter(|account| !account.deleted) else { return Ok(Activation::Wrong) };
    if before.unverified_email.as_ref().map(Email::key) != Some(found.email.key()) {
        return Ok(Activation::Wrong);
    }
    if email_is_proven(tx, &found.email, Some(user))? {
        return Ok(Activation::EmailTaken);
    }
    if let Some(old) = &before.email {
        replace_email(tx, &before, old)?;
    }
    tx.prepare_cached(
        "UPDATE users_accounts SET email = ?2, unverified_email = NULL, version = version + 1 WHERE id = ?1",
    )?
    .execute(params![user.as_bytes().as_slice(), found.email.as_str()])?;
    claim_email(tx, &found.email, user)?;
    tx.prepare_cached("UPDATE users_codes SET used = 1 WHERE key = ?")?.execute([key])?;
    let first = before.email.is_none();
    let action = if first { "account-activated" } else { "email-changed" };
    sql::audit(tx, &AuditEntry::new("client", action, user), now)?;
    let account = get(tx, user)?.ok_or(StoreError::Corrupt("users_accounts"))?;
    Ok(Activation::Now(Box::new(Proven { account, first })))
}

fn update(tx: &Connection, user: UserId, change: &ProfileChange) -> Result<bool, StoreError> {
    let Some(before) = get(tx, user)?.filter(|account| !account.deleted) else { return Ok(false) };
    let mut after = before.clone();
    if let Some(name) = &change.name {
        after.name = name.clone();
        set_terms(tx, &before, false)?;
        set_terms(tx, &after, true)?;
    }
    let status = change.text_status.as_ref().or(before.text_status.as_ref()).filter(|text| !text.is_empty());
    tx.prepare_cached(
        "UPDATE users_accounts SET name = ?2, accent_id = ?3, assets = ?4, text_status = ?5, locale = ?6, \
         protocols = ?7, version = version + 1 WHERE id = ?1",
    )?
    .execute(params![
        user.as_bytes().as_slice(),
        after.name.as_str(),
        change.accent_id.unwrap_or(before.accent_id).0,
        sql::to_json(change.assets.as_ref().unwrap_or(&before.assets))?,
        status,
        change.locale.as_ref().unwrap_or(&before.locale).as_str(),
        sql::to_json(change.protocols.as_ref().unwrap_or(&before.protocols))?,
    ])?;
    Ok(true)
}

/// Writes the effects of a change that was made to an account.
fn append_about(
    tx: &Connection,
    outbox: &Outbox,
    user: UserId,
    effects: &Effects<Account>,
) -> Result<Appended, StoreError> {
    let account = get(tx, user)?.ok_or(StoreError::Corrupt("users_accounts"))?;
    outbox.append(tx, &effects(&account))
}

/// The outcome, with [`Delivery`] still to be made.
enum SetHandle {
    Set,
    Unchanged,
    Taken,
    NoAccount,
}

fn set_handle(tx: &Connection, user: UserId, handle: &Handle) -> Result<SetHandle, StoreError> {
    let Some(before) = get(tx, user)?.filter(|account| !account.deleted) else { return Ok(SetHandle::NoAccount) };
    match handle_owner(tx, handle)? {
        Some(owner) if owner == user => return Ok(SetHandle::Unchanged),
        Some(_) => return Ok(SetHandle::Taken),
        None => {}
    }
    if let Some(old) = &before.handle {
        tx.prepare_cached("DELETE FROM users_handles WHERE handle = ?")?.execute([old.as_str()])?;
    }
    tx.prepare_cached("INSERT INTO users_handles (handle, user) VALUES (?, ?)")?
        .execute(params![handle.as_str(), user.as_bytes().as_slice()])?;
    tx.prepare_cached("UPDATE users_accounts SET handle = ?2, version = version + 1 WHERE id = ?1")?
        .execute(params![user.as_bytes().as_slice(), handle.as_str()])?;
    set_terms(tx, &before, false)?;
    set_terms(tx, &Account { handle: Some(handle.clone()), ..before }, true)?;
    Ok(SetHandle::Set)
}

fn search(tx: &Connection, prefix: &str, except: Option<UserId>, limit: usize) -> Result<Vec<Account>, StoreError> {
    let end = format!("{prefix}\u{10ffff}");
    let mut query =
        tx.prepare_cached("SELECT user FROM users_search WHERE term >= ? AND term < ? ORDER BY term, user LIMIT ?")?;
    let rows = limit.saturating_mul(SEARCH_ROWS_PER_ACCOUNT);
    let mut rows = query.query(params![prefix, end, sql::rows(rows)])?;
    let mut found: Vec<Account> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    while let Some(row) = rows.next()? {
        let user = sql::user_id(row, 0)?;
        if Some(user) == except || !seen.insert(user) {
            continue;
        }
        found.extend(get(tx, user)?.filter(|account| !account.deleted && !account.suspended));
        if found.len() >= limit {
            break;
        }
    }
    Ok(found)
}

/// Removes an account that was never activated, with everything that belongs to it. One at a time: there may be
/// hundreds of prekeys.
fn remove_unactivated(tx: &Connection, before: Timestamp) -> Result<usize, StoreError> {
    let account = tx
        .prepare_cached(&format!(
            "SELECT {ACCOUNT} FROM users_accounts WHERE email IS NULL AND deleted = 0 AND created < ? LIMIT 1"
        ))?
        .query_row([before.millis()], read_account)
        .optional()?;
    if let Some(account) = &account {
        let user = account.id.as_bytes().as_slice();
        set_terms(tx, account, false)?;
        if let Some(email) = &account.unverified_email {
            tx.prepare_cached("DELETE FROM users_emails WHERE email = ? AND user = ?")?
                .execute(params![email.key(), user])?;
        }
        for table in ["users_cookies", "users_clients", "users_prekeys", "users_properties", "users_confirmations"] {
            tx.prepare_cached(&format!("DELETE FROM {table} WHERE user = ?"))?.execute([user])?;
        }
        tx.prepare_cached("DELETE FROM users_accounts WHERE id = ?")?.execute([user])?;
    }
    Ok(usize::from(account.is_some()))
}

#[async_trait]
impl AccountStore for SqliteAccounts {
    async fn get(&self, user: UserId) -> Result<Option<Account>, StoreError> {
        self.db.read(move |tx| Ok(get(tx, user)?)).await
    }

    async fn get_many(&self, users: Vec<UserId>) -> Result<Vec<Account>, StoreError> {
        self.db
            .read(move |tx| {
                let found = users.into_iter().map(|user| get(tx, user)).collect::<Result<Vec<_>, _>>()?;
                Ok(found.into_iter().flatten().collect())
            })
            .await
    }

    async fn password(&self, user: UserId) -> Result<Option<String>, StoreError> {
        self.db
            .read(move |tx| {
                let found = tx
                    .prepare_cached("SELECT password FROM users_accounts WHERE id = ? AND deleted = 0")?
                    .query_row([user.as_bytes().as_slice()], |row| row.get(0))
                    .optional()?;
                Ok(found.flatten())
            })
            .await
    }

    async fn by_email(&self, email: &Email) -> Result<Option<UserId>, StoreError> {
        let email = email.clone();
        self.db.read(move |tx| Ok(email_owner(tx, &email)?)).await
    }

    async fn by_handle(&self, handle: &Handle) -> Result<Option<UserId>, StoreError> {
        let handle = handle.clone();
        self.db.read(move |tx| Ok(handle_owner(tx, &handle)?)).await
    }

    async fn taken_handles(&self, handles: Vec<Handle>) -> Result<Vec<Handle>, StoreError> {
        self.db
            .read(move |tx| {
                let mut taken = Vec::new();
                for handle in handles {
                    if handle_owner(tx, &handle)?.is_some() {
                        taken.push(handle);
                    }
                }
                Ok(taken)
            })
            .await
    }

    async fn create(
        &self,
        account: NewAccount,
        proof: AccountProof,
        audit: AuditEntry,
        now: Timestamp,
    ) -> Result<Created, StoreError> {
        self.db.write(move |tx| create(tx, &account, &proof, &audit, now)).await
    }

    async fn request_code(&self, key: String, email: Email, fresh: FreshCode) -> Result<CodeRequest, StoreError> {
        self.db.write(move |tx| request_code(tx, &key, &email, &fresh)).await
    }

    async fn try_code(&self, key: String, code: String, failures: u32, now: Timestamp) -> Result<CodeTry, StoreError> {
        self.db
            .write(move |tx| {
                let fits = fitting_code(tx, &key, &code, failures, now)?.is_some_and(|found| !found.used);
                Ok(if fits { CodeTry::Fits } else { CodeTry::Wrong })
            })
            .await
    }

    async fn activate(
        &self,
        key: String,
        code: String,
        failures: u32,
        now: Timestamp,
        effects: Effects<Proven>,
    ) -> Result<Activation, StoreError> {
        let outbox = self.outbox.traced();
        let (outcome, appended) = self
            .db
            .write(move |tx| {
                let outcome = activate(tx, &key, &code, failures, now)?;
                let appended = match &outcome {
                    Activation::Now(proven) => outbox.append(tx, &effects(proven))?,
                    _ => Appended::default(),
                };
                Ok((outcome, appended))
            })
            .await?;
        self.outbox.committed(appended);
        Ok(outcome)
    }

    async fn update(
        &self,
        user: UserId,
        change: ProfileChange,
        effects: Effects<Account>,
    ) -> Result<Option<Delivery>, StoreError> {
        let outbox = self.outbox.traced();
        let appended = self
            .db
            .write(move |tx| {
                if update(tx, user, &change)? { append_about(tx, &outbox, user, &effects).map(Some) } else { Ok(None) }
            })
            .await?;
        Ok(appended.map(|appended| self.outbox.committed(appended)))
    }

    async fn set_handle(
        &self,
        user: UserId,
        handle: Handle,
        effects: Effects<Account>,
    ) -> Result<HandleOutcome, StoreError> {
        let outbox = self.outbox.traced();
        let (outcome, appended) = self
            .db
            .write(move |tx| {
                let outcome = set_handle(tx, user, &handle)?;
                let appended = match outcome {
                    SetHandle::Set => append_about(tx, &outbox, user, &effects)?,
                    _ => Appended::default(),
                };
                Ok((outcome, appended))
            })
            .await?;
        let delivery = self.outbox.committed(appended);
        Ok(match outcome {
            SetHandle::Set => HandleOutcome::Set(delivery),
            SetHandle::Unchanged => HandleOutcome::Unchanged,
            SetHandle::Taken => HandleOutcome::Taken,
            SetHandle::NoAccount => HandleOutcome::NoAccount,
        })
    }

    async fn search(&self, prefix: String, except: Option<UserId>, limit: usize) -> Result<Vec<Account>, StoreError> {
        self.db.read(move |tx| search(tx, &prefix, except, limit)).await
    }

    async fn sweep(
        &self,
        now: Timestamp,
        unactivated_before: Timestamp,
        audit_before: Timestamp,
    ) -> Result<u64, StoreError> {
        let step = move |tx: &Connection| {
            let codes = tx
                .prepare_cached(
                    "DELETE FROM users_codes WHERE key IN (SELECT key FROM users_codes WHERE expires <= ? LIMIT ?)",
                )?
                .execute(params![now.millis(), sql::SWEEP_STEP])?;
            let audit = tx
                .prepare_cached(
                    "DELETE FROM users_audit WHERE time < ?1 AND id IN \
                     (SELECT id FROM users_audit ORDER BY id LIMIT ?2)",
                )?
                .execute(params![audit_before.millis(), sql::SWEEP_STEP])?;
            Ok(codes + audit + remove_unactivated(tx, unactivated_before)?)
        };
        self.db.write_in_turns(step).await
    }
}
