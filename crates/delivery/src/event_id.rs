//! Ids of events: made from where an event stands, so that a crash makes the same one again.

use aldis_types::{Domain, EventId, Timestamp};
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

/// The id of the event by which clients hear that federation with `remote` ended at this time: the same from whichever
/// of our services, so that a client gets it once.
pub fn ended_event_id(origin: &Domain, remote: &Domain, ended: Timestamp) -> EventId {
    let mut hash = Sha256::new();
    hash.update(b"federation.delete");
    for domain in [origin, remote] {
        hash.update([0]);
        hash.update(domain.as_str().as_bytes());
    }
    hash.update([0]);
    hash.update(ended.millis().to_be_bytes());
    first_16(hash)
}

/// The id by which the clients concerned are told that what led up to an envelope was dropped.
pub fn missed_event_id(id: EventId) -> EventId {
    derive_event_id(id, u32::MAX)
}

/// The id by which clients are told that another backend lost its store and goes on with another one.
pub fn renewed_event_id(origin: &Domain, incarnation: &[u8; 16]) -> EventId {
    let mut hash = Sha256::new();
    hash.update(b"store-renewed");
    hash.update([0]);
    hash.update(origin.as_str().as_bytes());
    hash.update([0]);
    hash.update(incarnation);
    first_16(hash)
}

fn first_16(hash: Sha256) -> EventId {
    let digest = hash.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    EventId::new(uuid::Uuid::from_bytes(bytes))
}
