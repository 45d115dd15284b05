//! One-to-one conversations: derived from two users, and kept in line with the connection between them.
//!
//! The id says which backend owns the conversation. The owner keeps it with its members; the other backend keeps a row
//! for its own user. Both follow the relation of their own user, so that neither tells the other.

pub(crate) mod grpc;
mod rules;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use aldis_delivery::Delivery;
use aldis_types::{
    ConnId, ConversationId, ConversationType, Domain, Locality, Member, OneToOneProtocol, Qualified, Relation, Remote,
    RoleName, Timestamp, UserId, one_to_one,
};

use rules::membership;

use crate::{
    app::{App, LOCAL_DELIVERY},
    events::Envelope,
    groups::{
        Seen,
        error::GroupError,
        json::View,
        model::{Change, Conversation, Metadata, Settings, StoredMember},
        store::{Edit, Mark, Stamp, Step, Written},
    },
    push::{self, Cause, Draft},
    received::store::MemberChange,
};

/// How often a change is planned anew because another one came between.
const MAX_CONFLICTS: usize = 16;

/// The relation of one of our users with another user changed.
#[derive(Debug, Clone)]
pub(crate) struct RelationChange {
    pub user: UserId,
    pub other: Qualified<UserId>,
    pub relation: Option<Relation>,
    pub time: Timestamp,
    /// The session that caused it.
    pub connection: Option<ConnId>,
    /// The user's name, when he asks to connect.
    pub name: Option<String>,
}

impl RelationChange {
    fn cause(&self) -> Option<Cause> {
        self.connection.map(|connection| Cause { user: self.user, connection })
    }

    fn mark(&self, conversation: ConversationId) -> Mark {
        Mark { conversation, user: self.user, time: self.time, relation: self.relation }
    }
}

/// Everything about one application of a relation to a conversation of ours.
struct Plan {
    before: Option<Arc<Conversation>>,
    after: Conversation,
    edit: Edit,
}

impl App {
    /// Brings the conversation of two users in line with the relation of ours. An older change than the last one that
    /// was applied does nothing.
    pub(crate) async fn apply_relation(&self, change: &RelationChange) -> Result<(), GroupError> {
        let user = self.own_user(change.user);
        if user == change.other {
            return Err(GroupError::BadRequest("a user has no relation with himself"));
        }
        let id = one_to_one(&user, &change.other, OneToOneProtocol::Proteus);
        let last = self.store.mark(id.id, change.user).await?;
        if last.is_some_and(|last| last.time > change.time) {
            return Ok(());
        }
        let delivery = match self.domain.locate(id) {
            Locality::Local(id) => self.apply_here(*id.id(), &user, change).await?,
            Locality::Remote(id) => {
                let last = last.and_then(|last| last.relation);
                self.apply_elsewhere(&id, &user, change, last).await?
            }
        };
        if let Some(delivery) = delivery {
            delivery.local(LOCAL_DELIVERY).await;
        }
        Ok(())
    }

    /// The conversation is ours.
    async fn apply_here(
        &self,
        id: ConversationId,
        user: &Qualified<UserId>,
        change: &RelationChange,
    ) -> Result<Option<Delivery>, GroupError> {
        for _ in 0..MAX_CONFLICTS {
            let before = self.find_own(id).await?;
            let Some(plan) = plan(&self.domain, id, before, user, change) else {
                self.store.set_mark(change.mark(id)).await?;
                return Ok(None);
            };
            let drafts = drafts(&self.domain, &plan, user, change);
            let write = Box::new(move |stamp: &Stamp| Written {
                outgoing: push::rows(id, drafts, stamp.time),
                ..Written::default()
            });
            let mark = Some(change.mark(id));
            let step = match &plan.before {
                None => self.store.create(plan.after.clone(), mark, write).await?,
                Some(before) => self.store.change(id, before.version, vec![plan.edit], mark, None, write).await?,
            };
            match step {
                Step::Done(committed) => return Ok(Some(committed.delivery)),
                Step::Answered(_) => return Ok(None),
                Step::Conflict => {
                    let last = self.store.mark(id, change.user).await?;
                    if last.is_some_and(|last| last.time > change.time) {
                        return Ok(None);
                    }
                }
            }
        }
        Err(GroupError::Busy)
    }

    /// Another backend owns it: only our user's row changes.
    async fn apply_elsewhere(
        &self,
        id: &Remote<ConversationId>,
        user: &Qualified<UserId>,
        change: &RelationChange,
        last: Option<Relation>,
    ) -> Result<Option<Delivery>, GroupError> {
        let now = membership(change.relation, false);
        let was_in = self.is_member_elsewhere(id.as_qualified(), user.id).await?;
        let mut rows = MemberChange::default();
        let mut drafts = Vec::new();
        let other = Member { user: change.other.clone(), role: RoleName::admin() };
        if now.user == Some(true) && !was_in {
            rows.join.insert(user.id);
            let both = now.other == Some(true);
            let kind = if both { ConversationType::OneToOne } else { ConversationType::Connect };
            let metadata = Metadata::one_to_one(kind);
            let me = Member { user: user.clone(), role: RoleName::admin() };
            let view = View {
                id: id.as_qualified().clone(),
                metadata: &metadata,
                me: &me,
                settings: &Settings::default(),
                others: if both { vec![&other] } else { vec![] },
            };
            drafts.extend(welcome(&view, user, change));
        } else if change.relation == Some(Relation::Accepted) && last != Some(Relation::Accepted) {
            drafts.push(joined(id.as_qualified(), [user.id], other));
        } else if now.user == Some(false) && was_in {
            rows.leave.insert(user.id);
        }
        let outgoing = push::rows(*id.id(), drafts, self.clock.now());
        let mark = change.mark(*id.id());
        Ok(self.memberships.apply_relation(id.as_qualified().clone(), rows, mark, outgoing).await?)
    }

    /// The existing conversation of one of our users with somebody he is connected with.
    pub(crate) async fn one_to_one_with(&self, user: UserId, other: &Qualified<UserId>) -> Result<Seen, GroupError> {
        let me = self.own_user(user);
        if me == *other {
            return Err(GroupError::InvalidOp);
        }
        if !self.users.connected_with_all(user, std::slice::from_ref(other)).await? {
            return Err(GroupError::NotConnected);
        }
        let id = one_to_one(&me, other, OneToOneProtocol::Proteus);
        match self.get(user, id).await {
            Err(GroupError::NoConversation | GroupError::AccessDenied) => Err(GroupError::NotConnected),
            outcome => outcome,
        }
    }
}

/// What changes; `None` when nothing does.
fn plan(
    own: &Domain,
    id: ConversationId,
    before: Option<Arc<Conversation>>,
    user: &Qualified<UserId>,
    change: &RelationChange,
) -> Option<Plan> {
    let target = membership(change.relation, change.other.domain == *own);
    let is_in = |user| before.as_ref().is_some_and(|before| before.member(user).is_some());
    let mut edit = Edit::default();
    for (who, wanted) in [(user, target.user), (&change.other, target.other)] {
        match (wanted, is_in(who)) {
            (Some(true), false) => edit.add.push(Member { user: who.clone(), role: RoleName::admin() }),
            (Some(false), true) => edit.remove.push(who.clone()),
            _ => {}
        }
    }
    if edit == Edit::default() {
        return None;
    }
    let empty =
        Conversation { id, metadata: Metadata::one_to_one(ConversationType::Connect), members: vec![], version: 0 };
    let base = before.as_deref().unwrap_or(&empty);
    let mut after = edit.apply(base);
    if after.members.len() > 1 && after.metadata.kind == ConversationType::Connect {
        after.metadata.kind = ConversationType::OneToOne;
        edit.metadata = Some(after.metadata.clone());
    }
    Some(Plan { before, after, edit })
}

/// What our users are told: whoever comes gets the conversation, whoever was there hears who came. Nobody hears that
/// somebody is gone, since that would tell of a block.
fn drafts(own: &Domain, plan: &Plan, user: &Qualified<UserId>, change: &RelationChange) -> Vec<Draft> {
    let id = own.own(plan.after.id).into_qualified();
    let mut drafts = Vec::new();
    for member in &plan.edit.add {
        if member.user == *user
            && let Some(view) = View::of(id.clone(), &plan.after, user)
        {
            drafts.extend(welcome(&view, user, change));
        }
        let others = plan.after.members.iter().filter(|stored| {
            stored.member.user.domain == *own
                && stored.member.user != member.user
                && !plan.edit.add.iter().any(|added| added.user == stored.member.user)
        });
        let others: Vec<_> = others.map(|stored: &StoredMember| stored.member.user.id).collect();
        if !others.is_empty() {
            drafts.push(joined(&id, others, member.clone()));
        }
    }
    drafts
}

/// For the user who comes in: the conversation and, when he asks to connect, his request.
fn welcome(view: &View<'_>, user: &Qualified<UserId>, change: &RelationChange) -> Vec<Draft> {
    let envelope = Envelope { conversation: &view.id, from: user };
    let mut drafts = vec![Draft::to_users([user.id], envelope.created(view), change.cause())];
    if let (Some(name), Some(Relation::Sent)) = (&change.name, change.relation) {
        let event = envelope.connect_request(&change.other, name);
        drafts.push(Draft::to_users([user.id], event, change.cause()));
    }
    drafts
}

/// For those who were there: who came.
fn joined(id: &Qualified<ConversationId>, users: impl IntoIterator<Item = UserId>, member: Member) -> Draft {
    let from = member.user.clone();
    let event = Envelope { conversation: id, from: &from }.changed(&Change::Add(vec![member]));
    Draft::to_users(users, event, None)
}
