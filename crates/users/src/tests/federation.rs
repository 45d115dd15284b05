use aldis_delivery::{Component, Outbox, Outgoing, Peer, Relays};
use aldis_peers::{CallOptions, PeerError, Peers};
use aldis_proto::{
    channel::Channel,
    convert,
    federation::v1::{
        ClaimPrekeysRequest, ConnectionRescinded, GetUserByHandleRequest, GetUsersRequest, ListClientsRequest,
        RequestConnectionRequest, SearchUsersRequest, TeamList, UsersEvent, claim_prekeys_request::Claim,
        request_connection_response as response, users_client::UsersClient, users_event,
    },
};
use aldis_types::{Domain, UserId};
use bytes::Bytes;
use prost::Message;
use serde_json::json;
use tonic::Code;
use uuid::Uuid;

use crate::testing::{Backend, Network, database_and_outbox, new_client, until};

fn gamma() -> Domain {
    "gamma.test".parse().unwrap()
}

/// Calls from gamma.test, which has no users service of its own.
struct Gamma {
    client: UsersClient<Channel>,
    to: Domain,
}

impl Gamma {
    async fn admitted(network: &Network, backend: &Backend, search_policy: u32) -> Self {
        let other = Backend::start("gamma.test", network, |_| ()).await;
        backend.federate_with(&other, search_policy).await;
        Self { client: UsersClient::new(network.egress(&gamma())), to: backend.domain.clone() }
    }

    fn request<M>(&self, message: M) -> tonic::Request<M> {
        Peers::request(&self.to, message, &CallOptions::default())
    }
}

fn connect(from: UserId, to: UserId, time: i64) -> RequestConnectionRequest {
    RequestConnectionRequest {
        from: convert::bytes_of(from),
        to: convert::bytes_of(to),
        from_team: None,
        time,
        from_name: "Mallory".to_owned(),
    }
}

#[tokio::test]
async fn nobody_is_answered_who_is_not_on_the_list() {
    let network = Network::default();
    let beta = Backend::start("beta.test", &network, |_| ()).await;
    let bob = beta.register("Bob").await;
    let mut client = UsersClient::new(network.egress(&gamma()));
    let request = |message| Peers::request(&beta.domain, message, &CallOptions::default());
    let users = GetUsersRequest { users: vec![convert::bytes_of(bob.id)] };
    let status = client.get_users(request(users.clone())).await.unwrap_err();
    assert_eq!(PeerError::from_status(&beta.domain, &status).inner().unwrap().0, "federation-denied");
    assert_eq!(status.code(), Code::PermissionDenied);
    // Nor is whoever claims to be ourselves, even where everybody is welcome.
    let own = Backend::start("own.test", &network, |config| {
        config.federation.strategy = aldis_types::Strategy::AllowAll;
    })
    .await;
    let mut client = UsersClient::new(network.egress(&own.domain));
    let request = Peers::request(&own.domain, users, &CallOptions::default());
    assert_eq!(client.get_users(request).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn everything_has_a_bound() {
    let network = Network::default();
    let beta = Backend::start("beta.test", &network, |_| ()).await;
    let bob = beta.register("Bob").await;
    let gamma = Gamma::admitted(&network, &beta, 3).await;
    let id = convert::bytes_of(bob.id);
    let many: Vec<Bytes> = (0..501).map(|number| convert::bytes_of(UserId::new(Uuid::from_u128(number)))).collect();
    let mut codes = Vec::new();
    let mut client = gamma.client.clone();
    let users = GetUsersRequest { users: many.clone() };
    codes.push(client.get_users(gamma.request(users)).await.unwrap_err().code());
    let short = GetUsersRequest { users: vec![id.slice(..15)] };
    codes.push(client.get_users(gamma.request(short)).await.unwrap_err().code());
    let clients = ListClientsRequest { users: many.clone(), lease: true };
    codes.push(client.list_clients(gamma.request(clients)).await.unwrap_err().code());
    let claim = |user: &Bytes, clients: Vec<u64>| Claim { user: user.clone(), clients, all_clients: false };
    for claims in [
        many.iter().map(|user| claim(user, vec![1])).collect::<Vec<_>>(),
        vec![claim(&id, (0..65).collect())],
        vec![claim(&id, vec![1]), claim(&id, vec![2])],
        vec![Claim { all_clients: true, ..claim(&id, vec![1]) }],
    ] {
        let request = gamma.request(ClaimPrekeysRequest { claims });
        codes.push(client.claim_prekeys(request).await.unwrap_err().code());
    }
    for term in ["", &"x".repeat(257)] {
        let search = SearchUsersRequest { term: term.to_owned(), size: 5, ..SearchUsersRequest::default() };
        codes.push(client.search_users(gamma.request(search)).await.unwrap_err().code());
    }
    let handle = GetUserByHandleRequest { handle: "Not A Handle".to_owned(), searcher_team: None };
    codes.push(client.get_user_by_handle(gamma.request(handle)).await.unwrap_err().code());
    let nameless = RequestConnectionRequest { from_name: String::new(), ..connect(bob.id, bob.id, 1) };
    codes.push(client.request_connection(gamma.request(nameless)).await.unwrap_err().code());
    assert!(codes.iter().all(|code| *code == Code::InvalidArgument), "{codes:?}");
}

#[tokio::test]
async fn quotas_are_counted_per_backend_and_per_user() {
    let network = Network::default();
    let beta = Backend::start("beta.test", &network, |config| {
        let quotas = &mut config.federation.quotas;
        (quotas.searches, quotas.handles, quotas.prekeys_per_user, quotas.connections_per_user) = (1, 1, 1, 1);
    })
    .await;
    let (bob, carl) = (beta.register("Bob").await, beta.register("Carl").await);
    let client = beta.post(&bob, "/clients", new_client("permanent", "b", 5)).await.expect(201);
    let client = u64::from_str_radix(client["id"].as_str().unwrap(), 16).unwrap();
    let gamma = Gamma::admitted(&network, &beta, 3).await;
    let mut asked = gamma.client.clone();
    let mut last = Vec::new();
    for _ in 0..3 {
        let search = SearchUsersRequest { term: "bob".to_owned(), size: 5, ..SearchUsersRequest::default() };
        let search = asked.search_users(gamma.request(search)).await.map(|_| ());
        let handle = GetUserByHandleRequest { handle: "bob".to_owned(), searcher_team: None };
        let handle = asked.get_user_by_handle(gamma.request(handle)).await.map(|_| ());
        let claims = vec![Claim { user: convert::bytes_of(bob.id), clients: vec![client], all_clients: false }];
        let prekeys = asked.claim_prekeys(gamma.request(ClaimPrekeysRequest { claims })).await.map(|_| ());
        let connection = connect(UserId::new(Uuid::from_u128(1)), bob.id, 1);
        let connection = asked.request_connection(gamma.request(connection)).await.map(|_| ());
        last = vec![search, handle, prekeys, connection];
    }
    for refused in last {
        let status = refused.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        let error = PeerError::from_status(&beta.domain, &status);
        assert_eq!(error.label().status, 420);
    }
    let other = connect(UserId::new(Uuid::from_u128(1)), carl.id, 1);
    asked.request_connection(gamma.request(other)).await.unwrap();
}

#[tokio::test]
async fn one_handle_and_one_text_are_asked_for_less_often_than_many() {
    let network = Network::default();
    let beta = Backend::start("beta.test", &network, |config| {
        let quotas = &mut config.federation.quotas;
        (quotas.searches_per_term, quotas.handles_per_handle) = (1, 1);
    })
    .await;
    let gamma = Gamma::admitted(&network, &beta, 3).await;
    let mut client = gamma.client.clone();
    let mut ask = async |text: &str| {
        let search = SearchUsersRequest { term: text.to_owned(), size: 5, ..SearchUsersRequest::default() };
        let handle = GetUserByHandleRequest { handle: text.to_lowercase(), searcher_team: None };
        let search = client.search_users(gamma.request(search)).await.map_err(|status| status.code());
        let handle = client.get_user_by_handle(gamma.request(handle)).await.map_err(|status| status.code());
        (search.map(drop), handle.map(drop))
    };
    for text in ["bob", "Bob", "carl"] {
        assert_eq!(ask(text).await, (Ok(()), Ok(())), "{text}");
    }
    assert_eq!(ask("BOB").await, (Err(Code::ResourceExhausted), Err(Code::ResourceExhausted)));
    assert_eq!(ask("dora").await, (Ok(()), Ok(())));
}

#[tokio::test]
async fn unanswered_requests_of_strangers_are_limited() {
    let network = Network::default();
    let beta = Backend::start("beta.test", &network, |config| config.limits.pending_connections = 2).await;
    let bob = beta.register("Bob").await;
    let gamma = Gamma::admitted(&network, &beta, 3).await;
    let mut client = gamma.client.clone();
    let mut outcomes = Vec::new();
    for number in [1, 2, 3, 1] {
        let request = connect(UserId::new(Uuid::from_u128(number)), bob.id, 7);
        outcomes.push(client.request_connection(gamma.request(request)).await.map_err(|status| status.code()));
    }
    assert_eq!(outcomes.remove(2).unwrap_err(), Code::ResourceExhausted);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

#[tokio::test]
async fn strangers_cannot_be_connected_with_and_teams_find_nobody() {
    let network = Network::default();
    let beta = Backend::start("beta.test", &network, |_| ()).await;
    let bob = beta.register_with_handle("Bob", "bob").await;
    let gamma = Gamma::admitted(&network, &beta, 3).await;
    let mut client = gamma.client.clone();
    let nobody = connect(bob.id, UserId::new(Uuid::from_u128(9)), 1);
    let outcome = client.request_connection(gamma.request(nobody)).await.unwrap().into_inner().outcome.unwrap();
    let reason = response::refused::Reason::NotActivated.into();
    assert_eq!(outcome, response::Outcome::Refused(response::Refused { reason }));
    let teams = TeamList { teams: vec![convert::bytes_of(UserId::new(Uuid::from_u128(3)))] };
    let search =
        |only_in_teams| SearchUsersRequest { term: "bob".to_owned(), searcher_team: None, only_in_teams, size: 9 };
    let found = client.search_users(gamma.request(search(None))).await.unwrap().into_inner();
    assert_eq!(found.profiles.len(), 1);
    let found = client.search_users(gamma.request(search(Some(teams)))).await.unwrap().into_inner();
    assert!(found.profiles.is_empty());
}

/// The relay of a backend that tells what it likes.
async fn tell(network: &Network, beta: &Backend, events: Vec<(UserId, u32, Vec<u8>)>) -> tokio::task::JoinSet<()> {
    let (folder, db, _) = database_and_outbox().await;
    let clock = std::sync::Arc::new(aldis_runtime::SystemClock);
    let outbox = Outbox::open(Component::Users, gamma(), db.clone(), clock).await.unwrap();
    let outgoing: Vec<_> = events
        .into_iter()
        .map(|(lane, kind, body)| Outgoing {
            peer: Peer::Backend(beta.domain.clone()),
            lane: *lane.as_bytes(),
            kind,
            body: body.into(),
        })
        .collect();
    let writing = outbox.clone();
    let appended = db.write(move |tx| writing.append(tx, &outgoing)).await.unwrap();
    let _ = outbox.committed(appended);
    let policy = aldis_peers::Policy::new(std::time::Duration::from_secs(60));
    policy.update(aldis_types::PolicySnapshot {
        version: 1,
        strategy: aldis_types::Strategy::AllowAll,
        remotes: std::collections::BTreeMap::new(),
    });
    let peers = Peers::new(network.egress(&gamma()));
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let _folder = folder;
        outbox
            .run(Relays {
                peers,
                policy,
                notifications: None,
                conversations: None,
                bounds: aldis_delivery::Config::default(),
            })
            .await;
    });
    tasks
}

fn rescinded(user: UserId, to: UserId, time: i64) -> Vec<u8> {
    let change = users_event::Change::ConnectionRescinded(ConnectionRescinded { to: convert::bytes_of(to) });
    UsersEvent { user: convert::bytes_of(user), time, change: Some(change) }.encode_to_vec()
}

#[tokio::test]
async fn events_of_another_backend_are_taken_for_its_own_users_only() {
    let network = Network::default();
    let beta = Backend::start("beta.test", &network, |_| ()).await;
    let bob = beta.register("Bob").await;
    let gamma = Gamma::admitted(&network, &beta, 3).await;
    let user = |number| UserId::new(Uuid::from_u128(number));
    let mut client = gamma.client.clone();
    for number in 1..=4 {
        client.request_connection(gamma.request(connect(user(number), bob.id, 100))).await.unwrap();
    }
    let _relay = tell(
        &network,
        &beta,
        vec![
            (user(1), 10, rescinded(user(2), bob.id, 200)),
            (user(1), 10, b"rubbish".to_vec()),
            (user(1), 10, rescinded(user(1), bob.id, 200)),
            (user(3), 13, rescinded(user(3), bob.id, 200)),
            (user(3), 10, rescinded(user(3), bob.id, 200)),
            (user(4), 10, rescinded(user(4), bob.id, 50)),
            (user(5), 10, rescinded(user(5), bob.id, 200)),
            (user(5), 10, rescinded(user(5), user(77), 200)),
        ],
    )
    .await;
    let cancelled = || beta.recorder.events_for("user.connection", bob.id).len() == 5;
    until(cancelled).await;
    let status = async |number| {
        let path = format!("/connections/gamma.test/{}", user(number));
        beta.get(&bob, &path).await.body["status"].clone()
    };
    assert_eq!(status(1).await, json!("cancelled"));
    assert_eq!(status(2).await, json!("pending"), "user 1 cannot speak for user 2");
    assert_eq!(status(3).await, json!("pending"), "what is not understood holds its lane");
    assert_eq!(status(4).await, json!("pending"), "what is older than the request changes nothing");
    assert_eq!(status(5).await, json!(null));
}
