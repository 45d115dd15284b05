use aldis_peers::Peers;
use aldis_proto::{
    convert,
    federation::v1::{RequestConnectionRequest, request_connection_response as response, users_client::UsersClient},
    internal::v1::{self as internal, GetRelationsRequest, connections_client::ConnectionsClient},
};
use aldis_types::Relation::{self, Accepted, Blocked, Cancelled, Ignored, Pending, Sent};
use serde_json::{Value, json};

use super::{
    machine::{Action, Outcome, Pair, RemoteAction, after, after_remote, change, connect},
    store::{SqliteConnections, suite},
};
use crate::testing::{Backend, Network, User, database_and_outbox, until};

const ALL: [Relation; 6] = [Sent, Pending, Accepted, Ignored, Blocked, Cancelled];

pub(super) fn path(other: &User) -> String {
    format!("/connections/{}/{}", other.domain, other.id)
}

pub(super) async fn post(backend: &Backend, me: &User, other: &User) -> crate::testing::Answer {
    backend.call("POST", &path(other), Some(&me.token), None).await
}

pub(super) async fn put(backend: &Backend, me: &User, other: &User, status: &str) -> crate::testing::Answer {
    backend.put(me, &path(other), json!({ "status": status })).await
}

pub(super) async fn status(backend: &Backend, me: &User, other: &User) -> String {
    let answer = backend.get(me, &path(other)).await;
    if answer.status == 404 {
        return "none".to_owned();
    }
    answer.expect(200)["status"].as_str().unwrap().to_owned()
}

/// Statuses that a user was told of, in order.
pub(super) fn told(backend: &Backend, user: &User) -> Vec<String> {
    let events = backend.recorder.events_for("user.connection", user.id);
    events.iter().map(|event| event["connection"]["status"].as_str().unwrap().to_owned()).collect()
}

/// Relations that conversations was told of, in order.
pub(super) fn applied(backend: &Backend, user: &User) -> Vec<internal::Relation> {
    backend.recorder.relations(user.id).iter().map(internal::ApplyRelationRequest::relation).collect()
}

#[tokio::test]
async fn suite_on_sqlite() {
    let (_folder, db, outbox) = database_and_outbox().await;
    suite::all(&SqliteConnections::new(db, outbox)).await;
}

#[test]
fn remote_table() {
    // current: connect, block, ignore, rescind; remote connect, remote rescind
    type Row = (Option<Relation>, [Option<Relation>; 4], [Option<Relation>; 2]);
    let table: [Row; 7] = [
        (Some(Sent), [Some(Sent), Some(Blocked), None, Some(Cancelled)], [Some(Accepted), None]),
        (Some(Pending), [Some(Accepted), Some(Blocked), Some(Ignored), None], [Some(Pending), Some(Cancelled)]),
        (Some(Accepted), [Some(Accepted), Some(Blocked), None, Some(Pending)], [Some(Accepted), Some(Sent)]),
        (Some(Ignored), [Some(Sent), Some(Blocked), None, None], [Some(Pending), None]),
        (Some(Blocked), [Some(Sent), None, None, None], [None, None]),
        (Some(Cancelled), [Some(Sent), Some(Blocked), None, None], [Some(Pending), None]),
        (None, [Some(Sent), Some(Blocked), None, None], [Some(Pending), None]),
    ];
    for (current, local, remote) in table {
        let actions = [Action::Connect, Action::Block, Action::Ignore, Action::Rescind];
        assert_eq!(actions.map(|action| after(current, action)), local, "{current:?}");
        let actions = [RemoteAction::Connect, RemoteAction::Rescind];
        assert_eq!(actions.map(|action| after_remote(current, action)), remote, "{current:?}");
    }
}

#[test]
fn crossing_connect_and_rescind_end_alike_in_either_order() {
    for current in [Sent, Accepted] {
        let there = after_remote(after(Some(current), Action::Rescind), RemoteAction::Connect);
        let back = after(after_remote(Some(current), RemoteAction::Connect), Action::Rescind);
        assert_eq!(there, back, "{current:?}");
    }
}

#[test]
fn local_connect_table() {
    let both = |mine, theirs| Outcome::Change(Pair { mine: Some(mine), theirs: Some(theirs) });
    assert_eq!(connect(None, None), both(Sent, Pending));
    for mine in [None, Some(Pending), Some(Ignored), Some(Cancelled), Some(Sent)] {
        assert_eq!(connect(mine, Some(Sent)), both(Accepted, Accepted));
        assert_eq!(connect(mine, Some(Accepted)), both(Accepted, Accepted));
    }
    for theirs in [Accepted, Blocked] {
        assert_eq!(connect(Some(Accepted), Some(theirs)), Outcome::Unchanged);
    }
    assert_eq!(connect(Some(Sent), Some(Blocked)), Outcome::Unchanged);
    for theirs in ALL {
        assert_eq!(connect(Some(Blocked), Some(theirs)), Outcome::Refused);
    }
    for mine in [None, Some(Pending), Some(Ignored), Some(Cancelled)] {
        assert_eq!(connect(mine, Some(Blocked)), Outcome::Change(Pair { mine: Some(Sent), theirs: None }));
    }
    for theirs in [Ignored, Pending, Cancelled] {
        assert_eq!(connect(Some(Sent), Some(theirs)), both(Sent, Pending));
        assert_eq!(connect(Some(Cancelled), Some(theirs)), both(Sent, Pending));
    }
}

#[test]
fn local_change_table() {
    let mine = |status| Outcome::Change(Pair { mine: Some(status), theirs: None });
    let both = |mine, theirs| Outcome::Change(Pair { mine: Some(mine), theirs: Some(theirs) });
    for status in ALL {
        assert_eq!(change(status, Some(Sent), status), Outcome::Unchanged);
        if status != Blocked {
            assert_eq!(change(status, Some(Sent), Blocked), mine(Blocked), "anything can be blocked");
        }
    }
    let allowed: [(Relation, &[Relation]); 6] = [
        (Pending, &[Accepted, Ignored, Blocked]),
        (Ignored, &[Accepted, Blocked]),
        (Blocked, &[Accepted, Sent]),
        (Accepted, &[Blocked]),
        (Sent, &[Cancelled, Blocked, Accepted]),
        (Cancelled, &[Blocked]),
    ];
    for (from, targets) in allowed {
        for wanted in ALL.into_iter().filter(|wanted| *wanted != from) {
            let refused = change(from, Some(Sent), wanted) == Outcome::Refused;
            assert_eq!(refused, !targets.contains(&wanted), "{from:?} to {wanted:?}");
        }
    }
    assert_eq!(change(Pending, Some(Sent), Accepted), both(Accepted, Accepted));
    assert_eq!(change(Pending, Some(Blocked), Accepted), mine(Accepted));
    assert_eq!(change(Sent, Some(Pending), Cancelled), both(Cancelled, Cancelled));
    assert_eq!(change(Sent, Some(Blocked), Cancelled), mine(Cancelled));
    assert_eq!(change(Sent, Some(Pending), Accepted), Outcome::Refused);
    assert_eq!(change(Blocked, Some(Accepted), Sent), mine(Accepted));
    assert_eq!(change(Blocked, Some(Sent), Accepted), both(Accepted, Accepted));
    assert_eq!(change(Blocked, Some(Cancelled), Accepted), mine(Sent));
}

#[tokio::test]
async fn two_users_here_connect() {
    let backend = Backend::alone().await;
    let (ann, bob) = (backend.register("Ann").await, backend.register("Bob").await);
    let body = post(&backend, &ann, &bob).await.expect(201);
    let conversation = body["conversation"].as_str().unwrap();
    let last_update = body["last_update"].as_str().unwrap();
    let expected = json!({
        "from": ann.id, "to": bob.id, "qualified_to": bob.qualified(), "status": "sent", "last_update": last_update,
        "conversation": conversation,
        "qualified_conversation": { "domain": "alpha.test", "id": conversation },
    });
    assert_eq!(body, expected);
    assert_eq!((last_update.len(), &last_update[23..]), (24, "Z"));

    // Everything was told before the answer.
    let own = &backend.recorder.events("user.connection")[0];
    assert_eq!((own.users.clone(), own.origin), (vec![ann.id], Some(ann.connection())));
    assert_eq!(own.event, json!({ "type": "user.connection", "connection": expected }));
    let his = backend.recorder.events_for("user.connection", bob.id).remove(0);
    assert_eq!(his["connection"]["status"], "pending");
    assert_eq!(his["connection"]["qualified_conversation"], expected["qualified_conversation"]);
    assert_eq!(his["user"], json!({ "name": "Ann" }));
    let relation = backend.recorder.relations(ann.id).remove(0);
    assert_eq!((relation.name.as_deref(), relation.connection), (Some("Ann"), Some(ann.connection())));
    assert_eq!(convert::qualified_user(relation.other.as_ref()).unwrap(), bob.qualified());
    assert_eq!(relation.event_id.len(), 16);
    assert_eq!(applied(&backend, &bob), [internal::Relation::Pending]);

    post(&backend, &ann, &bob).await.expect(200);
    let accepted = put(&backend, &bob, &ann, "accepted").await.expect(200);
    assert_eq!(accepted["status"], "accepted");
    assert_eq!(accepted["conversation"], conversation);
    put(&backend, &bob, &ann, "accepted").await.expect(204);
    assert_eq!(told(&backend, &ann), ["sent", "sent", "accepted"]);
    assert_eq!(told(&backend, &bob), ["pending", "pending", "accepted"]);
    assert_eq!(backend.recorder.events_for("user.connection", ann.id)[2]["user"]["name"], "Bob");
    let times: Vec<_> = backend.recorder.relations(bob.id).iter().map(|relation| relation.time).collect();
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
    put(&backend, &ann, &bob, "blocked").await.expect(200);
    assert_eq!(told(&backend, &bob).len(), 3, "blocking is nobody else's business");
    put(&backend, &ann, &bob, "cancelled").await.expect_label(403, "bad-conn-update");
    assert_eq!(put(&backend, &ann, &bob, "accepted").await.expect(200)["status"], "accepted");
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused() {
    let network = Network::default();
    let backend = Backend::start("alpha.test", &network, |config| config.limits.connections = 1).await;
    let (ann, bob) = (backend.register("Ann").await, backend.register("Bob").await);
    let carl = backend.register("Carl").await;
    post(&backend, &ann, &ann).await.expect_label(400, "invalid-user");
    let nobody = User { id: aldis_types::UserId::new(uuid::Uuid::from_u128(1)), ..bob.clone() };
    post(&backend, &ann, &nobody).await.expect_label(400, "invalid-user");
    put(&backend, &ann, &bob, "accepted").await.expect_label(403, "not-connected");
    backend.get(&ann, &path(&bob)).await.expect_label(404, "not-found");
    put(&backend, &ann, &bob, "nonsense").await.expect_label(400, "bad-request");
    post(&backend, &ann, &bob).await.expect(201);
    post(&backend, &ann, &carl).await.expect_label(403, "connection-limit");
    put(&backend, &ann, &bob, "cancelled").await.expect(200);
    assert_eq!(status(&backend, &bob, &ann).await, "cancelled");
    post(&backend, &ann, &carl).await.expect(201);

    let body = json!({ "name": "Waiting", "email": "waiting@example.com", "password": "long enough" });
    let answer = backend.call("POST", "/register", None, Some(body)).await;
    let cookie = answer.cookie().unwrap();
    let waiting = answer.expect(201)["id"].as_str().unwrap().parse().unwrap();
    let waiting = User { id: waiting, ..bob.clone() };
    post(&backend, &ann, &waiting).await.expect_label(400, "invalid-user");
    let token = backend.access("/access", Some(&cookie), None).await.expect(200);
    let token = token["access_token"].as_str().unwrap().to_owned();
    post(&backend, &User { token, ..waiting }, &bob).await.expect_label(403, "no-identity");
}

#[tokio::test]
async fn users_of_two_backends_connect() {
    let (alpha, beta, network) = Backend::pair().await;
    let (ann, bob) = (alpha.register("Ann").await, beta.register("Bob").await);
    let sent = post(&alpha, &ann, &bob).await.expect(201);
    assert_eq!(sent["status"], "sent");
    assert_eq!(status(&beta, &bob, &ann).await, "pending");
    let event = beta.recorder.events_for("user.connection", bob.id).remove(0);
    assert_eq!(event["user"]["name"], "Ann");
    assert_eq!(event["connection"]["qualified_to"], json!(ann.qualified()));
    assert_eq!(event["connection"]["qualified_conversation"], sent["qualified_conversation"]);
    assert_eq!(applied(&beta, &bob), [internal::Relation::Pending]);

    assert_eq!(put(&beta, &bob, &ann, "accepted").await.expect(200)["status"], "accepted");
    assert_eq!(status(&alpha, &ann, &bob).await, "accepted");
    assert_eq!(told(&alpha, &ann), ["sent", "accepted"]);
    let relations = applied(&alpha, &ann);
    assert_eq!(relations, [internal::Relation::Sent, internal::Relation::Accepted]);
    put(&beta, &bob, &ann, "accepted").await.expect(204);

    // Asking again changes nothing, and asks the other backend.
    let before = network.calls().len();
    post(&alpha, &ann, &bob).await.expect(200);
    assert_eq!(network.calls().len(), before + 1);
    assert_eq!(told(&alpha, &ann).len(), 2);

    let mut internal = ConnectionsClient::new(alpha.internal.clone());
    let others = [bob.qualified(), ann.qualified()].iter().map(convert::to_qualified).collect();
    let request = GetRelationsRequest { user: convert::bytes_of(ann.id), others };
    let relations = internal.get_relations(request).await.unwrap().into_inner().relations;
    assert_eq!(relations, [i32::from(internal::Relation::Accepted), i32::from(internal::Relation::None)]);
}

#[tokio::test]
async fn ignoring_and_then_connecting_connects_both() {
    let (alpha, beta, _network) = Backend::pair().await;
    let (ann, bob) = (alpha.register("Ann").await, beta.register("Bob").await);
    post(&alpha, &ann, &bob).await.expect(201);
    assert_eq!(put(&beta, &bob, &ann, "ignored").await.expect(200)["status"], "ignored");
    assert_eq!(status(&alpha, &ann, &bob).await, "sent");
    assert_eq!(put(&beta, &bob, &ann, "accepted").await.expect(200)["status"], "accepted");
    assert_eq!(status(&alpha, &ann, &bob).await, "accepted");
}

#[tokio::test]
async fn both_may_ask_at_once() {
    let (alpha, beta, _network) = Backend::pair().await;
    let (ann, bob) = (alpha.register("Ann").await, beta.register("Bob").await);
    let (a, b) = tokio::join!(post(&alpha, &ann, &bob), post(&beta, &bob, &ann));
    assert!(a.status.is_success() && b.status.is_success());
    assert_eq!(status(&alpha, &ann, &bob).await, "accepted");
    assert_eq!(status(&beta, &bob, &ann).await, "accepted");
}

#[tokio::test]
async fn blocking_works_while_the_other_backend_is_down_and_requests_do_not() {
    let (alpha, beta, network) = Backend::pair().await;
    let (ann, bob) = (alpha.register("Ann").await, beta.register("Bob").await);
    let carl = beta.register("Carl").await;
    post(&alpha, &ann, &bob).await.expect(201);
    let routes = network.take_down(&beta.domain);
    assert_eq!(put(&alpha, &ann, &bob, "blocked").await.expect(200)["status"], "blocked");
    put(&alpha, &ann, &bob, "blocked").await.expect(204);
    put(&alpha, &ann, &carl, "ignored").await.expect_label(403, "bad-conn-update");
    let refused = post(&alpha, &ann, &carl).await.expect_label(521, "federation-connection-refused");
    assert_eq!(refused["data"]["domain"], "beta.test");
    assert_eq!(status(&alpha, &ann, &carl).await, "none", "nothing changed");
    network.bring_up(&beta.domain, routes);
    // A blocked user is not told.
    assert_eq!(put(&beta, &bob, &ann, "accepted").await.expect(200)["status"], "accepted");
    assert_eq!(status(&alpha, &ann, &bob).await, "blocked");
    assert_eq!(put(&alpha, &ann, &bob, "accepted").await.expect(200)["status"], "accepted");
}

#[tokio::test]
async fn taking_a_request_back_reaches_the_other_backend_when_it_is_up_again() {
    let (alpha, beta, network) = Backend::pair().await;
    let (ann, bob) = (alpha.register("Ann").await, beta.register("Bob").await);
    post(&alpha, &ann, &bob).await.expect(201);
    // Asked again, while the clock stands still: what follows is still later.
    post(&alpha, &ann, &bob).await.expect(200);
    let routes = network.take_down(&beta.domain);
    assert_eq!(put(&alpha, &ann, &bob, "cancelled").await.expect(200)["status"], "cancelled");
    network.bring_up(&beta.domain, routes);
    until(|| told(&beta, &bob) == ["pending", "cancelled"]).await;
    assert_eq!(status(&beta, &bob, &ann).await, "cancelled");

    post(&alpha, &ann, &bob).await.expect(200);
    put(&beta, &bob, &ann, "accepted").await.expect(200);
    assert_eq!(put(&alpha, &ann, &bob, "cancelled").await.expect(200)["status"], "pending");
    until(|| told(&beta, &bob).last().is_some_and(|last| last == "sent")).await;
}

#[tokio::test]
async fn an_older_action_of_the_other_backend_is_ignored() {
    let (alpha, beta, network) = Backend::pair().await;
    let (ann, bob) = (alpha.register("Ann").await, beta.register("Bob").await);
    let ask = |time: i64| {
        let peers = Peers::new(network.egress(&alpha.domain));
        let message = RequestConnectionRequest {
            from: convert::bytes_of(ann.id),
            to: convert::bytes_of(bob.id),
            from_team: None,
            time,
            from_name: "Ann".to_owned(),
        };
        let request = Peers::request(&beta.domain, message, &aldis_peers::CallOptions::default());
        async move {
            let answer = UsersClient::new(peers.channel()).request_connection(request).await.unwrap().into_inner();
            answer.outcome.unwrap()
        }
    };
    let none = response::Outcome::Connected(response::Connected { reaction: response::Reaction::None.into() });
    assert_eq!(ask(1000).await, none);
    put(&beta, &bob, &ann, "ignored").await.expect(200);
    assert_eq!(ask(999).await, none);
    assert_eq!(status(&beta, &bob, &ann).await, "ignored");
    assert_eq!(ask(1000).await, none);
    assert_eq!(status(&beta, &bob, &ann).await, "ignored");
    assert_eq!(ask(1001).await, none);
    assert_eq!(status(&beta, &bob, &ann).await, "pending");
}

#[tokio::test]
async fn users_that_cannot_be_connected_with_are_named_alike_on_both_sides() {
    let (alpha, beta, _network) = Backend::pair().await;
    let ann = alpha.register("Ann").await;
    let stranger = User { domain: beta.domain.clone(), ..ann.clone() };
    post(&alpha, &ann, &stranger).await.expect_label(400, "invalid-user");
    assert_eq!(status(&alpha, &ann, &stranger).await, "none");
}

#[tokio::test]
async fn connections_are_listed_in_pages() {
    let (alpha, beta, _network) = Backend::pair().await;
    let ann = alpha.register("Ann").await;
    let mut expected = Vec::new();
    for (backend, name) in [(&alpha, "Bob"), (&alpha, "Carl"), (&beta, "Dora"), (&beta, "Emil"), (&beta, "Fred")] {
        let other = backend.register(name).await;
        post(&alpha, &ann, &other).await.expect(201);
        expected.push(other.id.to_string());
    }
    let mut found = Vec::new();
    let mut state = Value::Null;
    loop {
        let page = alpha.post(&ann, "/list-connections", json!({ "size": 2, "paging_state": state })).await.expect(200);
        let connections = page["connections"].as_array().unwrap();
        found.extend(connections.iter().map(|connection| connection["to"].as_str().unwrap().to_owned()));
        state = page["paging_state"].clone();
        if page["has_more"] == false {
            break;
        }
        assert_eq!(connections.len(), 2);
    }
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    let all = alpha.post(&ann, "/list-connections", json!({})).await.expect(200);
    assert_eq!((all["connections"].as_array().unwrap().len(), &all["has_more"]), (5, &Value::Bool(false)));
    alpha.post(&ann, "/list-connections", json!({ "size": 0 })).await.expect_label(400, "bad-request");
    alpha.post(&ann, "/list-connections", json!({ "paging_state": "?" })).await.expect_label(400, "bad-request");
}
