//! Two services, alpha's and beta's, with a wire between them that can be watched, held and cut.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use aldis_api::{
    TokenVerifier,
    auth::AuthState,
    token::{self, Claims, Kind},
};
use aldis_peers::{Origin, Peers, Policy};
use aldis_proto::{
    channel::{Channel, InProcess, boxed},
    convert::{qualified_conversation, user_id},
    error,
    federation::v1::{Capabilities, Hop},
    internal::v1::{
        AuthSnapshot, ListBackendsRequest, ListBackendsResponse, ListPeersRequest, ListPeersResponse, PeerState,
        audiences_server::{Audiences, AudiencesServer},
        auth_snapshot::Key,
        peer_states_server::{PeerStates, PeerStatesServer},
    },
    metadata,
};
use aldis_runtime::{ManualClock, SystemRandom};
use aldis_storage::{Db, DbOptions, Store};
use aldis_types::{ConnId, Domain, PolicySnapshot, Strategy, Timestamp, UserId};
use axum::{Router, body::Body};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use md5::{Digest, Md5};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet};
use tonic::{Code, Status, service::Routes};
use tower::ServiceExt;

use crate::{Config, Dependencies, start};

pub(super) const ALPHA: &str = "alpha.test";
pub(super) const BETA: &str = "beta.test";

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

pub(super) fn user(number: u8) -> UserId {
    UserId::from_bytes(&[number; 16]).unwrap()
}

/// What happens to answers on the wire.
#[derive(Default)]
struct Faults {
    /// Answers break off after so many bytes; each time once.
    breaks: Vec<usize>,
    /// Every call fails.
    down: bool,
    /// The last byte of every answer is another one.
    alters: bool,
    /// What our federator knows of others.
    peers: Vec<PeerState>,
    calls: HashMap<String, usize>,
}

/// The way from beta to alpha.
#[derive(Clone)]
pub(super) struct Wire {
    faults: Arc<Mutex<Faults>>,
    /// Answers with bytes wait while this is set.
    held: watch::Sender<bool>,
}

fn own_failure() -> Status {
    let mut status = error::status(Code::Unavailable, Hop::Connect, "federation-connection-refused", ALPHA, "down");
    status.metadata_mut().insert(metadata::OWN_FAILURE, "1".parse().unwrap());
    status
}

impl Wire {
    fn new() -> Self {
        Self { faults: Arc::default(), held: watch::Sender::new(false) }
    }

    pub(super) fn break_after(&self, bytes: usize, times: usize) {
        self.faults.lock().unwrap().breaks = vec![bytes; times];
    }

    pub(super) fn set_down(&self, down: bool) {
        self.faults.lock().unwrap().down = down;
    }

    pub(super) fn alter(&self) {
        self.faults.lock().unwrap().alters = true;
    }

    pub(super) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Has our federator know what a backend fetches.
    pub(super) fn know(&self, domain: &str, max_asset_bytes: u64, types: &[&str]) {
        let asset_types = types.iter().map(|text| (*text).to_owned()).collect();
        let capabilities = Some(Capabilities { max_asset_bytes, asset_types, ..Capabilities::default() });
        let peer = PeerState { domain: domain.to_owned(), capabilities, ..PeerState::default() };
        self.faults.lock().unwrap().peers.push(peer);
    }

    /// How often a method was called.
    pub(super) fn calls(&self, method: &str) -> usize {
        self.faults.lock().unwrap().calls.get(method).copied().unwrap_or(0)
    }

    fn channel(&self, alpha: &InProcess) -> Channel {
        let (wire, alpha) = (self.clone(), alpha.channel());
        boxed(tower::service_fn(move |request: Request<tonic::body::Body>| {
            let (wire, alpha) = (wire.clone(), alpha.clone());
            async move {
                if request.uri().path().starts_with("/aldis.internal.v1.") {
                    return PeerStatesServer::new(wire).oneshot(request).await.map_err(|never| match never {});
                }
                wire.carry(alpha, request).await
            }
        }))
    }

    async fn carry(
        self,
        alpha: Channel,
        mut request: Request<tonic::body::Body>,
    ) -> Result<Response<tonic::body::Body>, aldis_proto::channel::ChannelError> {
        assert_eq!(request.headers().get(metadata::TARGET_DOMAIN).unwrap(), ALPHA);
        let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
        let (down, breaks, alters) = {
            let mut faults = self.faults.lock().unwrap();
            *faults.calls.entry(method.clone()).or_default() += 1;
            let breaks = if method == "Fetch" { faults.breaks.pop() } else { None };
            (faults.down, breaks, faults.alters && method == "Fetch")
        };
        if down {
            return Ok(own_failure().into_http());
        }
        request.extensions_mut().insert(Origin::proven(BETA.parse().unwrap()));
        let (parts, body) = alpha.oneshot(request).await?.into_parts();
        let held = self.held.subscribe();
        let state = (BodyStream::new(body), 0_usize, held, false);
        let frames = futures::stream::unfold(state, move |(mut body, mut given, mut held, ended)| async move {
            if ended {
                return None;
            }
            let frame = body.next().await?.unwrap();
            let frame = match frame.into_data() {
                Ok(data) => {
                    if given > 0 {
                        held.wait_for(|held| !held).await.unwrap();
                    }
                    given += data.len();
                    if breaks.is_some_and(|limit| given > limit) {
                        let mut trailers = http::HeaderMap::new();
                        own_failure().add_header(&mut trailers).unwrap();
                        return Some((Ok(Frame::trailers(trailers)), (body, given, held, true)));
                    }
                    let mut data = data.to_vec();
                    if alters && given > 1000 {
                        *data.last_mut().unwrap() ^= 1;
                    }
                    Frame::data(Bytes::from(data))
                }
                Err(frame) => frame,
            };
            Some((Ok::<_, Status>(frame), (body, given, held, false)))
        });
        Ok(Response::from_parts(parts, tonic::body::Body::new(StreamBody::new(Box::pin(frames)))))
    }
}

#[tonic::async_trait]
impl PeerStates for Wire {
    async fn list_peers(
        &self,
        _: tonic::Request<ListPeersRequest>,
    ) -> Result<tonic::Response<ListPeersResponse>, Status> {
        let peers = self.faults.lock().unwrap().peers.clone();
        Ok(tonic::Response::new(ListPeersResponse { peers }))
    }
}

/// The conversation of [`user`] 1, in which the backends are of which a test says so.
pub(super) const CONVERSATION: &str = "22222222-2222-4222-8222-222222222222";

#[derive(Clone, Default)]
struct Conversations(Arc<Mutex<Vec<String>>>);

#[tonic::async_trait]
impl Audiences for Conversations {
    async fn list_backends(
        &self,
        request: tonic::Request<ListBackendsRequest>,
    ) -> Result<tonic::Response<ListBackendsResponse>, Status> {
        let request = request.into_inner();
        let id = qualified_conversation(request.conversation.as_ref())?;
        if user_id(&request.user)? != user(1) || id.id.to_string() != CONVERSATION {
            return Err(Status::not_found("not his"));
        }
        Ok(tonic::Response::new(ListBackendsResponse { domains: self.0.lock().unwrap().clone() }))
    }
}

/// One service.
pub(super) struct Backend {
    pub(super) domain: Domain,
    pub(super) folder: PathBuf,
    pub(super) federation: InProcess,
    client: Router,
    _tasks: JoinSet<()>,
}

pub(super) struct World {
    pub(super) clock: Arc<ManualClock>,
    pub(super) wire: Wire,
    conversations: Conversations,
    pub(super) folder: tempfile::TempDir,
}

/// An answer that was read, as far as it could be.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: http::HeaderMap,
    /// `Err` with what came before when it broke off.
    pub(super) body: Result<Vec<u8>, Vec<u8>>,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(self.body.as_ref().unwrap()).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    pub(super) fn expect(self, status: u16) -> Self {
        let body = self.body.as_ref().map_or_else(|_| "…".into(), |body| String::from_utf8_lossy(body));
        assert_eq!(self.status, status, "{body}");
        self
    }

    #[track_caller]
    pub(super) fn expect_error(self, status: u16, label: &str) -> Value {
        let body = self.expect(status).json();
        assert_eq!(body["label"], label, "{body}");
        body
    }
}

/// What an upload says and holds.
#[derive(Clone)]
pub(super) struct Form {
    pub(super) description: Value,
    pub(super) media_type: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) length: Option<usize>,
    pub(super) md5: Option<String>,
}

impl Form {
    pub(super) fn of(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let md5 = Some(STANDARD.encode(Md5::digest(&bytes)));
        Self { description: json!({}), media_type: "application/octet-stream", bytes, length: None, md5 }
    }

    pub(super) fn public(bytes: impl Into<Vec<u8>>) -> Self {
        Self { description: json!({ "public": true, "retention": "eternal" }), ..Self::of(bytes) }
    }

    pub(super) fn body(&self) -> Vec<u8> {
        let json = self.description.to_string();
        let md5 = self.md5.as_ref().map_or_else(String::new, |md5| format!("Content-MD5: {md5}\r\n"));
        let length = self.length.unwrap_or(self.bytes.len());
        let mut body = format!(
            "--frontier\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: {}\r\n\r\n{json}\r\n--frontier\r\n\
             Content-Type: {}\r\nContent-Length: {length}\r\n{md5}\r\n",
            json.len(),
            self.media_type,
        )
        .into_bytes();
        body.extend_from_slice(&self.bytes);
        body.extend_from_slice(b"\r\n--frontier--\r\n");
        body
    }
}

/// Bytes that are not all the same.
pub(super) fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|i| u8::try_from((i * 7 + i / 251) % 256).unwrap()).collect()
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            clock: Arc::new(ManualClock::new(Timestamp::from_millis(1_750_000_000_000))),
            wire: Wire::new(),
            conversations: Conversations::default(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Puts users of these backends into [`CONVERSATION`].
    pub(super) fn converse_with(&self, domains: &[&str]) {
        *self.conversations.0.lock().unwrap() = domains.iter().map(|domain| (*domain).to_owned()).collect();
    }

    /// Both services with their usual settings.
    pub(super) async fn pair(&self) -> (Backend, Backend) {
        let alpha = self.start(ALPHA, Config::default(), None).await;
        let beta = self.start(BETA, Config::default(), Some(&alpha)).await;
        (alpha, beta)
    }

    /// A service; `to` is whom it reaches.
    pub(super) async fn start(&self, domain: &str, config: Config, to: Option<&Backend>) -> Backend {
        let folder = self.folder.path().join(domain);
        std::fs::create_dir_all(&folder).unwrap();
        let verifier = TokenVerifier::new();
        let auth = Key { index: 1, public_key: key().verifying_key().to_bytes().to_vec().into() };
        verifier.update(AuthState::from_snapshot(&AuthSnapshot {
            keys: vec![auth],
            version: 1,
            ..AuthSnapshot::default()
        }));
        let policy = Policy::new(Duration::from_secs(3600));
        policy.update(PolicySnapshot { version: 1, strategy: Strategy::AllowAll, ..PolicySnapshot::default() });
        let nobody = InProcess::new();
        let conversations = InProcess::new();
        conversations.serve(Routes::new(AudiencesServer::new(self.conversations.clone())));
        let deps = Dependencies {
            domain: domain.parse().unwrap(),
            store: Store::Embedded(Db::open(&folder.join("aldis.db"), &DbOptions::default()).unwrap()),
            clock: self.clock.clone(),
            random: Arc::new(SystemRandom),
            policy,
            verifier,
            peers: Peers::new(self.wire.channel(to.map_or(&nobody, |to| &to.federation))),
            conversations: Some(conversations.channel()),
            folder: folder.clone(),
        };
        let service = start(config, deps).await.unwrap();
        let federation = InProcess::new();
        federation.serve(service.federation.unwrap());
        Backend { domain: domain.parse().unwrap(), folder, federation, client: service.client, _tasks: service.tasks }
    }
}

impl Backend {
    pub(super) async fn send(&self, caller: Option<u8>, request: http::request::Builder, body: Body) -> Answer {
        let request = match caller {
            Some(number) => {
                let kind = Kind::Access { connection: ConnId(1) };
                let claims = Claims { user: user(number), client: None, kind, expires: Some(i64::MAX), session: false };
                request.header("authorization", format!("Bearer {}", token::sign(&claims, 1, &key())))
            }
            None => request,
        };
        let response = self.client.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let mut read = Vec::new();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => read.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Err(_) => return Answer { status, headers, body: Err(read) },
            }
        }
        Answer { status, headers, body: Ok(read) }
    }

    pub(super) async fn call(&self, caller: u8, method: Method, path: &str) -> Answer {
        self.send(Some(caller), Request::builder().method(method).uri(path), Body::empty()).await
    }

    pub(super) async fn get(&self, caller: u8, path: &str) -> Answer {
        self.call(caller, Method::GET, path).await
    }

    pub(super) async fn post(&self, caller: u8, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method(Method::POST).uri("/assets");
        let request = request.header("content-type", "multipart/mixed; boundary=frontier");
        self.send(Some(caller), request, body.into()).await
    }

    /// Uploads, and gives the path of the file and its token.
    pub(super) async fn upload(&self, caller: u8, form: &Form) -> (String, String) {
        let answer = self.post(caller, form.body()).await.expect(201).json();
        let path = format!("/assets/{}/{}", self.domain, answer["key"].as_str().unwrap());
        (path, answer["token"].as_str().unwrap_or_default().to_owned())
    }

    /// Names of the files below a folder of this service.
    pub(super) fn files(&self, folder: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found
    }
}
