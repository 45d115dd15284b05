//! One call of another backend.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use aldis_peers::Origin;
use aldis_proto::metadata;
use aldis_runtime::telemetry;
use aldis_types::Domain;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use hyper::body::Incoming;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use tonic::{Code, Status, body::Body};
use tower::ServiceExt;
use tower_service::Service;
use tracing::Instrument;

use super::{Ingress, connection::Callers};
use crate::{
    egress::FRAMING_BYTES,
    failure::{self, Refusal, label},
    metering::{self, Direction, Gauged},
    relay::{AnswerBody, Bounds, Call, Cut, Outcome, RequestBody},
    rpc::{self, Component, Rpc, Shape},
};

/// Calls at the same time per proven origin, over all of its connections.
pub(crate) struct Origins {
    limit: usize,
    places: Mutex<HashMap<Domain, Arc<Semaphore>>>,
}

const MAX_ORIGINS: usize = 4_096;

impl Origins {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, places: Mutex::default() }
    }

    fn place(&self, origin: &Domain) -> Result<OwnedSemaphorePermit, Refusal> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= MAX_ORIGINS && !places.contains_key(origin) {
            places.retain(|_, place| place.available_permits() < self.limit);
        }
        let place = places.entry(origin.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.limit)));
        place
            .clone()
            .try_acquire_owned()
            .map_err(|_| Refusal::new(Code::ResourceExhausted, label::BUSY, "too many calls at the same time"))
    }
}

fn bare(status: StatusCode) -> http::Response<Body> {
    let mut response = http::Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

impl Ingress {
    /// Answers one request. Refusals say why, to a peer's operator, and nothing about our inside.
    pub(super) async fn answer(
        self: Arc<Self>,
        callers: &Callers,
        request: http::Request<Incoming>,
    ) -> http::Response<Body> {
        if request.method() != Method::POST {
            return bare(StatusCode::METHOD_NOT_ALLOWED);
        }
        if !rpc::is_grpc(request.headers()) {
            return bare(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        let claimed = match claimed(request.headers()) {
            Ok(claimed) => claimed,
            Err(refusal) => {
                metering::refused(refusal.label);
                return failure::answer(&refusal.status(""));
            }
        };
        match self.admit(callers, &claimed, &request).await {
            Ok(admitted) => self.forward(admitted, request).await,
            Err(refusal) => {
                tracing::debug!(peer.claimed = %claimed, label = refusal.label, reason = refusal.message, "call refused");
                metering::refused(refusal.label);
                failure::answer(&refusal.status(claimed.as_str()))
            }
        }
    }

    /// Policy, proof, route and place, in this order.
    async fn admit(
        &self,
        callers: &Callers,
        claimed: &Domain,
        request: &http::Request<Incoming>,
    ) -> Result<Admitted, Refusal> {
        if *claimed == self.domain {
            return Err(Refusal::authentication("the origin cannot be this backend itself"));
        }
        if !self.policy.allows(claimed) {
            return Err(Refusal::denied());
        }
        let ended = callers.prove(self, claimed).await?;
        let unknown = |text| Refusal::new(Code::Unimplemented, label::UNKNOWN_COMPONENT, text);
        let rpc = Rpc::parse(request.uri()).ok_or_else(|| unknown("not a method of aldis.federation.v1"))?;
        let component = rpc.component().ok_or_else(|| unknown("no such service"))?;
        let channel = self.channel(component).ok_or_else(|| unknown("this backend does not offer the service"))?;
        let shape = rpc.shape();
        let deadline = (shape != Shape::Events).then(|| {
            let asked = aldis_peers::timeout(request.headers()).unwrap_or(self.call_deadline);
            Instant::now() + asked.min(self.call_deadline)
        });
        Ok(Admitted {
            channel,
            component,
            bounds: Bounds {
                deadline,
                idle: (shape == Shape::Transfer).then_some(self.transfer_idle),
                request_bytes: (shape != Shape::Events).then_some(self.max_bytes + FRAMING_BYTES),
                answer_bytes: (shape == Shape::Call).then_some(self.max_bytes + FRAMING_BYTES),
                ended,
            },
            call: OriginCall {
                started: Instant::now(),
                timed: shape == Shape::Call,
                _place: self.origins.place(claimed)?,
                _gauged: Gauged::in_flight(claimed, Direction::In),
                origin: claimed.clone(),
            },
        })
    }

    async fn forward(&self, admitted: Admitted, request: http::Request<Incoming>) -> http::Response<Body> {
        let Admitted { channel, component, bounds, mut call } = admitted;
        let (parts, body) = request.into_parts();
        let span =
            tracing::info_span!(parent: None, "peer.serve", peer.domain = %call.origin, rpc.path = parts.uri.path());
        if self.continue_traces {
            telemetry::continue_trace(&span, &parts.headers);
        } else {
            telemetry::link_trace(&span, &parts.headers);
        }
        let ended = bounds.ended.child_token();
        let mut forwarded = http::Request::new(RequestBody::body(body, bounds.request_bytes, &ended));
        *forwarded.method_mut() = Method::POST;
        *forwarded.version_mut() = http::Version::HTTP_2;
        *forwarded.uri_mut() = parts.uri.path().parse().unwrap_or_default();
        *forwarded.headers_mut() = self.headers(&parts.headers, &call.origin, &bounds, &span);
        forwarded.extensions_mut().insert(Origin::proven(call.origin.clone()));
        let guard = ended.drop_guard();

        let answer = async {
            let mut channel = channel;
            channel.ready().await?.call(forwarded).await
        }
        .instrument(span.clone());
        let late = async {
            match bounds.deadline {
                Some(deadline) => timeout_at(deadline, answer).await.map_err(|_| Cut::Deadline),
                None => Ok(answer.await),
            }
        };
        let outcome = tokio::select! {
            outcome = late => outcome,
            () = bounds.ended.cancelled() => Err(Cut::Ended),
        };
        match outcome {
            Ok(Ok(response)) => {
                span.in_scope(|| tracing::trace!("answered"));
                AnswerBody::response(response, &bounds, guard, call)
            }
            Ok(Err(error)) => {
                tracing::warn!(?component, error = &error as &dyn std::error::Error, "a service cannot be reached");
                let status = call.explain(&Cut::Broken);
                call.finished(Outcome::Cut(Cut::Broken));
                failure::answer(&status)
            }
            Err(cut) => {
                let status = call.explain(&cut);
                call.finished(Outcome::Cut(cut));
                failure::answer(&status)
            }
        }
    }

    fn headers(&self, from: &HeaderMap, origin: &Domain, bounds: &Bounds, span: &tracing::Span) -> HeaderMap {
        let mut headers = rpc::request_headers(from);
        if let Some(deadline) = bounds.deadline {
            rpc::state_timeout(&mut headers, deadline.saturating_duration_since(Instant::now()));
        }
        if self.stated_origin
            && let Ok(origin) = HeaderValue::try_from(origin.as_str())
        {
            headers.insert(metadata::ORIGIN_DOMAIN, origin);
        }
        if self.continue_traces
            && let Some(trace) = from.get(rpc::TRACEPARENT)
        {
            headers.insert(rpc::TRACEPARENT, trace.clone());
        }
        telemetry::state_trace(span, &mut headers);
        headers
    }
}

/// Whom the caller says it is.
fn claimed(headers: &HeaderMap) -> Result<Domain, Refusal> {
    let mut values = headers.get_all(metadata::ORIGIN_DOMAIN).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Refusal::new(Code::InvalidArgument, label::NO_ORIGIN, "exactly one origin domain is expected"));
    };
    let text = value.to_str().unwrap_or_default();
    text.parse().map_err(|_| Refusal::new(Code::InvalidArgument, label::DOMAIN_SYNTAX, "the origin is not a domain"))
}

struct Admitted {
    channel: aldis_proto::channel::Channel,
    component: Component,
    bounds: Bounds,
    call: OriginCall,
}

/// A call of a proven origin until its answer has ended.
struct OriginCall {
    origin: Domain,
    started: Instant,
    timed: bool,
    _place: OwnedSemaphorePermit,
    _gauged: Gauged,
}

impl Call for OriginCall {
    fn explain(&self, cut: &Cut) -> Status {
        let refusal = match cut {
            Cut::Deadline => Refusal::new(Code::DeadlineExceeded, label::UNAVAILABLE, "no answer in time"),
            Cut::Ended => Refusal::denied(),
            Cut::Broken | Cut::Reset => {
                Refusal::new(Code::Unavailable, label::UNAVAILABLE, "the service is not available")
            }
            Cut::TooLarge => {
                Refusal::new(Code::ResourceExhausted, label::INVALID_BODY, "the answer is larger than allowed")
            }
        };
        refusal.status(self.origin.as_str())
    }

    fn finished(&mut self, outcome: Outcome) {
        let label = match outcome {
            Outcome::Answered(Some(Code::Ok)) => "ok",
            Outcome::Answered(_) => "refused",
            Outcome::Cut(Cut::Ended) => label::DENIED,
            Outcome::Cut(_) => label::UNAVAILABLE,
            Outcome::Abandoned => "abandoned",
        };
        metering::call(&self.origin, Direction::In, label, self.timed.then(|| self.started.elapsed()));
    }
}
