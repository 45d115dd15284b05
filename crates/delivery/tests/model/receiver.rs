//! What the receiving backend does.

use std::collections::BTreeMap;

use crate::{
    Delivery, Rule,
    state::{Answer, End, Envelope, Incarnation, Lane, Outcome, Pipe, Received, Sequence, State, Verdict, Work},
};

/// One of the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Process(usize),
    Orphan(usize),
}

/// What is special about a batch: the n-th of the envelopes that are next in their lanes is not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Nothing,
    Deferred(usize),
    Refused(usize),
}

/// How an effect and its position are committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commits {
    /// Both in one job: changes of conversations and users.
    Together,
    /// First effects that are the same when they come again, then positions: messages, whose event ids are unique in the
    /// queues of clients.
    EffectsFirst,
}

impl State {
    fn pipe(&mut self, at: At) -> Option<&mut Pipe> {
        match at {
            At::Process(place) => Some(&mut self.processes[place].stream.as_mut()?.pipe),
            At::Orphan(place) => self.orphans.get_mut(place),
        }
    }

    /// The connection is gone for both.
    pub(crate) fn close(&mut self, at: At) {
        match at {
            At::Process(place) => self.processes[place].stream = None,
            At::Orphan(place) => drop(self.orphans.remove(place)),
        }
    }

    fn answer(&mut self, at: At, answer: Answer) {
        if let (At::Process(_), Some(pipe)) = (at, self.pipe(at)) {
            pipe.answers.push_back(answer);
        }
    }

    /// Keeps the order of connections that nobody tells apart.
    fn settle(&mut self, at: At) {
        if let At::Orphan(place) = at {
            let pipe = &self.orphans[place];
            if pipe.work.is_none() && pipe.requests.is_empty() {
                self.orphans.remove(place);
            }
            self.orphans.sort();
        }
    }
}

impl Received {
    /// Whether a stream was opened before the sender's store was restored, and comes after it.
    fn is_late(&self, incarnation: Incarnation, epoch: u8) -> bool {
        let mut later = self.heard.iter().skip_while(|heard| **heard != incarnation).skip(1);
        later.any(|later| self.epochs.get(later).is_some_and(|later| epoch < *later))
    }

    fn last(&self, incarnation: Incarnation, lane: Lane) -> Sequence {
        self.last.get(&(incarnation, lane)).copied().unwrap_or(0)
    }
}

impl Delivery {
    /// `Server::open`: the epoch is raised and the place of the newest stream taken under the lock of the origin.
    pub(crate) fn be_opened(&self, state: &mut State, at: At) {
        let Some(&mut Pipe { incarnation, epoch, end, .. }) = state.pipe(at) else { return };
        if end == End::New {
            let is_late = state.receiver.is_late(incarnation, epoch);
            let highest = state.receiver.epochs.entry(incarnation).or_default();
            if is_late || epoch < *highest && !self.breaks(Rule::LowerEpochIsFenced) {
                if let Some(pipe) = state.pipe(at) {
                    pipe.requests.clear();
                    pipe.end = End::Superseded;
                }
                state.answer(at, Answer::Fenced);
                state.settle(at);
                return;
            }
            *highest = epoch.max(*highest);
            state.receiver.heard.retain(|heard| *heard != incarnation);
            state.receiver.heard.push(incarnation);
            if self.breaks(Rule::EpochAndPlaceTogether) {
                if let Some(pipe) = state.pipe(at) {
                    pipe.end = End::Checked;
                }
                return;
            }
        }
        let opened = state.past.opened.entry(incarnation).or_default();
        *opened = epoch.max(*opened);
        if !state.past.met.contains(&incarnation) {
            state.past.met.push(incarnation);
        }
        for pipe in state.pipes_mut().filter(|pipe| pipe.end == End::Newest) {
            pipe.end = End::Superseded;
        }
        if let Some(pipe) = state.pipe(at) {
            pipe.requests.pop_front();
            pipe.end = End::Newest;
        }
        state.answer(at, Answer::Opened);
        state.settle(at);
    }

    /// `Server::batch`: takes messages that have arrived, and decides about each envelope.
    pub(crate) fn take(&self, state: &mut State, at: At, messages: usize, special: Special) {
        let (receiver, left) = (state.receiver.clone(), &mut state.left);
        match special {
            Special::Nothing => {}
            Special::Deferred(_) => left.deferrals -= 1,
            Special::Refused(_) => left.refusals -= 1,
        }
        let Some(pipe) = state.pipe(at) else { return };
        let envelopes: Vec<Envelope> = pipe.requests.drain(..messages).flatten().collect();
        let mut work = Work::default();
        let mut standing: BTreeMap<Lane, Sequence> = BTreeMap::new();
        let mut next = Vec::new();
        for envelope in envelopes {
            let last = receiver.last(pipe.incarnation, envelope.lane);
            let stands = standing.entry(envelope.lane).or_insert(last);
            let known = |result| Outcome { lane: envelope.lane, sequence: envelope.sequence, result };
            let is_known = envelope.sequence <= last;
            if is_known && !self.breaks(Rule::KnownIsNotApplied) {
                work.outcomes.push(known(Verdict::Applied));
            } else if is_known || envelope.follows(*stands) || self.breaks(Rule::OnlyTheNext) {
                *stands = envelope.sequence;
                next.push(envelope);
            } else {
                work.outcomes.push(known(Verdict::Gap { last }));
            }
        }
        let mut stopped = Vec::new();
        for (place, envelope) in next.into_iter().enumerate() {
            let verdict = match special {
                _ if stopped.contains(&envelope.lane) => Verdict::Deferred,
                Special::Deferred(n) if n == place => Verdict::Deferred,
                Special::Refused(n) if n == place && !envelope.dropped => Verdict::Refused,
                _ => Verdict::Applied,
            };
            if verdict == Verdict::Deferred && !self.breaks(Rule::OnlyTheNext) {
                stopped.push(envelope.lane);
            }
            work.todo.push_back((envelope, verdict));
        }
        if self.breaks(Rule::AnswerAfterCommit) {
            let early = work.todo.iter().map(|(envelope, result)| Outcome {
                lane: envelope.lane,
                sequence: envelope.sequence,
                result: *result,
            });
            let outcomes = work.outcomes.drain(..).chain(early).collect();
            pipe.answers.push_back(Answer::Outcomes(outcomes));
        }
        pipe.work = Some(work);
    }

    /// How many envelopes in the first messages are next in their lanes, about.
    pub(crate) fn most(pipe: &Pipe, messages: usize) -> usize {
        pipe.requests.iter().take(messages).map(Vec::len).sum()
    }

    /// The next commit of a batch: `Receive::receive`, with `Positions::advance` in its jobs.
    pub(crate) fn commit(&self, state: &mut State, at: At) {
        let Some(pipe) = state.pipe(at) else { return };
        let (incarnation, epoch) = (pipe.incarnation, pipe.epoch);
        let Some(mut work) = pipe.work.take() else { return };
        let together = self.commits == Commits::Together
            && !self.breaks(Rule::PositionWithEffect)
            && !self.breaks(Rule::EffectWithPosition);
        // Position first is what a broken model does.
        let positions_first = self.breaks(Rule::EffectWithPosition);
        if together {
            if let Some((envelope, verdict)) = work.todo.pop_front() {
                let verdict = self.advance(state, incarnation, envelope, verdict);
                self.apply(state, incarnation, epoch, envelope, verdict);
                work.outcomes.push(Outcome { lane: envelope.lane, sequence: envelope.sequence, result: verdict });
            }
        } else {
            let first = !work.half;
            let todo: Vec<_> = work.todo.iter().copied().collect();
            for (place, (envelope, verdict)) in todo.into_iter().enumerate() {
                if first == positions_first {
                    let verdict = self.advance(state, incarnation, envelope, verdict);
                    work.todo[place].1 = verdict;
                } else {
                    self.apply(state, incarnation, epoch, envelope, verdict);
                }
            }
            if work.half {
                for (envelope, result) in work.todo.drain(..) {
                    work.outcomes.push(Outcome { lane: envelope.lane, sequence: envelope.sequence, result });
                }
            }
            work.half = !work.half;
        }
        if let Some(pipe) = state.pipe(at) {
            pipe.work = Some(work);
        }
    }

    fn advance(&self, state: &mut State, incarnation: Incarnation, envelope: Envelope, verdict: Verdict) -> Verdict {
        let last = state.receiver.last(incarnation, envelope.lane);
        if !matches!(verdict, Verdict::Applied | Verdict::Refused) {
            return verdict;
        }
        if envelope.follows(last) || self.breaks(Rule::OnlyTheNext) {
            state.receiver.last.insert((incarnation, envelope.lane), envelope.sequence);
        } else if !self.breaks(Rule::KnownIsNotApplied) {
            return Verdict::Deferred;
        }
        if verdict == Verdict::Refused {
            state.past.refused.extend(envelope.event);
        }
        if envelope.dropped {
            let given = state.past.given.iter().enumerate();
            let missed = given.filter(|(_, given)| {
                given.incarnation == incarnation
                    && given.lane == envelope.lane
                    && given.sequence > last
                    && given.sequence <= envelope.sequence
            });
            let missed: Vec<_> = missed.filter_map(|(event, _)| u8::try_from(event).ok()).collect();
            state.receiver.missed.extend(&missed);
            state.past.told.extend(&missed);
        }
        verdict
    }

    fn apply(&self, state: &mut State, incarnation: Incarnation, epoch: u8, envelope: Envelope, verdict: Verdict) {
        let (Verdict::Applied, Some(event)) = (verdict, envelope.event) else { return };
        if self.commits == Commits::EffectsFirst && state.is_there(event) {
            return;
        }
        state.receiver.effects.push(event);
        // Of this store, and of those that were met after it.
        let mut met = state.past.met.iter().skip_while(|met| **met != incarnation);
        let opened = &state.past.opened;
        state.past.overtaken |= met.any(|met| opened.get(met).is_some_and(|opened| epoch < *opened));
    }

    /// `Server::serve`: outcomes go out after the commit.
    pub(crate) fn respond(&self, state: &mut State, at: At) {
        let Some(work) = state.pipe(at).and_then(|pipe| pipe.work.take()) else { return };
        if !self.breaks(Rule::AnswerAfterCommit) {
            state.answer(at, Answer::Outcomes(work.outcomes));
        }
        state.settle(at);
    }

    /// The receiver's process is gone, and starts again.
    pub(crate) fn crash_receiver(state: &mut State) {
        for process in &mut state.processes {
            process.stream = None;
        }
        state.orphans.clear();
    }

    /// The receiver's store is as in the backup.
    pub(crate) fn restore_receiver(state: &mut State, backup: Received) {
        state.left.receiver_restores -= 1;
        Self::crash_receiver(state);
        let effects = state.receiver.effects.iter().filter(|event| !backup.effects.contains(event));
        state.past.undone.extend(effects);
        state.receiver = backup;
    }
}

impl State {
    /// Whether an event with the same id is in the queues.
    fn is_there(&self, event: u8) -> bool {
        let given = |event: u8| self.past.given[usize::from(event)];
        self.receiver.effects.iter().any(|there| given(*there) == given(event))
    }
}

impl Envelope {
    fn follows(self, standing: Sequence) -> bool {
        if self.dropped { self.previous <= standing && standing < self.sequence } else { self.previous == standing }
    }
}
