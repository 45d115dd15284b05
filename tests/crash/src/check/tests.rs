use std::collections::BTreeSet;

use crate::{
    check::{Findings, check},
    history::{History, Item, Key, Log, View, What, time_of},
};

const fn key(number: u32) -> Key {
    Key { stream: 1, number, variant: 0 }
}

fn message(number: u32) -> Item {
    Item { conversation: 0, what: What::Message(key(number)), time: 100 + u64::from(number) }
}

/// Three messages that both devices must get, and what they got.
fn history(first: &[Item], second: &[Item]) -> History {
    let log = |device, items: &[Item]| Log { device, way: "socket", items: items.to_vec() };
    History {
        devices: vec!["first".to_owned(), "second".to_owned()],
        posted: (0..3).map(|number| (key(number), Some(BTreeSet::from([0, 1])))).collect(),
        logs: vec![log(0, first), log(1, second)],
        views: vec![],
    }
}

fn all() -> [Item; 3] {
    [message(0), message(1), message(2)]
}

fn counts(findings: &Findings) -> [u64; 5] {
    let Findings { lost, duplicated, reordered, diverged, unexpected, .. } = findings;
    [lost.count, duplicated.count, reordered.count, diverged.count, unexpected.count]
}

#[test]
fn a_history_in_which_everything_came_is_clean() {
    let findings = check(&history(&all(), &all()));
    assert!(findings.is_clean(), "{findings:?}");
    assert_eq!((findings.posted, findings.confirmed, findings.delivered), (3, 3, 6));
}

#[test]
fn what_is_missing_at_one_device_is_lost() {
    let findings = check(&history(&all(), &[message(0), message(2)]));
    assert_eq!(counts(&findings), [1, 0, 0, 0, 0]);
    assert_eq!(findings.delivered, 5);
    assert!(findings.lost.first[0].starts_with("second by socket: "), "{findings:?}");
}

#[test]
fn what_is_missing_on_one_way_alone_is_lost_too() {
    let mut history = history(&all(), &all());
    history.logs.push(Log { device: 0, way: "queue", items: vec![message(0)] });
    let findings = check(&history);
    assert_eq!(counts(&findings), [2, 0, 0, 0, 0]);
    assert_eq!(findings.delivered, 6);
}

#[test]
fn what_came_twice_is_duplicated() {
    let [first, second, third] = all();
    let findings = check(&history(&[first, second, second, third], &all()));
    assert_eq!(counts(&findings), [0, 1, 0, 0, 0]);
    // Later, it is out of order as well.
    let findings = check(&history(&[first, second, third, second], &all()));
    assert_eq!(counts(&findings), [0, 1, 1, 0, 0]);
}

#[test]
fn a_change_that_came_twice_is_duplicated() {
    let join = Item { conversation: 0, what: What::Join, time: 50 };
    let [first, second, third] = all();
    let findings = check(&history(&[join, join, first, second, third], &all()));
    assert_eq!(counts(&findings), [0, 1, 0, 0, 0]);
    let leave = Item { what: What::Leave, ..join };
    let findings = check(&history(&[join, leave, first, second, third], &all()));
    assert_eq!(counts(&findings), [0, 0, 1, 0, 0]);
}

#[test]
fn what_came_after_a_later_one_is_reordered() {
    let [first, second, third] = all();
    let findings = check(&history(&[first, third, second], &all()));
    // By the numbers of its sender, and by the times of the conversation.
    assert_eq!(counts(&findings), [0, 0, 2, 0, 0]);
    // A change and a message.
    let join = Item { conversation: 0, what: What::Join, time: 101 };
    let findings = check(&history(&[first, Item { time: 102, ..second }, join, third], &all()));
    assert_eq!(findings.reordered.count, 1, "{findings:?}");
    // Nothing is promised across conversations.
    let elsewhere = Item { conversation: 1, what: What::Join, time: 1 };
    assert!(check(&history(&[first, second, third, elsewhere], &all())).is_clean());
}

#[test]
fn what_two_sides_see_differently_has_diverged() {
    let mut history = history(&all(), &all());
    let view = |by: &str, value: &str| View { subject: "group".to_owned(), by: by.to_owned(), value: value.to_owned() };
    history.views = vec![view("ann", "a, b"), view("bob", "a, b")];
    assert!(check(&history).is_clean());
    history.views.push(view("cleo", "a"));
    let findings = check(&history);
    assert_eq!(counts(&findings), [0, 0, 0, 1, 0]);
    assert!(!findings.is_settled());
}

#[test]
fn an_event_with_two_times_has_diverged() {
    let [first, second, third] = all();
    let findings = check(&history(&all(), &[first, second, Item { time: third.time + 1, ..third }]));
    assert_eq!(counts(&findings), [0, 0, 0, 1, 0]);
}

#[test]
fn what_was_not_confirmed_may_come_but_only_once() {
    let mut history = history(&all(), &all());
    history.posted.insert(key(3), None);
    assert!(check(&history).is_clean());
    history.logs[0].items.push(message(3));
    assert!(check(&history).is_clean());
    history.logs[0].items.push(message(3));
    assert_eq!(counts(&check(&history)), [0, 1, 0, 0, 0]);
}

#[test]
fn what_nobody_posted_or_was_for_others_is_unexpected() {
    let mut history = history(&all(), &all());
    history.logs[1].items.push(message(7));
    assert_eq!(counts(&check(&history)), [0, 0, 0, 0, 1]);
    history.posted.insert(key(7), Some(BTreeSet::from([0])));
    assert_eq!(counts(&check(&history)), [1, 0, 0, 0, 1]);
}

#[test]
fn keys_and_times_are_read_as_they_are_written() {
    let key = Key { stream: 12, number: 345, variant: 6 };
    assert_eq!(Key::parse(&key.text()), Some(key));
    assert_eq!(Key::parse("warm"), None);
    assert_eq!(time_of("2026-11-24T15:01:02.003Z"), Some(20_261_124_150_102_003));
    assert_eq!(time_of("2026-11-24T15:01:02Z"), None);
}
