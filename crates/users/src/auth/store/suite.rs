//! What every engine must do.

use std::time::Duration;

use aldis_types::{ClientId, Timestamp, UserId};
use uuid::Uuid;

use super::{AttemptKind, AttemptLimit, AuthStore, CookieRow, Revocation, Revoked};
use crate::audit::AuditEntry;

const USER: UserId = UserId::new(Uuid::from_u128(1));

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn cookie(id: u32, created: i64, label: Option<&str>) -> CookieRow {
    CookieRow {
        id,
        family: id,
        session: false,
        created: at(created),
        expires: at(created + 1000),
        label: label.map(str::to_owned),
        successor: None,
        client: None,
    }
}

pub(crate) async fn all(store: &dyn AuthStore) {
    the_first_key_stays(store).await;
    labels_replace_and_the_number_is_bounded(store).await;
    a_renewed_cookie_names_its_successor_and_expires_earlier(store).await;
    the_end_of_a_session_takes_its_whole_family(store).await;
    cookies_are_removed_by_id_and_label(store).await;
    all_sessions_end_but_one(store).await;
    attempts_are_counted_within_a_window(store).await;
    expired_rows_are_swept(store).await;
}

async fn the_first_key_stays(store: &dyn AuthStore) {
    let first = store.token_keys([1; 32], at(1)).await.unwrap();
    let second = store.token_keys([2; 32], at(1)).await.unwrap();
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_eq!(first[0].key.to_bytes(), [1; 32]);
    assert_eq!(second[0].key.to_bytes(), [1; 32]);
    assert_eq!(second[0].position, 1);
}

async fn labels_replace_and_the_number_is_bounded(store: &dyn AuthStore) {
    store.add_cookie(USER, cookie(1, 1, Some("a")), 3, None).await.unwrap();
    store.add_cookie(USER, cookie(2, 2, Some("a")), 3, None).await.unwrap();
    let changed = Some("a hash that nobody has".to_owned());
    assert!(!store.add_cookie(USER, cookie(1, 2, None), 3, changed).await.unwrap());
    assert_eq!(store.cookie(USER, 1).await.unwrap(), None);
    for id in 3..=5 {
        store.add_cookie(USER, cookie(id, id.into(), None), 3, None).await.unwrap();
    }
    let session = CookieRow { session: true, ..cookie(6, 6, None) };
    store.add_cookie(USER, session, 3, None).await.unwrap();
    let ids: Vec<_> = store.cookies(USER, at(6)).await.unwrap().iter().map(|cookie| cookie.id).collect();
    assert_eq!(ids, [6, 5, 4, 3], "the three of a kind that expire last, newest first");
    assert!(store.cookies(UserId::new(Uuid::from_u128(2)), at(0)).await.unwrap().is_empty());
    assert_eq!(store.cookies(USER, at(1004)).await.unwrap().len(), 2);
}

async fn a_renewed_cookie_names_its_successor_and_expires_earlier(store: &dyn AuthStore) {
    let next = CookieRow { client: Some(ClientId(u64::MAX)), family: 5, ..cookie(7, 7, None) };
    assert!(store.renew_cookie(USER, 5, at(100), next.clone(), 32).await.unwrap());
    let old = store.cookie(USER, 5).await.unwrap().unwrap();
    assert_eq!((old.successor, old.expires), (Some(7), at(100)));
    assert_eq!(store.cookie(USER, 7).await.unwrap(), Some(next));
    assert!(!store.renew_cookie(USER, 99, at(100), cookie(8, 8, None), 32).await.unwrap());
    assert_eq!(store.cookie(USER, 8).await.unwrap(), None);
}

async fn ids(store: &dyn AuthStore) -> Vec<u32> {
    store.cookies(USER, at(8)).await.unwrap().iter().map(|cookie| cookie.id).collect()
}

async fn the_end_of_a_session_takes_its_whole_family(store: &dyn AuthStore) {
    let revocation = store.end_family(USER, 5, at(50)).await.unwrap();
    assert_eq!(revocation, Revocation { user: USER, what: Revoked::Family(5), expires: at(50) });
    assert_eq!(ids(store).await, [6, 4, 3]);
    assert_eq!(store.revocations(at(49)).await.unwrap(), [revocation]);
    assert!(store.revocations(at(50)).await.unwrap().is_empty());
}

async fn cookies_are_removed_by_id_and_label(store: &dyn AuthStore) {
    for (id, label) in [(20, Some("b")), (21, Some("c")), (22, None)] {
        store.add_cookie(USER, cookie(id, 8, label), 32, None).await.unwrap();
    }
    assert!(store.renew_cookie(USER, 22, at(900), CookieRow { family: 22, ..cookie(23, 8, None) }, 32).await.unwrap());
    let revoked = store.remove_cookies(USER, vec![22, 99], vec!["b".to_owned()], at(50)).await.unwrap();
    let families: Vec<_> = revoked.iter().map(|revocation| revocation.what).collect();
    assert_eq!(families, [Revoked::Family(20), Revoked::Family(22)]);
    assert_eq!(ids(store).await, [21, 6, 4, 3]);
}

async fn all_sessions_end_but_one(store: &dyn AuthStore) {
    let all_but =
        |except, expires| Revocation { user: USER, what: Revoked::Everything { except }, expires: at(expires) };
    let end = |except, expires| {
        let audit = AuditEntry::new("client", "sessions-ended", USER);
        store.end_sessions(all_but(except, expires), audit, at(8))
    };
    assert_eq!(end(Some(4), 60).await.unwrap(), 3);
    assert_eq!(ids(store).await, [4]);
    assert_eq!(store.revocations(at(50)).await.unwrap(), [all_but(Some(4), 60)]);
    assert_eq!(end(None, 70).await.unwrap(), 1);
    assert!(ids(store).await.is_empty());
    assert_eq!(store.revocations(at(50)).await.unwrap(), [all_but(None, 70)], "the later one takes its place");
    store.add_cookie(USER, cookie(30, 8, None), 32, None).await.unwrap();
}

async fn attempts_are_counted_within_a_window(store: &dyn AuthStore) {
    let limit = AttemptLimit { count: 2, window: Duration::from_secs(10) };
    let attempt = |subject: u8, now| store.attempt(AttemptKind::Password, [subject; 16], limit, at(now));
    assert_eq!(attempt(1, 0).await.unwrap(), None);
    assert_eq!(attempt(1, 4).await.unwrap(), None);
    assert_eq!(attempt(1, 7).await.unwrap(), Some(Duration::from_secs(3)));
    assert_eq!(attempt(2, 7).await.unwrap(), None);
    let other = store.attempt(AttemptKind::ActivationMail, [1; 16], limit, at(7)).await.unwrap();
    assert_eq!(other, None, "kinds are counted apart");
    assert_eq!(attempt(1, 10).await.unwrap(), None, "the window is over");
    assert_eq!(attempt(1, 10).await.unwrap(), None);
    store.forgive(AttemptKind::Password, [1; 16]).await.unwrap();
    assert_eq!(attempt(1, 11).await.unwrap(), None);
}

async fn expired_rows_are_swept(store: &dyn AuthStore) {
    assert!(store.sweep(at(5000)).await.unwrap() > 0);
    assert_eq!(store.sweep(at(5000)).await.unwrap(), 0, "everything at once");
    assert!(store.cookies(USER, at(0)).await.unwrap().is_empty());
    assert!(store.revocations(at(0)).await.unwrap().is_empty());
}
