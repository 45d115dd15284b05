//! What federators tell each other once per connection, before anything else.

use std::time::Duration;

use aldis_peers::Origin;
use aldis_proto::{
    federation::v1::{
        Capabilities as WireCapabilities, HelloRequest, HelloResponse, PingRequest, PingResponse,
        federator_client::FederatorClient,
        federator_server::{Federator, FederatorServer},
    },
    metadata,
};
use aldis_runtime::SharedClock;
use aldis_types::Domain;
use futures::future::{BoxFuture, FutureExt};
use http::{HeaderValue, uri};
use hyper::client::conn::http2::SendRequest;
use std::task::{Context, Poll};
use tonic::{Code, Request, Response, Status, body::Body};
use tower_service::Service;

use crate::rpc;

/// Versions of the federation API that this build speaks.
pub const VERSIONS: &[u32] = &[1];
/// Bounds on what a peer may claim.
const MAX_LIST: usize = 1_024;
const MAX_BUILD_CHARS: usize = 128;
const MAX_HELLO_BYTES: usize = 64 * 1024;

/// What a backend understands and takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Product and version, for people.
    pub build: String,
    /// Versions of the federation API.
    pub versions: Vec<u32>,
    /// Kinds of envelope that the users service understands.
    pub users_kinds: Vec<u32>,
    /// Kinds of envelope that the conversations service understands.
    pub conversations_kinds: Vec<u32>,
    /// The largest message on any hop.
    pub max_message_bytes: u64,
    /// The largest asset that is fetched for users here; 0: none are.
    pub max_asset_bytes: u64,
    /// Media types of assets that are fetched for users here, as `image/png` or `image/*`; none: all types.
    pub asset_types: Vec<String>,
}

impl Capabilities {
    /// Those of this build, for services that understand these kinds of envelope.
    pub fn of_this_build(users_kinds: Vec<u32>, conversations_kinds: Vec<u32>, max_message_bytes: u64) -> Self {
        Self {
            build: concat!("aldis ", env!("CARGO_PKG_VERSION")).to_owned(),
            versions: VERSIONS.to_vec(),
            users_kinds,
            conversations_kinds,
            max_message_bytes,
            max_asset_bytes: 0,
            asset_types: Vec::new(),
        }
    }

    /// Adds which assets are fetched for users here.
    #[must_use]
    pub fn fetching_assets(mut self, max_bytes: u64, types: Vec<String>) -> Self {
        self.max_asset_bytes = max_bytes;
        self.asset_types = types;
        self
    }

    pub(crate) fn shares_a_version(&self, other: &Self) -> bool {
        self.versions.iter().any(|version| other.versions.contains(version))
    }
}

impl From<&Capabilities> for WireCapabilities {
    fn from(capabilities: &Capabilities) -> Self {
        Self {
            build: capabilities.build.clone(),
            versions: capabilities.versions.clone(),
            users_kinds: capabilities.users_kinds.clone(),
            conversations_kinds: capabilities.conversations_kinds.clone(),
            max_message_bytes: capabilities.max_message_bytes,
            max_asset_bytes: capabilities.max_asset_bytes,
            asset_types: capabilities.asset_types.clone(),
        }
    }
}

impl From<WireCapabilities> for Capabilities {
    fn from(wire: WireCapabilities) -> Self {
        let bounded = |list: Vec<u32>| list.into_iter().take(MAX_LIST).collect();
        Self {
            build: wire.build.chars().filter(|c| !c.is_control()).take(MAX_BUILD_CHARS).collect(),
            versions: bounded(wire.versions),
            users_kinds: bounded(wire.users_kinds),
            conversations_kinds: bounded(wire.conversations_kinds),
            max_message_bytes: wire.max_message_bytes,
            max_asset_bytes: wire.max_asset_bytes,
            asset_types: wire
                .asset_types
                .into_iter()
                .take(MAX_LIST)
                .filter(|it| it.len() <= MAX_BUILD_CHARS && it.bytes().all(|b| b.is_ascii_graphic()))
                .collect(),
        }
    }
}

/// The answering side. Whoever reaches it was proven and admitted.
pub(crate) struct Greeter {
    own: Capabilities,
    clock: SharedClock,
}

impl Greeter {
    pub(crate) fn server(own: Capabilities, clock: SharedClock) -> FederatorServer<Self> {
        FederatorServer::new(Self { own, clock }).max_decoding_message_size(MAX_HELLO_BYTES)
    }
}

#[tonic::async_trait]
impl Federator for Greeter {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloResponse>, Status> {
        let origin = Origin::of(&request)?;
        let theirs: Capabilities = request.into_inner().capabilities.unwrap_or_default().into();
        tracing::debug!(peer.domain = %origin.domain(), peer.build = theirs.build, "hello");
        Ok(Response::new(HelloResponse { capabilities: Some((&self.own).into()) }))
    }

    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        Origin::of(&request)?;
        Ok(Response::new(PingResponse { time: self.clock.now().millis() }))
    }
}

/// Why a hello brought no capabilities.
#[derive(Debug)]
pub(crate) enum NoHello {
    /// The peer answered and refused; its own word.
    Refused(Status),
    /// There was no answer.
    Silent(String),
    /// No common version of the federation API.
    Versions(Vec<u32>),
}

/// Calls of the federator itself over one connection.
#[derive(Clone)]
pub(crate) struct Greeting {
    pub(crate) send: SendRequest<Body>,
    pub(crate) authority: uri::Authority,
    pub(crate) own: Domain,
}

impl Greeting {
    /// Exchanges capabilities.
    pub(crate) async fn hello(self, ours: &Capabilities, patience: Duration) -> Result<Capabilities, NoHello> {
        let request = HelloRequest { capabilities: Some(ours.into()) };
        let mut client = FederatorClient::new(self).max_decoding_message_size(MAX_HELLO_BYTES);
        let answer = tokio::time::timeout(patience, client.hello(request)).await;
        let theirs: Capabilities = read(answer)?.capabilities.unwrap_or_default().into();
        if ours.shares_a_version(&theirs) { Ok(theirs) } else { Err(NoHello::Versions(theirs.versions)) }
    }

    /// Asks for the peer's time of day, in milliseconds since 1970; 0 when it does not tell.
    pub(crate) async fn time(self, patience: Duration) -> Result<i64, String> {
        let mut client = FederatorClient::new(self).max_decoding_message_size(MAX_HELLO_BYTES);
        match read(tokio::time::timeout(patience, client.ping(PingRequest {})).await) {
            Ok(answer) => Ok(answer.time),
            Err(NoHello::Refused(status)) => Err(status.message().to_owned()),
            Err(NoHello::Versions(_)) => Err("no common version".to_owned()),
            Err(NoHello::Silent(why)) => Err(why),
        }
    }

    /// Asks for a sign of life. Being refused is one.
    pub(crate) async fn ping(self, patience: Duration) -> Result<(), String> {
        let mut client = FederatorClient::new(self).max_decoding_message_size(MAX_HELLO_BYTES);
        match read(tokio::time::timeout(patience, client.ping(PingRequest {})).await) {
            Ok(_) | Err(NoHello::Refused(_) | NoHello::Versions(_)) => Ok(()),
            Err(NoHello::Silent(why)) => Err(why),
        }
    }
}

fn read<T>(answer: Result<Result<Response<T>, Status>, tokio::time::error::Elapsed>) -> Result<T, NoHello> {
    match answer {
        Ok(Ok(response)) => Ok(response.into_inner()),
        // A failure of the transport has a source; a status that the peer sent has none.
        Ok(Err(status)) if std::error::Error::source(&status).is_some() => {
            Err(NoHello::Silent(status.message().chars().take(200).collect()))
        }
        Ok(Err(status)) if matches!(status.code(), Code::Ok) => Err(NoHello::Silent("no answer".to_owned())),
        // Only code, text and detail: metadata of a peer never passes.
        Ok(Err(status)) => Err(NoHello::Refused(Status::with_details(
            status.code(),
            status.message(),
            bytes::Bytes::copy_from_slice(status.details()),
        ))),
        Err(_) => Err(NoHello::Silent("no answer in time".to_owned())),
    }
}

impl Service<http::Request<Body>> for Greeting {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, hyper::Error>>;

    /// A connection that has closed fails the call, with its reason: here, the reason would look like a word of the peer.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let headers = rpc::request_headers(request.headers());
        *request.headers_mut() = headers;
        if let Ok(origin) = HeaderValue::try_from(self.own.as_str()) {
            request.headers_mut().insert(metadata::ORIGIN_DOMAIN, origin);
        }
        *request.uri_mut() = absolute(&self.authority, request.uri());
        self.send.send_request(request).boxed()
    }
}

/// The same path at the peer.
pub(crate) fn absolute(authority: &uri::Authority, uri: &http::Uri) -> http::Uri {
    let mut parts = uri::Parts::default();
    parts.scheme = Some(uri::Scheme::HTTPS);
    parts.authority = Some(authority.clone());
    parts.path_and_query = Some(uri.path_and_query().cloned().unwrap_or_else(|| uri::PathAndQuery::from_static("/")));
    // All three parts are present, which is the one condition.
    http::Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}
