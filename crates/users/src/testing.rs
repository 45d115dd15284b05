//! What tests of several capabilities need: a store, backends with everything around them recorded, and a network of
//! such backends without any distance.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use aldis_api::TokenVerifier;
use aldis_delivery::{Component, Outbox};
use aldis_peers::{Origin, Peers, Policy};
use aldis_proto::{
    channel::{Channel, InProcess, boxed},
    convert, error,
    federation::v1::Hop,
    internal::v1::{
        ApplyRelationRequest, ApplyRelationResponse, Notification, OpenConsumerRequest, OpenConsumerResponse,
        PushRequest, PushResponse, ReconcileRequest, ReconcileResponse, RemoveClientRequest, RemoveClientResponse,
        RemoveUserQueuesRequest, RemoveUserQueuesResponse, RemoveUserRequest, RemoveUserResponse, SetRemoteRequest,
        memberships_server::{Memberships, MembershipsServer},
        push_server::{Push, PushServer},
        remote_admin_client::RemoteAdminClient,
        users_reconciliation_client::UsersReconciliationClient,
    },
    metadata,
};
use aldis_runtime::{Clock as _, ManualClock, SystemClock, SystemRandom};
use aldis_storage::{Db, DbOptions};
use aldis_types::{ClientId, Domain, Prekey, PrekeyId, Qualified, Strategy, UserId};
use axum::{Router, body::Body};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::future::{BoxFuture, FutureExt};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tonic::{Code, Response, Status, service::Routes};
use tower::{BoxError, ServiceExt};

use crate::{Calls, Config, Dependencies, Mail, Passwords, Registration, Secret, Service};

/// An empty store with our tables.
pub(crate) async fn database() -> (TempDir, Db) {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&folder.path().join("aldis.db"), &DbOptions::default()).unwrap();
    db.migrate("users", crate::schema::MIGRATIONS).await.unwrap();
    (folder, db)
}

/// An empty store with our tables, and an outbox that nobody carries.
pub(crate) async fn database_and_outbox() -> (TempDir, Db, Outbox) {
    let (folder, db) = database().await;
    let domain = "alpha.test".parse().unwrap();
    let outbox = Outbox::open(Component::Users, domain, db.clone(), Arc::new(SystemClock)).await.unwrap();
    (folder, db, outbox)
}

/// What our other services were told.
#[derive(Clone, Default)]
pub(crate) struct Recorder {
    pushed: Arc<Mutex<Vec<Notification>>>,
    relations: Arc<Mutex<Vec<ApplyRelationRequest>>>,
    removed: Arc<Mutex<Vec<RemoveClientRequest>>>,
    opened: Arc<Mutex<Vec<OpenConsumerRequest>>>,
    departed: Arc<Mutex<Vec<UserId>>>,
    forgotten: Arc<Mutex<Vec<UserId>>>,
}

#[tonic::async_trait]
impl Push for Recorder {
    async fn push(&self, request: tonic::Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        self.pushed.lock().unwrap().extend(request.into_inner().notifications);
        Ok(Response::new(PushResponse {}))
    }

    async fn remove_client(
        &self,
        request: tonic::Request<RemoveClientRequest>,
    ) -> Result<Response<RemoveClientResponse>, Status> {
        self.removed.lock().unwrap().push(request.into_inner());
        Ok(Response::new(RemoveClientResponse {}))
    }

    async fn open_consumer(
        &self,
        request: tonic::Request<OpenConsumerRequest>,
    ) -> Result<Response<OpenConsumerResponse>, Status> {
        self.opened.lock().unwrap().push(request.into_inner());
        Ok(Response::new(OpenConsumerResponse {}))
    }

    async fn remove_user(
        &self,
        request: tonic::Request<RemoveUserQueuesRequest>,
    ) -> Result<Response<RemoveUserQueuesResponse>, Status> {
        self.forgotten.lock().unwrap().push(convert::user_id(&request.into_inner().user).unwrap());
        Ok(Response::new(RemoveUserQueuesResponse {}))
    }
}

#[tonic::async_trait]
impl Memberships for Recorder {
    async fn apply_relation(
        &self,
        request: tonic::Request<ApplyRelationRequest>,
    ) -> Result<Response<ApplyRelationResponse>, Status> {
        self.relations.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ApplyRelationResponse {}))
    }

    async fn remove_user(
        &self,
        request: tonic::Request<RemoveUserRequest>,
    ) -> Result<Response<RemoveUserResponse>, Status> {
        self.departed.lock().unwrap().push(convert::user_id(&request.into_inner().user).unwrap());
        Ok(Response::new(RemoveUserResponse {}))
    }
}

/// An event that clients were told.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) event: Value,
    pub(crate) users: Vec<UserId>,
    /// The connection id that is skipped.
    pub(crate) origin: Option<u64>,
}

impl Recorder {
    /// Events of a type, in the order in which they were pushed.
    pub(crate) fn events(&self, kind: &str) -> Vec<Told> {
        let pushed = self.pushed.lock().unwrap();
        let told = pushed.iter().map(|notification| Told {
            event: serde_json::from_slice(&notification.event).unwrap(),
            users: notification.targets.iter().map(|target| convert::user_id(&target.user).unwrap()).collect(),
            origin: notification.origin.as_ref().map(|origin| origin.connection),
        });
        told.filter(|told| told.event["type"] == kind).collect()
    }

    /// Events of a type for one user.
    pub(crate) fn events_for(&self, kind: &str, user: UserId) -> Vec<Value> {
        self.events(kind).into_iter().filter(|told| told.users.contains(&user)).map(|told| told.event).collect()
    }

    /// Event ids of everything that was pushed.
    pub(crate) fn event_ids(&self) -> Vec<bytes::Bytes> {
        self.pushed.lock().unwrap().iter().map(|notification| notification.event_id.clone()).collect()
    }

    pub(crate) fn relations(&self, user: UserId) -> Vec<ApplyRelationRequest> {
        let relations = self.relations.lock().unwrap();
        relations.iter().filter(|relation| relation.user == user.as_bytes().as_slice()).cloned().collect()
    }

    pub(crate) fn opened_consumers(&self) -> Vec<ClientId> {
        self.opened.lock().unwrap().iter().map(|request| ClientId(request.client)).collect()
    }

    /// Users who are to be taken out of every conversation.
    pub(crate) fn departed(&self) -> Vec<UserId> {
        self.departed.lock().unwrap().clone()
    }

    /// Users whose queues are to be forgotten.
    pub(crate) fn forgotten(&self) -> Vec<UserId> {
        self.forgotten.lock().unwrap().clone()
    }

    pub(crate) fn removed_clients(&self) -> Vec<ClientId> {
        self.removed.lock().unwrap().iter().map(|request| ClientId(request.client)).collect()
    }
}

/// Backends that reach each other by their domain.
#[derive(Clone, Default)]
pub(crate) struct Network {
    backends: Arc<Mutex<HashMap<Domain, Routes>>>,
    calls: Arc<Mutex<Vec<String>>>,
    held: Arc<watch::Sender<Vec<Held>>>,
}

/// Calls that wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// Calls of this method do not arrive.
    Call(&'static str),
    /// They do, and are not answered.
    Answer(&'static str),
}

impl Network {
    /// Cuts a backend off.
    pub(crate) fn take_down(&self, domain: &Domain) -> Routes {
        self.backends.lock().unwrap().remove(domain).unwrap()
    }

    pub(crate) fn bring_up(&self, domain: &Domain, routes: Routes) {
        self.backends.lock().unwrap().insert(domain.clone(), routes);
    }

    /// Holds some calls, and lets all others go.
    pub(crate) fn hold(&self, held: Vec<Held>) {
        self.held.send_replace(held);
    }

    async fn pass(&self, path: &str, held: fn(&'static str) -> Held) {
        let mut changes = self.held.subscribe();
        let is_held = |what: &Held| {
            let (Held::Call(method) | Held::Answer(method)) = what;
            held(method) == *what && path.ends_with(method)
        };
        let _ = changes.wait_for(|all| !all.iter().any(is_held)).await;
    }

    /// The paths of calls that were made.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    pub(crate) fn egress(&self, from: &Domain) -> Channel {
        boxed(Egress { network: self.clone(), from: from.clone() })
    }
}

#[derive(Clone)]
struct Egress {
    network: Network,
    from: Domain,
}

impl tower::Service<Request<tonic::body::Body>> for Egress {
    type Response = http::Response<tonic::body::Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<tonic::body::Body>) -> Self::Future {
        let Some(target) = request.headers().get(metadata::TARGET_DOMAIN) else {
            // Asked of the federator itself, which knows nothing here.
            return async { Ok(Status::unimplemented("no federator").into_http()) }.boxed();
        };
        let target: Domain = target.to_str().unwrap().parse().unwrap();
        self.network.calls.lock().unwrap().push(request.uri().path().to_owned());
        let (network, path) = (self.network.clone(), request.uri().path().to_owned());
        request.extensions_mut().insert(Origin::proven(self.from.clone()));
        async move {
            network.pass(&path, Held::Call).await;
            let routes = network.backends.lock().unwrap().get(&target).cloned();
            let Some(mut routes) = routes else {
                let label = "federation-connection-refused";
                let mut status = error::status(Code::Unavailable, Hop::Connect, label, target.as_str(), "down");
                status.metadata_mut().insert(metadata::OWN_FAILURE, "1".parse().unwrap());
                return Ok(status.into_http());
            };
            ServiceExt::<Request<tonic::body::Body>>::ready(&mut routes).await?;
            let answer = routes.call(request).await;
            network.pass(&path, Held::Answer).await;
            answer.map_err(Into::into)
        }
        .boxed()
    }
}

/// A users service with everything around it recorded.
pub(crate) struct Backend {
    pub(crate) domain: Domain,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) recorder: Recorder,
    pub(crate) policy: Policy,
    pub(crate) db: Db,
    pub(crate) internal: Channel,
    /// For the administrator.
    pub(crate) admin: Channel,
    mail: PathBuf,
    client: Router,
    _service: tokio::task::JoinSet<()>,
    _folder: TempDir,
}

/// A logged-in user.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) id: UserId,
    pub(crate) domain: Domain,
    pub(crate) email: String,
    pub(crate) cookie: String,
    pub(crate) token: String,
}

impl User {
    pub(crate) fn qualified(&self) -> Qualified<UserId> {
        Qualified::new(self.id, self.domain.clone())
    }

    /// The connection id of the token.
    pub(crate) fn connection(&self) -> u64 {
        self.token.rsplit_once(".c=").unwrap().1.parse().unwrap()
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    #[track_caller]
    pub(crate) fn expect_label(self, status: u16, label: &str) -> Value {
        assert_eq!((self.status.as_u16(), self.body["label"].as_str()), (status, Some(label)), "{}", self.body);
        assert_eq!(self.body["code"], status);
        self.body
    }

    /// The value of the `zuid` cookie that is set.
    pub(crate) fn cookie(&self) -> Option<String> {
        let value = self.headers.get(header::SET_COOKIE)?.to_str().unwrap();
        value.strip_prefix("zuid=")?.split(';').next().map(str::to_owned)
    }
}

pub(crate) const PASSWORD: &str = "correct horse";

pub(crate) fn config(mail: &Path) -> Config {
    Config {
        registration: Registration::Open,
        mail: Mail { folder: Some(mail.to_owned()), ..Mail::default() },
        passwords: Passwords { memory_kib: 8, passes: 1, ..Passwords::default() },
        calls: Calls {
            turn_uris: vec!["turn:turn.test:3478".to_owned()],
            secret: Some(Secret::from("shared".to_owned())),
            ..Calls::default()
        },
        federation: crate::FederationConfig { strategy: Strategy::AllowList, ..Default::default() },
        ..Config::default()
    }
}

impl Backend {
    /// A backend on its own.
    pub(crate) async fn alone() -> Self {
        Self::start("alpha.test", &Network::default(), |_| ()).await
    }

    /// A backend in a network.
    pub(crate) async fn start(domain: &str, network: &Network, adapt: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mail = folder.path().join("mail");
        let mut config = config(&mail);
        adapt(&mut config);
        let domain: Domain = domain.parse().unwrap();
        let db = Db::open(&folder.path().join("aldis.db"), &DbOptions::default()).unwrap();
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let policy = Policy::new(Duration::from_secs(60));
        let recorder = Recorder::default();
        let place = InProcess::new();
        let mut routes = Routes::builder();
        routes.add_service(PushServer::new(recorder.clone())).add_service(MembershipsServer::new(recorder.clone()));
        place.serve(routes.routes());
        let dependencies = Dependencies {
            domain: domain.clone(),
            db: db.clone(),
            clock: clock.clone(),
            random: Arc::new(SystemRandom),
            policy: policy.clone(),
            verifier: TokenVerifier::new(),
            peers: Peers::new(network.egress(&domain)),
            notifications: place.channel(),
            conversations: place.channel(),
            receiving: aldis_delivery::Receiving::default(),
            outbox: aldis_delivery::Config::default(),
        };
        let Service { client, internal, administration, federation, tasks } =
            crate::start(config, dependencies).await.unwrap();
        network.bring_up(&domain, federation.unwrap().prepare());
        let own = InProcess::new();
        own.serve(internal);
        let admin = InProcess::new();
        admin.serve(administration);
        Self {
            domain,
            clock,
            recorder,
            policy,
            db,
            internal: own.channel(),
            admin: admin.channel(),
            mail,
            client,
            _service: tasks,
            _folder: folder,
        }
    }

    /// Two backends that federate, with full search.
    pub(crate) async fn pair() -> (Self, Self, Network) {
        let network = Network::default();
        let alpha = Self::start("alpha.test", &network, |_| ()).await;
        let beta = Self::start("beta.test", &network, |_| ()).await;
        alpha.federate_with(&beta, 3).await;
        beta.federate_with(&alpha, 3).await;
        (alpha, beta, network)
    }

    /// Compares connections with another backend now.
    pub(crate) async fn reconcile(&self, other: &Domain) -> Result<ReconcileResponse, Status> {
        let mut client = UsersReconciliationClient::new(self.admin.clone());
        client.reconcile(ReconcileRequest { domain: other.to_string() }).await.map(Response::into_inner)
    }

    /// Changes the store behind the service's back.
    pub(crate) async fn tamper(&self, sql: String) {
        self.db.write(move |tx| Ok(tx.execute_batch(&sql)?)).await.unwrap();
    }

    /// Rows of a table.
    pub(crate) async fn count(&self, table: &'static str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        self.db.read(move |tx| Ok(tx.query_row(&sql, [], |row| row.get(0))?)).await.unwrap()
    }

    pub(crate) async fn federate_with(&self, other: &Self, search_policy: u32) {
        let domain = other.domain.as_str().to_owned();
        let mut admin = RemoteAdminClient::new(self.admin.clone());
        admin.set_remote(SetRemoteRequest { domain, search_policy, ..SetRemoteRequest::default() }).await.unwrap();
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.client.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let json = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
        Answer { status: parts.status, headers: parts.headers, body: json }
    }

    pub(crate) async fn call(&self, method: &str, path: &str, token: Option<&str>, body: Option<Value>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).extension(aldis_api::ApiVersion::MAX);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.send(request.body(body).unwrap()).await
    }

    pub(crate) async fn get(&self, user: &User, path: &str) -> Answer {
        self.call("GET", path, Some(&user.token), None).await
    }

    pub(crate) async fn head(&self, user: &User, path: &str) -> Answer {
        self.call("HEAD", path, Some(&user.token), None).await
    }

    pub(crate) async fn post(&self, user: &User, path: &str, body: Value) -> Answer {
        self.call("POST", path, Some(&user.token), Some(body)).await
    }

    pub(crate) async fn put(&self, user: &User, path: &str, body: Value) -> Answer {
        self.call("PUT", path, Some(&user.token), Some(body)).await
    }

    pub(crate) async fn delete(&self, user: &User, path: &str, body: Option<Value>) -> Answer {
        self.call("DELETE", path, Some(&user.token), body).await
    }

    /// `/access` and `/access/logout`.
    pub(crate) async fn access(&self, path: &str, cookie: Option<&str>, token: Option<&str>) -> Answer {
        let mut request = Request::builder().method("POST").uri(path).extension(aldis_api::ApiVersion::MAX);
        if let Some(cookie) = cookie {
            request = request.header(header::COOKIE, format!("other=1; zuid={cookie}"));
        }
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// The headers of the newest mail to an address with this purpose; waits for it.
    pub(crate) async fn mail(&self, to: &str, purpose: &str) -> HashMap<String, String> {
        loop {
            let mut names: Vec<_> = std::fs::read_dir(&self.mail).unwrap().map(|entry| entry.unwrap().path()).collect();
            names.sort();
            for name in names.iter().rev().filter(|name| name.extension().is_some_and(|end| end == "eml")) {
                let text = std::fs::read_to_string(name).unwrap();
                let headers: HashMap<_, _> = text
                    .lines()
                    .take_while(|line| !line.trim().is_empty())
                    .filter_map(|line| line.split_once(": "))
                    .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
                    .collect();
                if headers["To"] == to && headers["X-Zeta-Purpose"] == purpose {
                    return headers;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Registers as apps do, by code; `name` is the display name and, in lower case, the address.
    pub(crate) async fn register(&self, name: &str) -> User {
        let email = format!("{}@example.com", name.to_lowercase().replace(' ', "."));
        self.call("POST", "/activate/send", None, Some(json!({ "email": email }))).await.expect(200);
        let code = self.mail(&email, "Verification").await["X-Zeta-Code"].clone();
        let body = json!({ "name": name, "email": email, "email_code": code, "password": PASSWORD });
        let answer = self.call("POST", "/register", None, Some(body)).await;
        let cookie = answer.cookie().unwrap();
        let id = answer.expect(201)["id"].as_str().unwrap().parse().unwrap();
        let token = self.access("/access", Some(&cookie), None).await.expect(200);
        let token = token["access_token"].as_str().unwrap().to_owned();
        User { id, domain: self.domain.clone(), email, cookie, token }
    }

    /// Registers and takes a handle.
    pub(crate) async fn register_with_handle(&self, name: &str, handle: &str) -> User {
        let user = self.register(name).await;
        self.put(&user, "/self/handle", json!({ "handle": handle })).await.expect(200);
        user
    }
}

/// A well-formed prekey; different for different seeds.
pub(crate) fn prekey(id: u16, seed: &str) -> Prekey {
    use ciborium::{Value, cbor};
    let value: Value = cbor!({ 0 => 1, 1 => id, 2 => { 0 => seed }, 3 => { 0 => { 0 => seed } }, 4 => null }).unwrap();
    let mut bytes = Vec::new();
    ciborium::into_writer(&value, &mut bytes).unwrap();
    Prekey { id: PrekeyId(id), key: STANDARD.encode(bytes) }
}

/// The body of `POST /clients`.
pub(crate) fn new_client(kind: &str, seed: &str, prekeys: u16) -> Value {
    let keys: Vec<_> = (0..prekeys).map(|id| prekey(id, seed)).collect();
    json!({
        "type": kind,
        "class": "desktop",
        "label": "a label",
        "model": "a model",
        "password": PASSWORD,
        "prekeys": keys,
        "lastkey": prekey(u16::MAX, seed),
        "location": "ignored",
    })
}

/// Waits until something is so.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
