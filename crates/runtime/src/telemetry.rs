//! Logs, traces and metrics of a process.
//!
//! Logs go to standard error. Traces go to an OTLP collector when one is set; the W3C trace context travels in HTTP
//! headers and gRPC metadata. Metrics are kept in the process and rendered for Prometheus.

use std::{sync::OnceLock, time::Duration};

use documented::{Documented, DocumentedFields};
use http::{HeaderMap, HeaderName, HeaderValue};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, Injector, TextMapPropagator},
    trace::{TraceContextExt, TracerProvider},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use serde::{Deserialize, Serialize};
use tracing::{Instrument as _, Level, Span, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{
    EnvFilter, Layer, filter::Targets, fmt, layer::SubscriberExt, registry::LookupSpan, util::SubscriberInitExt,
};

use crate::config::ConfigError;

/// What a process writes to standard error.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// One JSON object per line, or lines for eyes. Logs go to standard error.
    ///
    /// Allowed: `json`, `human`.
    pub format: LogFormat,
    /// For instance `"info,aldis_federator=debug"` while a partner cannot be reached.
    ///
    /// Allowed: directives of `tracing`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Json, filter: "info".to_owned() }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// One line of text.
    Human,
}

/// Where traces go.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct TracingConfig {
    /// OTLP/gRPC collector, such as `"http://127.0.0.1:4317"`. Without it there are no traces.
    ///
    /// Allowed: `http://…`, `https://…`.
    pub endpoint: Option<String>,
    /// Share of new traces that are kept. A trace that a caller began follows the caller's decision.
    ///
    /// Allowed: 0 to 1.
    pub sample_ratio: f64,
}

impl Default for TracingConfig {
    fn default() -> Self {
        Self { endpoint: None, sample_ratio: 1.0 }
    }
}

impl LogConfig {
    fn filter(&self) -> Result<EnvFilter, ConfigError> {
        EnvFilter::try_new(&self.filter).map_err(|error| {
            ConfigError::invalid(format!(
                "`log.filter` = {:?}: {error}; allowed: a level (error, warn, info, debug, trace) or a list like \
                 \"info,aldis_federator=debug\"",
                self.filter
            ))
        })
    }

    /// Refuses what cannot be used.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.filter().map(drop)
    }
}

impl TracingConfig {
    /// Refuses what cannot be used.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            let text = format!("`tracing.sample_ratio` = {}; allowed: 0 to 1", self.sample_ratio);
            return Err(ConfigError::invalid(text));
        }
        let Some(endpoint) = &self.endpoint else { return Ok(()) };
        let uri = endpoint.parse::<http::Uri>().ok();
        if uri.is_none_or(|uri| uri.host().is_none() || !matches!(uri.scheme_str(), Some("http" | "https"))) {
            let text = format!("`tracing.endpoint` = {endpoint:?}; allowed: a URL like \"http://collector:4317\"");
            return Err(ConfigError::invalid(text));
        }
        Ok(())
    }
}

/// Why logs, traces or metrics could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The exporter of traces cannot be built.
    #[error("trace exporter")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Something else in this process writes logs already.
    #[error("logging was started before")]
    Started(#[from] tracing_subscriber::util::TryInitError),
    /// The metrics recorder cannot be built.
    #[error("metrics")]
    Metrics(#[from] BuildError),
}

/// Keeps telemetry alive; [`Telemetry::finish`] sends what is still held.
#[derive(Debug)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

/// How long the end of a process waits for the collector.
const FLUSH: Duration = Duration::from_secs(3);

impl Telemetry {
    /// Starts logs and traces for this process. Must be called inside the async runtime. `service` and `domain` name
    /// the process in traces.
    pub fn start(
        service: &str,
        domain: &str,
        log: &LogConfig,
        tracing: &TracingConfig,
    ) -> Result<Self, TelemetryError> {
        tracing.check()?;
        let filter = log.filter()?;
        let traces = tracing.endpoint.as_deref().map(|url| provider(service, domain, url, tracing)).transpose()?;
        let spans = traces.as_ref().map(|provider| {
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("aldis"))
                .with_filter(Targets::new().with_default(LevelFilter::OFF).with_target("aldis", Level::INFO))
        });
        tracing_subscriber::registry().with(lines(log.format).with_filter(filter)).with(spans).try_init()?;
        Ok(Self { traces })
    }

    /// Sends the last traces; waits a few seconds at most.
    pub fn finish(self) {
        if let Some(provider) = self.traces
            && let Err(error) = provider.shutdown_with_timeout(FLUSH)
        {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    let layer = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    match format {
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
        LogFormat::Human => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            layer.with_ansi(colours).with_target(true).compact().boxed()
        }
    }
}

fn provider(
    service: &str,
    domain: &str,
    endpoint: &str,
    config: &TracingConfig,
) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
    let resource = Resource::builder()
        .with_service_name(service.to_owned())
        .with_attribute(KeyValue::new("service.namespace", domain.to_owned()))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_ratio))))
        .with_resource(resource)
        .build())
}

/// Seconds at which latency histograms are cut.
const BUCKETS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The metrics of this process, recorded from the first call on. Every call gives the same ones.
pub fn metrics() -> Result<PrometheusHandle, TelemetryError> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)?
        .build_recorder();
    let handle = recorder.handle();
    // A recorder that somebody else installed keeps what it records; ours then stays empty.
    if ::metrics::set_global_recorder(recorder).is_ok() {
        ::metrics::gauge!("aldis_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    }
    Ok(HANDLE.get_or_init(|| handle).clone())
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct HeadersMut<'a>(&'a mut HeaderMap);

impl Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

fn stated(headers: &HeaderMap) -> Option<Context> {
    if !headers.contains_key("traceparent") {
        return None;
    }
    let context = TraceContextPropagator::new().extract(&Headers(headers));
    context.span().span_context().is_valid().then_some(context)
}

/// Makes `span` a child of the trace that the headers state, for callers that are trusted with our traces. Call it
/// before the span is entered.
pub fn continue_trace(span: &Span, headers: &HeaderMap) {
    if let Some(context) = stated(headers) {
        // Fails only when traces are off or the span has begun, and then there is nothing to continue.
        let _ = span.set_parent(context);
    }
}

/// Links `span` to the trace that the headers state, for callers outside: `span` begins a trace of its own.
pub fn link_trace(span: &Span, headers: &HeaderMap) {
    if let Some(context) = stated(headers) {
        span.add_link(context.span().span_context().clone());
    }
}

/// States the trace of `span` in `headers`; changes nothing when traces are off.
pub fn state_trace(span: &Span, headers: &mut HeaderMap) {
    let context = span.context();
    if context.span().span_context().is_valid() {
        TraceContextPropagator::new().inject_context(&context, &mut HeadersMut(headers));
    }
}

/// States the trace of the current span in the metadata of a gRPC request.
pub fn state_trace_in<T>(request: &mut tonic::Request<T>) {
    let mut headers = std::mem::take(request.metadata_mut()).into_headers();
    state_trace(&Span::current(), &mut headers);
    *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
}

/// A server for calls of our own processes: each runs in a span that continues the caller's trace.
#[derive(Debug, Clone)]
pub struct Traced<S>(pub S);

impl<S, B> tower::Service<http::Request<B>> for Traced<S>
where
    S: tower::Service<http::Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = tracing::instrument::Instrumented<S::Future>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let span = tracing::info_span!("grpc.request", rpc.method = request.uri().path());
        continue_trace(&span, request.headers());
        let call = span.in_scope(|| self.0.call(request));
        call.instrument(span)
    }
}
