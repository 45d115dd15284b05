//! What this service asks other backends. What they answer is filtered: only what was asked of, of whom was asked.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use aldis_api::Label;
use aldis_peers::{CallOptions, PeerError, PeerErrorKind, Peers};
use aldis_proto::{
    channel::Channel,
    convert::{self, InvalidWire},
    federation::v1::{self as pb, conversations_client::ConversationsClient, users_client::UsersClient},
};
use aldis_types::{ConversationId, Domain, Member, Qualified, Remote, Timestamp, UserId};

use crate::{
    federated,
    groups::{
        effects::Actor,
        error::refusal,
        model::{Metadata, Typing},
    },
    leases::{Lease, Leases},
    users::ClientMap,
};

/// Most users, clients of whom are asked for in one call.
const MAX_CLIENT_USERS: usize = 500;
/// Conversations asked for in one call: with 500 members each the answer stays below the limit.
const CONVERSATIONS_CHUNK: usize = 200;
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// As large as the largest message and its frame.
const MAX_MESSAGE_BYTES: usize = 48 * 1024 * 1024;
/// An owner that asks other backends in turn needs longer than one call.
const OWNER_DEADLINE: Duration = Duration::from_secs(20);
/// Most time for asking for clients.
const CLIENTS_DEADLINE: Duration = Duration::from_secs(10);
/// A call that broke sooner than this is made again.
const RETRY_WITHIN: Duration = Duration::from_secs(3);

/// What an invited backend says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InviteAnswer {
    /// Users of that backend who cannot be added by the inviter.
    pub refused: HashSet<UserId>,
    /// A backend that was named and with which that one does not federate.
    pub non_federating: Option<Domain>,
}

/// A conversation as its owner sees it.
#[derive(Debug, Clone)]
pub(crate) struct OwnersView {
    pub id: Qualified<ConversationId>,
    pub metadata: Metadata,
    /// Everybody, the asking user included.
    pub members: Vec<Member>,
}

/// What an owner says to somebody's typing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TypingTold {
    /// The others hear of it.
    Told,
    /// He may not.
    Refused(Label),
}

/// Asks other backends through our own federator. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Backends {
    peers: Peers,
    leases: Arc<Leases>,
}

impl Backends {
    pub(crate) fn new(peers: Peers) -> Self {
        Self { peers, leases: Arc::default() }
    }

    /// The largest message that a backend takes, when that is known.
    pub(crate) async fn max_message_bytes(&self, domain: &Domain) -> Option<u64> {
        self.peers.max_message_bytes(domain).await
    }

    pub(crate) fn conversations(&self) -> ConversationsClient<Channel> {
        ConversationsClient::new(self.peers.channel())
            .max_decoding_message_size(MAX_ANSWER_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Whether `inviter` may add users of `domain`, and whether that backend federates with `others`.
    pub(crate) async fn check_invite(
        &self,
        domain: &Domain,
        inviter: &Qualified<UserId>,
        invitees: &[UserId],
        others: &BTreeSet<Domain>,
    ) -> Result<InviteAnswer, PeerError> {
        let message = pb::CheckInviteRequest {
            inviter: Some(convert::to_qualified(inviter)),
            invitees: invitees.iter().map(convert::bytes_of).collect(),
            domains: others.iter().filter(|other| *other != domain).map(|other| other.as_str().to_owned()).collect(),
        };
        let options = CallOptions::default();
        let mut client = self.conversations();
        let call = client.check_invite(Peers::request(domain, message, &options));
        let answer = Peers::finish(domain, &options, call).await?;
        let asked: HashSet<_> = invitees.iter().copied().collect();
        let refused = answer.refused.iter().filter_map(|id| convert::user_id(id).ok()).filter(|id| asked.contains(id));
        Ok(InviteAnswer {
            refused: refused.collect(),
            non_federating: others
                .iter()
                .find(|other| *other != domain && answer.non_federating.iter().any(|name| name == other.as_str()))
                .cloned(),
        })
    }

    /// Conversations of `domain` of which `user`, one of ours, is a member; others are left out.
    pub(crate) async fn get_conversations(
        &self,
        domain: &Domain,
        user: &Qualified<UserId>,
        ids: &[ConversationId],
    ) -> Result<Vec<OwnersView>, PeerError> {
        let options = CallOptions::default();
        let mut views = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(CONVERSATIONS_CHUNK) {
            let message = pb::GetConversationsRequest {
                user: convert::bytes_of(user.id),
                conversations: chunk.iter().map(convert::bytes_of).collect(),
            };
            let mut client = self.conversations();
            let call = client.get_conversations(Peers::request(domain, message, &options));
            let answer = Peers::finish(domain, &options, call).await?;
            let mut asked: HashSet<_> = chunk.iter().copied().collect();
            for conversation in answer.conversations {
                let view = read_view(&conversation, domain).map_err(|e| PeerError::invalid_answer(domain, e))?;
                if asked.remove(&view.id.id) && view.members.iter().any(|member| member.user == *user) {
                    views.push(view);
                }
            }
        }
        Ok(views)
    }

    /// The clients of users of `domain`, as that backend says now or has let us rely on; users without clients are left
    /// out.
    pub(crate) async fn list_clients(
        &self,
        domain: &Domain,
        users: &[UserId],
        patience: Option<Duration>,
    ) -> Result<ClientMap, PeerError> {
        let options = CallOptions { deadline: patience.map(|it| it.min(CLIENTS_DEADLINE)), ..CallOptions::default() };
        let mut map = HashMap::with_capacity(users.len());
        let asked_at = tokio::time::Instant::now();
        let unknown = self.leases.known(domain, users, &mut map, asked_at);
        for chunk in unknown.chunks(MAX_CLIENT_USERS) {
            let users = chunk.iter().map(|(user, _)| convert::bytes_of(user)).collect();
            let message = pb::ListClientsRequest { users, lease: true };
            let mut client = UsersClient::new(self.peers.channel());
            let call = client.list_clients(Peers::request(domain, message, &options));
            let answer = Peers::finish(domain, &options, call).await?;
            let asked: HashSet<_> = chunk.iter().map(|(user, _)| *user).collect();
            for entry in &answer.users {
                let entry = convert::from_clients(entry).map_err(|e| PeerError::invalid_answer(domain, e))?;
                if asked.contains(&entry.user) {
                    map.insert(entry.user, entry.clients.into_iter().map(|(id, _)| id).collect());
                }
            }
            if let Some(lease) = Lease::new(asked_at, answer.lease_millis) {
                self.leases.keep(domain, chunk, &map, lease);
            }
        }
        Ok(map)
    }

    /// Relies no longer on what is known of the clients of users of `domain`.
    pub(crate) fn forget_clients(&self, domain: &Domain, users: &[UserId]) {
        self.leases.forget(domain, users);
    }

    /// Hands a message of one of our users to the owner of its conversation.
    pub(crate) async fn send_message(
        &self,
        owner: &Domain,
        message: pb::SendMessageRequest,
        key: [u8; 32],
    ) -> Result<pb::SendMessageResponse, PeerError> {
        let options = CallOptions { deadline: Some(OWNER_DEADLINE), idempotency_key: Some(key) };
        let mut client = self.conversations();
        Peers::finish(owner, &options, client.send_message(Peers::request(owner, message, &options))).await
    }

    /// Asks the owner for a change. A call that broke on the way is made once more with the same key, so that a lost
    /// answer costs nothing.
    pub(crate) async fn update_conversation(
        &self,
        owner: &Domain,
        message: pb::UpdateConversationRequest,
        key: [u8; 32],
    ) -> Result<pb::UpdateConversationResponse, PeerError> {
        let options = CallOptions { deadline: Some(OWNER_DEADLINE), idempotency_key: Some(key) };
        let call = || async {
            let mut client = self.conversations();
            let request = Peers::request(owner, message.clone(), &options);
            Peers::finish(owner, &options, client.update_conversation(request)).await
        };
        let begun = tokio::time::Instant::now();
        match call().await {
            Err(error) if broke(&error) && begun.elapsed() < RETRY_WITHIN => call().await,
            outcome => outcome,
        }
    }
}

impl Backends {
    /// Tells the owner of a conversation that one of our users types.
    pub(crate) async fn typing(
        &self,
        conversation: &Remote<ConversationId>,
        actor: &Actor,
        typing: Typing,
    ) -> Result<TypingTold, PeerError> {
        use pb::typing_response::Outcome;
        let owner = conversation.domain();
        let message = pb::TypingRequest {
            conversation: convert::bytes_of(conversation.id()),
            user: convert::bytes_of(actor.user.id),
            connection: actor.connection.map_or(0, |connection| connection.0),
            status: federated::write_typing(typing).into(),
        };
        let options = CallOptions::default();
        let mut client = self.conversations();
        let answer = Peers::finish(owner, &options, client.typing(Peers::request(owner, message, &options))).await?;
        let invalid = |what: &'static str| PeerError::invalid_answer(owner, what);
        match answer.outcome.ok_or_else(|| invalid("outcome"))? {
            Outcome::Told(_) => Ok(TypingTold::Told),
            Outcome::Refused(refused) => {
                let row = refusal(&refused.label).ok_or_else(|| invalid("refused.label"))?;
                Ok(TypingTold::Refused(row))
            }
        }
    }

    /// Tells a backend that a member of a conversation of ours types.
    pub(crate) async fn on_typing(
        &self,
        domain: &Domain,
        conversation: ConversationId,
        user: &Qualified<UserId>,
        typing: Typing,
        time: Timestamp,
        deadline: Duration,
    ) -> Result<(), PeerError> {
        let message = pb::OnTypingRequest {
            conversation: convert::bytes_of(conversation),
            user: Some(convert::to_qualified(user)),
            status: federated::write_typing(typing).into(),
            time: time.millis(),
        };
        let options = CallOptions { deadline: Some(deadline), ..CallOptions::default() };
        let mut client = self.conversations();
        Peers::finish(domain, &options, client.on_typing(Peers::request(domain, message, &options))).await.map(drop)
    }
}

/// Whether a call may have reached the peer although it failed.
fn broke(error: &PeerError) -> bool {
    let label = aldis_api::label::FEDERATION_HTTP2_ERROR.label;
    matches!(&error.kind, PeerErrorKind::Hop { label: found, .. } if *found == label)
}

fn read_view(
    conversation: &pb::get_conversations_response::Conversation,
    domain: &Domain,
) -> Result<OwnersView, InvalidWire> {
    Ok(OwnersView {
        id: Qualified::new(convert::conversation_id(&conversation.id)?, domain.clone()),
        metadata: federated::read_metadata(conversation.metadata.as_ref())?,
        members: federated::read_members(&conversation.members)?,
    })
}
