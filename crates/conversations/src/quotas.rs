//! How much one other backend may ask for: in all, and about one user of ours.

use std::{collections::BTreeSet, sync::Arc};

use aldis_peers::{QUOTA_SWEEP, Quota};
use aldis_types::{Domain, UserId};
use tonic::Status;

use crate::config;

/// Pages that one comparison of everything counts as.
pub(crate) const WHOLE: usize = 20;

/// Counters per origin.
pub(crate) struct Quotas {
    invites: Quota<Domain>,
    invites_per_user: Quota<(Domain, UserId)>,
    comparisons: Quota<Domain>,
}

impl Quotas {
    pub(crate) fn new(config: &config::Quotas) -> Self {
        Self {
            invites: Quota::per_minute(config.invites),
            invites_per_user: Quota::per_minute(config.invites_per_user),
            comparisons: Quota::per_minute(config.comparisons),
        }
    }

    /// One question whether these users may be added to a conversation. One about nobody, which only asks whom we
    /// federate with, counts as one about somebody.
    pub(crate) fn invite(&self, origin: &Domain, invitees: &BTreeSet<UserId>) -> Result<(), Status> {
        self.invites.take(origin, invitees.len().max(1))?;
        invitees.iter().try_for_each(|user| self.invites_per_user.take(&(origin.clone(), *user), 1))
    }

    /// One comparison of everything, which reads all there is about the origin.
    pub(crate) fn comparison(&self, origin: &Domain) -> Result<(), Status> {
        self.comparisons.take(origin, WHOLE)
    }

    /// A page of what is compared.
    pub(crate) fn compared_page(&self, origin: &Domain) -> Result<(), Status> {
        self.comparisons.take(origin, 1)
    }

    /// Forgets, for as long as it is polled, what is full again.
    pub(crate) async fn keep_small(self: Arc<Self>) {
        loop {
            tokio::time::sleep(QUOTA_SWEEP).await;
            self.invites.sweep();
            self.invites_per_user.sweep();
            self.comparisons.sweep();
        }
    }
}
