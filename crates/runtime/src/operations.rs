//! What operators and orchestrators ask a process: `/healthz`, `/readyz`, `/metrics`.
//!
//! A process is ready when its own listeners and stores work. Trouble elsewhere (peers, DNS, certificates, other
//! services) is listed as `degraded` and changes nothing about readiness.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Router, extract::State, response::IntoResponse, routing::get};
use futures::future::{BoxFuture, join_all};
use http::{StatusCode, header};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

/// How long one probe may take.
const PROBE: Duration = Duration::from_secs(2);
/// How often old samples are dropped from histograms.
const UPKEEP: Duration = Duration::from_secs(5);

type Probe = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The probes of a process.
#[derive(Clone, Default)]
pub struct Health {
    required: Vec<(&'static str, Probe)>,
    watched: Vec<(&'static str, Probe)>,
}

impl Health {
    /// No probes: always ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// The process is ready only while this probe succeeds. A failure is a text for operators, without secrets.
    #[must_use]
    pub fn require<F, P>(mut self, name: &'static str, probe: P) -> Self
    where
        P: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.required.push((name, Arc::new(move || Box::pin(probe()))));
        self
    }

    /// A failure of this probe is shown, and does not make the process unready.
    #[must_use]
    pub fn watch<F, P>(mut self, name: &'static str, probe: P) -> Self
    where
        P: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.watched.push((name, Arc::new(move || Box::pin(probe()))));
        self
    }

    /// Runs every probe.
    pub async fn report(&self) -> Report {
        let (required, watched) = tokio::join!(run(&self.required), run(&self.watched));
        let ready = required.iter().all(|(_, outcome)| outcome.is_ok());
        let checks = required
            .into_iter()
            .map(|(name, outcome)| (name, outcome.err().unwrap_or_else(|| "ok".to_owned())))
            .collect();
        let degraded = watched
            .into_iter()
            .filter_map(|(name, outcome)| outcome.err().map(|text| format!("{name}: {text}")))
            .collect();
        Report { status: if ready { "ready" } else { "not-ready" }, checks, degraded }
    }
}

async fn run(probes: &[(&'static str, Probe)]) -> Vec<(&'static str, Result<(), String>)> {
    join_all(probes.iter().map(|(name, probe)| async move {
        let outcome = tokio::time::timeout(PROBE, probe()).await;
        (*name, outcome.unwrap_or_else(|_| Err(format!("no answer within {} s", PROBE.as_secs()))))
    }))
    .await
}

/// The body of `/readyz`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `ready`, `not-ready` or `stopping`.
    pub status: &'static str,
    /// Per required probe `ok`, or what is wrong.
    pub checks: BTreeMap<&'static str, String>,
    /// Trouble that does not make the process unready.
    pub degraded: Vec<String>,
}

#[derive(Clone)]
struct App {
    health: Arc<Health>,
    metrics: PrometheusHandle,
    stop: CancellationToken,
}

/// The routes. From `stop` on the process reports itself as not ready, so that nobody sends it new work.
pub fn router(health: Health, metrics: PrometheusHandle, stop: CancellationToken) -> Router {
    Router::new()
        .route("/healthz", get(|| async { axum::Json(serde_json::json!({ "status": "alive" })) }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .with_state(App { health: Arc::new(health), metrics, stop })
}

async fn readyz(State(app): State<App>) -> impl IntoResponse {
    let mut report = app.health.report().await;
    if app.stop.is_cancelled() {
        report.status = "stopping";
    }
    let status = if report.status == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(report))
}

async fn render(State(app): State<App>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.render())
}

/// Keeps the metrics from growing; runs until dropped.
pub async fn upkeep(metrics: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        metrics.run_upkeep();
    }
}
