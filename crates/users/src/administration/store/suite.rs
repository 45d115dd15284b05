//! What every engine must do.

use aldis_types::{Timestamp, UserId};
use uuid::Uuid;

use super::{AccountState, AdminStore, Changed};
use crate::{
    audit::AuditEntry,
    auth::store::{AuthStore, CookieRow, Revocation, Revoked},
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn user(number: u128) -> UserId {
    UserId::new(Uuid::from_u128(number))
}

fn audit(action: &'static str, user: UserId) -> AuditEntry {
    AuditEntry::new("admin", action, user)
}

/// The accounts 1, 2 and 3 are there, created in that order; 1 and 3 are activated.
pub(crate) async fn all(store: &dyn AdminStore, auth: &dyn AuthStore) {
    accounts_are_paged_by_their_ids(store).await;
    a_suspension_revokes_tokens_and_keeps_cookies(store, auth).await;
    a_new_password_ends_every_session(store, auth).await;
    records_are_paged_from_the_newest(store).await;
}

async fn ids(store: &dyn AdminStore, after: Option<u128>, state: Option<AccountState>, limit: usize) -> Vec<UserId> {
    let found = store.page(after.map(user), state, limit).await.unwrap();
    found.into_iter().map(|record| record.account.id).collect()
}

async fn accounts_are_paged_by_their_ids(store: &dyn AdminStore) {
    assert_eq!(ids(store, None, None, 2).await, [user(1), user(2)]);
    assert_eq!(ids(store, Some(2), None, 2).await, [user(3)]);
    assert_eq!(ids(store, None, Some(AccountState::Active), 9).await, [user(1), user(3)]);
    assert_eq!(ids(store, None, Some(AccountState::Pending), 9).await, [user(2)]);
    assert!(ids(store, None, Some(AccountState::Deleted), 9).await.is_empty());
    let found = store.get(user(2)).await.unwrap().unwrap();
    assert_eq!((found.state(), found.created), (AccountState::Pending, at(1)));
    assert!(store.get(user(9)).await.unwrap().is_none());
}

fn cookie(id: u32) -> CookieRow {
    let (created, expires) = (at(1), at(1000));
    CookieRow { id, family: id, session: false, created, expires, label: None, successor: None, client: None }
}

async fn a_suspension_revokes_tokens_and_keeps_cookies(store: &dyn AdminStore, auth: &dyn AuthStore) {
    auth.add_cookie(user(1), cookie(1), 32, None).await.unwrap();
    let revocation = Revocation { user: user(1), what: Revoked::EVERYTHING, expires: at(100) };
    let suspend = |number| store.suspend(user(number), revocation, audit("account-suspended", user(number)), at(2));
    assert_eq!(suspend(1).await.unwrap(), Changed::Done);
    assert_eq!(suspend(1).await.unwrap(), Changed::Unchanged);
    assert_eq!(suspend(9).await.unwrap(), Changed::NotFound);
    assert_eq!(auth.revocations(at(99)).await.unwrap(), [revocation]);
    assert_eq!(auth.cookies(user(1), at(3)).await.unwrap().len(), 1);
    assert_eq!(ids(store, None, Some(AccountState::Suspended), 9).await, [user(1)]);
    let resume = || store.resume(user(1), audit("account-resumed", user(1)), at(4));
    assert_eq!((resume().await.unwrap(), resume().await.unwrap()), (Changed::Done, Changed::Unchanged));
    assert_eq!(store.get(user(1)).await.unwrap().unwrap().state(), AccountState::Active);
    assert_eq!(store.records(None, None, 9).await.unwrap().len(), 2, "what changes nothing leaves no record");
}

async fn a_new_password_ends_every_session(store: &dyn AdminStore, auth: &dyn AuthStore) {
    auth.add_cookie(user(3), cookie(2), 32, None).await.unwrap();
    auth.end_family(user(3), 99, at(300)).await.unwrap();
    let revocation = Revocation { user: user(3), what: Revoked::EVERYTHING, expires: at(300) };
    let set = |number, at| {
        store.set_password(user(number), "a hash".to_owned(), revocation, audit("password-reset", user(number)), at)
    };
    assert_eq!(set(3, at(5)).await.unwrap(), Changed::Done);
    assert_eq!(set(9, at(5)).await.unwrap(), Changed::NotFound);
    assert!(auth.cookies(user(3), at(6)).await.unwrap().is_empty());
    assert_eq!(auth.cookies(user(1), at(6)).await.unwrap().len(), 1);
    assert_eq!(auth.revocations(at(200)).await.unwrap().len(), 2);
}

async fn records_are_paged_from_the_newest(store: &dyn AdminStore) {
    store.record(audit("key", user(7)).refused("too-many").detail("more"), at(7)).await.unwrap();
    let all = store.records(None, None, 9).await.unwrap();
    let actions: Vec<_> = all.iter().map(|record| record.action.as_str()).collect();
    assert_eq!(actions, ["key", "password-reset", "account-resumed", "account-suspended"]);
    let first = &all[0];
    assert_eq!((first.time, first.outcome.as_str(), first.detail.as_str()), (at(7), "too-many", "more"));
    assert_eq!(store.records(Some(all[1].number), None, 1).await.unwrap(), [all[2].clone()]);
    assert_eq!(store.records(None, Some(user(1).to_string()), 9).await.unwrap(), all[2..]);
    assert!(store.records(None, Some("nobody".to_owned()), 9).await.unwrap().is_empty());
}
