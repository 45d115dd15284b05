//! Channels to services in other processes.

use std::{io, net::IpAddr, path::Path, sync::Arc, time::Duration};

use aldis_proto::channel::{Channel, boxed};
use hickory_resolver::ResolverBuilder;
use http::uri::Authority;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, ToSocketAddrs, UnixStream};
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    body::Body,
    transport::{Endpoint, Uri},
};
use tower::{BoxError, Service, ServiceExt, service_fn};

use crate::{
    balance::{self, Named},
    dns,
    http2::{KEEP_ALIVE, KEEP_ALIVE_TIMEOUT, STREAM_WINDOW},
    listen::ShortPath,
    telemetry,
    workload::Workload,
};

/// How long it may take until a connection can be used.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);
pub(crate) const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// An address at which no channel can be built.
#[derive(Debug, thiserror::Error)]
#[error("address {address:?} of another service: {reason}; allowed: host:port")]
pub struct AddressError {
    address: String,
    reason: String,
}

fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        // Without this a channel that was cut while idle hangs for good.
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}

/// A channel to the service at `address` (`host:port`). With a `workload`, the other side must prove that it is `name`.
///
/// An IP address is connected at the first call and again whenever it breaks. A host name stands for all replicas of the
/// service: calls are shared among the addresses that DNS gives, which are connected from now on.
pub fn lazy(address: &str, workload: Option<&Workload>, name: &str) -> Result<Channel, AddressError> {
    let failed =
        |reason: &dyn std::fmt::Display| AddressError { address: address.to_owned(), reason: reason.to_string() };
    let endpoint = tuned(Endpoint::from_shared(format!("http://{address}")).map_err(|error| failed(&error))?);
    let proof = workload.cloned().map(|workload| {
        let name = ServerName::try_from(name.to_owned()).map_err(|error| failed(&error))?;
        Ok(Proof { workload, name })
    });
    let proof = proof.transpose()?;
    let authority: Authority = address.parse().map_err(|error| failed(&error))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    if host.parse::<IpAddr>().is_err() {
        let port = authority.port_u16().ok_or_else(|| failed(&"it has no port"))?;
        let resolver = dns::resolver(None).and_then(ResolverBuilder::build).map_err(|error| failed(&error))?;
        let addresses = Named { host: host.to_owned(), resolver };
        return Ok(traced(balance::channel(authority, port, addresses, proof)));
    }
    let Some(proof) = proof else { return Ok(traced(endpoint.connect_lazy())) };
    let address: Arc<str> = address.into();
    // Not the endpoint's own TLS, which would keep the certificates that it was made with.
    Ok(traced(endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
        let (proof, address) = (proof.clone(), address.clone());
        async move {
            let connecting = async { proof.demand(connect(&*address).await?).await };
            Ok::<_, io::Error>(TokioIo::new(timeout(CONNECT, connecting).await??))
        }
    }))))
}

/// What the other side must prove: that it is the service of this name.
#[derive(Clone)]
pub(crate) struct Proof {
    pub(crate) workload: Workload,
    pub(crate) name: ServerName<'static>,
}

impl Proof {
    /// The same connection, with TLS.
    pub(crate) async fn demand(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsConnector::from(self.workload.client()).connect(self.name.clone(), stream).await
    }
}

pub(crate) async fn connect(address: impl ToSocketAddrs) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A channel over a Unix socket.
pub fn unix(path: &Path) -> Channel {
    let path = path.to_owned();
    // The URI only fills the `:authority`; the connector decides where the call goes.
    let endpoint = tuned(Endpoint::from_static("http://admin.invalid"));
    traced(endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
        let path = path.clone();
        async move {
            let short = ShortPath::of(&path)?;
            Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(short.path()).await?))
        }
    })))
}

/// Every call states the trace that it belongs to.
fn traced<S>(channel: S) -> Channel
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    boxed(channel.map_request(|mut request: http::Request<Body>| {
        telemetry::state_trace(&tracing::Span::current(), request.headers_mut());
        request
    }))
}
