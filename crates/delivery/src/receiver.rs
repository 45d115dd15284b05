//! The receiving side: every envelope once in effect, in the order of its lane.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aldis_peers::{Origin, Policy};
use aldis_proto::federation::v1::{
    Applied, Deferred, DeliverRequest, DeliverResponse, Envelope as WireEnvelope, Fenced, Gap, Open, Opened, Outcome,
    Outcomes, Rejected, Unsupported, conversations_delivery_server, deliver_request, deliver_response, outcome,
    users_delivery_server,
};
use aldis_runtime::SharedClock;
use aldis_storage::{Db, StoreError};
use aldis_types::{Domain, EventId};
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use rusqlite::{OptionalExtension, params};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    event_id,
    outbox::Component,
    positions::Positions,
    schema::Statements,
    trace::Trace,
    window::{DROPPED, MAX_BYTES, MAX_ROWS, WITHDRAWN},
};

/// How long a peer may take to say what it opens.
const OPENING: Duration = Duration::from_secs(15);
/// Stores of one origin whose positions are kept: a backend has one, and a new one whenever it is restored from a backup.
/// Those that were heard of last stay.
pub const MAX_INCARNATIONS: i64 = 8;
/// Positions kept in memory per origin.
const MAX_CACHED_LANES: usize = 100_000;
/// An event of another backend, next in its lane.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// A conversation id or a user id of the origin.
    pub lane: [u8; 16],
    /// Its place in the lane.
    pub sequence: u64,
    /// The place of the one before it.
    pub previous: u64,
    /// Unique for this event.
    pub event_id: EventId,
    /// Which change it is.
    pub kind: u32,
    /// The encoded `UsersEvent` or `ConversationEvent`.
    pub body: Bytes,
    /// The trace that the origin states.
    pub trace: Trace,
    /// Why it will never be applied; noted as its lane moves on.
    pub(crate) refused: Option<&'static str>,
}

impl Envelope {
    /// This envelope, which the service refuses for good: [`Positions::advance`] notes that, so that it is refused alike when it
    /// comes again because the answer was lost. The verdict has to be [`Verdict::Rejected`].
    #[must_use]
    pub fn refused(self, label: &'static str) -> Self {
        Self { refused: Some(label), ..self }
    }
}

/// What a service grants to other backends on their delivery streams.
#[derive(Debug, Clone, Copy)]
pub struct Receiving {
    /// Whether a trace that a peer states is continued; otherwise a trace of our own is begun that links to it.
    pub continue_traces: bool,
    /// Largest message of a stream.
    pub max_message_bytes: usize,
}

impl Default for Receiving {
    fn default() -> Self {
        Self { continue_traces: false, max_message_bytes: 48 * 1024 * 1024 }
    }
}

/// What became of an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is in effect and durable, its position too.
    Applied,
    /// Its kind is not known here.
    Unsupported,
    /// It will never be applied; its position is advanced all the same. The label says why.
    Rejected(&'static str),
    /// It cannot be applied right now.
    Deferred,
}

/// What a service does with the events of other backends.
#[async_trait]
pub trait Receive: Send + Sync {
    /// Applies envelopes of one origin, in order; each was checked to be the next of its lane, provided that those
    /// before it are applied. Gives one verdict each, in order.
    ///
    /// What is `Rejected` is named so to [`Positions::advance`] by [`Envelope::refused`].
    ///
    /// For every `Applied` and `Rejected` the position is advanced durably: with the effect, in the same job, or after
    /// an effect that is idempotent. After any other verdict, later envelopes of that lane are not applied but
    /// `Deferred`.
    async fn receive(&self, origin: &Origin, envelopes: Vec<Envelope>, positions: &Positions) -> Vec<Verdict>;

    /// Each of these stands for a part of its lane that the origin dropped. Moves the lane on, and lets the clients
    /// concerned know that they missed something, in one job; the id for that is [`crate::missed_event_id`]. Gives verdicts
    /// as [`Receive::receive`] does.
    async fn missed(&self, origin: &Origin, envelopes: Vec<Envelope>, positions: &Positions) -> Vec<Verdict>;

    /// The origin goes on with another store, from before the one that was known or empty: whatever it had for us that was
    /// not here yet may be lost. Lets clients know, durably. Called again when it fails, or when a crash comes between.
    async fn renewed(&self, origin: &Origin, incarnation: [u8; 16]) -> Result<(), StoreError>;

    /// The origin has opened a stream: it is there, maybe after an absence. Must return at once.
    fn opened(&self, _origin: &Origin) {}
}

/// The server for the lanes of users.
pub fn users_server(
    domain: Domain,
    db: Db,
    clock: SharedClock,
    policy: Policy,
    receiving: Receiving,
    receive: Arc<dyn Receive>,
) -> users_delivery_server::UsersDeliveryServer<impl users_delivery_server::UsersDelivery> {
    let server = Server::new(Component::Users, domain, (db, clock), policy, receiving, receive);
    users_delivery_server::UsersDeliveryServer::new(server).max_decoding_message_size(receiving.max_message_bytes)
}

/// The server for the lanes of conversations.
pub fn conversations_server(
    domain: Domain,
    db: Db,
    clock: SharedClock,
    policy: Policy,
    receiving: Receiving,
    receive: Arc<dyn Receive>,
) -> conversations_delivery_server::ConversationsDeliveryServer<impl conversations_delivery_server::ConversationsDelivery>
{
    let server = Server::new(Component::Conversations, domain, (db, clock), policy, receiving, receive);
    conversations_delivery_server::ConversationsDeliveryServer::new(server)
        .max_decoding_message_size(receiving.max_message_bytes)
}

type Answers = mpsc::Sender<Result<DeliverResponse, Status>>;

#[derive(Clone)]
struct Server {
    component: Component,
    domain: Domain,
    db: Db,
    clock: SharedClock,
    policy: Policy,
    receiving: Receiving,
    receive: Arc<dyn Receive>,
    sql: Arc<Statements>,
    origins: Arc<Mutex<HashMap<Domain, Arc<OriginState>>>>,
}

/// What all streams of one origin share: one of them at a time applies, and only the newest.
#[derive(Default)]
struct OriginState {
    newest: AtomicU64,
    lanes: tokio::sync::Mutex<Lanes>,
}

#[derive(Default)]
struct Lanes {
    incarnation: [u8; 16],
    last: HashMap<[u8; 16], u64>,
}

impl Server {
    fn new(
        component: Component,
        domain: Domain,
        (db, clock): (Db, SharedClock),
        policy: Policy,
        receiving: Receiving,
        receive: Arc<dyn Receive>,
    ) -> Self {
        let sql = Arc::new(Statements::new(component.as_str()));
        Self { component, domain, db, clock, policy, receiving, receive, sql, origins: Arc::default() }
    }

    fn accept(
        &self,
        request: Request<Streaming<DeliverRequest>>,
    ) -> Result<Response<ReceiverStream<Result<DeliverResponse, Status>>>, Status> {
        let origin = Origin::of(&request)?;
        self.policy.admit(&origin)?;
        if *origin.domain() == self.domain {
            return Err(Status::permission_denied("a backend does not deliver to itself"));
        }
        let (answers, receiver) = mpsc::channel(4);
        let server = self.clone();
        tokio::spawn(async move {
            if let Err(status) = server.serve(&origin, request.into_inner(), &answers).await {
                tracing::debug!(peer.domain = %origin.domain(), grpc.code = ?status.code(), "delivery stream ended");
                // The peer may be gone already.
                let _ = answers.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn serve(
        &self,
        origin: &Origin,
        mut requests: Streaming<DeliverRequest>,
        answers: &Answers,
    ) -> Result<(), Status> {
        let first = tokio::time::timeout(OPENING, requests.message())
            .await
            .map_err(|_| Status::deadline_exceeded("nothing was opened"))??;
        let Some(deliver_request::Content::Open(open)) = first.and_then(|request| request.content) else {
            return Err(Status::invalid_argument("a stream starts with open"));
        };
        let Some((positions, state, number)) = self.open(origin, open, answers).await? else { return Ok(()) };
        let mut changes = self.policy.changes();
        loop {
            let request = tokio::select! {
                request = requests.message() => request?,
                _ = changes.changed() => {
                    self.policy.admit(origin)?;
                    continue;
                }
            };
            let Some(request) = request else { return Ok(()) };
            let mut waiting = envelopes_of(request)?;
            let is_over = take_waiting(&mut requests, &mut waiting)?;
            let Some(outcomes) = self.batch(origin, &positions, &state, number, waiting).await? else {
                return Ok(());
            };
            answer(answers, deliver_response::Content::Outcomes(Outcomes { outcomes })).await?;
            if is_over {
                return Ok(());
            }
        }
    }

    /// Checks the epoch and makes this the newest stream of its origin. `None` when it was fenced off.
    async fn open(
        &self,
        origin: &Origin,
        open: Open,
        answers: &Answers,
    ) -> Result<Option<(Positions, Arc<OriginState>, u64)>, Status> {
        let incarnation = <[u8; 16]>::try_from(open.incarnation.as_ref())
            .map_err(|_| Status::invalid_argument("an incarnation has 16 bytes"))?;
        if open.component != self.component.as_str() {
            return Err(Status::invalid_argument("the stream is of another component"));
        }
        if self.is_new_store(origin, incarnation).await.map_err(store_failed)? {
            tracing::warn!(peer.domain = %origin.domain(), component = open.component, "the peer goes on with another store");
            self.receive.renewed(origin, incarnation).await.map_err(store_failed)?;
            self.mark_all(origin).await.map_err(store_failed)?;
        }
        let state = {
            let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
            origins.entry(origin.domain().clone()).or_default().clone()
        };
        let mut lanes = state.lanes.lock().await;
        // Under the lock: of two relays that open at once, the earlier one must not become the newest stream.
        if let Some(epoch) = self.raise_epoch(origin, incarnation, open.epoch).await.map_err(store_failed)? {
            drop(lanes);
            answer(answers, deliver_response::Content::Fenced(Fenced { epoch })).await?;
            return Ok(None);
        }
        let number = state.newest.fetch_add(1, Ordering::SeqCst) + 1;
        if lanes.incarnation != incarnation {
            *lanes = Lanes { incarnation, last: HashMap::new() };
        }
        drop(lanes);
        answer(answers, deliver_response::Content::Opened(Opened {})).await?;
        self.receive.opened(origin);
        let positions = Positions {
            sql: self.sql.clone(),
            component: self.component,
            clock: self.clock.clone(),
            origin: origin.domain().clone(),
            incarnation,
        };
        Ok(Some((positions, state, number)))
    }

    /// Whether the origin had another store when it was heard of last. Not so once its epoch is raised.
    async fn is_new_store(&self, origin: &Origin, incarnation: [u8; 16]) -> Result<bool, StoreError> {
        let (sql, origin) = (self.sql.clone(), origin.domain().clone());
        let is_new = self.db.read(move |tx| {
            let params = params![origin.as_str(), incarnation.as_slice()];
            Ok(tx.prepare_cached(&sql.received.is_new_store)?.query_row(params, |row| row.get(0))?)
        });
        is_new.await
    }

    /// Marks every lane of the origin, to be compared.
    async fn mark_all(&self, origin: &Origin) -> Result<(), StoreError> {
        let (sql, origin, now) = (self.sql.clone(), origin.domain().clone(), self.clock.now().millis());
        self.db
            .write(move |tx| {
                let mark = params![origin.as_str(), false, [0_u8; 0].as_slice(), now, "store-renewed"];
                tx.prepare_cached(&sql.mark)?.execute(mark)?;
                Ok(())
            })
            .await
    }

    /// `Some(epoch)` when a higher epoch was seen.
    async fn raise_epoch(&self, origin: &Origin, incarnation: [u8; 16], epoch: u64) -> Result<Option<u64>, StoreError> {
        let sql = self.sql.clone();
        let origin = origin.domain().clone();
        let epoch = i64::try_from(epoch).unwrap_or(i64::MAX);
        self.db
            .write(move |tx| {
                let key = (origin.as_str(), incarnation.as_slice());
                // A store that was heard of after this one, with a higher epoch, was restored from a backup of it, or
                // from one that it had: the stream was opened before and comes late. What the restored store sends as from
                // this one has its own epoch.
                let later: Option<i64> =
                    tx.prepare_cached(&sql.received.later_epoch)?.query_row(key, |row| row.get(0))?;
                if let Some(later) = later.filter(|later| *later > epoch) {
                    return Ok(Some(later.cast_unsigned()));
                }
                let raised = tx.prepare_cached(&sql.received.raise_epoch)?.execute(params![key.0, key.1, epoch])?;
                if raised == 1 {
                    tx.prepare_cached(&sql.received.forget_epochs)?.execute(params![key.0, MAX_INCARNATIONS])?;
                    return Ok(None);
                }
                let seen: i64 =
                    tx.prepare_cached(&sql.received.epoch)?.query_row(params![key.0, key.1], |row| row.get(0))?;
                Ok(Some(seen.cast_unsigned()))
            })
            .await
    }

    /// Applies a batch; `None` when a newer stream of the origin has taken over.
    async fn batch(
        &self,
        origin: &Origin,
        positions: &Positions,
        state: &OriginState,
        number: u64,
        batch: Vec<WireEnvelope>,
    ) -> Result<Option<Vec<Outcome>>, Status> {
        let envelopes =
            batch.into_iter().map(|envelope| self.read(envelope, origin, positions)).collect::<Result<Vec<_>, _>>()?;
        let mut lanes = state.lanes.lock().await;
        if state.newest.load(Ordering::SeqCst) != number || lanes.incarnation != positions.incarnation {
            return Ok(None);
        }
        self.load(positions, &mut lanes, &envelopes).await.map_err(store_failed)?;
        let refusals = self.refusals(positions, &lanes, &envelopes).await.map_err(store_failed)?;
        let mut outcomes: Vec<Option<Outcome>> = Vec::with_capacity(envelopes.len());
        let mut next = Vec::with_capacity(envelopes.len());
        // Where each lane will stand if everything before is applied.
        let mut expected: HashMap<[u8; 16], u64> = HashMap::new();
        for envelope in envelopes {
            let last = lanes.last.get(&envelope.lane).copied().unwrap_or(0);
            let standing = expected.entry(envelope.lane).or_insert(last);
            if envelope.sequence <= last {
                let refused = refusals.get(&(envelope.lane, envelope.sequence));
                let result = match refused {
                    Some(label) => outcome::Result::Rejected(Rejected { label: label.clone() }),
                    None => outcome::Result::Applied(Applied {}),
                };
                outcomes.push(Some(outcome(&envelope, result)));
            } else if follows(&envelope, *standing) {
                *standing = envelope.sequence;
                outcomes.push(None);
                next.push(envelope);
            } else {
                outcomes.push(Some(outcome(&envelope, outcome::Result::Gap(Gap { last }))));
            }
        }
        let mut decided = self.decide(origin, positions, &mut lanes, next).await.into_iter();
        Ok(Some(outcomes.into_iter().filter_map(|known| known.or_else(|| decided.next())).collect()))
    }

    /// Hands envelopes to the service and notes how far each lane got.
    async fn decide(
        &self,
        origin: &Origin,
        positions: &Positions,
        lanes: &mut Lanes,
        envelopes: Vec<Envelope>,
    ) -> Vec<Outcome> {
        if envelopes.is_empty() {
            return Vec::new();
        }
        let verdicts = self.verdicts(origin, positions, &envelopes).await;
        let mut applied = 0;
        let outcomes = envelopes.iter().zip(verdicts).map(|(envelope, verdict)| {
            let result = match verdict {
                Verdict::Applied => {
                    applied += 1;
                    outcome::Result::Applied(Applied {})
                }
                Verdict::Rejected(label) => outcome::Result::Rejected(Rejected { label: label.to_owned() }),
                Verdict::Unsupported => outcome::Result::Unsupported(Unsupported { kind: envelope.kind }),
                Verdict::Deferred => outcome::Result::Deferred(Deferred {}),
            };
            if matches!(verdict, Verdict::Applied | Verdict::Rejected(_)) {
                lanes.last.insert(envelope.lane, envelope.sequence);
            }
            outcome(envelope, result)
        });
        let outcomes = outcomes.collect();
        metrics::counter!("aldis_delivery_applied_total", "component" => self.component.as_str()).increment(applied);
        outcomes
    }

    /// Has runs of envelopes applied by the service; places without content are passed here.
    async fn verdicts(&self, origin: &Origin, positions: &Positions, envelopes: &[Envelope]) -> Vec<Verdict> {
        let mut verdicts = Vec::with_capacity(envelopes.len());
        let mut stopped: HashSet<[u8; 16]> = HashSet::new();
        for run in envelopes.chunk_by(|a, b| content(a) == content(b)) {
            let open: Vec<Envelope> =
                run.iter().filter(|envelope| !stopped.contains(&envelope.lane)).cloned().collect();
            let mut given = match open.first().map(content) {
                None => Vec::new(),
                Some(Content::TakenBack) => self.pass(positions, &open).await,
                Some(Content::Dropped) => {
                    let verdicts = self.receive.missed(origin, open.clone(), positions).await;
                    let missed = verdicts.iter().filter(|verdict| **verdict == Verdict::Applied).count();
                    metrics::counter!("aldis_delivery_missed_total", "component" => self.component.as_str())
                        .increment(missed as u64);
                    verdicts
                }
                Some(Content::Event) => self.receive.receive(origin, open.clone(), positions).await,
            };
            given.resize(open.len(), Verdict::Deferred);
            let failed = |verdict: &Verdict| !matches!(verdict, Verdict::Applied | Verdict::Rejected(_));
            let newly =
                open.iter().zip(&given).filter(|(_, verdict)| failed(verdict)).map(|(envelope, _)| envelope.lane);
            let newly: Vec<_> = newly.collect();
            let mut given = given.into_iter();
            verdicts.extend(run.iter().map(|envelope| {
                if stopped.contains(&envelope.lane) {
                    Verdict::Deferred
                } else {
                    given.next().unwrap_or(Verdict::Deferred)
                }
            }));
            stopped.extend(newly);
        }
        verdicts
    }

    /// Moves lanes past envelopes whose content was taken back.
    async fn pass(&self, positions: &Positions, envelopes: &[Envelope]) -> Vec<Verdict> {
        let (positions, passed) = (positions.clone(), envelopes.to_vec());
        let moved = self.db.write(move |tx| passed.iter().try_for_each(|envelope| positions.advance(tx, envelope)));
        let verdict = match moved.await {
            Ok(()) => Verdict::Applied,
            Err(error) => {
                tracing::error!(%error, "a lane could not be moved on");
                Verdict::Deferred
            }
        };
        vec![verdict; envelopes.len()]
    }

    fn read(&self, envelope: WireEnvelope, origin: &Origin, positions: &Positions) -> Result<Envelope, Status> {
        let lane = <[u8; 16]>::try_from(envelope.lane.as_ref())
            .map_err(|_| Status::invalid_argument("a lane has 16 bytes"))?;
        if i64::try_from(envelope.sequence).is_err()
            || envelope.traceparent.as_ref().is_some_and(|text| text.len() > 128)
        {
            return Err(Status::invalid_argument("a field of an envelope is out of range"));
        }
        // The id is what makes an event unique in our queues: a peer must not be able to choose it.
        let component = self.component.as_str();
        let id = event_id(origin.domain(), &positions.incarnation, component, &lane, envelope.sequence);
        if envelope.event_id.as_ref() != id.as_bytes() {
            return Err(Status::invalid_argument("an event id does not follow from its place"));
        }
        Ok(Envelope {
            lane,
            sequence: envelope.sequence,
            previous: envelope.previous,
            event_id: id,
            kind: envelope.kind,
            body: envelope.body,
            trace: Trace::new(envelope.traceparent, self.receiving.continue_traces),
            refused: None,
        })
    }

    /// Of those that came before, which were refused, and why.
    async fn refusals(
        &self,
        positions: &Positions,
        lanes: &Lanes,
        batch: &[Envelope],
    ) -> Result<HashMap<([u8; 16], u64), String>, StoreError> {
        let came_before =
            |envelope: &&Envelope| lanes.last.get(&envelope.lane).is_some_and(|last| envelope.sequence <= *last);
        let repeated: Vec<_> =
            batch.iter().filter(came_before).map(|envelope| (envelope.lane, envelope.sequence)).collect();
        if repeated.is_empty() {
            return Ok(HashMap::new());
        }
        let positions = positions.clone();
        let found = self.db.read(move |tx| {
            let mut query = tx.prepare_cached(&positions.sql.received.refusal)?;
            let mut found = HashMap::new();
            for (lane, sequence) in repeated {
                let place = params![
                    positions.origin.as_str(),
                    positions.incarnation.as_slice(),
                    lane.as_slice(),
                    sequence.cast_signed()
                ];
                if let Some(label) = query.query_row(place, |row| row.get(0)).optional()? {
                    found.insert((lane, sequence), label);
                }
            }
            Ok(found)
        });
        found.await
    }

    /// Reads the positions of the lanes that are not in memory.
    async fn load(&self, positions: &Positions, lanes: &mut Lanes, batch: &[Envelope]) -> Result<(), StoreError> {
        if lanes.last.len() > MAX_CACHED_LANES {
            lanes.last.clear();
        }
        let mut unknown: Vec<_> =
            batch.iter().map(|envelope| envelope.lane).filter(|lane| !lanes.last.contains_key(lane)).collect();
        unknown.sort_unstable();
        unknown.dedup();
        if unknown.is_empty() {
            return Ok(());
        }
        let (sql, origin, incarnation) = (self.sql.clone(), positions.origin.clone(), positions.incarnation);
        let found = self.db.read(move |tx| {
            let mut query = tx.prepare_cached(&sql.received.position)?;
            let mut found = Vec::with_capacity(unknown.len());
            for lane in unknown {
                let last: Option<i64> = query
                    .query_row(params![origin.as_str(), incarnation.as_slice(), lane.as_slice()], |row| row.get(0))
                    .optional()?;
                found.push((lane, last.unwrap_or(0).cast_unsigned()));
            }
            Ok(found)
        });
        lanes.last.extend(found.await?);
        Ok(())
    }
}

fn envelopes_of(request: DeliverRequest) -> Result<Vec<WireEnvelope>, Status> {
    match request.content {
        Some(deliver_request::Content::Batch(batch)) if batch.envelopes.len() <= MAX_ROWS => Ok(batch.envelopes),
        Some(deliver_request::Content::Batch(_)) => Err(Status::invalid_argument("too many envelopes in a batch")),
        _ => Err(Status::invalid_argument("a batch is expected")),
    }
}

/// Adds what has arrived in the meantime, about a window of it at most, so that one commit serves it all; `true` when the
/// stream has ended.
fn take_waiting(requests: &mut Streaming<DeliverRequest>, envelopes: &mut Vec<WireEnvelope>) -> Result<bool, Status> {
    let mut bytes: usize = envelopes.iter().map(|envelope| envelope.body.len()).sum();
    while envelopes.len() < MAX_ROWS && bytes < MAX_BYTES {
        match requests.message().now_or_never() {
            None => break,
            Some(Err(_) | Ok(None)) => return Ok(true),
            Some(Ok(Some(request))) => {
                let more = envelopes_of(request)?;
                bytes += more.iter().map(|envelope| envelope.body.len()).sum::<usize>();
                envelopes.extend(more);
            }
        }
    }
    Ok(false)
}

/// What an envelope brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Event,
    TakenBack,
    Dropped,
}

fn content(envelope: &Envelope) -> Content {
    match envelope.kind {
        WITHDRAWN => Content::TakenBack,
        DROPPED => Content::Dropped,
        _ => Content::Event,
    }
}

/// Whether an envelope comes next in a lane that stands at a sequence. Of a part that was dropped, some may have come before.
fn follows(envelope: &Envelope, standing: u64) -> bool {
    let begins = if envelope.kind == DROPPED { envelope.previous <= standing } else { envelope.previous == standing };
    begins && envelope.sequence > standing
}

fn outcome(envelope: &Envelope, result: outcome::Result) -> Outcome {
    Outcome { lane: envelope.lane.to_vec().into(), sequence: envelope.sequence, result: Some(result) }
}

fn store_failed(error: StoreError) -> Status {
    tracing::error!(%error, "receiving events failed");
    Status::unavailable("the store failed")
}

async fn answer(answers: &Answers, content: deliver_response::Content) -> Result<(), Status> {
    answers
        .send(Ok(DeliverResponse { content: Some(content) }))
        .await
        .map_err(|_| Status::cancelled("the peer is gone"))
}

#[async_trait]
impl users_delivery_server::UsersDelivery for Server {
    type DeliverStream = ReceiverStream<Result<DeliverResponse, Status>>;

    async fn deliver(
        &self,
        request: Request<Streaming<DeliverRequest>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        self.accept(request)
    }
}

#[async_trait]
impl conversations_delivery_server::ConversationsDelivery for Server {
    type DeliverStream = ReceiverStream<Result<DeliverResponse, Status>>;

    async fn deliver(
        &self,
        request: Request<Streaming<DeliverRequest>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        self.accept(request)
    }
}
