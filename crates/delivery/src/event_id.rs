//! Ids of events: made from where an event stands, so that a crash makes the same one again.

use aldis_types::{Domain, EventId};
use sha2::{Digest, Sha256};

/// The id of an envelope: the first 16 bytes of SHA-256 over origin, a zero byte, incarnation (16 bytes), component, a
/// zero byte, lane (16 bytes) and sequence (8 bytes, big-endian).
pub fn event_id(origin: &Domain, incarnation: &[u8; 16], component: &str, lane: &[u8; 16], sequence: u64) -> EventId {
    let mut hash = Sha256::new();
    hash.update(origin.as_str().as_bytes());
    hash.update([0]);
    hash.update(incarnation);
    hash.update(component.as_bytes());
    hash.update([0]);
    hash.update(lane);
    hash.update(sequence.to_be_bytes());
    first_16(hash)
}

/// Distinct ids for several notifications of one event; `index` counts from 0.
pub fn derive_event_id(id: EventId, index: u32) -> EventId {
    let mut hash = Sha256::new();
    hash.update(id.as_bytes());
    hash.update(index.to_be_bytes());
    first_16(hash)
}

fn first_16(hash: Sha256) -> EventId {
    let digest = hash.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    EventId::new(uuid::Uuid::from_bytes(bytes))
}
