//! What every engine must do.

use std::sync::Arc;

use aldis_types::{Domain, Qualified, Relation, Timestamp, UserId};
use uuid::Uuid;

use super::{Change, ConnectionStore, Decision, Refusal, Write, Written};

fn user(number: u128) -> UserId {
    UserId::new(Uuid::from_u128(number))
}

fn own() -> Domain {
    "alpha.test".parse().unwrap()
}

fn remote(number: u128, domain: &str) -> Qualified<UserId> {
    Qualified::new(user(number), domain.parse().unwrap())
}

fn change(number: u128, other: Qualified<UserId>, decision: Decision) -> Change {
    Change {
        user: user(number),
        local: other.domain == own(),
        other,
        now: Timestamp::from_millis(1000),
        decide: Arc::new(move |_| decision),
        effects: Arc::new(|_: &Written| Vec::new()),
    }
}

fn write(mine: Option<Relation>, theirs: Option<Relation>) -> Decision {
    Decision::Write { mine: mine.map(Write::announced), theirs: theirs.map(Write::announced) }
}

pub(crate) async fn all(store: &dyn ConnectionStore) {
    both_sides_are_written_together(store).await;
    times_rise_and_remote_times_stay(store).await;
    nothing_is_written_without_a_decision_to(store).await;
    pages_follow_each_other(store).await;
    decisions_see_the_counts(store).await;
    those_with_a_backend_are_cancelled_a_few_at_a_time(store).await;
}

async fn those_with_a_backend_are_cancelled_a_few_at_a_time(store: &dyn ConnectionStore) {
    let relations = [Relation::Sent, Relation::Pending, Relation::Accepted, Relation::Ignored, Relation::Blocked];
    for (number, relation) in (20..).zip(relations) {
        store.change(change(number, remote(1, "ended.test"), write(Some(relation), None))).await.unwrap();
    }
    store.change(change(20, remote(1, "other.test"), write(Some(Relation::Accepted), None))).await.unwrap();
    let ended: Domain = "ended.test".parse().unwrap();
    let told = Arc::new(std::sync::Mutex::new(0));
    let effects: crate::events::Effects<super::CancelledRows> = Arc::new({
        let told = told.clone();
        move |rows: &super::CancelledRows| {
            assert!(rows.iter().all(|(_, row)| row.status == Relation::Cancelled));
            *told.lock().unwrap() += rows.len();
            Vec::new()
        }
    });
    let now = Timestamp::from_millis(2_000);
    let mut steps = Vec::new();
    for _ in 0..3 {
        steps.push(store.cancel_some(&ended, 3, now, effects.clone()).await.unwrap());
    }
    assert_eq!(steps, [3, 1, 0]);
    assert_eq!(*told.lock().unwrap(), 4);
    let blocked = store.get(user(24), &remote(1, "ended.test")).await.unwrap().unwrap();
    assert_eq!(blocked.status, Relation::Blocked);
    let other = store.get(user(20), &remote(1, "other.test")).await.unwrap().unwrap();
    assert_eq!(other.status, Relation::Accepted);
}

async fn both_sides_are_written_together(store: &dyn ConnectionStore) {
    let other = Qualified::new(user(2), own());
    let done = store.change(change(1, other.clone(), write(Some(Relation::Sent), Some(Relation::Pending)))).await;
    let done = done.unwrap();
    assert!(done.before.is_none());
    assert_eq!(done.after.unwrap().status, Relation::Sent);
    let theirs = store.get(user(2), &Qualified::new(user(1), own())).await.unwrap().unwrap();
    assert_eq!((theirs.status, theirs.time), (Relation::Pending, Timestamp::from_millis(1000)));
    let accepted = write(Some(Relation::Accepted), Some(Relation::Accepted));
    store.change(change(1, other.clone(), accepted)).await.unwrap();
    assert_eq!(store.local_contacts(user(1), own()).await.unwrap(), [user(2)]);
    assert_eq!(store.local_contacts(user(2), own()).await.unwrap(), [user(1)]);
    let unknown = Qualified::new(user(9), own());
    let relations = store.relations(user(1), vec![unknown, other]).await.unwrap();
    assert_eq!(relations, [None, Some(Relation::Accepted)]);
}

async fn times_rise_and_remote_times_stay(store: &dyn ConnectionStore) {
    let other = remote(3, "beta.test");
    let at = Timestamp::from_millis;
    let first = Write { not_before: at(5000), remote_time: Some(at(70)), ..Write::announced(Relation::Pending) };
    let first = Decision::Write { mine: Some(first), theirs: None };
    let row = store.change(change(1, other.clone(), first)).await.unwrap().after.unwrap();
    assert_eq!((row.time, row.remote_time), (at(5000), at(70)));
    let next = write(Some(Relation::Accepted), None);
    let row = store.change(change(1, other.clone(), next)).await.unwrap().after.unwrap();
    assert_eq!((row.time, row.remote_time), (at(5001), at(70)));
    assert_eq!(store.local_contacts(user(1), own()).await.unwrap(), [user(2)]);
}

async fn nothing_is_written_without_a_decision_to(store: &dyn ConnectionStore) {
    let other = remote(4, "beta.test");
    let kept = store.change(change(1, other.clone(), Decision::Keep)).await.unwrap();
    assert!(kept.after.is_none());
    let refused = store.change(change(1, other.clone(), Decision::Refuse(Refusal::Limit))).await.unwrap();
    assert_eq!(refused.refused, Some(Refusal::Limit));
    assert_eq!(store.get(user(1), &other).await.unwrap(), None);
}

async fn pages_follow_each_other(store: &dyn ConnectionStore) {
    for other in [remote(5, "a.test"), remote(6, "a.test"), remote(5, "b.test")] {
        store.change(change(8, other, write(Some(Relation::Sent), None))).await.unwrap();
    }
    let first = store.list(user(8), None, 2).await.unwrap();
    let others: Vec<_> = first.iter().map(|row| row.other.clone()).collect();
    assert_eq!(others, [remote(5, "a.test"), remote(6, "a.test")]);
    let rest = store.list(user(8), others.last().cloned(), 2).await.unwrap();
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].other, remote(5, "b.test"));
}

async fn decisions_see_the_counts(store: &dyn ConnectionStore) {
    store.change(change(8, remote(7, "b.test"), write(Some(Relation::Pending), None))).await.unwrap();
    store.change(change(8, remote(8, "b.test"), write(Some(Relation::Blocked), None))).await.unwrap();
    let seen = Arc::new(std::sync::Mutex::new(None));
    let noted = seen.clone();
    let decide = Arc::new(move |sides: &super::Sides| {
        *noted.lock().unwrap() = Some((sides.open, sides.pending, sides.my_status()));
        Decision::Keep
    });
    let looked = Change { decide, ..change(8, remote(8, "b.test"), Decision::Keep) };
    store.change(looked).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), Some((3, 1, Some(Relation::Blocked))));
    assert_eq!(store.open(user(8)).await.unwrap(), 3);
}
