//! What is on its way to a client, and what it has acknowledged of it. Pure: no time, no I/O.

use std::collections::{BTreeMap, BTreeSet};

use super::MAX_IN_FLIGHT;

/// Numbers an item on one socket, from 1.
pub(super) type Tag = u64;

/// What became durable knowledge since it was last asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    /// Everything up to this tick is acknowledged.
    pub floor: u64,
    /// Acknowledged ticks above it.
    pub above: Vec<u64>,
}

/// An acknowledgement of something that was never sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NeverSent;

/// The ticks between the last one that everything before is acknowledged of, and the last one that was sent.
#[derive(Debug)]
pub(super) struct Window {
    floor: u64,
    /// The last tick that was looked at.
    position: u64,
    /// Acknowledged, above the floor.
    acknowledged: BTreeSet<u64>,
    /// Sent and not acknowledged; the tick of what is in the queue.
    in_flight: BTreeMap<Tag, Option<u64>>,
    next_tag: Tag,
    /// Acknowledged since the last [`Window::take_progress`].
    fresh: Vec<u64>,
}

impl Window {
    pub(super) fn new(floor: u64, acknowledged: Vec<u64>) -> Self {
        Self {
            floor,
            position: floor,
            acknowledged: acknowledged.into_iter().filter(|tick| *tick > floor).collect(),
            in_flight: BTreeMap::new(),
            next_tag: 1,
            fresh: Vec::new(),
        }
    }

    /// Where to read on.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// How many more items may be sent.
    pub(super) fn room(&self) -> usize {
        MAX_IN_FLIGHT.saturating_sub(self.in_flight.len())
    }

    /// Takes the next event of the queue; its tag, or `None` when the client has acknowledged it on an earlier socket.
    pub(super) fn send(&mut self, tick: u64) -> Option<Tag> {
        self.position = self.position.max(tick);
        if self.acknowledged.contains(&tick) { None } else { Some(self.tag(Some(tick))) }
    }

    /// A tag for something that is not in the queue.
    pub(super) fn send_transient(&mut self) -> Tag {
        self.tag(None)
    }

    fn tag(&mut self, tick: Option<u64>) -> Tag {
        let tag = self.next_tag;
        self.next_tag += 1;
        self.in_flight.insert(tag, tick);
        tag
    }

    /// The client has `tag`, with `multiple` also everything before it. What it acknowledged already changes nothing.
    pub(super) fn acknowledge(&mut self, tag: Tag, multiple: bool) -> Result<(), NeverSent> {
        if tag >= self.next_tag {
            return Err(NeverSent);
        }
        let mut taken: Vec<Option<u64>> = self.in_flight.remove(&tag).into_iter().collect();
        if multiple {
            let rest = self.in_flight.split_off(&tag);
            taken.extend(std::mem::replace(&mut self.in_flight, rest).into_values());
        }
        for tick in taken.into_iter().flatten() {
            self.acknowledged.insert(tick);
            self.fresh.push(tick);
        }
        Ok(())
    }

    /// What has to be remembered since this was last asked; `None` when nothing was acknowledged.
    pub(super) fn take_progress(&mut self) -> Option<Progress> {
        if self.fresh.is_empty() {
            return None;
        }
        let waiting = self.in_flight.values().flatten().min().copied();
        self.floor = match waiting {
            Some(waiting) => self.acknowledged.range(..waiting).next_back().copied().unwrap_or(0).max(self.floor),
            None => self.position.max(self.floor),
        };
        self.acknowledged = self.acknowledged.split_off(&(self.floor + 1));
        let floor = self.floor;
        let above = std::mem::take(&mut self.fresh).into_iter().filter(|tick| *tick > floor).collect();
        Some(Progress { floor, above })
    }
}
