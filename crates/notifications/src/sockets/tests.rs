//! Sockets over loopback.

use std::collections::BTreeMap;

use aldis_api::auth::AuthState;
use aldis_proto::internal::v1::{
    AuthSnapshot, Notification, PushRequest, RemoveClientRequest, RemoveUserQueuesRequest,
    auth_snapshot::{ClientRevocation, FamilyRevocation, UserRevocation},
};
use aldis_types::NotificationId;
use bytes::Bytes;
use futures::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Error, Message, protocol::frame::coding::CloseCode};

use crate::{
    Config,
    tests::{Client, Running, next, nothing_waits, notification, notified, session, snapshot, user},
};

fn tick(value: &Value) -> u64 {
    value["id"].as_str().unwrap().parse::<NotificationId>().unwrap().ticks().unwrap()
}

fn number(value: &Value) -> u64 {
    value["payload"][0]["n"].as_u64().unwrap()
}

fn bytes(number: u8) -> Bytes {
    Bytes::copy_from_slice(user(number).as_bytes())
}

async fn closed_with(client: &mut Client) -> Option<CloseCode> {
    match next(client).await {
        Some(Message::Close(frame)) => frame.map(|frame| frame.code),
        other => panic!("{other:?} instead of a close frame"),
    }
}

#[tokio::test]
async fn sockets_get_what_is_for_them() {
    let service = Running::start(Config::default()).await;
    let mut one = service.connect(user(1), 1, Some(1)).await;
    let mut again = service.connect(user(1), 2, Some(1)).await;
    let mut two = service.connect(user(1), 3, Some(2)).await;
    let mut every = service.connect(user(1), 4, None).await;
    let mut bob = service.connect(user(2), 5, Some(1)).await;
    assert_eq!(service.sockets.count(), 5);
    service.push(vec![notification(1, user(1), &[1]), notification(2, user(1), &[])]).await;
    service.push(vec![notification(3, user(1), &[2])]).await;
    for (client, expected) in
        [(&mut one, vec![1, 2]), (&mut again, vec![1, 2]), (&mut two, vec![2, 3]), (&mut every, vec![1, 2, 3])]
    {
        for number in expected {
            let frame = notified(client).await;
            assert_eq!(frame["payload"], json!([{ "n": number }]));
            assert_eq!(frame["transient"], json!(false));
            let (_, stored) = service.get(&format!("/notifications/{}", frame["id"].as_str().unwrap())).await;
            assert_eq!(stored["payload"], frame["payload"]);
        }
        nothing_waits(client).await;
    }
    nothing_waits(&mut bob).await;
}

#[tokio::test]
async fn the_connection_that_caused_an_event_is_skipped() {
    let service = Running::start(Config::default()).await;
    let mut cause = service.connect(user(1), 1, Some(1)).await;
    let mut other = service.connect(user(1), 2, Some(1)).await;
    let mut bob = service.connect(user(2), 1, Some(1)).await;
    let caused = |user| Notification { origin: Some(session(crate::tests::user(1), 1)), ..notification(1, user, &[]) };
    service.push(vec![caused(user(1)), caused(user(2))]).await;
    assert_eq!(number(&notified(&mut other).await), 1);
    assert_eq!(number(&notified(&mut bob).await), 1);
    nothing_waits(&mut cause).await;
    assert_eq!(service.get("/notifications/last?client=1").await.0, 200);
}

#[tokio::test]
async fn a_second_event_with_the_same_id_is_not_pushed() {
    let service = Running::start(Config::default()).await;
    let mut client = service.connect(user(1), 1, Some(1)).await;
    service.push(vec![notification(1, user(1), &[1]), notification(1, user(1), &[1])]).await;
    service.push(vec![notification(1, user(1), &[1]), notification(2, user(1), &[1])]).await;
    assert_eq!(number(&notified(&mut client).await), 1);
    assert_eq!(number(&notified(&mut client).await), 2);
    nothing_waits(&mut client).await;
    let (_, page) = service.get("/notifications").await;
    assert_eq!(page["notifications"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn transient_events_are_not_stored() {
    let service = Running::start(Config::default()).await;
    let mut client = service.connect(user(1), 1, Some(1)).await;
    let transient = Notification { transient: true, ..notification(2, user(1), &[]) };
    service.push(vec![notification(1, user(1), &[]), transient, notification(3, user(1), &[])]).await;
    let mut frames = Vec::new();
    for _ in 0..3 {
        frames.push(notified(&mut client).await);
    }
    assert_eq!(frames.iter().map(number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(frames[1]["transient"], json!(true));
    let (_, page) = service.get("/notifications").await;
    assert_eq!(page["notifications"].as_array().unwrap().iter().map(number).collect::<Vec<_>>(), [1, 3]);
}

#[tokio::test]
async fn pings_are_answered_and_other_messages_ignored() {
    let service = Running::start(Config::default()).await;
    let mut client = service.connect(user(1), 1, Some(1)).await;
    client.send(Message::text("hello")).await.unwrap();
    client.send(Message::binary(vec![0; 10_000])).await.unwrap();
    client.send(Message::binary(&b"ping"[..])).await.unwrap();
    assert_eq!(next(&mut client).await, Some(Message::binary(&b"pong"[..])));
    nothing_waits(&mut client).await;
    client.send(Message::Ping(Bytes::from_static(b"x"))).await.unwrap();
    assert_eq!(next(&mut client).await, Some(Message::Pong(Bytes::from_static(b"x"))));
}

#[tokio::test]
async fn silent_sockets_are_pinged_and_dead_ones_dropped() {
    let service = Running::start(Config { ping_interval_seconds: 1, ..Config::default() }).await;
    let mut alive = service.connect(user(1), 1, Some(1)).await;
    // This one does not read, and so does not answer.
    let dead = service.connect(user(2), 1, Some(1)).await;
    assert_eq!(service.sockets.count(), 2);
    let reading = tokio::spawn(async move { notified(&mut alive).await });
    service.until(|service| service.sockets.count() == 1).await;
    service.push(vec![notification(1, user(1), &[])]).await;
    assert_eq!(number(&reading.await.unwrap()), 1);
    drop(dead);
}

#[tokio::test]
async fn long_events_arrive_whole() {
    let service = Running::start(Config::default()).await;
    let mut client = service.connect(user(1), 1, Some(1)).await;
    let data = "abcdefgh".repeat(400_000);
    let long = Notification { event: format!(r#"{{"data":"{data}"}}"#).into(), ..notification(1, user(1), &[]) };
    service.push(vec![long, notification(2, user(1), &[])]).await;
    assert_eq!(notified(&mut client).await["payload"][0]["data"].as_str(), Some(data.as_str()));
    assert_eq!(number(&notified(&mut client).await), 2);
}

#[tokio::test]
async fn a_slow_socket_is_closed_and_its_queue_is_whole() {
    let config = Config { socket_backlog_events: 16, socket_backlog_bytes: 64 << 10, ..Config::default() };
    let service = Running::start(config).await;
    let slow = service.connect(user(1), 1, Some(1)).await;
    let data = "x".repeat(512 << 10);
    let mut sent = 0;
    // The kernel takes some megabytes before the server notices.
    while service.sockets.count() > 0 {
        let event = format!(r#"{{"n":{sent},"data":"{data}"}}"#);
        service.push(vec![Notification { event: event.into(), ..notification(sent, user(1), &[]) }]).await;
        sent += 1;
        assert!(sent < 400, "the socket is never closed");
    }
    drop(slow);
    let mut fetched = Vec::new();
    let mut since = String::new();
    loop {
        let (_, page) = service.get(&format!("/notifications?client=1{since}")).await;
        let page_list = page["notifications"].as_array().unwrap();
        fetched.extend(page_list.iter().map(number));
        since = format!("&since={}", page_list.last().unwrap()["id"].as_str().unwrap());
        if page["has_more"] == json!(false) {
            break;
        }
    }
    assert_eq!(fetched, (0..sent).collect::<Vec<_>>());
}

#[tokio::test]
async fn revoked_sessions_lose_their_sockets() {
    let service = Running::start(Config::default()).await;
    let mut staying = service.connect(user(3), 1, Some(1)).await;
    let family = FamilyRevocation { user: bytes(1), family: 7 };
    let client = ClientRevocation { user: bytes(1), client: 9 };
    let all = UserRevocation { user: bytes(2), refuse_expiring_until: i64::MAX, except_family: None };
    let revocations = [
        AuthSnapshot { families: vec![family], ..snapshot(2) },
        AuthSnapshot { clients: vec![client], ..snapshot(3) },
        AuthSnapshot { users: vec![all], ..snapshot(4) },
    ];
    let bound = crate::tests::token(user(1), 8, Some(9));
    let url = service.url(user(1), 8, Some(9)).replace(&crate::tests::token(user(1), 8, None), &bound);
    let mut sockets = [
        service.connect(user(1), (7 << 32) + 1, Some(1)).await,
        tokio_tungstenite::connect_async(url).await.unwrap().0,
        service.connect(user(2), 1, Some(1)).await,
    ];
    for (index, revocation) in revocations.into_iter().enumerate() {
        // What was pushed before still arrives.
        service.push((1..=2).map(|user| notification(9, crate::tests::user(user), &[])).collect()).await;
        service.verifier.update(AuthState::from_snapshot(&revocation));
        let socket = &mut sockets[index];
        assert_eq!(number(&notified(socket).await), 9);
        assert_eq!(closed_with(socket).await, Some(CloseCode::Policy));
    }
    nothing_waits(&mut staying).await;
    service.until(|service| service.sockets.count() == 1).await;
    let refused = tokio_tungstenite::connect_async(service.url(user(2), 1, None)).await.unwrap_err();
    assert!(matches!(refused, Error::Http(response) if response.status() == 401));
}

#[tokio::test]
async fn removed_clients_and_users_lose_queue_and_sockets() {
    let service = Running::start(Config::default()).await;
    let mut one = service.connect(user(1), 1, Some(1)).await;
    let mut two = service.connect(user(1), 2, Some(2)).await;
    let removal = [notification(1, user(1), &[1]), notification(2, user(1), &[2]), notification(3, user(1), &[])];
    service.push(removal.to_vec()).await;
    let mut push = service.push.clone();
    push.remove_client(RemoveClientRequest { user: bytes(1), client: 1 }).await.unwrap();
    assert_eq!(number(&notified(&mut one).await), 1);
    assert_eq!(number(&notified(&mut one).await), 3);
    assert_eq!(closed_with(&mut one).await, Some(CloseCode::Policy));
    let (_, page) = service.get("/notifications").await;
    assert_eq!(page["notifications"].as_array().unwrap().iter().map(number).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(number(&notified(&mut two).await), 2);
    push.remove_user(RemoveUserQueuesRequest { user: bytes(1) }).await.unwrap();
    assert_eq!(number(&notified(&mut two).await), 3);
    assert_eq!(closed_with(&mut two).await, Some(CloseCode::Policy));
    assert_eq!(service.get("/notifications/last").await.0, 404);
}

#[tokio::test]
async fn sockets_that_may_not_be_opened_are_refused() {
    let service = Running::start(Config { sockets_per_user: 2, ..Config::default() }).await;
    let refused = async |url: String| match tokio_tungstenite::connect_async(url).await {
        Err(Error::Http(response)) => {
            let body: Value = serde_json::from_slice(response.body().as_deref().unwrap_or_default()).unwrap();
            (response.status().as_u16(), body["label"].as_str().unwrap_or_default().to_owned())
        }
        other => panic!("{other:?}"),
    };
    let url = service.url(user(1), 1, Some(1));
    let (base, _) = url.split_once('?').unwrap();
    assert_eq!(refused(base.to_owned()).await, (401, "invalid-credentials".to_owned()));
    assert_eq!(refused(format!("{url}z")).await, (400, "bad-request".to_owned()));
    let _first = service.connect(user(1), 1, Some(1)).await;
    let second = service.connect(user(1), 2, Some(1)).await;
    assert_eq!(refused(url.clone()).await, (420, "too-many-requests".to_owned()));
    drop(second);
    service.until(|service| service.sockets.count() == 1).await;
    let _third = service.connect(user(1), 2, Some(1)).await;
    let (status, body) = service.get("/await?client=1").await;
    assert_eq!((status, body["label"].as_str()), (400, Some("malformed-request")));
    assert_eq!(service.sockets.count(), 2);
}

#[tokio::test]
async fn stopping_says_goodbye() {
    let service = Running::start(Config::default()).await;
    let mut client = service.connect(user(1), 1, Some(1)).await;
    service.sockets.close_all();
    assert_eq!(closed_with(&mut client).await, Some(CloseCode::Away));
    service.until(|service| service.sockets.count() == 0).await;
}

/// What a client does: connect, fetch what is new, then live from the socket, dropping what it has fetched already.
struct Reader {
    seen: Vec<u64>,
    since: Option<String>,
    last: u64,
}

impl Reader {
    fn take(&mut self, value: &Value) {
        assert!(tick(value) > self.last, "out of order");
        self.last = tick(value);
        self.since = value["id"].as_str().map(str::to_owned);
        self.seen.push(number(value));
    }

    async fn fetch(&mut self, service: &Running) {
        loop {
            let since = self.since.as_ref().map(|id| format!("&since={id}")).unwrap_or_default();
            let (status, page) = service.get(&format!("/notifications?client=1&size=100{since}")).await;
            assert_eq!(status, 200);
            page["notifications"].as_array().unwrap().iter().for_each(|value| self.take(value));
            if page["has_more"] == json!(false) {
                return;
            }
        }
    }

    /// One connection; frames of one socket must grow, whatever was fetched.
    async fn live(&mut self, service: &Running, connection: u64, frames: usize, total: usize) {
        let mut socket = service.connect(user(1), connection, Some(1)).await;
        self.fetch(service).await;
        let mut last_frame = 0;
        for _ in 0..frames {
            if self.seen.len() == total {
                return;
            }
            let frame = notified(&mut socket).await;
            assert!(tick(&frame) > last_frame, "a socket out of order");
            last_frame = tick(&frame);
            if last_frame > self.last {
                self.take(&frame);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_or_doubled_between_queue_and_socket() {
    const WRITERS: u64 = 8;
    const EACH: u64 = 150;
    let service = Running::start(Config::default()).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let mut push = service.push.clone();
        writers.spawn(async move {
            for index in 0..EACH {
                let number = writer * EACH + index;
                let clients: &[u64] = if number.is_multiple_of(3) { &[] } else { &[1, 2] };
                let request = PushRequest { notifications: vec![notification(number, user(1), clients)] };
                push.push(request.clone()).await.unwrap();
                if number.is_multiple_of(7) {
                    push.push(request).await.unwrap();
                }
            }
        });
    }
    let total = usize::try_from(WRITERS * EACH).unwrap();
    let mut reader = Reader { seen: Vec::new(), since: None, last: 0 };
    let mut connection = 1;
    while reader.seen.len() < total {
        reader.live(&service, connection, 40, total).await;
        connection += 1;
    }
    writers.join_all().await;
    assert!(connection > 2, "the reader was never connected while events came");
    let mut times = BTreeMap::new();
    for number in &reader.seen {
        *times.entry(*number).or_insert(0) += 1;
    }
    assert_eq!(times.len(), total);
    assert!(times.values().all(|times| *times == 1));
    // What one writer pushed one after the other stays in that order.
    for writer in 0..WRITERS {
        assert!(reader.seen.iter().filter(|number| **number / EACH == writer).is_sorted());
    }
}
