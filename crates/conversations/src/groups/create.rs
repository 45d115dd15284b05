//! New conversations.

use std::{collections::BTreeSet, sync::Arc};

use aldis_api::Session;
use aldis_types::{
    Access, AccessRole, ConversationId, ConversationType, Member, Protocol, Qualified, RoleName, UserId,
};

use super::{
    effects::{self, Actor},
    error::GroupError,
    model::{Conversation, Metadata, Settings, StoredMember},
    rules,
    store::{Step, Written},
};
use crate::app::{App, LOCAL_DELIVERY};

/// What a user wants to create.
#[derive(Debug, Clone)]
pub(crate) struct NewGroup {
    pub name: Option<String>,
    /// Who else, the creator not included.
    pub users: BTreeSet<Qualified<UserId>>,
    /// Role of everybody but the creator.
    pub role: RoleName,
    pub access: Vec<Access>,
    pub access_roles: Vec<AccessRole>,
    pub message_timer: Option<i64>,
    pub receipt_mode: Option<i32>,
}

impl NewGroup {
    fn check(&self, creator: &Qualified<UserId>, max_members: usize) -> Result<(), GroupError> {
        if let Some(name) = &self.name {
            rules::check_name(name)?;
        }
        rules::check_role(&self.role)?;
        if self.message_timer.is_some_and(|timer| timer <= 0) {
            return Err(GroupError::BadRequest("message_timer must be positive"));
        }
        if self.users.contains(creator) {
            return Err(GroupError::BadRequest("the creator is a member anyway and must not be listed"));
        }
        if self.users.len() + 1 > max_members { Err(GroupError::TooManyMembers) } else { Ok(()) }
    }
}

fn stored(user: Qualified<UserId>, role: RoleName) -> StoredMember {
    StoredMember { member: Member { user, role }, settings: Settings::default() }
}

impl App {
    /// Creates a group of the caller; also says whom the other backends refused. Nothing is created on error.
    pub(crate) async fn create_group(
        &self,
        session: &Session,
        new: NewGroup,
    ) -> Result<(Arc<Conversation>, BTreeSet<Qualified<UserId>>), GroupError> {
        let creator = self.own_user(session.user);
        new.check(&creator, self.config.max_members)?;
        let invitees: Vec<_> = new.users.iter().cloned().collect();
        let refused = self.screen(&creator, &invitees, &BTreeSet::new()).await?;
        let mut members = vec![stored(creator.clone(), RoleName::admin())];
        members.extend(
            invitees.into_iter().filter(|user| !refused.contains(user)).map(|user| stored(user, new.role.clone())),
        );
        members.sort_by(|a, b| a.member.user.cmp(&b.member.user));
        let metadata = Metadata {
            kind: ConversationType::Regular,
            creator: Some(creator.id),
            name: new.name,
            access: new.access,
            access_roles: new.access_roles,
            message_timer: new.message_timer,
            receipt_mode: new.receipt_mode,
            protocol: Protocol::Proteus,
        };
        let id = ConversationId::new(self.random.uuid());
        let conversation = Conversation { id, metadata, members, version: 1 };
        let actor = Actor { user: creator, connection: Some(session.connection) };
        let effect = effects::of_creation(&self.domain, &conversation, &actor);
        let write = Box::new(move |stamp: &_| Written { outgoing: effect.rows(stamp), ..Written::default() });
        match self.store.create(conversation.clone(), None, write).await? {
            Step::Done(committed) => committed.delivery.local(LOCAL_DELIVERY).await,
            // Random ids do not collide.
            Step::Answered(_) | Step::Conflict => return Err(GroupError::Busy),
        };
        metrics::counter!("aldis_conversations_created_total").increment(1);
        Ok((Arc::new(conversation), refused))
    }

    /// The caller's conversation with himself, and whether it was created now.
    pub(crate) async fn self_conversation(&self, user: UserId) -> Result<(Arc<Conversation>, bool), GroupError> {
        let id = ConversationId::new(user.uuid());
        if let Some(conversation) = self.find_own(id).await? {
            return Ok((conversation, false));
        }
        let members = vec![stored(self.own_user(user), RoleName::admin())];
        let conversation = Conversation { id, metadata: Metadata::of_self(user), members, version: 1 };
        match self.store.create(conversation.clone(), None, Box::new(|_| Written::default())).await? {
            Step::Done(_) => Ok((Arc::new(conversation), true)),
            Step::Answered(_) | Step::Conflict => {
                Ok((self.find_own(id).await?.ok_or(GroupError::NoConversation)?, false))
            }
        }
    }
}
