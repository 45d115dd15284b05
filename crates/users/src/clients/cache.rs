//! Lists of clients in memory.

use std::sync::{Arc, Mutex, PoisonError};

use aldis_types::UserId;

use super::PublicClient;

/// Users whose lists are kept.
const MAX_USERS: u64 = 200_000;

/// A point in the history of changes; what was read before a change is not put into the cache after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark(u64);

/// Lists of clients by user. A reader takes a [`Mark`] before it reads the store and puts what it read with it; a
/// change that commits in between makes the mark stale, so that an old list can never replace a newer one.
pub(crate) struct ClientCache {
    lists: moka::sync::Cache<UserId, Arc<[PublicClient]>>,
    changes: Mutex<u64>,
}

impl ClientCache {
    pub(crate) fn new() -> Self {
        Self { lists: moka::sync::Cache::new(MAX_USERS), changes: Mutex::new(0) }
    }

    pub(crate) fn get(&self, user: UserId) -> Option<Arc<[PublicClient]>> {
        self.lists.get(&user)
    }

    /// Where the history of changes stands.
    pub(crate) fn mark(&self) -> Mark {
        Mark(*self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps a list, unless something was changed since the mark.
    pub(crate) fn put(&self, mark: Mark, user: UserId, clients: Arc<[PublicClient]>) {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if mark == Mark(*changes) {
            self.lists.insert(user, clients);
        }
    }

    /// A change of this user's clients was committed, or may have been.
    pub(crate) fn changed(&self, user: UserId) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        *changes += 1;
        self.lists.invalidate(&user);
    }
}
