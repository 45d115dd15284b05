//! Other backends that rely on lists of clients for a while.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use aldis_peers::{CallOptions, Origin, Peers};
use aldis_proto::{
    channel::Channel,
    convert,
    federation::v1::{
        self as pb, ListClientsRequest, ListClientsResponse,
        conversations_server::{Conversations, ConversationsServer},
        users_client::UsersClient,
    },
};
use aldis_types::UserId;
use serde_json::json;
use tonic::{Request, Response, Status, service::Routes};

use crate::{
    clients::{Leases, store::SqliteClients},
    peers::UserPeers,
    testing::{Backend, Network, PASSWORD, database_and_outbox, new_client},
};

/// The conversations service of the backend that holds leases; notes whose clients it is to forget.
#[derive(Clone, Default)]
struct Holder(Arc<Mutex<Vec<UserId>>>);

#[tonic::async_trait]
impl Conversations for Holder {
    async fn forget_clients(
        &self,
        request: Request<pb::ForgetClientsRequest>,
    ) -> Result<Response<pb::ForgetClientsResponse>, Status> {
        assert_eq!(Origin::of(&request).unwrap().domain().as_str(), "beta.test");
        let users = convert::user_ids(&request.into_inner().users, 500)?;
        self.0.lock().unwrap().extend(users);
        Ok(Response::new(pb::ForgetClientsResponse {}))
    }

    async fn check_invite(
        &self,
        _: Request<pb::CheckInviteRequest>,
    ) -> Result<Response<pb::CheckInviteResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn get_conversations(
        &self,
        _: Request<pb::GetConversationsRequest>,
    ) -> Result<Response<pb::GetConversationsResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn send_message(
        &self,
        _: Request<pb::SendMessageRequest>,
    ) -> Result<Response<pb::SendMessageResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn update_conversation(
        &self,
        _: Request<pb::UpdateConversationRequest>,
    ) -> Result<Response<pb::UpdateConversationResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn typing(&self, _: Request<pb::TypingRequest>) -> Result<Response<pb::TypingResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn on_typing(&self, _: Request<pb::OnTypingRequest>) -> Result<Response<pb::OnTypingResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn compare_memberships(
        &self,
        _: Request<pb::CompareMembershipsRequest>,
    ) -> Result<Response<pb::CompareMembershipsResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn list_memberships(
        &self,
        _: Request<pb::ListMembershipsRequest>,
    ) -> Result<Response<pb::ListMembershipsResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn get_memberships(
        &self,
        _: Request<pb::GetMembershipsRequest>,
    ) -> Result<Response<pb::GetMembershipsResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }
}

async fn ask(gamma: &mut UsersClient<Channel>, of: &Backend, user: UserId, lease: bool) -> ListClientsResponse {
    let message = ListClientsRequest { users: vec![convert::bytes_of(user)], lease };
    gamma.list_clients(Peers::request(&of.domain, message, &CallOptions::default())).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_change_of_clients_is_answered_when_nobody_relies_on_the_old_list() {
    let network = Network::default();
    let beta = Backend::start("beta.test", &network, |_| ()).await;
    let gamma = Backend::start("gamma.test", &network, |_| ()).await;
    beta.federate_with(&gamma, 3).await;
    network.take_down(&gamma.domain);
    let holder = Holder::default();
    let forgotten = || holder.0.lock().unwrap().clone();
    network.bring_up(&gamma.domain, Routes::new(ConversationsServer::new(holder.clone())).prepare());
    let mut caller = UsersClient::new(network.egress(&gamma.domain));
    let (bob, other) = (beta.register("Bob").await, beta.register("Other").await);
    let register = async |seed: &str| {
        let body = beta.post(&bob, "/clients", new_client("permanent", seed, 0)).await.expect(201);
        body["id"].as_str().unwrap().to_owned()
    };

    // Who asks without one gets no lease and is not told.
    assert_eq!(ask(&mut caller, &beta, bob.id, false).await.lease_millis, 0);
    ask(&mut caller, &beta, other.id, true).await;
    let first = register("one").await;
    assert!(forgotten().is_empty());
    // Who has one is told before the answer, once.
    let leased = ask(&mut caller, &beta, bob.id, true).await;
    assert!(leased.lease_millis > 0 && leased.users[0].clients.len() == 1);
    register("two").await;
    assert_eq!(forgotten(), [bob.id]);
    register("three").await;
    assert_eq!(forgotten(), [bob.id]);
    ask(&mut caller, &beta, bob.id, true).await;
    beta.delete(&bob, &format!("/clients/{first}"), Some(json!({ "password": PASSWORD }))).await.expect(200);
    assert_eq!(forgotten(), [bob.id, bob.id]);

    // Who is gone delays the answer until it can no longer rely on anything.
    let asked_at = Instant::now();
    let leased = ask(&mut caller, &beta, bob.id, true).await;
    network.take_down(&gamma.domain);
    register("four").await;
    assert!(asked_at.elapsed() >= Duration::from_millis(leased.lease_millis.into()));
}

#[tokio::test]
async fn leases_of_an_earlier_process_are_waited_for() {
    let (_folder, db, outbox) = database_and_outbox().await;
    let store = Arc::new(SqliteClients::new(db, outbox));
    let peers = UserPeers::new(&Peers::new(Network::default().egress(&"beta.test".parse().unwrap())));
    let user = UserId::new(uuid::Uuid::from_u128(1));
    let earlier = Leases::open(store.clone(), peers.clone()).await.unwrap();
    earlier.settle(user).await;
    let granted_at = Instant::now();
    let lease = earlier.grant(&"gamma.test".parse().unwrap(), &[user]).await.unwrap();
    drop(earlier);
    let later = Leases::open(store, peers).await.unwrap();
    later.settle(user).await;
    assert!(granted_at.elapsed() >= lease);
}
