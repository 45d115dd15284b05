//! What happens in a run: its hash, what is wrong, and how often something is tried.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    hash::Hasher as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

/// Attempts of one kind within a second of simulated time; more would be a loop that waits for nothing.
const MOST_PER_SECOND: &[(&str, u32)] = &[("connect", 120), ("open", 60), ("push", 3_000), ("store", 20_000)];

/// A run's record. Clones share it.
#[derive(Clone)]
pub(crate) struct Trace(Arc<Shared>);

struct Shared {
    begun: Instant,
    printed: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    hash: std::hash::DefaultHasher,
    lines: u64,
    wrong: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
    /// Of the present second.
    tries: HashMap<&'static str, (u64, u32)>,
    most: BTreeMap<&'static str, u32>,
    /// Changes whose author was told that they are kept.
    confirmed: BTreeSet<u64>,
    /// Changes whose effect was committed at a receiver at some time.
    applied: BTreeSet<u64>,
}

impl Trace {
    pub(crate) fn new(printed: bool) -> Self {
        Self(Arc::new(Shared { begun: Instant::now(), printed, state: Mutex::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds of simulated time.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.0.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Something happened.
    pub(crate) fn note(&self, what: fmt::Arguments<'_>) {
        let line = format!("{:>8} {what}", self.now());
        let mut state = self.state();
        state.hash.write(line.as_bytes());
        state.lines += 1;
        drop(state);
        if self.0.printed {
            println!("{line}");
        }
    }

    /// Something that must not happen did.
    pub(crate) fn wrong(&self, what: String) {
        self.note(format_args!("WRONG: {what}"));
        self.state().wrong.push(what);
    }

    pub(crate) fn count(&self, what: &'static str) {
        *self.state().counts.entry(what).or_default() += 1;
    }

    /// Something is tried that may be tried too often.
    pub(crate) fn attempt(&self, what: &'static str) {
        let second = self.now() / 1_000;
        let mut state = self.state();
        let tries = state.tries.entry(what).or_default();
        if tries.0 != second {
            *tries = (second, 0);
        }
        tries.1 += 1;
        let count = tries.1;
        let most = state.most.entry(what).or_default();
        *most = count.max(*most);
        drop(state);
        if MOST_PER_SECOND.iter().any(|(name, most)| *name == what && *most + 1 == count) {
            self.wrong(format!("busy: {what} was tried more than {} times in second {second}", count - 1));
        }
        // Time stands still in such a loop: nothing else would end it.
        assert!(count < 200_000, "{what} is tried without an end");
    }

    pub(crate) fn confirm(&self, change: u64) {
        self.state().confirmed.insert(change);
    }

    pub(crate) fn apply(&self, change: u64) {
        self.state().applied.insert(change);
    }

    pub(crate) fn was_confirmed(&self) -> BTreeSet<u64> {
        self.state().confirmed.clone()
    }

    pub(crate) fn was_applied(&self, change: u64) -> bool {
        self.state().applied.contains(&change)
    }

    pub(crate) fn is_wrong(&self) -> bool {
        !self.state().wrong.is_empty()
    }

    /// What is wrong, and a line that sums the run up.
    pub(crate) fn end(&self) -> (Vec<String>, String) {
        use std::fmt::Write as _;
        let now = self.now();
        let state = self.state();
        let mut line = format!("trace {:016x} lines {} milliseconds {now}", state.hash.finish(), state.lines);
        for (what, count) in &state.counts {
            let _ = write!(line, " {what} {count}");
        }
        for (what, count) in &state.most {
            let _ = write!(line, " most-{what} {count}");
        }
        (state.wrong.clone(), line)
    }
}

/// A process: whether it lives, and how it is told when it does not any more. Clones share it.
#[derive(Clone)]
pub(crate) struct Life(Arc<(std::sync::atomic::AtomicBool, tokio::sync::Notify)>);

impl Life {
    pub(crate) fn new() -> Self {
        Self(Arc::new((std::sync::atomic::AtomicBool::new(true), tokio::sync::Notify::new())))
    }

    pub(crate) fn is_over(&self) -> bool {
        !self.0.0.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Ends the process at this very instant: whatever it waits for, it waits for ever.
    pub(crate) fn end(&self) {
        self.0.0.store(false, std::sync::atomic::Ordering::SeqCst);
        self.0.1.notify_waiters();
    }

    /// Returns once it is over.
    pub(crate) async fn over(&self) {
        let ended = self.0.1.notified();
        if !self.is_over() {
            ended.await;
        }
    }

    /// Does not return when the process is over.
    pub(crate) async fn go_on(&self) {
        if self.is_over() {
            std::future::pending::<()>().await;
        }
    }
}
