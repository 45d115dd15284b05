//! What the sending backend does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    Delivery, Rule,
    state::{
        Answer, Content, End, Envelope, Event, Given, Incarnation, Lane, Outbox, Outcome, Pipe, Process, Row, State,
        Stream, Verdict,
    },
};

impl Outbox {
    fn row(&mut self, id: Event) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| row.id == id)
    }

    fn delete(&mut self, id: Event) {
        self.rows.retain(|row| row.id != id);
    }

    fn delete_all(&mut self, delivered: &mut BTreeSet<Event>) {
        for id in std::mem::take(delivered) {
            self.delete(id);
        }
    }

    /// Whose rows come next: those of earlier stores first.
    pub(crate) fn next_incarnation(&self) -> Option<Incarnation> {
        self.rows.iter().map(|row| row.incarnation).min()
    }
}

impl Delivery {
    /// `Outbox::append`: the row is in the commit of the change.
    pub(crate) fn change(&self, state: &mut State, lane: Lane) {
        state.left.events -= 1;
        let id = u8::try_from(state.past.given.len()).unwrap_or(u8::MAX);
        let sender = &mut state.sender;
        let last = sender.last.entry(lane).or_default();
        *last += 1;
        let (incarnation, sequence) = (sender.incarnation, *last);
        sender.rows.push(Row { id, incarnation, lane, sequence, content: Content::Whole });
        sender.changes += 1;
        state.past.given.push(Given { incarnation, lane, sequence });
        if self.breaks(Rule::SentAfterCommit) {
            state.past.pending = Some(id);
        }
    }

    /// `Outbox::open`: every start raises the epoch.
    pub(crate) fn start(state: &mut State) {
        state.sender.epoch += 1;
        state.past.epochs = state.past.epochs.max(state.sender.epoch);
        let epoch = state.sender.epoch;
        state.processes.push(Process { epoch, fenced: false, delivered: BTreeSet::new(), stream: None });
    }

    /// The process is gone, and what it had in memory.
    pub(crate) fn crash(state: &mut State, place: usize) {
        let process = state.processes.remove(place);
        state.abandon(process.stream);
        if let Some(event) = state.past.pending.take() {
            let given = state.past.given[usize::from(event)];
            state.past.never.insert(event);
            state.sender.delete(event);
            state.sender.last.insert(given.lane, given.sequence - 1);
        }
    }

    /// `renewal::open`: the store is as in the backup. What waits keeps its incarnation, lanes begin anew under another one.
    pub(crate) fn restore(&self, state: &mut State, backup: Outbox) {
        state.left.restores -= 1;
        while !state.processes.is_empty() {
            Self::crash(state, 0);
        }
        let after_backup: Vec<Event> = state.changes().skip(usize::from(backup.changes)).collect();
        state.past.lost.extend(after_backup);
        state.sender = backup;
        if !self.breaks(Rule::RestoredStoreIsAnother) {
            state.past.incarnations += 1;
            state.sender.incarnation = state.past.incarnations;
            state.sender.last = BTreeMap::new();
        }
        state.sender.epoch = state.past.epochs;
    }

    /// `bounds::step`: one row stands for all that waited in a lane.
    pub(crate) fn drop_lane(&self, state: &mut State, lane: Lane) {
        state.left.drops -= 1;
        let incarnation = state.sender.incarnation;
        let is_dropped = |row: &Row| row.lane == lane && row.incarnation == incarnation;
        let rows: Vec<Row> = state.sender.rows.iter().copied().filter(is_dropped).collect();
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return };
        let after = match first.content {
            Content::Dropped { after } => after,
            _ => first.sequence - 1,
        };
        state.past.dropped.extend(rows.iter().map(|row| row.id));
        let stands = |row: &Row| row.id == last.id && !self.breaks(Rule::DroppedIsStoodFor);
        state.sender.rows.retain(|row| stands(row) || !is_dropped(row));
        if let Some(row) = state.sender.row(last.id) {
            row.content = Content::Dropped { after };
        }
    }

    /// `Shared::remove_delivered`: along with a commit.
    pub(crate) fn remove_delivered(state: &mut State, place: usize) {
        let State { sender, processes, .. } = state;
        sender.delete_all(&mut processes[place].delivered);
    }

    /// `Stream::open`.
    pub(crate) fn open(state: &mut State, place: usize) {
        let Some(incarnation) = state.sender.next_incarnation() else { return };
        let process = &mut state.processes[place];
        let pipe = Pipe {
            incarnation,
            epoch: process.epoch,
            requests: VecDeque::from([Vec::new()]),
            answers: VecDeque::new(),
            end: End::New,
            work: None,
        };
        process.stream = Some(Stream {
            incarnation,
            opened: false,
            cursor: 0,
            in_flight: BTreeMap::new(),
            waiting: BTreeSet::new(),
            holes: BTreeMap::new(),
            removed: BTreeSet::new(),
            pipe,
        });
    }

    /// `Stream::fill`: what the window takes. An event of more than the peer takes is withdrawn in a commit of its own.
    pub(crate) fn fill(&self, state: &mut State, place: usize) {
        let State { sender, processes, .. } = state;
        let process = &mut processes[place];
        let Some(stream) = &mut process.stream else { return };
        let mut batch = Vec::new();
        for mut row in sender.rows.clone() {
            if row.id < stream.cursor || row.incarnation != stream.incarnation {
                continue;
            }
            if stream.in_flight.len() >= self.window {
                break;
            }
            stream.cursor = row.id + 1;
            if self.too_large == Some(row.id) && row.content == Content::Whole {
                row.content = Content::Withdrawn;
                sender.dead.insert(row.id);
                if let Some(kept) = sender.row(row.id) {
                    kept.content = row.content;
                }
            }
            stream.envelopes(row, &mut batch);
            if self.breaks(Rule::RemovedAfterAnswer) {
                process.delivered.insert(row.id);
            }
        }
        if !batch.is_empty() {
            stream.pipe.requests.push_back(batch);
        }
    }

    /// `Stream::answered`; `false` when the stream has ended.
    pub(crate) fn hear(&self, state: &mut State, place: usize) -> bool {
        let State { sender, processes, .. } = state;
        let process = &mut processes[place];
        let Some(stream) = &mut process.stream else { return false };
        match stream.pipe.answers.pop_front() {
            None => {}
            Some(Answer::Opened) => stream.opened = true,
            Some(Answer::Fenced) => {
                process.fenced = true;
                return false;
            }
            Some(Answer::Outcomes(outcomes)) => {
                let mut done = Vec::new();
                for outcome in outcomes {
                    done.extend(stream.outcome(sender, &mut process.delivered, outcome));
                }
                if self.breaks(Rule::HolesAreFilled) {
                    stream.holes.clear();
                }
                stream.removed.extend(&done);
                process.delivered.extend(&done);
            }
        }
        true
    }
}

impl State {
    /// The sender gives a connection up; the receiver may still read what is on its way.
    pub(crate) fn abandon(&mut self, stream: Option<Stream>) {
        if let Some(Stream { mut pipe, .. }) = stream
            && (pipe.work.is_some() || !pipe.requests.is_empty())
        {
            pipe.answers.clear();
            self.orphans.push(pipe);
            self.orphans.sort();
        }
    }
}

impl Stream {
    /// `Stream::envelopes`: nothing of a lane that waits, and first what fills a hole.
    fn envelopes(&mut self, row: Row, batch: &mut Vec<Envelope>) {
        let (lane, sequence) = (row.lane, row.sequence);
        if self.in_flight.contains_key(&(lane, sequence))
            || self.removed.contains(&row.id)
            || self.waiting.contains(&lane)
        {
            return;
        }
        let (previous, dropped) = match row.content {
            Content::Dropped { after } => (after, true),
            _ => (sequence - 1, false),
        };
        if let Some(last) = self.holes.remove(&lane).filter(|last| *last < previous) {
            self.in_flight.insert((lane, previous), None);
            batch.push(Envelope { event: None, lane, previous: last, sequence: previous, dropped: true });
        }
        self.in_flight.insert((lane, sequence), Some(row.id));
        let event = (row.content == Content::Whole).then_some(row.id);
        batch.push(Envelope { event, lane, previous, sequence, dropped });
    }

    /// `Stream::outcome`: the row that is done with.
    fn outcome(&mut self, sender: &mut Outbox, delivered: &mut BTreeSet<Event>, outcome: Outcome) -> Option<Event> {
        let row = self.in_flight.remove(&(outcome.lane, outcome.sequence))?;
        match outcome.result {
            Verdict::Applied => return row,
            Verdict::Gap { last } if last >= outcome.sequence => return row,
            Verdict::Refused => {
                if let Some(id) = row {
                    sender.dead.insert(id);
                    sender.delete(id);
                    self.removed.insert(id);
                }
            }
            Verdict::Gap { last } => {
                sender.delete_all(delivered);
                self.look_for_hole(sender, outcome.lane, last);
                self.waiting.insert(outcome.lane);
            }
            Verdict::Deferred => {
                self.waiting.insert(outcome.lane);
            }
        }
        None
    }

    /// `Stream::look_for_hole`: whether the table has what follows the last that the peer has.
    fn look_for_hole(&mut self, sender: &Outbox, lane: Lane, last: u8) {
        let mut rows = sender.rows.iter().filter(|row| row.incarnation == self.incarnation && row.lane == lane);
        let next = rows.find(|row| row.sequence > last);
        let is_gone = next.is_some_and(|row| match row.content {
            Content::Dropped { after } => after > last,
            _ => row.sequence - 1 > last,
        });
        if is_gone {
            self.holes.insert(lane, last);
        }
    }

    /// `Stream::woken`: a lane's pause is over, and everything is read again.
    pub(crate) fn wake(&mut self, lane: Lane, read_again: bool) {
        self.waiting.remove(&lane);
        if read_again {
            self.cursor = 0;
        }
    }

    /// `Outbox::is_spent`: nothing is left of an earlier store.
    pub(crate) fn is_spent(&self, sender: &Outbox, delivered: &BTreeSet<Event>) -> bool {
        let mut rows = sender.rows.iter().filter(|row| row.incarnation == self.incarnation);
        self.opened
            && self.incarnation != sender.incarnation
            && self.in_flight.is_empty()
            && rows.all(|row| delivered.contains(&row.id))
    }

    /// Whether `Stream::fill` would read a row.
    pub(crate) fn can_fill(&self, sender: &Outbox, window: usize) -> bool {
        let mut rows = sender.rows.iter();
        self.opened
            && self.in_flight.len() < window
            && rows.any(|row| row.incarnation == self.incarnation && row.id >= self.cursor)
    }
}
