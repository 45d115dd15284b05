//! Bodies on their way through a federator: streamed, never decoded, but counted, bounded in size and time, and ended
//! when the federation with the other side is.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::{Code, Status};

use crate::{failure, rpc};

/// Why an answer was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The deadline passed.
    Deadline,
    /// Federation with the other side ended, or its proof did.
    Ended,
    /// The side that answers went away.
    Broken,
    /// The side that answers gave up this call alone.
    Reset,
    /// The answer is larger than allowed.
    TooLarge,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With this status, or without one.
    Answered(Option<Code>),
    Cut(Cut),
    /// Whoever asked went away.
    Abandoned,
}

/// A call under way: knows how to explain a cut, and learns the outcome exactly once.
pub(crate) trait Call: Send + Unpin + 'static {
    fn explain(&self, cut: &Cut) -> Status;
    fn finished(&mut self, outcome: Outcome);
}

/// Bounds of a call.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// When the answer must have begun; of a call, when it must have ended too. `None` for event streams.
    pub(crate) deadline: Option<Instant>,
    /// Longest pause between two parts of the answer, once it has begun, instead of the deadline.
    pub(crate) idle: Option<Duration>,
    /// Most bytes of the request; `None` for event streams, whose messages are bounded one by one.
    pub(crate) request_bytes: Option<u64>,
    /// Most bytes of the answer; `None` for streams.
    pub(crate) answer_bytes: Option<u64>,
    /// Ends the call early.
    pub(crate) ended: CancellationToken,
}

/// The body of an answer. A cut becomes a gRPC status in the trailers.
pub(crate) struct AnswerBody<B, C: Call> {
    inner: Option<B>,
    deadline: Option<Pin<Box<Sleep>>>,
    idle: Option<Duration>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    left: Option<u64>,
    call: Option<C>,
    code: Option<Code>,
    /// Ends the request's body with the answer's.
    _request: DropGuard,
}

impl<B, C: Call> AnswerBody<B, C> {
    /// Relays `response` with only the headers that may pass. `request` ends the body of the request.
    pub(crate) fn response(
        response: http::Response<B>,
        bounds: &Bounds,
        request: DropGuard,
        call: C,
    ) -> http::Response<tonic::body::Body>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + 'static,
    {
        let (parts, inner) = response.into_parts();
        let headers = rpc::answer_headers(&parts.headers);
        let body = Self {
            inner: Some(inner),
            deadline: match bounds.idle {
                Some(idle) => Some(Box::pin(sleep_until(Instant::now() + idle))),
                None => bounds.deadline.map(|deadline| Box::pin(sleep_until(deadline))),
            },
            idle: bounds.idle,
            ended: Box::pin(bounds.ended.clone().cancelled_owned()),
            left: bounds.answer_bytes,
            call: Some(call),
            code: rpc::status_code(&headers),
            _request: request,
        };
        let mut response = http::Response::new(tonic::body::Body::new(body));
        *response.headers_mut() = headers;
        response
    }

    fn finish(&mut self, outcome: Outcome) {
        self.inner = None;
        if let Some(mut call) = self.call.take() {
            call.finished(outcome);
        }
    }

    fn cut(&mut self, cut: Cut) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(call) = &self.call else { return Poll::Ready(None) };
        let trailers = failure::trailers(&call.explain(&cut));
        self.finish(Outcome::Cut(cut));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn trailers(&mut self, trailers: &HeaderMap) -> HeaderMap {
        let trailers = rpc::answer_headers(trailers);
        self.code = rpc::status_code(&trailers).or(self.code);
        trailers
    }
}

/// Whether the other side gave up one stream, as opposed to the whole connection.
pub(crate) fn is_reset(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .any(|error| error.downcast_ref::<h2::Error>().is_some_and(h2::Error::is_reset))
}

/// Takes `size` bytes from what is left; `false` when there is not enough.
fn take(left: &mut Option<u64>, size: usize) -> bool {
    match left {
        Some(left) => {
            let enough = *left >= size as u64;
            *left = left.saturating_sub(size as u64);
            enough
        }
        None => true,
    }
}

impl<B, C> Body for AnswerBody<B, C>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + 'static,
    C: Call,
{
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let Some(inner) = this.inner.as_mut() else { return Poll::Ready(None) };
        if this.ended.as_mut().poll(context).is_ready() {
            return this.cut(Cut::Ended);
        }
        match Pin::new(inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_trailers() {
                Ok(trailers) => {
                    let trailers = this.trailers(&trailers);
                    Poll::Ready(Some(Ok(Frame::trailers(trailers))))
                }
                Err(frame) => {
                    let size = frame.data_ref().map_or(0, Buf::remaining);
                    if let (Some(idle), Some(deadline)) = (this.idle, &mut this.deadline) {
                        deadline.as_mut().reset(Instant::now() + idle);
                    }
                    if take(&mut this.left, size) { Poll::Ready(Some(Ok(frame))) } else { this.cut(Cut::TooLarge) }
                }
            },
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "an answer broke off");
                this.cut(if is_reset(&error) { Cut::Reset } else { Cut::Broken })
            }
            Poll::Ready(None) => {
                let code = this.code;
                this.finish(Outcome::Answered(code));
                Poll::Ready(None)
            }
            Poll::Pending => {
                let late = this.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(context).is_ready());
                if late { this.cut(Cut::Deadline) } else { Poll::Pending }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B, C: Call> Drop for AnswerBody<B, C> {
    fn drop(&mut self) {
        let outcome = match self.code {
            // The status was there; nobody needs to poll to the very end.
            Some(code) => Outcome::Answered(Some(code)),
            None => Outcome::Abandoned,
        };
        self.finish(outcome);
    }
}

/// The body of a request: bounded, and ended with the call.
pub(crate) struct RequestBody<B> {
    inner: B,
    left: Option<u64>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<B> RequestBody<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::fmt::Display,
{
    pub(crate) fn body(inner: B, bytes: Option<u64>, ended: &CancellationToken) -> tonic::body::Body {
        tonic::body::Body::new(Self { inner, left: bytes, ended: Box::pin(ended.clone().cancelled_owned()) })
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(Status::cancelled("the call has ended"))));
        }
        match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let size = frame.data_ref().map_or(0, Buf::remaining);
                if take(&mut this.left, size) {
                    Poll::Ready(Some(Ok(frame)))
                } else {
                    Poll::Ready(Some(Err(Status::resource_exhausted("the message is larger than allowed"))))
                }
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "a request broke off");
                Poll::Ready(Some(Err(Status::cancelled("the request broke off"))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
