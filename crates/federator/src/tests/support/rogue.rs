//! Peers that misbehave: a backend that answers wrongly or not at all, and a caller that claims what it is not.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use aldis_peers::Origin;
use aldis_proto::{
    federation::v1::{HelloRequest, HelloResponse, federator_client::FederatorClient},
    metadata,
};
use aldis_runtime::SystemClock;
use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{HeaderValue, Request, Response};
use http_body_util::StreamBody;
use hyper::{
    body::{Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs, server::WebPkiClientVerifier};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;
use tonic::{
    Status,
    body::Body,
    service::Routes,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tower_service::Service as _;

use super::pki::{Authority, Identity};
use crate::{Capabilities, hello::Greeter};

/// How a rogue backend treats its callers. All but the first greet as they should.
#[derive(Clone)]
pub(in crate::tests) enum Conduct {
    /// Accepts the connection and never says a word.
    Mute,
    /// Answers no request.
    Silent,
    /// Answers with a message of so many bytes.
    Oversized(u32),
    /// Answers with bytes that are no gRPC.
    Garbage,
    /// Answers as these servers do.
    Serve(Routes),
}

/// Runs until it is dropped.
pub(in crate::tests) struct Rogue {
    port: u16,
    _task: AbortOnDropHandle<()>,
}

impl Rogue {
    pub(in crate::tests) async fn start(authority: &Authority, identity: &Identity, conduct: Conduct) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let acceptor = TlsAcceptor::from(Arc::new(server_config(authority, identity)?));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(converse(stream, acceptor.clone(), conduct.clone()));
            }
        });
        Ok(Self { port, _task: AbortOnDropHandle::new(task) })
    }

    pub(in crate::tests) fn port(&self) -> u16 {
        self.port
    }
}

fn server_config(authority: &Authority, identity: &Identity) -> Result<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain(), identity.key())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

async fn converse(stream: TcpStream, acceptor: TlsAcceptor, conduct: Conduct) {
    if matches!(conduct, Conduct::Mute) {
        std::future::pending::<()>().await;
    }
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(move |request| answer(request, conduct.clone()));
    // The caller may hang up at any time.
    let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(mut request: Request<Incoming>, conduct: Conduct) -> Result<Response<Body>, Infallible> {
    if request.uri().path().starts_with("/aldis.federation.v1.Federator/") {
        let capabilities = Capabilities::of_this_build(vec![10], vec![10], 1024 * 1024);
        request.extensions_mut().insert(Origin::proven("rogue.test".parse().unwrap()));
        return Greeter::server(capabilities, Arc::new(SystemClock)).call(request).await;
    }
    Ok(match conduct {
        Conduct::Mute | Conduct::Silent => std::future::pending().await,
        Conduct::Oversized(size) => oversized(size),
        Conduct::Garbage => grpc(stream::iter([Bytes::from_static(b"\xffthis is no gRPC at all")])),
        Conduct::Serve(mut routes) => routes.call(request).await?,
    })
}

fn grpc(data: impl futures::Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    let frames = data.map(|bytes| Ok::<_, Status>(Frame::data(bytes)));
    let mut response = Response::new(Body::new(StreamBody::new(frames)));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// One gRPC message of `size` bytes, sent for as long as the other side reads.
fn oversized(size: u32) -> Response<Body> {
    const CHUNK: u32 = 64 * 1024;
    let mut head = vec![0];
    head.extend(size.to_be_bytes());
    let chunk = Bytes::from(vec![0; CHUNK as usize]);
    let chunks = stream::iter(0..size.div_ceil(CHUNK)).map(move |_| chunk.clone());
    grpc(stream::once(async move { Bytes::from(head) }).chain(chunks))
}

/// Somebody who calls a backend's federator directly.
pub(in crate::tests) struct Caller {
    channel: Channel,
    origin: Option<&'static str>,
}

impl Caller {
    /// Connects to a federator, which must prove to be `server`, and claims to be `origin` from then on. With TLS 1.3 a
    /// refused certificate may show only at the first call.
    pub(in crate::tests) async fn connect(
        address: SocketAddr,
        server: &str,
        authority: &Authority,
        identity: Option<&Identity>,
        origin: Option<&'static str>,
    ) -> Result<Self> {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem())).domain_name(server);
        if let Some(identity) = identity {
            tls = tls.identity(tonic::transport::Identity::from_pem(&identity.certificate_pem, &identity.key_pem));
        }
        let endpoint = Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?;
        Ok(Self { channel: endpoint.connect().await.context("connecting")?, origin })
    }

    /// The same connection with another claim.
    pub(in crate::tests) fn claiming(&self, origin: &'static str) -> Self {
        Self { channel: self.channel.clone(), origin: Some(origin) }
    }

    pub(in crate::tests) async fn hello(&self) -> Result<HelloResponse, Status> {
        let mut request = tonic::Request::new(HelloRequest::default());
        if let Some(origin) = self.origin {
            request.metadata_mut().insert(metadata::ORIGIN_DOMAIN, origin.parse().unwrap());
        }
        FederatorClient::new(self.channel.clone()).hello(request).await.map(tonic::Response::into_inner)
    }

    pub(in crate::tests) fn channel(&self) -> Channel {
        self.channel.clone()
    }
}
