use aldis_delivery::{Appended, Outbox};
use aldis_storage::{Db, StoreError};
use aldis_types::{Email, Timestamp, UserId};
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};
use subtle::ConstantTimeEq;

use super::{
    CodeHash, CodeProof, Confirmation, Deleted, Deletion, Departed, EmailChange, FreshCode, FreshConfirmation,
    LifecycleStore, PasswordChange, Requested, Secret,
};
use crate::{
    accounts::store::rows as accounts,
    auth::store::forget_sessions,
    connections::store::end_connections,
    lifecycle::hash_of,
    mail::{NewMail, Purpose, store::enqueue},
    sql,
};

/// Passwords, codes and the end of accounts in `SQLite`.
pub(crate) struct SqliteLifecycle {
    db: Db,
    outbox: Outbox,
}

impl SqliteLifecycle {
    pub(crate) fn new(db: Db, outbox: Outbox) -> Self {
        Self { db, outbox }
    }
}

const fn kind(what: Confirmation) -> i64 {
    match what {
        Confirmation::PasswordReset => 1,
        Confirmation::Deletion => 2,
    }
}

const fn purpose(what: Confirmation) -> Purpose {
    match what {
        Confirmation::PasswordReset => Purpose::PasswordReset,
        Confirmation::Deletion => Purpose::Deletion,
    }
}

fn pending(tx: &Connection, user: UserId, what: Confirmation, now: Timestamp) -> rusqlite::Result<Option<Pending>> {
    tx.prepare_cached(
        "SELECT hash, failures, expires FROM users_confirmations WHERE user = ? AND kind = ? AND expires > ?",
    )?
    .query_row(params![user.as_bytes().as_slice(), kind(what), now.millis()], |row| {
        Ok(Pending { hash: row.get(0)?, failures: row.get(1)?, expires: sql::time(row, 2)? })
    })
    .optional()
}

/// A row of `users_confirmations`.
struct Pending {
    hash: CodeHash,
    failures: u32,
    expires: Timestamp,
}

fn forget_code(tx: &Connection, user: UserId, what: Confirmation) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM users_confirmations WHERE user = ? AND kind = ?")?
        .execute(params![user.as_bytes().as_slice(), kind(what)])?;
    Ok(())
}

/// Whether the code fits; a wrong one counts, and the last allowed one makes the code void.
fn fits(
    tx: &Connection,
    user: UserId,
    what: Confirmation,
    proof: &CodeProof,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let Some(pending) = pending(tx, user, what, now)? else { return Ok(false) };
    if bool::from(pending.hash.as_slice().ct_eq(proof.hash.as_slice())) {
        return Ok(true);
    }
    if pending.failures + 1 >= proof.failures {
        forget_code(tx, user, what)?;
    } else {
        tx.prepare_cached("UPDATE users_confirmations SET failures = failures + 1 WHERE user = ? AND kind = ?")?
            .execute(params![user.as_bytes().as_slice(), kind(what)])?;
    }
    Ok(false)
}

fn request(tx: &Connection, fresh: &FreshConfirmation) -> Result<Requested, StoreError> {
    let account = accounts::get(tx, fresh.user)?.filter(|account| !account.deleted);
    if account.and_then(|account| account.email).as_ref() != Some(&fresh.email) {
        return Ok(Requested::NoAccount);
    }
    if fresh.what == Confirmation::Deletion
        && let Some(pending) = pending(tx, fresh.user, fresh.what, fresh.now)?
    {
        return Ok(Requested::Pending(pending.expires));
    }
    tx.prepare_cached(
        "INSERT OR REPLACE INTO users_confirmations (user, kind, hash, failures, expires) VALUES (?, ?, ?, 0, ?)",
    )?
    .execute(params![
        fresh.user.as_bytes().as_slice(),
        kind(fresh.what),
        hash_of(&fresh.code).as_slice(),
        fresh.expires.millis()
    ])?;
    let mail = NewMail {
        recipient: fresh.email.clone(),
        purpose: purpose(fresh.what),
        key: fresh.user.to_string(),
        code: fresh.code.clone(),
        expires: fresh.mail_expires,
    };
    enqueue(tx, &mail, fresh.now)?;
    Ok(Requested::Queued)
}

fn set_password(tx: &Connection, change: &PasswordChange) -> Result<bool, StoreError> {
    let user = change.revocation.user;
    if let Secret::Code(proof) = &change.secret
        && !fits(tx, user, Confirmation::PasswordReset, proof, change.now)?
    {
        return Ok(false);
    }
    let before = match &change.secret {
        Secret::Code(_) => None,
        Secret::NonePresent => Some(None),
        Secret::Checked(hash) => Some(Some(hash)),
    };
    let changed = tx
        .prepare_cached(
            "UPDATE users_accounts SET password = ?2 WHERE id = ?1 AND deleted = 0 AND (?3 OR password IS ?4)",
        )?
        .execute(params![user.as_bytes().as_slice(), change.password, before.is_none(), before.flatten()])?;
    if changed == 0 {
        return Ok(false);
    }
    forget_code(tx, user, Confirmation::PasswordReset)?;
    forget_sessions(tx, &change.revocation)?;
    sql::audit(tx, &change.audit, change.now)?;
    Ok(true)
}

fn change_email(
    tx: &Connection,
    user: UserId,
    key: &str,
    email: &Email,
    fresh: &FreshCode,
) -> Result<EmailChange, StoreError> {
    let Some(account) = accounts::get(tx, user)?.filter(|account| !account.deleted) else {
        return Ok(EmailChange::NoAccount);
    };
    if account.email.as_ref().is_some_and(|own| own.key() == email.key()) {
        accounts::expect_email(tx, &account, None)?;
        return Ok(EmailChange::Unchanged);
    }
    if accounts::email_is_proven(tx, email, Some(user))? {
        return Ok(EmailChange::Taken);
    }
    accounts::expect_email(tx, &account, Some(email))?;
    accounts::put_code(tx, key, email, Some(user), fresh)?;
    accounts::queue_mail(tx, Purpose::Activation, key, email, fresh.code.clone(), fresh)?;
    Ok(EmailChange::Queued)
}

/// As [`Deleted`], before the effects are written.
enum End {
    Done(Departed),
    WrongCode,
    NoAccount,
}

fn delete(tx: &Connection, deletion: &Deletion) -> Result<End, StoreError> {
    let user = deletion.user.id;
    if let Some(proof) = &deletion.proof
        && !fits(tx, user, Confirmation::Deletion, proof, deletion.now)?
    {
        return Ok(End::WrongCode);
    }
    let Some(account) = accounts::get(tx, user)?.filter(|account| !account.deleted) else {
        return Ok(End::NoAccount);
    };
    accounts::bury(tx, &account)?;
    for table in ["users_clients", "users_prekeys", "users_properties", "users_confirmations"] {
        tx.prepare_cached(&format!("DELETE FROM {table} WHERE user = ?"))?.execute([user.as_bytes().as_slice()])?;
    }
    forget_sessions(tx, &deletion.revocation)?;
    let (here, elsewhere) = end_connections(tx, &deletion.user)?;
    sql::audit(tx, &deletion.audit, deletion.now)?;
    Ok(End::Done(Departed { user: deletion.user.clone(), now: deletion.now, here, elsewhere }))
}

#[async_trait]
impl LifecycleStore for SqliteLifecycle {
    async fn request(&self, fresh: FreshConfirmation) -> Result<Requested, StoreError> {
        self.db.write(move |tx| request(tx, &fresh)).await
    }

    async fn try_code(
        &self,
        user: UserId,
        what: Confirmation,
        proof: CodeProof,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.db.write(move |tx| Ok(fits(tx, user, what, &proof, now)?)).await
    }

    async fn set_password(&self, change: PasswordChange) -> Result<bool, StoreError> {
        self.db.write(move |tx| set_password(tx, &change)).await
    }

    async fn change_email(
        &self,
        user: UserId,
        key: String,
        email: Email,
        fresh: FreshCode,
    ) -> Result<EmailChange, StoreError> {
        self.db.write(move |tx| change_email(tx, user, &key, &email, &fresh)).await
    }

    async fn delete(&self, deletion: Deletion) -> Result<Deleted, StoreError> {
        let outbox = self.outbox.traced();
        let (outcome, appended) = self
            .db
            .write(move |tx| {
                let end = delete(tx, &deletion)?;
                let appended = match &end {
                    End::Done(departed) => outbox.append(tx, &(deletion.effects)(departed))?,
                    End::WrongCode | End::NoAccount => Appended::default(),
                };
                Ok((end, appended))
            })
            .await?;
        let delivery = self.outbox.committed(appended);
        Ok(match outcome {
            End::Done(_) => Deleted::Done(delivery),
            End::WrongCode => Deleted::WrongCode,
            End::NoAccount => Deleted::NoAccount,
        })
    }

    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        let step = move |tx: &Connection| {
            Ok(tx
                .prepare_cached(
                    "DELETE FROM users_confirmations WHERE (user, kind) IN \
                     (SELECT user, kind FROM users_confirmations WHERE expires <= ? LIMIT ?)",
                )?
                .execute(params![now.millis(), sql::SWEEP_STEP])?)
        };
        self.db.write_in_turns(step).await
    }
}
