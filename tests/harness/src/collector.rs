//! A collector of traces (OTLP over gRPC) that keeps what it gets.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use async_trait::async_trait;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value,
    trace::v1::ResourceSpans,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, transport::Server};

/// One span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The domain of the backend that made it.
    pub domain: String,
    /// Its name.
    pub name: String,
    /// Its trace.
    pub trace: Vec<u8>,
    /// Traces that it is linked to.
    pub links: Vec<Vec<u8>>,
    /// Names and values of its attributes as text.
    pub attributes: Vec<(String, String)>,
}

/// The collector; stops when it is dropped.
pub struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    _stop: DropGuard,
}

impl Collector {
    /// Starts on a free port of 127.0.0.1.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let spans = Arc::new(Mutex::new(Vec::new()));
        let stop = CancellationToken::new();
        let serving = Server::builder()
            .add_service(TraceServiceServer::new(Keeper(spans.clone())))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.clone().cancelled_owned());
        tokio::spawn(serving);
        Ok(Self { address, spans, _stop: stop.drop_guard() })
    }

    /// The endpoint for `tracing.endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every span so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every span of this trace and of the traces that are linked to it, one after the other.
    pub fn follow(&self, trace: &[u8]) -> Vec<Span> {
        let spans = self.spans();
        let mut traces = BTreeSet::from([trace.to_vec()]);
        loop {
            let linked = spans.iter().filter(|span| span.links.iter().any(|link| traces.contains(link)));
            let found: Vec<_> = linked.map(|span| span.trace.clone()).filter(|it| !traces.contains(it)).collect();
            if found.is_empty() {
                return spans.into_iter().filter(|span| traces.contains(&span.trace)).collect();
            }
            traces.extend(found);
        }
    }
}

struct Keeper(Arc<Mutex<Vec<Span>>>);

#[async_trait]
impl TraceService for Keeper {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request.into_inner().resource_spans.into_iter().flat_map(read);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn read(of: ResourceSpans) -> Vec<Span> {
    let text = |value: Option<any_value::Value>| match value {
        Some(any_value::Value::StringValue(text)) => text,
        Some(other) => format!("{other:?}"),
        None => String::new(),
    };
    let attributes = of.resource.into_iter().flat_map(|resource| resource.attributes);
    let domain = attributes
        .filter(|one| one.key == "service.namespace")
        .map(|one| text(one.value.and_then(|value| value.value)))
        .next()
        .unwrap_or_default();
    let spans = of.scope_spans.into_iter().flat_map(|scope| scope.spans);
    spans
        .map(|span| Span {
            domain: domain.clone(),
            name: span.name,
            trace: span.trace_id,
            links: span.links.into_iter().map(|link| link.trace_id).collect(),
            attributes: span
                .attributes
                .into_iter()
                .map(|one| (one.key, text(one.value.and_then(|value| value.value))))
                .collect(),
        })
        .collect()
}
