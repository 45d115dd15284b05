//! Changes of conversations that another backend owns: asked for there, applied here when the event arrives.

use std::collections::BTreeSet;

use aldis_api::label;
use aldis_peers::PeerError;
use aldis_proto::{
    convert,
    federation::v1::{self as pb, update_conversation_request, update_conversation_response},
};
use aldis_types::{Action as Right, ConversationId, Domain, Qualified, Remote, Timestamp, UserId};

use super::{
    effects::Actor,
    error::{GroupError, Unreachable, refusal},
    model::{Action, Change, MAX_MEMBERS},
    rules,
};
use crate::{
    app::App,
    federated::{self, Told},
};

impl App {
    /// Asks the owner of a conversation for a change. Our rows change when its event arrives in the lane.
    pub(super) async fn ask_owner(
        &self,
        conversation: &Remote<ConversationId>,
        actor: &Actor,
        action: Action,
    ) -> Result<Option<(Timestamp, Change)>, GroupError> {
        if !self.is_member_elsewhere(conversation.as_qualified(), actor.user.id).await? {
            return Err(GroupError::NoConversation);
        }
        let owner = conversation.domain();
        if !self.policy.allows(owner) {
            return Err(GroupError::Denied(owner.clone()));
        }
        self.check_connected(&actor.user, &self.newcomers(conversation, actor, &action).await?).await?;
        let right = rules::right(&actor.user, &action);
        let mut key = [0; 32];
        self.random.fill(&mut key);
        let request = pb::UpdateConversationRequest {
            conversation: convert::bytes_of(conversation.id()),
            actor: convert::bytes_of(actor.user.id),
            actor_connection: actor.connection.map_or(0, |connection| connection.0),
            action: Some(write_action(action)),
        };
        let answer = self.backends.update_conversation(owner, request, key).await?;
        read_answer(conversation, actor, right, answer)
    }
}

impl App {
    /// Whom the action would add: the owner relies on us for the connections of the actor.
    async fn newcomers(
        &self,
        conversation: &Remote<ConversationId>,
        actor: &Actor,
        action: &Action,
    ) -> Result<Vec<Qualified<UserId>>, GroupError> {
        match action {
            Action::AddMembers { users, .. } => Ok(users.clone()),
            Action::ReplaceMembers { users, .. } => {
                let ids = [*conversation.id()];
                let views = self.backends.get_conversations(conversation.domain(), &actor.user, &ids).await?;
                let view = views.first().ok_or(GroupError::NoConversation)?;
                let present: BTreeSet<_> = view.members.iter().map(|member| &member.user).collect();
                Ok(users.iter().filter(|user| !present.contains(user)).cloned().collect())
            }
            _ => Ok(Vec::new()),
        }
    }
}

fn read_answer(
    conversation: &Remote<ConversationId>,
    actor: &Actor,
    right: Right,
    answer: pb::UpdateConversationResponse,
) -> Result<Option<(Timestamp, Change)>, GroupError> {
    use update_conversation_response::Outcome as Wire;
    let owner = conversation.domain();
    let invalid = |what: &'static str| PeerError::invalid_answer(owner, what);
    match answer.outcome.ok_or_else(|| invalid("outcome"))? {
        Wire::Unchanged(_) => Ok(None),
        Wire::Refused(refused) => {
            let row = refusal(&refused.label).ok_or_else(|| invalid("refused.label"))?;
            Err(if row == label::ACTION_DENIED { GroupError::ActionDenied(right) } else { GroupError::Refused(row) })
        }
        Wire::NonFederating(pair) => {
            let read = |text: &str| convert::domain(text).map_err(|_| invalid("non_federating"));
            Err(GroupError::NonFederating(read(&pair.first)?, read(&pair.second)?))
        }
        Wire::Unreachable(unreachable) => {
            let read = |names: &[String]| {
                let domains = names.iter().take(MAX_MEMBERS).map(|text| convert::domain(text));
                domains.collect::<Result<BTreeSet<Domain>, _>>().map_err(|_| invalid("unreachable"))
            };
            let domains = read(&unreachable.domains)?;
            let mut denied = read(&unreachable.denied)?;
            denied.retain(|domain| domains.contains(domain));
            Err(GroupError::Unreachable(Unreachable { domains, denied }))
        }
        Wire::Updated(event) => {
            let lane = conversation.id().as_bytes();
            let (head, told) = federated::read_event(event, owner, lane).map_err(|e| invalid(e.0))?;
            match told {
                Told::Changed(change) if head.actor == actor.user => Ok(Some((head.time, change))),
                _ => Err(invalid("updated").into()),
            }
        }
    }
}

fn write_action(action: Action) -> update_conversation_request::Action {
    use update_conversation_request::Action as Wire;
    match action {
        Action::AddMembers { users, role } => Wire::AddMembers(pb::AddMembers {
            users: users.iter().map(convert::to_qualified).collect(),
            role: role.as_str().to_owned(),
        }),
        Action::RemoveMembers(users) => {
            Wire::RemoveMembers(pb::RemoveMembers { users: users.iter().map(convert::to_qualified).collect() })
        }
        Action::Rename(name) => Wire::Rename(pb::Rename { name }),
        Action::SetMemberRole(member) => Wire::SetMemberRole(pb::SetMemberRole {
            user: Some(convert::to_qualified(&member.user)),
            role: member.role.as_str().to_owned(),
        }),
        Action::SetMessageTimer(timer) => Wire::SetMessageTimer(pb::SetMessageTimer { message_timer_ms: timer }),
        Action::SetReceiptMode(mode) => Wire::SetReceiptMode(pb::SetReceiptMode { receipt_mode: mode }),
        Action::SetAccess { access, roles } => Wire::SetAccess(pb::SetAccess {
            access: convert::to_access(&access),
            access_roles: convert::to_access_roles(&roles),
        }),
        Action::ReplaceMembers { users, role } => Wire::ReplaceMembers(pb::ReplaceMembers {
            users: users.iter().map(convert::to_qualified).collect(),
            role: role.as_str().to_owned(),
        }),
    }
}
