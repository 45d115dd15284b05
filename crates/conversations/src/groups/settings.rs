//! What a user sets for himself in a conversation, ours or another backend's. Nobody else is told.

use aldis_api::Session;
use aldis_types::{ConversationId, Locality, Member, Qualified, UserId};

use super::{
    error::GroupError,
    model::{MAX_REF_BYTES, Settings, SettingsUpdate},
    store::Written,
};
use crate::{
    app::{App, LOCAL_DELIVERY},
    events::Envelope,
    push::{self, Cause, Draft},
};

impl SettingsUpdate {
    fn check(&self) -> Result<(), GroupError> {
        let texts = [&self.muted_ref, &self.archived_ref, &self.hidden_ref];
        if texts.into_iter().flatten().any(|text| text.len() > MAX_REF_BYTES) {
            return Err(GroupError::BadRequest("a reference is too long"));
        }
        if *self == Self::default() { Err(GroupError::BadRequest("nothing to update")) } else { Ok(()) }
    }
}

impl App {
    /// Changes the caller's settings and tells his other clients.
    pub(crate) async fn update_settings(
        &self,
        session: &Session,
        conversation: Qualified<ConversationId>,
        update: SettingsUpdate,
    ) -> Result<(), GroupError> {
        update.check()?;
        let user = self.own_user(session.user);
        let event = Envelope { conversation: &conversation, from: &user }.settings(&update);
        let cause = Cause { user: user.id, connection: session.connection };
        let draft = Draft::to_users([user.id], event, Some(cause));
        let lane = conversation.id;
        let write = Box::new(move |stamp: &super::store::Stamp| Written {
            outgoing: push::rows(lane, vec![draft], stamp.time),
            ..Written::default()
        });
        let delivery = match self.domain.locate(conversation) {
            Locality::Local(id) => {
                let committed = self.store.update_settings(*id.id(), user.id, update, write).await?;
                committed.map(|committed| committed.delivery)
            }
            Locality::Remote(id) => {
                self.memberships.update_settings(id.as_qualified().clone(), user.id, update, write).await?
            }
        };
        delivery.ok_or(GroupError::NoConversation)?.local(LOCAL_DELIVERY).await;
        Ok(())
    }

    /// The caller as a member with his settings; `None` when he is not one.
    pub(crate) async fn self_member(
        &self,
        user: UserId,
        conversation: Qualified<ConversationId>,
    ) -> Result<Option<(Member, Settings)>, GroupError> {
        let me = self.own_user(user);
        match self.get(user, conversation).await {
            Ok(seen) => Ok(seen.view(&self.domain, &me).map(|view| (view.me.clone(), view.settings.clone()))),
            Err(GroupError::NoConversation | GroupError::AccessDenied) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
