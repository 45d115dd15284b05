//! Requests that are on their way to other backends: whether the other side knows of them cannot be said until they end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use aldis_types::{Domain, Qualified, UserId};

type Asking = Arc<Mutex<HashMap<(UserId, Qualified<UserId>), usize>>>;

/// Pairs of a user of ours and one of another backend, about whom it is asked.
#[derive(Clone, Default)]
pub(crate) struct InProgress(Asking);

/// Held from before a request goes out until what it came to is durable.
pub(crate) struct UnderWay {
    asking: Asking,
    pair: (UserId, Qualified<UserId>),
}

impl InProgress {
    /// A request begins.
    pub(crate) fn begin(&self, user: UserId, other: Qualified<UserId>) -> UnderWay {
        let pair = (user, other);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(pair.clone()).or_default() += 1;
        UnderWay { asking: self.0.clone(), pair }
    }

    /// Pairs with users of a backend.
    pub(crate) fn with(&self, domain: &Domain) -> Vec<(UserId, UserId)> {
        let asking = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asking.keys().filter(|(_, other)| other.domain == *domain).map(|(user, other)| (*user, other.id)).collect()
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = asking.get_mut(&self.pair) {
            *count -= 1;
            if *count == 0 {
                asking.remove(&self.pair);
            }
        }
    }
}
