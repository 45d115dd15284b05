//! Reading conversations: our own from the store, others from their owners with our user's settings added.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use aldis_peers::{FAN_OUT, PeerError};
use aldis_types::{ConversationId, Domain, Locality, Member, Qualified, UserId};
use base64::{Engine, engine::general_purpose::URL_SAFE};
use futures::{StreamExt, stream};

use super::{
    error::GroupError,
    json::View,
    model::{Conversation, Settings, backends},
};
use crate::{app::App, backends::OwnersView, received::store::RemoteConversation};

/// Most conversations in one list.
pub(crate) const MAX_LIST: usize = 1000;

/// A conversation that a member of ours may see.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    /// Of ours.
    Own(Arc<Conversation>),
    /// Of another backend.
    Elsewhere { view: Box<OwnersView>, settings: Settings },
}

impl Seen {
    /// As the user sees it; `None` when he is not a member.
    pub(crate) fn view<'a>(&'a self, own: &Domain, user: &Qualified<UserId>) -> Option<View<'a>> {
        match self {
            Self::Own(conversation) => View::of(own.own(conversation.id).into_qualified(), conversation, user),
            Self::Elsewhere { view, settings } => {
                let me: &Member = view.members.iter().find(|member| member.user == *user)?;
                let others = view.members.iter().filter(|member| member.user != *user).collect();
                Some(View { id: view.id.clone(), metadata: &view.metadata, me, settings, others })
            }
        }
    }
}

/// What became of a list of conversations that was asked for.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub found: Vec<Seen>,
    pub not_found: Vec<Qualified<ConversationId>>,
    /// Their owners cannot be reached.
    pub failed: Vec<Qualified<ConversationId>>,
}

/// Where a list of ids goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cursor {
    /// In our own conversations.
    Own(Option<ConversationId>),
    /// In those of other backends.
    Remote(Option<Qualified<ConversationId>>),
}

impl Cursor {
    /// The opaque text that clients give back.
    pub(crate) fn to_text(&self) -> String {
        let mut bytes = Vec::with_capacity(64);
        match self {
            Self::Own(last) => {
                bytes.push(0);
                bytes.extend(last.iter().flat_map(|id| *id.as_bytes()));
            }
            Self::Remote(last) => {
                bytes.push(1);
                if let Some(last) = last {
                    bytes.extend(last.id.as_bytes());
                    bytes.extend(last.domain.as_str().as_bytes());
                }
            }
        }
        URL_SAFE.encode(bytes)
    }

    /// Reads what [`Cursor::to_text`] wrote.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        if text.len() > 512 {
            return None;
        }
        let bytes = URL_SAFE.decode(text).ok()?;
        let (table, last) = bytes.split_first()?;
        match (table, last.len()) {
            (0, 0) => Some(Self::Own(None)),
            (0, 16) => Some(Self::Own(Some(ConversationId::from_bytes(last).ok()?))),
            (1, 0) => Some(Self::Remote(None)),
            (1, 17..) => {
                let (id, domain) = last.split_at(16);
                let domain = std::str::from_utf8(domain).ok()?.parse().ok()?;
                Some(Self::Remote(Some(Qualified::new(ConversationId::from_bytes(id).ok()?, domain))))
            }
            _ => None,
        }
    }
}

/// One page of ids.
#[derive(Debug)]
pub(crate) struct IdPage {
    pub ids: Vec<Qualified<ConversationId>>,
    /// Where the next page begins.
    pub next: Cursor,
    pub has_more: bool,
}

impl App {
    /// A conversation of ours, if it exists.
    pub(crate) async fn find_own(&self, id: ConversationId) -> Result<Option<Arc<Conversation>>, GroupError> {
        Ok(self.store.load(&[id]).await?.into_iter().next())
    }

    /// A conversation of ours, for one of its members.
    pub(crate) async fn find_own_for(&self, user: UserId, id: ConversationId) -> Result<Arc<Conversation>, GroupError> {
        let conversation = self.find_own(id).await?.ok_or(GroupError::NoConversation)?;
        match conversation.member(&self.own_user(user)) {
            Some(_) => Ok(conversation),
            None => Err(GroupError::AccessDenied),
        }
    }

    /// Says no to whoever is not in the conversation of this id, here or elsewhere.
    pub(crate) async fn expect_in(&self, user: UserId, id: ConversationId) -> Result<(), GroupError> {
        match self.find_own_for(user, id).await {
            Err(error) if self.store.is_in_elsewhere(user, id).await? => {
                tracing::debug!(%error, "not one of ours");
                Ok(())
            }
            found => found.map(drop),
        }
    }

    /// Our users in a conversation of another backend, if there are any.
    pub(crate) async fn find_elsewhere(
        &self,
        id: &Qualified<ConversationId>,
    ) -> Result<Option<Arc<RemoteConversation>>, GroupError> {
        Ok(self.memberships.load(std::slice::from_ref(id)).await?.into_iter().next())
    }

    /// Whether a user of ours is in a conversation of another backend.
    pub(crate) async fn is_member_elsewhere(
        &self,
        id: &Qualified<ConversationId>,
        user: UserId,
    ) -> Result<bool, GroupError> {
        Ok(self.find_elsewhere(id).await?.is_some_and(|conversation| conversation.contains(user)))
    }

    /// The other backends of a conversation's members, for one of its members.
    pub(crate) async fn backends_of(
        &self,
        user: UserId,
        id: Qualified<ConversationId>,
    ) -> Result<BTreeSet<Domain>, GroupError> {
        Ok(match self.get(user, id).await? {
            Seen::Own(conversation) => conversation.backends(&self.domain),
            Seen::Elsewhere { view, .. } => backends(view.members.iter().map(|member| &member.user), &self.domain),
        })
    }

    /// One conversation, for one of its members.
    pub(crate) async fn get(&self, user: UserId, id: Qualified<ConversationId>) -> Result<Seen, GroupError> {
        let user = self.own_user(user);
        match self.domain.locate(id) {
            Locality::Local(id) => Ok(Seen::Own(self.find_own_for(user.id, *id.id()).await?)),
            Locality::Remote(id) => {
                let here = self.find_elsewhere(id.as_qualified()).await?.ok_or(GroupError::NoConversation)?;
                let settings = here.settings(user.id).cloned().ok_or(GroupError::NoConversation)?;
                let owner = id.domain();
                if !self.policy.allows(owner) {
                    return Err(GroupError::Denied(owner.clone()));
                }
                let mut views = self.backends.get_conversations(owner, &user, &[*id.id()]).await?;
                let view = views.pop().ok_or(GroupError::NoConversation)?;
                Ok(Seen::Elsewhere { view: Box::new(view), settings })
            }
        }
    }

    /// Many conversations, each answered for by itself.
    pub(crate) async fn list(&self, user: UserId, ids: Vec<Qualified<ConversationId>>) -> Result<Listing, GroupError> {
        let user = self.own_user(user);
        let mut listing = Listing::default();
        let mut own = Vec::new();
        let mut elsewhere = Vec::new();
        for id in ids {
            if id.domain == self.domain { own.push(id.id) } else { elsewhere.push(id) }
        }
        let found: HashMap<_, _> = self.store.load(&own).await?.into_iter().map(|found| (found.id, found)).collect();
        for id in own {
            match found.get(&id).filter(|conversation| conversation.member(&user).is_some()) {
                Some(conversation) => listing.found.push(Seen::Own(conversation.clone())),
                None => listing.not_found.push(self.domain.own(id).into_qualified()),
            }
        }
        self.list_elsewhere(&user, elsewhere, &mut listing).await?;
        Ok(listing)
    }

    async fn list_elsewhere(
        &self,
        user: &Qualified<UserId>,
        ids: Vec<Qualified<ConversationId>>,
        listing: &mut Listing,
    ) -> Result<(), GroupError> {
        if ids.is_empty() {
            return Ok(());
        }
        let here = self.memberships.load(&ids).await?;
        let mut settings: HashMap<_, Settings> = here
            .iter()
            .filter_map(|conversation| Some((&conversation.id, conversation.settings(user.id)?.clone())))
            .collect();
        let mut by_owner: BTreeMap<Domain, Vec<ConversationId>> = BTreeMap::new();
        for id in ids {
            if settings.contains_key(&id) {
                by_owner.entry(id.domain).or_default().push(id.id);
            } else {
                listing.not_found.push(id);
            }
        }
        let answers: Vec<_> = stream::iter(by_owner)
            .map(|(owner, ids)| async move {
                let answer = self.ask_for_conversations(&owner, user, &ids).await;
                (owner, ids, answer)
            })
            .buffer_unordered(FAN_OUT)
            .collect()
            .await;
        for (owner, ids, answer) in answers {
            let qualified = |id| Qualified::new(id, owner.clone());
            match answer {
                None => listing.failed.extend(ids.into_iter().map(qualified)),
                Some(views) => {
                    let mut missing: std::collections::BTreeSet<_> = ids.into_iter().map(qualified).collect();
                    for view in views {
                        missing.remove(&view.id);
                        let settings = settings.remove(&view.id).unwrap_or_default();
                        listing.found.push(Seen::Elsewhere { view: Box::new(view), settings });
                    }
                    listing.not_found.extend(missing);
                }
            }
        }
        Ok(())
    }

    /// `None` when the owner cannot be asked.
    async fn ask_for_conversations(
        &self,
        owner: &Domain,
        user: &Qualified<UserId>,
        ids: &[ConversationId],
    ) -> Option<Vec<OwnersView>> {
        if !self.policy.allows(owner) {
            return None;
        }
        let failed = |error: PeerError| tracing::debug!(peer.domain = %owner, %error, "an owner cannot be asked");
        self.backends.get_conversations(owner, user, ids).await.map_err(failed).ok()
    }

    /// The ids of a user's conversations, page by page. The first page makes sure of the conversation with himself,
    /// which clients expect to find.
    pub(crate) async fn list_ids(&self, user: UserId, from: Cursor, size: usize) -> Result<IdPage, GroupError> {
        if from == Cursor::Own(None) {
            self.self_conversation(user).await?;
        }
        let mut ids = Vec::new();
        let mut next = from;
        if let Cursor::Own(last) = &next {
            // One more than asked for tells whether there is more.
            let mut own = self.store.list_own(user, *last, size + 1).await?;
            let more = own.len() > size;
            own.truncate(size);
            let last = own.last().copied();
            ids.extend(own.into_iter().map(|id| self.domain.own(id).into_qualified()));
            if more {
                return Ok(IdPage { ids, next: Cursor::Own(last), has_more: true });
            }
            next = Cursor::Remote(None);
        }
        let Cursor::Remote(last) = next else { return Ok(IdPage { ids, next, has_more: false }) };
        let room = size - ids.len();
        let mut remote = self.store.list_remote(user, last.clone(), room + 1).await?;
        let has_more = remote.len() > room;
        remote.truncate(room);
        let last = remote.last().cloned().or(last);
        ids.extend(remote);
        Ok(IdPage { ids, next: Cursor::Remote(last), has_more })
    }
}
