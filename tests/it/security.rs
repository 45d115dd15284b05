//! The security rules of the architecture that are easy to miss, each from outside.

use aldis_harness::{
    backend::{Federation, Setup, federator_host},
    client::{Draft, Recipients, User, connect},
    pki::Authority,
    rogue::{Caller, Conduct, Rogue},
    wait::eventually,
};
use aldis_proto::federation::v1::{
    self as pb, ClaimPrekeysRequest, ClaimPrekeysResponse, GetUserByHandleRequest, GetUserByHandleResponse,
    GetUsersRequest, GetUsersResponse, ListClientsRequest, ListClientsResponse, RequestConnectionRequest,
    RequestConnectionResponse, SearchUsersRequest, SearchUsersResponse, conversation_event, deliver_request,
    deliver_response, outcome, send_message_response, update_conversation_request, update_conversation_response,
    users_server::{Users, UsersServer},
};
use aldis_types::{ConversationId, Domain, Qualified, SearchPolicy, UserId};
use anyhow::{Context as _, Result, bail, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use prost::Message as _;
use serde_json::json;
use tonic::{Code, Request, Response, Status, service::Routes};
use uuid::Uuid;

use crate::support::{ALPHA, BETA, Pair};

const EVIL: &str = "evil.test";
/// What a federator says to somebody whom it does not let in.
const REFUSALS: [Code; 3] = [Code::PermissionDenied, Code::Unauthenticated, Code::InvalidArgument];

fn bytes_of(id: &UserId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

fn label(status: &Status) -> String {
    aldis_proto::error::detail(status).map(|detail| detail.label).unwrap_or_default()
}

/// A federation with a real alpha.test, and evil.test, which alpha.test lists.
struct Evil {
    federation: Federation,
    ann: User,
    caller: Caller,
    _rogue: Rogue,
}

impl Evil {
    async fn with(conduct: Conduct) -> Result<Self> {
        let federation = Federation::start(&[ALPHA]).await?;
        let ann = federation.user(ALPHA, "Ann").await?;
        let rogue = federation.rogue(EVIL, conduct).await?;
        federation.set_remote(ALPHA, EVIL, SearchPolicy::FullSearch).await?;
        let identity = federation.authority().issue(&[&federator_host(EVIL)])?;
        let caller = federation.call(ALPHA, Some(&identity), Some(EVIL)).await?;
        eventually("alpha.test to admit evil.test", async || Ok(caller.hello().await?)).await?;
        Ok(Self { federation, ann, caller, _rogue: rogue })
    }

    /// Connects a user of evil.test with Ann, as that backend would.
    async fn befriend(&self, from: UserId) -> Result<()> {
        let request = RequestConnectionRequest {
            from: bytes_of(&from),
            to: bytes_of(&self.ann.id.id),
            from_team: None,
            time: 1,
            from_name: "Mallory".to_owned(),
        };
        self.caller.users().request_connection(request).await?;
        let mallory = Qualified::new(from, EVIL.parse()?);
        self.ann.set_connection(&mallory, "accepted").await?.expect(200)?;
        Ok(())
    }

    /// Delivers events in one lane, and tells what became of each.
    async fn deliver(&self, incarnation: u8, events: Vec<pb::ConversationEvent>) -> Result<Vec<outcome::Result>> {
        let incarnation = [incarnation; 16];
        let origin: Domain = EVIL.parse()?;
        let mut envelopes = Vec::new();
        for (event, sequence) in events.into_iter().zip(1_u64..) {
            let lane = <[u8; 16]>::try_from(&event.conversation[..])?;
            let id = aldis_delivery::event_id(&origin, &incarnation, "conversations", &lane, sequence);
            envelopes.push(pb::Envelope {
                lane: Bytes::copy_from_slice(&lane),
                sequence,
                previous: sequence - 1,
                event_id: Bytes::copy_from_slice(id.as_bytes()),
                kind: kind_of(&event)?,
                body: event.encode_to_vec().into(),
                traceparent: None,
            });
        }
        let count = envelopes.len();
        let open = pb::Open {
            incarnation: Bytes::copy_from_slice(&incarnation),
            component: "conversations".to_owned(),
            shard: 0,
            epoch: 1,
        };
        let messages = [deliver_request::Content::Open(open), deliver_request::Content::Batch(pb::Batch { envelopes })];
        let messages = messages.map(|content| pb::DeliverRequest { content: Some(content) });
        // The stream stays open until the outcomes are there.
        let requests = tokio_stream::StreamExt::chain(tokio_stream::iter(messages), tokio_stream::pending());
        let mut answers = self.caller.deliveries().deliver(requests).await?.into_inner();
        let mut outcomes = Vec::new();
        while outcomes.len() < count {
            let answer =
                aldis_harness::wait::soon("outcomes", answers.message()).await??.context("the stream ended")?;
            if let Some(deliver_response::Content::Outcomes(some)) = answer.content {
                outcomes.extend(some.outcomes.into_iter().filter_map(|outcome| outcome.result));
            }
        }
        Ok(outcomes)
    }
}

fn kind_of(event: &pb::ConversationEvent) -> Result<u32> {
    use conversation_event::Change;
    Ok(match event.change.as_ref().context("no change")? {
        Change::Created(_) => 10,
        Change::MembersAdded(_) => 11,
        Change::MembersRemoved(_) => 12,
        Change::Renamed(_) => 13,
        Change::MessageSent(_) => 30,
        other => bail!("not used here: {other:?}"),
    })
}

fn qualified(id: &UserId, domain: &str) -> pb::QualifiedId {
    pb::QualifiedId { id: bytes_of(id), domain: domain.to_owned() }
}

fn event(
    conversation: ConversationId,
    version: u64,
    actor: pb::QualifiedId,
    change: conversation_event::Change,
) -> pb::ConversationEvent {
    pb::ConversationEvent {
        conversation: Bytes::copy_from_slice(conversation.as_bytes()),
        time: 1_700_000_000_000 + i64::try_from(version).unwrap_or_default(),
        version,
        actor: Some(actor),
        actor_connection: None,
        change: Some(change),
    }
}

fn created(members: &[pb::QualifiedId], creator: &UserId) -> conversation_event::Change {
    let members = members.iter().map(|user| pb::Member { user: Some(user.clone()), role: "wire_member".to_owned() });
    conversation_event::Change::Created(pb::Created {
        metadata: Some(pb::Metadata {
            r#type: pb::ConversationType::Regular.into(),
            creator: Some(bytes_of(creator)),
            name: Some("Trap".to_owned()),
            access: vec![pb::Access::Invite.into()],
            access_roles: vec![pb::AccessRole::TeamMember.into(), pb::AccessRole::NonTeamMember.into()],
            message_timer_ms: None,
            receipt_mode: None,
            protocol: 1,
        }),
        members: members.collect(),
    })
}

fn message_to(users: &[&User], text: &str) -> Result<conversation_event::Change> {
    let mut recipients = Vec::new();
    for user in users {
        let client = user.client()?;
        let text = format!("{}/{client}|{text}", user.id);
        let clients = vec![pb::message_sent::ClientText { client: client.0, text: text.into() }];
        recipients.push(pb::message_sent::Recipient { user: bytes_of(&user.id.id), clients });
    }
    Ok(conversation_event::Change::MessageSent(pb::MessageSent {
        sender_client: 1,
        recipients,
        native_push: true,
        ..pb::MessageSent::default()
    }))
}

#[tokio::test]
async fn an_origin_is_what_the_certificate_proves() -> Result<()> {
    let federation = Federation::start(&[ALPHA, BETA]).await?;
    let authority = federation.authority();
    let refused = async |caller: Caller| caller.users().get_users(GetUsersRequest::default()).await.err();

    // beta.test's certificate is good for beta.test alone.
    let beta = authority.issue(&[&federator_host(BETA)])?;
    let caller = federation.call(ALPHA, Some(&beta), Some(BETA)).await?;
    caller.users().get_users(GetUsersRequest::default()).await?;
    federation.rogue(EVIL, Conduct::Silent).await?;
    federation.set_remote(ALPHA, EVIL, SearchPolicy::FullSearch).await?;
    eventually("the forged origin's refusal", async || {
        let status = refused(caller.claiming(EVIL)).await.context("the forged origin was believed")?;
        ensure!(status.code() == Code::Unauthenticated && label(&status) == "authentication-failure", "{status:?}");
        Ok(())
    })
    .await?;
    for claim in [ALPHA, "not a domain", "", "unlisted.test"] {
        let status = refused(caller.claiming(claim)).await.with_context(|| format!("{claim:?} was believed"))?;
        ensure!(REFUSALS.contains(&status.code()), "{claim:?}: {status:?}");
    }
    let silent = federation.call(ALPHA, Some(&beta), None).await?;
    ensure!(refused(silent).await.is_some(), "a call without origin was answered");
    caller.users().get_users(GetUsersRequest::default()).await?;

    // A certificate that names no target of beta.test proves nothing; one of another authority, an old one, or none
    // at all does not even get in.
    let unnamed = federation.call(ALPHA, Some(&authority.issue(&[BETA])?), Some(BETA)).await?;
    let status = refused(unnamed).await.context("a wrong name was believed")?;
    ensure!(label(&status) == "authentication-failure", "{status:?}");
    let foreign = Authority::new("Somebody else")?.issue(&[&federator_host(BETA)])?;
    let expired = authority.issue_expired(&[&federator_host(BETA)])?;
    for identity in [Some(&foreign), Some(&expired), None] {
        if let Ok(caller) = federation.call(ALPHA, identity, Some(BETA)).await {
            ensure!(refused(caller).await.is_some(), "a call without valid certificate was answered");
        }
    }
    Ok(())
}

#[tokio::test]
async fn only_federation_services_are_reachable_from_outside() -> Result<()> {
    let Evil { federation: _federation, caller, ann, _rogue, .. } = Evil::with(Conduct::Silent).await?;
    let mut admin = aldis_proto::internal::v1::user_admin_client::UserAdminClient::new(caller.claiming_channel());
    let mut clients = aldis_proto::internal::v1::clients_client::ClientsClient::new(caller.claiming_channel());
    let mut push = aldis_proto::internal::v1::push_client::PushClient::new(caller.claiming_channel());
    let mut codes = Vec::new();
    codes.push(admin.create_user(aldis_proto::internal::v1::CreateUserRequest::default()).await.err());
    let request = aldis_proto::internal::v1::ListClientsRequest { users: vec![bytes_of(&ann.id.id)] };
    codes.push(clients.list_clients(request).await.err());
    codes.push(push.push(aldis_proto::internal::v1::PushRequest::default()).await.err());
    for status in codes {
        let status = status.context("an internal service answered")?;
        ensure!(matches!(status.code(), Code::Unimplemented | Code::PermissionDenied | Code::NotFound), "{status:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_acting_user_belongs_to_the_backend_that_calls() -> Result<()> {
    let Pair { federation, ann, bob, .. } = Pair::connected().await?;
    let group = ann.group("Ours", &[&bob.id]).await?;
    let rogue = federation.rogue(EVIL, Conduct::Silent).await?;
    federation.set_remote(ALPHA, EVIL, SearchPolicy::FullSearch).await?;
    let identity = federation.authority().issue(&[&federator_host(EVIL)])?;
    let caller = federation.call(ALPHA, Some(&identity), Some(EVIL)).await?;
    eventually("alpha.test to admit evil.test", async || Ok(caller.hello().await?)).await?;

    // With Bob's and with Ann's bare id: in evil.test's mouth they are users of evil.test, and no members.
    let conversation = Bytes::copy_from_slice(group.id.as_bytes());
    for member in [&bob, &ann] {
        let rename = pb::UpdateConversationRequest {
            conversation: conversation.clone(),
            actor: bytes_of(&member.id.id),
            actor_connection: 0,
            action: Some(update_conversation_request::Action::Rename(pb::Rename { name: "Theirs".to_owned() })),
        };
        let outcome = caller.conversations().update_conversation(rename).await?.into_inner().outcome;
        let Some(update_conversation_response::Outcome::Refused(refused)) = outcome else {
            bail!("evil.test acted for {}: {outcome:?}", member.id);
        };
        ensure!(refused.label == "no-conversation", "{refused:?}");

        let recipients = Recipients::from([(ann.id.clone(), [ann.client()?].into())]);
        let message = pb::SendMessageRequest {
            conversation: conversation.clone(),
            sender: bytes_of(&member.id.id),
            sender_client: member.client()?.0,
            origin_clients: Vec::new(),
            message: Draft::new(recipients, "from whom?").encode(member.client()?),
            sender_connection: 0,
        };
        let outcome = caller.conversations().send_message(message).await?.into_inner().outcome;
        ensure!(matches!(&outcome, Some(send_message_response::Outcome::Refused(it)) if it.label == "no-conversation"));

        let read =
            pb::GetConversationsRequest { user: bytes_of(&member.id.id), conversations: vec![conversation.clone()] };
        let read = caller.conversations().get_conversations(read).await?.into_inner();
        ensure!(read.conversations.is_empty(), "evil.test reads a conversation: {read:?}");
    }
    ensure!(ann.conversation(&group).await?.expect(200)?.value()?["name"] == "Ours");
    ensure!(ann.inbox(None).await?.is_empty());
    drop(rogue);
    Ok(())
}

#[tokio::test]
async fn a_federated_event_reaches_only_stored_members() -> Result<()> {
    let evil = Evil::with(liar(UserId::new(Uuid::new_v4()))).await?;
    let ben = evil.federation.user(ALPHA, "Ben").await?;
    let mallory = UserId::new(Uuid::new_v4());
    evil.befriend(mallory).await?;
    let actor = qualified(&mallory, EVIL);
    let trap = ConversationId::new(Uuid::new_v4());
    let members = [actor.clone(), qualified(&evil.ann.id.id, ALPHA), qualified(&ben.id.id, ALPHA)];
    let events = vec![
        // Ben is not connected with Mallory: naming him does not make him a member.
        event(trap, 1, actor.clone(), created(&members, &mallory)),
        event(trap, 1, actor.clone(), message_to(&[&evil.ann, &ben], "to members")?),
    ];
    let outcomes = evil.deliver(1, events).await?;
    ensure!(outcomes.iter().all(|it| matches!(it, outcome::Result::Applied(_))), "{outcomes:?}");
    eventually("the message for the member", async || {
        let inbox = evil.ann.inbox(None).await?;
        ensure!(inbox.len() == 1 && inbox[0].text == "to members", "{inbox:?}");
        ensure!(inbox[0].from == Qualified::new(mallory, EVIL.parse()?), "{inbox:?}");
        ensure!(inbox[0].conversation == Qualified::new(trap, EVIL.parse()?), "{inbox:?}");
        Ok(())
    })
    .await?;
    let others = ben.queue(None).await?;
    ensure!(others.iter().all(|event| !event.kind().starts_with("conversation.")), "Ben got {others:?}");
    ensure!(!ben.conversation_ids().await?.iter().any(|conversation| conversation.id == trap));

    // A conversation of ours cannot be written to in this way: the id is taken as one of evil.test.
    let own = evil.ann.group("Ours", &[]).await?;
    let forged = vec![event(
        own.id,
        9,
        qualified(&evil.ann.id.id, ALPHA),
        conversation_event::Change::Renamed(pb::Renamed { name: "Theirs".to_owned() }),
    )];
    evil.deliver(2, forged).await?;
    ensure!(evil.ann.conversation(&own).await?.expect(200)?.value()?["name"] == "Ours");
    Ok(())
}

#[tokio::test]
async fn a_peer_does_not_speak_for_our_users() -> Result<()> {
    let evil = Evil::with(liar(UserId::new(Uuid::new_v4()))).await?;
    let ben = evil.federation.user(ALPHA, "Ben").await?;
    connect(&evil.ann, &ben).await?;
    let mallory = UserId::new(Uuid::new_v4());
    evil.befriend(mallory).await?;
    let trap = ConversationId::new(Uuid::new_v4());
    let members = [qualified(&mallory, EVIL), qualified(&evil.ann.id.id, ALPHA)];
    // Ben is no member, yet evil.test lets him write, and lets him create a conversation with his friend.
    let events = vec![
        event(trap, 1, qualified(&mallory, EVIL), created(&members, &mallory)),
        event(trap, 1, qualified(&ben.id.id, ALPHA), message_to(&[&evil.ann], "signed Ben")?),
    ];
    evil.deliver(3, events).await?;
    let second = ConversationId::new(Uuid::new_v4());
    let both = [qualified(&ben.id.id, ALPHA), qualified(&evil.ann.id.id, ALPHA)];
    evil.deliver(4, vec![event(second, 1, qualified(&ben.id.id, ALPHA), created(&both, &ben.id.id))]).await?;
    // Something that arrives after it shows that there was time enough.
    let conversation = evil.ann.one_to_one(&ben.id);
    ben.send(&conversation, "really Ben").await?;
    eventually("the real message", async || {
        let inbox = evil.ann.inbox(None).await?;
        let texts: Vec<_> = inbox.iter().map(|message| message.text.as_str()).collect();
        ensure!(texts == ["really Ben"], "{texts:?}");
        Ok(())
    })
    .await
}

fn liar(victim: UserId) -> Conduct {
    Conduct::Serve(Routes::new(UsersServer::new(Liar { victim })))
}

/// Answers every question with more than was asked, and agrees to every connection.
struct Liar {
    victim: UserId,
}

impl Liar {
    fn profile(&self, id: Bytes, name: &str) -> pb::Profile {
        pb::Profile {
            id,
            name: name.to_owned(),
            accent_id: 1,
            handle: Some(format!("handle_{}", self.victim.uuid().simple())),
            version: 1,
            ..pb::Profile::default()
        }
    }

    fn unasked(&self) -> Bytes {
        Bytes::copy_from_slice(self.victim.as_bytes())
    }
}

#[async_trait]
impl Users for Liar {
    async fn get_users(&self, request: Request<GetUsersRequest>) -> Result<Response<GetUsersResponse>, Status> {
        let mut profiles: Vec<_> =
            request.into_inner().users.into_iter().map(|id| self.profile(id, "Asked for")).collect();
        profiles.push(self.profile(self.unasked(), "Not asked for"));
        Ok(Response::new(GetUsersResponse { profiles }))
    }

    async fn get_user_by_handle(
        &self,
        _: Request<GetUserByHandleRequest>,
    ) -> Result<Response<GetUserByHandleResponse>, Status> {
        let profile = Some(self.profile(self.unasked(), "Another handle"));
        Ok(Response::new(GetUserByHandleResponse { profile }))
    }

    async fn search_users(&self, _: Request<SearchUsersRequest>) -> Result<Response<SearchUsersResponse>, Status> {
        let many = (0..2000_u128).map(|number| {
            self.profile(Bytes::copy_from_slice(Uuid::from_u128(number + 1).as_bytes()), "One of very many")
        });
        Ok(Response::new(SearchUsersResponse { profiles: many.collect(), policy: pb::SearchPolicy::FullSearch.into() }))
    }

    async fn list_clients(
        &self,
        request: Request<ListClientsRequest>,
    ) -> Result<Response<ListClientsResponse>, Status> {
        let clients = |user| pb::UserClients { user, clients: vec![pb::Client { id: 7, class: 0 }] };
        let mut users: Vec<_> = request.into_inner().users.into_iter().map(clients).collect();
        users.push(clients(self.unasked()));
        Ok(Response::new(ListClientsResponse { users, lease_millis: 0 }))
    }

    async fn claim_prekeys(
        &self,
        request: Request<ClaimPrekeysRequest>,
    ) -> Result<Response<ClaimPrekeysResponse>, Status> {
        use pb::claim_prekeys_response::{ClientPrekey, UserPrekeys};
        let key = |client| ClientPrekey { client, prekey: Some(pb::Prekey { id: 1, key: "aGVsbG8=".to_owned() }) };
        let claims = request.into_inner().claims;
        let mut users: Vec<_> = claims
            .into_iter()
            .map(|claim| UserPrekeys {
                user: claim.user,
                clients: claim.clients.into_iter().chain([99]).map(key).collect(),
            })
            .collect();
        users.push(UserPrekeys { user: self.unasked(), clients: vec![key(1)] });
        Ok(Response::new(ClaimPrekeysResponse { users }))
    }

    async fn list_connections(
        &self,
        _: Request<pb::ListConnectionsRequest>,
    ) -> Result<Response<pb::ListConnectionsResponse>, Status> {
        // Everybody there wants to be connected with everybody here.
        let pair = pb::ConnectionPair { user: self.unasked(), other: self.unasked() };
        let connection = pb::list_connections_response::Connection { pair: Some(pair), ..Default::default() };
        Ok(Response::new(pb::ListConnectionsResponse { connections: vec![connection], more: false }))
    }

    async fn request_connection(
        &self,
        _: Request<RequestConnectionRequest>,
    ) -> Result<Response<RequestConnectionResponse>, Status> {
        use pb::request_connection_response::{Connected, Outcome, Reaction};
        let connected = Connected { reaction: Reaction::None.into() };
        Ok(Response::new(RequestConnectionResponse { outcome: Some(Outcome::Connected(connected)) }))
    }
}

#[tokio::test]
async fn what_a_peer_answers_beyond_the_question_is_dropped() -> Result<()> {
    let victim = UserId::new(Uuid::new_v4());
    let Evil { federation: _federation, ann, _rogue, .. } = Evil::with(liar(victim)).await?;
    let asked = UserId::new(Uuid::new_v4());
    let asked_id = json!({ "domain": EVIL, "id": asked });
    let unasked = victim.to_string();

    let listed = eventually("an answer of evil.test", async || {
        let listed = ann.post("/list-users", &json!({ "qualified_ids": [asked_id] })).await?.expect(200)?.value()?;
        ensure!(listed.get("failed").is_none(), "{listed}");
        Ok(listed)
    })
    .await?;
    ensure!(listed["found"].as_array().map(Vec::len) == Some(1), "{listed}");
    ensure!(listed["found"][0]["qualified_id"] == asked_id, "{listed}");

    let clients = ann.post("/users/list-clients", &json!({ "qualified_users": [asked_id] })).await?.expect(200)?;
    let clients = clients.value()?["qualified_user_map"].clone();
    ensure!(clients == json!({ EVIL: { asked.to_string(): [{ "id": "7" }] } }), "{clients}");

    let claims = json!({ EVIL: { asked.to_string(): ["5"] } });
    let keys = ann.post("/users/list-prekeys", &claims).await?.expect(200)?.value()?;
    let expected = json!({ EVIL: { asked.to_string(): { "5": { "id": 1, "key": "aGVsbG8=" } } } });
    ensure!(keys["qualified_user_client_prekeys"] == expected, "{keys}");

    let by_handle = ann.get(&format!("/users/by-handle/{EVIL}/somebody_else")).await?;
    ensure!(by_handle.status != 200 && !String::from_utf8_lossy(&by_handle.body).contains(&unasked), "{by_handle:?}");
    let found = ann.search("many", &EVIL.parse()?).await?;
    let documents = found.value()?["documents"].as_array().map_or(0, Vec::len);
    ensure!(documents <= 15, "{documents} documents for a search of 15");
    Ok(())
}

#[tokio::test]
async fn everything_from_outside_has_a_bound() -> Result<()> {
    let Evil { federation, ann, caller, _rogue, .. } = Evil::with(Conduct::Silent).await?;
    // Bodies.
    let huge = json!({ "name": "x".repeat(600 * 1024) });
    ann.api.call(http::Method::PUT, "/self").token(&ann.session().token)?.json(&huge)?.send().await?.expect(413)?;
    ann.put("/properties/webapp", &json!("x".repeat(600 * 1024))).await?.expect_one_of(&[403, 413])?;
    // Lists.
    let many: Vec<_> = (0..1001_u128).map(|n| json!({ "domain": ALPHA, "id": Uuid::from_u128(n + 1) })).collect();
    ann.post("/conversations/list", &json!({ "qualified_ids": many })).await?.expect(400)?;
    ann.post("/users/list-clients", &json!({ "qualified_users": many })).await?.expect(400)?;
    let too_many = ann.create_group("Crowd", &[]).await?;
    too_many.expect(201)?;
    ann.post("/conversations", &json!({ "qualified_users": many })).await?.expect_one_of(&[400, 403])?;
    ann.put("/self", &json!({ "name": "x".repeat(200) })).await?.expect(400)?;
    // Nesting.
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let call = ann.api.call(http::Method::PUT, "/properties/webapp").token(&ann.session().token)?;
    let answer = call.bytes("application/json", deep)?.send().await?;
    ensure!((400..500).contains(&answer.status), "{answer:?}");
    ann.get("/self").await?.expect(200)?;
    // Lists of other backends.
    let users: Vec<Bytes> = (0..2000_u128).map(|n| Bytes::copy_from_slice(Uuid::from_u128(n).as_bytes())).collect();
    let refused = caller.users().get_users(GetUsersRequest { users: users.clone() }).await.err();
    ensure!(refused.is_some_and(|status| status.code() == Code::InvalidArgument), "2000 profiles were answered");
    let list = ListClientsRequest { users: users.clone(), lease: true };
    let refused = caller.users().list_clients(list).await.err();
    ensure!(refused.is_some_and(|status| status.code() == Code::InvalidArgument), "2000 users' clients were answered");
    let forget = pb::ForgetClientsRequest { users: users.clone() };
    let refused = caller.conversations().forget_clients(forget).await.err();
    ensure!(refused.is_some_and(|status| status.code() == Code::InvalidArgument), "2000 users were forgotten");
    let read = pb::GetConversationsRequest { user: bytes_of(&ann.id.id), conversations: users };
    let refused = caller.conversations().get_conversations(read).await.err();
    ensure!(refused.is_some_and(|status| status.code() == Code::InvalidArgument), "2000 conversations were answered");
    // Malformed ids.
    let odd = GetUsersRequest { users: vec![Bytes::from_static(b"short")] };
    let refused = caller.users().get_users(odd).await.err();
    ensure!(refused.is_some_and(|status| status.code() == Code::InvalidArgument), "an id of 5 bytes was taken");
    federation.operations(ALPHA, "/readyz").await?.expect(200)?;
    Ok(())
}

#[tokio::test]
async fn one_backend_cannot_use_up_what_is_for_all() -> Result<()> {
    let setup = Setup::of(&[ALPHA, BETA]).configure(ALPHA, "[users.federation.quotas]\nhandles = 5\nsearches = 5");
    let federation = Federation::with(setup).await?;
    let identity = federation.authority().issue(&[&federator_host(BETA)])?;
    let caller = federation.call(ALPHA, Some(&identity), Some(BETA)).await?;
    let ask = |handle: &str| GetUserByHandleRequest { handle: handle.to_owned(), searcher_team: None };
    let mut refused = 0;
    for number in 0..30 {
        if let Err(status) = caller.users().get_user_by_handle(ask(&format!("handle_{number}"))).await {
            ensure!(status.code() == Code::ResourceExhausted, "{status:?}");
            refused += 1;
        }
    }
    ensure!(refused >= 15, "only {refused} of 30 were refused");
    Ok(())
}

#[tokio::test]
async fn who_asks_too_often_is_told_to_wait() -> Result<()> {
    let throttled = "[client.throttle]\nenabled = true\nopen_burst = 30\nuser_per_second = 1\nuser_burst = 10";
    let federation = Federation::with(Setup::of(&[ALPHA]).configure(ALPHA, throttled)).await?;
    let ann = federation.account(ALPHA, "Ann").await?;
    let ben = federation.account(ALPHA, "Ben").await?;
    let statuses = async |user: &User| -> Result<Vec<u16>> {
        let ask = || async { anyhow::Ok(user.get("/self").await?.status) };
        futures::future::try_join_all((0..40).map(|_| ask())).await
    };
    let seen = statuses(&ann).await?;
    ensure!(seen.contains(&420) && seen.contains(&200), "{seen:?}");
    // Others are not affected by it.
    ben.get("/self").await?.expect(200)?;
    let api = federation.api(ALPHA)?;
    let guess = json!({ "email": "nobody@mail.test", "password": "guessing away" });
    let mut guesses = Vec::new();
    for _ in 0..40 {
        guesses.push(api.post("/login", &guess).await?.status);
    }
    ensure!(guesses.last() == Some(&420), "{guesses:?}");
    // Apps ask this before everything else.
    for _ in 0..40 {
        api.get("/api-version").await?.expect(200)?;
    }
    Ok(())
}

#[tokio::test]
async fn tokens_of_another_backend_or_kind_are_worth_nothing() -> Result<()> {
    let Pair { federation: _federation, ann, bob, .. } = Pair::connected().await?;
    let refused = async |user: &User, token: &str| {
        for path in ["/self", "/notifications?size=100", "/conversations/mls-self", "/feature-configs"] {
            user.api
                .call(http::Method::GET, path)
                .token(token)?
                .send()
                .await?
                .expect_error(401, "invalid-credentials")?;
        }
        anyhow::Ok(())
    };
    refused(&ann, &bob.session().token).await?;
    // The cookie's token is for /access alone.
    let cookie = ann.session().cookie;
    let answer = ann.api.call(http::Method::GET, "/self").token(&cookie)?.send().await?;
    ensure!([401, 403].contains(&answer.status), "{answer:?}");
    // A changed field breaks the signature.
    let token = ann.session().token;
    refused(&ann, &token.replace(&ann.id.id.to_string(), &bob.id.id.to_string())).await?;
    refused(&ann, &token.replacen(".d=", ".d=9", 1)).await?;
    // Headers that only our own parts may set mean nothing from outside.
    let forged = ann.api.call(http::Method::GET, "/self").header("z-user", &ann.id.id.to_string())?;
    forged.header("z-type", "access")?.send().await?.expect_error(401, "invalid-credentials")?;
    Ok(())
}

#[tokio::test]
async fn secrets_are_not_in_the_store() -> Result<()> {
    let Pair { federation, ann, bob: _bob, .. } = Pair::connected().await?;
    let path = federation.store(ALPHA)?;
    for name in [path.clone(), path.with_extension("db-wal")] {
        let Ok(bytes) = std::fs::read(&name) else { continue };
        for secret in [ann.person.password.as_str(), &ann.session().cookie, &ann.session().token] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            ensure!(!found, "{} holds a password or token", name.display());
        }
    }
    Ok(())
}
