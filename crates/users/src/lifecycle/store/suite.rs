//! What every engine must do.

use std::sync::{Arc, Mutex};

use aldis_types::{Email, Qualified, Timestamp, UserId};
use uuid::Uuid;

use super::{
    CodeProof, Confirmation, Deleted, Deletion, Departed, EmailChange, FreshConfirmation, LifecycleStore,
    PasswordChange, Requested, Secret,
};
use crate::{
    accounts::{
        Locale, NewAccount,
        store::{AccountProof, AccountStore, Activation, Created, FreshCode, Proven},
    },
    audit::AuditEntry,
    auth::store::{Revocation, Revoked},
    events::Effects,
    lifecycle::hash_of,
};

const ANN: UserId = UserId::new(Uuid::from_u128(1));
const BOB: UserId = UserId::new(Uuid::from_u128(2));

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn email(text: &str) -> Email {
    text.parse().unwrap()
}

fn audit() -> AuditEntry {
    AuditEntry::new("client", "changed", "x")
}

fn proof(code: &str) -> CodeProof {
    CodeProof { hash: hash_of(code), failures: 3 }
}

fn fresh(what: Confirmation, code: &str, now: i64) -> FreshConfirmation {
    FreshConfirmation {
        user: ANN,
        what,
        email: email("ann@example.com"),
        code: code.to_owned(),
        now: at(now),
        expires: at(now + 100),
        mail_expires: at(now + 100),
    }
}

fn change(secret: Secret, password: &str, now: i64) -> PasswordChange {
    let revocation = Revocation { user: ANN, what: Revoked::Everything { except: None }, expires: at(now + 900) };
    PasswordChange { secret, password: password.to_owned(), revocation, audit: audit(), now: at(now) }
}

async fn account(accounts: &dyn AccountStore, id: UserId, address: &str, handle: &str) {
    let new = NewAccount {
        id,
        name: "Somebody".parse().unwrap(),
        handle: Some(handle.parse().unwrap()),
        email: email(address),
        password: "first".to_owned(),
        locale: Locale::default(),
        accent_id: aldis_types::AccentId(1),
        assets: Vec::new(),
        protocols: vec![aldis_types::Protocol::Proteus],
    };
    let created = accounts.create(new, AccountProof::Administrator, audit(), at(1)).await.unwrap();
    assert!(matches!(created, Created::Account(_)));
}

pub(crate) async fn all(store: &dyn LifecycleStore, accounts: &dyn AccountStore) {
    account(accounts, ANN, "ann@example.com", "ann").await;
    account(accounts, BOB, "bob@example.com", "bob").await;
    a_password_changes_by_what_was_checked(store, accounts).await;
    a_code_sets_a_password_once(store, accounts).await;
    wrong_codes_run_out(store).await;
    an_address_changes_when_its_code_comes_back(store, accounts).await;
    a_deletion_needs_its_code_and_leaves_a_tombstone(store, accounts).await;
    expired_codes_are_swept(store).await;
}

async fn a_password_changes_by_what_was_checked(store: &dyn LifecycleStore, accounts: &dyn AccountStore) {
    let set = |secret, password| store.set_password(change(secret, password, 10));
    assert!(!set(Secret::NonePresent, "second").await.unwrap());
    assert!(!set(Secret::Checked("other".to_owned()), "second").await.unwrap());
    assert!(set(Secret::Checked("first".to_owned()), "second").await.unwrap());
    assert!(!set(Secret::Checked("first".to_owned()), "third").await.unwrap(), "it has changed in between");
    assert_eq!(accounts.password(ANN).await.unwrap().as_deref(), Some("second"));
}

async fn a_code_sets_a_password_once(store: &dyn LifecycleStore, accounts: &dyn AccountStore) {
    use Confirmation::{Deletion, PasswordReset};
    assert!(!store.set_password(change(Secret::Code(proof("a")), "third", 20)).await.unwrap());
    assert_eq!(store.request(fresh(PasswordReset, "a", 20)).await.unwrap(), Requested::Queued);
    assert_eq!(store.request(fresh(PasswordReset, "b", 20)).await.unwrap(), Requested::Queued);
    assert!(!store.try_code(ANN, PasswordReset, proof("a"), at(21)).await.unwrap(), "the later one takes its place");
    assert!(store.try_code(ANN, PasswordReset, proof("b"), at(21)).await.unwrap());
    assert!(!store.try_code(ANN, Deletion, proof("b"), at(21)).await.unwrap());
    assert!(!store.try_code(BOB, PasswordReset, proof("b"), at(21)).await.unwrap());
    assert!(!store.set_password(change(Secret::Code(proof("b")), "third", 121)).await.unwrap(), "it has expired");
    assert!(store.set_password(change(Secret::Code(proof("b")), "third", 22)).await.unwrap());
    assert!(!store.set_password(change(Secret::Code(proof("b")), "fourth", 22)).await.unwrap());
    assert_eq!(accounts.password(ANN).await.unwrap().as_deref(), Some("third"));
    let elsewhere = FreshConfirmation { email: email("else@example.com"), ..fresh(PasswordReset, "c", 22) };
    assert_eq!(store.request(elsewhere).await.unwrap(), Requested::NoAccount);
}

async fn wrong_codes_run_out(store: &dyn LifecycleStore) {
    let try_code = |code| store.try_code(ANN, Confirmation::PasswordReset, proof(code), at(31));
    store.request(fresh(Confirmation::PasswordReset, "d", 30)).await.unwrap();
    for _ in 0..2 {
        assert!(!try_code("wrong").await.unwrap());
    }
    assert!(try_code("d").await.unwrap());
    assert!(!try_code("wrong").await.unwrap());
    assert!(!try_code("d").await.unwrap());
}

async fn an_address_changes_when_its_code_comes_back(store: &dyn LifecycleStore, accounts: &dyn AccountStore) {
    let code = |code: &str| FreshCode { code: code.to_owned(), now: at(40), expires: at(140), mail_expires: at(140) };
    let to = |address: &str, digits: &str| {
        let (address, key) = (email(address), crate::accounts::activation::activation_key(&email(address)));
        store.change_email(ANN, key, address, code(digits))
    };
    let activate = |address: &str, digits: &str| {
        let key = crate::accounts::activation::activation_key(&email(address));
        let effects: Effects<Proven> = Arc::new(|_: &Proven| Vec::new());
        accounts.activate(key, digits.to_owned(), 3, at(41), effects)
    };
    assert_eq!(to("Ann@Example.com", "1").await.unwrap(), EmailChange::Unchanged);
    assert_eq!(to("bob@example.com", "1").await.unwrap(), EmailChange::Taken);
    assert_eq!(to("one@example.com", "1").await.unwrap(), EmailChange::Queued);
    assert_eq!(to("two@example.com", "2").await.unwrap(), EmailChange::Queued);
    let ann = accounts.get(ANN).await.unwrap().unwrap();
    assert_eq!((ann.email, ann.unverified_email), (Some(email("ann@example.com")), Some(email("two@example.com"))));
    assert_eq!(accounts.by_email(&email("two@example.com")).await.unwrap(), None, "not before it is proven");
    assert!(matches!(activate("one@example.com", "1").await.unwrap(), Activation::Wrong), "another one was asked for");
    store.request(fresh(Confirmation::PasswordReset, "e", 40)).await.unwrap();
    let done = activate("two@example.com", "2").await.unwrap();
    assert!(matches!(done, Activation::Now(proven) if !proven.first && proven.account.unverified_email.is_none()));
    assert_eq!(accounts.by_email(&email("two@example.com")).await.unwrap(), Some(ANN));
    assert_eq!(accounts.by_email(&email("ann@example.com")).await.unwrap(), None, "the old one is free");
    let reset = store.try_code(ANN, Confirmation::PasswordReset, proof("e"), at(41)).await.unwrap();
    assert!(!reset, "what was mailed to the old address is void");
}

async fn a_deletion_needs_its_code_and_leaves_a_tombstone(store: &dyn LifecycleStore, accounts: &dyn AccountStore) {
    let ask = |code: &str| {
        let fresh = FreshConfirmation { email: email("two@example.com"), ..fresh(Confirmation::Deletion, code, 50) };
        store.request(fresh)
    };
    assert_eq!(ask("f").await.unwrap(), Requested::Queued);
    assert_eq!(ask("g").await.unwrap(), Requested::Pending(at(150)));
    let told = Arc::new(Mutex::new(0));
    let delete = |proof| {
        let told = told.clone();
        store.delete(Deletion {
            user: Qualified::new(ANN, "alpha.test".parse().unwrap()),
            proof,
            revocation: Revocation { user: ANN, what: Revoked::Everything { except: None }, expires: at(950) },
            audit: audit(),
            now: at(51),
            effects: Arc::new(move |_: &Departed| {
                *told.lock().unwrap() += 1;
                Vec::new()
            }),
        })
    };
    assert!(matches!(delete(Some(proof("g"))).await.unwrap(), Deleted::WrongCode));
    assert_eq!(*told.lock().unwrap(), 0);
    assert!(matches!(delete(Some(proof("f"))).await.unwrap(), Deleted::Done(_)));
    assert!(*told.lock().unwrap() > 0);
    assert!(matches!(delete(None).await.unwrap(), Deleted::NoAccount));
    assert!(matches!(delete(Some(proof("f"))).await.unwrap(), Deleted::WrongCode));
    let gone = accounts.get(ANN).await.unwrap().unwrap();
    assert!(gone.deleted && gone.email.is_none() && gone.handle.is_none() && gone.name.as_str() == "default");
    assert_eq!(accounts.password(ANN).await.unwrap(), None);
    assert_eq!(accounts.by_email(&email("two@example.com")).await.unwrap(), None);
    assert_eq!(accounts.by_handle(&"ann".parse().unwrap()).await.unwrap(), None);
    assert!(accounts.search("somebody".to_owned(), Some(BOB), 10).await.unwrap().is_empty());
    account(accounts, UserId::new(Uuid::from_u128(3)), "two@example.com", "ann").await;
    assert!(!store.set_password(change(Secret::NonePresent, "fifth", 52)).await.unwrap());
}

async fn expired_codes_are_swept(store: &dyn LifecycleStore) {
    for what in [Confirmation::PasswordReset, Confirmation::Deletion] {
        let fresh = FreshConfirmation { user: BOB, email: email("bob@example.com"), ..fresh(what, "h", 60) };
        assert_eq!(store.request(fresh).await.unwrap(), Requested::Queued);
    }
    assert_eq!(store.sweep(at(159)).await.unwrap(), 0);
    assert_eq!(store.sweep(at(160)).await.unwrap(), 2);
    assert_eq!(store.sweep(at(160)).await.unwrap(), 0);
}
