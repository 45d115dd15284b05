//! How much one other backend may ask for: in all, and about one user of ours.

use std::{num::NonZeroU32, time::Duration};

use aldis_api::label;
use aldis_peers::Origin;
use aldis_proto::{error, federation::v1::Hop};
use aldis_types::{Domain, UserId};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tonic::{Code, Status};

use crate::config;

/// How often keys that no longer matter are forgotten.
pub(crate) const SWEEP: Duration = Duration::from_secs(60);

type Limiter<K> = DefaultKeyedRateLimiter<K>;

/// Counters per origin.
pub(crate) struct Quotas {
    prekeys: Limiter<Domain>,
    prekeys_per_user: Limiter<(Domain, UserId)>,
    searches: Limiter<Domain>,
    handles: Limiter<Domain>,
    connections: Limiter<Domain>,
    connections_per_user: Limiter<(Domain, UserId)>,
}

/// A quota per minute of which twice as much may be used at once.
fn limiter<K: std::hash::Hash + Eq + Clone>(per_minute: u32) -> Limiter<K> {
    let per_minute = NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN);
    let burst = per_minute.saturating_mul(NonZeroU32::MIN.saturating_add(1));
    RateLimiter::keyed(Quota::per_minute(per_minute).allow_burst(burst))
}

fn used_up() -> Status {
    let row = label::TOO_MANY_REQUESTS;
    error::status(
        Code::ResourceExhausted,
        Hop::PeerService,
        row.label,
        "",
        "the quota of the calling backend is used up",
    )
}

/// Takes `count` of a quota; a count above the burst never fits.
fn take<K: std::hash::Hash + Eq + Clone>(limiter: &Limiter<K>, key: &K, count: usize) -> Result<(), Status> {
    let Some(count) = u32::try_from(count).ok().and_then(NonZeroU32::new) else { return Ok(()) };
    match limiter.check_key_n(key, count) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(used_up()),
    }
}

impl Quotas {
    pub(crate) fn new(config: &config::Quotas) -> Self {
        Self {
            prekeys: limiter(config.prekeys),
            prekeys_per_user: limiter(config.prekeys_per_user),
            searches: limiter(config.searches),
            handles: limiter(config.handles),
            connections: limiter(config.connections),
            connections_per_user: limiter(config.connections_per_user),
        }
    }

    /// Prekeys of some users: how many of each.
    pub(crate) fn prekeys(&self, origin: &Origin, wanted: &[(UserId, usize)]) -> Result<(), Status> {
        let total = wanted.iter().map(|(_, count)| count).sum();
        take(&self.prekeys, origin.domain(), total)?;
        for (user, count) in wanted {
            take(&self.prekeys_per_user, &(origin.domain().clone(), *user), *count)?;
        }
        Ok(())
    }

    /// One search.
    pub(crate) fn search(&self, origin: &Origin) -> Result<(), Status> {
        take(&self.searches, origin.domain(), 1)
    }

    /// One look-up of a handle.
    pub(crate) fn handle(&self, origin: &Origin) -> Result<(), Status> {
        take(&self.handles, origin.domain(), 1)
    }

    /// One connection request.
    pub(crate) fn connection(&self, origin: &Origin, to: UserId) -> Result<(), Status> {
        take(&self.connections, origin.domain(), 1)?;
        take(&self.connections_per_user, &(origin.domain().clone(), to), 1)
    }

    /// Forgets what is full again.
    pub(crate) fn sweep(&self) {
        self.prekeys.retain_recent();
        self.prekeys_per_user.retain_recent();
        self.searches.retain_recent();
        self.handles.retain_recent();
        self.connections.retain_recent();
        self.connections_per_user.retain_recent();
    }
}
