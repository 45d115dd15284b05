//! What happened: who posted what, what was confirmed to whom, and what each device got, in order.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Names something that is sent once: the `variant`-th body of message `number` of a stream. A stream is what one
/// device sends in one conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) stream: u32,
    pub(crate) number: u32,
    /// Rises with every body: one that was refused may still be on its way and must not be taken for the next.
    pub(crate) variant: u32,
}

impl Key {
    /// As it is written in a message or a name.
    pub(crate) fn text(self) -> String {
        format!("crash/{}/{}/{}", self.stream, self.number, self.variant)
    }

    /// What a text names; `None` when it is none of ours.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut fields = text.strip_prefix("crash/")?.split('/').map(str::parse);
        let mut next = || fields.next()?.ok();
        Some(Self { stream: next()?, number: next()?, variant: next()? })
    }
}

/// What a device was told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Message(Key),
    Rename(Key),
    Join,
    Leave,
    Role,
}

impl What {
    pub(crate) fn key(self) -> Option<Key> {
        match self {
            Self::Message(key) | Self::Rename(key) => Some(key),
            Self::Join | Self::Leave | Self::Role => None,
        }
    }
}

/// One event at a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    /// Place in the list of conversations.
    pub(crate) conversation: usize,
    pub(crate) what: What,
    /// The event's time as a number that rises with it.
    pub(crate) time: u64,
}

/// What a device got by one way, in the order in which it got it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    /// Place in the list of devices.
    pub(crate) device: usize,
    /// `socket`, `queue` or `acknowledged`.
    pub(crate) way: &'static str,
    pub(crate) items: Vec<Item>,
}

/// What somebody says of something that all must agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) subject: String,
    pub(crate) by: String,
    pub(crate) value: String,
}

/// Everything that was posted: nothing for what nobody saw confirmed, else the devices that must get it.
pub(crate) type Posted = HashMap<Key, Option<BTreeSet<usize>>>;

/// All that the checker looks at.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Names of devices, for people.
    pub(crate) devices: Vec<String>,
    pub(crate) posted: Posted,
    pub(crate) logs: Vec<Log>,
    pub(crate) views: Vec<View>,
}

/// What happens while the campaign runs, from all its tasks.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    posted: Mutex<Posted>,
    logs: Mutex<Vec<Log>>,
    answers: Mutex<BTreeMap<String, u64>>,
    odd: Mutex<Vec<String>>,
    doubled: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// With an empty log for each device, by the way that it uses.
    pub(crate) fn new(ways: &[&'static str]) -> Self {
        let log = |(device, way): (usize, &&'static str)| Log { device, way, items: Vec::new() };
        Self { logs: Mutex::new(ways.iter().enumerate().map(log).collect()), ..Self::default() }
    }

    /// Something is about to be posted.
    pub(crate) fn post(&self, key: Key) {
        lock(&self.posted).entry(key).or_default();
    }

    /// It was confirmed: these devices must get it.
    pub(crate) fn confirm(&self, key: Key, devices: BTreeSet<usize>) {
        lock(&self.posted).insert(key, Some(devices));
    }

    /// A device got something by the way that it uses.
    pub(crate) fn got(&self, device: usize, item: Item) {
        if let Some(log) = lock(&self.logs).get_mut(device) {
            log.items.push(item);
        }
    }

    /// An operation ended so.
    pub(crate) fn answered(&self, what: &str, how: &str) {
        *lock(&self.answers).entry(format!("{what}: {how}")).or_default() += 1;
    }

    /// Something that must not happen and no count is for.
    pub(crate) fn odd(&self, what: String) {
        lock(&self.odd).push(what);
    }

    /// The same notification came twice.
    pub(crate) fn doubled(&self, what: String) {
        lock(&self.doubled).push(what);
    }

    /// How often each operation ended how.
    pub(crate) fn answers(&self) -> BTreeMap<String, u64> {
        lock(&self.answers).clone()
    }

    /// What must not have happened.
    pub(crate) fn oddities(&self) -> Vec<String> {
        lock(&self.odd).clone()
    }

    /// Notifications that came twice.
    pub(crate) fn doubles(&self) -> Vec<String> {
        lock(&self.doubled).clone()
    }

    /// What was posted and received so far.
    pub(crate) fn so_far(&self) -> (Posted, Vec<Log>) {
        (lock(&self.posted).clone(), lock(&self.logs).clone())
    }
}

/// The digits of an RFC 3339 time, which rise with it; `None` for anything that is not in milliseconds UTC.
pub(crate) fn time_of(text: &str) -> Option<u64> {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    (text.len() == "2026-01-01T00:00:00.000Z".len() && digits.len() == 17).then(|| digits.parse().ok()).flatten()
}
