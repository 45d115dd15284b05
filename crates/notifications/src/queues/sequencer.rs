//! One task through which every push goes, so that sockets get events in the order in which they were committed.

use std::sync::Arc;

use aldis_storage::StoreError;
use aldis_types::NotificationId;
use futures::{
    FutureExt, StreamExt,
    future::{self, BoxFuture},
    poll,
    stream::FuturesOrdered,
};
use tokio::sync::{mpsc, oneshot};
use tracing::Span;

use super::{
    Delivery, MAX_WRITE_BYTES, MAX_WRITE_ROWS, QueueError,
    store::{Entry, QueueStore},
};
use crate::{
    push_tokens::{Wake, Waker},
    sockets::{Sockets, frame},
};

/// Writes on their way at once; the next group of the store's writer fills while one is synced.
const MAX_WRITES: usize = 8;
/// Most commands of one write.
const MAX_WRITE_COMMANDS: usize = 64;

/// A push, small enough for one write.
pub(super) struct Command {
    pub deliveries: Vec<Delivery>,
    /// Where the push shows in traces.
    pub span: Span,
    pub answer: oneshot::Sender<Result<(), QueueError>>,
}

/// Commands that are written together, and the ids that their stored deliveries got, in order.
type Write = (Vec<Command>, Result<Vec<Option<NotificationId>>, StoreError>);

/// Stores pushes, then pushes them to sockets, each in the order in which they came.
pub(crate) struct Sequencer {
    store: Arc<dyn QueueStore>,
    sockets: Sockets,
    waker: Waker,
    waiting: mpsc::Receiver<Command>,
}

impl Sequencer {
    pub(super) fn new(
        store: Arc<dyn QueueStore>,
        sockets: Sockets,
        waker: Waker,
        waiting: mpsc::Receiver<Command>,
    ) -> Self {
        Self { store, sockets, waker, waiting }
    }

    /// Runs until nobody can push any more.
    pub(crate) async fn run(mut self) {
        let mut writes: FuturesOrdered<BoxFuture<'static, Write>> = FuturesOrdered::new();
        let mut commands = Vec::with_capacity(MAX_WRITE_COMMANDS);
        let mut open = true;
        while open || !writes.is_empty() {
            tokio::select! {
                biased;
                Some((commands, ids)) = writes.next(), if !writes.is_empty() => self.finish(commands, ids),
                taken = self.waiting.recv_many(&mut commands, MAX_WRITE_COMMANDS), if open && writes.len() < MAX_WRITES => {
                    open = taken > 0;
                    for batch in batches(&mut commands) {
                        let mut write = write(self.store.clone(), batch).boxed();
                        // The first poll hands the write to the store: ids grow in this order.
                        writes.push_back(match poll!(&mut write) {
                            std::task::Poll::Ready(done) => future::ready(done).boxed(),
                            std::task::Poll::Pending => write,
                        });
                    }
                }
            }
        }
    }

    fn finish(&self, commands: Vec<Command>, ids: Result<Vec<Option<NotificationId>>, StoreError>) {
        match ids {
            Ok(ids) => {
                let mut ids = ids.into_iter();
                for command in commands {
                    command.span.in_scope(|| self.push(&command.deliveries, &mut ids));
                    // A caller that has gone away no longer cares.
                    let _ = command.answer.send(Ok(()));
                }
            }
            Err(error) => {
                let parts = error.leaves_parts();
                let error = QueueError::from(error);
                for command in commands {
                    if parts {
                        // What is there already is not pushed when it is brought again: apps fetch it.
                        command.deliveries.iter().for_each(|delivery| self.sockets.missed(delivery.user));
                    }
                    let _ = command.answer.send(Err(error.clone()));
                }
            }
        }
    }

    /// Pushes what was committed now. What was in the queue before was pushed then.
    fn push(&self, deliveries: &[Delivery], ids: &mut impl Iterator<Item = Option<NotificationId>>) {
        for delivery in deliveries {
            let id = if delivery.transient {
                // Given now, after every commit that the sockets have seen.
                Some(self.store.transient_id())
            } else {
                ids.next().flatten()
            };
            let Some(id) = id else { continue };
            if delivery.missed {
                self.sockets.missed(delivery.user);
                continue;
            }
            let push = || {
                self.sockets.push(delivery.user, delivery.client, delivery.origin, delivery.transient, || {
                    frame(id, &delivery.event, delivery.transient)
                });
            };
            match &delivery.traceparent {
                Some(traceparent) => continued(traceparent).in_scope(push),
                None => push(),
            }
            if delivery.native_push && !delivery.transient {
                let wake = || Wake { user: delivery.user, notification: id, high_priority: delivery.high_priority };
                self.waker.wake(wake, delivery.user, delivery.client);
            }
        }
    }
}

/// The last step of a traced change, whoever carried it here together with others.
fn continued(traceparent: &str) -> Span {
    let span = tracing::info_span!("sockets.push");
    aldis_delivery::continue_trace(&span, Some(traceparent));
    span
}

async fn write(store: Arc<dyn QueueStore>, commands: Vec<Command>) -> Write {
    let entries: Arc<[Entry]> = commands
        .iter()
        .flat_map(|command| &command.deliveries)
        .filter(|delivery| !delivery.transient)
        .map(Delivery::entry)
        .collect();
    if entries.is_empty() {
        return (commands, Ok(Vec::new()));
    }
    let ids = store.append(entries.clone()).await;
    if let Ok(ids) = &ids {
        count(&entries, ids);
    }
    (commands, ids)
}

fn count(entries: &[Entry], ids: &[Option<NotificationId>]) {
    let (mut rows, mut bytes) = (0, 0);
    for (entry, _) in entries.iter().zip(ids).filter(|(_, id)| id.is_some()) {
        rows += 1;
        bytes += u64::try_from(entry.event.len()).unwrap_or(u64::MAX);
    }
    let duplicates = u64::try_from(ids.iter().filter(|id| id.is_none()).count()).unwrap_or(u64::MAX);
    metrics::counter!("aldis_notifications_queued_total").increment(rows);
    metrics::counter!("aldis_notifications_queued_bytes_total").increment(bytes);
    metrics::counter!("aldis_notifications_duplicates_total").increment(duplicates);
}

/// Joins waiting commands into writes of bounded size.
fn batches(commands: &mut Vec<Command>) -> Vec<Vec<Command>> {
    let mut batches: Vec<Vec<Command>> = Vec::with_capacity(1);
    let (mut rows, mut bytes) = (0, 0);
    for command in commands.drain(..) {
        let size: usize = command.deliveries.iter().map(|delivery| delivery.event.len()).sum();
        rows += command.deliveries.len();
        bytes += size;
        match batches.last_mut() {
            Some(batch) if rows <= MAX_WRITE_ROWS && bytes <= MAX_WRITE_BYTES => batch.push(command),
            _ => {
                (rows, bytes) = (command.deliveries.len(), size);
                batches.push(vec![command]);
            }
        }
    }
    batches
}
