//! Changes of conversations: decided here for our own, asked of the owner (`owner.rs`) for others.

use std::sync::Arc;

use aldis_api::Session;
use aldis_types::{ConversationId, Locality, Qualified, UserId};
use bytes::Bytes;

use super::{
    effects::{self, Actor, Telling},
    error::GroupError,
    model::{Action, Change, Conversation},
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
    Changed {
        stamp: Stamp,
        change: Change,
        telling: Box<Telling>,
    },
    Unchanged,
    /// It was made before, by a request with the same key; its answer.
    Answered(Bytes),
}

impl Change {
    /// The rows that change.
    fn edit(&self, before: &Conversation) -> Edit {
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
                Outcome::Changed { stamp, change, .. } => (stamp.time, change),
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
            let Some(change) = rules::plan(&before, &actor.user, action, self.config.max_members)? else {
                return Ok(Outcome::Unchanged);
            };
            let change = self.screened(&before, &actor.user, change).await?;
            let (step, telling) = self.commit_change(&before, actor, &change, key).await?;
            match step {
                Step::Done(committed) => {
                    committed.delivery.local(LOCAL_DELIVERY).await;
                    metrics::counter!("aldis_conversations_changed_total").increment(1);
                    return Ok(Outcome::Changed { stamp: committed.stamp, change, telling });
                }
                Step::Answered(answer) => return Ok(Outcome::Answered(answer)),
                Step::Conflict => {}
            }
        }
        Err(GroupError::Busy)
    }

    /// Takes those off who cannot be added; an error when nobody is left.
    async fn screened(
        &self,
        before: &Arc<Conversation>,
        actor: &Qualified<UserId>,
        change: Change,
    ) -> Result<Change, GroupError> {
        let Change::Add(mut members) = change else { return Ok(change) };
        let users: Vec<_> = members.iter().map(|member| member.user.clone()).collect();
        let refused = self.screen(actor, &users, &before.backends(&self.domain)).await?;
        members.retain(|member| !refused.contains(&member.user));
        if members.is_empty() { Err(GroupError::NotConnected) } else { Ok(Change::Add(members)) }
    }

    async fn commit_change(
        &self,
        before: &Conversation,
        actor: &Actor,
        change: &Change,
        key: Option<AnswerKey>,
    ) -> Result<(Step, Box<Telling>), GroupError> {
        let edit = change.edit(before);
        let after = edit.apply(before);
        let effect = effects::of_change(&self.domain, before, &after, actor, change);
        let telling = Box::new(effect.telling.clone());
        let asking = actor.user.domain.clone();
        let write = move |stamp: &_| {
            let answer = if key.is_some() { effect.telling.answer(&asking, stamp) } else { Bytes::new() };
            Written { outgoing: effect.rows(stamp), answer }
        };
        let step = self.store.change(before.id, before.version, edit, None, key, Box::new(write)).await?;
        Ok((step, telling))
    }
}
