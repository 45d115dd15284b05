//! What must hold in every state.

use std::collections::{HashMap, HashSet};

use stateright::{Model as _, Property};

use crate::{
    Action, Delivery,
    state::{Event, Lane, State},
};

pub(crate) const ONCE: &str = "each event is applied at most once";
pub(crate) const IN_ORDER: &str = "the events of a lane are applied in order";
pub(crate) const WITHOUT_GAP: &str = "a lane moves on over nothing that was not applied, refused or withdrawn";
pub(crate) const ONLY_SENT: &str = "nothing is applied that was not committed";
pub(crate) const KEPT: &str = "what was committed waits until it is applied";
pub(crate) const NOT_OVERTAKEN: &str = "nothing comes from a relay once a later one has opened a stream";
pub(crate) const AT_REST: &str = "at rest everything is delivered, and what was dropped is known to be missed";

pub(crate) fn all() -> Vec<Property<Delivery>> {
    vec![
        Property::always(ONCE, |_, state: &State| {
            let mut seen = HashSet::new();
            state.receiver.effects.iter().all(|event| seen.insert(event))
        }),
        Property::always(IN_ORDER, |_, state: &State| {
            let mut last: HashMap<Lane, Event> = HashMap::new();
            let known = state.receiver.effects.iter().filter(|event| !state.past.lost.contains(event));
            known.copied().all(|event| {
                let lane = state.past.given[usize::from(event)].lane;
                last.insert(lane, event).is_none_or(|before| before <= event)
            })
        }),
        Property::always(WITHOUT_GAP, |_, state: &State| {
            (0..).zip(&state.past.given).all(|(event, given)| {
                let last = state.receiver.last.get(&(given.incarnation, given.lane));
                last.is_none_or(|last| *last < given.sequence)
                    || state.receiver.effects.contains(&event)
                    || state.receiver.missed.contains(&event)
                    || state.past.refused.contains(&event)
                    || state.sender.dead.contains(&event)
                    || state.past.never.contains(&event)
            })
        }),
        Property::always(ONLY_SENT, |_, state: &State| {
            state.past.never.iter().all(|event| !state.receiver.effects.contains(event))
        }),
        Property::always(KEPT, |_, state: &State| {
            let waits = |event| state.sender.rows.iter().any(|row| row.id == event);
            state.changes().all(|event| waits(event) || state.is_settled(event))
        }),
        Property::always(NOT_OVERTAKEN, |_, state: &State| !state.past.overtaken),
        Property::always(AT_REST, |model: &Delivery, state: &State| {
            let mut actions = Vec::new();
            model.actions(state, &mut actions);
            // What may fail, and further processes, need not happen.
            actions.retain(|action| !action.is_a_choice(state));
            let past = &state.past;
            let told = |event| state.receiver.effects.contains(event) || past.told.contains(event);
            !actions.is_empty()
                || state.sender.rows.is_empty()
                    && state.changes().all(|event| state.is_settled(event))
                    && past.dropped.iter().all(|event| told(event) || past.undone.contains(event))
        }),
    ]
}

impl Action {
    /// Whether it may as well never happen.
    fn is_a_choice(&self, state: &State) -> bool {
        match self {
            Self::Change(_)
            | Self::Crash(_)
            | Self::Cut(_)
            | Self::CrashReceiver
            | Self::Backup
            | Self::Restore
            | Self::DropLane(_)
            | Self::BackupReceiver
            | Self::RestoreReceiver => true,
            Self::Start => state.processes.iter().any(|process| !process.fenced),
            _ => false,
        }
    }
}
