//! What the model's world consists of.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Changes that are told, numbered in the order of their commits; also the ids of their rows.
pub(crate) type Event = u8;
pub(crate) type Lane = u8;
pub(crate) type Sequence = u8;
pub(crate) type Incarnation = u8;
pub(crate) type Epoch = u8;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) sender: Outbox,
    pub(crate) backup: Option<Outbox>,
    /// Of the sending backend.
    pub(crate) processes: Vec<Process>,
    /// Connections that the sender has given up, and of which the receiver may still read.
    pub(crate) orphans: Vec<Pipe>,
    pub(crate) receiver: Received,
    pub(crate) receivers_backup: Option<Received>,
    pub(crate) left: Left,
    pub(crate) past: Past,
}

/// What may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Left {
    pub(crate) events: u8,
    /// Processes of the sender that start beside another one.
    pub(crate) takeovers: u8,
    pub(crate) sender_crashes: u8,
    pub(crate) receiver_crashes: u8,
    pub(crate) cuts: u8,
    pub(crate) deferrals: u8,
    pub(crate) refusals: u8,
    /// Restores of the sender's store.
    pub(crate) restores: u8,
    /// Restores of the receiver's store.
    pub(crate) receiver_restores: u8,
    /// Lanes of which what waits is dropped.
    pub(crate) drops: u8,
}

/// The sender's tables, always as of the last commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Outbox {
    pub(crate) incarnation: Incarnation,
    pub(crate) epoch: Epoch,
    /// The last sequence of each lane.
    pub(crate) last: BTreeMap<Lane, Sequence>,
    /// In order of commit.
    pub(crate) rows: Vec<Row>,
    pub(crate) dead: BTreeSet<Event>,
    /// How many changes there were.
    pub(crate) changes: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) id: Event,
    pub(crate) incarnation: Incarnation,
    pub(crate) lane: Lane,
    pub(crate) sequence: Sequence,
    pub(crate) content: Content,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Content {
    Whole,
    /// Taken back: only the place is left.
    Withdrawn,
    /// Stands for everything after this sequence up to its own, which was dropped.
    Dropped {
        after: Sequence,
    },
}

/// The memory of a process of the sender, with its relay.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) epoch: Epoch,
    pub(crate) fenced: bool,
    /// Rows whose removal goes along with a later commit.
    pub(crate) delivered: BTreeSet<Event>,
    pub(crate) stream: Option<Stream>,
}

/// The relay's end of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stream {
    pub(crate) incarnation: Incarnation,
    pub(crate) opened: bool,
    /// Rows before this id were read.
    pub(crate) cursor: Event,
    /// By place; what fills a hole has no row.
    pub(crate) in_flight: BTreeMap<(Lane, Sequence), Option<Event>>,
    pub(crate) waiting: BTreeSet<Lane>,
    pub(crate) holes: BTreeMap<Lane, Sequence>,
    pub(crate) removed: BTreeSet<Event>,
    pub(crate) pipe: Pipe,
}

/// A connection: what is on its way in either direction, and the receiver's end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Pipe {
    pub(crate) incarnation: Incarnation,
    pub(crate) epoch: Epoch,
    /// The first one is the opening, until it is answered.
    pub(crate) requests: VecDeque<Vec<Envelope>>,
    pub(crate) answers: VecDeque<Answer>,
    pub(crate) end: End,
    /// What the receiver is at; it holds the lock of the origin meanwhile.
    pub(crate) work: Option<Work>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum End {
    /// The opening has not been read.
    New,
    /// Only in a broken model: the epoch is checked, but the place of the newest stream not taken.
    Checked,
    Newest,
    Superseded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Envelope {
    /// Of which event it is; `None` when it stands for nothing but its place.
    pub(crate) event: Option<Event>,
    pub(crate) lane: Lane,
    pub(crate) previous: Sequence,
    pub(crate) sequence: Sequence,
    /// Whether it stands for what was dropped.
    pub(crate) dropped: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Answer {
    Opened,
    Fenced,
    Outcomes(Vec<Outcome>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Outcome {
    pub(crate) lane: Lane,
    pub(crate) sequence: Sequence,
    pub(crate) result: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Applied,
    Refused,
    Deferred,
    Gap { last: Sequence },
}

/// A batch that the receiver is at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Work {
    pub(crate) todo: VecDeque<(Envelope, Verdict)>,
    /// Whether the first of two commits is done, where there are two.
    pub(crate) half: bool,
    pub(crate) outcomes: Vec<Outcome>,
}

/// The receiver's tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Received {
    pub(crate) epochs: BTreeMap<Incarnation, Epoch>,
    /// Stores of the sender, in the order in which they were heard of last.
    pub(crate) heard: Vec<Incarnation>,
    pub(crate) last: BTreeMap<(Incarnation, Lane), Sequence>,
    /// What was applied, in order of commit.
    pub(crate) effects: Vec<Event>,
    /// What clients were told that they missed.
    pub(crate) missed: BTreeSet<Event>,
}

/// Where a change was placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Given {
    pub(crate) incarnation: Incarnation,
    pub(crate) lane: Lane,
    pub(crate) sequence: Sequence,
}

/// What only we know, to judge by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Past {
    pub(crate) given: Vec<Given>,
    /// Changes that are gone from the sender, because its store was restored.
    pub(crate) lost: BTreeSet<Event>,
    /// Only in a broken model: what was sent while its commit was pending, and what of it was never committed.
    pub(crate) pending: Option<Event>,
    pub(crate) never: BTreeSet<Event>,
    pub(crate) refused: BTreeSet<Event>,
    pub(crate) dropped: BTreeSet<Event>,
    /// What clients were ever told that they missed.
    pub(crate) told: BTreeSet<Event>,
    /// Effects that are gone from the receiver, because its store was restored.
    pub(crate) undone: BTreeSet<Event>,
    pub(crate) incarnations: Incarnation,
    pub(crate) epochs: Epoch,
    /// The highest epoch to which the receiver said "opened".
    pub(crate) opened: BTreeMap<Incarnation, Epoch>,
    /// Stores of the sender, in the order in which the receiver first said so.
    pub(crate) met: Vec<Incarnation>,
    /// Whether something was applied from a relay after the stream of a later one was opened.
    pub(crate) overtaken: bool,
}

impl State {
    /// Whether the receiver is at a batch, and so holds the lock.
    pub(crate) fn is_locked(&self) -> bool {
        self.pipes().any(|pipe| pipe.work.is_some())
    }

    pub(crate) fn pipes(&self) -> impl Iterator<Item = &Pipe> {
        self.processes.iter().filter_map(|process| Some(&process.stream.as_ref()?.pipe)).chain(&self.orphans)
    }

    pub(crate) fn pipes_mut(&mut self) -> impl Iterator<Item = &mut Pipe> {
        let streams = self.processes.iter_mut().filter_map(|process| Some(&mut process.stream.as_mut()?.pipe));
        streams.chain(&mut self.orphans)
    }

    /// Whether nothing more has to be done about an event.
    pub(crate) fn is_settled(&self, event: Event) -> bool {
        self.receiver.effects.contains(&event)
            || self.past.refused.contains(&event)
            || self.past.dropped.contains(&event)
            || self.past.undone.contains(&event)
            || self.sender.dead.contains(&event)
    }

    /// Changes that the sender still knows of.
    pub(crate) fn changes(&self) -> impl Iterator<Item = Event> {
        let all = 0..u8::try_from(self.past.given.len()).unwrap_or(u8::MAX);
        all.filter(|event| !self.past.lost.contains(event) && !self.past.never.contains(event))
    }
}
