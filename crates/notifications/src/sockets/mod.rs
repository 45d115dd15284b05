//! Open sockets: who is there, and what they are sent.
//!
//! Guarantees: a socket is registered before its client sees the answer 101, so that an event committed later is pushed
//! to it; frames are in the order of their ids, each at most once; a socket that reads slowly holds a bounded
//! backlog and is then closed, and its client fetches; a socket whose session was revoked is closed. An idle socket
//! has no timer of its own: one task looks after the silence of all.

mod error;
mod handshake;
pub(crate) mod http;
mod keepalive;
mod mailbox;
mod serve;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use aldis_api::{Session, TokenVerifier};
use aldis_types::{ClientId, ConnId, NotificationId, UserId};
use bytes::Bytes;
use tokio::time::Instant;

use crate::Config;
use error::SocketError;
use mailbox::{Bounds, Ending, Mailbox};

pub(crate) use handshake::{Handshake, Stream};
pub(crate) use mailbox::Item;
pub(crate) use serve::{close, feed, must_end, part};

/// Locks among which users are spread.
const SHARDS: usize = 64;

/// What a socket is told of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The event itself.
    Frames,
    /// That there is something new in the queue, which its task reads; the event itself only when it is not stored.
    /// Such a client has one socket.
    News,
}

/// One open socket.
pub(crate) struct Socket {
    mode: Mode,
    session: Session,
    /// The client whose events it gets; `None`: all of the user's.
    client: Option<ClientId>,
    mailbox: Mailbox,
    /// When something came from the client, in milliseconds of [`Sockets::now`].
    heard: AtomicU64,
    /// When it was pinged last, likewise; 0: never.
    pinged: AtomicU64,
}

impl Socket {
    fn wants(&self, client: Option<ClientId>, origin: Option<(UserId, ConnId)>, transient: bool) -> bool {
        let aimed = client.is_none() || self.client.is_none() || self.client == client;
        let own = origin == Some((self.session.user, self.session.connection));
        aimed && (!own || self.reads(transient))
    }

    /// Whether it reads the event from the queue, its own ones included.
    fn reads(&self, transient: bool) -> bool {
        self.mode == Mode::News && !transient
    }

    pub(crate) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }
}

type Shard = HashMap<UserId, Vec<Arc<Socket>>>;

struct Inner {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    count: AtomicUsize,
    most: usize,
    most_per_user: usize,
    bounds: Bounds,
    ping_interval: Duration,
    started: Instant,
}

/// All open sockets of this process. Cheap to clone.
#[derive(Clone)]
pub struct Sockets(Arc<Inner>);

/// Takes a socket out of the register when it is dropped.
pub(crate) struct Registered {
    socket: Arc<Socket>,
    sockets: Sockets,
}

impl std::ops::Deref for Registered {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.socket
    }
}

impl Registered {
    /// Something came from the client.
    pub(crate) fn hear(&self) {
        self.heard.store(self.sockets.now(), Ordering::Relaxed);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut shard = self.sockets.shard(self.socket.session.user);
        if let Some(list) = shard.get_mut(&self.socket.session.user) {
            list.retain(|socket| !Arc::ptr_eq(socket, &self.socket));
            if list.is_empty() {
                shard.remove(&self.socket.session.user);
            }
        }
        drop(shard);
        self.sockets.0.count.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!("aldis_notifications_sockets").decrement(1);
        let reason = self.socket.mailbox.ending().map_or("client", Ending::name);
        metrics::counter!("aldis_notifications_sockets_closed_total", "reason" => reason).increment(1);
    }
}

/// A frame as a socket gets it: `{"id":…,"payload":[…],"transient":…}`.
pub(crate) fn frame(id: NotificationId, event: &[u8], transient: bool) -> Bytes {
    let mut id_text = [0; uuid::fmt::Hyphenated::LENGTH];
    let mut frame = Vec::with_capacity(event.len() + 96);
    frame.extend_from_slice(br#"{"id":""#);
    frame.extend_from_slice(id.uuid().hyphenated().encode_lower(&mut id_text).as_bytes());
    frame.extend_from_slice(br#"","payload":["#);
    frame.extend_from_slice(event);
    frame.extend_from_slice(if transient { br#"],"transient":true}"# } else { br#"],"transient":false}"# });
    frame.into()
}

impl Sockets {
    pub(crate) fn new(config: &Config) -> Self {
        Self(Arc::new(Inner {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            count: AtomicUsize::new(0),
            most: config.sockets,
            most_per_user: config.sockets_per_user,
            bounds: Bounds { events: config.socket_backlog_events, bytes: config.socket_backlog_bytes },
            ping_interval: Duration::from_secs(config.ping_interval_seconds),
            started: Instant::now(),
        }))
    }

    /// How many sockets are open.
    pub fn count(&self) -> usize {
        self.0.count.load(Ordering::Relaxed)
    }

    /// Ends all sockets, after what waits for them was sent. Called when the process stops.
    pub fn close_all(&self) {
        self.each(|socket| socket.mailbox.end(Ending::Stopping));
    }

    fn shard(&self, user: UserId) -> MutexGuard<'_, Shard> {
        let hash = usize::try_from(self.0.hasher.hash_one(user) % SHARDS as u64).unwrap_or(0);
        self.0.shards[hash].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn each(&self, mut what: impl FnMut(&Socket)) {
        for shard in &self.0.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.values().flatten().for_each(|socket| what(socket));
        }
    }

    fn each_of(&self, user: UserId, what: impl FnMut(&Arc<Socket>)) {
        self.shard(user).get(&user).into_iter().flatten().for_each(what);
    }

    /// Whether the client has a socket of its own here.
    pub(crate) fn is_present(&self, user: UserId, client: ClientId) -> bool {
        let shard = self.shard(user);
        let mut sockets = shard.get(&user).into_iter().flatten();
        sockets.any(|socket| socket.client == Some(client) && socket.mailbox.ending().is_none())
    }

    /// Milliseconds since the start, never 0.
    fn now(&self) -> u64 {
        u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Makes a socket present: from here on it gets what is pushed.
    pub(crate) fn register(
        &self,
        session: Session,
        client: Option<ClientId>,
        mode: Mode,
    ) -> Result<Registered, SocketError> {
        if self.0.count.fetch_add(1, Ordering::Relaxed) >= self.0.most {
            self.0.count.fetch_sub(1, Ordering::Relaxed);
            return Err(SocketError::TooMany);
        }
        let socket = Arc::new(Socket {
            mode,
            session,
            client,
            mailbox: Mailbox::default(),
            heard: AtomicU64::new(self.now()),
            pinged: AtomicU64::new(0),
        });
        let mut shard = self.shard(session.user);
        let list = shard.entry(session.user).or_default();
        if list.len() >= self.0.most_per_user {
            drop(shard);
            self.0.count.fetch_sub(1, Ordering::Relaxed);
            return Err(SocketError::TooManyOfUser);
        }
        if mode == Mode::News && client.is_some() {
            let earlier = list.iter().filter(|other| other.mode == mode && other.client == client);
            earlier.for_each(|other| other.mailbox.end(Ending::Replaced));
        }
        list.push(socket.clone());
        drop(shard);
        metrics::gauge!("aldis_notifications_sockets").increment(1);
        Ok(Registered { socket, sockets: self.clone() })
    }

    /// Pushes a notification to the user's sockets that want it. The frame is made once, and only if there is one.
    pub(crate) fn push(
        &self,
        user: UserId,
        client: Option<ClientId>,
        origin: Option<(UserId, ConnId)>,
        transient: bool,
        frame: impl FnOnce() -> Bytes,
    ) {
        let shard = self.shard(user);
        let wanting = shard.get(&user).into_iter().flatten().filter(|socket| socket.wants(client, origin, transient));
        let frame = std::cell::LazyCell::new(frame);
        let mut pushed = 0;
        for socket in wanting {
            if socket.reads(transient) {
                socket.mailbox.news();
            } else {
                pushed += u64::from(socket.mailbox.push(frame.clone(), self.0.bounds));
            }
        }
        drop(shard);
        if pushed == 0 {
            return;
        }
        metrics::counter!("aldis_notifications_pushed_total").increment(pushed);
        let bytes = u64::try_from(frame.len()).unwrap_or(u64::MAX);
        metrics::counter!("aldis_notifications_pushed_bytes_total").increment(pushed * bytes);
    }

    /// Ends the sockets of a client.
    pub(crate) fn remove_client(&self, user: UserId, client: ClientId) {
        self.each_of(user, |socket| {
            if socket.client == Some(client) || socket.session.client == Some(client) {
                socket.mailbox.end(Ending::Removed);
            }
        });
    }

    /// Ends the sockets of a user.
    pub(crate) fn remove_user(&self, user: UserId) {
        self.each_of(user, |socket| socket.mailbox.end(Ending::Removed));
    }

    /// Ends the sockets of a user who missed events: his clients come back, ask for what they lack, and are told.
    pub(crate) fn missed(&self, user: UserId) {
        self.each_of(user, |socket| socket.mailbox.end(Ending::Missed));
    }

    /// Ends sockets whose session is revoked, whenever revocations change, for as long as it is polled.
    pub(crate) async fn watch_revocations(self, verifier: TokenVerifier) {
        let mut changes = verifier.changes();
        loop {
            let state = verifier.state();
            for user in state.revoked_users() {
                self.each_of(user, |socket| {
                    if state.revokes(&socket.session) {
                        socket.mailbox.end(Ending::Revoked);
                    }
                });
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}
