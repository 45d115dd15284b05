//! Settings of the outbox.

use std::time::Duration;

use documented::{Documented, DocumentedFields};
use serde::{Deserialize, Serialize};

/// What waits for other backends that are away. Both bounds hold for each other backend, and for `users` and
/// `conversations` each. Beyond them the oldest events are dropped: the other backend is told, once it is back, and tells
/// the apps of the users concerned that they missed something; `aldis outbox list` and `aldis_outbox_dropped_total`
/// show it here.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Days for which an event waits.
    ///
    /// Allowed: 1 to 3650.
    pub max_age_days: u32,
    /// MiB of events that wait.
    ///
    /// Allowed: 1 to 1000000.
    pub max_mib: u32,
    /// Minutes after which it is compared once more which users here are in which conversations of another backend, and
    /// connected with whom there, should nothing have given cause to it earlier.
    ///
    /// Allowed: 5 to 10080.
    pub reconcile_minutes: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_age_days: 90, max_mib: 2048, reconcile_minutes: 360 }
    }
}

impl Config {
    /// Says which key has which value that is not allowed.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=3650).contains(&self.max_age_days) {
            return Err(format!("`outbox.max_age_days` = {}; allowed: 1 to 3650", self.max_age_days));
        }
        if !(1..=1_000_000).contains(&self.max_mib) {
            return Err(format!("`outbox.max_mib` = {}; allowed: 1 to 1000000", self.max_mib));
        }
        if !(5..=10_080).contains(&self.reconcile_minutes) {
            return Err(format!("`outbox.reconcile_minutes` = {}; allowed: 5 to 10080", self.reconcile_minutes));
        }
        Ok(())
    }

    /// How often state is compared with each other backend.
    pub fn reconcile_every(&self) -> Duration {
        Duration::from_secs(u64::from(self.reconcile_minutes) * 60)
    }

    pub(crate) fn max_age(self) -> Duration {
        Duration::from_secs(u64::from(self.max_age_days) * 86_400)
    }

    pub(crate) fn max_bytes(self) -> u64 {
        u64::from(self.max_mib) << 20
    }
}
