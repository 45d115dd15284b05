//! What every client request passes before it reaches a route, and what every answer gets.
//!
//! Guarantees to the routes: the `/vN` prefix is gone and [`crate::ApiVersion`] is an extension; no `Z-*` header comes from
//! outside; bodies are decompressed and bounded; [`ClientAddress`] is an extension. Guarantees to clients: every
//! answer, also to what no route serves and to what panicked, is JSON of the documented form with a `Request-Id`.
//! Tokens are left to the routes ([`crate::UserCaller`]).

mod address;
mod config;
mod cors;
mod throttle;
mod unread;
mod version;

#[cfg(test)]
pub(crate) use version::strip as strip_version;

#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use aldis_runtime::{networks::Networks, telemetry};
use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, MatchedPath, Request},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderName, HeaderValue, Method, header, request::Parts};
use http_body_util::Limited;
use tower::{Service, ServiceExt};
use tower_http::decompression::RequestDecompression;
use tracing::{Instrument, Span, field};

pub use self::{
    address::ClientAddress,
    config::{ClientConfig, PATHS, ThrottleConfig, TlsFiles},
};
use self::{
    address::Source,
    cors::Cors,
    throttle::{Class, Throttle},
    unread::ReadToEnd,
};
use crate::{
    ApiVersion, HttpError, TokenVerifier, caller, label,
    routes::{self, Description},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const TRANSPORT_SECURITY: HeaderValue = HeaderValue::from_static("max-age=31536000; includeSubDomains");
/// Most bytes of a compressed body, whatever they unpack to.
const MAX_COMPRESSED_BYTES: usize = 64 * 1024 * 1024;

/// The client routes of a process behind everything that they have in common. Cheap to clone.
#[derive(Clone)]
pub struct Front {
    router: Router,
    shared: Arc<Shared>,
}

struct Shared {
    config: ClientConfig,
    proxies: Networks,
    cors: Cors,
    throttle: Option<Throttle>,
    verifier: TokenVerifier,
}

/// The version in the prefix of a request that has one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AskedVersion(pub(crate) ApiVersion);

/// The template of the route that answered, for metrics.
#[derive(Clone)]
struct Route(MatchedPath);

impl Front {
    /// Puts `router`, whose routes have no version prefix, and `description`, which it serves, behind the common stack.
    pub fn new(
        router: Router,
        description: Arc<Description>,
        config: ClientConfig,
        verifier: TokenVerifier,
    ) -> Result<Self, String> {
        config.check()?;
        let router = router
            .merge(routes::router(description))
            .fallback(|| async { label::NO_ENDPOINT })
            .method_not_allowed_fallback(|| async { label::METHOD_NOT_ALLOWED })
            .layer(DefaultBodyLimit::max(config.body_limit_bytes))
            .layer(from_fn(name_route));
        let shared = Shared {
            proxies: config.proxies()?,
            cors: Cors::new(config.allowed_origins.clone(), config.allow_loopback_origins),
            throttle: Throttle::new(&config.throttle),
            verifier,
            config,
        };
        Ok(Self { router, shared: Arc::new(shared) })
    }

    async fn answer(self, request: Request) -> Response {
        let begun = Instant::now();
        let (mut parts, body) = request.into_parts();
        let body = ReadToEnd::wrap(&parts, body);
        let source = Source::of(&parts, &self.shared.proxies);
        let id = uuid::Uuid::new_v4().to_string();
        let span = span_of(&parts, source, &id);
        drop_identity_headers(&mut parts);
        parts.extensions.insert(ClientAddress(source.address));
        let origin = parts.headers.get(header::ORIGIN).cloned();
        let method = parts.method.clone();
        let shared = self.shared.clone();

        let (path, mut response) = match version::strip(&parts.uri) {
            Ok((stripped, version)) => {
                if let Some(stripped) = stripped {
                    parts.uri = stripped;
                    parts.extensions.insert(AskedVersion(version));
                }
                parts.extensions.insert(version);
                span.record("http.api_version", version.0);
                let path = parts.uri.path().to_owned();
                (path, self.guarded(parts, body, source).instrument(span.clone()).await)
            }
            Err(error) => (parts.uri.path().to_owned(), error.into_response()),
        };

        let headers = response.headers_mut();
        if method != Method::OPTIONS {
            shared.cors.decorate(&path, origin.as_ref(), headers);
        }
        if let Ok(id) = HeaderValue::try_from(id) {
            headers.insert(REQUEST_ID, id);
        }
        if source.https {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, TRANSPORT_SECURITY);
        }
        measure(&method, &response, begun, &span);
        response
    }

    /// Runs the request with a deadline and turns a panic into an answer.
    async fn guarded(self, parts: Parts, body: Body, source: Source) -> Response {
        let timeout = self.shared.config.timeout();
        // A socket lives for hours after its upgrade; the upgrade itself is quick. An upload takes as long as its bytes
        // keep coming, which its route bounds.
        let bounds_itself = parts.headers.contains_key(header::UPGRADE) || is_upload(&parts);
        let running = AssertUnwindSafe(self.route(parts, body, source)).catch_unwind();
        let outcome = if bounds_itself { Ok(running.await) } else { tokio::time::timeout(timeout, running).await };
        match outcome {
            Ok(Ok(Ok(response))) => response,
            Ok(Ok(Err(error))) => error.into_response(),
            Ok(Err(_)) => {
                tracing::error!("a request handler panicked");
                label::SERVER_ERROR.into_response()
            }
            Err(_) => label::TIMEOUT.into_response(),
        }
    }

    async fn route(self, parts: Parts, body: Body, source: Source) -> Result<Response, HttpError> {
        let shared = &self.shared;
        if parts.method == Method::OPTIONS {
            return Ok(shared.cors.preflight(parts.uri.path(), &parts.headers));
        }
        let class = Class::of(&parts.method, parts.uri.path());
        let user = || {
            let token = caller::access_token(&parts)?;
            shared.verifier.verify(&token, caller::now_seconds()).ok().map(|session| session.user)
        };
        let _under_way = match &shared.throttle {
            Some(throttle) => throttle.admit(class, source.address, user)?,
            None => None,
        };
        let encoding = parts.headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
        match encoding {
            None | Some(b"identity" | b"") => {
                let request = Request::from_parts(parts, body);
                let answered = self.router.oneshot(request).await;
                Ok(answered.unwrap_or_else(|never| match never {}))
            }
            Some(b"gzip") => {
                let request = Request::from_parts(parts, Limited::new(body, MAX_COMPRESSED_BYTES));
                let answered = RequestDecompression::new(self.router).oneshot(request).await;
                Ok(answered.unwrap_or_else(|never| match never {}).map(Body::new))
            }
            Some(_) => Err(HttpError::with_message(
                label::UNSUPPORTED_MEDIA_TYPE,
                "Request bodies may be compressed with gzip only",
            )),
        }
    }
}

impl<B> Service<http::Request<B>> for Front
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<tower::BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        self.clone().answer(request.map(Body::new)).map(Ok).boxed()
    }
}

/// Notes on the answer which route gave it.
async fn name_route(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    if let Some(route) = &route {
        Span::current().record("http.route", route.as_str());
    }
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(Route(route));
    }
    response
}

/// The span of a request. Neither path nor query are in it: they hold ids, handles and tokens.
fn span_of(parts: &Parts, source: Source, id: &str) -> Span {
    let span = tracing::info_span!(
        "http.request",
        request.id = id,
        http.method = method_name(&parts.method),
        http.route = field::Empty,
        http.api_version = field::Empty,
        http.status = field::Empty,
        user.id = field::Empty,
    );
    if source.near {
        telemetry::continue_trace(&span, &parts.headers);
    } else {
        telemetry::link_trace(&span, &parts.headers);
    }
    span
}

fn is_upload(parts: &Parts) -> bool {
    parts.method == Method::POST && parts.uri.path() == "/assets"
}

/// Only a gateway may state who is calling, and we are the gateway.
fn drop_identity_headers(parts: &mut Parts) {
    let stated: Vec<HeaderName> =
        parts.headers.keys().filter(|name| name.as_str().starts_with("z-")).cloned().collect();
    for name in stated {
        parts.headers.remove(name);
    }
}

fn measure(method: &Method, response: &Response, begun: Instant, span: &Span) {
    let route = response.extensions().get::<Route>().map(|route| Arc::<str>::from(route.0.as_str()));
    let route = route.unwrap_or_else(|| Arc::from("none"));
    let status = response.status();
    span.record("http.status", status.as_u16());
    let labels = [
        ("method", metrics::SharedString::const_str(method_name(method))),
        ("route", metrics::SharedString::from_shared(route)),
        ("status", metrics::SharedString::from(status.as_u16().to_string())),
    ];
    metrics::histogram!("aldis_http_request_seconds", &labels).record(begun.elapsed());
    if status.is_server_error() {
        span.in_scope(|| tracing::warn!(http.status = status.as_u16(), "request failed"));
    }
}

/// Methods that clients use by name, so that metrics and traces have a bounded number of them.
fn method_name(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
