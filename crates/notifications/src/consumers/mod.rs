//! Clients that acknowledge: the socket `/events`, on which every event is sent until the client has confirmed it.
//!
//! The events are those of the [queue](crate::queues); a consumer is where a client stands in it. Guarantees: from the
//! moment that a client is opened here, each event for it is sent until it is acknowledged, over any number of sockets, in
//! the order of the queue; what was acknowledged durably is not sent again; when events passed their retention or the
//! queue's bounds unacknowledged, the client is told before anything else. One socket per client: a second one takes
//! over. Not here: `/notifications` and `/await`, which such a client can go on using.

mod frames;
pub(crate) mod http;
mod serve;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod window;

use std::sync::Arc;

use aldis_types::{ClientId, UserId};

pub(crate) use store::ConsumerStore;

use crate::queues::{
    QueueError,
    store::{Page, QueueStore},
};
use window::Window;

/// Most events on their way to a client that it has not acknowledged.
const MAX_IN_FLIGHT: usize = 500;
/// Most events of one read.
const PAGE_EVENTS: usize = 100;
/// Most bytes of one read, unless a single event is larger.
const PAGE_BYTES: usize = 1 << 20;

/// The stores behind every consumer. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Consumers {
    pub queue: Arc<dyn QueueStore>,
    pub standings: Arc<dyn ConsumerStore>,
}

impl Consumers {
    /// From now on what comes for the client is kept until it acknowledged it.
    pub(crate) async fn open(&self, user: UserId, client: ClientId) -> Result<(), QueueError> {
        Ok(self.standings.open(user, client).await?)
    }

    /// Forgets where a client, or every client of the user, stands.
    pub(crate) async fn forget(&self, user: UserId, client: Option<ClientId>) -> Result<(), QueueError> {
        Ok(self.standings.forget(user, client).await?)
    }

    /// A client's place in its queue; without a client, one for everything of the user that comes from now on.
    /// `NotFound` for a client that was never opened.
    async fn consumer(&self, user: UserId, client: Option<ClientId>) -> Result<Consumer, QueueError> {
        let (window, missed) = match client {
            Some(id) => {
                let standing = self.standings.standing(user, id).await?.ok_or(QueueError::NotFound)?;
                (Window::new(standing.floor, standing.acknowledged), standing.missed)
            }
            None => {
                let newest = self.queue.last(user, None).await?;
                (Window::new(newest.and_then(|stored| stored.id.ticks()).unwrap_or(0), Vec::new()), false)
            }
        };
        Ok(Consumer { consumers: self.clone(), user, client, window, missed, more: true })
    }
}

/// One client while its socket is open.
struct Consumer {
    consumers: Consumers,
    user: UserId,
    /// `None`: all events of the user, and nothing is remembered.
    client: Option<ClientId>,
    window: Window,
    /// Events were lost to the client, and it has not said that it knows.
    missed: bool,
    /// Whether the queue may hold events that were not read yet.
    more: bool,
}

impl Consumer {
    /// Whether reading on makes sense now.
    fn may_read(&self) -> bool {
        self.more && !self.missed && self.window.room() > 0
    }

    /// The next events; never longer than what may be in flight.
    async fn read(&self) -> Result<Page, QueueError> {
        let size = self.window.room().min(PAGE_EVENTS);
        Ok(self.consumers.queue.after(self.user, self.client, self.window.position(), size, PAGE_BYTES).await?)
    }

    /// Makes durable what was acknowledged since the last time; `None` when there is nothing to do.
    fn save(&mut self) -> Option<impl Future<Output = Result<(), QueueError>> + Send + use<>> {
        let progress = self.window.take_progress()?;
        let (standings, user, client) = (self.consumers.standings.clone(), self.user, self.client?);
        Some(async move { Ok(standings.acknowledge(user, client, progress.floor, progress.above).await?) })
    }

    /// The client knows that it missed events.
    async fn knows(&mut self) -> Result<(), QueueError> {
        if let Some(client) = self.client {
            self.consumers.standings.knows(self.user, client).await?;
        }
        self.missed = false;
        Ok(())
    }
}
