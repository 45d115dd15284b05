//! A running service for tests.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use aldis_api::{
    TokenVerifier,
    auth::AuthState,
    token::{self, Claims, Kind},
};
use aldis_proto::{
    channel::{Channel, InProcess},
    internal::v1::{
        AuthSnapshot, Notification, PushRequest, Session, Target, auth_snapshot::Key, push_client::PushClient,
    },
};
use aldis_runtime::{ManualClock, SystemRandom};
use aldis_storage::{Db, DbOptions, Store};
use aldis_types::{ClientId, ConnId, Timestamp, UserId};
use axum::Router;
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use futures::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinSet};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};
use tower::ServiceExt;

use crate::{Config, Dependencies, Sockets, start};

pub(crate) type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Longest wait for anything in a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Running {
    pub router: Router,
    pub sockets: Sockets,
    pub verifier: TokenVerifier,
    pub push: PushClient<Channel>,
    address: SocketAddr,
    _tasks: JoinSet<()>,
    _folder: tempfile::TempDir,
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

pub(crate) fn snapshot(version: u64) -> AuthSnapshot {
    let key = Key { index: 1, public_key: key().verifying_key().to_bytes().to_vec().into() };
    AuthSnapshot { keys: vec![key], version, ..AuthSnapshot::default() }
}

pub(crate) fn user(number: u8) -> UserId {
    UserId::from_bytes(&[number; 16]).unwrap()
}

pub(crate) fn token(user: UserId, connection: u64, client: Option<u64>) -> String {
    let kind = Kind::Access { connection: ConnId(connection) };
    let claims = Claims { user, client: client.map(ClientId), kind, expires: Some(i64::MAX), session: false };
    token::sign(&claims, 1, &key())
}

pub(crate) fn event_id(number: u64) -> Bytes {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    Bytes::copy_from_slice(&id)
}

/// A notification with `{"n":number}` and an event id made of the number.
pub(crate) fn notification(number: u64, user: UserId, clients: &[u64]) -> Notification {
    let target = Target { user: Bytes::copy_from_slice(user.as_bytes()), clients: clients.to_vec() };
    Notification {
        event_id: event_id(number),
        targets: vec![target],
        event: format!(r#"{{"n":{number}}}"#).into(),
        ..Notification::default()
    }
}

pub(crate) fn session(user: UserId, connection: u64) -> Session {
    Session { user: Bytes::copy_from_slice(user.as_bytes()), connection }
}

impl Running {
    pub(crate) async fn start(config: Config) -> Self {
        Self::start_with(config, &DbOptions::default()).await
    }

    pub(crate) async fn start_with(config: Config, store: &DbOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_750_000_000_000)));
        let verifier = TokenVerifier::new();
        verifier.update(AuthState::from_snapshot(&snapshot(1)));
        let deps = Dependencies {
            domain: "alpha.test".parse().unwrap(),
            store: Store::Embedded(Db::open(&folder.path().join("aldis.db"), store).unwrap()),
            clock,
            random: Arc::new(SystemRandom),
            verifier: verifier.clone(),
            users: InProcess::new().channel(),
        };
        let service = start(config, deps).await.unwrap();
        let internal = InProcess::new();
        internal.serve(service.internal);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = service.tasks;
        let router = service.client.clone();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            router: service.client,
            sockets: service.sockets,
            verifier,
            push: PushClient::new(internal.channel()),
            address,
            _tasks: tasks,
            _folder: folder,
        }
    }

    pub(crate) async fn push(&self, notifications: Vec<Notification>) {
        self.push.clone().push(PushRequest { notifications }).await.unwrap();
    }

    /// A request with the token of user 1, connection 1.
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.request("GET", path, Some(&token(user(1), 1, None))).await
    }

    /// The same with a JSON body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = http::Request::post(path)
            .header("authorization", format!("Bearer {}", token(user(1), 1, None)))
            .header("content-type", "application/json")
            .body(axum::body::Body::from(body.to_string()))
            .unwrap();
        answer(self.router.clone().oneshot(request).await.unwrap()).await
    }

    pub(crate) async fn request(&self, method: &str, path: &str, token: Option<&str>) -> (u16, Value) {
        let mut request = http::Request::builder().method(method).uri(path).extension(aldis_api::ApiVersion::MAX);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(axum::body::Body::empty()).unwrap();
        answer(self.router.clone().oneshot(request).await.unwrap()).await
    }

    pub(crate) fn url(&self, user: UserId, connection: u64, client: Option<u64>) -> String {
        let client = client.map(|client| format!("&client={client:x}")).unwrap_or_default();
        format!("ws://{}/await?access_token={}{client}", self.address, token(user, connection, None))
    }

    pub(crate) async fn connect(&self, user: UserId, connection: u64, client: Option<u64>) -> Client {
        tokio_tungstenite::connect_async(self.url(user, connection, client)).await.unwrap().0
    }

    pub(crate) async fn until(&self, condition: impl Fn(&Self) -> bool) {
        let wait = async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap();
    }
}

async fn answer(response: axum::response::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// The next message that is not a protocol ping; `None` when the socket is over.
pub(crate) async fn next(client: &mut Client) -> Option<Message> {
    loop {
        match tokio::time::timeout(PATIENCE, client.next()).await.unwrap()? {
            Ok(Message::Ping(_)) => (),
            Ok(message) => return Some(message),
            Err(_) => return None,
        }
    }
}

/// The next notification, which must be a binary frame.
pub(crate) async fn notified(client: &mut Client) -> Value {
    let Some(Message::Binary(frame)) = next(client).await else { panic!("no binary frame") };
    serde_json::from_slice(&frame).unwrap()
}

/// Says "ping" and waits for "pong", which proves that nothing else was sent before.
pub(crate) async fn nothing_waits(client: &mut Client) {
    client.send(Message::text("ping")).await.unwrap();
    assert_eq!(next(client).await, Some(Message::binary(&b"pong"[..])));
}
