//! Our users' places in conversations of other backends, compared with what the owners say, and brought in line with it.
//!
//! Guarantees: an owner is believed about its own conversations and asked about our own users alone; nothing is repaired
//! from a statement that was made at another moment than ours, which the place in the conversation's lane tells; nobody is
//! put into a conversation who is not connected with one of its members; what clients have to know is written with the
//! repair. One pass is bounded: what is left is done by the next.

mod digest;
mod peers;
mod repair;
pub(crate) mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use aldis_delivery::{Found, Reconcile, ReconcileError};
use aldis_storage::StoreError;
use aldis_types::Domain;
use async_trait::async_trait;

use self::{
    digest::{Users, bucket_of},
    peers::Statement,
    repair::Outcome,
    store::{ReconciliationStore, Side},
};
use crate::received::Received;

pub(crate) use digest::{BUCKETS, Digest};
pub(crate) use peers::PAGE;

/// Most conversations of one bucket that are compared.
const MAX_CONVERSATIONS: usize = 50_000;
/// Most conversations that one pass repairs.
const MAX_REPAIRS: usize = 500;

/// What the owner says of a conversation, and which of our users are in it here.
struct Difference {
    statement: Statement,
    ours: Users,
}

/// Compares and repairs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Memberships {
    received: Received,
    store: Arc<dyn ReconciliationStore>,
}

impl Memberships {
    pub(crate) fn new(received: Received, store: Arc<dyn ReconciliationStore>) -> Self {
        Self { received, store }
    }

    /// What the owner says of the conversations of a bucket in which not the same users of ours are; and whether that is
    /// all that differs.
    async fn differences(&self, domain: &Domain, bucket: u8) -> Result<(Vec<Difference>, bool), ReconcileError> {
        let backends = &self.received.app().backends;
        let Some(mut ours) = self.store.places(domain, bucket, MAX_CONVERSATIONS).await? else {
            tracing::warn!(peer.domain = %domain, bucket, "too many conversations to compare");
            return Ok((Vec::new(), false));
        };
        let mut found = Vec::new();
        let mut complete = false;
        let (mut after, mut listed) = (None, 0);
        while listed < MAX_CONVERSATIONS && found.len() <= MAX_REPAIRS {
            let (page, more) = backends.list_memberships(domain, bucket, after).await?;
            listed += page.len();
            after = page.last().map(|statement| statement.conversation.id);
            for statement in page {
                let ours = ours.remove(&statement.conversation.id).unwrap_or_default();
                if ours != statement.users {
                    found.push(Difference { statement, ours });
                }
            }
            if !more {
                complete = true;
                break;
            }
        }
        if complete {
            let (only_here, users): (Vec<_>, Vec<_>) = ours.into_iter().take(MAX_REPAIRS).unzip();
            let statements = backends.get_memberships(domain, &only_here).await?;
            found.extend(statements.into_iter().zip(users).map(|(statement, ours)| Difference { statement, ours }));
        }
        Ok((found, complete))
    }
}

#[async_trait]
impl Reconcile for Memberships {
    async fn known(&self) -> Result<Vec<Domain>, StoreError> {
        self.store.owners().await
    }

    async fn pass(&self, domain: &Domain, _both: bool) -> Result<Found, ReconcileError> {
        let (digests, compared) = self.store.digests(Side::Ours, domain).await?;
        let mut found = Found { compared, ..Found::default() };
        let mut left = MAX_REPAIRS;
        for bucket in self.received.app().backends.compare_memberships(domain, &digests).await? {
            let (differences, complete) = self.differences(domain, bucket).await?;
            found.waiting += u64::from(!complete);
            for difference in differences {
                found.differing += 1;
                if left == 0 {
                    found.waiting += 1;
                    continue;
                }
                left -= 1;
                match self.repair(difference).await? {
                    Outcome::Alike => found.differing -= 1,
                    Outcome::Repaired => found.repaired += 1,
                    Outcome::Waits => found.waiting += 1,
                }
            }
        }
        Ok(found)
    }
}
