//! How much one other backend may ask for: in all, and about one user of ours.

use aldis_peers::{Origin, Quota};
use aldis_types::{Domain, UserId};
use tonic::Status;

use crate::config;

/// Counters per origin.
pub(crate) struct Quotas {
    prekeys: Quota<Domain>,
    prekeys_per_user: Quota<(Domain, UserId)>,
    searches: Quota<Domain>,
    handles: Quota<Domain>,
    connections: Quota<Domain>,
    connections_per_user: Quota<(Domain, UserId)>,
}

impl Quotas {
    pub(crate) fn new(config: &config::Quotas) -> Self {
        Self {
            prekeys: Quota::per_minute(config.prekeys),
            prekeys_per_user: Quota::per_minute(config.prekeys_per_user),
            searches: Quota::per_minute(config.searches),
            handles: Quota::per_minute(config.handles),
            connections: Quota::per_minute(config.connections),
            connections_per_user: Quota::per_minute(config.connections_per_user),
        }
    }

    /// Prekeys of some users: how many of each.
    pub(crate) fn prekeys(&self, origin: &Origin, wanted: &[(UserId, usize)]) -> Result<(), Status> {
        let total = wanted.iter().map(|(_, count)| count).sum();
        self.prekeys.take(origin.domain(), total)?;
        for (user, count) in wanted {
            self.prekeys_per_user.take(&(origin.domain().clone(), *user), *count)?;
        }
        Ok(())
    }

    /// One search.
    pub(crate) fn search(&self, origin: &Origin) -> Result<(), Status> {
        self.searches.take(origin.domain(), 1)
    }

    /// One look-up of a handle.
    pub(crate) fn handle(&self, origin: &Origin) -> Result<(), Status> {
        self.handles.take(origin.domain(), 1)
    }

    /// One connection request.
    pub(crate) fn connection(&self, origin: &Origin, to: UserId) -> Result<(), Status> {
        self.connections.take(origin.domain(), 1)?;
        self.connections_per_user.take(&(origin.domain().clone(), to), 1)
    }

    /// Forgets what is full again.
    pub(crate) fn sweep(&self) {
        self.prekeys.sweep();
        self.prekeys_per_user.sweep();
        self.searches.sweep();
        self.handles.sweep();
        self.connections.sweep();
        self.connections_per_user.sweep();
    }
}
