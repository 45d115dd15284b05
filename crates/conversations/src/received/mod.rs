//! What the owners of conversations tell us: applied in the order of each lane, exactly once in effect.
//!
//! The owner is trusted about its conversation, not about our users: whom it adds must be connected with the adder, whom
//! it lets act must be a member that we know, and whatever it says reaches [`store::StoredRecipients`] alone.

mod changes;
#[cfg(test)]
mod fuzz;
mod messages;
mod missed;
pub(crate) mod store;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aldis_delivery::{Arrivals, Delivery, Envelope, Positions, Receive, Verdict};
use aldis_peers::Origin;
use aldis_proto::{federation::v1 as pb, internal::v1::Notification};
use aldis_storage::StoreError;
use aldis_types::Domain;
use async_trait::async_trait;
use prost::Message;
use tokio::time::Instant;
use tracing::Instrument;

use crate::{
    app::App,
    federated::{self, Told, kind},
    push,
};

type Lane = [u8; 16];

/// The label with which what cannot be read is refused.
const MALFORMED: Verdict = Verdict::Rejected("bad-request");
/// Longer than our notifications service can be away; the relay goes on for as long as it takes.
const DELIVERY_WATCH: Duration = Duration::from_hours(24);
/// How long the lanes of a backend wait for the delivery of one change to our users. It is usually there at once; when
/// not, the messages after it are deferred, and other lanes go on.
const SHORT_WAIT: Duration = Duration::from_millis(500);
/// Most deferred messages that are remembered.
const MAX_DEFERRED: usize = 10_000;

/// Receives the lanes of other backends' conversations. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Received {
    app: App,
    shared: Arc<Shared>,
    arrivals: Arrivals,
}

#[derive(Default)]
struct Shared {
    /// Lanes of which our users have not got the last change yet, with how many of them; no message overtakes it.
    undelivered: Mutex<HashMap<(Domain, Lane), usize>>,
    /// Since when messages are deferred, by lane and sequence.
    deferred: Mutex<HashMap<(Domain, Lane, u64), Instant>>,
    /// Whether our users have got everything from before the start of this process.
    caught_up: std::sync::atomic::AtomicBool,
}

/// A message that is ready to be pushed, or an envelope without effect.
struct Ready {
    place: usize,
    envelope: Envelope,
    notifications: Vec<Notification>,
    verdict: Verdict,
}

/// Has a refusal noted as the lane moves on.
fn judged(envelope: Envelope, verdict: Verdict) -> Envelope {
    match verdict {
        Verdict::Rejected(label) => envelope.refused(label),
        _ => envelope,
    }
}

impl Received {
    pub(crate) fn new(app: App, arrivals: Arrivals) -> Self {
        Self { app, shared: Arc::default(), arrivals }
    }

    /// The service.
    pub(crate) fn app(&self) -> &App {
        &self.app
    }

    /// Waits until our users have got what was written before this process started, and lets messages through then.
    pub(crate) async fn catch_up(self) {
        loop {
            match self.app.memberships.tell(vec![push::barrier()]).await {
                Ok(delivery) => {
                    if delivery.local(DELIVERY_WATCH).await {
                        self.shared.caught_up.store(true, std::sync::atomic::Ordering::Release);
                        return;
                    }
                }
                Err(error) => tracing::error!(%error, "writing to the outbox failed"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Watches over the delivery of a change to our users, and waits for it a while.
    pub(crate) async fn watch(&self, origin: &Domain, lane: Lane, delivery: Delivery) {
        let key = (origin.clone(), lane);
        *self.shared.undelivered.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default() += 1;
        let shared = self.shared.clone();
        let watching = tokio::spawn(async move {
            delivery.local(DELIVERY_WATCH).await;
            let mut undelivered = shared.undelivered.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = undelivered.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    undelivered.remove(&key);
                }
            }
        });
        // Whether or not it was in time: messages of this lane look for themselves.
        let _ = tokio::time::timeout(SHORT_WAIT, watching).await;
    }

    fn may_push(&self, origin: &Domain, lane: &Lane) -> bool {
        self.shared.caught_up.load(std::sync::atomic::Ordering::Acquire)
            && !self
                .shared
                .undelivered
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains_key(&(origin.clone(), *lane))
    }

    /// Whether an envelope has been deferred for longer than `patience`; counts from the first time that it is asked.
    fn out_of_patience(&self, origin: &Domain, envelope: &Envelope, patience: Duration) -> bool {
        let mut deferred = self.shared.deferred.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if deferred.len() >= MAX_DEFERRED {
            deferred.retain(|_, since| now.duration_since(*since) < 4 * patience);
        }
        if deferred.len() >= MAX_DEFERRED {
            return true;
        }
        let key = (origin.clone(), envelope.lane, envelope.sequence);
        let late = now.duration_since(*deferred.entry(key.clone()).or_insert(now)) >= patience;
        if late {
            deferred.remove(&key);
        }
        late
    }

    /// Pushes what is ready with one call and moves the lanes on; gives the verdicts. When our notifications service
    /// refuses something for good, each envelope goes by itself, so that one bad one does not cost the others.
    async fn flush(&self, ready: Vec<Ready>, positions: &Positions) -> Vec<(usize, Lane, Verdict)> {
        let pushed = self.app.pushes.push(ready.iter().flat_map(|item| item.notifications.clone()).collect()).await;
        match pushed {
            Ok(()) => self.advance(ready, positions).await,
            Err(error) if error.is_final() => {
                tracing::error!(%error, "what another backend told was refused by our own service");
                let mut verdicts = Vec::with_capacity(ready.len());
                let mut stopped = HashSet::new();
                for mut item in ready {
                    let lane = item.envelope.lane;
                    if stopped.contains(&lane) {
                        verdicts.push((item.place, lane, Verdict::Deferred));
                        continue;
                    }
                    match self.app.pushes.push(item.notifications.clone()).await {
                        Err(error) if !error.is_final() => {
                            stopped.insert(lane);
                            verdicts.push((item.place, lane, Verdict::Deferred));
                        }
                        pushed => {
                            if pushed.is_err() {
                                item.verdict = MALFORMED;
                            }
                            verdicts.extend(self.advance(vec![item], positions).await);
                        }
                    }
                }
                verdicts
            }
            Err(error) => {
                tracing::warn!(%error, "events of another backend wait");
                ready.into_iter().map(|item| (item.place, item.envelope.lane, Verdict::Deferred)).collect()
            }
        }
    }

    async fn advance(&self, ready: Vec<Ready>, positions: &Positions) -> Vec<(usize, Lane, Verdict)> {
        let mut verdicts: Vec<_> = ready.iter().map(|item| (item.place, item.envelope.lane, item.verdict)).collect();
        if verdicts.is_empty() {
            return verdicts;
        }
        let envelopes = ready.into_iter().map(|item| judged(item.envelope, item.verdict)).collect();
        match self.app.memberships.advance(positions.clone(), envelopes).await {
            Ok(()) => metrics::counter!("aldis_events_received_total").increment(verdicts.len() as u64),
            Err(error) => {
                tracing::error!(%error, "events of another backend cannot be stored");
                for (_, _, verdict) in &mut verdicts {
                    *verdict = Verdict::Deferred;
                }
            }
        }
        verdicts
    }
}

#[async_trait]
impl Receive for Received {
    #[tracing::instrument(name = "grpc.federation.deliver", skip_all, fields(peer.domain = %origin.domain()))]
    async fn receive(&self, origin: &Origin, envelopes: Vec<Envelope>, positions: &Positions) -> Vec<Verdict> {
        let domain = origin.domain();
        let mut verdicts = vec![Verdict::Deferred; envelopes.len()];
        let mut stopped: HashSet<Lane> = HashSet::new();
        let mut ready: Vec<Ready> = Vec::new();
        for (place, envelope) in envelopes.into_iter().enumerate() {
            let lane = envelope.lane;
            if stopped.contains(&lane) {
                continue;
            }
            if !kind::ALL.contains(&envelope.kind) {
                verdicts[place] = Verdict::Unsupported;
                stopped.insert(lane);
                continue;
            }
            match read(&envelope, domain) {
                None => ready.push(Ready { place, envelope, notifications: vec![], verdict: MALFORMED }),
                Some((head, Told::Message(message))) => {
                    match self.prepare_message(domain, &envelope, &head, &message).await {
                        Some((verdict, notifications)) => {
                            ready.push(Ready { place, envelope, notifications, verdict });
                        }
                        None => drop(stopped.insert(lane)),
                    }
                }
                Some((head, told)) => {
                    settle(self.flush(std::mem::take(&mut ready), positions).await, &mut verdicts, &mut stopped);
                    if stopped.contains(&lane) {
                        continue;
                    }
                    let span = tracing::info_span!("received.change", conversation.id = %head.conversation.id);
                    envelope.trace.join(&span);
                    let applied = self.apply(domain, envelope, &head, told, positions);
                    verdicts[place] = applied.instrument(span).await;
                    if verdicts[place] == Verdict::Deferred {
                        stopped.insert(lane);
                    }
                }
            }
        }
        settle(self.flush(ready, positions).await, &mut verdicts, &mut stopped);
        verdicts
    }

    #[tracing::instrument(name = "grpc.federation.missed", skip_all, fields(peer.domain = %origin.domain()))]
    async fn missed(&self, origin: &Origin, envelopes: Vec<Envelope>, positions: &Positions) -> Vec<Verdict> {
        let mut verdicts = Vec::with_capacity(envelopes.len());
        for envelope in envelopes {
            verdicts.push(self.miss(origin.domain(), envelope, positions).await);
        }
        verdicts
    }

    async fn renewed(&self, origin: &Origin, incarnation: [u8; 16]) -> Result<(), StoreError> {
        self.miss_all(origin.domain(), &incarnation).await
    }

    fn opened(&self, origin: &Origin) {
        self.arrivals.note(origin.domain());
    }
}

/// Enters what became of a run.
fn settle(outcome: Vec<(usize, Lane, Verdict)>, verdicts: &mut [Verdict], stopped: &mut HashSet<Lane>) {
    for (place, lane, verdict) in outcome {
        if let Some(entry) = verdicts.get_mut(place) {
            *entry = verdict;
        }
        if verdict == Verdict::Deferred {
            stopped.insert(lane);
        }
    }
}

/// `None` when the envelope cannot be read.
fn read(envelope: &Envelope, origin: &Domain) -> Option<(federated::Head, Told)> {
    let event = pb::ConversationEvent::decode(envelope.body.clone()).ok()?;
    let kind = federated::kind_of(event.change.as_ref()?);
    if kind != envelope.kind {
        return None;
    }
    match federated::read_event(event, origin, &envelope.lane) {
        Ok(event) => Some(event),
        Err(error) => {
            tracing::warn!(%error, "an event of another backend is malformed");
            None
        }
    }
}
