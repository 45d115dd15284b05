//! The store's suite on the embedded engine, the routes, and a service that takes pushes over loopback.

use std::sync::{Arc, Mutex};

use aldis_proto::internal::v1::{Notification, RemoveClientRequest};
use aldis_storage::{Db, DbOptions};
use axum::{Router, body::Bytes, extract::State, routing::post};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;

use super::store::{SqlitePushTokens, suite};
use crate::{
    Config,
    config::Push,
    queues::store::MIGRATIONS,
    tests::{Running, notification, user},
};

async fn engine() -> (SqlitePushTokens, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&folder.path().join("aldis.db"), &DbOptions::default()).unwrap();
    db.migrate("notifications", MIGRATIONS).await.unwrap();
    (SqlitePushTokens(db), folder)
}

#[tokio::test]
async fn sqlite_passes_the_suite() {
    let (store, _folder) = engine().await;
    suite::tokens_replace_each_other(&store).await;
    let (store, _folder) = engine().await;
    suite::removal(&store).await;
}

#[cfg(feature = "cql-tests")]
#[tokio::test]
async fn on_cql_the_suite_passes() {
    use super::store::{PushTokenStore as _, ScyllaPushTokens};
    use crate::queues::store::CLUSTER_MIGRATIONS;
    let keyspace = aldis_storage::cql::testing::Keyspace::make("notifications", CLUSTER_MIGRATIONS).await;
    let store = ScyllaPushTokens::open(keyspace.cql.clone()).await.unwrap();
    suite::tokens_replace_each_other(&store).await;
    for number in 1..=2 {
        store.forget(user(number), None).await.unwrap();
    }
    suite::removal(&store).await;
    // Of users who bring one token at once one has it in the end.
    let token = super::PushToken {
        transport: super::Transport::Gcm,
        app: "app".to_owned(),
        token: "same".to_owned(),
        client: aldis_types::ClientId(1),
    };
    futures::future::join_all((1..=6).map(|number| {
        let (store, token) = (&store, token.clone());
        async move { store.add(user(number), token, 10).await.unwrap() }
    }))
    .await;
    let mut owners = 0;
    for number in 1..=6 {
        owners += store.list(user(number)).await.unwrap().len();
    }
    assert_eq!(owners, 1);
    keyspace.remove().await;
}

fn token(text: &str, client: &str) -> Value {
    json!({ "transport": "GCM", "app": "org.example.app", "token": text, "client": client })
}

async fn add(service: &Running, token: &Value) -> (u16, String) {
    let (status, body) = service.post("/push/tokens", token).await;
    (status, body["label"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn tokens_are_kept_listed_and_removed() {
    let service = Running::start(Config::default()).await;
    assert_eq!(service.get("/push/tokens").await, (200, json!({ "tokens": [] })));
    assert_eq!(service.post("/push/tokens", &token("abc", "1")).await, (201, token("abc", "1")));
    assert_eq!(add(&service, &token("def", "b17")).await.0, 201);
    let both = json!({ "tokens": [token("abc", "1"), token("def", "b17")] });
    assert_eq!(service.get("/push/tokens").await, (200, both));
    assert_eq!(
        service.request("DELETE", "/push/tokens/abc", Some(&crate::tests::token(user(1), 1, None))).await.0,
        204
    );
    assert_eq!(
        service.request("DELETE", "/push/tokens/abc", Some(&crate::tests::token(user(1), 1, None))).await.0,
        404
    );
    let removal = RemoveClientRequest { user: user(1).as_bytes().to_vec().into(), client: 0xb17 };
    service.push.clone().remove_client(removal).await.unwrap();
    assert_eq!(service.get("/push/tokens").await, (200, json!({ "tokens": [] })));
}

#[tokio::test]
async fn tokens_that_cannot_be_are_refused() {
    let push = Push { apps: vec!["org.example.app".to_owned()], ..Push::default() };
    let service = Running::start(Config { push, ..Config::default() }).await;
    let with = |key: &str, value: Value| {
        let mut token = token("abc", "1");
        token[key] = value;
        token
    };
    for (token, expected) in [
        (with("transport", json!("APNS_VOIP")), (400, "apns-voip-not-supported")),
        (with("transport", json!("PIGEON")), (400, "bad-request")),
        (with("token", json!("a".repeat(8193))), (413, "token-too-long")),
        (with("token", json!("")), (400, "bad-request")),
        (with("token", json!("line\nbreak")), (400, "bad-request")),
        (with("app", json!("org.example.other")), (404, "app-not-found")),
        (with("client", json!("no hex")), (400, "bad-request")),
    ] {
        let (status, label) = add(&service, &token).await;
        assert_eq!((status, label.as_str()), expected);
    }
}

/// What the operator's service was sent, and what it answers.
#[derive(Clone)]
struct Gateway {
    received: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    answers: Arc<Mutex<Vec<u16>>>,
}

async fn take(State(gateway): State<Gateway>, headers: HeaderMap, body: Bytes) -> StatusCode {
    gateway.received.lock().unwrap().push((headers, body));
    let answer = gateway.answers.lock().unwrap().pop().unwrap_or(200);
    StatusCode::from_u16(answer).unwrap()
}

impl Gateway {
    /// A gateway with its address; its first answers are the last of `answers`.
    async fn start(answers: &[u16]) -> (Self, String) {
        let gateway = Self { received: Arc::default(), answers: Arc::new(Mutex::new(answers.to_vec())) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/push", listener.local_addr().unwrap());
        let router = Router::new().route("/push", post(take)).with_state(gateway.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (gateway, url)
    }

    fn bodies(&self) -> Vec<Value> {
        self.received.lock().unwrap().iter().map(|(_, body)| serde_json::from_slice(body).unwrap()).collect()
    }
}

async fn with_gateway(url: String) -> (Running, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "shared\n").unwrap();
    let push = Push { webhook_url: Some(url), webhook_secret_file: Some(secret), ..Push::default() };
    (Running::start(Config { push, ..Config::default() }).await, folder)
}

fn waking(number: u64, clients: &[u64]) -> Notification {
    Notification { native_push: true, high_priority: true, ..notification(number, user(1), clients) }
}

#[tokio::test]
async fn apps_without_a_socket_are_woken_with_a_signed_push() {
    let (gateway, url) = Gateway::start(&[503]).await;
    let (service, _folder) = with_gateway(url).await;
    for (text, client) in [("one", "1"), ("two", "2")] {
        assert_eq!(add(&service, &token(text, client)).await.0, 201);
    }
    let _two = service.connect(user(1), 7, Some(2)).await;
    service.push(vec![notification(1, user(1), &[1]), waking(2, &[2]), waking(3, &[])]).await;
    service.until(|_| gateway.bodies().len() == 2).await;
    let (_, last) = service.get("/notifications/last?client=1").await;
    let push = json!({
        "transport": "GCM", "app": "org.example.app", "token": "one", "user": user(1), "client": "1", "priority": "high",
        "payload": { "type": "notice", "data": { "id": last["id"] }, "user": user(1) },
    });
    assert_eq!(gateway.bodies(), [push.clone(), push], "again after 503, and nobody else");
    let (headers, body) = gateway.received.lock().unwrap()[0].clone();
    let mut mac = Hmac::<Sha256>::new_from_slice(b"shared").unwrap();
    mac.update(&body);
    let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
    assert_eq!(headers["aldis-signature"], signature);
}

#[tokio::test]
async fn a_token_that_is_gone_is_removed_and_what_is_only_for_the_moment_wakes_nobody() {
    let (gateway, url) = Gateway::start(&[410]).await;
    let (service, _folder) = with_gateway(url).await;
    assert_eq!(add(&service, &token("one", "1")).await.0, 201);
    let typing = Notification { transient: true, ..waking(1, &[]) };
    service.push(vec![typing, waking(2, &[1])]).await;
    service.until(|_| gateway.bodies().len() == 1).await;
    let (_, stored) = service.get("/notifications/last?client=1").await;
    assert_eq!(gateway.bodies()[0]["payload"]["data"]["id"], stored["id"]);
    for _ in 0..600 {
        if service.get("/push/tokens").await.1 == json!({ "tokens": [] }) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the token is still there");
}

#[tokio::test]
async fn spoilt_tokens_are_accepted_or_refused_as_documented() {
    let running = Running::start(Config::default()).await;
    let table = crate::table();
    let token = json!({ "transport": "GCM", "app": "app", "token": "a-token", "client": "16" });
    let mut refused = 0;
    for body in aldis_golden::variations(&token, 60) {
        let (status, answer) = running.post("/push/tokens", &body).await;
        aldis_golden::expect_documented(&table, ("POST", "/push/tokens"), &body, (status, &answer));
        refused += usize::from(status >= 400);
    }
    assert!(refused > 60, "{refused}");
}
