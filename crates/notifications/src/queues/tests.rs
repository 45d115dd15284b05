//! Queues: the store's suite on the embedded engine, and the routes.

use std::sync::Arc;

use aldis_proto::internal::v1::{Notification, PushRequest};
use aldis_runtime::{ManualClock, SystemRandom};
use aldis_storage::{Db, DbOptions};
use aldis_types::{ClientId, EventId, Timestamp};
use serde_json::json;

#[cfg(feature = "cql-tests")]
mod cluster;

use super::store::{Bounds, Entry, MIGRATIONS, QueueStore, SqliteQueues, suite};
use crate::{
    Config,
    tests::{Running, event_id, notification, token, user},
};

struct Engine {
    store: SqliteQueues,
    clock: Arc<ManualClock>,
    folder: tempfile::TempDir,
}

async fn open(folder: &tempfile::TempDir, clock: &Arc<ManualClock>) -> SqliteQueues {
    let db = Db::open(&folder.path().join("aldis.db"), &DbOptions::default()).unwrap();
    db.migrate("notifications", MIGRATIONS).await.unwrap();
    let bounds = Bounds { events: 100, bytes: 1 << 20 };
    let random: aldis_runtime::SharedRandom = Arc::new(SystemRandom);
    SqliteQueues::open(db, clock.clone(), &random, bounds).await.unwrap()
}

async fn engine() -> Engine {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_750_000_000_000)));
    Engine { store: open(&folder, &clock).await, clock, folder }
}

#[tokio::test]
async fn sqlite_passes_the_suite() {
    suite::readers_see_what_is_for_them_in_order(&engine().await.store).await;
    suite::an_event_enters_a_queue_once(&engine().await.store).await;
    suite::pages_continue(&engine().await.store).await;
    suite::an_unknown_since_is_reported(&engine().await.store).await;
    suite::removal(&engine().await.store).await;
    let engine = engine().await;
    suite::expiry(&engine.store, |millis| engine.clock.set(Timestamp::from_millis(millis))).await;
    let engine = self::engine().await;
    suite::a_gap_is_reported(&engine.store, |millis| engine.clock.set(Timestamp::from_millis(millis))).await;
}

#[tokio::test]
async fn sqlite_keeps_the_bounds() {
    suite::a_full_queue_drops_the_oldest(&engine().await.store).await;
    let engine = engine().await;
    let entry = |number: u64, size: usize| Entry {
        user: user(1),
        client: None,
        event_id: EventId::from_bytes(&event_id(number)).unwrap(),
        event: vec![b'x'; size].into(),
        missed: false,
    };
    let entries: Vec<Entry> = (0..8).map(|number| entry(number, 300 << 10)).collect();
    engine.store.append(entries.into()).await.unwrap();
    let sizes = async || {
        let page = engine.store.page(user(1), None, None, 100, usize::MAX >> 1).await.unwrap().unwrap();
        page.notifications.iter().map(|stored| stored.event.len()).collect::<Vec<_>>()
    };
    assert_eq!(sizes().await, [300 << 10; 3]);
    // One event may be larger than a whole queue.
    engine.store.append([entry(9, 2 << 20)].into()).await.unwrap();
    assert_eq!(sizes().await, [2 << 20]);
}

#[tokio::test]
async fn what_the_store_has_no_room_for_is_not_overtaken() {
    let full = DbOptions { max_pages: Some(100), ..DbOptions::default() };
    let running = Running::start_with(Config::default(), &full).await;
    let large = |number| Notification {
        event: format!(r#"{{"n":"{}"}}"#, "x".repeat(4_000)).into(),
        ..notification(number, user(1), &[1])
    };
    // More than one write takes; there is room for the end alone.
    let all = (0..300).map(|number| if number < 256 { large(number) } else { notification(number, user(1), &[1]) });
    let refused = running.push.clone().push(PushRequest { notifications: all.collect() }).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    let (status, page) = running.get("/notifications?client=1").await;
    assert_eq!((status, page["notifications"].as_array().map(Vec::len)), (200, Some(0)));
}

#[tokio::test]
async fn ids_grow_over_restarts_and_a_clock_that_goes_back() {
    let Engine { store, clock, folder } = engine().await;
    let entry = |number| Entry {
        user: user(1),
        client: Some(ClientId(1)),
        event_id: EventId::from_bytes(&event_id(number)).unwrap(),
        event: "{}".into(),
        missed: false,
    };
    let first = store.append([entry(1)].into()).await.unwrap()[0].unwrap();
    while store.remove_user(user(1)).await.unwrap() {}
    drop(store);
    clock.set(Timestamp::from_millis(1_600_000_000_000));
    let store = open(&folder, &clock).await;
    let second = store.append([entry(2)].into()).await.unwrap()[0].unwrap();
    assert!(second.ticks() > first.ticks());
    drop(store);
    let store = open(&folder, &clock).await;
    let third = store.append([entry(3)].into()).await.unwrap()[0].unwrap();
    assert!(third.ticks() > second.ticks());
    assert_eq!(second.as_bytes()[8..], third.as_bytes()[8..], "the node stays");
}

#[tokio::test]
async fn sweeping_goes_on_until_nothing_old_is_left() {
    let Engine { store, clock, .. } = engine().await;
    let entry = |number: u64| Entry {
        user: user(u8::try_from(number % 200).unwrap()),
        client: None,
        event_id: EventId::from_bytes(&event_id(number)).unwrap(),
        event: "{}".into(),
        missed: false,
    };
    store.append((0..3000).map(entry).collect()).await.unwrap();
    clock.advance(std::time::Duration::from_secs(60));
    store.append([entry(3000)].into()).await.unwrap();
    super::sweep::sweep_before(&store, Timestamp::from_millis(1_750_000_030_000)).await.unwrap();
    for number in 0..200 {
        assert_eq!(store.last(user(number), None).await.unwrap().is_some(), number == 0);
    }
}

#[tokio::test]
async fn clients_fetch_pages() {
    let service = Running::start(Config::default()).await;
    let (status, body) = service.get("/notifications?client=1&size=100").await;
    let time = json!("2025-06-15T15:06:40.000Z");
    assert_eq!((status, body), (200, json!({ "notifications": [], "has_more": false, "time": time })));
    assert_eq!(service.get("/notifications/last?client=1").await.0, 404);

    service.push((0..150).map(|number| notification(number, user(1), &[1])).collect()).await;
    service.push(vec![notification(1000, user(1), &[2]), notification(1001, user(2), &[])]).await;
    let (_, first) = service.get("/notifications?client=1&size=100").await;
    assert_eq!((first["has_more"].clone(), first["notifications"].as_array().unwrap().len()), (json!(true), 100));
    assert_eq!(first["notifications"][7]["payload"], json!([{ "n": 7 }]));
    let since = first["notifications"][99]["id"].as_str().unwrap();
    let (_, rest) = service.get(&format!("/notifications?client=1&size=10000&since={since}")).await;
    assert_eq!((rest["has_more"].clone(), rest["notifications"].as_array().unwrap().len()), (json!(false), 50));
    assert_eq!(rest["notifications"][0]["payload"], json!([{ "n": 100 }]));

    let (status, last) = service.get("/notifications/last?client=1").await;
    assert_eq!((status, &last), (200, &rest["notifications"][49]));
    let id = last["id"].as_str().unwrap();
    assert_eq!(service.get(&format!("/notifications/{id}?client=1")).await, (200, last.clone()));
    assert_eq!(service.get(&format!("/notifications/{id}?client=2")).await.0, 404);
}

#[tokio::test]
async fn what_clients_ask_wrongly_is_refused() {
    let service = Running::start(Config::default()).await;
    service.push(vec![notification(1, user(1), &[]), notification(2, user(2), &[])]).await;
    let refused = async |path: &str| {
        let (status, body) = service.get(path).await;
        (status, body["label"].as_str().unwrap_or_default().to_owned())
    };
    for query in ["size=99", "size=10001", "size=x", "since=abc", "since=", "client=xyz"] {
        assert_eq!(refused(&format!("/notifications?{query}")).await, (400, "bad-request".to_owned()), "{query}");
    }
    let version_4 = "5d5a7cf5-5a93-4a17-9a4e-4b8b4b5b7a21";
    assert_eq!(refused(&format!("/notifications?since={version_4}")).await, (400, "bad-request".to_owned()));
    let not_found = (404, "not-found".to_owned());
    let version_1 = "24eda4d0-5a93-11e4-8080-808080808080";
    assert_eq!(refused(&format!("/notifications?since={version_1}")).await, not_found);
    assert_eq!(refused(&format!("/notifications/{version_1}")).await, not_found);
    assert_eq!(refused(&format!("/notifications/{version_4}")).await, not_found);
    assert_eq!(refused("/notifications/abc").await, (400, "bad-request".to_owned()));

    let (_, other) = service.request("GET", "/notifications/last", Some(&token(user(2), 1, None))).await;
    let of_bob = other["id"].as_str().unwrap();
    assert_eq!(refused(&format!("/notifications?since={of_bob}")).await, not_found);
    assert_eq!(service.request("GET", "/notifications", None).await.0, 401);
}

#[tokio::test]
async fn a_page_has_at_most_five_mebibytes() {
    let service = Running::start(Config::default()).await;
    let large = |number| {
        let event = format!(r#"{{"data":"{}"}}"#, "x".repeat(2 << 20));
        aldis_proto::internal::v1::Notification { event: event.into(), ..notification(number, user(1), &[]) }
    };
    service.push((0..3).map(large).collect()).await;
    let (_, page) = service.get("/notifications").await;
    assert_eq!((page["has_more"].clone(), page["notifications"].as_array().unwrap().len()), (json!(true), 2));
}

#[tokio::test]
async fn a_push_that_breaks_the_rules_is_refused_whole() {
    let service = Running::start(Config::default()).await;
    let good = notification(1, user(1), &[]);
    let bad = [
        aldis_proto::internal::v1::Notification { event_id: "short".into(), ..good.clone() },
        aldis_proto::internal::v1::Notification { event: "[]".into(), ..good.clone() },
        notification(2, user(1), &[0]),
    ];
    for bad in bad {
        let request = aldis_proto::internal::v1::PushRequest { notifications: vec![good.clone(), bad] };
        let status = service.push.clone().push(request).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
    }
    let many = vec![good.clone(); 4097];
    let request = aldis_proto::internal::v1::PushRequest { notifications: many };
    assert!(service.push.clone().push(request).await.is_err());
    assert_eq!(service.get("/notifications/last").await.0, 404);
}

#[tokio::test]
async fn the_time_is_told() {
    let service = Running::start(Config::default()).await;
    assert_eq!(service.get("/time").await, (200, json!({ "time": "2025-06-15T15:06:40.000Z" })));
    assert_eq!(service.request("GET", "/time", None).await.0, 401);
}

#[test]
fn settings_out_of_range_are_named() {
    assert_eq!(Config::default().check(), Ok(()));
    let config = Config { retention_days: 0, ..Config::default() };
    assert_eq!(config.check(), Err("`notifications.retention_days` = 0; allowed: 1 to 3650".to_owned()));
    let push = crate::config::Push { webhook_url: Some("ftp://push".to_owned()), ..crate::config::Push::default() };
    let error = Config { push, ..Config::default() }.check().unwrap_err();
    assert!(error.starts_with("`notifications.push.webhook_url` = "), "{error}");
}
