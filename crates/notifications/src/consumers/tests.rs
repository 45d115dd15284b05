//! The window as rules, the store's suite on the embedded engine, and sockets over loopback.

use std::{sync::Arc, time::Duration};

use aldis_proto::internal::v1::{Notification, OpenConsumerRequest};
use aldis_runtime::{ManualClock, SystemRandom};
use aldis_storage::{Db, DbOptions};
use aldis_types::Timestamp;
use bytes::Bytes;
use futures::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Error, Message, protocol::frame::coding::CloseCode};

use super::{
    MAX_IN_FLIGHT,
    store::suite,
    window::{NeverSent, Progress, Window},
};
use crate::{
    Config,
    queues::store::{Bounds, MIGRATIONS, SqliteQueues},
    tests::{Client, Running, next, nothing_waits, notification, notified, user},
};

#[test]
fn acknowledged_in_order_the_floor_follows() {
    let mut window = Window::new(10, vec![]);
    assert_eq!((window.send(11), window.send(12), window.send(13)), (Some(1), Some(2), Some(3)));
    assert_eq!(window.take_progress(), None);
    window.acknowledge(1, false).unwrap();
    assert_eq!(window.take_progress(), Some(Progress { floor: 11, above: vec![] }));
    window.acknowledge(3, true).unwrap();
    assert_eq!(window.take_progress(), Some(Progress { floor: 13, above: vec![] }));
    window.acknowledge(2, false).unwrap();
    assert_eq!(window.take_progress(), None, "what was acknowledged already changes nothing");
    assert_eq!(window.acknowledge(4, false), Err(NeverSent));
}

#[test]
fn acknowledged_out_of_order_the_floor_waits_for_the_first() {
    let mut window = Window::new(10, vec![14, 9]);
    assert_eq!((window.send(11), window.send(12), window.send(13)), (Some(1), Some(2), Some(3)));
    assert_eq!(window.send(14), None, "acknowledged on an earlier socket");
    window.acknowledge(3, false).unwrap();
    assert_eq!(window.take_progress(), Some(Progress { floor: 10, above: vec![13] }));
    window.acknowledge(1, false).unwrap();
    assert_eq!(window.take_progress(), Some(Progress { floor: 11, above: vec![] }));
    window.acknowledge(2, false).unwrap();
    assert_eq!(window.take_progress(), Some(Progress { floor: 14, above: vec![] }));
    assert_eq!(window.send_transient(), 4);
    window.acknowledge(4, false).unwrap();
    assert_eq!(window.take_progress(), None, "what is not kept needs no memory");
}

#[test]
fn no_more_is_in_flight_than_may_be() {
    let mut window = Window::new(0, vec![]);
    for tick in 1..=MAX_IN_FLIGHT as u64 {
        window.send(tick);
    }
    assert_eq!(window.room(), 0);
    window.acknowledge(100, true).unwrap();
    assert_eq!(window.room(), 100);
}

async fn engine() -> (SqliteQueues, Arc<ManualClock>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_750_000_000_000)));
    let db = Db::open(&folder.path().join("aldis.db"), &DbOptions::default()).unwrap();
    db.migrate("notifications", MIGRATIONS).await.unwrap();
    let bounds = Bounds { events: 100, bytes: 1 << 20 };
    let random: aldis_runtime::SharedRandom = Arc::new(SystemRandom);
    (SqliteQueues::open(db, clock.clone(), &random, bounds).await.unwrap(), clock, folder)
}

#[tokio::test]
async fn sqlite_passes_the_suite() {
    let (store, ..) = engine().await;
    suite::standings_rise(&store).await;
    let (store, ..) = engine().await;
    suite::what_does_not_fit_is_missed(&store).await;
    let (store, clock, _folder) = engine().await;
    suite::what_is_missed_is_marked(&store, |millis| clock.set(Timestamp::from_millis(millis))).await;
}

#[cfg(feature = "cql-tests")]
#[tokio::test]
async fn on_cql_the_suite_passes() {
    use crate::queues::store::{CLUSTER_MIGRATIONS, ScyllaQueues};
    let keyspace = aldis_storage::cql::testing::Keyspace::make("notifications", CLUSTER_MIGRATIONS).await;
    let engine = async || {
        for table in ["notifications_queue", "notifications_state", "notifications_consumer"] {
            keyspace.truncate(table).await;
        }
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_750_000_000_000)));
        let bounds = Bounds { events: 100, bytes: 1 << 20 };
        let random: aldis_runtime::SharedRandom = Arc::new(SystemRandom);
        let retention = std::time::Duration::from_secs(28 * 86_400);
        let cql = keyspace.cql.clone();
        (ScyllaQueues::open(cql, clock.clone(), &random, bounds, retention).await.unwrap(), clock)
    };
    suite::standings_rise(&engine().await.0).await;
    suite::what_does_not_fit_is_missed(&engine().await.0).await;
    let (store, clock) = engine().await;
    suite::what_is_missed_is_marked(&store, |millis| clock.set(Timestamp::from_millis(millis))).await;
    keyspace.remove().await;
}

/// A service with client 1 of user 1 open as a consumer.
async fn service(config: Config) -> Running {
    let service = Running::start(config).await;
    service.push(vec![notification(900, user(1), &[1])]).await;
    let user = Bytes::copy_from_slice(user(1).as_bytes());
    service.push.clone().open_consumer(OpenConsumerRequest { user, client: 1 }).await.unwrap();
    service
}

fn url(service: &Running, connection: u64, marker: &str) -> String {
    let legacy = service.url(user(1), connection, Some(1));
    format!("{}&sync_marker={marker}", legacy.replace("/await?", "/events?"))
}

async fn connect(service: &Running, connection: u64, marker: &str) -> Client {
    tokio_tungstenite::connect_async(url(service, connection, marker)).await.unwrap().0
}

/// The number of the next event and its tag.
async fn event(client: &mut Client) -> (u64, u64) {
    let frame = notified(client).await;
    assert_eq!(frame["type"], "event", "{frame}");
    let data = &frame["data"];
    (data["event"]["payload"][0]["n"].as_u64().unwrap(), data["delivery_tag"].as_u64().unwrap())
}

/// The tag with which the marker comes.
async fn synchronized(client: &mut Client, marker: &str) -> u64 {
    let frame = notified(client).await;
    assert_eq!((&frame["type"], &frame["data"]["marker_id"]), (&json!("synchronization"), &json!(marker)), "{frame}");
    frame["data"]["delivery_tag"].as_u64().unwrap()
}

async fn say(client: &mut Client, said: &Value) {
    client.send(Message::binary(said.to_string())).await.unwrap();
}

async fn acknowledge(client: &mut Client, tag: u64, multiple: bool) {
    say(client, &json!({ "type": "ack", "data": { "delivery_tag": tag, "multiple": multiple } })).await;
}

async fn closed_with(client: &mut Client) -> (CloseCode, String) {
    match next(client).await {
        Some(Message::Close(Some(frame))) => (frame.code, frame.reason.to_string()),
        other => panic!("{other:?} instead of a close frame"),
    }
}

/// Connects until what comes first is `number`: acknowledgements are not answered.
async fn eventually_first(service: &Running, connection: u64, number: u64) -> Client {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let mut client = connect(service, connection, "again").await;
        if event(&mut client).await.0 == number {
            return client;
        }
        assert!(tokio::time::Instant::now() < deadline, "{number} never came first");
    }
}

#[tokio::test]
async fn events_come_from_when_the_client_was_opened_until_they_are_acknowledged() {
    let service = service(Config::default()).await;
    service
        .push(vec![notification(1, user(1), &[1]), notification(2, user(1), &[]), notification(3, user(1), &[2])])
        .await;
    let mut client = connect(&service, 1, "first").await;
    assert_eq!((event(&mut client).await, event(&mut client).await), ((1, 1), (2, 2)));
    assert_eq!(synchronized(&mut client, "first").await, 3);
    service.push(vec![notification(4, user(1), &[1])]).await;
    assert_eq!(event(&mut client).await, (4, 4));
    acknowledge(&mut client, 2, false).await;
    acknowledge(&mut client, 1, false).await;
    drop(client);

    let mut client = eventually_first(&service, 2, 4).await;
    synchronized(&mut client, "again").await;
    service.push(vec![notification(5, user(1), &[1])]).await;
    let (number, tag) = event(&mut client).await;
    assert_eq!(number, 5);
    acknowledge(&mut client, tag, true).await;
    drop(client);
    service.push(vec![notification(6, user(1), &[1])]).await;
    let mut client = eventually_first(&service, 3, 6).await;
    synchronized(&mut client, "again").await;
}

#[tokio::test]
async fn what_is_only_for_the_moment_comes_once() {
    let service = service(Config::default()).await;
    let mut client = connect(&service, 1, "m").await;
    synchronized(&mut client, "m").await;
    let typing = Notification { transient: true, ..notification(1, user(1), &[]) };
    service.push(vec![typing, notification(2, user(1), &[1])]).await;
    let (first, second) = (event(&mut client).await.0, event(&mut client).await.0);
    assert_eq!([first.min(second), first.max(second)], [1, 2]);
    drop(client);
    let mut client = connect(&service, 2, "n").await;
    assert_eq!(event(&mut client).await.0, 2);
    synchronized(&mut client, "n").await;
}

#[tokio::test]
async fn a_client_that_does_not_acknowledge_gets_no_more_than_may_be_in_flight() {
    let service = service(Config::default()).await;
    let most = MAX_IN_FLIGHT as u64;
    service.push((1..=most + 20).map(|number| notification(number, user(1), &[1])).collect()).await;
    let mut client = connect(&service, 1, "end").await;
    for number in 1..=most {
        assert_eq!(event(&mut client).await, (number, number));
    }
    acknowledge(&mut client, 20, true).await;
    for number in most + 1..=most + 20 {
        assert_eq!(event(&mut client).await.0, number);
    }
    acknowledge(&mut client, most + 20, true).await;
    synchronized(&mut client, "end").await;
}

#[tokio::test]
async fn a_client_that_missed_events_is_told_first_and_has_to_say_that_it_knows() {
    let service = service(Config { queue_events: 100, ..Config::default() }).await;
    service.push((1..=150).map(|number| notification(number, user(1), &[1])).collect()).await;
    let mut client = connect(&service, 1, "m").await;
    assert_eq!(notified(&mut client).await, json!({ "type": "notifications_missed" }));
    acknowledge(&mut client, 1, false).await;
    assert_eq!(closed_with(&mut client).await, (CloseCode::Unsupported, "unexpected-ack".to_owned()));
    let mut client = connect(&service, 2, "m").await;
    assert_eq!(notified(&mut client).await, json!({ "type": "notifications_missed" }));
    say(&mut client, &json!({ "type": "ack_full_sync" })).await;
    for number in 51..=150 {
        assert_eq!(event(&mut client).await.0, number);
    }
    synchronized(&mut client, "m").await;
    drop(client);
    let mut client = connect(&service, 3, "m").await;
    assert_eq!(event(&mut client).await.0, 51, "told once");
}

#[tokio::test]
async fn a_second_socket_of_a_client_takes_over() {
    let service = service(Config::default()).await;
    service.push(vec![notification(1, user(1), &[1])]).await;
    let mut first = connect(&service, 1, "one").await;
    assert_eq!(event(&mut first).await.0, 1);
    synchronized(&mut first, "one").await;
    let mut second = connect(&service, 1, "two").await;
    assert_eq!(closed_with(&mut first).await.0, CloseCode::Policy);
    assert_eq!(event(&mut second).await.0, 1);
    synchronized(&mut second, "two").await;
}

#[tokio::test]
async fn without_a_client_everything_comes_that_is_new() {
    let service = service(Config::default()).await;
    service.push(vec![notification(1, user(1), &[1])]).await;
    let address = service.url(user(1), 1, None).replace("/await?", "/events?");
    let mut client = tokio_tungstenite::connect_async(address).await.unwrap().0;
    service.push(vec![notification(2, user(1), &[1]), notification(3, user(1), &[2])]).await;
    let (number, tag) = event(&mut client).await;
    assert_eq!(number, 2);
    acknowledge(&mut client, tag, false).await;
    assert_eq!(event(&mut client).await.0, 3);
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let service = service(Config::default()).await;
    let refused = async |url: String| match tokio_tungstenite::connect_async(url).await {
        Err(Error::Http(response)) => response.status().as_u16(),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(service.url(user(1), 1, Some(2)).replace("/await?", "/events?")).await, 404);
    assert_eq!(refused(url(&service, 1, &"m".repeat(300))).await, 400);
    for said in [
        "ping",
        "{}",
        r#"{"type":"ack"}"#,
        r#"{"type":"ack","data":{"delivery_tag":7}}"#,
        r#"{"type":"ack_full_sync"}"#,
    ] {
        let mut client = connect(&service, 1, "m").await;
        synchronized(&mut client, "m").await;
        client.send(Message::text(said)).await.unwrap();
        assert_eq!(closed_with(&mut client).await.0, CloseCode::Unsupported, "{said}");
    }
}

#[tokio::test]
async fn clients_of_every_kind_are_told_that_they_missed_something() {
    let service = service(Config::default()).await;
    let mut acknowledging = connect(&service, 1, "m").await;
    synchronized(&mut acknowledging, "m").await;
    let mut listening = service.connect(user(1), 2, Some(2)).await;
    let mut other = service.connect(user(2), 1, Some(3)).await;
    service.push(vec![notification(1, user(1), &[]), notification(1, user(2), &[])]).await;
    assert_eq!(event(&mut acknowledging).await.0, 1);
    let since = notified(&mut listening).await["id"].as_str().unwrap().to_owned();
    notified(&mut other).await;
    let missed = |number| Notification { missed: true, event: Bytes::new(), ..notification(number, user(1), &[]) };
    service.push(vec![missed(2), missed(3), notification(4, user(1), &[])]).await;

    assert_eq!(closed_with(&mut listening).await.0, CloseCode::Again);
    let page = |since: &str| format!("/notifications?client=2&since={since}");
    assert_eq!(service.get(&page(&since)).await.0, 404);
    let (_, all) = service.get("/notifications?client=2").await;
    let all = all["notifications"].as_array().unwrap().clone();
    let last = |back: usize| all[all.len() - back]["id"].as_str().unwrap();
    assert_eq!(all[all.len() - 2]["payload"][0]["type"], "notifications.missed");
    let (status, after) = service.get(&page(last(2))).await;
    assert_eq!((status, after["notifications"][0]["payload"][0]["n"].as_u64()), (200, Some(4)));
    assert_eq!(service.get(&page(last(1))).await.0, 200);

    let mut again = connect(&service, 3, "n").await;
    assert_eq!(notified(&mut again).await, json!({ "type": "notifications_missed" }));
    say(&mut again, &json!({ "type": "ack_full_sync" })).await;
    assert_eq!(event(&mut again).await.0, 1, "it was not acknowledged");
    assert_eq!(notified(&mut again).await["data"]["event"]["payload"][0]["type"], "notifications.missed");
    assert_eq!(event(&mut again).await.0, 4);
    synchronized(&mut again, "n").await;
    nothing_waits(&mut other).await;

    let request = Notification { missed: true, ..notification(9, user(1), &[1]) };
    let request = aldis_proto::internal::v1::PushRequest { notifications: vec![request] };
    assert!(service.push.clone().push(request).await.is_err(), "all clients of a user, or none");
}
