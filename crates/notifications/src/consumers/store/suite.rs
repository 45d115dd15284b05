//! What every engine must pass.

use std::sync::Arc;

use aldis_types::{ClientId, EventId, NotificationId, Timestamp, UserId};
use bytes::Bytes;

use super::{ConsumerStore, Standing};
use crate::queues::store::{Entry, QueueStore};

const ONE: ClientId = ClientId(1);
const TWO: ClientId = ClientId(2);

fn user() -> UserId {
    UserId::from_bytes(&[1; 16]).unwrap()
}

async fn append(store: &dyn QueueStore, client: Option<ClientId>, event: u8) -> u64 {
    let event_id = EventId::from_bytes(&[event; 16]).unwrap();
    let entry = Entry { user: user(), client, event_id, event: Bytes::from_static(b"{}"), missed: false };
    let ids: Vec<Option<NotificationId>> = store.append(Arc::from([entry])).await.unwrap();
    ids[0].unwrap().ticks().unwrap()
}

async fn standing(store: &dyn ConsumerStore, client: ClientId) -> Standing {
    store.standing(user(), client).await.unwrap().unwrap()
}

/// A client begins after what is in the queue, once, and its floor only rises.
pub(crate) async fn standings_rise<S: ConsumerStore + QueueStore>(store: &S) {
    let before = append(store, None, 1).await;
    assert_eq!(store.standing(user(), ONE).await.unwrap(), None);
    store.open(user(), ONE).await.unwrap();
    let begun = standing(store, ONE).await;
    assert!(begun.floor >= before && begun.acknowledged.is_empty() && !begun.missed);
    let ticks = [append(store, Some(ONE), 2).await, append(store, None, 3).await, append(store, None, 4).await];
    assert!(ticks[0] > begun.floor);
    store.open(user(), ONE).await.unwrap();
    assert_eq!(standing(store, ONE).await, begun);

    store.acknowledge(user(), ONE, begun.floor, vec![ticks[1], ticks[2]]).await.unwrap();
    assert_eq!(standing(store, ONE).await.acknowledged, [ticks[1], ticks[2]]);
    store.acknowledge(user(), ONE, ticks[1], vec![]).await.unwrap();
    assert_eq!(standing(store, ONE).await, Standing { floor: ticks[1], acknowledged: vec![ticks[2]], missed: false });
    store.acknowledge(user(), ONE, ticks[0], vec![]).await.unwrap();
    assert_eq!(standing(store, ONE).await.floor, ticks[1]);

    store.open(user(), TWO).await.unwrap();
    store.forget(user(), Some(ONE)).await.unwrap();
    store.acknowledge(user(), ONE, ticks[2], vec![]).await.unwrap();
    assert_eq!(store.standing(user(), ONE).await.unwrap(), None);
    assert!(standing(store, TWO).await.floor >= ticks[2]);
    store.forget(user(), None).await.unwrap();
    assert_eq!(store.standing(user(), TWO).await.unwrap(), None);
}

/// Dropping what a client has not acknowledged is marked for those that it was for, and only then.
pub(crate) async fn what_is_missed_is_marked<S: ConsumerStore + QueueStore>(store: &S, now: impl Fn(i64)) {
    now(1_700_000_000_000);
    store.open(user(), ONE).await.unwrap();
    store.open(user(), TWO).await.unwrap();
    let own = append(store, Some(ONE), 1).await;
    let expire = async |millis| while store.expire(Timestamp::from_millis(millis)).await.unwrap() {};
    store.acknowledge(user(), ONE, 0, vec![own]).await.unwrap();
    now(1_700_000_010_000);
    expire(1_700_000_005_000).await;
    assert!(!standing(store, ONE).await.missed && !standing(store, TWO).await.missed);

    append(store, Some(ONE), 2).await;
    now(1_700_000_020_000);
    expire(1_700_000_015_000).await;
    assert!(standing(store, ONE).await.missed && !standing(store, TWO).await.missed);
    store.knows(user(), ONE).await.unwrap();
    assert!(!standing(store, ONE).await.missed);

    let all = append(store, None, 3).await;
    store.acknowledge(user(), TWO, all, vec![]).await.unwrap();
    now(1_700_000_030_000);
    expire(1_700_000_025_000).await;
    assert!(standing(store, ONE).await.missed && !standing(store, TWO).await.missed);
}

/// The same when a queue with room for 100 events drops its oldest.
pub(crate) async fn what_does_not_fit_is_missed<S: ConsumerStore + QueueStore>(store: &S) {
    store.open(user(), ONE).await.unwrap();
    for event in 0..100 {
        append(store, None, event).await;
    }
    assert!(!standing(store, ONE).await.missed);
    append(store, None, 100).await;
    assert!(standing(store, ONE).await.missed);
}
