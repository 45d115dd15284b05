//! The derived id of the conversation between two users: both backends reach the same one without asking.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{ConversationId, Qualified, UserId};

/// For which protocol the conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OneToOneProtocol {
    /// Proteus.
    Proteus,
    /// MLS.
    Mls,
}

impl OneToOneProtocol {
    const fn namespace(self) -> Uuid {
        match self {
            Self::Proteus => Uuid::from_u128(0x9a51_edb8_060c_0d9a_0c29_50a8_5d15_2982),
            Self::Mls => Uuid::from_u128(0x9558_9dd5_b045_40dc_a6aa_dd9c_4fad_1c2f),
        }
    }
}

/// The one-to-one conversation of two users, whatever their order.
///
/// SHA-256 over namespace (16 raw bytes), then for each user, ordered by (domain, id), the 36-character text of the id
/// and the domain. The first 16 bytes with version 5 and RFC variant are the id; the owner is the first user's domain
/// when the top bit of byte 16 is 0, else the second's.
pub fn one_to_one(
    a: &Qualified<UserId>,
    b: &Qualified<UserId>,
    protocol: OneToOneProtocol,
) -> Qualified<ConversationId> {
    let (first, second) = if a <= b { (a, b) } else { (b, a) };
    let mut hash = Sha256::new();
    hash.update(protocol.namespace().as_bytes());
    for user in [first, second] {
        hash.update(user.id.to_string().as_bytes());
        hash.update(user.domain.as_str().as_bytes());
    }
    let digest = hash.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = (bytes[6] & 0x0f) | 0x50;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let owner = if digest[16] & 0x80 == 0 { &first.domain } else { &second.domain };
    Qualified::new(ConversationId::new(Uuid::from_bytes(bytes)), owner.clone())
}
