//! Configuration errors, readiness, the life of a process, listeners and who may call them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aldis_proto::channel::Channel;
use aldis_types::Timestamp;
use axum::{Router, routing::get};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use crate::{
    ManualClock, SharedClock, SystemClock, channel, config,
    https::Https,
    listen::{self, Door, Encrypted, Guard, Kind},
    operations::{self, Health},
    shutdown::{Ended, Parts},
    telemetry::{self, LogConfig, TracingConfig},
    workload::{Workload, install_crypto, workload_name},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    domain: String,
    #[serde(default)]
    store: Store,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Store {
    path: PathBuf,
    readers: u8,
    mode: Option<Mode>,
    turn_secret: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Small,
    Large,
}

fn load(folder: &Path, text: &str) -> Result<Settings, String> {
    let file = folder.join("aldis.toml");
    std::fs::write(&file, text).unwrap();
    config::load(&file, &["store.path".to_owned()]).map_err(|error| error.to_string())
}

#[test]
fn relative_files_are_meant_from_the_folder_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let read = load(folder.path(), "domain = 'a.test'\nstore.path = 'data/aldis.db'\nstore.mode = 'small'").unwrap();
    assert_eq!(read.store.path, folder.path().join("data/aldis.db"));
    assert!(matches!(read.store.mode, Some(Mode::Small)));
    let read = load(folder.path(), "domain = 'a.test'\nstore.path = '/data'").unwrap();
    assert_eq!((read.store.path, read.domain.as_str(), read.store.readers), (PathBuf::from("/data"), "a.test", 0));
}

#[test]
fn errors_name_key_value_and_what_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&str, &[&str]); 8] = [
        ("domain = 'a.test'\nstore.reader = 2", &["unknown key `store.reader` = 2", "path, readers, mode"]),
        ("domain = 'a.test'\nstorage.path = 'x'", &["unknown key `storage`", "domain, store"]),
        ("store.readers = 2", &["key `domain` is missing"]),
        ("domain = 'a.test'\nstore.readers = 'two'", &["`store.readers` = \"two\" is a text; allowed: u8"]),
        ("domain = 'a.test'\nstore.readers = 300", &["`store.readers` = 300"]),
        ("domain = 'a.test'\nstore.mode = 'medium'", &["`store.mode` = \"medium\"", "allowed: small, large"]),
        ("domain = 'a.test'\nstore.turn_secret = 12345", &["`store.turn_secret` is a whole number"]),
        ("domain = ", &["aldis.toml"]),
    ];
    for (text, expected) in cases {
        let error = load(folder.path(), text).unwrap_err();
        for part in expected {
            assert!(error.contains(part), "{text}\n{error}");
        }
        assert!(!error.contains("12345"), "{error}");
    }
    let error = config::load::<Settings>(&folder.path().join("none.toml"), &[]).unwrap_err().to_string();
    assert!(error.contains("none.toml") && error.contains("No such file"), "{error}");
}

#[test]
fn log_and_tracing_settings_are_checked() {
    LogConfig { filter: "info,aldis_users=debug".to_owned(), ..LogConfig::default() }.check().unwrap();
    let error = LogConfig { filter: "=loud=".to_owned(), ..LogConfig::default() }.check().unwrap_err().to_string();
    assert!(error.contains("`log.filter` = \"=loud=\"") && error.contains("allowed"), "{error}");
    TracingConfig { endpoint: Some("http://127.0.0.1:4317".to_owned()), ..TracingConfig::default() }.check().unwrap();
    for bad in [
        TracingConfig { endpoint: Some("collector".to_owned()), ..TracingConfig::default() },
        TracingConfig { sample_ratio: 2.0, ..TracingConfig::default() },
    ] {
        assert!(bad.check().unwrap_err().to_string().contains("allowed"));
    }
}

#[test]
fn headers_without_a_trace_stay_as_they_are() {
    let mut headers = HeaderMap::new();
    telemetry::state_trace(&tracing::Span::none(), &mut headers);
    assert!(headers.is_empty());
    headers.insert("traceparent", "nonsense".parse().unwrap());
    telemetry::continue_trace(&tracing::Span::none(), &headers);
    telemetry::link_trace(&tracing::Span::none(), &headers);
}

async fn ask(router: &Router, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn readiness_depends_on_required_probes_alone() {
    let metrics = telemetry::metrics().unwrap();
    let stop = CancellationToken::new();
    let health = Health::new()
        .require("store", || async { Ok(()) })
        .watch("certificate", || async { Err("expires in 3 days".to_owned()) });
    let router = operations::router(health.clone(), metrics.clone(), stop.clone());
    let (status, body) = ask(&router, "/readyz").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body, r#"{"status":"ready","checks":{"store":"ok"},"degraded":["certificate: expires in 3 days"]}"#);
    stop.cancel();
    let (status, body) = ask(&router, "/readyz").await;
    assert_eq!((status, body.contains("stopping")), (StatusCode::SERVICE_UNAVAILABLE, true));

    let broken = health.require("keys", || async { Err("none yet".to_owned()) });
    let router = operations::router(broken, metrics, CancellationToken::new());
    let (status, body) = ask(&router, "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains(r#""keys":"none yet""#), "{body}");
    assert_eq!(ask(&router, "/healthz").await.0, StatusCode::OK);
    assert!(ask(&router, "/metrics").await.1.contains("aldis_build_info"));
}

#[tokio::test]
async fn a_part_that_ends_by_itself_ends_the_process() {
    let mut parts = Parts::new();
    let stop = parts.stop();
    parts.listener("client", async move { stop.cancelled().await });
    parts.background("relay", async {});
    let ended = parts.run(std::future::pending(), Duration::from_secs(5)).await;
    assert!(matches!(ended, Err(Ended(name)) if name == "relay"));

    let mut parts = Parts::new();
    parts.background("sweep", async { panic!("on purpose") });
    assert!(parts.run(std::future::pending(), Duration::from_secs(5)).await.is_err());

    let mut parts = Parts::new();
    let stop = parts.stop();
    parts.listener("client", async move { stop.cancelled().await });
    parts.background("relay", std::future::pending());
    parts.run(std::future::ready(()), Duration::from_secs(5)).await.unwrap();
}

pub(crate) struct Authority {
    folder: tempfile::TempDir,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder, issuer: rcgen::Issuer::new(params, key) }
    }

    pub(crate) fn workload(&self, service: &str) -> Workload {
        self.issue(service, service);
        self.load(service)
    }

    /// Writes the files of a process; `name` is what they prove.
    fn issue(&self, service: &str, name: &str) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![workload_name(name, "a.test")]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.file(&format!("{service}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.file(&format!("{service}-key.pem")), key.serialize_pem()).unwrap();
    }

    fn load(&self, service: &str) -> Workload {
        let (certificate, key) = (self.file(&format!("{service}.pem")), self.file(&format!("{service}-key.pem")));
        Workload::load(&self.file("ca.pem"), &certificate, &key).unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

async fn call(mut channel: Channel) -> Result<Bytes, tower::BoxError> {
    let request = Request::get("/hello").body(tonic::body::Body::empty())?;
    let answer = async {
        channel.ready().await?;
        let response = channel.call(request).await?;
        Ok::<_, tower::BoxError>(response.into_body().collect().await?.to_bytes())
    };
    tokio::time::timeout(Duration::from_secs(20), answer).await?
}

#[tokio::test]
async fn internal_listeners_admit_the_named_services_of_this_backend_only() {
    install_crypto();
    let (ours, other) = (Authority::new(), Authority::new());
    let listener = listen::bind("internal", "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let guard = Guard { workload: ours.workload("users"), callers: Arc::from([workload_name("federator", "a.test")]) };
    let stop = CancellationToken::new();
    let router = Router::new().route("/hello", get(|| async { "hello" }));
    let serving = tokio::spawn(listen::serve(listener, Kind::Grpc, Door::Internal(guard), router, stop.clone()));

    let users = workload_name("users", "a.test");
    let federator = ours.workload("federator");
    assert_eq!(call(channel::lazy(&address, Some(&federator), &users).unwrap()).await.unwrap(), "hello");
    let refused = [
        channel::lazy(&address, Some(&ours.workload("assets")), &users).unwrap(),
        channel::lazy(&address, Some(&other.workload("federator")), &users).unwrap(),
        channel::lazy(&address, Some(&federator), &workload_name("assets", "a.test")).unwrap(),
        channel::lazy(&address, None, &users).unwrap(),
    ];
    for channel in refused {
        call(channel).await.unwrap_err();
    }
    stop.cancel();
    serving.await.unwrap();
}

/// Waits until a call has this outcome.
async fn until(what: &str, channel: &Channel, success: bool) {
    for _ in 0..1_000 {
        if call(channel.clone()).await.is_ok() == success {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("waited in vain: {what}");
}

#[tokio::test]
async fn internal_certificates_are_replaced_without_a_restart() {
    install_crypto();
    let ours = Authority::new();
    let listener = listen::bind("internal", "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let guard = Guard { workload: ours.workload("users"), callers: Arc::from([workload_name("federator", "a.test")]) };
    tokio::spawn(guard.workload.clone().follow());
    let stop = CancellationToken::new();
    let router = Router::new().route("/hello", get(|| async { "hello" }));
    let serving = tokio::spawn(listen::serve(listener, Kind::Grpc, Door::Internal(guard), router, stop.clone()));
    let federator = ours.workload("federator");
    tokio::spawn(federator.clone().follow());
    let channel = channel::lazy(&address, Some(&federator), &workload_name("users", "a.test")).unwrap();
    until("the first certificates", &channel, true).await;

    // The listener proves to be somebody else: the old connection ends, and no new one is made.
    ours.issue("users", "assets");
    until("the end of the old connection", &channel, false).await;
    ours.issue("users", "users");
    until("the listener's new certificate", &channel, true).await;

    // The caller's certificate is replaced as well: by one that is not admitted, and by one that is.
    let other = Authority::new();
    other.issue("federator", "federator");
    for name in ["federator.pem", "federator-key.pem"] {
        std::fs::copy(other.file(name), ours.file(name)).unwrap();
    }
    ours.issue("users", "users");
    until("the end of the caller's old certificate", &channel, false).await;
    ours.issue("federator", "federator");
    until("the caller's new certificate", &channel, true).await;
    stop.cancel();
    serving.await.unwrap();
}

/// Connects as a browser would, and offers one protocol.
async fn connect(address: &str, authority: &Authority, protocol: &str) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    let pem = std::fs::read(authority.file("ca.pem")).unwrap();
    roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let name = ServerName::try_from(workload_name("client", "a.test")).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
    stream
}

fn leaf(stream: &tokio_rustls::client::TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn https_is_served_with_both_protocols_and_its_certificate_replaced() {
    install_crypto();
    let authority = Authority::new();
    authority.issue("client", "client");
    let https = Https::load(&authority.file("client.pem"), &authority.file("client-key.pem")).unwrap();
    let clock: SharedClock = Arc::new(SystemClock);
    https.check(&clock).unwrap();
    let late: SharedClock = Arc::new(ManualClock::new(Timestamp::from_millis(100_000_000_000_000)));
    assert!(https.check(&late).unwrap_err().contains("expired"));
    let following = tokio::spawn(https.clone().follow(clock));
    let listener = listen::bind("client", "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    let encrypted =
        |request: axum::extract::Request| async move { request.extensions().get::<Encrypted>().is_some().to_string() };
    let router = Router::new().route("/hello", get(encrypted));
    let serving = tokio::spawn(listen::serve(listener, Kind::Http, Door::Https(https), router, stop.clone()));

    let mut old = connect(&address, &authority, "http/1.1").await;
    let mut ask = async || {
        old.write_all(b"GET /hello HTTP/1.1\r\nhost: a.test\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        while !answer.ends_with("true") {
            answer.push(old.read_u8().await.unwrap().into());
        }
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    };
    ask().await;
    let second = TokioIo::new(connect(&address, &authority, "h2").await);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), second).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://a.test/hello").body(axum::body::Body::empty()).unwrap();
    let answer = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(answer.to_bytes(), "true");

    let first = leaf(&connect(&address, &authority, "h2").await);
    authority.issue("client", "client");
    let mut rounds = 0;
    while leaf(&connect(&address, &authority, "h2").await) == first {
        rounds += 1;
        assert!(rounds < 1_000, "waited in vain for the new certificate");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What was open stays.
    ask().await;
    stop.cancel();
    drop(sender);
    serving.await.unwrap();
    following.abort();
}

#[tokio::test]
async fn unix_sockets_work_in_deep_folders_and_replace_what_a_dead_process_left() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("a".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let path = deep.join("admin.sock");
    drop(listen::bind_unix(&path).unwrap());
    let listener = listen::bind_unix(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let stop = CancellationToken::new();
    let router = Router::new().route("/hello", get(|| async { "hello" }));
    let serving = tokio::spawn(listen::serve_unix(listener, router, stop.clone()));
    assert_eq!(call(channel::unix(&path)).await.unwrap(), "hello");
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn a_stopping_listener_finishes_what_is_under_way() {
    let listener = listen::bind("client", "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (stop, begun) = (CancellationToken::new(), Arc::new(tokio::sync::Notify::new()));
    let waiting = begun.clone();
    let stopped = stop.clone();
    let slow = move || async move {
        waiting.notify_one();
        stopped.cancelled().await;
        "late"
    };
    let router = Router::new().route("/hello", get(slow));
    let serving = tokio::spawn(listen::serve(listener, Kind::Http, Door::Open, router, stop.clone()));
    // By name, which is the way to several replicas.
    let named = address.replace("127.0.0.1", "localhost");
    let calling = tokio::spawn(call(channel::lazy(&named, None, "").unwrap()));
    begun.notified().await;
    stop.cancel();
    assert_eq!(calling.await.unwrap().unwrap(), "late");
    serving.await.unwrap();
}
