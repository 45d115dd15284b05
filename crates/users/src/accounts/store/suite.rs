//! What every engine must do.

use std::{sync::Arc, time::Duration};

use aldis_types::{AccentId, Email, Handle, Protocol, Timestamp, UserId};
use uuid::Uuid;

use super::{
    AccountProof, AccountStore, Activation, CodeRequest, CodeTry, Created, FreshCode, HandleOutcome, ProfileChange,
    Proven,
};
use crate::{
    accounts::{Account, Locale, NewAccount},
    audit::AuditEntry,
    events::Effects,
};

fn user(number: u128) -> UserId {
    UserId::new(Uuid::from_u128(number))
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn fresh(code: &str, now: i64) -> FreshCode {
    FreshCode { code: code.to_owned(), now: at(now), expires: at(now + 100), mail_expires: at(now + 100) }
}

fn new(number: u128, name: &str, email: &str) -> NewAccount {
    NewAccount {
        id: user(number),
        name: name.parse().unwrap(),
        handle: None,
        email: email.parse().unwrap(),
        password: "a hash".to_owned(),
        locale: Locale::default(),
        accent_id: AccentId(1),
        assets: Vec::new(),
        protocols: vec![Protocol::Proteus],
    }
}

async fn create(store: &dyn AccountStore, account: NewAccount, proof: AccountProof, now: i64) -> Created {
    store.create(account, proof, AuditEntry::new("admin", "account-created", "x"), at(now)).await.unwrap()
}

fn code(key: &str, code: &str) -> AccountProof {
    AccountProof::Code { key: key.to_owned(), code: code.to_owned(), failures: 3 }
}

fn pending(key: &str, code: &str, now: i64) -> AccountProof {
    AccountProof::Pending { key: key.to_owned(), fresh: fresh(code, now) }
}

async fn activate(store: &dyn AccountStore, key: &str, code: &str, now: i64) -> Activation {
    let effects = Arc::new(|_: &Proven| Vec::new());
    store.activate(key.to_owned(), code.to_owned(), 3, at(now), effects).await.unwrap()
}

fn nothing() -> Effects<Account> {
    Arc::new(|_| Vec::new())
}

async fn try_code(store: &dyn AccountStore, key: &str, code: &str, now: i64) -> CodeTry {
    store.try_code(key.to_owned(), code.to_owned(), 3, at(now)).await.unwrap()
}

pub(crate) async fn all(store: &dyn AccountStore) {
    a_code_is_kept_until_it_is_used_guessed_at_or_expired(store).await;
    an_address_is_proven_once(store).await;
    a_handle_has_one_owner(store).await;
    profiles_change_and_versions_rise(store).await;
    users_are_found_by_the_start_of_a_term(store).await;
    what_was_never_activated_is_swept(store).await;
}

async fn a_code_is_kept_until_it_is_used_guessed_at_or_expired(store: &dyn AccountStore) {
    let email: Email = "ann@example.com".parse().unwrap();
    let request = |fresh| store.request_code("k1".to_owned(), email.clone(), fresh);
    assert_eq!(request(fresh("111111", 0)).await.unwrap(), CodeRequest::Queued);
    assert_eq!(request(fresh("222222", 1)).await.unwrap(), CodeRequest::Queued);
    assert_eq!(try_code(store, "k1", "111111", 2).await, CodeTry::Fits, "the pending code stays");
    assert_eq!(try_code(store, "k1", "222222", 2).await, CodeTry::Wrong);
    assert_eq!(try_code(store, "k1", "111111", 100).await, CodeTry::Wrong, "expired");
    assert_eq!(try_code(store, "k1", "333333", 2).await, CodeTry::Wrong);
    assert_eq!(try_code(store, "k1", "111111", 2).await, CodeTry::Fits);
    assert_eq!(try_code(store, "k1", "333333", 2).await, CodeTry::Wrong);
    assert_eq!(try_code(store, "k1", "111111", 2).await, CodeTry::Wrong, "the third wrong try voided it");
    assert_eq!(request(fresh("444444", 3)).await.unwrap(), CodeRequest::Queued);
    assert!(matches!(create(store, new(1, "Ann", "ann@example.com"), code("k1", "5"), 4).await, Created::WrongCode));
    assert!(matches!(activate(store, "k1", "444444", 4).await, Activation::Wrong), "no account waits for it");
    let created = create(store, new(1, "Ann", "ANN@example.com"), code("k1", "444444"), 4).await;
    assert!(matches!(created, Created::Account(account) if account.is_activated()));
    assert_eq!(request(fresh("5", 5)).await.unwrap(), CodeRequest::EmailTaken);
    assert_eq!(store.by_email(&email).await.unwrap(), Some(user(1)));
    assert_eq!(store.password(user(1)).await.unwrap().as_deref(), Some("a hash"));
    assert_eq!(store.password(user(9)).await.unwrap(), None);
}

async fn an_address_is_proven_once(store: &dyn AccountStore) {
    let bob = "bob@example.com";
    for number in [2, 3] {
        let created = create(store, new(number, "Bob", bob), pending("k2", "111111", 10), 10).await;
        assert!(matches!(created, Created::Account(account) if !account.is_activated()));
    }
    assert_eq!(store.by_email(&bob.parse().unwrap()).await.unwrap(), Some(user(3)), "the last one waits");
    assert!(matches!(activate(store, "k2", "999999", 11).await, Activation::Wrong));
    assert!(
        matches!(activate(store, "k2", "111111", 11).await, Activation::Now(proven) if proven.account.id == user(3) && proven.first)
    );
    assert!(matches!(activate(store, "k2", "111111", 12).await, Activation::Before));
    assert!(matches!(create(store, new(4, "Bob", bob), pending("k2", "1", 13), 13).await, Created::EmailTaken));
    let admin = create(store, new(4, "Bob", bob), AccountProof::Administrator, 13).await;
    assert!(matches!(admin, Created::EmailTaken));
}

async fn a_handle_has_one_owner(store: &dyn AccountStore) {
    let handle = |text: &str| text.parse::<Handle>().unwrap();
    let set = |number, text: &str| store.set_handle(user(number), handle(text), nothing());
    assert!(matches!(set(1, "ann").await.unwrap(), HandleOutcome::Set(_)));
    assert!(matches!(set(1, "ann").await.unwrap(), HandleOutcome::Unchanged));
    assert!(matches!(set(3, "ann").await.unwrap(), HandleOutcome::Taken));
    assert!(matches!(set(99, "new").await.unwrap(), HandleOutcome::NoAccount));
    assert!(matches!(set(1, "anna").await.unwrap(), HandleOutcome::Set(_)));
    assert!(matches!(set(3, "ann").await.unwrap(), HandleOutcome::Set(_)));
    assert_eq!(store.by_handle(&handle("anna")).await.unwrap(), Some(user(1)));
    let taken = store.taken_handles(vec![handle("free"), handle("ann")]).await.unwrap();
    assert_eq!(taken, [handle("ann")]);
    let admin = NewAccount { handle: Some(handle("ann")), ..new(5, "Ann", "a@b.c") };
    assert!(matches!(create(store, admin, AccountProof::Administrator, 20).await, Created::HandleTaken));
}

async fn profiles_change_and_versions_rise(store: &dyn AccountStore) {
    let before = store.get(user(1)).await.unwrap().unwrap();
    let change = ProfileChange {
        name: Some("Änne Müller".parse().unwrap()),
        text_status: Some("away".to_owned()),
        ..ProfileChange::default()
    };
    assert!(store.update(user(1), change.clone(), nothing()).await.unwrap().is_some());
    assert!(store.update(user(99), change, nothing()).await.unwrap().is_none());
    let after = store.get(user(1)).await.unwrap().unwrap();
    assert_eq!(after.version, before.version + 1);
    assert_eq!((after.name.as_str(), after.text_status.as_deref()), ("Änne Müller", Some("away")));
    assert_eq!(store.get_many(vec![user(1), user(77), user(3)]).await.unwrap().len(), 2);
}

async fn users_are_found_by_the_start_of_a_term(store: &dyn AccountStore) {
    let search = async |prefix: &str, except| {
        let found = store.search(prefix.to_owned(), except, 10).await.unwrap();
        found.iter().map(|account| account.id).collect::<Vec<_>>()
    };
    assert_eq!(search("mull", None).await, [user(1)]);
    assert_eq!(search("anne mu", None).await, [user(1)]);
    assert_eq!(search("anna", None).await, [user(1)], "by handle");
    let mut both = search("an", None).await;
    both.sort_unstable();
    assert_eq!(both, [user(1), user(3)], "each once, though several terms match");
    assert_eq!(search("an", Some(user(1))).await, [user(3)]);
    assert!(search("old name", None).await.is_empty());
    assert_eq!(store.search("an".to_owned(), None, 1).await.unwrap().len(), 1);
    assert!(search("zzz", None).await.is_empty());
}

async fn what_was_never_activated_is_swept(store: &dyn AccountStore) {
    let waiting = new(6, "Waiting", "waiting@example.com");
    create(store, waiting, pending("k6", "1", 30), 30).await;
    let sweep = |before| store.sweep(at(1000), before, Timestamp::EPOCH);
    sweep(at(30)).await.unwrap();
    assert!(store.get(user(6)).await.unwrap().is_some());
    sweep(at(31)).await.unwrap();
    assert!(store.get(user(6)).await.unwrap().is_none());
    assert_eq!(store.by_email(&"waiting@example.com".parse().unwrap()).await.unwrap(), None);
    assert!(store.search("waiting".to_owned(), None, 1).await.unwrap().is_empty());
    assert!(store.get(user(1)).await.unwrap().is_some(), "activated accounts stay");
    assert_eq!(sweep(at(31)).await.unwrap(), 0);
    let later = at(40).plus(Duration::from_secs(1));
    assert!(store.sweep(at(1000), at(0), later).await.unwrap() > 0, "audit records");
}
