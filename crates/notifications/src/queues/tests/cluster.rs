//! The same on a real cluster, and what only several replicas can do.

use std::{collections::HashSet, sync::Arc};

use aldis_runtime::{ManualClock, SystemRandom};
use aldis_storage::cql::testing::Keyspace;
use aldis_types::{EventId, NotificationId, Timestamp};

use super::super::store::{Bounds, CLUSTER_MIGRATIONS, Entry, QueueStore, ScyllaQueues, suite};
use crate::tests::{event_id, user};

const BEGIN: i64 = 1_750_000_000_000;
/// The first millisecond of a week, as partitions are cut.
const WEEK: i64 = 1_750_377_600_000;

/// A replica on a keyspace, with a clock of its own.
async fn replica(keyspace: &Keyspace) -> (ScyllaQueues, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(BEGIN)));
    let bounds = Bounds { events: 100, bytes: 1 << 20 };
    let random: aldis_runtime::SharedRandom = Arc::new(SystemRandom);
    let retention = std::time::Duration::from_secs(28 * 86_400);
    let store = ScyllaQueues::open(keyspace.cql.clone(), clock.clone(), &random, bounds, retention).await.unwrap();
    (store, clock)
}

async fn keyspace() -> Keyspace {
    Keyspace::make("notifications", CLUSTER_MIGRATIONS).await
}

fn entry(number: u64) -> Entry {
    Entry {
        user: user(1),
        client: None,
        event_id: EventId::from_bytes(&event_id(number)).unwrap(),
        event: format!(r#"{{"n":{number}}}"#).into(),
        missed: false,
    }
}

async fn append(store: &ScyllaQueues, number: u64) -> Option<NotificationId> {
    store.append([entry(number)].into()).await.unwrap()[0]
}

/// Everything after an id.
async fn after(store: &ScyllaQueues, since: Option<NotificationId>) -> Vec<NotificationId> {
    let page = store.page(user(1), None, since, 10_000, 1 << 20).await.unwrap().unwrap();
    page.notifications.into_iter().map(|stored| stored.id).collect()
}

#[tokio::test]
async fn on_cql_the_suite_passes() {
    let keyspace = keyspace().await;
    let clear = async || {
        for table in ["notifications_queue", "notifications_state"] {
            keyspace.truncate(table).await;
        }
        replica(&keyspace).await
    };
    suite::readers_see_what_is_for_them_in_order(&clear().await.0).await;
    suite::an_event_enters_a_queue_once(&clear().await.0).await;
    suite::pages_continue(&clear().await.0).await;
    suite::an_unknown_since_is_reported(&clear().await.0).await;
    suite::removal(&clear().await.0).await;
    suite::a_full_queue_drops_the_oldest(&clear().await.0).await;
    let (store, clock) = clear().await;
    suite::expiry(&store, |millis| clock.set(Timestamp::from_millis(millis))).await;
    let (store, clock) = clear().await;
    suite::a_gap_is_reported(&store, |millis| clock.set(Timestamp::from_millis(millis))).await;
    keyspace.remove().await;
}

#[tokio::test]
async fn on_cql_replicas_keep_one_order_that_a_reader_never_misses() {
    const EACH: u64 = 30;
    let keyspace = keyspace().await;
    let (one, two, reader) = tokio::join!(replica(&keyspace), replica(&keyspace), replica(&keyspace));
    // Both bring some of the same events.
    let write = async |store: &ScyllaQueues, first: u64| {
        let mut ids = Vec::new();
        for number in first..first + EACH {
            ids.extend(append(store, number).await);
        }
        ids
    };
    let read = async {
        let mut read: Vec<NotificationId> = Vec::new();
        while read.len() < usize::try_from(EACH + EACH / 2).unwrap() {
            read.extend(after(&reader.0, read.last().copied()).await);
        }
        read
    };
    let writes = async { tokio::join!(write(&one.0, 0), write(&two.0, EACH / 2)) };
    let limit = std::time::Duration::from_secs(120);
    let ((by_one, by_two), read) = tokio::time::timeout(limit, async { tokio::join!(writes, read) }).await.unwrap();
    assert!(read.is_sorted_by_key(|id| id.ticks()));
    let given: HashSet<NotificationId> = by_one.iter().chain(&by_two).copied().collect();
    assert_eq!(given.len(), by_one.len() + by_two.len(), "an event enters once");
    assert_eq!(read.iter().copied().collect::<HashSet<_>>(), given);
    assert_eq!(after(&one.0, None).await, read);
    keyspace.remove().await;
}

#[tokio::test]
async fn on_cql_a_week_that_is_over_gets_nothing_more() {
    let keyspace = keyspace().await;
    let ((late, slow), (early, quick)) = tokio::join!(replica(&keyspace), replica(&keyspace));
    slow.set(Timestamp::from_millis(WEEK - 60_000));
    quick.set(Timestamp::from_millis(WEEK + 60_000));
    let first = append(&late, 1).await.unwrap();
    let second = append(&early, 2).await.unwrap();
    // Its clock is still in the week before.
    let third = append(&late, 3).await.unwrap();
    let fourth = append(&early, 4).await.unwrap();
    let ids = [first, second, third, fourth];
    assert!(ids.is_sorted_by_key(|id| id.ticks()), "{ids:?}");
    assert_eq!(after(&early, None).await, ids);
    assert_eq!(after(&late, Some(first)).await, ids[1..]);
    assert_eq!(append(&late, 1).await, None, "it is in the week before");
    assert_eq!(late.last(user(1), None).await.unwrap().unwrap().id, fourth);
    keyspace.remove().await;
}
