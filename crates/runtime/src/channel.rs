//! Channels to services in other processes.

use std::{path::Path, sync::Arc, time::Duration};

use aldis_proto::channel::{Channel, boxed};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Endpoint, Uri};
use tower::{ServiceExt, service_fn};

use crate::{listen::ShortPath, telemetry, workload::Workload};

const CONNECT: Duration = Duration::from_secs(5);

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
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        // Without this a channel that was cut while idle hangs for good.
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
}

/// A channel to the service at `address` (`host:port`), connected at the first call and again whenever it breaks. With
/// a `workload`, the other side must prove that it is `name`.
pub fn lazy(address: &str, workload: Option<&Workload>, name: &str) -> Result<Channel, AddressError> {
    let failed =
        |reason: &dyn std::fmt::Display| AddressError { address: address.to_owned(), reason: reason.to_string() };
    let endpoint = tuned(Endpoint::from_shared(format!("http://{address}")).map_err(|error| failed(&error))?);
    let Some(workload) = workload.cloned() else { return Ok(traced(endpoint.connect_lazy())) };
    let name = ServerName::try_from(name.to_owned()).map_err(|error| failed(&error))?;
    let address: Arc<str> = address.into();
    // Not the endpoint's own TLS, which would keep the certificates that it was made with.
    Ok(traced(endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
        let (workload, name, address) = (workload.clone(), name.clone(), address.clone());
        async move {
            let connecting = async {
                let stream = TcpStream::connect(&*address).await?;
                stream.set_nodelay(true)?;
                TlsConnector::from(workload.client()).connect(name, stream).await
            };
            Ok::<_, std::io::Error>(TokioIo::new(timeout(CONNECT, connecting).await??))
        }
    }))))
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
            Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(short.path()).await?))
        }
    })))
}

/// Every call states the trace that it belongs to.
fn traced(channel: tonic::transport::Channel) -> Channel {
    boxed(channel.map_request(|mut request: http::Request<tonic::body::Body>| {
        telemetry::state_trace(&tracing::Span::current(), request.headers_mut());
        request
    }))
}
