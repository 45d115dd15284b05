//! The relay to one backend: a long-lived stream with a window, in order per lane.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use aldis_peers::{PeerError, Peers};
use aldis_proto::{
    convert::bytes_of,
    federation::v1::{
        Batch, DeliverRequest, DeliverResponse, Envelope, Open, Outcome,
        conversations_delivery_client::ConversationsDeliveryClient, deliver_request, deliver_response, outcome,
        users_delivery_client::UsersDeliveryClient,
    },
    metadata,
};
use aldis_storage::StoreError;
use aldis_types::Domain;
use bytes::Bytes;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming, metadata::AsciiMetadataValue};

use crate::{
    bounds,
    condition::Activity,
    event_id,
    fresh::{Reader, Tail},
    outbox::{Component, Outbox, Relays},
    window::{Backoff, DROPPED, Lane, MAX_BYTES, MAX_ROWS, Row, WITHDRAWN},
};

/// How long a peer may take to answer the opening of a stream.
const OPENING: Duration = Duration::from_secs(15);
/// How long a peer may leave envelopes unanswered before the stream is opened anew.
const SILENCE: Duration = Duration::from_secs(30);
/// Pauses of a lane after its peer said "not now", "there is a gap", or "I don't know this kind".
const DEFERRED: Duration = Duration::from_millis(250);
const GAP: Duration = Duration::from_millis(50);
const UNSUPPORTED: Duration = Duration::from_secs(60);
/// What an envelope and its batch add to the body.
const FRAME_BYTES: usize = 1024;
/// A silent wait still ends now and then, so that a lost wake-up cannot last.
const SAFETY: Duration = Duration::from_secs(60);

type Answers = Streaming<DeliverResponse>;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("peer")]
    Peer(#[from] PeerError),
    #[error("the peer closed the stream")]
    Closed,
    #[error("the peer did not answer in time")]
    Silent,
    #[error("the policy denies the peer")]
    Denied,
    #[error("the administrator holds the relay")]
    Paused,
    #[error("nothing more goes out under this key")]
    Spent,
    #[error("a newer relay has taken over (epoch {0})")]
    Fenced(u64),
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("store")]
    Store(#[from] StoreError),
}

/// Runs for as long as it is polled.
pub(crate) async fn relay(outbox: Outbox, relays: Relays, domain: Domain, tail: Arc<Tail>) {
    let component = outbox.shared.component.as_str();
    let conditions = &outbox.shared.conditions;
    let mut backoff = Backoff::new();
    loop {
        let key = match outbox.key(&domain).await {
            Ok(key) => key,
            // The process is about to end.
            Err(StoreError::Closed) => std::future::pending().await,
            Err(error) => {
                tracing::error!(%error, "reading the outbox failed");
                backoff.pause().await;
                continue;
            }
        };
        match outbox.has_rows(&key).await {
            Ok(true) => {}
            Ok(false) => {
                conditions.set(&domain, Activity::Idle);
                // A lost wake-up is not expected; the bound keeps it from mattering.
                let _ = tokio::time::timeout(SAFETY, tail.wake.notified()).await;
                continue;
            }
            Err(StoreError::Closed) => std::future::pending().await,
            Err(error) => {
                tracing::error!(%error, "reading the outbox failed");
                backoff.pause().await;
                continue;
            }
        }
        if wait_until_allowed(&outbox, &relays, &domain).await {
            // Meanwhile what waited may have been dropped.
            continue;
        }
        let ended = Stream::new(&outbox, &relays, &domain, &tail, key).run(&mut backoff).await;
        metrics::counter!("aldis_outbox_streams_ended_total", "component" => component).increment(1);
        match ended {
            Ended::Fenced(epoch) => {
                conditions.set(&domain, Activity::Fenced);
                tracing::error!(peer.domain = %domain, epoch, "another relay with a newer epoch has taken over; stopping");
                return;
            }
            Ended::Denied | Ended::Paused => {}
            Ended::Spent => continue,
            ended => {
                let reason = chain(&ended);
                tracing::info!(peer.domain = %domain, component, %reason, "delivery stream ended");
                conditions.failed(&domain, reason, outbox.shared.clock.now());
            }
        }
        backoff.pause().await;
    }
}

fn chain(error: &Ended) -> String {
    match error {
        Ended::Peer(peer) => peer.to_string(),
        Ended::Store(store) => format!("store: {store}"),
        other => other.to_string(),
    }
}

/// Whether there was something to wait for.
async fn wait_until_allowed(outbox: &Outbox, relays: &Relays, domain: &Domain) -> bool {
    let mut changes = relays.policy.changes();
    let mut pauses = outbox.shared.paused.subscribe();
    let mut waited = false;
    loop {
        let held = if pauses.borrow_and_update().contains(domain) {
            Activity::Paused
        } else if relays.policy.allows(domain) {
            return waited;
        } else {
            Activity::NotAllowed
        };
        outbox.shared.conditions.set(domain, held);
        let news = async {
            tokio::select! {
                _ = changes.changed() => {}
                _ = pauses.changed() => {}
            }
        };
        // A policy that has grown too old recovers without a change of version, hence the bound.
        let _ = tokio::time::timeout(Duration::from_secs(5), news).await;
        waited = true;
    }
}

/// One stream and what is on its way in it.
struct Stream<'a> {
    outbox: &'a Outbox,
    relays: &'a Relays,
    domain: &'a Domain,
    /// What it is told about our lanes.
    incarnation: [u8; 16],
    tail: &'a Tail,
    reader: Reader<'a>,
    /// By lane and sequence; the rows' ids and sizes. What fills a hole has no row.
    in_flight: HashMap<(Lane, u64), (Option<i64>, usize)>,
    in_flight_bytes: usize,
    /// Lanes that wait, until when.
    waiting: HashMap<Lane, Instant>,
    /// Lanes of which the peer lacks what is gone here, with the last sequence that it has.
    holes: HashMap<Lane, u64>,
    /// Rows that are answered but may still be in the table.
    removed: HashSet<i64>,
    /// The largest message that the peer says it takes.
    max_message_bytes: Option<u64>,
    last_answer: Instant,
}

impl<'a> Stream<'a> {
    /// A stream for the rows that are kept under `key`.
    fn new(outbox: &'a Outbox, relays: &'a Relays, domain: &'a Domain, tail: &'a Tail, key: String) -> Self {
        Self {
            outbox,
            relays,
            domain,
            incarnation: outbox.shared.incarnation_of(&key),
            tail,
            reader: Reader::new(outbox, tail, key.into()),
            in_flight: HashMap::new(),
            in_flight_bytes: 0,
            waiting: HashMap::new(),
            holes: HashMap::new(),
            removed: HashSet::new(),
            max_message_bytes: None,
            last_answer: Instant::now(),
        }
    }

    async fn run(mut self, backoff: &mut Backoff) -> Ended {
        match self.run_inner(backoff).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn run_inner(&mut self, backoff: &mut Backoff) -> Result<std::convert::Infallible, Ended> {
        let (sender, mut answers) = self.open().await?;
        self.outbox.shared.conditions.set(self.domain, Activity::Delivering);
        self.max_message_bytes = self.relays.peers.max_message_bytes(self.domain).await;
        let mut changes = self.relays.policy.changes();
        let mut pauses = self.outbox.shared.paused.subscribe();
        loop {
            if self.outbox.is_paused(self.domain) {
                return Err(Ended::Paused);
            }
            self.fill(&sender).await?;
            // Lanes may begin anew, under another key, while the stream goes on.
            let is_left = !self.tail.is_followed();
            if is_left || self.in_flight.is_empty() && self.outbox.is_spent(self.reader.key()).await? {
                return Err(Ended::Spent);
            }
            let deadline = self.next_deadline();
            tokio::select! {
                answer = answers.message() => {
                    let answer = answer.map_err(|status| PeerError::from_status(self.domain, &status))?;
                    self.answered(answer.ok_or(Ended::Closed)?).await?;
                    // A peer that is there and fails at every batch is not asked more and more often.
                    backoff.reset();
                }
                () = self.tail.wake.notified() => {}
                _ = changes.changed() => {
                    if !self.relays.policy.allows(self.domain) {
                        return Err(Ended::Denied);
                    }
                }
                _ = pauses.changed() => {}
                () = tokio::time::sleep_until(deadline) => self.woken(Instant::now())?,
            }
        }
    }

    /// Opens the stream; an answer to the opening shows that the peer's service is there.
    async fn open(&self) -> Result<(mpsc::Sender<DeliverRequest>, Answers), Ended> {
        let shared = &self.outbox.shared;
        let (sender, receiver) = mpsc::channel(4);
        let open = Open {
            incarnation: self.incarnation.to_vec().into(),
            component: shared.component.as_str().to_owned(),
            shard: 0,
            epoch: shared.epoch,
        };
        let open = DeliverRequest { content: Some(deliver_request::Content::Open(open)) };
        sender.try_send(open).map_err(|_| Ended::Closed)?;
        let mut request = Request::new(ReceiverStream::new(receiver));
        if let Ok(value) = AsciiMetadataValue::try_from(self.domain.as_str()) {
            request.metadata_mut().insert(metadata::TARGET_DOMAIN, value);
        }
        let opening = async {
            let mut answers = call(&self.relays.peers, shared.component, request)
                .await
                .map_err(|status| PeerError::from_status(self.domain, &status))?;
            let first = answers.message().await.map_err(|status| PeerError::from_status(self.domain, &status))?;
            match first.and_then(|answer| answer.content) {
                Some(deliver_response::Content::Opened(_)) => Ok(answers),
                Some(deliver_response::Content::Fenced(fenced)) => Err(Ended::Fenced(fenced.epoch)),
                Some(deliver_response::Content::Outcomes(_)) => Err(Ended::Protocol("outcomes before opened")),
                None => Err(Ended::Closed),
            }
        };
        let answers = tokio::time::timeout(OPENING, opening).await.map_err(|_| Ended::Silent)??;
        Ok((sender, answers))
    }

    /// Sends what the window takes.
    async fn fill(&mut self, sender: &mpsc::Sender<DeliverRequest>) -> Result<(), Ended> {
        while self.in_flight.len() < MAX_ROWS && (self.in_flight_bytes < MAX_BYTES || self.in_flight.is_empty()) {
            let room = MAX_ROWS - self.in_flight.len();
            let bytes = MAX_BYTES.saturating_sub(self.in_flight_bytes);
            let before = self.reader.cursor();
            let rows = self.reader.next(room, bytes).await?;
            let Some(first) = rows.first() else { return Ok(()) };
            if self.in_flight_bytes + first.body.len() > MAX_BYTES && !self.in_flight.is_empty() {
                self.reader.back_to(Some(before));
                return Ok(());
            }
            let mut envelopes = Vec::with_capacity(rows.len());
            for mut row in rows {
                if self.is_too_large(&row) {
                    tracing::warn!(peer.domain = %self.domain, bytes = row.body.len(), "an event is larger than the peer takes");
                    self.outbox.withdraw(row.id, "message-too-large").await?;
                    row = Row { kind: WITHDRAWN, body: Bytes::new(), ..row };
                }
                self.envelopes(row, &mut envelopes);
            }
            if envelopes.is_empty() {
                continue;
            }
            let batch = DeliverRequest { content: Some(deliver_request::Content::Batch(Batch { envelopes })) };
            tokio::time::timeout(SILENCE, sender.send(batch))
                .await
                .map_err(|_| Ended::Silent)?
                .map_err(|_| Ended::Closed)?;
        }
        Ok(())
    }

    fn is_too_large(&self, row: &Row) -> bool {
        self.max_message_bytes.is_some_and(|limit| (row.body.len() + FRAME_BYTES) as u64 > limit)
    }

    /// The envelope for a row, unless the row is on its way, answered already, or its lane waits. What is gone before it,
    /// and the peer lacks, comes first.
    fn envelopes(&mut self, row: Row, envelopes: &mut Vec<Envelope>) {
        let key = (row.lane, row.sequence);
        if self.in_flight.contains_key(&key) || self.removed.contains(&row.id) || self.waiting.contains_key(&row.lane) {
            return;
        }
        if self.in_flight.is_empty() {
            self.last_answer = Instant::now();
        }
        let (mut previous, mut body) = (row.sequence.saturating_sub(1), row.body);
        if row.kind == DROPPED {
            previous = bounds::previous_of(&body);
            body = Bytes::new();
        }
        if let Some(last) = self.holes.remove(&row.lane).filter(|last| *last < previous) {
            self.in_flight.insert((row.lane, previous), (None, 0));
            envelopes.push(self.made(row.lane, previous, last, DROPPED, Bytes::new(), None));
        }
        self.in_flight_bytes += body.len();
        self.in_flight.insert(key, (Some(row.id), body.len()));
        envelopes.push(self.made(row.lane, row.sequence, previous, row.kind, body, row.trace));
    }

    fn made(
        &self,
        lane: Lane,
        sequence: u64,
        previous: u64,
        kind: u32,
        body: Bytes,
        traceparent: Option<String>,
    ) -> Envelope {
        let shared = &self.outbox.shared;
        let id = event_id(&shared.domain, &self.incarnation, shared.component.as_str(), &lane, sequence);
        Envelope { lane: lane.to_vec().into(), sequence, previous, event_id: bytes_of(id), kind, body, traceparent }
    }

    async fn answered(&mut self, answer: DeliverResponse) -> Result<(), Ended> {
        self.last_answer = Instant::now();
        let outcomes = match answer.content {
            Some(deliver_response::Content::Outcomes(outcomes)) => outcomes.outcomes,
            Some(deliver_response::Content::Fenced(fenced)) => return Err(Ended::Fenced(fenced.epoch)),
            Some(deliver_response::Content::Opened(_)) => return Err(Ended::Protocol("opened twice")),
            None => return Ok(()),
        };
        let mut delivered = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            delivered.extend(self.outcome(outcome).await?);
        }
        metrics::counter!("aldis_outbox_delivered_total", "component" => self.outbox.shared.component.as_str())
            .increment(delivered.len() as u64);
        self.removed.extend(&delivered);
        if self.removed.len() > 16 * MAX_ROWS {
            // Most are gone from the table by now; one that is not may be sent again, which changes nothing.
            self.removed.clear();
            self.removed.extend(&delivered);
        }
        self.outbox.remove(&delivered);
        Ok(())
    }

    /// Notes one outcome; gives the row's id when it is done with.
    async fn outcome(&mut self, outcome: Outcome) -> Result<Option<i64>, Ended> {
        let lane = Lane::try_from(outcome.lane.as_ref()).map_err(|_| Ended::Protocol("malformed lane"))?;
        let Some((id, bytes)) = self.in_flight.remove(&(lane, outcome.sequence)) else { return Ok(None) };
        self.in_flight_bytes -= bytes;
        match outcome.result.ok_or(Ended::Protocol("outcome without result"))? {
            outcome::Result::Applied(_) => return Ok(id),
            outcome::Result::Gap(gap) if gap.last >= outcome.sequence => return Ok(id),
            outcome::Result::Rejected(rejected) => {
                tracing::warn!(peer.domain = %self.domain, error.label = %rejected.label, "an event was refused for good");
                if let Some(id) = id {
                    self.outbox.bury(id, &rejected.label).await?;
                    self.removed.insert(id);
                }
            }
            outcome::Result::Gap(gap) => {
                self.look_for_hole(lane, gap.last).await?;
                self.pause_lane(lane, GAP, "gap");
            }
            outcome::Result::Deferred(_) => self.pause_lane(lane, DEFERRED, "deferred"),
            outcome::Result::Unsupported(unsupported) => {
                tracing::warn!(peer.domain = %self.domain, kind = unsupported.kind, "the peer does not know this kind yet");
                self.pause_lane(lane, UNSUPPORTED, "unsupported");
            }
        }
        Ok(None)
    }

    /// Whether what the peer lacks can be sent again; when it is gone, the peer is told so before what follows. That happens
    /// when the peer lost its newest state.
    async fn look_for_hole(&mut self, lane: Lane, last: u64) -> Result<(), Ended> {
        let key = self.reader.key().to_owned();
        if self.outbox.reaches(key, lane, last).await? {
            return Ok(());
        }
        if self.holes.insert(lane, last).is_none() {
            tracing::warn!(peer.domain = %self.domain, last, "the peer lacks events that it had acknowledged");
        }
        Ok(())
    }

    fn pause_lane(&mut self, lane: Lane, pause: Duration, why: &'static str) {
        self.outbox.shared.conditions.hold_lane(self.domain, lane, why);
        let until = Instant::now() + pause;
        let entry = self.waiting.entry(lane).or_insert(until);
        *entry = (*entry).max(until);
    }

    /// When something has to be done even if nothing is heard.
    fn next_deadline(&self) -> Instant {
        let lanes = self.waiting.values().min().copied();
        let silence = (!self.in_flight.is_empty()).then(|| self.last_answer + SILENCE);
        let safety = Instant::now() + SAFETY;
        [lanes, silence, Some(safety)].into_iter().flatten().min().unwrap_or(safety)
    }

    /// Frees lanes whose pause is over, and reads from the start again for their sake. Looks into the table in any case.
    fn woken(&mut self, now: Instant) -> Result<(), Ended> {
        if !self.in_flight.is_empty() && now >= self.last_answer + SILENCE {
            return Err(Ended::Silent);
        }
        let conditions = &self.outbox.shared.conditions;
        let before = self.waiting.len();
        self.waiting.retain(|lane, until| {
            if *until <= now {
                conditions.free_lane(self.domain, lane);
            }
            *until > now
        });
        let is_freed = self.waiting.len() < before;
        self.reader.back_to(Some(self.reader.cursor()).filter(|_| !is_freed));
        Ok(())
    }
}

async fn call(
    peers: &Peers,
    component: Component,
    request: Request<ReceiverStream<DeliverRequest>>,
) -> Result<Answers, Status> {
    let channel = peers.channel();
    let answers = match component {
        Component::Users => UsersDeliveryClient::new(channel).deliver(request).await?,
        Component::Conversations => ConversationsDeliveryClient::new(channel).deliver(request).await?,
    };
    Ok(answers.into_inner())
}
