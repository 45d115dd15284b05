//! Versions, throttling, CORS, compression, limits, addresses: everything around a route.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use aldis_proto::internal::v1::{AuthSnapshot, auth_snapshot};
use aldis_runtime::listen::{self, Door, Kind as Listener};
use aldis_types::{ConnId, UserId};
use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, DefaultBodyLimit},
    response::Response,
    routing::{get, post},
};
use ed25519_dalek::SigningKey;
use http::{HeaderMap, Method, Request, StatusCode, header};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{ClientAddress, ClientConfig, Front};
use crate::{
    ApiVersion, Json, TokenVerifier,
    auth::AuthState,
    token::{Claims, Kind, sign},
};

const ADDRESS: &str = "203.0.113.7";

fn routes() -> Router {
    let version = |version: ApiVersion| async move { version.0.to_string() };
    let echo = |Json(body): Json<Value>| async move { Json(body) };
    let identity = |headers: HeaderMap| async move {
        let names: Vec<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
        names.join(",")
    };
    let address = |address: axum::Extension<ClientAddress>| async move { address.0.0.to_string() };
    Router::new()
        .route("/self", get(version))
        .route("/api-version", get(version))
        .route("/login", post(echo))
        .route("/access", post(|| async {}))
        .route("/echo", post(echo))
        .route("/large", post(echo).layer(DefaultBodyLimit::max(4 * 1024 * 1024)))
        .route("/identity", get(identity))
        .route("/address", get(address))
        .route("/users/{id}", get(|| async { "user" }))
        .route("/panic", get(|| async { panic!("on purpose") as () }))
        .route("/slow", get(std::future::pending::<()>))
        .route("/assets", post(std::future::pending::<()>))
        .route("/one2one-conversations", post(|| async {}))
}

fn front(config: ClientConfig) -> Front {
    Front::new(routes(), Arc::default(), config, TokenVerifier::new()).unwrap()
}

fn unthrottled() -> ClientConfig {
    let mut config = ClientConfig::default();
    config.throttle.enabled = false;
    config
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn label(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(body["code"], self.status.as_u16());
        // Clients try again after a 420 only when it has no text.
        assert_eq!(body["message"].as_str().unwrap().is_empty(), self.status == 420);
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/json");
        body["label"].as_str().unwrap().to_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

async fn send(front: &Front, mut request: Request<Body>, from: &str) -> Answer {
    let address: IpAddr = from.parse().unwrap();
    request.extensions_mut().insert(ConnectInfo(SocketAddr::new(address, 4711)));
    let response: Response = front.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 16 * 1024 * 1024).await.unwrap();
    assert!(parts.headers.contains_key("request-id"));
    Answer { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

fn request(method: Method, path: &str) -> Request<Body> {
    Request::builder().method(method).uri(path).body(Body::empty()).unwrap()
}

async fn get_path(front: &Front, path: &str) -> Answer {
    send(front, request(Method::GET, path), ADDRESS).await
}

#[tokio::test]
async fn the_version_prefix_is_taken_off() {
    let front = front(unthrottled());
    for (path, version) in [("/self", "8"), ("/v8/self", "8"), ("/v13/self?x=1", "13"), ("/v99/api-version", "8")] {
        let answer = get_path(&front, path).await;
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, version), "{path}");
    }
    for path in ["/v7/self", "/v14/self", "/v0/self", "/v99999999999/self", "/v9/i/users", "/v9/i", "/v77"] {
        let answer = get_path(&front, path).await;
        assert_eq!((answer.status, answer.label().as_str()), (StatusCode::NOT_FOUND, "unsupported-version"), "{path}");
    }
    assert!(get_path(&front, "/v14/self").await.body.contains("Version v14 is not supported"));
}

#[tokio::test]
async fn what_no_route_serves_is_answered_in_the_documented_form() {
    let front = front(unthrottled());
    for path in ["/", "/v9", "/nothing", "/v9/nothing", "/i/users", "/v9/v9/self", "/vx/self", "/v/self"] {
        let answer = get_path(&front, path).await;
        assert_eq!((answer.status, answer.label().as_str()), (StatusCode::NOT_FOUND, "no-endpoint"), "{path}");
    }
    let answer = send(&front, request(Method::DELETE, "/v9/self"), ADDRESS).await;
    assert_eq!((answer.status, answer.label().as_str()), (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed"));
    let answer = get_path(&front, "/panic").await;
    assert_eq!((answer.status, answer.label().as_str()), (StatusCode::INTERNAL_SERVER_ERROR, "server-error"));
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_unless_it_bounds_itself() {
    let front = front(ClientConfig { request_timeout_seconds: 1, ..unthrottled() });
    let mut upgrade = request(Method::GET, "/slow");
    upgrade.headers_mut().insert(header::UPGRADE, "websocket".parse().unwrap());
    let socket = send(&front, upgrade, ADDRESS);
    let upload = send(&front, request(Method::POST, "/v13/assets"), ADDRESS);
    let answer = tokio::select! {
        _ = socket => panic!("the upgrade was answered"),
        _ = upload => panic!("the upload was answered"),
        answer = get_path(&front, "/slow") => answer,
    };
    assert_eq!((answer.status, answer.label().as_str()), (StatusCode::REQUEST_TIMEOUT, "client-error"));
}

#[tokio::test]
async fn identity_headers_from_outside_are_dropped() {
    let mut request = request(Method::GET, "/identity");
    for name in ["z-user", "z-connection", "z-whatever", "x-kept"] {
        request.headers_mut().insert(name, "1".parse().unwrap());
    }
    assert_eq!(send(&front(unthrottled()), request, ADDRESS).await.body, "x-kept");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn encoded(path: &str, encoding: &str, body: Vec<u8>) -> Request<Body> {
    Request::post(path).header(header::CONTENT_ENCODING, encoding).body(Body::from(body)).unwrap()
}

#[tokio::test]
async fn compressed_bodies_are_read_within_the_limit() {
    let front = front(unthrottled());
    let answer = send(&front, encoded("/echo", "gzip", gzip(br#"{"a":1}"#)), ADDRESS).await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, r#"{"a":1}"#));

    let answer = send(&front, encoded("/echo", "gzip", b"{}".to_vec()), ADDRESS).await;
    assert_eq!((answer.status, answer.label().as_str()), (StatusCode::BAD_REQUEST, "client-error"));
    assert!(answer.body.contains("Invalid request body compression"));

    let answer = send(&front, encoded("/echo", "br", b"{}".to_vec()), ADDRESS).await;
    assert_eq!((answer.status, answer.label().as_str()), (StatusCode::UNSUPPORTED_MEDIA_TYPE, "client-error"));

    let bomb = gzip(json!(" ".repeat(2 * 1024 * 1024)).to_string().as_bytes());
    assert!(bomb.len() < 64 * 1024);
    let answer = send(&front, encoded("/echo", "gzip", bomb.clone()), ADDRESS).await;
    assert_eq!((answer.status, answer.label().as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "client-error"));
    assert_eq!(send(&front, encoded("/large", "gzip", bomb), ADDRESS).await.status, StatusCode::OK);

    let large = Request::post("/echo").body(Body::from(vec![b' '; 600 * 1024])).unwrap();
    assert_eq!(send(&front, large, ADDRESS).await.status, StatusCode::PAYLOAD_TOO_LARGE);
}

fn from_origin(method: Method, path: &str, origin: &str) -> Request<Body> {
    let mut request = request(method, path);
    request.headers_mut().insert(header::ORIGIN, origin.parse().unwrap());
    request.headers_mut().insert(header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization, x-one".parse().unwrap());
    request
}

#[tokio::test]
async fn pages_of_allowed_origins_may_call() {
    let config = ClientConfig { allowed_origins: vec!["https://app.example.com".to_owned()], ..unthrottled() };
    let front = front(config);
    let answer = send(&front, from_origin(Method::OPTIONS, "/v9/anything", "https://app.example.com"), ADDRESS).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example.com"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET, POST, PUT, DELETE, OPTIONS"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("authorization, x-one"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);

    let answer = send(&front, from_origin(Method::POST, "/v9/access", "https://app.example.com"), ADDRESS).await;
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(answer.header("access-control-expose-headers"), Some("Request-Id, Location, Replay-Nonce"));
    assert_eq!(answer.header("vary"), Some("Origin"));
    let answer = send(&front, from_origin(Method::GET, "/v99/self", "https://app.example.com"), ADDRESS).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example.com"));

    for origin in ["https://evil.example.com", "http://app.example.com", "http://localhost:3000", "null"] {
        let answer = send(&front, from_origin(Method::OPTIONS, "/self", origin), ADDRESS).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        let answers = [answer, send(&front, from_origin(Method::GET, "/self", origin), ADDRESS).await];
        assert!(answers.iter().all(|it| it.header("access-control-allow-origin").is_none()), "{origin}");
    }
    let answer = send(&front, from_origin(Method::GET, "/api-version", "https://else.example.com"), ADDRESS).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn loopback_origins_are_allowed_by_setting_only() {
    let front = front(ClientConfig { allow_loopback_origins: true, ..unthrottled() });
    let allowed = ["http://localhost", "https://localhost:8081", "http://127.0.0.9:80", "http://[::1]:3000"];
    for origin in allowed {
        let answer = send(&front, from_origin(Method::GET, "/self", origin), ADDRESS).await;
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
    }
    for origin in ["http://localhost.evil.com", "http://127.0.0.1.evil.com", "ftp://localhost", "http://localhost:x"] {
        let answer = send(&front, from_origin(Method::GET, "/self", origin), ADDRESS).await;
        assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
    }
}

async fn statuses(front: &Front, count: usize, make: impl Fn() -> Request<Body>, from: &str) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(send(front, make(), from).await.status.as_u16());
    }
    statuses
}

fn login() -> Request<Body> {
    Request::post("/v9/login").body(Body::from("{}")).unwrap()
}

#[tokio::test]
async fn open_routes_are_counted_per_address_and_route() {
    let front = front(ClientConfig::default());
    assert_eq!(statuses(&front, 10, login, ADDRESS).await, [200; 10]);
    let answer = send(&front, login(), ADDRESS).await;
    assert_eq!((answer.status.as_u16(), answer.label().as_str()), (420, "too-many-requests"));
    assert!((1..=12).contains(&answer.header("retry-after").unwrap().parse::<u64>().unwrap()));
    assert_eq!(statuses(&front, 1, login, "203.0.113.8").await, [200]);
    let other_route = || request(Method::GET, "/sso/settings");
    assert_eq!(statuses(&front, 1, other_route, ADDRESS).await, [404]);
    let exempt = || request(Method::POST, "/access");
    assert_eq!(statuses(&front, 50, exempt, ADDRESS).await, [200; 50]);
    assert_eq!(statuses(&front, 50, || request(Method::GET, "/assets/a.test/3-1-x"), ADDRESS).await, [404; 50]);
}

#[tokio::test]
async fn addresses_of_one_ipv6_network_count_as_one() {
    let front = front(ClientConfig::default());
    assert_eq!(statuses(&front, 10, login, "2001:db8::1").await, [200; 10]);
    assert_eq!(statuses(&front, 1, login, "2001:db8::2").await, [420]);
    assert_eq!(statuses(&front, 1, login, "2001:db8:0:1::1").await, [200]);
}

fn with_token(user: UserId, path: &str, method: Method) -> Request<Body> {
    let claims =
        Claims { user, client: None, kind: Kind::Access { connection: ConnId(1) }, expires: None, session: false };
    let token = sign(&claims, 1, &SigningKey::from_bytes(&[7; 32]));
    let mut request = request(method, path);
    request.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    request
}

#[tokio::test]
async fn other_routes_are_counted_per_user() {
    let verifier = TokenVerifier::new();
    let public_key = SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes().to_vec().into();
    let keys = vec![auth_snapshot::Key { index: 1, public_key }];
    verifier.update(AuthState::from_snapshot(&AuthSnapshot { keys, version: 1, ..AuthSnapshot::default() }));
    let front = Front::new(routes(), Arc::default(), ClientConfig::default(), verifier).unwrap();
    let (anna, bert): (UserId, UserId) = (
        "c5eda68f-93f3-4413-93fe-d45e81f8a9f9".parse().unwrap(),
        "c5eda68f-93f3-4413-93fe-d45e81f8a9fa".parse().unwrap(),
    );
    // The burst is 20 and refills at 10 per second, so that 60 requests at once meet the limit on any machine that
    // answers them within 4 seconds.
    let calls = statuses(&front, 60, || with_token(anna, "/self", Method::GET), ADDRESS).await;
    assert_eq!(calls[..20], [200; 20]);
    assert!(calls.contains(&420), "{calls:?}");
    assert_eq!(statuses(&front, 5, || with_token(bert, "/self", Method::GET), ADDRESS).await, [200; 5]);
    let relaxed = || with_token(anna, "/one2one-conversations", Method::POST);
    assert_eq!(statuses(&front, 60, relaxed, ADDRESS).await, [200; 60]);
    // Without a valid token the address is counted.
    let calls = statuses(&front, 60, || request(Method::GET, "/self"), ADDRESS).await;
    assert!(calls.contains(&420));
    assert_eq!(statuses(&front, 5, || request(Method::GET, "/self"), "203.0.113.8").await, [200; 5]);
}

#[tokio::test]
async fn requests_under_way_are_bounded_and_counted_out() {
    let mut config = ClientConfig::default();
    config.throttle.user_parallel = 2;
    (config.throttle.user_per_second, config.throttle.user_burst) = (1_000_000, 1_000_000);
    let front = front(config);
    let slow = || {
        let front = front.clone();
        tokio::spawn(async move { send(&front, request(Method::GET, "/slow"), ADDRESS).await.status })
    };
    let (first, second) = (slow(), slow());
    let quick = || async { get_path(&front, "/self").await.status.as_u16() };
    while quick().await != 420 {
        tokio::task::yield_now().await;
    }
    first.abort();
    second.abort();
    let _ = tokio::join!(first, second);
    while quick().await != 200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn strangers_share_buckets_once_too_many_callers_are_known() {
    let mut config = ClientConfig::default();
    config.throttle.max_callers = 1000;
    let front = front(config);
    for index in 0..2100_u32 {
        let from = format!("10.1.{}.{}", index / 256, index % 256);
        send(&front, login(), &from).await;
    }
    let throttle = front.shared.throttle.as_ref().unwrap();
    assert!(throttle.known_callers() <= 1000 + 1024 + 1024, "{}", throttle.known_callers());
    let mut refused = 0;
    for index in 0..20_000_u32 {
        let from = format!("10.{}.{}.{}", 2 + index / 65_536, (index / 256) % 256, index % 256);
        refused += usize::from(send(&front, login(), &from).await.status.as_u16() == 420);
    }
    assert!(refused > 0);
    assert!(throttle.known_callers() <= 1000 + 1024 + 1024, "{}", throttle.known_callers());
}

#[tokio::test]
async fn the_clients_address_comes_from_trusted_proxies_only() {
    let config = ClientConfig { trusted_proxies: vec!["10.0.0.0/8".to_owned()], ..unthrottled() };
    let front = front(config);
    let cases = [
        (ADDRESS, "198.51.100.1", ADDRESS),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "6.6.6.6, 198.51.100.1, 10.2.3.4", "198.51.100.1"),
        ("10.0.0.1", "6.6.6.6, nonsense", "10.0.0.1"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
    ];
    for (from, forwarded, expected) in cases {
        let mut request = request(Method::GET, "/address");
        request.headers_mut().insert("x-forwarded-for", forwarded.parse().unwrap());
        request.headers_mut().insert("x-forwarded-proto", "https".parse().unwrap());
        let answer = send(&front, request, from).await;
        assert_eq!(answer.body, expected);
        let secure = answer.header("strict-transport-security").is_some();
        assert_eq!(secure, from != ADDRESS);
    }
}

#[test]
fn settings_that_make_no_sense_are_refused_with_key_and_value() {
    ClientConfig::default().check().unwrap();
    let mut configs = vec![
        ClientConfig { trusted_proxies: vec!["10.0.0.0/99".to_owned()], ..ClientConfig::default() },
        ClientConfig { allowed_origins: vec!["app.example.com".to_owned()], ..ClientConfig::default() },
        ClientConfig { body_limit_bytes: 1, ..ClientConfig::default() },
        ClientConfig { request_timeout_seconds: 0, ..ClientConfig::default() },
    ];
    let mut config = ClientConfig::default();
    config.throttle.user_burst = 0;
    configs.push(config);
    for config in configs {
        let error = config.check().unwrap_err();
        assert!(error.starts_with("`client.") && error.contains("allowed: "), "{error}");
    }
}

/// A client that writes its whole request before it reads anything, as many do.
struct WritesFirst(BufReader<TcpStream>);

impl WritesFirst {
    fn post(&mut self, path: &str, extra: &str, announced: usize, body: &[u8]) -> (u16, String) {
        let head = format!("POST {path} HTTP/1.1\r\nhost: a.test\r\n{extra}content-length: {announced}\r\n\r\n");
        self.0.get_mut().write_all(head.as_bytes()).unwrap();
        self.0.get_mut().write_all(body).unwrap();
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "the connection was closed");
            let line = line.trim_end();
            if let Some(code) = line.strip_prefix("HTTP/1.1 ") {
                status = code[..3].parse().unwrap();
            } else if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (status, String::from_utf8(body).unwrap())
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_answered_and_not_cut_off() {
    let listener = listen::bind("client", "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let front = front(unthrottled());
    let serving = tokio::spawn(listen::serve(listener, Listener::Http, Door::Open, front, stop.clone()));
    let client = move || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        let mut client = WritesFirst(BufReader::new(stream));
        let large = vec![b'x'; 20 * 1024 * 1024];
        let (status, body) = client.post("/echo", "", large.len(), &large);
        assert!(status == 413 && body.contains("client-error"), "{status} {body}");
        // Nobody looked at it at all.
        assert_eq!(client.post("/access", "", large.len(), &large).0, 200);
        assert_eq!(client.post("/echo", "", 2, b"{}"), (200, "{}".to_owned()), "the connection goes on");
        // A client that waits to be asked for its body is not asked.
        assert_eq!(client.post("/access", "expect: 100-continue\r\n", large.len(), b"").0, 200);
    };
    tokio::task::spawn_blocking(client).await.unwrap();
    stop.cancel();
    serving.await.unwrap();
}
