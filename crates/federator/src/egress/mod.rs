//! Calls of our own services to other backends: a gRPC proxy that decides whether, where and how, and never decodes a
//! message.
//!
//! It guarantees that a call reaches only the backend that it names and our policy allows; that it ends within its
//! deadline whatever the peer does; that a peer that is slow or gone holds up nobody else; and that a failure which our
//! side found is marked as such, while nothing that a peer says can be mistaken for it.

mod breaker;
mod connection;
mod peer;
mod pool;

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use aldis_proto::metadata;
use aldis_runtime::telemetry;
use aldis_types::Domain;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};
use tonic::{Status, body::Body};
use tower::BoxError;
use tower_service::Service;
use tracing::Instrument;

#[cfg(test)]
pub(crate) use self::breaker::Breaker;
use self::peer::{Kind, Peer};
pub(crate) use self::{
    breaker::Admission,
    connection::{Connection, Unusable, attempt},
    peer::{Context as PeerContext, PeerView},
    pool::Pool,
};
use crate::{
    failure::{self, Failure},
    hello::absolute,
    metering::{self, Direction, Gauged},
    relay::{AnswerBody, Bounds, Call, Cut, Outcome, RequestBody, is_reset},
    rpc::{self, Rpc},
};

/// Framing on top of the largest message.
pub(crate) const FRAMING_BYTES: u64 = 1_024;
/// A call that was given less time than this tells nothing about the peer when the time is up.
const TELLING: Duration = Duration::from_secs(1);

/// The way out. Cheap to clone; never fails as a service, every failure is an answer.
#[derive(Clone)]
pub struct Egress {
    pool: Arc<Pool>,
}

impl Egress {
    pub(crate) fn new(pool: Arc<Pool>) -> Self {
        Self { pool }
    }

    async fn serve(self, request: http::Request<Body>) -> http::Response<Body> {
        let Some(rpc) = Rpc::parse(request.uri()) else {
            return failure::answer(&Failure::malformed("not a method of aldis.federation.v1").status(""));
        };
        let kind = Kind::from(rpc.shape());
        let target = match target(request.headers()) {
            Ok(target) => target,
            Err(failure) => return failure::answer(&failure.status("")),
        };
        let span =
            tracing::info_span!("peer.call", peer.domain = %target, rpc.service = rpc.service, rpc.method = rpc.method);
        telemetry::continue_trace(&span, request.headers());
        let mut call = PeerCall {
            pool: self.pool.clone(),
            domain: target,
            kind,
            started: Instant::now(),
            patience: Duration::ZERO,
            held: None,
        };
        async move {
            match self.forward(&mut call, request).await {
                Ok((response, bounds, guard)) => AnswerBody::response(response, &bounds, guard, call),
                Err(Unusable::Failed(failure)) => {
                    tracing::debug!(label = failure.label, reason = failure.reason(), "call to the peer failed");
                    call.count(failure.label);
                    failure::answer(&failure.status(call.domain.as_str()))
                }
                Err(Unusable::Refused(status)) => {
                    call.count("refused");
                    failure::answer(&status)
                }
            }
        }
        .instrument(span)
        .await
    }

    /// Sends the request and waits for the head of the answer.
    async fn forward(&self, call: &mut PeerCall, request: http::Request<Body>) -> Result<Forwarded, Unusable> {
        let shared = self.pool.shared();
        if call.domain == shared.domain {
            return Err(Failure::denied("the target is this backend itself").into());
        }
        if !shared.policy.allows(&call.domain) {
            return Err(Failure::denied("this backend does not federate with the target").into());
        }
        let asked = aldis_peers::timeout(request.headers()).filter(|_| call.kind != Kind::Stream);
        call.patience = asked.unwrap_or(shared.call_deadline).min(shared.call_deadline);
        let deadline = call.started + call.patience;
        let peer = timeout_at(deadline, self.pool.peer(&call.domain))
            .await
            .map_err(|_| Failure::discovery(format!("DNS look-up of {} took too long", call.domain)))??;
        peer.touch();
        let permit = peer.permit(call.kind)?;
        call.held = Some(Held {
            peer: peer.clone(),
            connection: None,
            _gauged: Gauged::in_flight(&call.domain, Direction::Out),
            _permit: permit,
        });
        self.admit(call.kind, &peer, deadline).await?;

        let most = shared.max_bytes + FRAMING_BYTES;
        let bounds = Bounds {
            deadline: (call.kind != Kind::Stream).then_some(deadline),
            idle: (call.kind == Kind::Transfer).then_some(shared.transfer_idle),
            request_bytes: (call.kind != Kind::Stream).then_some(most),
            answer_bytes: (call.kind == Kind::Call).then_some(most),
            ended: peer.permission(),
        };
        let ended = bounds.ended.child_token();
        let (parts, body) = request.into_parts();
        let mut request = http::Request::new(RequestBody::body(body, bounds.request_bytes, &ended));
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = self.headers(&parts.headers);
        if call.kind != Kind::Stream {
            rpc::state_timeout(request.headers_mut(), deadline.saturating_duration_since(Instant::now()));
        }
        let guard = ended.drop_guard();
        let response = tokio::select! {
            response = self.send(call, &peer, request, &parts.uri, deadline) => response?,
            () = bounds.ended.cancelled() => {
                return Err(Failure::denied("federation with the target was ended").into());
            }
        };
        check_head(&response)?;
        if call.kind == Kind::Stream {
            // A stream may never end, but it has begun.
            peer.breaker(call.kind).succeeded();
        }
        Ok((response, bounds, guard))
    }

    /// Passes the breaker, finding out on the way whether a peer that was left alone is back.
    async fn admit(&self, kind: Kind, peer: &Arc<Peer>, deadline: Instant) -> Result<(), Failure> {
        match peer.breaker(kind).admit() {
            Admission::Go => Ok(()),
            Admission::Refused(failure) => Err(failure),
            Admission::Probe(probe) => match peer.probe(deadline).await {
                Ok(()) => {
                    probe.succeeded();
                    peer.heard();
                    Ok(())
                }
                Err(failure) => {
                    probe.failed(&failure);
                    Err(failure)
                }
            },
        }
    }

    fn headers(&self, from: &HeaderMap) -> HeaderMap {
        let mut headers = rpc::request_headers(from);
        if let Ok(origin) = HeaderValue::try_from(self.pool.shared().domain.as_str()) {
            headers.insert(metadata::ORIGIN_DOMAIN, origin);
        }
        if let Some(trace) = from.get(rpc::TRACEPARENT) {
            headers.insert(rpc::TRACEPARENT, trace.clone());
        }
        telemetry::state_trace(&tracing::Span::current(), &mut headers);
        headers
    }

    /// Sends over the connection; once more over a new one if the first turns out closed before anything was sent.
    async fn send(
        &self,
        call: &mut PeerCall,
        peer: &Arc<Peer>,
        mut request: http::Request<Body>,
        uri: &http::Uri,
        deadline: Instant,
    ) -> Result<http::Response<hyper::body::Incoming>, Unusable> {
        let mut again = true;
        loop {
            let connection = peer.connection(deadline).await?;
            call.on(&connection);
            if let Err(unusable) = connection.greet(self.pool.shared(), deadline).await {
                if let Unusable::Failed(failure) = &unusable {
                    broke(call.kind, peer, &connection, failure);
                }
                return Err(unusable);
            }
            *request.uri_mut() = absolute(&connection.authority, uri);
            let sent = timeout_at(deadline, connection.send.clone().try_send_request(request)).await;
            let mut error = match sent {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => error,
                Err(_) => {
                    let failure = Failure::deadline();
                    if call.was_patient() {
                        peer.note(&failure, Some(call.kind));
                    }
                    return Err(failure.into());
                }
            };
            if let Some(unsent) = error.take_message().filter(|_| again) {
                peer.discard(&connection);
                again = false;
                request = unsent;
                continue;
            }
            let error = error.into_error();
            if is_reset(&error) {
                return Err(Failure::transport("the call was given up").into());
            }
            peer.discard(&connection);
            let failure = connection.broke(format!("the connection broke: {error}"));
            broke(call.kind, peer, &connection, &failure);
            return Err(failure.into());
        }
    }
}

type Forwarded = (http::Response<hyper::body::Incoming>, Bounds, tokio_util::sync::DropGuard);

impl From<Failure> for Unusable {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// One connection that breaks is one outage, however many calls were on it.
fn broke(kind: Kind, peer: &Peer, connection: &Connection, failure: &Failure) {
    if connection.first_to_tell() {
        peer.note(failure, Some(kind));
    }
}

/// Whom a service wants to reach.
fn target(headers: &HeaderMap) -> Result<Domain, Failure> {
    let text = headers.get(metadata::TARGET_DOMAIN).ok_or_else(|| Failure::malformed("no target domain"))?;
    let text = text.to_str().unwrap_or_default();
    text.parse().map_err(|_| Failure::malformed("the target is not a domain"))
}

/// What does not look like gRPC is not passed on as if it were.
fn check_head<B>(response: &http::Response<B>) -> Result<(), Failure> {
    if response.status() != StatusCode::OK {
        return Err(Failure::not_grpc(format!("the peer answered HTTP {}", response.status().as_u16())));
    }
    if rpc::is_grpc(response.headers()) { Ok(()) } else { Err(Failure::not_grpc("the peer's answer is not gRPC")) }
}

struct Held {
    peer: Arc<Peer>,
    connection: Option<Arc<Connection>>,
    _gauged: Gauged,
    _permit: OwnedSemaphorePermit,
}

/// A call to a peer until its answer has ended.
struct PeerCall {
    pool: Arc<Pool>,
    domain: Domain,
    kind: Kind,
    started: Instant,
    patience: Duration,
    held: Option<Held>,
}

impl PeerCall {
    fn on(&mut self, connection: &Arc<Connection>) {
        if let Some(held) = &mut self.held {
            held.connection = Some(connection.clone());
        }
    }

    /// Whether the call waited long enough for its end to tell something about the peer.
    fn was_patient(&self) -> bool {
        self.patience >= TELLING.min(self.pool.shared().call_deadline)
    }

    fn count(&self, outcome: &'static str) {
        // A domain that nobody agreed on, and that was never reached, gets no metrics of its own.
        if self.held.is_some() || self.pool.shared().policy.current().remotes.contains_key(&self.domain) {
            let took = (self.kind == Kind::Call).then(|| self.started.elapsed());
            metering::call(&self.domain, Direction::Out, outcome, took);
        }
    }

    fn failure(&self, cut: &Cut) -> Failure {
        let connection = self.held.as_ref().and_then(|held| held.connection.as_ref());
        match cut {
            Cut::Deadline => Failure::deadline(),
            Cut::Ended if self.pool.shared().shutdown.is_cancelled() => Failure::transport("this backend shuts down"),
            Cut::Ended => Failure::denied("federation with the target was ended"),
            Cut::Broken => match connection {
                Some(connection) => connection.broke("the answer broke off"),
                None => Failure::transport("the answer broke off"),
            },
            Cut::Reset => Failure::transport("the peer gave up the call"),
            Cut::TooLarge => Failure::oversized(),
        }
    }
}

impl Call for PeerCall {
    fn explain(&self, cut: &Cut) -> Status {
        self.failure(cut).status(self.domain.as_str())
    }

    fn finished(&mut self, outcome: Outcome) {
        let Some(held) = &self.held else { return };
        let breaker = held.peer.breaker(self.kind);
        match outcome {
            Outcome::Answered(code) => {
                breaker.succeeded();
                self.count(if code == Some(tonic::Code::Ok) { "ok" } else { "refused" });
            }
            Outcome::Cut(cut) => {
                let failure = self.failure(&cut);
                let told = held.connection.as_ref().is_none_or(|connection| connection.first_to_tell());
                match cut {
                    Cut::Broken if told => held.peer.note(&failure, Some(self.kind)),
                    // A transfer that pauses may wait for a disk, or for somebody who reads slowly.
                    Cut::Deadline if self.kind == Kind::Call && self.was_patient() => {
                        held.peer.note(&failure, Some(self.kind));
                    }
                    _ => {}
                }
                self.count(failure.label);
            }
            Outcome::Abandoned => self.count("abandoned"),
        }
        self.held = None;
    }
}

impl<B> Service<http::Request<B>> for Egress
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        self.clone().serve(request.map(Body::new)).map(Ok).boxed()
    }
}
