//! Federation with a backend ends: its users leave our conversations, ours leave its own, and what waits for it is dropped.
//!
//! What is left to do follows from the rows that are left, so that it can be cut off anywhere and goes on after a start. It
//! goes slowly, since others write too. Whoever is affected is told once, however many conversations that are.

use std::{collections::BTreeSet, time::Duration};

use aldis_delivery::{Outbox, ended_event_id};
use aldis_types::{ConversationId, Domain, EventId, Qualified, RemoteState, Timestamp, UserId};

use super::{
    effects::{self, Actor},
    error::GroupError,
    model::{Change, LeaveReason},
    store::{Stamp, Step, Written},
};
use crate::{app::App, push};

/// Conversations, or places in them, per step.
const PAGE: usize = 100;
/// Pause between two steps.
const PAUSE: Duration = Duration::from_millis(20);
/// How often it is looked again for what came in at the last moment.
const AGAIN: Duration = Duration::from_mins(10);
/// Pause after a failure of the store.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How often one conversation is tried anew because another change came between.
const MAX_CONFLICTS: usize = 16;

/// Cleans up behind every backend that is ended, for as long as it is polled.
pub(crate) async fn clean_up(app: App, outbox: Outbox) {
    let mut changes = app.policy.changes();
    loop {
        changes.mark_unchanged();
        let mut pause = AGAIN;
        for (domain, ended) in app.ended_backends() {
            if let Err(error) = app.end_backend(&outbox, &domain, ended).await {
                tracing::error!(peer.domain = %domain, %error, "cleaning up after the end of federation failed; trying again");
                pause = AFTER_FAILURE;
            }
        }
        // Once the sender is gone a change would be told for ever.
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Ok(()) = changes.changed() => {}
        }
    }
}

impl App {
    fn ended_backends(&self) -> Vec<(Domain, Timestamp)> {
        let policy = self.policy.current();
        let remotes = policy.remotes.iter().filter(|(_, remote)| remote.state == RemoteState::Ended);
        remotes.map(|(domain, remote)| (domain.clone(), remote.ended.unwrap_or_default())).collect()
    }

    fn is_ended(&self, domain: &Domain) -> bool {
        self.policy.current().remotes.get(domain).is_some_and(|remote| remote.state == RemoteState::Ended)
    }

    /// Does what is left to do, unless federation with the backend begins anew meanwhile.
    async fn end_backend(&self, outbox: &Outbox, domain: &Domain, ended: Timestamp) -> Result<(), GroupError> {
        let event = ended_event_id(&self.domain, domain, ended);
        let (mut conversations, mut places) = (0_usize, 0_usize);
        loop {
            // From the start each time: those that are done are not found any more.
            let page = self.store.list_with_backend(domain, None, PAGE).await?;
            for id in &page {
                if !self.is_ended(domain) {
                    return Ok(());
                }
                self.remove_backend(*id, domain, event).await?;
                tokio::time::sleep(PAUSE).await;
            }
            conversations += page.len();
            if page.is_empty() {
                break;
            }
        }
        while self.is_ended(domain) {
            let backend = domain.clone();
            let told = Box::new(move |users: &BTreeSet<UserId>| {
                vec![push::federation_ended(ConversationId::new(uuid::Uuid::nil()), users, &backend, event)]
            });
            let count = self.memberships.forget_some(domain, PAGE, told).await?;
            places += count;
            if count == 0 {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        if !self.is_ended(domain) {
            return Ok(());
        }
        let dropped = outbox.drop_backlog(domain).await?;
        if conversations + places > 0 || dropped > 0 {
            tracing::info!(peer.domain = %domain, conversations, places, dropped, "cleaned up after the end of federation");
        }
        Ok(())
    }

    /// Removes the members of a backend from one of our conversations. Those of other backends are told as of any removal;
    /// ours hear that federation ended.
    async fn remove_backend(&self, id: ConversationId, domain: &Domain, event: EventId) -> Result<(), GroupError> {
        for _ in 0..MAX_CONFLICTS {
            let Some(before) = self.find_own(id).await? else { return Ok(()) };
            let gone: Vec<Qualified<UserId>> = before
                .members
                .iter()
                .map(|stored| &stored.member.user)
                .filter(|user| user.domain == *domain)
                .cloned()
                .collect();
            let Some(first) = gone.first() else { return Ok(()) };
            let actor = Actor { user: first.clone(), connection: None };
            let change = Change::Remove { users: gone, reason: LeaveReason::Removed };
            let (edits, mut told) = self.effects_of(&before, &[effects::Step { actor, change }]);
            for effect in &mut told {
                effect.drafts.clear();
                effect.telling.leave_out(domain);
            }
            let users: BTreeSet<UserId> = before.users_of(&self.domain).collect();
            let backend = domain.clone();
            let write = move |stamp: &Stamp| {
                let mut outgoing = effects::rows(told, stamp);
                if !users.is_empty() {
                    outgoing.push(push::federation_ended(id, &users, &backend, event));
                }
                Written { outgoing, ..Written::default() }
            };
            match self.store.change(id, before.version, edits, None, None, Box::new(write)).await? {
                Step::Done(_) | Step::Answered(_) => return Ok(()),
                Step::Conflict => {}
            }
        }
        Err(GroupError::Busy)
    }
}
