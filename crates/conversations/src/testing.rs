//! Backends in one process for the tests: the real service with fakes for users, notifications and the federator.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
    convert,
    federation::v1::{self as pb, users_server},
    internal::v1::{
        self as internal, audiences_client::AudiencesClient, clients_server, connections_server,
        conversations_reconciliation_client::ConversationsReconciliationClient, memberships_client::MembershipsClient,
        profiles_server, push_server,
    },
    metadata,
};
use aldis_runtime::{SystemClock, SystemRandom};
use aldis_storage::{Db, DbOptions};
use aldis_types::{ClientId, ConnId, Domain, PolicySnapshot, Qualified, Relation, Strategy, UserClients, UserId};
use async_trait::async_trait;
use axum::{body::Body, response::Response};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use futures::StreamExt;
use http::{Method, Request as HttpRequest, StatusCode};
use http_body_util::{BodyExt, BodyStream, StreamBody};
use serde_json::Value;
use tokio::{sync::watch, task::JoinSet};
use tonic::{Request, Response as GrpcResponse, Status, service::Routes};
use tower::{ServiceExt, service_fn};
use uuid::Uuid;

use crate::{Config, Dependencies, start};

pub(crate) type QualifiedUser = Qualified<UserId>;

/// The connection id of every test session.
pub(crate) const CONNECTION: u64 = 77;

pub(crate) fn domain(name: &str) -> Domain {
    name.parse().unwrap()
}

pub(crate) fn user(number: u128, domain_name: &str) -> QualifiedUser {
    Qualified::new(
        UserId::new(Uuid::from_u128(0x1000_0000_0000_4000_8000_0000_0000_0000 + number)),
        domain(domain_name),
    )
}

/// What all backends of a test share: who knows whom, which clients exist, which backends are down.
#[derive(Default)]
pub(crate) struct Facts {
    relations: HashMap<(QualifiedUser, QualifiedUser), Relation>,
    clients: BTreeMap<QualifiedUser, Vec<ClientId>>,
    routes: HashMap<Domain, Routes>,
    down: HashSet<Domain>,
    policies: HashMap<Domain, Policy>,
    /// Ends the streams that are open.
    cut: watch::Sender<u64>,
    /// Calls between backends that were carried, `caller>target path`.
    pub(crate) calls: Vec<String>,
    /// Users whose account has no address.
    pub(crate) guests: HashSet<QualifiedUser>,
    /// Users whose account is gone.
    pub(crate) deleted: HashSet<QualifiedUser>,
    /// Event streams that cannot be opened, by caller and target.
    held: HashSet<(Domain, Domain)>,
}

#[derive(Clone, Default)]
pub(crate) struct World(Arc<Mutex<Facts>>);

impl World {
    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the relation of one side.
    pub(crate) fn relate(&self, a: &QualifiedUser, b: &QualifiedUser, relation: Relation) {
        self.facts().relations.insert((a.clone(), b.clone()), relation);
    }

    /// Connects everybody with everybody.
    pub(crate) fn connect(&self, users: &[&QualifiedUser]) {
        for a in users {
            for b in users {
                if a != b {
                    self.relate(a, b, Relation::Accepted);
                }
            }
        }
    }

    pub(crate) fn set_clients(&self, user: &QualifiedUser, clients: &[u64]) {
        self.facts().clients.insert(user.clone(), clients.iter().copied().map(ClientId).collect());
    }

    pub(crate) fn set_down(&self, name: &str, down: bool) {
        let mut facts = self.facts();
        facts.down.remove(&domain(name));
        facts.down.extend(down.then(|| domain(name)));
        facts.cut.send_modify(|cut| *cut += 1);
    }

    /// Keeps the events of one backend for another from being delivered; calls go through.
    pub(crate) fn hold(&self, from: &str, to: &str, held: bool) {
        let mut facts = self.facts();
        let pair = (domain(from), domain(to));
        facts.held.remove(&pair);
        facts.held.extend(held.then_some(pair));
        facts.cut.send_modify(|cut| *cut += 1);
    }

    /// Which backends `name` federates with; everybody when `None`.
    pub(crate) fn set_policy(&self, name: &str, allowed: Option<&[&str]>) {
        use aldis_types::{RemotePolicy, RemoteState, SearchPolicy};
        let snapshot = match allowed {
            None => PolicySnapshot { version: 1, strategy: Strategy::AllowAll, ..PolicySnapshot::default() },
            Some(names) => PolicySnapshot {
                version: 2,
                strategy: Strategy::AllowList,
                remotes: names
                    .iter()
                    .map(|name| {
                        let policy = RemotePolicy::new(RemoteState::Active, SearchPolicy::NoSearch);
                        (domain(name), policy)
                    })
                    .collect(),
            },
        };
        self.facts()
            .policies
            .entry(domain(name))
            .or_insert_with(|| Policy::new(Duration::from_hours(1)))
            .update(snapshot);
    }

    /// Carries calls of the backend `own` to the others, as their federators would.
    fn egress(&self, own: Domain) -> Channel {
        let world = self.clone();
        boxed(service_fn(move |mut request: HttpRequest<tonic::body::Body>| {
            let target = request.headers().get(metadata::TARGET_DOMAIN).and_then(|value| value.to_str().ok());
            let target: Option<Domain> = target.and_then(|text| text.parse().ok());
            let routes = target.and_then(|target| {
                let mut facts = world.facts();
                let path = request.uri().path().to_owned();
                facts.calls.push(format!("{own}>{target} {path}"));
                let held = path.ends_with("/Deliver") && facts.held.contains(&(own.clone(), target.clone()));
                let up = !held && !facts.down.contains(&target) && !facts.down.contains(&own);
                facts.routes.get(&target).filter(|_| up).cloned()
            });
            let mut cut = world.facts().cut.subscribe();
            request.extensions_mut().insert(Origin::proven(own.clone()));
            async move {
                match routes {
                    Some(routes) => {
                        let response = routes.oneshot(request).await.map_err(std::io::Error::other)?;
                        Ok::<_, std::io::Error>(response.map(|body| {
                            let ended = Box::pin(async move { cut.changed().await });
                            tonic::body::Body::new(StreamBody::new(BodyStream::new(body).take_until(ended)))
                        }))
                    }
                    None => {
                        let hop = pb::Hop::Connect;
                        let label = "federation-connection-refused";
                        let mut status =
                            aldis_proto::error::status(tonic::Code::Unavailable, hop, label, "", "refused");
                        status
                            .metadata_mut()
                            .insert(metadata::OWN_FAILURE, "1".parse().map_err(std::io::Error::other)?);
                        Ok(status.into_http())
                    }
                }
            }
        }))
    }
}

/// The fake users service of one backend.
#[derive(Clone)]
struct FakeUsers {
    world: World,
    domain: Domain,
}

impl FakeUsers {
    fn list(&self, users: &[Bytes]) -> Result<Vec<pb::UserClients>, Status> {
        let users = convert::user_ids(users, 1000)?;
        let facts = self.world.facts();
        let found = users.into_iter().filter_map(|user| {
            let clients = facts.clients.get(&Qualified::new(user, self.domain.clone()))?;
            let clients = clients.iter().map(|client| (*client, None)).collect();
            Some(convert::to_clients(&UserClients { user, clients }))
        });
        Ok(found.collect())
    }
}

#[async_trait]
impl clients_server::Clients for FakeUsers {
    async fn list_clients(
        &self,
        request: Request<internal::ListClientsRequest>,
    ) -> Result<GrpcResponse<internal::ListClientsResponse>, Status> {
        Ok(GrpcResponse::new(internal::ListClientsResponse { users: self.list(&request.into_inner().users)? }))
    }

    async fn note_active(
        &self,
        _: Request<internal::NoteActiveRequest>,
    ) -> Result<GrpcResponse<internal::NoteActiveResponse>, Status> {
        Err(Status::unimplemented("of no interest here"))
    }
}

#[async_trait]
impl connections_server::Connections for FakeUsers {
    async fn get_relations(
        &self,
        request: Request<internal::GetRelationsRequest>,
    ) -> Result<GrpcResponse<internal::GetRelationsResponse>, Status> {
        let request = request.into_inner();
        let user = Qualified::new(convert::user_id(&request.user)?, self.domain.clone());
        let mut relations = Vec::new();
        for other in &request.others {
            let other = convert::qualified_user(Some(other))?;
            let relation = self.world.facts().relations.get(&(user.clone(), other)).copied();
            relations.push(convert::to_relation(relation).into());
        }
        Ok(GrpcResponse::new(internal::GetRelationsResponse { relations }))
    }
}

#[async_trait]
impl profiles_server::Profiles for FakeUsers {
    async fn get_accounts(
        &self,
        request: Request<internal::GetAccountsRequest>,
    ) -> Result<GrpcResponse<internal::GetAccountsResponse>, Status> {
        let users = request.into_inner().users;
        let facts = self.world.facts();
        let accounts = users.into_iter().map(|id| {
            let user = Qualified::new(convert::user_id(&id)?, self.domain.clone());
            let (activated, deleted) = (!facts.guests.contains(&user), facts.deleted.contains(&user));
            Ok(internal::Account { id, name: "Name".to_owned(), activated, deleted, suspended: false })
        });
        let accounts = accounts.collect::<Result<_, Status>>()?;
        Ok(GrpcResponse::new(internal::GetAccountsResponse { accounts }))
    }
}

#[async_trait]
impl users_server::Users for FakeUsers {
    async fn list_clients(
        &self,
        request: Request<pb::ListClientsRequest>,
    ) -> Result<GrpcResponse<pb::ListClientsResponse>, Status> {
        let request = request.into_inner();
        // Changes of the facts are not told, hence no leases.
        Ok(GrpcResponse::new(pb::ListClientsResponse { users: self.list(&request.users)?, lease_millis: 0 }))
    }

    async fn get_users(&self, _: Request<pb::GetUsersRequest>) -> Result<GrpcResponse<pb::GetUsersResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn get_user_by_handle(
        &self,
        _: Request<pb::GetUserByHandleRequest>,
    ) -> Result<GrpcResponse<pb::GetUserByHandleResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn search_users(
        &self,
        _: Request<pb::SearchUsersRequest>,
    ) -> Result<GrpcResponse<pb::SearchUsersResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn claim_prekeys(
        &self,
        _: Request<pb::ClaimPrekeysRequest>,
    ) -> Result<GrpcResponse<pb::ClaimPrekeysResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn list_connections(
        &self,
        _: Request<pb::ListConnectionsRequest>,
    ) -> Result<GrpcResponse<pb::ListConnectionsResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn request_connection(
        &self,
        _: Request<pb::RequestConnectionRequest>,
    ) -> Result<GrpcResponse<pb::RequestConnectionResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }
}

/// One event that a user, or a client of his, got.
#[derive(Debug, Clone)]
pub(crate) struct Pushed {
    pub(crate) user: UserId,
    /// `None`: all clients.
    pub(crate) client: Option<ClientId>,
    pub(crate) event: Value,
    pub(crate) transient: bool,
    /// The session that is skipped.
    pub(crate) origin: Option<(UserId, u64)>,
}

impl Pushed {
    pub(crate) fn kind(&self) -> &str {
        self.event["type"].as_str().unwrap()
    }
}

#[derive(Default)]
struct Queue {
    seen: HashSet<(Vec<u8>, UserId, Option<ClientId>)>,
    pushed: Vec<Pushed>,
    down: bool,
}

/// The fake notifications service of one backend: keeps what it gets, each event once per queue.
#[derive(Clone, Default)]
pub(crate) struct FakeNotifications(Arc<Mutex<Queue>>);

impl FakeNotifications {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl push_server::Push for FakeNotifications {
    async fn push(
        &self,
        request: Request<internal::PushRequest>,
    ) -> Result<GrpcResponse<internal::PushResponse>, Status> {
        let mut queue = self.queue();
        if queue.down {
            return Err(Status::unavailable("down"));
        }
        for notification in request.into_inner().notifications {
            let event: Value = if notification.missed {
                serde_json::json!({ "type": "notifications.missed" })
            } else {
                serde_json::from_slice(&notification.event)
                    .map_err(|error| Status::invalid_argument(error.to_string()))?
            };
            let id = convert::event_id(&notification.event_id)?;
            let origin = match &notification.origin {
                Some(session) => Some((convert::user_id(&session.user)?, session.connection)),
                None => None,
            };
            for target in &notification.targets {
                let user = convert::user_id(&target.user)?;
                let all = target.clients.is_empty().then_some(None);
                let clients = target.clients.iter().map(|client| Some(ClientId(*client)));
                for client in all.into_iter().chain(clients) {
                    if queue.seen.insert((id.as_bytes().to_vec(), user, client)) {
                        let transient = notification.transient;
                        queue.pushed.push(Pushed { user, client, event: event.clone(), transient, origin });
                    }
                }
            }
        }
        Ok(GrpcResponse::new(internal::PushResponse {}))
    }

    async fn remove_client(
        &self,
        _: Request<internal::RemoveClientRequest>,
    ) -> Result<GrpcResponse<internal::RemoveClientResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn open_consumer(
        &self,
        _: Request<internal::OpenConsumerRequest>,
    ) -> Result<GrpcResponse<internal::OpenConsumerResponse>, Status> {
        Ok(GrpcResponse::new(internal::OpenConsumerResponse {}))
    }

    async fn remove_user(
        &self,
        _: Request<internal::RemoveUserQueuesRequest>,
    ) -> Result<GrpcResponse<internal::RemoveUserQueuesResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }
}

/// A running conversations service with its fakes.
pub(crate) struct Backend {
    pub(crate) domain: Domain,
    pub(crate) client: axum::Router,
    pub(crate) notifications: FakeNotifications,
    pub(crate) db: Db,
    internal: InProcess,
    _tasks: JoinSet<()>,
    _folder: tempfile::TempDir,
}

fn signing_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn verifier() -> TokenVerifier {
    let public_key = signing_key().verifying_key().to_bytes().to_vec().into();
    let keys = vec![internal::auth_snapshot::Key { index: 1, public_key }];
    let verifier = TokenVerifier::new();
    verifier.update(AuthState::from_snapshot(&internal::AuthSnapshot { keys, version: 1, ..Default::default() }));
    verifier
}

impl World {
    /// Starts the backend `name`, which federates with everybody.
    pub(crate) async fn start(&self, name: &str) -> Backend {
        self.start_with(name, Config::default()).await
    }

    pub(crate) async fn start_with(&self, name: &str, config: Config) -> Backend {
        let own = domain(name);
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("aldis.db"), &DbOptions::default()).unwrap();
        self.set_policy(name, None);
        let policy = self.facts().policies[&own].clone();
        let fake = FakeUsers { world: self.clone(), domain: own.clone() };
        let users = InProcess::new();
        users.serve(
            Routes::new(clients_server::ClientsServer::new(fake.clone()))
                .add_service(connections_server::ConnectionsServer::new(fake.clone()))
                .add_service(profiles_server::ProfilesServer::new(fake.clone())),
        );
        let notifications = FakeNotifications::default();
        let pushes = InProcess::new();
        pushes.serve(Routes::new(push_server::PushServer::new(notifications.clone())));
        let deps = Dependencies {
            domain: own.clone(),
            db: db.clone(),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            policy,
            verifier: verifier(),
            peers: Peers::new(self.egress(own.clone())),
            users: users.channel(),
            notifications: pushes.channel(),
            receiving: aldis_delivery::Receiving::default(),
            outbox: aldis_delivery::Config::default(),
        };
        let service = start(config, deps).await.unwrap();
        let federation = service.federation.unwrap().add_service(users_server::UsersServer::new(fake));
        self.facts().routes.insert(own.clone(), federation.prepare());
        let inside = InProcess::new();
        inside.serve(service.internal);
        Backend {
            domain: own,
            client: service.client,
            notifications,
            db,
            internal: inside,
            _tasks: service.tasks,
            _folder: folder,
        }
    }

    /// Calls a federation service of `target` as the backend `origin`.
    pub(crate) fn as_backend(&self, origin: &str) -> Channel {
        self.egress(domain(origin))
    }
}

impl Backend {
    pub(crate) fn token(user: UserId) -> String {
        let claims = Claims {
            user,
            client: None,
            kind: Kind::Access { connection: ConnId(CONNECTION) },
            expires: None,
            session: false,
        };
        token::sign(&claims, 1, &signing_key())
    }

    pub(crate) async fn send(
        &self,
        user: &QualifiedUser,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
        version: u8,
    ) -> (StatusCode, Value) {
        let mut request = HttpRequest::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {}", Self::token(user.id)))
            .header("content-type", content_type)
            .body(Body::from(body))
            .unwrap();
        request.extensions_mut().insert(aldis_api::ApiVersion(version));
        let response: Response = self.client.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        (status, body)
    }

    pub(crate) async fn call(
        &self,
        user: &QualifiedUser,
        method: Method,
        path: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        self.send(user, method, path, "application/json", body, 10).await
    }

    pub(crate) async fn get(&self, user: &QualifiedUser, path: &str) -> (StatusCode, Value) {
        self.call(user, Method::GET, path, Value::Null).await
    }

    pub(crate) async fn post(&self, user: &QualifiedUser, path: &str, body: Value) -> (StatusCode, Value) {
        self.call(user, Method::POST, path, body).await
    }

    pub(crate) async fn put(&self, user: &QualifiedUser, path: &str, body: Value) -> (StatusCode, Value) {
        self.call(user, Method::PUT, path, body).await
    }

    pub(crate) async fn delete(&self, user: &QualifiedUser, path: &str) -> (StatusCode, Value) {
        self.call(user, Method::DELETE, path, Value::Null).await
    }

    pub(crate) fn memberships(&self) -> MembershipsClient<Channel> {
        MembershipsClient::new(self.internal.channel())
    }

    pub(crate) fn audiences(&self) -> AudiencesClient<Channel> {
        AudiencesClient::new(self.internal.channel())
    }

    /// Compares with another backend now.
    pub(crate) async fn reconcile(&self, other: &str) -> internal::ReconcileResponse {
        let request = internal::ReconcileRequest { domain: other.to_owned() };
        let mut client = ConversationsReconciliationClient::new(self.internal.channel());
        client.reconcile(request).await.unwrap().into_inner()
    }

    /// Changes the store behind the service's back.
    pub(crate) async fn tamper(&self, sql: String) {
        self.db.write(move |tx| Ok(tx.execute_batch(&sql)?)).await.unwrap();
    }

    /// What the user has got so far, in order.
    pub(crate) fn pushed(&self, user: &QualifiedUser) -> Vec<Pushed> {
        self.notifications.queue().pushed.iter().filter(|pushed| pushed.user == user.id).cloned().collect()
    }

    /// The types of the events that the user has got so far.
    pub(crate) fn kinds(&self, user: &QualifiedUser) -> Vec<String> {
        self.pushed(user).iter().map(|pushed| pushed.kind().to_owned()).collect()
    }

    /// Waits until the user has got `count` events of a type, and gives them.
    pub(crate) async fn wait_for(&self, user: &QualifiedUser, kind: &str, count: usize) -> Vec<Pushed> {
        let got = || {
            let pushed = self.pushed(user);
            pushed.into_iter().filter(|pushed| pushed.kind() == kind).collect::<Vec<_>>()
        };
        eventually(&format!("{count} of {kind}"), async || got().len() >= count).await;
        let got = got();
        assert_eq!(got.len(), count, "{kind}");
        got
    }

    pub(crate) fn set_notifications_down(&self, down: bool) {
        self.notifications.queue().down = down;
    }

    pub(crate) async fn count(&self, table: &'static str) -> i64 {
        let query = format!("SELECT count(*) FROM {table}");
        self.db.read(move |tx| Ok(tx.query_row(&query, [], |row| row.get(0))?)).await.unwrap()
    }
}

/// Waits for a condition, within a bound that only a failure reaches.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    for _ in 0..2000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("did not happen: {what}");
}
