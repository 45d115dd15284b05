//! Holds a history against what is promised.
//!
//! Every device that had to get something confirmed got it exactly once, by each way that was looked at; what one
//! device sent in a conversation came in its order, everything in a conversation in the order of its times; and all
//! who look at the same thing see the same. What was not confirmed may come, but never twice.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use crate::history::{History, Item, Key, Log, Posted, What};

/// Offenders that are kept of each kind.
const SHOWN: usize = 10;

/// How many there are, and the first of them.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    pub(crate) count: u64,
    pub(crate) first: Vec<String>,
}

impl Tally {
    pub(crate) fn add(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < SHOWN {
            self.first.push(what());
        }
    }

    pub(crate) fn of(all: Vec<String>) -> Self {
        let mut tally = Self::default();
        for what in all {
            tally.add(|| what);
        }
        tally
    }
}

/// What the check came to.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Findings {
    /// Bodies that were posted.
    pub(crate) posted: u64,
    /// Messages and names that were confirmed.
    pub(crate) confirmed: u64,
    /// Confirmed ones at devices that had to get them.
    pub(crate) delivered: u64,
    /// Confirmed, and not at a device that had to get it.
    pub(crate) lost: Tally,
    /// Twice at a device.
    pub(crate) duplicated: Tally,
    /// After something that it belongs before.
    pub(crate) reordered: Tally,
    /// Differently seen from two sides.
    pub(crate) diverged: Tally,
    /// Posted by nobody, or at a device that was not to get it.
    pub(crate) unexpected: Tally,
}

impl Findings {
    /// Whether everything that is promised was kept.
    pub(crate) fn is_clean(&self) -> bool {
        self.is_settled() && [&self.duplicated, &self.reordered, &self.unexpected].iter().all(|it| it.count == 0)
    }

    /// Whether there is nothing to wait for.
    pub(crate) fn is_settled(&self) -> bool {
        self.lost.count == 0 && self.diverged.count == 0
    }
}

/// Checks everything.
pub(crate) fn check(history: &History) -> Findings {
    let confirmed = history.posted.values().filter(|devices| devices.is_some()).count();
    let mut findings =
        Findings { posted: size(history.posted.len()), confirmed: size(confirmed), ..Findings::default() };
    let mut delivered = vec![0; history.devices.len()];
    let mut times = HashMap::new();
    for log in &history.logs {
        let found = Reading::of(history, log, &mut findings).read(&mut times);
        if let Some(most) = delivered.get_mut(log.device) {
            *most = found.max(*most);
        }
    }
    findings.delivered = delivered.iter().sum();
    compare_views(history, &mut findings.diverged);
    findings
}

fn size(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// One log on its way through the check.
struct Reading<'a> {
    posted: &'a Posted,
    log: &'a Log,
    name: &'a str,
    findings: &'a mut Findings,
}

impl<'a> Reading<'a> {
    fn of(history: &'a History, log: &'a Log, findings: &'a mut Findings) -> Self {
        let name = history.devices.get(log.device).map_or("nobody", String::as_str);
        Self { posted: &history.posted, log, name, findings }
    }

    /// Counts what was delivered, and notes what is wrong.
    fn read(mut self, times: &mut HashMap<Key, u64>) -> u64 {
        let mut seen = HashSet::new();
        let mut streams: HashMap<u32, Key> = HashMap::new();
        let mut last: HashMap<usize, Item> = HashMap::new();
        for item in &self.log.items {
            if let Some(before) = last.insert(item.conversation, *item) {
                self.compare(&before, item);
            }
            let Some(key) = item.what.key() else { continue };
            if !seen.insert(key) {
                let place = self.place();
                self.findings.duplicated.add(|| format!("{place}: {key:?}"));
                continue;
            }
            if *times.entry(key).or_insert(item.time) != item.time {
                let place = self.place();
                self.findings.diverged.add(|| format!("{place}: {key:?} has another time than elsewhere"));
            }
            if self.was_for_us(item) {
                let newest = streams.entry(key.stream).or_insert(key);
                if key.number < newest.number {
                    let (place, newest) = (self.place(), *newest);
                    self.findings.reordered.add(|| format!("{place}: {key:?} after {newest:?}"));
                }
                *newest = key.max(*newest);
            }
        }
        self.count(&seen)
    }

    fn place(&self) -> String {
        format!("{} by {}", self.name, self.log.way)
    }

    /// Whether it is confirmed; notes what must not be here.
    fn was_for_us(&mut self, item: &Item) -> bool {
        let (device, place) = (self.log.device, self.place());
        match (item.what, item.what.key().and_then(|key| self.posted.get(&key))) {
            (what, None) => {
                self.findings.unexpected.add(|| format!("{place}: {what:?}, which nobody posted"));
                false
            }
            (_, Some(None)) => false,
            // A name is told to whoever is there, and nobody says who that was.
            (What::Message(key), Some(Some(devices))) if !devices.contains(&device) => {
                self.findings.unexpected.add(|| format!("{place}: {key:?}, which was not for it"));
                true
            }
            (_, Some(Some(_))) => true,
        }
    }

    /// Two neighbours in one conversation: time rises.
    fn compare(&mut self, before: &Item, item: &Item) {
        let (what, place) = (item.what, self.place());
        if item.time > before.time || (what == before.what && what.key().is_some()) {
            return;
        }
        let text = || format!("{place}: {item:?} after {before:?}");
        if item.time == before.time && what == before.what {
            self.findings.duplicated.add(text);
        } else {
            self.findings.reordered.add(text);
        }
    }

    /// What had to be here and is; what is not is lost.
    fn count(self, seen: &HashSet<Key>) -> u64 {
        let (device, place) = (self.log.device, self.place());
        let mut missing = Vec::new();
        let mut delivered = 0;
        for (key, devices) in self.posted {
            if !devices.as_ref().is_some_and(|devices| devices.contains(&device)) {
                continue;
            }
            if seen.contains(key) {
                delivered += 1;
            } else {
                missing.push(*key);
            }
        }
        missing.sort_unstable();
        for key in missing {
            self.findings.lost.add(|| format!("{place}: {key:?}"));
        }
        delivered
    }
}

/// Everybody says the same of the same subject.
fn compare_views(history: &History, diverged: &mut Tally) {
    let mut first: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for view in &history.views {
        let (by, value) = first.entry(&view.subject).or_insert((&view.by, &view.value));
        if *value != view.value {
            diverged.add(|| format!("{}: {by} sees {value}; {} sees {}", view.subject, view.by, view.value));
        }
    }
}
