//! What becomes of the addresses and names of an account in `SQLite`, for the jobs of other capabilities.

use aldis_types::{Email, Handle};
use rusqlite::{Connection, params};

use super::{
    sqlite::{claim_email, set_terms},
    sqlite_codes::drop_code,
};
use crate::accounts::{Account, activation::activation_key};

/// Takes an address from an account: its row and its pending code.
fn release_email(tx: &Connection, account: &Account, email: &Email) -> rusqlite::Result<()> {
    let user = account.id.as_bytes().as_slice();
    tx.prepare_cached("DELETE FROM users_emails WHERE email = ? AND user = ?")?.execute(params![email.key(), user])?;
    tx.prepare_cached("DELETE FROM users_codes WHERE key = ? AND user = ?")?
        .execute(params![activation_key(email), user])?;
    Ok(())
}

/// Notes the address that the account is to prove next; codes for an earlier one are void.
pub(crate) fn expect_email(tx: &Connection, account: &Account, email: Option<&Email>) -> rusqlite::Result<()> {
    if let Some(before) = &account.unverified_email {
        release_email(tx, account, before)?;
    }
    tx.prepare_cached("UPDATE users_accounts SET unverified_email = ?2 WHERE id = ?1")?
        .execute(params![account.id.as_bytes().as_slice(), email.map(Email::as_str)])?;
    match email {
        // Somebody who has no address yet is found by the one that he waits for.
        Some(email) if account.email.is_none() => claim_email(tx, email, account.id),
        _ => Ok(()),
    }
}

/// Gives up an address that another one has taken the place of. What was mailed there is void.
pub(super) fn replace_email(tx: &Connection, account: &Account, email: &Email) -> rusqlite::Result<()> {
    release_email(tx, account, email)?;
    tx.prepare_cached("DELETE FROM users_confirmations WHERE user = ?")?.execute([account.id.as_bytes().as_slice()])?;
    Ok(())
}

/// Makes a tombstone of an account: nothing stays but its id. Handle and address are free from then on.
pub(crate) fn bury(tx: &Connection, account: &Account) -> rusqlite::Result<()> {
    set_terms(tx, account, false)?;
    if let Some(handle) = account.handle.as_ref().map(Handle::as_str) {
        tx.prepare_cached("DELETE FROM users_handles WHERE handle = ?")?.execute([handle])?;
    }
    for email in account.email.iter().chain(&account.unverified_email) {
        release_email(tx, account, email)?;
        drop_code(tx, &activation_key(email))?;
    }
    tx.prepare_cached(
        "UPDATE users_accounts SET name = 'default', handle = NULL, email = NULL, unverified_email = NULL, \
         password = NULL, locale = 'en', accent_id = 0, assets = '[]', text_status = NULL, deleted = 1, \
         version = version + 1 WHERE id = ?",
    )?
    .execute([account.id.as_bytes().as_slice()])?;
    Ok(())
}
