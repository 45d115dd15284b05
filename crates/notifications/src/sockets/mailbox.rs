//! What waits for one socket: bounded, without timers, and small while nothing waits.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

/// Why the server ends a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It reads too slowly; what waits is dropped, the client fetches.
    Slow,
    /// Nothing came from it for too long.
    Dead,
    /// Its session was revoked.
    Revoked,
    /// Its client or user was removed.
    Removed,
    /// Another socket of a client that may have only one took over.
    Replaced,
    /// The process stops.
    Stopping,
    /// Events are missing; what waits is dropped, the client fetches.
    Missed,
}

impl Ending {
    /// For metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Dead => "dead",
            Self::Revoked => "revoked",
            Self::Removed => "removed",
            Self::Replaced => "replaced",
            Self::Stopping => "stopping",
            Self::Missed => "missed",
        }
    }

    /// Whether what waits is still sent.
    pub(super) fn drains(self) -> bool {
        !matches!(self, Self::Slow | Self::Dead | Self::Missed)
    }
}

/// One thing to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// A notification.
    Frame(Bytes),
    /// A protocol ping.
    Ping,
    /// Something new is in the queue.
    News,
}

/// Bounds of one mailbox.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub events: usize,
    pub bytes: usize,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    news: bool,
    ending: Option<Ending>,
    waker: Option<Waker>,
}

/// The mailbox of a socket. Filled from anywhere, emptied by the socket's task.
#[derive(Default)]
pub(crate) struct Mailbox(Mutex<State>);

impl Mailbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a notification; a full mailbox ends the socket instead. `false` when the socket ends.
    pub(super) fn push(&self, frame: Bytes, bounds: Bounds) -> bool {
        let mut state = self.state();
        if state.ending.is_some() {
            return false;
        }
        let bytes = state.bytes + frame.len();
        // A single frame may be larger than the bound: nothing would be gained by fetching it instead.
        if state.items.len() >= bounds.events || (state.bytes > 0 && bytes > bounds.bytes) {
            end(&mut state, Ending::Slow);
            return false;
        }
        state.bytes = bytes;
        state.items.push_back(Item::Frame(frame));
        wake(state);
        true
    }

    /// Says that something new is in the queue: once, however often it is called before the task looks.
    pub(super) fn news(&self) {
        let mut state = self.state();
        if state.ending.is_none() && !state.news {
            state.news = true;
            wake(state);
        }
    }

    /// Adds a protocol ping.
    pub(super) fn ping(&self) {
        let mut state = self.state();
        if state.ending.is_none() {
            state.items.push_back(Item::Ping);
            wake(state);
        }
    }

    /// Ends the socket; only the first reason counts, but one that drops what waits overrules one that does not.
    pub(super) fn end(&self, ending: Ending) {
        end(&mut self.state(), ending);
    }

    /// Why the socket ends, once it does.
    pub(super) fn ending(&self) -> Option<Ending> {
        self.state().ending
    }

    /// The next thing to send; `None` once the socket ends and nothing is left.
    pub(crate) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<Item>> {
        let mut state = self.state();
        if let Some(item) = take(&mut state) {
            return Poll::Ready(Some(item));
        }
        if state.ending.is_some() {
            return Poll::Ready(None);
        }
        remember(&mut state, context);
        Poll::Pending
    }

    /// The next thing to send, if it is there already.
    pub(super) fn try_next(&self) -> Option<Item> {
        take(&mut self.state())
    }

    /// Ready once the socket ends for a reason that `matches`.
    pub(super) fn poll_ending(&self, context: &mut Context<'_>, matches: fn(Ending) -> bool) -> Poll<Ending> {
        let mut state = self.state();
        if let Some(ending) = state.ending.filter(|ending| matches(*ending)) {
            return Poll::Ready(ending);
        }
        remember(&mut state, context);
        Poll::Pending
    }
}

fn take(state: &mut State) -> Option<Item> {
    let Some(item) = state.items.pop_front() else {
        return std::mem::take(&mut state.news).then_some(Item::News);
    };
    if let Item::Frame(frame) = &item {
        state.bytes -= frame.len();
    }
    if state.items.is_empty() {
        // An idle socket holds no memory for what may come.
        state.items = VecDeque::new();
    }
    Some(item)
}

fn end(state: &mut State, ending: Ending) {
    match state.ending {
        Some(before) if ending.drains() || !before.drains() => return,
        _ => state.ending = Some(ending),
    }
    if !ending.drains() {
        state.items = VecDeque::new();
        state.bytes = 0;
    }
    if let Some(waker) = state.waker.take() {
        waker.wake();
    }
}

/// Only the socket's own task polls, so that one waker is enough.
fn remember(state: &mut State, context: &Context<'_>) {
    match &mut state.waker {
        Some(waker) => waker.clone_from(context.waker()),
        None => state.waker = Some(context.waker().clone()),
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}
