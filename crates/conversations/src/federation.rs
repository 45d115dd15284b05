//! What other backends may ask of this service: proto/federation/v1/conversations.proto.
//!
//! Guarantees: the caller is a backend that our policy admits; an acting user is one of that backend, whatever the
//! request says; lists are bounded before they are worked on. Whether the user may do it is left to the features, which
//! apply the same rules as to our own users.

use std::{collections::BTreeSet, sync::Arc};

use aldis_api::{Fault, status};
use aldis_delivery::LaneEnd;
use aldis_proto::{
    convert::{self, InvalidWire},
    federation::v1::{
        self as pb, conversations_server::Conversations, get_conversations_response::Conversation,
        send_message_response, update_conversation_request, update_conversation_response,
    },
    metadata,
};
use aldis_storage::StoreError;
use aldis_types::{ClientId, ConnId, ConversationId, Domain, Member, Qualified, RoleName, Timestamp, UserId};
use async_trait::async_trait;
use prost::Message;
use tonic::{Request, Response, Status};

use crate::{
    app::App,
    federated,
    groups::{
        Outcome,
        effects::Actor,
        error::{GroupError, refusal},
        model::{Action, MAX_MEMBERS},
    },
    messages::{MESSAGE, MessageError, Sending, answer_key, message_key, wire::NewMessage},
    quotas::Quotas,
    reconciliation::{
        BUCKETS, PAGE,
        store::{Page, ReconciliationStore, Side},
    },
    users::ClientMap,
};

/// Most conversations in one request.
const MAX_CONVERSATIONS: usize = 1000;
/// The purpose of answers to changes.
const CHANGE: &str = "change";

/// The server of `Conversations`.
#[derive(Clone)]
pub(crate) struct ConversationsServer {
    pub(crate) app: App,
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) memberships: Arc<dyn ReconciliationStore>,
}

impl ConversationsServer {
    fn admit<T>(&self, request: &Request<T>) -> Result<Domain, Status> {
        Ok(self.app.policy.admit_caller(&self.app.domain, request)?.domain().clone())
    }
}

#[async_trait]
impl Conversations for ConversationsServer {
    #[tracing::instrument(name = "grpc.federation.check_invite", skip_all)]
    async fn check_invite(
        &self,
        request: Request<pb::CheckInviteRequest>,
    ) -> Result<Response<pb::CheckInviteResponse>, Status> {
        let origin = self.admit(&request)?;
        let request = request.into_inner();
        let inviter = convert::qualified_user(request.inviter.as_ref())?;
        let invitees: BTreeSet<_> = convert::user_ids(&request.invitees, MAX_MEMBERS)?.into_iter().collect();
        if request.domains.len() > MAX_MEMBERS {
            return Err(InvalidWire("domains").into());
        }
        self.quotas.invite(&origin, &invitees)?;
        let domains: BTreeSet<_> =
            request.domains.iter().map(|text| convert::domain(text)).collect::<Result<_, _>>()?;
        let (refused, non_federating) =
            self.app.answer_invite(&inviter, &invitees, &domains).await.map_err(|error| status(&error))?;
        Ok(Response::new(pb::CheckInviteResponse {
            refused: refused.into_iter().map(convert::bytes_of).collect(),
            non_federating: non_federating.iter().map(|domain| domain.as_str().to_owned()).collect(),
        }))
    }

    #[tracing::instrument(name = "grpc.federation.get_conversations", skip_all)]
    async fn get_conversations(
        &self,
        request: Request<pb::GetConversationsRequest>,
    ) -> Result<Response<pb::GetConversationsResponse>, Status> {
        let origin = self.admit(&request)?;
        let request = request.into_inner();
        let user = Qualified::new(convert::user_id(&request.user)?, origin);
        if request.conversations.len() > MAX_CONVERSATIONS {
            return Err(InvalidWire("conversations").into());
        }
        let ids: BTreeSet<ConversationId> =
            request.conversations.iter().map(|id| convert::conversation_id(id)).collect::<Result<_, _>>()?;
        let ids: Vec<_> = ids.into_iter().collect();
        let found = self.app.store.load(&ids).await.map_err(|error| status(&GroupError::from(error)))?;
        let conversations = found
            .iter()
            .filter(|conversation| conversation.member(&user).is_some())
            .map(|conversation| Conversation {
                id: convert::bytes_of(conversation.id),
                metadata: Some(federated::write_metadata(&conversation.metadata)),
                members: conversation.members.iter().map(|stored| (&stored.member).into()).collect(),
                version: conversation.version,
            })
            .collect();
        Ok(Response::new(pb::GetConversationsResponse { conversations }))
    }

    #[tracing::instrument(name = "grpc.federation.forget_clients", skip_all)]
    async fn forget_clients(
        &self,
        request: Request<pb::ForgetClientsRequest>,
    ) -> Result<Response<pb::ForgetClientsResponse>, Status> {
        let origin = self.admit(&request)?;
        let users = convert::user_ids(&request.into_inner().users, MAX_MEMBERS)?;
        self.app.backends.forget_clients(&origin, &users);
        Ok(Response::new(pb::ForgetClientsResponse {}))
    }

    #[tracing::instrument(name = "grpc.federation.compare_memberships", skip_all)]
    async fn compare_memberships(
        &self,
        request: Request<pb::CompareMembershipsRequest>,
    ) -> Result<Response<pb::CompareMembershipsResponse>, Status> {
        let origin = self.admit(&request)?;
        let theirs = request.into_inner().digests;
        if theirs.len() != BUCKETS {
            return Err(InvalidWire("digests").into());
        }
        self.quotas.comparison(&origin)?;
        let (ours, _) = self.memberships.digests(Side::Theirs, &origin).await.map_err(store_failed)?;
        let differing = (0..).zip(ours.iter().zip(&theirs)).filter(|(_, (ours, theirs))| ours[..] != theirs[..]);
        let differing = differing.map(|(bucket, _)| bucket).collect();
        Ok(Response::new(pb::CompareMembershipsResponse { differing }))
    }

    #[tracing::instrument(name = "grpc.federation.list_memberships", skip_all)]
    async fn list_memberships(
        &self,
        request: Request<pb::ListMembershipsRequest>,
    ) -> Result<Response<pb::ListMembershipsResponse>, Status> {
        let origin = self.admit(&request)?;
        let request = request.into_inner();
        let bucket = u8::try_from(request.bucket).map_err(|_| InvalidWire("bucket"))?;
        let after = request.after.as_ref().map(|id| convert::conversation_id(id)).transpose()?;
        if after.is_some_and(|id| id.as_bytes()[0] != bucket) {
            return Err(InvalidWire("after").into());
        }
        self.quotas.compared_page(&origin)?;
        let page = self.memberships.page(&origin, bucket, after, PAGE).await.map_err(store_failed)?;
        let Page { memberships, ends, more } = page.ok_or_else(still_restoring)?;
        Ok(Response::new(pb::ListMembershipsResponse {
            incarnation: ends.incarnation.to_vec().into(),
            memberships: write_memberships(memberships, &ends.ends),
            more,
        }))
    }

    #[tracing::instrument(name = "grpc.federation.get_memberships", skip_all)]
    async fn get_memberships(
        &self,
        request: Request<pb::GetMembershipsRequest>,
    ) -> Result<Response<pb::GetMembershipsResponse>, Status> {
        let origin = self.admit(&request)?;
        let asked = request.into_inner().conversations;
        if asked.len() > PAGE {
            return Err(InvalidWire("conversations").into());
        }
        let asked = asked.iter().map(|id| convert::conversation_id(id)).collect::<Result<_, _>>()?;
        self.quotas.compared_page(&origin)?;
        let page = self.memberships.some(&origin, asked).await.map_err(store_failed)?;
        let Page { memberships, ends, .. } = page.ok_or_else(still_restoring)?;
        Ok(Response::new(pb::GetMembershipsResponse {
            incarnation: ends.incarnation.to_vec().into(),
            memberships: write_memberships(memberships, &ends.ends),
        }))
    }

    #[tracing::instrument(name = "grpc.federation.send_message", skip_all)]
    async fn send_message(
        &self,
        request: Request<pb::SendMessageRequest>,
    ) -> Result<Response<pb::SendMessageResponse>, Status> {
        let origin = self.admit(&request)?;
        let key = idempotency_key(&request)?;
        let patience = aldis_peers::timeout(request.metadata().as_ref());
        let sending = read_sending(&self.app, origin, key, request.into_inner())?;
        let sending = sending.map(|sending| Sending { patience, ..sending });
        let outcome = match sending {
            Ok(sending) => self.app.send_here(&sending).await,
            Err(error) => Err(error),
        };
        let response = match outcome {
            Ok(sent) => sent.write(),
            Err(error) => {
                let refused = pb::Refused { label: refused_label(&error)? };
                pb::SendMessageResponse { outcome: Some(send_message_response::Outcome::Refused(refused)) }
            }
        };
        Ok(Response::new(response))
    }

    #[tracing::instrument(name = "grpc.federation.update_conversation", skip_all)]
    async fn update_conversation(
        &self,
        request: Request<pb::UpdateConversationRequest>,
    ) -> Result<Response<pb::UpdateConversationResponse>, Status> {
        use update_conversation_response::Outcome as Wire;
        let origin = self.admit(&request)?;
        let key = idempotency_key(&request)?.map(|key| answer_key(&origin, CHANGE, &key));
        let request = request.into_inner();
        let id = convert::conversation_id(&request.conversation)?;
        let actor = Actor {
            user: Qualified::new(convert::user_id(&request.actor)?, origin),
            connection: (request.actor_connection != 0).then_some(ConnId(request.actor_connection)),
        };
        let action = read_action(request.action.ok_or(InvalidWire("action"))?)?;
        let outcome = match self.app.update_own(id, &actor, &action, key).await {
            Ok(Outcome::Answered(answer)) => {
                let answer = pb::UpdateConversationResponse::decode(answer)
                    .map_err(|_| Status::internal("a kept answer cannot be read"))?;
                return Ok(Response::new(answer));
            }
            Ok(Outcome::Changed { stamp, telling, .. }) => Wire::Updated(telling.event(&actor.user.domain, &stamp)),
            Ok(Outcome::Unchanged) => Wire::Unchanged(update_conversation_response::Unchanged {}),
            Err(GroupError::NonFederating(first, second)) => {
                Wire::NonFederating(update_conversation_response::NonFederating {
                    first: first.as_str().to_owned(),
                    second: second.as_str().to_owned(),
                })
            }
            Err(GroupError::Unreachable(unreachable)) => {
                let names =
                    |domains: BTreeSet<Domain>| domains.iter().map(|domain| domain.as_str().to_owned()).collect();
                Wire::Unreachable(update_conversation_response::Unreachable {
                    domains: names(unreachable.domains),
                    denied: names(unreachable.denied),
                })
            }
            Err(error) => Wire::Refused(pb::Refused { label: refused_label(&error)? }),
        };
        Ok(Response::new(pb::UpdateConversationResponse { outcome: Some(outcome) }))
    }

    #[tracing::instrument(name = "grpc.federation.typing", skip_all)]
    async fn typing(&self, request: Request<pb::TypingRequest>) -> Result<Response<pb::TypingResponse>, Status> {
        use pb::typing_response::{Outcome as Wire, Told};
        let origin = self.admit(&request)?;
        let request = request.into_inner();
        let id = convert::conversation_id(&request.conversation)?;
        let actor = Actor { user: Qualified::new(convert::user_id(&request.user)?, origin), connection: None };
        let typing = federated::read_typing(request.status())?;
        let outcome = match self.app.typing_here(id, &actor, typing).await {
            Ok(()) => Wire::Told(Told {}),
            Err(error) => Wire::Refused(pb::Refused { label: refused_label(&error)? }),
        };
        Ok(Response::new(pb::TypingResponse { outcome: Some(outcome) }))
    }

    #[tracing::instrument(name = "grpc.federation.on_typing", skip_all)]
    async fn on_typing(&self, request: Request<pb::OnTypingRequest>) -> Result<Response<pb::OnTypingResponse>, Status> {
        let origin = self.admit(&request)?;
        let request = request.into_inner();
        let conversation = Qualified::new(convert::conversation_id(&request.conversation)?, origin);
        let user = convert::qualified_user(request.user.as_ref())?;
        let typing = federated::read_typing(request.status())?;
        let time = Timestamp::from_millis(request.time);
        let shown = self.app.typing_elsewhere(&conversation, &user, typing, time).await;
        shown.map_err(|error| status(&error))?;
        Ok(Response::new(pb::OnTypingResponse {}))
    }
}

fn write_memberships(memberships: Vec<(ConversationId, BTreeSet<UserId>)>, ends: &[LaneEnd]) -> Vec<pb::Membership> {
    let entry = |((conversation, users), end): ((ConversationId, BTreeSet<UserId>), &LaneEnd)| pb::Membership {
        conversation: convert::bytes_of(conversation),
        users: users.into_iter().map(convert::bytes_of).collect(),
        sequence: end.sequence,
        delivered: end.delivered,
    };
    memberships.into_iter().zip(ends).map(entry).collect()
}

fn store_failed(error: StoreError) -> Status {
    status(&GroupError::from(error))
}

fn still_restoring() -> Status {
    Status::unavailable("what was to be told before a restore is still on its way")
}

/// An expected refusal; anything else is a failed call.
fn refused_label<F: Fault>(error: &F) -> Result<String, Status> {
    match refusal(error.label().label) {
        Some(row) => Ok(row.label.to_owned()),
        None => Err(status(error)),
    }
}

/// The caller's key, 64 hexadecimal digits.
fn idempotency_key<T>(request: &Request<T>) -> Result<Option<[u8; 32]>, Status> {
    let Some(value) = request.metadata().get(metadata::IDEMPOTENCY_KEY) else { return Ok(None) };
    let mut key = [0; 32];
    match hex::decode_to_slice(value.as_bytes(), &mut key) {
        Ok(()) => Ok(Some(key)),
        Err(_) => Err(Status::invalid_argument("the idempotency key is malformed")),
    }
}

/// The inner error is one of the client that wrote the message.
fn read_sending(
    app: &App,
    origin: Domain,
    key: Option<[u8; 32]>,
    request: pb::SendMessageRequest,
) -> Result<Result<Sending, MessageError>, Status> {
    let conversation = convert::conversation_id(&request.conversation)?;
    let sender = convert::user_id(&request.sender)?;
    if request.origin_clients.len() > MAX_MEMBERS {
        return Err(InvalidWire("origin_clients").into());
    }
    if request.message.len() > app.config.max_message_bytes {
        return Ok(Err(MessageError::TooLarge));
    }
    let mut clients = ClientMap::new();
    for entry in &request.origin_clients {
        let entry = convert::from_clients(entry)?;
        clients.insert(entry.user, entry.clients.into_iter().map(|(id, _)| id).collect());
    }
    let client = ClientId(request.sender_client);
    let key = key.unwrap_or_else(|| message_key(conversation, sender, client, &request.message));
    let message = match NewMessage::read(request.message) {
        Ok(message) => message,
        Err(error) => return Ok(Err(error.into())),
    };
    if message.sender != client {
        return Ok(Err(MessageError::UnknownClient));
    }
    let key = answer_key(&origin, MESSAGE, &key);
    let sender = Qualified::new(sender, origin);
    Ok(Ok(Sending { conversation, sender, origin_clients: Some(clients), patience: None, key, message }))
}

fn read_users(users: &[pb::QualifiedId]) -> Result<Vec<Qualified<UserId>>, InvalidWire> {
    if users.is_empty() || users.len() > MAX_MEMBERS { Err(InvalidWire("users")) } else { federated::read_users(users) }
}

fn read_role(role: &str) -> Result<RoleName, InvalidWire> {
    role.parse().map_err(|_| InvalidWire("role"))
}

fn read_action(action: update_conversation_request::Action) -> Result<Action, Status> {
    use update_conversation_request::Action as Wire;
    Ok(match action {
        Wire::AddMembers(add) => Action::AddMembers { users: read_users(&add.users)?, role: read_role(&add.role)? },
        Wire::RemoveMembers(remove) => Action::RemoveMembers(read_users(&remove.users)?),
        Wire::Rename(rename) => Action::Rename(rename.name),
        Wire::SetMemberRole(set) => {
            let user = convert::qualified_user(set.user.as_ref())?;
            Action::SetMemberRole(Member { user, role: read_role(&set.role)? })
        }
        Wire::SetMessageTimer(set) => Action::SetMessageTimer(set.message_timer_ms),
        Wire::SetReceiptMode(set) => Action::SetReceiptMode(set.receipt_mode),
        Wire::SetAccess(set) => {
            let (access, roles) = federated::read_access(&set.access, &set.access_roles)?;
            Action::SetAccess { access, roles }
        }
        Wire::ReplaceMembers(replace) => {
            Action::ReplaceMembers { users: read_users(&replace.users)?, role: read_role(&replace.role)? }
        }
    })
}
