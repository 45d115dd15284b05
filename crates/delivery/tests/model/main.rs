//! The delivery stream between two backends as a model, of which every state is visited at small sizes.
//!
//! What `proto/README.md` promises about lanes must hold whatever fails, in whatever order. The model does in single steps
//! what the code does between two awaits that matter, and anything may happen between two steps:
//!
//! | step | is |
//! |---|---|
//! | `Change` | `Outbox::append` in the job of a change, and its commit |
//! | `Start`, `Crash` | `Outbox::open`, which raises the epoch; the end of a process, with all that it had in memory |
//! | `Open`, `Fill`, `Hear`, `Wake` | the relay (`peer.rs`): `Stream::open`, `fill`, `answered`, `woken` |
//! | `RemoveDelivered` | the commit that removes acknowledged rows some time later, `Shared::remove_delivered` |
//! | `Cut`, `Lose` | the end of a connection: the receiver may still read any part of what was on its way |
//! | `BeOpened` | `Server::open` (`receiver.rs`) |
//! | `Take` | `Server::batch`: any number of messages that have arrived, and a verdict on each envelope |
//! | `Commit`, `Respond` | the jobs of `Receive::receive` with `Positions::advance`; the answer after them |
//! | `CrashReceiver` | the end of the receiver's process |
//! | `Backup`, `Restore` | `aldis restore` and the next start: `renewal::open` |
//! | `TurnToPresent` | `Outbox::is_spent`: what waited in the backup is delivered |
//! | `DropLane` | `bounds::step`, which drops what waits for too long or is too much |
//! | `BackupReceiver`, `RestoreReceiver` | the receiver's store loses what it has acknowledged; `Stream::look_for_hole` |
//!
//! Where the order of commits differs, both are modelled ([`Commits`]). Times are left out: a pause may end at any moment.
//! The short way of rows in memory (`fresh.rs`) is left out too: it gives out what the table has.
//!
//! How often something fails is bounded; as long as it may, nothing else has to happen. Then the model must come to rest, and
//! at rest everything is delivered: there is no state without a step in which something waits ([`properties::AT_REST`]), and no way back
//! to an earlier state.
//!
//! A model shows something only if it can fail. So each rule of the protocol is broken once ([`Rule`]), and a property must
//! be found violated.

mod properties;
mod receiver;
mod sender;
mod state;

use std::{
    collections::{BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
};

use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::{
    properties::{AT_REST, IN_ORDER, KEPT, NOT_OVERTAKEN, ONCE, ONLY_SENT, WITHOUT_GAP},
    receiver::{At, Commits, Special},
    state::{End, Event, Lane, Left, State},
};

/// A rule of the protocol that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// A relay sees a row only once it is committed.
    SentAfterCommit,
    /// A row stays until it is acknowledged.
    RemovedAfterAnswer,
    /// The receiver answers only what is durable.
    AnswerAfterCommit,
    /// The position is in the commit of the effect: no effect without it.
    PositionWithEffect,
    /// And no position without the effect.
    EffectWithPosition,
    /// What is at or below the position is not applied again.
    KnownIsNotApplied,
    /// Nothing is applied but the next of its lane.
    OnlyTheNext,
    /// The relay of an earlier epoch is refused.
    LowerEpochIsFenced,
    /// The epoch is raised and the place of the newest stream is taken without a pause in between.
    EpochAndPlaceTogether,
    /// After a restore from a backup lanes begin anew, as of another store.
    RestoredStoreIsAnother,
    /// When the pause of a lane is over, rows are read from the first on.
    PausedLanesAreReadAgain,
    /// What the receiver lacks and is gone here is stood for by an envelope of its own.
    HolesAreFilled,
    /// What is dropped leaves a row that stands for it.
    DroppedIsStoodFor,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Change(Lane),
    CommitChange,
    Start,
    Crash(usize),
    Open(usize),
    Fill(usize),
    Hear(usize),
    Wake(usize, Lane),
    RemoveDelivered(usize),
    TurnToPresent(usize),
    Cut(usize),
    Lose(usize),
    BeOpened(At),
    Take(At, usize, Special),
    Commit(At),
    Respond(At),
    CrashReceiver,
    Backup,
    Restore,
    DropLane(Lane),
    BackupReceiver,
    RestoreReceiver,
}

/// A size of the model.
#[derive(Clone)]
struct Delivery {
    lanes: Lane,
    /// Most envelopes on their way.
    window: usize,
    commits: Commits,
    /// An event that is larger than the receiver takes.
    too_large: Option<Event>,
    may: Left,
    broken: Option<Rule>,
}

impl Delivery {
    fn breaks(&self, rule: Rule) -> bool {
        self.broken == Some(rule)
    }

    fn sender_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let used = state.past.given.iter().map(|given| given.lane + 1).max().unwrap_or(0);
        if state.left.events > 0 {
            // Lanes are alike: which one comes first makes no difference.
            actions.extend((0..self.lanes.min(used + 1)).map(Action::Change));
        }
        if state.past.pending.is_some() {
            actions.push(Action::CommitChange);
        }
        if state.processes.iter().all(|process| process.fenced) || state.left.takeovers > 0 {
            actions.push(Action::Start);
        }
        if state.left.restores > 0 {
            actions.push(if state.backup.is_some() { Action::Restore } else { Action::Backup });
        }
        if state.left.drops > 0 {
            let incarnation = state.sender.incarnation;
            let rows = state.sender.rows.iter().filter(|row| row.incarnation == incarnation);
            let lanes: BTreeSet<Lane> = rows.map(|row| row.lane).collect();
            actions.extend(lanes.into_iter().map(Action::DropLane));
        }
        for (place, process) in state.processes.iter().enumerate() {
            if state.left.sender_crashes > 0 {
                actions.push(Action::Crash(place));
            }
            if !process.delivered.is_empty() {
                actions.push(Action::RemoveDelivered(place));
            }
            let Some(stream) = &process.stream else {
                if !process.fenced && state.sender.next_incarnation().is_some() {
                    actions.push(Action::Open(place));
                }
                continue;
            };
            if stream.can_fill(&state.sender, self.window) {
                actions.push(Action::Fill(place));
            }
            if !stream.pipe.answers.is_empty() {
                actions.push(Action::Hear(place));
            }
            if stream.is_spent(&state.sender, &process.delivered) {
                actions.push(Action::TurnToPresent(place));
            }
            actions.extend(stream.waiting.iter().map(|lane| Action::Wake(place, *lane)));
            if state.left.cuts > 0 {
                actions.push(Action::Cut(place));
            }
        }
    }

    fn receiver_actions(state: &State, actions: &mut Vec<Action>) {
        let streams = state.processes.iter().enumerate();
        let streams = streams.filter_map(|(place, process)| Some((At::Process(place), &process.stream.as_ref()?.pipe)));
        let orphans = state.orphans.iter().enumerate().map(|(place, pipe)| (At::Orphan(place), pipe));
        for (at, pipe) in streams.chain(orphans) {
            if let Some(work) = &pipe.work {
                actions.push(if work.todo.is_empty() { Action::Respond(at) } else { Action::Commit(at) });
            } else if !pipe.requests.is_empty() && !state.is_locked() {
                match pipe.end {
                    End::New | End::Checked => actions.push(Action::BeOpened(at)),
                    End::Superseded => actions.push(Action::Take(at, 0, Special::Nothing)),
                    End::Newest => Self::batches(state, at, pipe, actions),
                }
            }
        }
        for place in 0..state.orphans.len() {
            if state.orphans[place].work.is_none() {
                actions.push(Action::Lose(place));
            }
        }
        if state.left.receiver_crashes > 0 && state.pipes().next().is_some() {
            actions.push(Action::CrashReceiver);
        }
        if state.left.receiver_restores > 0 {
            let has_backup = state.receivers_backup.is_some();
            actions.push(if has_backup { Action::RestoreReceiver } else { Action::BackupReceiver });
        }
    }

    /// All that have arrived, or the first alone.
    fn batches(state: &State, at: At, pipe: &state::Pipe, actions: &mut Vec<Action>) {
        let mut sizes = vec![1, pipe.requests.len()];
        sizes.dedup();
        for messages in sizes {
            actions.push(Action::Take(at, messages, Special::Nothing));
            let envelopes = Self::most(pipe, messages);
            if state.left.deferrals > 0 {
                actions.extend((0..envelopes).map(|n| Action::Take(at, messages, Special::Deferred(n))));
            }
            if state.left.refusals > 0 {
                actions.extend((0..envelopes).map(|n| Action::Take(at, messages, Special::Refused(n))));
            }
        }
    }

    fn act(&self, state: &mut State, action: Action) {
        match action {
            Action::Change(lane) => self.change(state, lane),
            Action::CommitChange => state.past.pending = None,
            Action::Start => {
                if state.processes.iter().any(|process| !process.fenced) {
                    state.left.takeovers -= 1;
                }
                Self::start(state);
            }
            Action::Crash(place) => {
                state.left.sender_crashes -= 1;
                Self::crash(state, place);
            }
            Action::Open(place) => Self::open(state, place),
            Action::Fill(place) => self.fill(state, place),
            Action::Hear(place) => {
                if !self.hear(state, place) {
                    state.processes[place].stream = None;
                }
            }
            Action::Wake(place, lane) => {
                if let Some(stream) = &mut state.processes[place].stream {
                    stream.wake(lane, !self.breaks(Rule::PausedLanesAreReadAgain));
                }
            }
            Action::RemoveDelivered(place) => Self::remove_delivered(state, place),
            Action::TurnToPresent(place) => {
                Self::remove_delivered(state, place);
                let stream = state.processes[place].stream.take();
                state.abandon(stream);
            }
            Action::Cut(place) => {
                state.left.cuts -= 1;
                let stream = state.processes[place].stream.take();
                state.abandon(stream);
            }
            Action::Lose(place) => drop(state.orphans.remove(place)),
            Action::BeOpened(at) => self.be_opened(state, at),
            Action::Take(at, 0, _) => state.close(at),
            Action::Take(at, messages, special) => self.take(state, at, messages, special),
            Action::Commit(at) => self.commit(state, at),
            Action::Respond(at) => self.respond(state, at),
            Action::CrashReceiver => {
                state.left.receiver_crashes -= 1;
                Self::crash_receiver(state);
            }
            Action::Backup => state.backup = Some(state.sender.clone()),
            Action::Restore => {
                if let Some(backup) = state.backup.take() {
                    self.restore(state, backup);
                }
            }
            Action::DropLane(lane) => self.drop_lane(state, lane),
            Action::BackupReceiver => state.receivers_backup = Some(state.receiver.clone()),
            Action::RestoreReceiver => {
                if let Some(backup) = state.receivers_backup.take() {
                    Self::restore_receiver(state, backup);
                }
            }
        }
    }
}

impl Model for Delivery {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State { left: self.may, ..State::default() }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.sender_actions(state, actions);
        Self::receiver_actions(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.act(&mut state, action);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

/// Visits every state, and looks for ways around: without them everything comes to rest once nothing fails any more.
fn assert_sound(model: &Delivery) {
    let checker = model.clone().checker().threads(2).spawn_bfs().join();
    let found = checker.discoveries();
    let found: Vec<_> = found.into_iter().map(|(property, path)| (property, path.into_actions())).collect();
    assert!(found.is_empty(), "violated, and by which steps: {found:#?}");
    // What was visited, for who looks: `cargo test … -- --nocapture`.
    println!("{} states", checker.unique_state_count());
    assert!(!has_cycle(model), "it can go on for ever without a failure");
}

fn has_cycle(model: &Delivery) -> bool {
    let hash = |state: &State| {
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        hasher.finish()
    };
    // States on the path are open, all others that were seen are done.
    let mut is_open: HashMap<u64, bool> = HashMap::new();
    let mut path = Vec::new();
    for state in model.init_states() {
        is_open.insert(hash(&state), true);
        let next = model.next_states(&state);
        path.push((hash(&state), next));
    }
    while let Some((at, next)) = path.last_mut() {
        let Some(state) = next.pop() else {
            is_open.insert(*at, false);
            path.pop();
            continue;
        };
        let key = hash(&state);
        match is_open.get(&key) {
            Some(true) => return true,
            Some(false) => {}
            None => {
                is_open.insert(key, true);
                path.push((key, model.next_states(&state)));
            }
        }
    }
    false
}

/// Breaks a rule, and expects the checker to find that a property does not hold then.
fn assert_needed(rule: Rule, model: Delivery, property: &'static str) {
    let model = Delivery { broken: Some(rule), ..model };
    let wanted = HasDiscoveries::AnyOf([property].into());
    let checker = model.checker().finish_when(wanted).spawn_bfs().join();
    assert!(checker.discovery(property).is_some(), "without {rule:?} still holds: {property}");
}

/// Breaks a rule, and expects that it goes on for ever then.
fn assert_needed_to_end(rule: Rule, model: Delivery) {
    assert!(has_cycle(&Delivery { broken: Some(rule), ..model }), "without {rule:?} it still comes to rest");
}

fn small() -> Delivery {
    Delivery {
        lanes: 2,
        window: 2,
        commits: Commits::Together,
        too_large: None,
        may: Left { events: 3, ..Left::default() },
        broken: None,
    }
}

#[test]
fn crashes_of_either_side_lose_and_repeat_nothing() {
    let may = Left { sender_crashes: 1, receiver_crashes: 1, ..small().may };
    assert_sound(&Delivery { may, ..small() });
}

#[test]
fn effects_that_are_committed_before_their_positions_come_once_too() {
    let may = Left { sender_crashes: 1, receiver_crashes: 1, deferrals: 1, ..small().may };
    assert_sound(&Delivery { may, commits: Commits::EffectsFirst, ..small() });
}

#[test]
fn connections_that_end_and_lanes_that_wait_change_nothing() {
    let may = Left { cuts: 2, ..small().may };
    assert_sound(&Delivery { may, ..small() });
    let may = Left { cuts: 1, deferrals: 1, ..small().may };
    assert_sound(&Delivery { may, ..small() });
}

#[test]
fn a_lane_goes_on_after_what_is_refused_or_withdrawn() {
    let may = Left { cuts: 1, receiver_crashes: 1, refusals: 1, ..small().may };
    assert_sound(&Delivery { may, too_large: Some(0), ..small() });
}

#[test]
fn of_two_relays_the_later_one_goes_on() {
    let may = Left { events: 2, takeovers: 1, cuts: 1, receiver_crashes: 1, ..small().may };
    assert_sound(&Delivery { may, lanes: 1, ..small() });
}

#[test]
fn a_restored_sender_begins_anew_and_still_delivers_what_waited() {
    let may = Left { restores: 1, ..small().may };
    assert_sound(&Delivery { may, ..small() });
}

#[test]
fn what_is_dropped_or_lost_by_a_restored_receiver_is_told() {
    let may = Left { drops: 1, receiver_restores: 1, ..small().may };
    assert_sound(&Delivery { may, ..small() });
}

#[test]
fn every_rule_is_needed() {
    let crash = Delivery { may: Left { sender_crashes: 1, receiver_crashes: 1, ..small().may }, ..small() };
    let cut = Delivery { may: Left { cuts: 1, deferrals: 1, ..small().may }, ..small() };
    let two = Delivery { lanes: 1, may: Left { events: 2, takeovers: 1, cuts: 1, ..small().may }, ..small() };
    assert_needed(Rule::SentAfterCommit, crash.clone(), ONLY_SENT);
    assert_needed(Rule::RemovedAfterAnswer, cut.clone(), KEPT);
    assert_needed(Rule::AnswerAfterCommit, crash.clone(), KEPT);
    assert_needed(Rule::PositionWithEffect, crash.clone(), ONCE);
    assert_needed(Rule::EffectWithPosition, crash.clone(), WITHOUT_GAP);
    assert_needed(Rule::KnownIsNotApplied, crash, ONCE);
    assert_needed(Rule::OnlyTheNext, cut.clone(), WITHOUT_GAP);
    assert_needed(Rule::OnlyTheNext, cut.clone(), IN_ORDER);
    assert_needed(Rule::LowerEpochIsFenced, two.clone(), NOT_OVERTAKEN);
    assert_needed(Rule::EpochAndPlaceTogether, two, NOT_OVERTAKEN);
    let restored = Delivery { may: Left { restores: 1, ..small().may }, ..small() };
    assert_needed(Rule::RestoredStoreIsAnother, restored, WITHOUT_GAP);
    assert_needed(Rule::PausedLanesAreReadAgain, cut, AT_REST);
    let torn = Delivery { may: Left { drops: 1, receiver_restores: 1, ..small().may }, ..small() };
    assert_needed_to_end(Rule::HolesAreFilled, torn.clone());
    assert_needed(Rule::DroppedIsStoodFor, torn, AT_REST);
}
