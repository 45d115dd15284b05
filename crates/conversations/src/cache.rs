//! Values of the store kept in memory. This process is the only one that writes them.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, Mutex, PoisonError},
};

const STRIPES: usize = 64;

/// A cache in which a value that was read before a change cannot be put after it.
pub(crate) struct Cache<K, V> {
    entries: moka::sync::Cache<K, Arc<V>>,
    /// Counts the changes of the keys of one stripe.
    generations: [Mutex<u64>; STRIPES],
    hasher: RandomState,
}

/// How often the keys of a stripe had changed when something was about to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Generation(u64);

impl<K, V> Cache<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// A cache for values that weigh `capacity` together.
    pub(crate) fn new(capacity: u64, weigh: impl Fn(&V) -> u32 + Send + Sync + 'static) -> Self {
        let entries = moka::sync::Cache::builder()
            .max_capacity(capacity)
            .weigher(move |_: &K, value: &Arc<V>| weigh(value))
            .build();
        Self { entries, generations: std::array::from_fn(|_| Mutex::new(0)), hasher: RandomState::new() }
    }

    fn stripe(&self, key: &K) -> &Mutex<u64> {
        let hash = self.hasher.hash_one(key);
        &self.generations[usize::try_from(hash % (STRIPES as u64)).unwrap_or(0)]
    }

    /// The value, if it is here.
    pub(crate) fn get(&self, key: &K) -> Option<Arc<V>> {
        self.entries.get(key)
    }

    /// To be asked before the value is read from the store.
    pub(crate) fn generation(&self, key: &K) -> Generation {
        Generation(*self.stripe(key).lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps a value, unless something changed since it was read.
    pub(crate) fn insert(&self, key: K, read_at: Generation, value: Arc<V>) {
        let generation = self.stripe(&key).lock().unwrap_or_else(PoisonError::into_inner);
        if *generation == read_at.0 {
            self.entries.insert(key, value);
        }
    }

    /// Forgets a value; to be called after the commit of its change and before that is answered.
    pub(crate) fn forget(&self, key: &K) {
        let mut generation = self.stripe(key).lock().unwrap_or_else(PoisonError::into_inner);
        *generation += 1;
        self.entries.invalidate(key);
    }
}
