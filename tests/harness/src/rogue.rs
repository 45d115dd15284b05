//! Peers that misbehave: a backend that answers wrongly or not at all, and a caller that claims what it is not.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use aldis_proto::{
    federation::v1::{
        Capabilities, HelloRequest, HelloResponse, PingRequest, PingResponse,
        conversations_client::ConversationsClient,
        conversations_delivery_client::ConversationsDeliveryClient,
        federator_client::FederatorClient,
        federator_server::{Federator, FederatorServer},
        users_client::UsersClient,
    },
    metadata,
};
use aldis_runtime::{Clock as _, SystemClock};
use anyhow::{Context as _, Result};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, future::BoxFuture, stream};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs, server::WebPkiClientVerifier};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Status,
    body::Body as TonicBody,
    service::{Routes, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tower_service::Service as _;

use crate::pki::{Authority, Identity};

/// How a rogue backend treats its callers.
#[derive(Clone)]
pub enum Conduct {
    /// Accepts the connection and never says a word.
    Mute,
    /// Greets, and then answers no request.
    Silent,
    /// Greets, and then answers every request with a message that claims this many bytes and streams them.
    Oversized(u32),
    /// Greets, and then answers every request with bytes that are no gRPC.
    Garbage,
    /// Greets with a clock that is so many milliseconds ahead, and then answers no request.
    Ahead(i64),
    /// Greets as a build that speaks these versions of the federation API alone, and then answers no request.
    Versions(Vec<u32>),
    /// Greets, and then answers as these servers do.
    Serve(Routes),
}

/// A backend that misbehaves, on 127.0.0.1. Stops when it is dropped.
pub struct Rogue {
    port: u16,
    _stop: DropGuard,
}

type RogueBody = UnsyncBoxBody<Bytes, Status>;

impl Rogue {
    /// Starts with this certificate. Callers may show any certificate of the authority, or none.
    pub async fn start(authority: &Authority, identity: &Identity, conduct: Conduct) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let acceptor = TlsAcceptor::from(Arc::new(server_config(authority, identity)?));
        let stop = CancellationToken::new();
        tokio::spawn(accept(listener, acceptor, conduct, stop.clone()));
        Ok(Self { port, _stop: stop.drop_guard() })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens, with the address.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }
}

fn server_config(authority: &Authority, identity: &Identity) -> Result<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain(), identity.key())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, conduct: Conduct, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // Dropping the set ends every connection.
            () = stop.cancelled() => return,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                connections.spawn(converse(stream, acceptor.clone(), conduct.clone()));
            }
        }
    }
}

async fn converse(stream: TcpStream, acceptor: TlsAcceptor, conduct: Conduct) {
    if matches!(conduct, Conduct::Mute) {
        std::future::pending::<()>().await;
    }
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let ahead = if let Conduct::Ahead(millis) = conduct { millis } else { 0 };
    let versions = if let Conduct::Versions(versions) = &conduct { versions.clone() } else { capabilities().versions };
    let greeter = Routes::new(FederatorServer::new(Greeter { ahead, versions }));
    let service = service_fn(move |request: Request<Incoming>| answer(request, greeter.clone(), conduct.clone()));
    // The caller may hang up at any time.
    let _ = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn answer(
    request: Request<Incoming>,
    mut greeter: Routes,
    conduct: Conduct,
) -> BoxFuture<'static, Result<Response<RogueBody>, Infallible>> {
    Box::pin(async move {
        if request.uri().path().starts_with("/aldis.federation.v1.Federator/") {
            return Ok(greeter.call(request).await?.map(boxed));
        }
        Ok(match conduct {
            Conduct::Mute | Conduct::Silent | Conduct::Ahead(_) | Conduct::Versions(_) => std::future::pending().await,
            Conduct::Oversized(size) => oversized(size),
            Conduct::Garbage => {
                grpc(stream::iter([Ok(Frame::data(Bytes::from_static(b"\xffthis is no gRPC at all")))]))
            }
            Conduct::Serve(mut routes) => routes.call(request).await?.map(boxed),
        })
    })
}

fn boxed(body: TonicBody) -> RogueBody {
    body.boxed_unsync()
}

fn grpc(frames: impl futures::Stream<Item = Result<Frame<Bytes>, Status>> + Send + 'static) -> Response<RogueBody> {
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// One gRPC message of `size` bytes, sent for as long as the other side reads.
fn oversized(size: u32) -> Response<RogueBody> {
    const CHUNK: u32 = 64 * 1024;
    let mut head = vec![0];
    head.extend(size.to_be_bytes());
    let chunk = Bytes::from(vec![0; CHUNK as usize]);
    let chunks = stream::iter(0..size.div_ceil(CHUNK)).map(move |_| chunk.clone());
    grpc(stream::once(async move { Bytes::from(head) }).chain(chunks).map(|bytes| Ok(Frame::data(bytes))))
}

/// Says hello as a well-behaved backend does.
struct Greeter {
    ahead: i64,
    versions: Vec<u32>,
}

#[async_trait]
impl Federator for Greeter {
    async fn hello(&self, _: tonic::Request<HelloRequest>) -> Result<tonic::Response<HelloResponse>, Status> {
        let capabilities = Capabilities { versions: self.versions.clone(), ..capabilities() };
        Ok(tonic::Response::new(HelloResponse { capabilities: Some(capabilities) }))
    }

    async fn ping(&self, _: tonic::Request<PingRequest>) -> Result<tonic::Response<PingResponse>, Status> {
        Ok(tonic::Response::new(PingResponse { time: SystemClock.now().millis() + self.ahead }))
    }
}

/// The capabilities of a backend of this release.
pub fn capabilities() -> Capabilities {
    Capabilities {
        build: "rogue".to_owned(),
        versions: vec![1],
        users_kinds: vec![10, 11, 12],
        conversations_kinds: vec![10, 11, 12, 13, 14, 15, 16, 17, 18, 30],
        max_message_bytes: 48 * 1024 * 1024,
        max_asset_bytes: 0,
        asset_types: Vec::new(),
    }
}

/// How long a caller waits for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Somebody who calls a backend's federator directly.
#[derive(Clone)]
pub struct Caller {
    channel: Channel,
    origin: Option<HeaderValue>,
}

/// A channel whose calls claim an origin.
pub type Claiming = InterceptedService<Channel, ClaimOrigin>;

/// Sets the origin that the caller claims.
#[derive(Clone)]
pub struct ClaimOrigin(Option<HeaderValue>);

impl tonic::service::Interceptor for ClaimOrigin {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        if let Some(origin) = &self.0 {
            let origin = origin.to_str().map_err(|_| Status::internal("origin"))?;
            let origin = origin.parse().map_err(|_| Status::internal("origin"))?;
            request.metadata_mut().insert(metadata::ORIGIN_DOMAIN, origin);
        }
        Ok(request)
    }
}

impl Caller {
    /// Connects to the federator at this address, which must prove to be `server`, with a certificate of our own or
    /// without, and claims to be `origin` from then on. An error means that the handshake failed; with TLS 1.3
    /// a refused certificate may show only at the first call.
    pub async fn connect(
        address: SocketAddr,
        server: &str,
        authority: &Authority,
        identity: Option<&Identity>,
        origin: Option<&str>,
    ) -> Result<Self> {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem())).domain_name(server);
        if let Some(identity) = identity {
            tls = tls.identity(tonic::transport::Identity::from_pem(&identity.certificate_pem, &identity.key_pem));
        }
        let endpoint = Endpoint::from_shared(format!("https://{address}"))?.connect_timeout(CONNECT);
        let channel = endpoint.tls_config(tls)?.connect().await.context("connecting to the federator")?;
        let origin = origin.map(HeaderValue::from_str).transpose()?;
        Ok(Self { channel, origin })
    }

    /// The same connection with another claim.
    #[must_use]
    pub fn claiming(&self, origin: &'static str) -> Self {
        Self { channel: self.channel.clone(), origin: Some(HeaderValue::from_static(origin)) }
    }

    /// The channel with the claim, for other generated clients.
    pub fn claiming_channel(&self) -> Claiming {
        InterceptedService::new(self.channel.clone(), ClaimOrigin(self.origin.clone()))
    }

    /// Says hello, as a federator does once per connection.
    pub async fn hello(&self) -> Result<HelloResponse, Status> {
        let mut client = FederatorClient::new(self.claiming_channel());
        let hello = HelloRequest { capabilities: Some(capabilities()) };
        client.hello(hello).await.map(tonic::Response::into_inner)
    }

    /// Calls to the users service.
    pub fn users(&self) -> UsersClient<Claiming> {
        UsersClient::new(self.claiming_channel())
    }

    /// Calls to the conversations service.
    pub fn conversations(&self) -> ConversationsClient<Claiming> {
        ConversationsClient::new(self.claiming_channel())
    }

    /// The delivery stream of conversations.
    pub fn deliveries(&self) -> ConversationsDeliveryClient<Claiming> {
        ConversationsDeliveryClient::new(self.claiming_channel())
    }

    /// The bare channel, for calls that no generated client makes.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }
}
