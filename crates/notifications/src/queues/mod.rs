//! Durable queues: what waits for the clients of a user until they fetch it.
//!
//! Guarantees: an event is stored before the call that brings it is answered, and before any socket is looked up; the
//! id that a queue gives at commit is greater than every id in it, so a client that has read up to an id never misses
//! a later commit; an event enters a queue once, however often it is brought; sockets get events in the order of
//! their ids. Not here: who gets what, which the calling service decides.

mod error;
#[cfg(all(test, feature = "golden"))]
mod golden;
pub(crate) mod grpc;
pub(crate) mod http;
mod sequencer;
pub(crate) mod store;
mod sweep;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use aldis_types::{ClientId, ConnId, EventId, NotificationId, UserId};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

pub(crate) use error::QueueError;
pub(crate) use sequencer::Sequencer;
pub(crate) use sweep::sweep;

use sequencer::Command;
use store::{Entry, Page, QueueStore, Reader, Stored};

use crate::{
    consumers::Consumers,
    push_tokens::{PushTokens, Waker},
    sockets::Sockets,
};

/// Most rows of one write, so that a large push does not hold up the writer.
const MAX_WRITE_ROWS: usize = 256;
/// Most bytes of one write, unless a single event is larger.
const MAX_WRITE_BYTES: usize = 4 << 20;
/// Most bytes of events in one answer to a client.
const PAGE_BYTES: usize = 5 << 20;
/// Sizes of a page that clients may ask for.
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 100..=10_000;
/// Pushes that wait for the sequencer; more wait outside.
const WAITING_COMMANDS: usize = 256;

/// What stands in a queue where events are missing. Apps ignore kinds that they do not know.
pub(crate) const MISSED: &[u8] = br#"{"type":"notifications.missed"}"#;

/// One event for one queue.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub user: UserId,
    /// `None`: all clients of the user.
    pub client: Option<ClientId>,
    pub event_id: EventId,
    /// One JSON object.
    pub event: Bytes,
    /// Only for sockets that are open now.
    pub transient: bool,
    /// The session that caused the event; its sockets are skipped.
    pub origin: Option<(UserId, ConnId)>,
    /// May wake the apps of clients that have no socket.
    pub native_push: bool,
    pub high_priority: bool,
    /// Not an event, but where events are missing; for all clients.
    pub missed: bool,
    /// W3C trace context of what caused the event, when it is traced.
    pub traceparent: Option<Arc<str>>,
}

impl Delivery {
    fn entry(&self) -> Entry {
        Entry {
            user: self.user,
            client: self.client,
            event_id: self.event_id,
            event: self.event.clone(),
            missed: self.missed,
        }
    }
}

/// The operations on queues. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Queues {
    store: Arc<dyn QueueStore>,
    sockets: Sockets,
    consumers: Consumers,
    push_tokens: PushTokens,
    commands: mpsc::Sender<Command>,
}

impl Queues {
    /// The operations, and the sequencer that must run for pushes to be done.
    pub(crate) fn new(
        consumers: Consumers,
        push_tokens: PushTokens,
        sockets: Sockets,
        waker: Waker,
    ) -> (Self, Sequencer) {
        let store = consumers.queue.clone();
        let (commands, waiting) = mpsc::channel(WAITING_COMMANDS);
        let sequencer = Sequencer::new(store.clone(), sockets.clone(), waker, waiting);
        (Self { store, sockets, consumers, push_tokens, commands }, sequencer)
    }

    /// Stores the deliveries and pushes them to open sockets, in order. Returns when all are durable. After an error, or
    /// when the caller gives up before, none is stored without all that come before it.
    pub(crate) async fn push(&self, deliveries: Vec<Delivery>) -> Result<(), QueueError> {
        for deliveries in chunks(deliveries) {
            let (answer, answered) = oneshot::channel();
            let command = Command { deliveries, span: tracing::Span::current(), answer };
            self.commands.send(command).await.map_err(|_| QueueError::Stopping)?;
            // One after the other: of two that are written at once the first may fail alone.
            answered.await.map_err(|_| QueueError::Stopping)??;
        }
        Ok(())
    }

    /// From now on what comes for the client is kept until it acknowledged it.
    pub(crate) async fn open_consumer(&self, user: UserId, client: ClientId) -> Result<(), QueueError> {
        self.consumers.open(user, client).await
    }

    /// Forgets the queue and closes the sockets of a client. Events for all clients of the user stay.
    pub(crate) async fn remove_client(&self, user: UserId, client: ClientId) -> Result<(), QueueError> {
        self.consumers.forget(user, Some(client)).await?;
        self.push_tokens.forget(user, Some(client)).await?;
        while self.store.remove_client(user, client).await? {}
        self.sockets.remove_client(user, client);
        Ok(())
    }

    /// Forgets the queues and closes the sockets of a user.
    pub(crate) async fn remove_user(&self, user: UserId) -> Result<(), QueueError> {
        self.consumers.forget(user, None).await?;
        self.push_tokens.forget(user, None).await?;
        while self.store.remove_user(user).await? {}
        self.sockets.remove_user(user);
        Ok(())
    }

    /// Events after `since`, oldest first; `NotFound` when `since` is not, or no longer, in the queue.
    pub(crate) async fn page(
        &self,
        user: UserId,
        reader: Reader,
        since: Option<NotificationId>,
        size: Option<u32>,
    ) -> Result<Page, QueueError> {
        let size = size.unwrap_or(1000);
        if !PAGE_SIZES.contains(&size) {
            return Err(QueueError::PageSize(size));
        }
        if since.is_some_and(|id| id.ticks().is_none()) {
            return Err(QueueError::Since);
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        self.store.page(user, reader, since, size, PAGE_BYTES).await?.ok_or(QueueError::NotFound)
    }

    /// The newest event.
    pub(crate) async fn last(&self, user: UserId, reader: Reader) -> Result<Stored, QueueError> {
        self.store.last(user, reader).await?.ok_or(QueueError::NotFound)
    }

    /// One event.
    pub(crate) async fn get(&self, user: UserId, reader: Reader, id: NotificationId) -> Result<Stored, QueueError> {
        self.store.get(user, reader, id).await?.ok_or(QueueError::NotFound)
    }
}

/// Cuts a push into writes of bounded size, in order.
fn chunks(deliveries: Vec<Delivery>) -> Vec<Vec<Delivery>> {
    let mut chunks: Vec<Vec<Delivery>> = Vec::new();
    let mut bytes = 0;
    for delivery in deliveries {
        let size = delivery.event.len();
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < MAX_WRITE_ROWS && bytes + size <= MAX_WRITE_BYTES => {
                bytes += size;
                chunk.push(delivery);
            }
            _ => {
                bytes = size;
                chunks.push(vec![delivery]);
            }
        }
    }
    chunks
}
