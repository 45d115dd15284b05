//! A cache of look-ups that keeps answering while DNS does not.
//!
//! - A good answer lives for its time to live and is renewed in the background before it ends, if it is in use.
//! - When DNS fails, the last good answer is served for a bounded time more. DNS saying that a record is gone is not a
//!   failure: it ends the old answer.
//! - What is not found, and what failed, is kept apart for a short time of its own.
//! - Equal look-ups at the same time are one.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::network::LookupError;

const MIN_TTL: Duration = Duration::from_secs(1);
const MAX_TTL: Duration = Duration::from_secs(24 * 3_600);
const MIN_NOT_FOUND: Duration = Duration::from_secs(1);
const MAX_NOT_FOUND: Duration = Duration::from_secs(30);
/// How long a failure of DNS is believed.
const FAILED: Duration = Duration::from_secs(2);
/// Longest wait for a fresh answer while an old one could be served.
const STALE_WAIT: Duration = Duration::from_millis(500);
/// Longest time of one look-up.
const LOOKUP: Duration = Duration::from_secs(6);
const MAX_ENTRIES: usize = 4_096;

type Fetch<K, V> = dyn Fn(K) -> BoxFuture<'static, Result<(V, Duration), LookupError>> + Send + Sync;

/// What a look-up found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found<V> {
    pub(crate) value: V,
    /// How long it may be believed; zero for an answer that is served beyond its time because DNS fails.
    pub(crate) fresh_for: Duration,
}

struct Good<V> {
    value: V,
    refresh_at: Instant,
    fresh_until: Instant,
    stale_until: Instant,
}

struct Bad {
    error: LookupError,
    until: Instant,
}

struct Slot<V> {
    good: Option<Good<V>>,
    bad: Option<Bad>,
    looking: Option<watch::Receiver<()>>,
}

impl<V> Default for Slot<V> {
    fn default() -> Self {
        Self { good: None, bad: None, looking: None }
    }
}

pub(crate) struct Cache<K, V> {
    slots: Mutex<HashMap<K, Slot<V>>>,
    fetch: Box<Fetch<K, V>>,
    stale: Duration,
}

enum Known<V> {
    Answer(Result<Found<V>, LookupError>),
    /// A look-up runs; the old answer may be served if it takes too long.
    Looking(watch::Receiver<()>, bool),
}

impl<K, V> Cache<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + 'static,
{
    pub(crate) fn new(stale: Duration, fetch: Box<Fetch<K, V>>) -> Arc<Self> {
        Arc::new(Self { slots: Mutex::default(), fetch, stale })
    }

    /// The answer for `key`, from the cache or freshly looked up.
    pub(crate) async fn get(self: &Arc<Self>, key: K) -> Result<Found<V>, LookupError> {
        let (mut looking, old) = match self.known(&key) {
            Known::Answer(answer) => return answer,
            Known::Looking(looking, old) => (looking, old),
        };
        // The sender is dropped when the look-up has been written down.
        if old {
            let _ = timeout(STALE_WAIT, looking.changed()).await;
        } else {
            let _ = timeout(LOOKUP + STALE_WAIT, looking.changed()).await;
        }
        self.written(&key)
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<K, Slot<V>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(self: &Arc<Self>, key: &K) -> Known<V> {
        let now = Instant::now();
        let mut slots = self.slots();
        if !slots.contains_key(key) {
            make_room(&mut slots, now);
        }
        let slot = slots.entry(key.clone()).or_default();
        if let Some(good) = slot.good.as_ref().filter(|good| now < good.fresh_until) {
            let found = Found { value: good.value.clone(), fresh_for: good.fresh_until - now };
            if now >= good.refresh_at && slot.looking.is_none() && !recently_failed(slot, now) {
                slot.looking = Some(self.look_up(key.clone()));
            }
            return Known::Answer(Ok(found));
        }
        let old = slot.good.as_ref().filter(|good| now < good.stale_until);
        if let Some(bad) = slot.bad.as_ref().filter(|bad| now < bad.until) {
            return Known::Answer(match old {
                Some(good) => Ok(Found { value: good.value.clone(), fresh_for: Duration::ZERO }),
                None => Err(bad.error.clone()),
            });
        }
        let old = old.is_some();
        let looking = slot.looking.get_or_insert_with(|| self.look_up(key.clone()));
        Known::Looking(looking.clone(), old)
    }

    /// What is known after a look-up, however it went.
    fn written(&self, key: &K) -> Result<Found<V>, LookupError> {
        let now = Instant::now();
        let slots = self.slots();
        let slot = slots.get(key);
        if let Some(good) = slot.and_then(|slot| slot.good.as_ref()).filter(|good| now < good.stale_until) {
            return Ok(Found { value: good.value.clone(), fresh_for: good.fresh_until.saturating_duration_since(now) });
        }
        let bad = slot.and_then(|slot| slot.bad.as_ref());
        Err(bad.map_or_else(|| LookupError::Failed("no answer in time".to_owned()), |bad| bad.error.clone()))
    }

    /// Looks up in a task of its own, which outlives whoever asked first.
    fn look_up(self: &Arc<Self>, key: K) -> watch::Receiver<()> {
        let (done, looking) = watch::channel(());
        let cache = self.clone();
        tokio::spawn(async move {
            let outcome = timeout(LOOKUP, (cache.fetch)(key.clone()))
                .await
                .unwrap_or_else(|_| Err(LookupError::Failed("no answer in time".to_owned())));
            cache.write(&key, outcome);
            drop(done);
        });
        looking
    }

    fn write(&self, key: &K, outcome: Result<(V, Duration), LookupError>) {
        let now = Instant::now();
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(key) else { return };
        slot.looking = None;
        match outcome {
            Ok((value, ttl)) => {
                let ttl = ttl.clamp(MIN_TTL, MAX_TTL);
                slot.bad = None;
                slot.good = Some(Good {
                    value,
                    refresh_at: now + ttl * 4 / 5,
                    fresh_until: now + ttl,
                    stale_until: now + ttl + self.stale,
                });
            }
            Err(error) => {
                let until = match &error {
                    LookupError::NotFound { ttl } => {
                        slot.good = None;
                        now + (*ttl).clamp(MIN_NOT_FOUND, MAX_NOT_FOUND)
                    }
                    LookupError::Failed(_) => now + FAILED,
                };
                slot.bad = Some(Bad { error, until });
            }
        }
    }
}

fn recently_failed<V>(slot: &Slot<V>, now: Instant) -> bool {
    slot.bad.as_ref().is_some_and(|bad| now < bad.until)
}

/// Keeps the cache bounded: first go entries without a fresh answer, then any.
fn make_room<K: Clone + Eq + Hash, V>(slots: &mut HashMap<K, Slot<V>>, now: Instant) {
    if slots.len() < MAX_ENTRIES {
        return;
    }
    slots.retain(|_, slot| slot.looking.is_some() || slot.good.as_ref().is_some_and(|good| now < good.fresh_until));
    while slots.len() >= MAX_ENTRIES {
        let Some(key) = slots.keys().next().cloned() else { return };
        slots.remove(&key);
    }
}
