//! What is missing from conversations of another backend, for good: our users in them are told that they missed something.

use std::{collections::BTreeSet, time::Duration};

use aldis_delivery::{Envelope, Positions, Verdict, missed_event_id, renewed_event_id};
use aldis_storage::StoreError;
use aldis_types::{ConversationId, Domain, Qualified, UserId};
use uuid::Uuid;

use super::{
    Received,
    store::{MemberChange, StoredRecipients},
};
use crate::push;

/// Places of users per step.
const PAGE: usize = 500;
/// Pause between two steps: others write too.
const PAUSE: Duration = Duration::from_millis(5);

impl Received {
    /// A part of a conversation's lane was dropped before it came.
    pub(super) async fn miss(&self, origin: &Domain, envelope: Envelope, positions: &Positions) -> Verdict {
        let lane = envelope.lane;
        let id = Qualified::new(ConversationId::new(Uuid::from_bytes(lane)), origin.clone());
        let stored = match self.app.find_elsewhere(&id).await {
            Ok(stored) => stored,
            Err(error) => {
                tracing::warn!(%error, "what was dropped by another backend waits");
                return Verdict::Deferred;
            }
        };
        let recipients = StoredRecipients::everybody(stored.as_deref(), &MemberChange::default());
        tracing::warn!(peer.domain = %origin, conversation.id = %id.id, "another backend dropped what was for users here");
        let event = missed_event_id(envelope.event_id);
        let outgoing = push::missed(id.id, recipients.iter(), event);
        let told = !outgoing.is_empty();
        let position = (positions.clone(), envelope);
        match self.app.memberships.apply_event(id, MemberChange::default(), position, outgoing).await {
            Ok(delivery) => {
                if told {
                    self.watch(origin, lane, delivery).await;
                }
                Verdict::Applied
            }
            Err(error) => {
                tracing::error!(%error, "what was dropped by another backend cannot be noted");
                Verdict::Deferred
            }
        }
    }

    /// Another backend lost its store: everybody of ours who is in a conversation of its own is told.
    pub(super) async fn miss_all(&self, origin: &Domain, incarnation: &[u8; 16]) -> Result<(), StoreError> {
        let event = renewed_event_id(origin, incarnation);
        let memberships = &self.app.memberships;
        let mut after = None;
        loop {
            let places = memberships.places(origin, after, PAGE).await?;
            let Some(last) = places.last() else { return Ok(()) };
            after = Some(*last);
            let users: BTreeSet<UserId> = places.iter().map(|(_, user)| *user).collect();
            // Each queue takes an event id once.
            drop(memberships.tell(push::missed(last.0, users.into_iter(), event)).await?);
            tokio::time::sleep(PAUSE).await;
        }
    }
}
