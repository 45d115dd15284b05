//! How much one other backend may ask for: in all, and about one target.

use aldis_peers::{Origin, Quota};
use aldis_types::{Domain, Handle, UserId};
use tonic::Status;

use crate::config;

/// Counters per origin.
pub(crate) struct Quotas {
    prekeys: Quota<Domain>,
    prekeys_per_user: Quota<(Domain, UserId)>,
    searches: Quota<Domain>,
    searches_per_term: Quota<(Domain, String)>,
    handles: Quota<Domain>,
    handles_per_handle: Quota<(Domain, Handle)>,
    connections: Quota<Domain>,
    connections_per_user: Quota<(Domain, UserId)>,
    comparisons: Quota<Domain>,
}

impl Quotas {
    pub(crate) fn new(config: &config::Quotas) -> Self {
        Self {
            prekeys: Quota::per_minute(config.prekeys),
            prekeys_per_user: Quota::per_minute(config.prekeys_per_user),
            searches: Quota::per_minute(config.searches),
            searches_per_term: Quota::per_minute(config.searches_per_term),
            handles: Quota::per_minute(config.handles),
            handles_per_handle: Quota::per_minute(config.handles_per_handle),
            connections: Quota::per_minute(config.connections),
            connections_per_user: Quota::per_minute(config.connections_per_user),
            comparisons: Quota::per_minute(config.comparisons),
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

    /// One search. The term must be bounded: it is remembered for a while.
    pub(crate) fn search(&self, origin: &Origin, term: &str) -> Result<(), Status> {
        self.searches.take(origin.domain(), 1)?;
        self.searches_per_term.take(&(origin.domain().clone(), term.to_lowercase()), 1)
    }

    /// One look-up of a handle.
    pub(crate) fn handle(&self, origin: &Origin, handle: &Handle) -> Result<(), Status> {
        self.handles.take(origin.domain(), 1)?;
        self.handles_per_handle.take(&(origin.domain().clone(), handle.clone()), 1)
    }

    /// One connection request.
    pub(crate) fn connection(&self, origin: &Domain, to: UserId) -> Result<(), Status> {
        self.connections.take(origin, 1)?;
        self.connections_per_user.take(&(origin.clone(), to), 1)
    }

    /// One page of a comparison of connections.
    pub(crate) fn comparison(&self, origin: &Origin) -> Result<(), Status> {
        self.comparisons.take(origin.domain(), 1)
    }

    /// Forgets what is full again.
    pub(crate) fn sweep(&self) {
        self.prekeys.sweep();
        self.prekeys_per_user.sweep();
        self.searches.sweep();
        self.searches_per_term.sweep();
        self.handles.sweep();
        self.handles_per_handle.sweep();
        self.connections.sweep();
        self.connections_per_user.sweep();
        self.comparisons.sweep();
    }
}
