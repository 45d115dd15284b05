//! Bodies that are answered before they were read to the end, as one that is too large.
//!
//! Over HTTP/1 most clients write the whole body before they read the answer. A connection that is closed in the middle
//! gives them a broken pipe instead of the answer, so the rest is read and thrown away: at most so many bytes, for at
//! most so long. HTTP/2 needs none of this, as there a stream can end on one side.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{Version, header, request::Parts};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

/// More than that is not thrown away: the connection is closed.
const MAX_BYTES: usize = 64 * 1024 * 1024;
const MAX_TIME: Duration = Duration::from_secs(30);

/// A body whose rest is read when nobody else does.
pub(super) struct ReadToEnd {
    body: Option<Body>,
    /// The client sends nothing before it was asked to.
    waits: bool,
}

impl ReadToEnd {
    /// Wraps the body of a request where that helps.
    pub(super) fn wrap(parts: &Parts, body: Body) -> Body {
        if parts.version > Version::HTTP_11 || http_body::Body::is_end_stream(&body) {
            return body;
        }
        let waits = parts.headers.contains_key(header::EXPECT);
        Body::new(Self { body: Some(body), waits })
    }
}

impl http_body::Body for ReadToEnd {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.waits = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

impl Drop for ReadToEnd {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !self.waits && !http_body::Body::is_end_stream(body)) else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(MAX_TIME, throw_away(body)));
        }
    }
}

async fn throw_away(mut body: Body) {
    let mut left = MAX_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let size = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(size) else { return };
        left = rest;
    }
}
