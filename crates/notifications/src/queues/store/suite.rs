//! What every engine must pass.

use std::sync::Arc;

use aldis_types::{ClientId, EventId, NotificationId, Timestamp, UserId};
use bytes::Bytes;

use super::{Entry, QueueStore, Stored};

const ANN: u8 = 1;
const BOB: u8 = 2;
const NO_LIMIT: usize = usize::MAX >> 1;

fn user(number: u8) -> UserId {
    UserId::from_bytes(&[number; 16]).unwrap()
}

fn entry(owner: u8, client: Option<u64>, event: u8) -> Entry {
    Entry {
        user: user(owner),
        client: client.map(ClientId),
        event_id: EventId::from_bytes(&[event; 16]).unwrap(),
        event: Bytes::from(format!(r#"{{"n":{event}}}"#)),
        missed: false,
    }
}

async fn append(store: &dyn QueueStore, entries: Vec<Entry>) -> Vec<Option<NotificationId>> {
    store.append(Arc::from(entries)).await.unwrap()
}

async fn append_one(store: &dyn QueueStore, entry: Entry) -> NotificationId {
    append(store, vec![entry]).await[0].unwrap()
}

async fn read(store: &dyn QueueStore, owner: u8, client: Option<u64>) -> Vec<Stored> {
    store.page(user(owner), client.map(ClientId), None, NO_LIMIT, NO_LIMIT).await.unwrap().unwrap().notifications
}

fn ticks(stored: &[Stored]) -> Vec<u64> {
    stored.iter().map(|stored| stored.id.ticks().unwrap()).collect()
}

/// Ids are time based and grow, and a reader sees what is for it, in order.
pub(crate) async fn readers_see_what_is_for_them_in_order(store: &dyn QueueStore) {
    let entries = vec![entry(ANN, Some(1), 1), entry(ANN, Some(2), 2), entry(ANN, None, 3), entry(BOB, Some(1), 4)];
    let ids = append(store, entries).await.into_iter().flatten().collect::<Vec<_>>();
    let later = append_one(store, entry(ANN, Some(u64::MAX), 5)).await;
    let events = |stored: Vec<Stored>| stored.into_iter().map(|stored| stored.id).collect::<Vec<_>>();
    assert_eq!(events(read(store, ANN, Some(1)).await), [ids[0], ids[2]]);
    assert_eq!(events(read(store, ANN, Some(u64::MAX)).await), [ids[2], later]);
    assert_eq!(events(read(store, BOB, None).await), [ids[3]]);
    let all = read(store, ANN, None).await;
    assert_eq!(all[1].event, Bytes::from_static(br#"{"n":2}"#));
    assert!(ticks(&all).is_sorted_by(|a, b| a < b));
    assert_eq!(events(all), [ids[0], ids[1], ids[2], later]);

    let (ann, one) = (user(ANN), Some(ClientId(1)));
    assert_eq!(store.last(ann, one).await.unwrap().unwrap().id, ids[2]);
    assert_eq!(store.last(ann, None).await.unwrap().unwrap().id, later);
    assert_eq!(store.last(user(3), None).await.unwrap(), None);
    assert_eq!(store.get(ann, one, ids[0]).await.unwrap().unwrap().id, ids[0]);
    assert_eq!(store.get(ann, one, ids[1]).await.unwrap(), None);
    assert_eq!(store.get(user(BOB), None, ids[0]).await.unwrap(), None);
    assert!(store.transient_id().ticks() > later.ticks());
}

/// An event enters a queue once, and once for each client it is for.
pub(crate) async fn an_event_enters_a_queue_once(store: &dyn QueueStore) {
    let first = append(store, vec![entry(ANN, Some(1), 1), entry(ANN, Some(2), 1), entry(ANN, Some(1), 1)]).await;
    assert!(first[0].is_some() && first[1].is_some() && first[2].is_none());
    let again = append(store, vec![entry(ANN, Some(1), 1), entry(ANN, None, 1), entry(BOB, Some(1), 1)]).await;
    assert!(again[0].is_none() && again[1].is_some() && again[2].is_some());
    assert_eq!(read(store, ANN, None).await.len(), 3);
}

/// Pages continue after `since`, are cut by number and by bytes, and say whether more follow.
pub(crate) async fn pages_continue(store: &dyn QueueStore) {
    append(store, (0..10).map(|event| entry(ANN, Some(u64::from(event % 2) + 1), event)).collect()).await;
    let (ann, one) = (user(ANN), Some(ClientId(1)));
    let first = store.page(ann, one, None, 3, NO_LIMIT).await.unwrap().unwrap();
    assert!(first.has_more && first.notifications.len() == 3);
    let since = first.notifications.last().map(|stored| stored.id);
    let rest = store.page(ann, one, since, 2, NO_LIMIT).await.unwrap().unwrap();
    assert!(!rest.has_more && rest.notifications.len() == 2);
    let joined = [first.notifications, rest.notifications].concat();
    assert_eq!(joined, read(store, ANN, Some(1)).await);

    let small = store.page(ann, one, None, 10, 15).await.unwrap().unwrap();
    assert_eq!((small.notifications.len(), small.has_more), (2, true));
    let tiny = store.page(ann, one, None, 10, 1).await.unwrap().unwrap();
    assert_eq!((tiny.notifications.len(), tiny.has_more), (1, true));
    let last = store.last(ann, one).await.unwrap().unwrap();
    let empty = store.page(ann, one, Some(last.id), 10, 1).await.unwrap().unwrap();
    assert_eq!((empty.notifications.len(), empty.has_more), (0, false));
}

/// A `since` that is not in this user's queue is reported.
pub(crate) async fn an_unknown_since_is_reported(store: &dyn QueueStore) {
    let ann = append_one(store, entry(ANN, None, 1)).await;
    let bob = append_one(store, entry(BOB, None, 1)).await;
    let page = async |since| store.page(user(ANN), None, Some(since), 10, NO_LIMIT).await.unwrap();
    assert!(page(ann).await.is_some());
    assert!(page(bob).await.is_none());
    assert!(page(store.transient_id()).await.is_none());
    let mut other_node = *ann.as_bytes();
    other_node[15] ^= 1;
    assert!(page(NotificationId::from_bytes(&other_node).unwrap()).await.is_none());
}

/// Whoever has not read past a gap is told; gaps that follow each other at once are one.
pub(crate) async fn a_gap_is_reported(store: &dyn QueueStore, now: impl Fn(i64)) {
    now(1_700_000_000_000);
    let before = append_one(store, entry(ANN, None, 1)).await;
    let bob = append_one(store, entry(BOB, None, 1)).await;
    let gap = |event| Entry { missed: true, ..entry(ANN, None, event) };
    let ids = append(store, vec![gap(2), gap(3), gap(2)]).await;
    let (first, rest) = (ids[0].unwrap(), &ids[1..]);
    assert_eq!(rest, [None, None]);
    let page = async |since| store.page(user(ANN), None, since, 10, NO_LIMIT).await.unwrap();
    assert!(page(Some(before)).await.is_none());
    assert_eq!(page(None).await.unwrap().notifications.len(), 2);
    assert!(page(Some(first)).await.unwrap().notifications.is_empty());
    assert!(store.page(user(BOB), None, Some(bob), 10, NO_LIMIT).await.unwrap().is_some());
    let after = append_one(store, entry(ANN, None, 4)).await;
    assert_eq!(page(Some(first)).await.unwrap().notifications.len(), 1);
    assert!(append(store, vec![gap(5)]).await[0].is_some(), "something came in between");
    assert!(page(Some(after)).await.is_none());
    now(1_700_000_100_000);
    assert!(append(store, vec![gap(6)]).await[0].is_some(), "that was long ago");
}

/// Removal forgets what it says and nothing else, and ids never go back.
pub(crate) async fn removal(store: &dyn QueueStore) {
    append(store, (0..100).map(|event| entry(ANN, Some(1), event)).collect()).await;
    append(store, vec![entry(ANN, None, 100), entry(ANN, Some(2), 101), entry(BOB, Some(1), 102)]).await;
    while store.remove_client(user(ANN), ClientId(1)).await.unwrap() {}
    assert_eq!(read(store, ANN, None).await.len(), 2);
    assert_eq!(read(store, BOB, None).await.len(), 1);
    let greatest = store.last(user(ANN), None).await.unwrap().unwrap();
    while store.remove_user(user(ANN)).await.unwrap() {}
    assert_eq!(read(store, ANN, None).await.len(), 0);
    assert_eq!(read(store, BOB, None).await.len(), 1);
    assert!(append_one(store, entry(ANN, Some(1), 1)).await.ticks() > greatest.id.ticks());
}

/// Expiry removes what is older than a time, of all users.
pub(crate) async fn expiry(store: &dyn QueueStore, now: impl Fn(i64)) {
    now(1_700_000_000_000);
    append(store, (0..50).map(|event| entry(1 + event % 5, None, event)).collect()).await;
    now(1_700_000_010_000);
    let kept = append_one(store, entry(ANN, None, 100)).await;
    while store.expire(Timestamp::from_millis(1_700_000_005_000)).await.unwrap() {}
    assert_eq!(ticks(&read(store, ANN, None).await), [kept.ticks().unwrap()]);
    assert_eq!(read(store, BOB, None).await.len(), 0);
    while store.expire(Timestamp::from_millis(1_700_000_010_001)).await.unwrap() {}
    assert_eq!(read(store, ANN, None).await.len(), 0);
    // Even when the clock goes back and nothing is left to compare with.
    now(1_600_000_000_000);
    assert!(append_one(store, entry(ANN, None, 101)).await.ticks() > kept.ticks());
}

/// A queue with room for 100 events drops the oldest.
pub(crate) async fn a_full_queue_drops_the_oldest(store: &dyn QueueStore) {
    append(store, vec![entry(BOB, None, 1)]).await;
    let ids = append(store, (0..150).map(|event| entry(ANN, None, event)).collect()).await;
    let kept = read(store, ANN, None).await;
    assert_eq!(kept.len(), 100);
    assert_eq!(Some(kept[0].id), ids[50]);
    assert_eq!(read(store, BOB, None).await.len(), 1);
    while store.remove_user(user(ANN)).await.unwrap() {}
    append(store, (0..60).map(|event| entry(ANN, None, event)).collect()).await;
    assert_eq!(read(store, ANN, None).await.len(), 60);
}
