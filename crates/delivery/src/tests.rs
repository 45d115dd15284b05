//! Two stores in one process, joined by a transport that the test can cut.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aldis_peers::{Origin, Peers, Policy};
use aldis_proto::{
    channel::{Channel, InProcess, boxed},
    federation::v1::{
        DeliverRequest, Open, conversations_delivery_client::ConversationsDeliveryClient, deliver_request,
        deliver_response, outcome,
    },
    internal::v1::{
        ListPeersRequest, ListPeersResponse, Notification, OpenConsumerRequest, OpenConsumerResponse, PeerState,
        PushRequest, PushResponse, RemoveClientRequest, RemoveClientResponse, RemoveUserQueuesRequest,
        RemoveUserQueuesResponse, peer_states_server, push_server,
    },
};
use aldis_runtime::SystemClock;
use aldis_storage::{Db, DbOptions, Migration, StoreError};
use aldis_types::{Domain, PolicySnapshot, Strategy};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt};
use http_body_util::{BodyStream, StreamBody};
use prost::Message;
use tokio::sync::watch;
use tonic::{Request, Response, Status, body::Body, service::Routes};
use tower::{ServiceExt, service_fn};

mod backlog;
mod bounds;
mod operator;
mod refusals;
mod renewal;

use crate::{
    Component, Config, Envelope, LocalService, Outbox, Outgoing, Peer, Positions, Receive, Receiving, Relays, Verdict,
    conversations_server, derive_event_id, event_id,
};

const STEPS: &[Migration] = &[
    Migration { name: "outbox", sql: crate::schema!("conversations") },
    Migration { name: "keys of outbox", sql: crate::schema_keys!("conversations") },
    Migration { name: "ages", sql: crate::schema_ages!("conversations") },
    Migration { name: "stores heard of last", sql: crate::schema_incarnations!("conversations") },
    Migration { name: "bounds", sql: crate::schema_bounds!("conversations") },
    Migration { name: "refusals", sql: crate::schema_refusals!("conversations") },
    Migration {
        name: "seen",
        sql: "CREATE TABLE seen (number INTEGER PRIMARY KEY AUTOINCREMENT, lane BLOB, body BLOB)",
    },
];

fn domain(name: &str) -> Domain {
    name.parse().unwrap()
}

struct Store {
    db: Db,
    _folder: tempfile::TempDir,
}

async fn store() -> Store {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&folder.path().join("aldis.db"), &DbOptions::default()).unwrap();
    db.migrate("conversations", STEPS).await.unwrap();
    Store { db, _folder: folder }
}

fn open_policy() -> Policy {
    let policy = Policy::new(Duration::from_secs(3600));
    policy.update(PolicySnapshot { version: 1, strategy: Strategy::AllowAll, ..PolicySnapshot::default() });
    policy
}

/// Notes every envelope in its store; behaves as the body says: `reject`, `unknown`, `defer-N` and `reject-N` (N times), else applies.
struct Notes {
    db: Db,
    deferred: Mutex<HashMap<Bytes, u32>>,
}

#[async_trait]
impl Receive for Notes {
    async fn receive(&self, _: &Origin, envelopes: Vec<Envelope>, positions: &Positions) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        let mut blocked = Vec::new();
        for envelope in envelopes {
            let verdict = if blocked.contains(&envelope.lane) { Verdict::Deferred } else { self.verdict(&envelope) };
            if matches!(verdict, Verdict::Deferred | Verdict::Unsupported) {
                blocked.push(envelope.lane);
                verdicts.push(verdict);
                continue;
            }
            let positions = positions.clone();
            let envelope = match verdict {
                Verdict::Rejected(label) => envelope.refused(label),
                _ => envelope,
            };
            let stored = self.db.write(move |tx| {
                if verdict == Verdict::Applied {
                    tx.execute(
                        "INSERT INTO seen (lane, body) VALUES (?, ?)",
                        (envelope.lane.as_slice(), envelope.body.as_ref()),
                    )?;
                }
                positions.advance(tx, &envelope)
            });
            verdicts.push(stored.await.map_or(Verdict::Deferred, |()| verdict));
        }
        verdicts
    }

    async fn missed(&self, _: &Origin, envelopes: Vec<Envelope>, positions: &Positions) -> Vec<Verdict> {
        let (positions, all) = (positions.clone(), envelopes.clone());
        let stored = self.db.write(move |tx| {
            for envelope in &all {
                let text = format!("missed {}-{}", envelope.previous + 1, envelope.sequence);
                tx.execute("INSERT INTO seen (lane, body) VALUES (?, ?)", (envelope.lane.as_slice(), text.as_bytes()))?;
                positions.advance(tx, envelope)?;
            }
            Ok(())
        });
        vec![stored.await.map_or(Verdict::Deferred, |()| Verdict::Applied); envelopes.len()]
    }

    async fn renewed(&self, _: &Origin, incarnation: [u8; 16]) -> Result<(), StoreError> {
        self.db
            .write(move |tx| {
                let row = ([0_u8; 16].as_slice(), format!("renewed {}", incarnation[0]).into_bytes());
                tx.execute("INSERT INTO seen (lane, body) VALUES (?, ?)", row)?;
                Ok(())
            })
            .await
    }
}

impl Notes {
    fn verdict(&self, envelope: &Envelope) -> Verdict {
        let text = std::str::from_utf8(&envelope.body).unwrap();
        for (prefix, verdict) in [("defer-", Verdict::Deferred), ("reject-", Verdict::Rejected("bad-request"))] {
            if let Some(times) = text.strip_prefix(prefix).and_then(|rest| rest.split(' ').next()) {
                let mut deferred = self.deferred.lock().unwrap();
                let count = deferred.entry(envelope.body.clone()).or_default();
                *count += 1;
                return if *count <= times.parse().unwrap() { verdict } else { Verdict::Applied };
            }
        }
        match text {
            "reject" => Verdict::Rejected("bad-request"),
            "unknown" => Verdict::Unsupported,
            _ => Verdict::Applied,
        }
    }
}

fn server(store: &Store) -> Routes {
    let notes = Arc::new(Notes { db: store.db.clone(), deferred: Mutex::default() });
    let (db, clock) = (store.db.clone(), Arc::new(SystemClock));
    Routes::new(conversations_server(domain("beta.test"), db, clock, open_policy(), Receiving::default(), notes))
}

/// Carries calls to `server` as coming from alpha.test; every change of `cut` ends the streams that are open.
fn transport(server: Routes, cut: watch::Receiver<u64>, down: Arc<AtomicBool>) -> Channel {
    boxed(service_fn(move |mut request: http::Request<Body>| {
        let (server, mut cut, down) = (server.clone(), cut.clone(), down.clone());
        async move {
            if down.load(Ordering::SeqCst) {
                return Err(std::io::Error::other("down"));
            }
            cut.mark_unchanged();
            request.extensions_mut().insert(Origin::proven(domain("alpha.test")));
            let response = server.oneshot(request).await.map_err(std::io::Error::other)?;
            Ok(response.map(|body| {
                let ended = async move { cut.changed().await };
                Body::new(StreamBody::new(BodyStream::new(body).take_until(Box::pin(ended))))
            }))
        }
    }))
}

struct Pair {
    alpha: Store,
    beta: Store,
    outbox: Outbox,
    cut: watch::Sender<u64>,
    down: Arc<AtomicBool>,
    _relay: tokio::task::JoinSet<()>,
}

async fn pair() -> Pair {
    pair_with_limit(None).await
}

/// Our federator, which knows how large a message beta.test takes.
struct States(u64);

#[async_trait]
impl peer_states_server::PeerStates for States {
    async fn list_peers(&self, _: Request<ListPeersRequest>) -> Result<Response<ListPeersResponse>, Status> {
        let capabilities = super_pb::Capabilities { max_message_bytes: self.0, ..super_pb::Capabilities::default() };
        let domain = "beta.test".to_owned();
        let peer = PeerState { domain, capabilities: Some(capabilities), ..PeerState::default() };
        Ok(Response::new(ListPeersResponse { peers: vec![peer] }))
    }
}

async fn pair_with_limit(limit: Option<u64>) -> Pair {
    pair_of(store().await, store().await, limit).await
}

async fn pair_of(alpha: Store, beta: Store, limit: Option<u64>) -> Pair {
    let (cut, cuts) = watch::channel(0);
    let down = Arc::new(AtomicBool::new(false));
    let mut routes = server(&beta);
    if let Some(limit) = limit {
        routes = routes.add_service(peer_states_server::PeerStatesServer::new(States(limit)));
    }
    let peers = Peers::new(transport(routes, cuts, down.clone()));
    Pair { cut, down, ..pair_with(alpha, beta, peers, open_policy()).await }
}

async fn pair_with(alpha: Store, beta: Store, peers: Peers, policy: Policy) -> Pair {
    let outbox = Outbox::open(Component::Conversations, domain("alpha.test"), alpha.db.clone(), Arc::new(SystemClock))
        .await
        .unwrap();
    let relays = Relays { peers, policy, notifications: None, conversations: None, bounds: Config::default() };
    let mut relay = tokio::task::JoinSet::new();
    relay.spawn(outbox.clone().run(relays));
    Pair { alpha, beta, outbox, cut: watch::channel(0).0, down: Arc::default(), _relay: relay }
}

fn to_beta(lane: u8, body: &str) -> Outgoing {
    let body = Bytes::copy_from_slice(body.as_bytes());
    Outgoing { peer: Peer::Backend(domain("beta.test")), lane: [lane; 16], kind: 30, body }
}

impl Pair {
    async fn send(&self, outgoing: Vec<Outgoing>) {
        let outbox = self.outbox.clone();
        let appended = self.alpha.db.write(move |tx| outbox.append(tx, &outgoing)).await.unwrap();
        self.outbox.committed(appended);
    }

    async fn seen(&self, lane: u8) -> Vec<String> {
        self.beta
            .db
            .read(move |tx| {
                let mut query = tx.prepare("SELECT body FROM seen WHERE lane = ? ORDER BY number")?;
                let rows = query.query_map([[lane; 16].as_slice()], |row| row.get::<_, Vec<u8>>(0))?;
                Ok(rows.map(|body| String::from_utf8(body.unwrap()).unwrap()).collect())
            })
            .await
            .unwrap()
    }

    async fn count(&self, table: &'static str) -> i64 {
        let query = format!("SELECT count(*) FROM {table}");
        self.alpha.db.read(move |tx| Ok(tx.query_row(&query, [], |row| row.get(0))?)).await.unwrap()
    }
}

/// Waits for a condition, within a bound that only a failure reaches.
async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    for _ in 0..3000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("did not happen: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_arrives_once_and_in_order_however_often_the_stream_is_cut() {
    const EVENTS: usize = 600;
    let pair = pair().await;
    for number in 0..EVENTS {
        pair.send((0..3).map(|lane| to_beta(lane, &number.to_string())).collect()).await;
        if number % 40 == 7 {
            pair.cut.send_modify(|cut| *cut += 1);
        }
        if number % 150 == 20 {
            pair.down.store(true, Ordering::SeqCst);
        }
        if number % 150 == 60 {
            pair.down.store(false, Ordering::SeqCst);
        }
    }
    eventually("the outbox is empty", async || pair.count("conversations_outbox").await == 0).await;
    let expected: Vec<_> = (0..EVENTS).map(|number| number.to_string()).collect();
    for lane in 0..3 {
        assert_eq!(pair.seen(lane).await, expected, "lane {lane}");
    }
}

#[tokio::test]
async fn a_lane_that_waits_holds_up_no_other_and_keeps_its_order() {
    let pair = pair().await;
    let events = [(1, "defer-3"), (1, "a"), (2, "b"), (1, "c"), (3, "unknown"), (3, "never"), (2, "d")];
    pair.send(events.map(|(lane, body)| to_beta(lane, body)).into()).await;
    eventually("all but the unknown lane", async || pair.count("conversations_outbox").await == 2).await;
    assert_eq!(pair.seen(1).await, ["defer-3", "a", "c"]);
    assert_eq!(pair.seen(2).await, ["b", "d"]);
    assert!(pair.seen(3).await.is_empty());
    assert_eq!(pair.count("conversations_outbox_dead").await, 0);
}

#[tokio::test]
async fn a_refused_event_becomes_a_dead_letter_and_its_lane_goes_on() {
    let pair = pair().await;
    pair.send(["a", "reject", "b"].map(|body| to_beta(1, body)).into()).await;
    eventually("the outbox is empty", async || pair.count("conversations_outbox").await == 0).await;
    assert_eq!(pair.seen(1).await, ["a", "b"]);
    assert_eq!(pair.count("conversations_outbox_dead").await, 1);
}

#[tokio::test]
async fn an_event_that_is_too_large_for_the_peer_becomes_a_dead_letter_and_its_lane_goes_on() {
    let pair = pair_with_limit(Some(100_000)).await;
    let large = "x".repeat(100_000);
    pair.send(["a", &large, "b", &large, "c"].map(|body| to_beta(1, body)).into()).await;
    eventually("the outbox is empty", async || pair.count("conversations_outbox").await == 0).await;
    assert_eq!(pair.seen(1).await, ["a", "b", "c"]);
    assert_eq!(pair.count("conversations_outbox_dead").await, 2);
}

#[tokio::test]
async fn what_waits_can_be_dropped_and_lanes_begin_anew() {
    let pair = pair().await;
    pair.send(vec![to_beta(1, "a")]).await;
    eventually("the first event", async || pair.count("conversations_outbox").await == 0).await;
    pair.down.store(true, Ordering::SeqCst);
    pair.cut.send_modify(|cut| *cut += 1);
    pair.send(["b", "c"].map(|body| to_beta(1, body)).into()).await;
    pair.send(vec![to_beta(2, "d")]).await;
    let beta = domain("beta.test");
    assert_eq!(pair.outbox.drop_backlog(&beta).await.unwrap(), 3);
    assert_eq!(pair.outbox.drop_backlog(&beta).await.unwrap(), 0, "nothing waits");
    assert_eq!(pair.count("conversations_outbox_dead").await, 3);
    assert_eq!(pair.count("conversations_outbox_retired").await, 0);
    pair.send([(1, "e"), (2, "f"), (1, "g")].map(|(lane, body)| to_beta(lane, body)).into()).await;
    pair.down.store(false, Ordering::SeqCst);
    eventually("the outbox is empty", async || pair.count("conversations_outbox").await == 0).await;
    assert_eq!(pair.seen(1).await, ["a", "e", "g"]);
    assert_eq!(pair.seen(2).await, ["f"]);
}

#[tokio::test]
async fn what_a_failed_job_appended_is_not_sent() {
    let pair = pair().await;
    let outbox = pair.outbox.clone();
    let failed = pair.alpha.db.write(move |tx| -> Result<(), StoreError> {
        let _ = outbox.append(tx, &[to_beta(1, "lost")])?;
        Err(StoreError::Closed)
    });
    assert!(failed.await.is_err());
    pair.send(vec![to_beta(1, "kept")]).await;
    eventually("the outbox is empty", async || pair.count("conversations_outbox").await == 0).await;
    assert_eq!(pair.seen(1).await, ["kept"]);
}

#[tokio::test]
async fn what_was_appended_is_sent_even_if_its_author_goes_away() {
    let pair = pair().await;
    for body in ["a", "b"] {
        let outbox = pair.outbox.clone();
        // As a request that the app gives up: polled once, and dropped.
        let given_up = pair.alpha.db.write(move |tx| outbox.append(tx, &[to_beta(1, body)])).now_or_never();
        drop(given_up);
        eventually("it arrives", async || pair.seen(1).await.last().is_some_and(|last| last == body)).await;
    }
    assert_eq!(pair.seen(1).await, ["a", "b"]);
}

async fn open_by_hand(channel: Channel, epoch: u64) -> Result<tonic::Streaming<super_pb::DeliverResponse>, Status> {
    let open = Open { incarnation: vec![7; 16].into(), component: "conversations".to_owned(), shard: 0, epoch };
    send_by_hand(channel, vec![deliver_request::Content::Open(open)]).await
}

use aldis_proto::federation::v1 as super_pb;

async fn send_by_hand(
    channel: Channel,
    contents: Vec<deliver_request::Content>,
) -> Result<tonic::Streaming<super_pb::DeliverResponse>, Status> {
    let requests = contents.into_iter().map(|content| DeliverRequest { content: Some(content) });
    let requests = tokio_stream::iter(requests.collect::<Vec<_>>()).chain(tokio_stream::pending());
    Ok(ConversationsDeliveryClient::new(channel).deliver(requests).await?.into_inner())
}

#[tokio::test]
async fn an_older_relay_is_fenced_off() {
    let beta = store().await;
    let (_cut, cuts) = watch::channel(0);
    let channel = transport(server(&beta), cuts, Arc::default());
    let mut newer = open_by_hand(channel.clone(), 5).await.unwrap();
    let answer = newer.message().await.unwrap().unwrap().content.unwrap();
    assert!(matches!(answer, deliver_response::Content::Opened(_)), "{answer:?}");
    let mut older = open_by_hand(channel, 4).await.unwrap();
    let answer = older.message().await.unwrap().unwrap().content.unwrap();
    assert!(matches!(&answer, deliver_response::Content::Fenced(fenced) if fenced.epoch == 5), "{answer:?}");
}

fn envelope(sequence: u64, previous: u64, id: aldis_types::EventId) -> super_pb::Envelope {
    super_pb::Envelope {
        lane: vec![1; 16].into(),
        sequence,
        previous,
        event_id: id.as_bytes().to_vec().into(),
        kind: 30,
        body: Bytes::from_static(b"x"),
        traceparent: None,
    }
}

async fn deliver_by_hand(channel: Channel, envelopes: Vec<super_pb::Envelope>) -> Result<Vec<outcome::Result>, Status> {
    let open = Open { incarnation: vec![7; 16].into(), component: "conversations".to_owned(), shard: 0, epoch: 1 };
    let batch = super_pb::Batch { envelopes };
    let contents = vec![deliver_request::Content::Open(open), deliver_request::Content::Batch(batch)];
    let mut answers = send_by_hand(channel, contents).await?;
    answers.message().await?;
    let answer = answers.message().await?.and_then(|answer| answer.content);
    let Some(deliver_response::Content::Outcomes(outcomes)) = answer else { panic!("{answer:?}") };
    Ok(outcomes.outcomes.into_iter().map(|outcome| outcome.result.unwrap()).collect())
}

#[tokio::test]
async fn gaps_repeats_and_chosen_ids_are_told_apart() {
    let beta = store().await;
    let (_cut, cuts) = watch::channel(0);
    let channel = transport(server(&beta), cuts, Arc::default());
    let id = |sequence| event_id(&domain("alpha.test"), &[7; 16], "conversations", &[1; 16], sequence);
    let first = vec![envelope(1, 0, id(1)), envelope(3, 2, id(3)), envelope(1, 0, id(1))];
    let outcomes = deliver_by_hand(channel.clone(), first).await.unwrap();
    assert!(matches!(outcomes[0], outcome::Result::Applied(_)));
    assert!(matches!(&outcomes[1], outcome::Result::Gap(_)));
    let again = deliver_by_hand(channel.clone(), vec![envelope(1, 0, id(1)), envelope(4, 2, id(4))]).await.unwrap();
    assert!(matches!(again[0], outcome::Result::Applied(_)));
    assert!(matches!(&again[1], outcome::Result::Gap(gap) if gap.last == 1));
    let chosen = deliver_by_hand(channel, vec![envelope(2, 1, id(9))]).await.unwrap_err();
    assert_eq!(chosen.code(), tonic::Code::InvalidArgument);
    let seen: i64 =
        beta.db.read(|tx| Ok(tx.query_row("SELECT count(*) FROM seen", [], |row| row.get(0))?)).await.unwrap();
    assert_eq!(seen, 1);
}

/// A notifications service that fails a few times first.
struct Pushes {
    received: Arc<Mutex<Vec<Notification>>>,
    failures: Mutex<u32>,
}

#[async_trait]
impl push_server::Push for Pushes {
    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let mut failures = self.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return Err(Status::unavailable("not yet"));
        }
        let notifications = request.into_inner().notifications;
        if notifications.iter().any(|notification| notification.event.as_ref() == b"bad") {
            return Err(Status::invalid_argument("bad"));
        }
        self.received.lock().unwrap().extend(notifications);
        Ok(Response::new(PushResponse {}))
    }

    async fn remove_client(&self, _: Request<RemoveClientRequest>) -> Result<Response<RemoveClientResponse>, Status> {
        Ok(Response::new(RemoveClientResponse {}))
    }

    async fn open_consumer(&self, _: Request<OpenConsumerRequest>) -> Result<Response<OpenConsumerResponse>, Status> {
        Ok(Response::new(OpenConsumerResponse {}))
    }

    async fn remove_user(
        &self,
        _: Request<RemoveUserQueuesRequest>,
    ) -> Result<Response<RemoveUserQueuesResponse>, Status> {
        Ok(Response::new(RemoveUserQueuesResponse {}))
    }
}

#[tokio::test]
async fn our_own_services_are_told_in_order_and_the_author_can_wait() {
    let alpha = store().await;
    let received = Arc::new(Mutex::new(Vec::new()));
    let pushes = Pushes { received: received.clone(), failures: Mutex::new(2) };
    let place = InProcess::new();
    place.serve(Routes::new(push_server::PushServer::new(pushes)));
    let outbox = Outbox::open(Component::Conversations, domain("alpha.test"), alpha.db.clone(), Arc::new(SystemClock))
        .await
        .unwrap();
    let relays = Relays {
        peers: Peers::new(InProcess::new().channel()),
        policy: open_policy(),
        notifications: Some(place.channel()),
        conversations: None,
        bounds: Config::default(),
    };
    let mut relay = tokio::task::JoinSet::new();
    relay.spawn(outbox.clone().run(relays));
    let push = |events: &[&'static str]| {
        let notifications = events
            .iter()
            .map(|event| Notification { event: Bytes::from_static(event.as_bytes()), ..Notification::default() })
            .collect();
        let body = PushRequest { notifications }.encode_to_vec().into();
        Outgoing { peer: Peer::Service(LocalService::Notifications), lane: [1; 16], kind: 0, body }
    };
    let rows = [push(&["a", "b"]), push(&["bad"]), push(&["c"])];
    let appending = outbox.clone();
    let appended = alpha.db.write(move |tx| appending.append(tx, &rows)).await.unwrap();
    assert!(outbox.committed(appended).local(Duration::from_secs(30)).await);
    let everything = received;
    let received = everything.lock().unwrap().clone();
    let events: Vec<_> = received.iter().map(|notification| notification.event.as_ref()).collect();
    assert_eq!(events, [b"a", b"b", b"c"]);
    let mut ids: Vec<_> = received.iter().map(|notification| notification.event_id.clone()).collect();
    ids.dedup();
    assert!(ids.len() == 3 && ids.iter().all(|id| id.len() == 16));
    let dead: i64 = alpha
        .db
        .read(|tx| Ok(tx.query_row("SELECT count(*) FROM conversations_outbox_dead", [], |row| row.get(0))?))
        .await
        .unwrap();
    assert_eq!(dead, 1);
    let (appending, rows) = (outbox.clone(), [push(&["d"])]);
    drop(alpha.db.write(move |tx| appending.append(tx, &rows)).now_or_never());
    let arrived = || everything.lock().unwrap().last().is_some_and(|notification| notification.event.as_ref() == b"d");
    eventually("what an author left who went away", async || arrived()).await;
}

#[test]
fn event_ids_follow_from_their_place() {
    let id = |origin: &str, lane, sequence| event_id(&domain(origin), &[1; 16], "users", &[lane; 16], sequence);
    assert_eq!(id("a.test", 1, 1), id("a.test", 1, 1));
    let others = [id("b.test", 1, 1), id("a.test", 2, 1), id("a.test", 1, 2), derive_event_id(id("a.test", 1, 1), 0)];
    assert!(others.iter().all(|other| *other != id("a.test", 1, 1)));
    assert_ne!(derive_event_id(others[0], 0), derive_event_id(others[0], 1));
}
