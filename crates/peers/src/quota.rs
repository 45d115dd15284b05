//! How much one other backend may ask for.

use std::{hash::Hash, num::NonZeroU32, time::Duration};

use aldis_api::label;
use aldis_proto::{error, federation::v1::Hop};
use governor::{DefaultKeyedRateLimiter, RateLimiter};
use tonic::{Code, Status};

/// How often a service should call [`Quota::sweep`].
pub const QUOTA_SWEEP: Duration = Duration::from_secs(60);

/// A number per minute and key, of which twice as many may come at once. Counted in this process.
#[derive(Debug)]
pub struct Quota<K: Hash + Eq + Clone>(DefaultKeyedRateLimiter<K>);

impl<K: Hash + Eq + Clone> Quota<K> {
    /// A quota of so many per minute; 0 counts as 1.
    pub fn per_minute(count: u32) -> Self {
        let count = NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let burst = count.saturating_mul(NonZeroU32::MIN.saturating_add(1));
        Self(RateLimiter::keyed(governor::Quota::per_minute(count).allow_burst(burst)))
    }

    /// Takes `count` of what is left to `key`. The refusal is typed: the asking backend tells it its client as 420
    /// `too-many-requests`. A count above twice the quota never fits.
    pub fn take(&self, key: &K, count: usize) -> Result<(), Status> {
        let Some(count) = u32::try_from(count).ok().and_then(NonZeroU32::new) else { return Ok(()) };
        match self.0.check_key_n(key, count) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(used_up()),
        }
    }

    /// Forgets keys whose quota is full again.
    pub fn sweep(&self) {
        self.0.retain_recent();
    }
}

fn used_up() -> Status {
    let row = label::TOO_MANY_REQUESTS;
    let text = "the quota of the calling backend is used up";
    error::status(Code::ResourceExhausted, Hop::PeerService, row.label, "", text)
}
