//! The outbox: what a change has to tell other backends and our own other services, written with the change itself and
//! carried until it is acknowledged.
//!
//! A service appends rows in the very job that writes its change ([`Outbox::append`]), so that no crash can part the
//! two. Relays carry them: to our own services in order of commit, to each peer over a long-lived stream in order per
//! lane, with a window, retries, and deletion on acknowledgement. The receiving side ([`Receive`]) sees every envelope
//! exactly once in effect: it is applied only if it is the next of its lane, and its position is committed with the
//! effect. `proto/README.md` documents the stream for other implementations.

mod backlog;
mod bounds;
mod comparing;
mod condition;
mod config;
mod dead;
mod ending;
mod event_id;
mod fresh;
mod local;
mod operator;
mod outbox;
mod pausing;
mod peer;
mod positions;
mod receiver;
mod reconciling;
mod renewal;
mod schema;
mod trace;
mod window;

pub use backlog::{Backlog, backlog};
pub use comparing::{LaneEnd, LaneEnds, Marks, Place};
pub use config::Config;
pub use dead::{DEAD_LETTER_AGE, DEAD_LETTER_BYTES};
pub use event_id::{derive_event_id, ended_event_id, event_id, missed_event_id, renewed_event_id};
pub use operator::{
    OutboxServer, conversations_outbox, conversations_outbox_at_rest, conversations_outbox_to_read, users_outbox,
};
pub use outbox::{Appended, Component, Delivery, LocalService, Outbox, Outgoing, Peer, Relays};
pub use positions::Positions;
pub use receiver::{Envelope, MAX_INCARNATIONS, Receive, Receiving, Verdict, conversations_server, users_server};
pub use reconciling::{
    Arrivals, Found, Reconcile, ReconcileError, Reconciler, ReconciliationServer, conversations_reconciliation,
    users_reconciliation,
};
pub use trace::{Trace, continue_trace, traceparent};

#[cfg(test)]
mod tests;
