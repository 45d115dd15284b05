//! Who is typing: told to open sockets, never stored. A word that is lost is made good by nobody.

use std::{sync::Arc, time::Duration};

use aldis_api::Session;
use aldis_peers::FAN_OUT;
use aldis_proto::convert;
use aldis_types::{ConversationId, Domain, EventId, Locality, Qualified, Timestamp, UserId};
use futures::{StreamExt, stream};
use tokio::sync::Semaphore;
use tracing::Instrument;

use super::{effects::Actor, error::GroupError, model::Typing};
use crate::{
    app::App,
    backends::TypingTold,
    events::Envelope,
    push::Draft,
    received::store::{MemberChange, StoredRecipients},
};

/// How long another backend may take to hear of it.
const TELLING: Duration = Duration::from_secs(5);
/// Most words that are being told to other backends at the same time; further ones are lost.
const MAX_TELLING: usize = 64;

/// Bounds what is under way to other backends.
#[derive(Clone)]
pub(crate) struct TypingLimit(Arc<Semaphore>);

impl Default for TypingLimit {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_TELLING)))
    }
}

impl App {
    /// One of our users types: the other members are told, by the owner of the conversation.
    pub(crate) async fn typing(
        &self,
        session: &Session,
        conversation: Qualified<ConversationId>,
        typing: Typing,
    ) -> Result<(), GroupError> {
        let actor = Actor { user: self.own_user(session.user), connection: Some(session.connection) };
        match self.domain.locate(conversation) {
            Locality::Local(id) => self.typing_here(*id.id(), &actor, typing).await,
            Locality::Remote(id) if !self.is_member_elsewhere(id.as_qualified(), session.user).await? => {
                Err(GroupError::NoConversation)
            }
            Locality::Remote(id) if !self.policy.allows(id.domain()) => Err(GroupError::Denied(id.domain().clone())),
            Locality::Remote(id) => match self.backends.typing(&id, &actor, typing).await? {
                TypingTold::Told => Ok(()),
                TypingTold::Refused(label) => Err(GroupError::Refused(label)),
            },
        }
    }

    /// A member of a conversation of ours types, whatever his backend.
    pub(crate) async fn typing_here(
        &self,
        id: ConversationId,
        actor: &Actor,
        typing: Typing,
    ) -> Result<(), GroupError> {
        let found = self.find_own(id).await?.ok_or(GroupError::NoConversation)?;
        found.member(&actor.user).ok_or(GroupError::NoConversation)?;
        let now = self.clock.now();
        let conversation = self.domain.own(id).into_qualified();
        let ours = found.users_of(&self.domain).collect();
        self.show_typing(&conversation, &actor.user, ours, typing, now).await;
        let backends = found.backends(&self.domain).into_iter().filter(|domain| self.policy.allows(domain)).collect();
        self.tell_typing(backends, id, actor.user.clone(), typing, now);
        Ok(())
    }

    /// A member of another backend's conversation types, as its owner says.
    pub(crate) async fn typing_elsewhere(
        &self,
        conversation: &Qualified<ConversationId>,
        user: &Qualified<UserId>,
        typing: Typing,
        time: Timestamp,
    ) -> Result<(), GroupError> {
        let stored = self.find_elsewhere(conversation).await?;
        let stored = stored.as_deref();
        if user.domain == self.domain && !stored.is_some_and(|stored| stored.contains(user.id)) {
            return Ok(());
        }
        let recipients = StoredRecipients::everybody(stored, &MemberChange::default());
        self.show_typing(conversation, user, recipients.iter().collect(), typing, time).await;
        Ok(())
    }

    /// On the open sockets of these users of ours, the one who types excepted.
    async fn show_typing(
        &self,
        conversation: &Qualified<ConversationId>,
        user: &Qualified<UserId>,
        mut recipients: Vec<UserId>,
        typing: Typing,
        time: Timestamp,
    ) {
        recipients.retain(|recipient| user.domain != self.domain || *recipient != user.id);
        if recipients.is_empty() {
            return;
        }
        let event = Envelope { conversation, from: user }.typing(typing);
        let draft = Draft { transient: true, native_push: false, ..Draft::to_users(recipients, event, None) };
        let mut notification = draft.at(time);
        notification.event_id = convert::bytes_of(EventId::new(self.random.uuid()));
        if let Err(error) = self.pushes.push(vec![notification]).await {
            tracing::debug!(%error, "a typing indicator was not pushed");
        }
    }

    /// Behind the back of the one who types: a backend that is slow must not slow him down.
    fn tell_typing(
        &self,
        backends: Vec<Domain>,
        id: ConversationId,
        user: Qualified<UserId>,
        typing: Typing,
        time: Timestamp,
    ) {
        if backends.is_empty() {
            return;
        }
        let Ok(permit) = self.typing_limit.0.clone().try_acquire_owned() else {
            tracing::debug!("a typing indicator is left out: too many are under way");
            return;
        };
        let app = self.clone();
        let telling = async move {
            let tell = async |domain: Domain| {
                if let Err(error) = app.backends.on_typing(&domain, id, &user, typing, time, TELLING).await {
                    tracing::debug!(peer.domain = %domain, %error, "a backend did not hear who types");
                }
            };
            stream::iter(backends).for_each_concurrent(FAN_OUT, tell).await;
            drop(permit);
        };
        tokio::spawn(telling.in_current_span());
    }
}
