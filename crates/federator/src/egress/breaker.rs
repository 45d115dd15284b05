//! Leaves a peer alone that does not answer.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aldis_proto::federation::v1::Hop;
use aldis_runtime::SharedRandom;
use aldis_types::Domain;
use tokio::time::Instant;

use crate::{failure::Failure, metering};

/// Shortest pause; it doubles with every failed attempt up to the setting.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Opens after so many outages in a row. While it is open, calls fail at once with the last failure; after a pause one
/// call at a time may find out whether the peer is back.
pub(crate) struct Breaker {
    domain: Domain,
    kind: &'static str,
    failures_to_open: u32,
    max_pause: Duration,
    random: SharedRandom,
    state: Mutex<State>,
}

enum State {
    Closed { failures: u32 },
    Open { until: Instant, attempts: u32, last: Failure },
    Probing { attempts: u32, last: Failure },
}

/// What a call may do.
pub(crate) enum Admission {
    Go,
    /// Find out first whether the peer is back.
    Probe(Probe),
    Refused(Failure),
}

/// The right to find out. Without a verdict the next call may.
pub(crate) struct Probe(Option<Arc<Breaker>>);

impl Breaker {
    pub(crate) fn new(
        domain: Domain,
        kind: &'static str,
        failures_to_open: u32,
        max_pause: Duration,
        random: SharedRandom,
    ) -> Arc<Self> {
        let state = Mutex::new(State::Closed { failures: 0 });
        // Otherwise it would be told only once something has gone wrong.
        metering::breaker(&domain, kind, 0);
        Arc::new(Self { domain, kind, failures_to_open, max_pause, random, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn admit(self: &Arc<Self>) -> Admission {
        let mut state = self.state();
        match &*state {
            State::Closed { .. } => Admission::Go,
            State::Open { until, attempts, last } if Instant::now() >= *until => {
                *state = State::Probing { attempts: *attempts, last: last.clone() };
                metering::breaker(&self.domain, self.kind, 1);
                Admission::Probe(Probe(Some(self.clone())))
            }
            State::Open { last, .. } | State::Probing { last, .. } => Admission::Refused(last.clone()),
        }
    }

    /// The peer answered.
    pub(crate) fn succeeded(&self) {
        let mut state = self.state();
        if !matches!(*state, State::Closed { .. }) {
            tracing::info!(peer.domain = %self.domain, kind = self.kind, "peer answers again");
            metering::breaker(&self.domain, self.kind, 0);
        }
        *state = State::Closed { failures: 0 };
    }

    /// The peer did not answer.
    pub(crate) fn failed(&self, failure: &Failure) {
        let mut state = self.state();
        if let State::Closed { failures } = &mut *state {
            *failures += 1;
            if *failures >= self.failures_to_open {
                tracing::warn!(peer.domain = %self.domain, kind = self.kind, label = failure.label, "peer is left alone for a moment");
                *state = self.open(0, failure);
            }
        }
    }

    fn open(&self, attempts: u32, last: &Failure) -> State {
        metering::breaker(&self.domain, self.kind, 2);
        let pause = FIRST_PAUSE.saturating_mul(1 << attempts.min(10)).min(self.max_pause);
        // Between half and all of it, so that many callers do not come back at once.
        let jitter = self.random.below(u64::try_from(pause.as_micros()).unwrap_or(u64::MAX) / 2 + 1);
        let until = Instant::now() + pause / 2 + Duration::from_micros(jitter);
        State::Open { until, attempts: attempts.saturating_add(1), last: last.clone() }
    }

    /// Something was heard of the peer: the next call may try.
    pub(crate) fn nudge(&self) {
        if let State::Open { until, attempts, .. } = &mut *self.state() {
            *until = Instant::now();
            *attempts = 0;
        }
    }

    /// The peer was connected with: a breaker that opened for want of a connection closes, another may be tried.
    pub(crate) fn connected(&self) {
        let reached = matches!(&*self.state(), State::Open { last, .. } if last.hop != Hop::Transport);
        if reached { self.succeeded() } else { self.nudge() }
    }

    pub(crate) fn name(&self) -> &'static str {
        match *self.state() {
            State::Closed { .. } => "closed",
            State::Open { .. } => "open",
            State::Probing { .. } => "half-open",
        }
    }
}

impl Probe {
    pub(crate) fn succeeded(mut self) {
        if let Some(breaker) = self.0.take() {
            breaker.succeeded();
        }
    }

    pub(crate) fn failed(mut self, failure: &Failure) {
        let Some(breaker) = self.0.take() else { return };
        let mut state = breaker.state();
        if let State::Probing { attempts, .. } = *state {
            *state = breaker.open(attempts, failure);
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let Some(breaker) = self.0.take() else { return };
        let mut state = breaker.state();
        if let State::Probing { attempts, last } = &*state {
            *state = State::Open { until: Instant::now(), attempts: *attempts, last: last.clone() };
        }
    }
}
