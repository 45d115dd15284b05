//! Where a generated client sends its calls: a connection, or a server in this very process.

use std::{
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use futures::future::{BoxFuture, FutureExt};
use tonic::{body::Body, service::Routes};
use tower::{BoxError, Service, ServiceExt, util::BoxCloneSyncService};

/// What every generated client of ours is built on; cheap to clone.
pub type Channel = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, ChannelError>;

/// The transport below a channel failed; the call may or may not have arrived.
#[derive(Debug, thiserror::Error)]
#[error("transport failed")]
pub struct ChannelError(#[source] BoxError);

impl ChannelError {
    /// Wraps the failure of a transport.
    pub fn new(source: impl Into<BoxError>) -> Self {
        Self(source.into())
    }
}

/// Boxes any tonic-compatible transport.
pub fn boxed<S>(service: S) -> Channel
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    BoxCloneSyncService::new(service.map_err(ChannelError::new))
}

/// A place for a server in this process, handed out as a [`Channel`] before the server exists: services of one process
/// refer to each other in circles. Calls before [`InProcess::serve`] fail.
#[derive(Clone, Default)]
pub struct InProcess {
    routes: Arc<OnceLock<Routes>>,
}

/// The server behind an in-process channel was not started yet.
#[derive(Debug, thiserror::Error)]
#[error("the service is not running in this process")]
pub struct NotServing;

impl InProcess {
    /// An empty place.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts the server in place. Only the first call has an effect.
    pub fn serve(&self, routes: Routes) {
        // A second server for the same place would be a mistake in start-up; the first keeps serving.
        let _ = self.routes.set(routes.prepare());
    }

    /// The channel to whatever is put in place.
    pub fn channel(&self) -> Channel {
        BoxCloneSyncService::new(self.clone())
    }
}

impl Service<http::Request<Body>> for InProcess {
    type Response = http::Response<Body>;
    type Error = ChannelError;
    type Future = BoxFuture<'static, Result<Self::Response, ChannelError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Some(routes) = self.routes.get() else {
            return async { Err(ChannelError::new(NotServing)) }.boxed();
        };
        let mut routes = routes.clone();
        async move {
            ServiceExt::<http::Request<Body>>::ready(&mut routes).await.map_err(ChannelError::new)?;
            routes.call(request).await.map_err(ChannelError::new)
        }
        .boxed()
    }
}
