//! A deleted user of ours leaves every conversation.

use aldis_types::{ConversationId, ConversationType, Qualified, UserId};

use super::{
    effects::{self, Actor, Effect},
    error::GroupError,
    model::{Change, LeaveReason},
    store::{Edit, Step, Written},
};
use crate::app::App;

/// Conversations per page.
const PAGE: usize = 500;
/// How often one is tried anew because another change came between.
const MAX_CONFLICTS: usize = 16;

impl App {
    /// Removes a user from our conversations, whose other members are told, and forgets his place in those of other
    /// backends. Idempotent.
    pub(crate) async fn remove_user(&self, user: UserId) -> Result<(), GroupError> {
        let mut after = None;
        loop {
            let page = self.store.list_own(user, after, PAGE).await?;
            for id in &page {
                self.remove_from_own(*id, user).await?;
            }
            after = page.last().copied();
            if page.len() < PAGE {
                break;
            }
        }
        let mut after: Option<Qualified<ConversationId>> = None;
        loop {
            let page = self.store.list_remote(user, after.clone(), PAGE).await?;
            for id in &page {
                self.memberships.forget(id.clone(), user).await?;
            }
            after = page.last().cloned();
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }

    async fn remove_from_own(&self, id: ConversationId, user: UserId) -> Result<(), GroupError> {
        let user = self.own_user(user);
        for _ in 0..MAX_CONFLICTS {
            let Some(before) = self.find_own(id).await? else { return Ok(()) };
            if before.member(&user).is_none() {
                return Ok(());
            }
            let edit = Edit { remove: vec![user.clone()], ..Edit::default() };
            let after = edit.apply(&before);
            let actor = Actor { user: user.clone(), connection: None };
            let change = Change::Remove { users: vec![user.clone()], reason: LeaveReason::UserDeleted };
            let effect: Option<Effect> = (before.metadata.kind == ConversationType::Regular)
                .then(|| effects::of_change(&self.domain, &before, &after, &actor, &change));
            let write = move |stamp: &_| Written {
                outgoing: effect.map(|effect| effect.rows(stamp)).unwrap_or_default(),
                ..Written::default()
            };
            match self.store.change(id, before.version, edit, None, None, Box::new(write)).await? {
                Step::Done(_) | Step::Answered(_) => return Ok(()),
                Step::Conflict => {}
            }
        }
        Err(GroupError::Busy)
    }
}
