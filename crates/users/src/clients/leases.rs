//! Leases: other backends may rely on a list of clients for a few seconds, so that they need not ask for every message.
//!
//! Guarantees: a change of a user's clients is answered only when no other backend relies on an older list: each that
//! holds a lease has forgotten it, or its lease has run out. A backend that is gone delays a change by the lease, no more.
//! A lease is noted before the list is read, and looked for after a change is seen by readers: one of the two notices the
//! other.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aldis_storage::StoreError;
use aldis_types::{Domain, UserId};
use futures::future::join_all;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::store::ClientStore;
use crate::peers::UserPeers;

/// For how long another backend may rely on a list.
pub(crate) const LEASE: Duration = Duration::from_secs(3);
/// For how much longer we count on it, as clocks do not run alike.
const MARGIN: Duration = Duration::from_millis(300);
/// Most leases; beyond, none is given.
const MAX_LEASES: usize = 200_000;
/// Backends that are told at the same time.
const TOLD_AT_ONCE: usize = 64;
/// Pause before a backend that could not be told is told again.
const AGAIN: Duration = Duration::from_millis(100);

/// The leases that other backends hold.
pub(crate) struct Leases {
    store: Arc<dyn ClientStore>,
    peers: UserPeers,
    held: Mutex<Held>,
    /// Until then leases may be held that a process before this one has given.
    earlier_until: Instant,
    is_noted: AtomicBool,
}

#[derive(Default)]
struct Held {
    by_user: HashMap<UserId, HashMap<Domain, Instant>>,
    count: usize,
}

impl Held {
    fn sweep(&mut self, now: Instant) {
        self.by_user.retain(|_, holders| {
            holders.retain(|_, until| *until > now);
            !holders.is_empty()
        });
        self.count = self.by_user.values().map(HashMap::len).sum();
    }

    /// The lease is over; a newer one of the same holder stays.
    fn end(&mut self, user: UserId, holder: &Domain, known: Instant) {
        let Some(holders) = self.by_user.get_mut(&user) else { return };
        if holders.get(holder).is_some_and(|until| *until <= known) {
            holders.remove(holder);
            self.count = self.count.saturating_sub(1);
        }
        if holders.is_empty() {
            self.by_user.remove(&user);
        }
    }
}

impl Leases {
    /// No leases yet, but for those that an earlier process may have given.
    pub(crate) async fn open(store: Arc<dyn ClientStore>, peers: UserPeers) -> Result<Self, StoreError> {
        let now = Instant::now();
        let had = store.had_leases().await?;
        let earlier_until = if had { now + LEASE + MARGIN } else { now };
        Ok(Self { store, peers, held: Mutex::default(), earlier_until, is_noted: AtomicBool::new(had) })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives `holder` a lease on the lists of these users, to be called before they are read; `None` when it gets none.
    pub(crate) async fn grant(&self, holder: &Domain, users: &[UserId]) -> Option<Duration> {
        if !self.is_noted.load(Ordering::Acquire) {
            if let Err(error) = self.store.note_leases().await {
                tracing::warn!(%error, "a lease cannot be noted, none is given");
                return None;
            }
            self.is_noted.store(true, Ordering::Release);
        }
        let now = Instant::now();
        let until = now + LEASE + MARGIN;
        let mut held = self.held();
        if held.count + users.len() > MAX_LEASES {
            held.sweep(now);
        }
        if held.count + users.len() > MAX_LEASES {
            return None;
        }
        for user in users {
            let before = held.by_user.entry(*user).or_default().insert(holder.clone(), until);
            held.count += usize::from(before.is_none());
        }
        Some(LEASE)
    }

    /// Returns once nobody relies on a list from before a change, which readers must see by now.
    pub(crate) async fn settle(&self, user: UserId) {
        let now = Instant::now();
        let holders: Vec<_> = {
            let held = self.held();
            let holders = held.by_user.get(&user).into_iter().flatten();
            holders.filter(|(_, until)| **until > now).map(|(holder, until)| (holder.clone(), *until)).collect()
        };
        for some in holders.chunks(TOLD_AT_ONCE) {
            join_all(some.iter().map(|(holder, until)| self.end(user, holder, *until))).await;
        }
        sleep_until(self.earlier_until).await;
    }

    /// Tells a backend, or waits until its lease has run out.
    async fn end(&self, user: UserId, holder: &Domain, until: Instant) {
        // Whether or not it was told: the lease is over.
        let _ = timeout_at(until, self.tell(holder, user)).await;
        self.held().end(user, holder, until);
    }

    /// Tells a backend until it has heard.
    async fn tell(&self, holder: &Domain, user: UserId) {
        while let Err(error) = self.peers.forget_clients(holder, &[user]).await {
            tracing::debug!(peer.domain = %holder, %error, "a backend with a lease cannot be told");
            sleep(AGAIN).await;
        }
    }
}
