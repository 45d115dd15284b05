//! Changes of conversations: decided here for our own, asked of the owner (`owner.rs`) for others.

use std::{collections::BTreeSet, sync::Arc};

use aldis_api::Session;
use aldis_types::{AccessRole, ConversationId, Locality, Qualified, UserId};
use bytes::Bytes;

use super::{
    effects::{self, Actor, Effect, Telling},
    error::GroupError,
    model::{Action, Change, Conversation, LeaveReason},
    rules,
    store::{AnswerKey, Edit, Stamp, Step, Written},
};
use crate::{
    app::{App, LOCAL_DELIVERY},
    events::Envelope,
};

/// How often a change is planned anew because another one came between.
const MAX_CONFLICTS: usize = 16;

/// What became of a change of a conversation of ours.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The first change of the step; further ones may have followed it.
    Changed {
        stamp: Stamp,
        change: Box<Change>,
        telling: Box<Telling>,
    },
    Unchanged,
    /// It was made before, by a request with the same key; its answer.
    Answered(Bytes),
}

impl Change {
    /// The rows that change.
    pub(super) fn edit(&self, before: &Conversation) -> Edit {
        let metadata = || before.metadata.clone();
        match self {
            Self::Add(users) => Edit { add: users.clone(), ..Edit::default() },
            Self::Remove { users, .. } => Edit { remove: users.clone(), ..Edit::default() },
            Self::SetRole(member) => Edit { role: Some(member.clone()), ..Edit::default() },
            Self::Rename(name) => {
                let mut metadata = metadata();
                metadata.name = Some(name.clone());
                Edit { metadata: Some(metadata), ..Edit::default() }
            }
            Self::SetMessageTimer(timer) => {
                let mut metadata = metadata();
                metadata.message_timer = *timer;
                Edit { metadata: Some(metadata), ..Edit::default() }
            }
            Self::SetReceiptMode(mode) => {
                let mut metadata = metadata();
                metadata.receipt_mode = Some(*mode);
                Edit { metadata: Some(metadata), ..Edit::default() }
            }
            Self::SetAccess { access, roles } => {
                let mut metadata = metadata();
                metadata.access.clone_from(access);
                metadata.access_roles.clone_from(roles);
                Edit { metadata: Some(metadata), ..Edit::default() }
            }
        }
    }
}

impl App {
    /// Changes a conversation for one of our users; the event, `None` when nothing changed.
    pub(crate) async fn update(
        &self,
        session: &Session,
        conversation: Qualified<ConversationId>,
        action: Action,
    ) -> Result<Option<Vec<u8>>, GroupError> {
        let actor = Actor { user: self.own_user(session.user), connection: Some(session.connection) };
        let (time, change) = match self.domain.locate(conversation.clone()) {
            Locality::Local(local) => match self.update_own(*local.id(), &actor, &action, None).await? {
                Outcome::Changed { stamp, change, .. } => (stamp.time, *change),
                Outcome::Unchanged | Outcome::Answered(_) => return Ok(None),
            },
            Locality::Remote(remote) => match self.ask_owner(&remote, &actor, action).await? {
                Some(changed) => changed,
                None => return Ok(None),
            },
        };
        Ok(Some(Envelope { conversation: &conversation, from: &actor.user }.changed(&change).at(time)))
    }

    /// Changes a conversation of ours for a member of any backend. With a key, a retry gets the first answer.
    pub(crate) async fn update_own(
        &self,
        id: ConversationId,
        actor: &Actor,
        action: &Action,
        key: Option<AnswerKey>,
    ) -> Result<Outcome, GroupError> {
        let _turn = match key {
            Some(key) => Some(self.in_progress.enter(key).await),
            None => None,
        };
        if let Some(key) = key
            && let Some(answer) = self.store.answer(key).await?
        {
            return Ok(Outcome::Answered(answer));
        }
        for _ in 0..MAX_CONFLICTS {
            let before = self.find_own(id).await?.ok_or(GroupError::NoConversation)?;
            let changes = rules::plan(&before, &actor.user, action, self.config.max_members)?;
            let changes = self.screened(&before, &actor.user, changes).await?;
            let steps: Vec<_> =
                changes.into_iter().map(|change| effects::Step { actor: actor.clone(), change }).collect();
            let Some(first) = steps.first() else { return Ok(Outcome::Unchanged) };
            let (edits, effects) = self.effects_of(&before, &steps);
            let Some(telling) = effects.first().map(|effect| Box::new(effect.telling.clone())) else {
                return Ok(Outcome::Unchanged);
            };
            match self.commit_changes(&before, &actor.user, edits, effects, key).await? {
                Step::Done(committed) => {
                    committed.delivery.local(LOCAL_DELIVERY).await;
                    metrics::counter!("aldis_conversations_changed_total").increment(1);
                    let change = Box::new(first.change.clone());
                    return Ok(Outcome::Changed { stamp: committed.stamp, change, telling });
                }
                Step::Answered(answer) => return Ok(Outcome::Answered(answer)),
                Step::Conflict => {}
            }
        }
        Err(GroupError::Busy)
    }

    /// Takes those off who cannot be added, an error when nobody is left; and adds that those go who may not stay.
    async fn screened(
        &self,
        before: &Arc<Conversation>,
        actor: &Qualified<UserId>,
        changes: Vec<Change>,
    ) -> Result<Vec<Change>, GroupError> {
        let mut screened = Vec::with_capacity(changes.len());
        for change in changes {
            match change {
                Change::Add(mut members) => {
                    let users: Vec<_> = members.iter().map(|member| member.user.clone()).collect();
                    let refused = self.screen(actor, &users, &before.backends(&self.domain)).await?;
                    members.retain(|member| !refused.contains(&member.user));
                    if members.is_empty() {
                        return Err(GroupError::NotConnected);
                    }
                    screened.push(Change::Add(members));
                }
                Change::SetAccess { access, roles } => {
                    let excluded = self.excluded_by(before, &roles).await?;
                    screened.push(Change::SetAccess { access, roles });
                    if !excluded.is_empty() {
                        rules::require_removal(before, actor)?;
                        screened.push(Change::Remove { users: excluded, reason: LeaveReason::Removed });
                    }
                }
                other => screened.push(other),
            }
        }
        Ok(screened)
    }

    /// Members who may not be in a conversation with these access roles: accounts of ours without an address, when it is
    /// closed to guests. Other backends let only accounts with an address be added.
    async fn excluded_by(
        &self,
        before: &Conversation,
        roles: &[AccessRole],
    ) -> Result<Vec<Qualified<UserId>>, GroupError> {
        if roles.contains(&AccessRole::Guest) {
            return Ok(Vec::new());
        }
        let own: BTreeSet<_> = before.users_of(&self.domain).collect();
        let guests = self.users.guests(&own).await?;
        Ok(guests.into_iter().map(|user| self.own_user(user)).collect())
    }

    /// The rows that change and what others are told, step by step.
    pub(super) fn effects_of(&self, before: &Conversation, steps: &[effects::Step]) -> (Vec<Edit>, Vec<Effect>) {
        let mut edits = Vec::with_capacity(steps.len());
        let mut told = Vec::with_capacity(steps.len());
        let mut current = before.clone();
        for step in steps {
            let edit = step.change.edit(&current);
            let after = edit.apply(&current);
            told.push(effects::of_change(&self.domain, &current, &after, &step.actor, &step.change));
            edits.push(edit);
            current = after;
        }
        (edits, told)
    }

    async fn commit_changes(
        &self,
        before: &Conversation,
        asking: &Qualified<UserId>,
        edits: Vec<Edit>,
        told: Vec<Effect>,
        key: Option<AnswerKey>,
    ) -> Result<Step, GroupError> {
        let asking = asking.domain.clone();
        let write = move |stamp: &Stamp| {
            let answer = told.first().filter(|_| key.is_some()).map(|effect| effect.telling.answer(&asking, stamp));
            Written { outgoing: effects::rows(told, stamp), answer: answer.unwrap_or_default(), ..Written::default() }
        };
        Ok(self.store.change(before.id, before.version, edits, None, key, Box::new(write)).await?)
    }
}
