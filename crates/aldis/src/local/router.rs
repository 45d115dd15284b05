//! The development router: one URL in front of a backend whose services are processes of their own.
//!
//! It sends every request to the service whose prefix table names its path, sockets included, as an Ingress does in
//! production. For `aldis local services` only.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aldis_runtime::{
    listen::{self, Door, Kind},
    operations::{self, Health},
    shutdown::Parts,
    telemetry,
};
use anyhow::{Context as _, Result};
use axum::{
    body::Body,
    extract::{ConnectInfo, Request},
    response::{IntoResponse as _, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tower::service_fn;

use super::{
    ROUTER_ADDRESS,
    layout::{Backend, WEB, loopback},
    ready::is_ready,
};
use crate::api::PREFIXES;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const CONNECT: Duration = Duration::from_secs(5);

/// The service that answers `path`, with or without version prefix: the one with the longest matching prefix.
fn service_of(path: &str) -> &'static str {
    let path = without_version(path);
    let below = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let matches = PREFIXES
        .iter()
        .flat_map(|(service, prefixes)| prefixes.iter().map(move |prefix| (*service, *prefix)))
        .filter(|(_, prefix)| below(prefix));
    matches.max_by_key(|(_, prefix)| prefix.len()).map_or("users", |(service, _)| service)
}

fn without_version(path: &str) -> &str {
    let Some(after) = path.strip_prefix("/v") else { return path };
    let digits = after.bytes().take_while(u8::is_ascii_digit).count();
    match after.get(digits..) {
        Some("") if digits > 0 => "/",
        Some(rest) if digits > 0 && rest.starts_with('/') => rest,
        _ => path,
    }
}

/// One service's processes; requests go to each in turn.
struct Service {
    name: &'static str,
    replicas: Vec<SocketAddr>,
    next: AtomicUsize,
}

impl Service {
    fn next(&self) -> Option<SocketAddr> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.replicas.get(next % self.replicas.len().max(1)).copied()
    }
}

struct Router {
    services: Vec<Service>,
    client: Client<HttpConnector, Body>,
}

impl Router {
    fn new(backend: &Backend) -> Self {
        let listeners = backend.services().map(|(name, ports)| (name, ports.client));
        let services = listeners.chain([(WEB, backend.web().client)]).map(|(name, port)| Service {
            name,
            replicas: vec![loopback(port)],
            next: AtomicUsize::new(0),
        });
        let mut connector = HttpConnector::new();
        // By this address the services know that we speak for a client.
        connector.set_local_address(Some(IpAddr::V4(ROUTER_ADDRESS)));
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { services: services.collect(), client }
    }

    async fn forward(&self, mut request: Request) -> Response {
        let name = service_of(request.uri().path());
        let target = self.services.iter().find(|service| service.name == name).and_then(Service::next);
        let Some(target) = target else { return bad_gateway() };
        let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let Ok(uri) = format!("http://{target}{path}").parse::<Uri>() else { return bad_gateway() };
        *request.uri_mut() = uri;
        // The service must believe us and nobody else about where the client is.
        if let Some(ConnectInfo(client)) = request.extensions().get::<ConnectInfo<SocketAddr>>()
            && let Ok(address) = HeaderValue::try_from(client.ip().to_string())
        {
            request.headers_mut().insert(FORWARDED_FOR, address);
        }
        *request.version_mut() = http::Version::HTTP_11;
        let is_upgrade = request.headers().contains_key(header::UPGRADE);
        let inbound = is_upgrade.then(|| hyper::upgrade::on(&mut request));
        if !is_upgrade {
            request.headers_mut().remove(header::CONNECTION);
        }
        let mut response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(service = name, %error, "a service does not answer");
                return bad_gateway();
            }
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(inbound) = inbound
        {
            let outbound = hyper::upgrade::on(&mut response);
            tokio::spawn(async move {
                let (Ok(inbound), Ok(outbound)) = tokio::join!(inbound, outbound) else { return };
                let (mut inbound, mut outbound) = (TokioIo::new(inbound), TokioIo::new(outbound));
                // Either side may close at any time.
                let _ = tokio::io::copy_bidirectional(&mut inbound, &mut outbound).await;
            });
        }
        response.map(Body::new)
    }
}

fn bad_gateway() -> Response {
    aldis_api::label::OVERLOADED.into_response()
}

/// Serves a backend's client address until `stop`, or a signal.
pub(crate) async fn serve(backend: &Backend, stop: impl Future<Output = ()>) -> Result<()> {
    let mut parts = Parts::new();
    let router = Arc::new(Router::new(backend));
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let router = router.clone();
        async move { Ok::<_, std::convert::Infallible>(router.forward(request.map(Body::new)).await) }
    });
    let listener = listen::bind("client", loopback(backend.client)).await?;
    parts.listener("client", listen::serve(listener, Kind::Http, Door::Open, service, parts.stop()));

    // Ready when every service behind us is.
    let mut health = Health::new();
    for (name, ports) in backend.services() {
        let operations = loopback(ports.operations);
        health = health.require(name, move || async move { is_ready(operations).await.map_err(|it| it.to_string()) });
    }
    let metrics = telemetry::metrics().context("metrics")?;
    let operations = operations::router(health, metrics, parts.stop());
    let listener = listen::bind("operations", loopback(backend.operations)).await?;
    parts.listener("operations", listen::serve(listener, Kind::Http, Door::Open, operations, parts.stop()));
    tracing::info!(domain = %backend.domain, address = %loopback(backend.client), "routing");
    Ok(parts.run(stop, Duration::from_secs(3)).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_go_to_the_service_that_lists_their_prefix() {
        let cases = [
            ("/self", "users"),
            ("/", "users"),
            ("/v13", "users"),
            ("/v13/self", "users"),
            ("/v13/conversations", "conversations"),
            ("/conversations/list-ids", "conversations"),
            ("/conversationsx", "users"),
            ("/v9/assets/a.test/3-1-x", "assets"),
            ("/await", "notifications"),
            ("/v8/await", "notifications"),
            ("/v8/notifications/last", "notifications"),
            ("/v8/time", "notifications"),
            ("/vx/await", "users"),
            ("/v8/feature-configs", "conversations"),
            ("/app", "web"),
            ("/app/assets/main.js", "web"),
            ("/apps", "users"),
            ("/v13/mls/public-keys", "conversations"),
            ("/v13/mls/key-packages/self/1a", "users"),
            ("/mls/key-packagesx", "conversations"),
        ];
        for (path, service) in cases {
            assert_eq!(service_of(path), service, "{path}");
        }
    }
}
