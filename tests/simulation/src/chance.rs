//! Decisions that a seed makes.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aldis_runtime::Random;

use crate::entropy;

/// A sequence of decisions. Clones share it.
#[derive(Clone)]
pub(crate) struct Chance(Arc<Mutex<u64>>);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed)))
    }

    /// A sequence of its own.
    pub(crate) fn fork(&self) -> Self {
        Self::new(self.next())
    }

    pub(crate) fn next(&self) -> u64 {
        entropy::step(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A number below `bound`.
    pub(crate) fn number(&self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// An index into something that has so many.
    pub(crate) fn index(&self, length: usize) -> usize {
        usize::try_from(self.number(length as u64)).unwrap_or(0)
    }

    pub(crate) fn percent(&self, percent: u64) -> bool {
        self.number(100) < percent
    }

    /// So many milliseconds.
    pub(crate) fn millis(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.number(most - least + 1))
    }
}

impl Random for Chance {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}
