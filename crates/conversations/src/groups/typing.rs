//! Who is typing: told to open sockets of our users, never stored.

use aldis_api::Session;
use aldis_types::{ConversationId, Locality, Qualified};

use super::error::GroupError;
use crate::{
    app::App,
    events::Envelope,
    push::{Cause, Draft},
};

impl App {
    /// Tells the other members of ours. A conversation of another backend has no way yet to carry it.
    pub(crate) async fn typing(
        &self,
        session: &Session,
        conversation: Qualified<ConversationId>,
        status: &'static str,
    ) -> Result<(), GroupError> {
        let user = self.own_user(session.user);
        let id = match self.domain.locate(conversation.clone()) {
            Locality::Local(id) => *id.id(),
            Locality::Remote(_) if !self.is_member_elsewhere(&conversation, user.id).await? => {
                return Err(GroupError::NoConversation);
            }
            Locality::Remote(_) => return Err(GroupError::NotAcrossBackends),
        };
        let found = self.find_own(id).await?.ok_or(GroupError::NoConversation)?;
        found.member(&user).ok_or(GroupError::NoConversation)?;
        let others: Vec<_> = found.users_of(&self.domain).filter(|other| *other != user.id).collect();
        if others.is_empty() {
            return Ok(());
        }
        let event = Envelope { conversation: &conversation, from: &user }.typing(status);
        let cause = Cause { user: user.id, connection: session.connection };
        let mut draft = Draft::to_users(others, event, Some(cause));
        draft.transient = true;
        draft.native_push = false;
        let mut notification = draft.at(self.clock.now());
        notification.event_id = aldis_proto::convert::bytes_of(aldis_types::EventId::new(self.random.uuid()));
        if let Err(error) = self.pushes.push(vec![notification]).await {
            // Nobody misses a typing indicator.
            tracing::debug!(%error, "a typing indicator was not pushed");
        }
        Ok(())
    }
}
