//! Digests of memberships, as both sides compute them.

use aldis_types::{ConversationId, UserId};
use sha2::{Digest as _, Sha256};

/// Memberships are compared in so many parts, by the first byte of the conversation's id.
pub(crate) const BUCKETS: usize = 256;

/// Of the memberships of one bucket.
pub(crate) type Digest = [u8; 32];

/// Takes memberships in ascending order.
#[derive(Default)]
pub(crate) struct Digester {
    hash: Sha256,
    count: u64,
}

impl Digester {
    /// One more.
    pub(crate) fn add(&mut self, conversation: &[u8; 16], user: &[u8; 16]) {
        self.hash.update(conversation);
        self.hash.update(user);
        self.count += 1;
    }

    /// The digest, and of how many.
    pub(crate) fn finish(self) -> (Digest, u64) {
        (self.hash.finalize().into(), self.count)
    }
}

/// The bucket of a conversation.
pub(crate) fn bucket_of(conversation: ConversationId) -> u8 {
    conversation.as_bytes()[0]
}

/// Users of one backend in a conversation, in order.
pub(crate) type Users = std::collections::BTreeSet<UserId>;
