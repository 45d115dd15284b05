//! Configuration errors, readiness, the life of a process, listeners and who may call them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aldis_proto::channel::Channel;
use axum::{Router, routing::get};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use crate::{
    channel, config,
    listen::{self, Guard, Kind},
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

struct Authority {
    folder: tempfile::TempDir,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder, issuer: rcgen::Issuer::new(params, key) }
    }

    fn workload(&self, service: &str) -> Workload {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![workload_name(service, "a.test")]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |end: &str| self.folder.path().join(format!("{service}{end}"));
        std::fs::write(path(".pem"), certificate.pem()).unwrap();
        std::fs::write(path("-key.pem"), key.serialize_pem()).unwrap();
        Workload::load(&self.folder.path().join("ca.pem"), &path(".pem"), &path("-key.pem")).unwrap()
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
    let serving = tokio::spawn(listen::serve(listener, Kind::Grpc, Some(guard), router, stop.clone()));

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
    let serving = tokio::spawn(listen::serve(listener, Kind::Http, None, router, stop.clone()));
    let calling = tokio::spawn(call(channel::lazy(&address, None, "").unwrap()));
    begun.notified().await;
    stop.cancel();
    assert_eq!(calling.await.unwrap().unwrap(), "late");
    serving.await.unwrap();
}
