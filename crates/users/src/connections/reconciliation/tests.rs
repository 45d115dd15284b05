//! Drift between two backends, made behind their backs, and its repair.

use aldis_peers::{CallOptions, Peers};
use aldis_proto::{
    convert,
    federation::v1::{
        ConnectionPair, ListConnectionsRequest, ListConnectionsResponse, RequestConnectionRequest,
        list_connections_response::Connection, users_client::UsersClient,
    },
    internal::v1::{ReconcileResponse, Relation},
};
use aldis_types::{Domain, UserId};
use serde_json::json;
use tonic::{Code, service::Routes};
use uuid::Uuid;

use super::{MOST, PAGE, peers::read};
use crate::{
    connections::tests::{applied, post, put, status, told},
    testing::{Backend, Held, Network, User, until},
};

const REQUEST: &str = "/RequestConnection";
const DELIVER: &str = "/Deliver";

/// Waits until something is so that takes a look.
async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !check().await {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), waiting).await.expect(what);
}

/// What a round said: differing, repaired, waiting.
fn said(answer: &ReconcileResponse) -> [u64; 3] {
    [answer.differing, answer.repaired, answer.waiting]
}

fn hex(id: UserId) -> String {
    Uuid::from_bytes(*id.as_bytes()).simple().to_string()
}

fn number(status: &str) -> u8 {
    match status {
        "sent" => 1,
        "pending" => 2,
        "accepted" => 3,
        "ignored" => 4,
        "blocked" => 5,
        "cancelled" => 6,
        other => panic!("{other}"),
    }
}

/// Makes a row what it would be if that were the last thing that happened.
async fn set(backend: &Backend, me: &User, other: &User, status: &str) {
    let (user, them, domain) = (hex(me.id), hex(other.id), &other.domain);
    let delete = format!("DELETE FROM users_connections WHERE user = x'{user}' AND other = x'{them}';");
    if status == "none" {
        return backend.tamper(delete).await;
    }
    let (number, wanted) = (number(status), matches!(status, "sent" | "accepted"));
    backend
        .tamper(format!(
            "{delete} INSERT INTO users_connections (user, domain, other, status, time, remote_time, wanted, told) \
             VALUES (x'{user}', '{domain}', x'{them}', {number}, 1000, 1000, {wanted}, 1000)"
        ))
        .await;
}

/// Compares on both sides until nothing differs; each may have done so by itself since.
async fn settle(alpha: &Backend, beta: &Backend) {
    for (here, there) in [(alpha, beta), (beta, alpha)] {
        assert_eq!(here.reconcile(&there.domain).await.unwrap().waiting, 0);
    }
    for (here, there) in [(alpha, beta), (beta, alpha)] {
        assert_eq!(said(&here.reconcile(&there.domain).await.unwrap()), [0, 0, 0]);
    }
}

/// What beta says of its users' wishes to alpha.
async fn listed(network: &Network, asks: &Domain, asked: &Domain) -> Vec<Connection> {
    let peers = Peers::new(network.egress(asks));
    let request = Peers::request(asked, ListConnectionsRequest::default(), &CallOptions::default());
    UsersClient::new(peers.channel()).list_connections(request).await.unwrap().into_inner().connections
}

#[tokio::test]
async fn what_is_alike_is_left_alone() {
    let (alpha, beta, _network) = Backend::pair().await;
    let ann = alpha.register("Ann").await;
    for (name, wanted) in
        [("Sent", None), ("Accepted", Some("accepted")), ("Ignored", Some("ignored")), ("Blocked", Some("blocked"))]
    {
        let bob = beta.register(name).await;
        post(&alpha, &ann, &bob).await.expect(201);
        if let Some(wanted) = wanted {
            put(&beta, &bob, &ann, wanted).await.expect(200);
        }
    }
    let events = told(&alpha, &ann).len();
    for (here, there) in [(&alpha, &beta), (&beta, &alpha)] {
        let answer = here.reconcile(&there.domain).await.unwrap();
        assert_eq!((answer.compared, said(&answer)), (4, [0, 0, 0]));
    }
    assert_eq!(told(&alpha, &ann).len(), events);
}

#[tokio::test]
async fn every_drift_ends_as_the_state_machine_has_it() {
    // Alpha's side and beta's, as they came to be; both as they are in the end. "None" may be a lost backup.
    let drifts = [
        // A request that never arrived, or was forgotten.
        (["sent", "none"], ["sent", "pending"]),
        (["sent", "cancelled"], ["sent", "pending"]),
        // A request of which the sender does not know.
        (["none", "pending"], ["none", "cancelled"]),
        (["cancelled", "pending"], ["cancelled", "cancelled"]),
        // An acceptance that never arrived, or was forgotten.
        (["sent", "accepted"], ["accepted", "accepted"]),
        (["pending", "accepted"], ["pending", "sent"]),
        (["sent", "sent"], ["accepted", "accepted"]),
        // An end that never arrived, or was forgotten.
        (["cancelled", "accepted"], ["pending", "sent"]),
        (["none", "accepted"], ["pending", "sent"]),
        (["pending", "none"], ["cancelled", "none"]),
        (["pending", "cancelled"], ["cancelled", "cancelled"]),
        (["pending", "pending"], ["cancelled", "cancelled"]),
        // What somebody ignores or blocks stays so, and stays unknown.
        (["sent", "ignored"], ["sent", "ignored"]),
        (["cancelled", "ignored"], ["cancelled", "ignored"]),
        (["accepted", "ignored"], ["sent", "ignored"]),
        (["none", "blocked"], ["none", "blocked"]),
        (["pending", "blocked"], ["cancelled", "blocked"]),
    ];
    let (alpha, beta, _network) = Backend::pair().await;
    let (ann, bob) = (alpha.register("Ann").await, beta.register("Bob").await);
    let ((one, first), (two, second)) = ((&alpha, &ann), (&beta, &bob));
    for turned in [false, true] {
        let ((alpha, ann), (beta, bob)) =
            if turned { ((two, second), (one, first)) } else { ((one, first), (two, second)) };
        for (before, after) in drifts {
            let events = [told(alpha, ann).len(), told(beta, bob).len()];
            set(alpha, ann, bob, before[0]).await;
            set(beta, bob, ann, before[1]).await;
            settle(alpha, beta).await;
            let found = [status(alpha, ann, bob).await, status(beta, bob, ann).await];
            assert_eq!(found, after, "{before:?}");
            for (place, (backend, me)) in [(alpha, ann), (beta, bob)].into_iter().enumerate() {
                let changed = after[place] != before[place];
                until(|| told(backend, me).len() == events[place] + usize::from(changed)).await;
                if changed {
                    assert_eq!(told(backend, me).last().unwrap(), after[place], "{before:?}");
                }
            }
        }
    }
    let relations = applied(&alpha, &ann);
    assert_eq!(relations.len(), told(&alpha, &ann).len(), "the conversation follows");
    assert_eq!(relations[0], Relation::Accepted);
    let events = alpha.recorder.events_for("user.connection", ann.id);
    assert_eq!(events[0]["user"]["name"], "Bob");
}

#[tokio::test]
async fn nobody_learns_of_a_block() {
    let (alpha, beta, network) = Backend::pair().await;
    let (ann, bob) = (alpha.register("Ann").await, beta.register("Bob").await);
    for (before, seen) in [("accepted", "accepted"), ("sent", "pending"), ("pending", "sent"), ("none", "none")] {
        set(&alpha, &ann, &bob, before).await;
        set(&beta, &bob, &ann, seen).await;
        let unblocked = listed(&network, &beta.domain, &alpha.domain).await;
        assert_eq!(put(&alpha, &ann, &bob, "blocked").await.expect(200)["status"], "blocked");
        assert_eq!(listed(&network, &beta.domain, &alpha.domain).await, unblocked, "{before}");
        settle(&alpha, &beta).await;
        assert_eq!(status(&beta, &bob, &ann).await, seen);
        assert_eq!(status(&alpha, &ann, &bob).await, "blocked");
    }
    // A backend that has forgotten everything learns what it knew.
    set(&alpha, &ann, &bob, "accepted").await;
    put(&alpha, &ann, &bob, "blocked").await.expect(200);
    set(&beta, &bob, &ann, "none").await;
    settle(&alpha, &beta).await;
    assert_eq!(status(&beta, &bob, &ann).await, "pending");
    assert_eq!(told(&alpha, &ann).last().unwrap(), "blocked");
}

#[tokio::test]
async fn a_request_that_is_on_its_way_is_not_taken_back() {
    let (alpha, beta, network) = Backend::pair().await;
    let (ann, bob) = (alpha.register("Ann").await, beta.register("Bob").await);
    network.hold(vec![Held::Answer(REQUEST)]);
    let asking = post(&alpha, &ann, &bob);
    let compared = async {
        eventually("the request arrives", async || status(&beta, &bob, &ann).await == "pending").await;
        assert_eq!(status(&alpha, &ann, &bob).await, "none");
        assert_eq!(said(&beta.reconcile(&alpha.domain).await.unwrap()), [0, 0, 0]);
        assert_eq!(status(&beta, &bob, &ann).await, "pending");
        network.hold(Vec::new());
    };
    let (answer, ()) = tokio::join!(asking, compared);
    answer.expect(201);
    settle(&alpha, &beta).await;
    assert_eq!(status(&beta, &bob, &ann).await, "pending");
    assert_eq!(told(&beta, &bob), ["pending"]);
}

#[tokio::test]
async fn what_changes_while_it_is_compared_is_left_alone() {
    let (alpha, beta, network) = Backend::pair().await;
    let (ann, bob) = (alpha.register("Ann").await, beta.register("Bob").await);
    set(&beta, &bob, &ann, "pending").await;
    network.hold(vec![Held::Answer("/ListConnections")]);
    let calls = network.calls().len();
    let comparing = beta.reconcile(&alpha.domain);
    let meanwhile = async {
        until(|| network.calls().len() > calls).await;
        // The answer says that she wants nothing, and is on its way.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        post(&alpha, &ann, &bob).await.expect(201);
        network.hold(Vec::new());
    };
    let (compared, ()) = tokio::join!(comparing, meanwhile);
    let compared = compared.unwrap();
    assert_eq!((compared.repaired, compared.waiting), (0, 0));
    assert_eq!(status(&beta, &bob, &ann).await, "pending");
    assert!(!told(&beta, &bob).contains(&"cancelled".to_owned()));
}

#[tokio::test]
async fn what_is_in_the_lane_changes_nothing_any_more() {
    let (alpha, beta, network) = Backend::pair().await;
    let (ann, bob) = (alpha.register("Ann").await, beta.register("Bob").await);
    post(&alpha, &ann, &bob).await.expect(201);
    network.hold(vec![Held::Call(DELIVER)]);
    put(&alpha, &ann, &bob, "cancelled").await.expect(200);
    assert_eq!(status(&beta, &bob, &ann).await, "pending");
    settle(&alpha, &beta).await;
    assert_eq!(status(&beta, &bob, &ann).await, "cancelled");
    // She asks again, of which beta forgets: what it hears in the lane is older.
    post(&alpha, &ann, &bob).await.expect(200);
    set(&beta, &bob, &ann, "none").await;
    settle(&alpha, &beta).await;
    assert_eq!(status(&beta, &bob, &ann).await, "pending");
    let events = told(&beta, &bob).len();
    network.hold(Vec::new());
    eventually("the lane is empty", async || {
        alpha.count("users_outbox WHERE peer = 'beta.test'").await == 0 && beta.count("users_received").await == 1
    })
    .await;
    assert_eq!(status(&beta, &bob, &ann).await, "pending");
    assert_eq!(told(&beta, &bob).len(), events);
}

#[tokio::test]
async fn accounts_that_are_gone_are_noticed() {
    let (alpha, beta, network) = Backend::pair().await;
    let ann = alpha.register("Ann").await;
    let mut others = Vec::new();
    for (name, hers) in [("Friend", "accepted"), ("Asked", "sent"), ("Asks", "pending"), ("Stays", "sent")] {
        let other = beta.register(name).await;
        set(&alpha, &ann, &other, hers).await;
        others.push(other);
    }
    network.hold(vec![Held::Call(DELIVER)]);
    for other in &others[..3] {
        beta.tamper(format!("UPDATE users_accounts SET deleted = 1 WHERE id = x'{}'", hex(other.id))).await;
    }
    let answer = alpha.reconcile(&beta.domain).await.unwrap();
    assert_eq!((answer.repaired, answer.waiting), (3, 0));
    for other in &others[..3] {
        assert_eq!(status(&alpha, &ann, other).await, "none");
    }
    assert_eq!(status(&alpha, &ann, &others[3]).await, "sent");
    until(|| told(&alpha, &ann).len() == 2).await;
    assert_eq!(told(&alpha, &ann), ["cancelled", "cancelled"]);
    until(|| !alpha.recorder.events_for("user.delete", ann.id).is_empty()).await;
    let gone = alpha.recorder.events_for("user.delete", ann.id);
    assert_eq!((gone.len(), &gone[0]["qualified_id"]), (1, &json!(others[0].qualified())));
    assert_eq!(said(&alpha.reconcile(&beta.domain).await.unwrap()), [0, 0, 0]);
}

#[tokio::test]
async fn a_backend_that_says_nonsense_changes_nothing() {
    let network = Network::default();
    let alpha = Backend::start("alpha.test", &network, |config| config.limits.pending_connections = 1).await;
    let evil = Backend::start("evil.test", &network, |_| ()).await;
    alpha.federate_with(&evil, 3).await;
    evil.federate_with(&alpha, 3).await;
    let ann = alpha.register("Ann").await;
    let [one, two] = [evil.register("One").await, evil.register("Two").await];
    let nobody = |number: u128, domain: &Domain| User {
        id: UserId::new(Uuid::from_u128(number)),
        domain: domain.clone(),
        ..ann.clone()
    };
    // Users that nobody has, and wishes for users whom we do not have.
    for number in 1..50 {
        set(&evil, &nobody(number, &evil.domain), &ann, "accepted").await;
        set(&evil, &one, &nobody(number, &alpha.domain), "sent").await;
    }
    // The users of a third backend are not its own.
    set(&evil, &User { id: ann.id, domain: evil.domain.clone(), ..ann.clone() }, &ann, "accepted").await;
    assert_eq!(said(&alpha.reconcile(&evil.domain).await.unwrap()), [0, 0, 0]);
    assert_eq!(alpha.count("users_connections").await, 0);
    // More requests than she takes.
    set(&evil, &one, &ann, "sent").await;
    set(&evil, &two, &ann, "sent").await;
    let answer = alpha.reconcile(&evil.domain).await.unwrap();
    assert_eq!((answer.repaired, answer.waiting), (1, 0));
    assert_eq!(alpha.count("users_connections").await, 1);
    assert_eq!(told(&alpha, &ann), ["pending"]);
}

#[tokio::test]
async fn a_backend_that_does_not_know_the_call_is_left_alone() {
    let (alpha, beta, network) = Backend::pair().await;
    let (ann, bob) = (alpha.register("Ann").await, beta.register("Bob").await);
    set(&alpha, &ann, &bob, "pending").await;
    network.take_down(&beta.domain);
    network.bring_up(&beta.domain, Routes::default());
    let refused = alpha.reconcile(&beta.domain).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("does not know the call"), "{refused}");
    assert_eq!(status(&alpha, &ann, &bob).await, "pending");
}

#[tokio::test]
async fn a_comparison_brings_the_other_side_to_compare_too() {
    let (alpha, beta, _network) = Backend::pair().await;
    let (ann, bob) = (alpha.register("Ann").await, beta.register("Bob").await);
    set(&alpha, &ann, &bob, "sent").await;
    assert_eq!(said(&alpha.reconcile(&beta.domain).await.unwrap()), [0, 0, 0]);
    eventually("beta learns of the request", async || status(&beta, &bob, &ann).await == "pending").await;
    until(|| told(&beta, &bob) == ["pending"]).await;
}

#[tokio::test]
async fn what_was_dropped_is_compared_without_being_asked_for() {
    let (alpha, beta, _network) = Backend::pair().await;
    let (ann, bob) = (alpha.register("Ann").await, beta.register("Bob").await);
    set(&beta, &bob, &ann, "pending").await;
    let sql = format!(
        "INSERT INTO users_reconcile (peer, ours, lane, since, reason) VALUES ('alpha.test', 0, x'{}', 1, 'dropped')",
        hex(ann.id)
    );
    beta.tamper(sql).await;
    until(|| told(&beta, &bob) == ["cancelled"]).await;
    eventually("the mark goes", async || beta.count("users_reconcile").await == 0).await;
}

#[tokio::test]
async fn many_are_compared_in_pages() {
    let (alpha, beta, network) = Backend::pair().await;
    let (ann, bob) = (alpha.register("Ann").await, beta.register("Bob").await);
    // Strangers on both sides, alike but for one whom alpha does not know and one whom beta does not.
    let rows = |user: &str, other: &str, domain: &Domain, but: usize| {
        format!(
            "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {}) \
             INSERT INTO users_connections (user, domain, other, status, time, remote_time, wanted, told) \
             SELECT {user}, '{domain}', {other}, 3, 1, 1, 1, 1 FROM n WHERE i <> {but}",
            3 * PAGE
        )
    };
    let id = "unhex(printf('%032x', 7919 * i + 1))";
    let (hers, his) = (format!("x'{}'", hex(ann.id)), format!("x'{}'", hex(bob.id)));
    alpha.tamper(rows(&hers, id, &beta.domain, 700)).await;
    beta.tamper(rows(id, &hers, &alpha.domain, 900)).await;
    alpha.tamper(rows(id, &his, &beta.domain, 100)).await;
    beta.tamper(rows(&his, id, &alpha.domain, 200)).await;
    // Strangers have no accounts: nobody can be asked about whom alpha does not know.
    let answer = alpha.reconcile(&beta.domain).await.unwrap();
    assert_eq!(answer.compared, 6 * PAGE as u64);
    assert_eq!(said(&answer), [2, 2, 0]);
    let changed = "users_connections WHERE status <> 3";
    assert_eq!(alpha.count(changed).await, 2);
    let calls = network.calls().iter().filter(|call| call.ends_with("/ListConnections")).count();
    assert!(calls >= 7, "{calls}");
}

#[tokio::test]
async fn an_old_request_is_no_drift_after_a_repair() {
    let (alpha, beta, network) = Backend::pair().await;
    let (ann, bob) = (alpha.register("Ann").await, beta.register("Bob").await);
    post(&alpha, &ann, &bob).await.expect(201);
    set(&beta, &bob, &ann, "none").await;
    settle(&alpha, &beta).await;
    put(&beta, &bob, &ann, "ignored").await.expect(200);
    // What she told first comes once more.
    let time = listed(&network, &beta.domain, &alpha.domain).await[0].time;
    let request = RequestConnectionRequest {
        from: convert::bytes_of(ann.id),
        to: convert::bytes_of(bob.id),
        from_team: None,
        time,
        from_name: "Ann".to_owned(),
    };
    let peers = Peers::new(network.egress(&alpha.domain));
    let request = Peers::request(&beta.domain, request, &CallOptions::default());
    UsersClient::new(peers.channel()).request_connection(request).await.unwrap();
    assert_eq!(status(&beta, &bob, &ann).await, "ignored");
}

#[test]
fn answers_are_bounded() {
    let id = |number: usize| convert::bytes_of(UserId::new(Uuid::from_u128(number as u128)));
    let connection = |user: usize, other: usize| Connection {
        pair: Some(ConnectionPair { user: id(user), other: id(other) }),
        ..Connection::default()
    };
    let page = |connections, more| ListConnectionsResponse { connections, more };
    let key = |number: u128| UserId::new(Uuid::from_u128(number));
    assert!(read(&page((0..MOST).map(|it| connection(it, 1)).collect(), true), None).is_ok());
    assert!(read(&page((0..=MOST).map(|it| connection(it, 1)).collect(), true), None).is_err());
    assert!(read(&page(vec![connection(1, 2), connection(1, 2)], false), None).is_err());
    assert!(read(&page(vec![connection(1, 2), connection(1, 1)], false), None).is_err());
    assert!(read(&page(vec![connection(1, 2)], false), Some((key(1), key(2)))).is_err());
    assert!(read(&page(vec![connection(1, 3)], false), Some((key(1), key(2)))).is_ok());
    assert!(read(&page(Vec::new(), true), None).is_err());
    assert!(read(&page(vec![Connection::default()], false), None).is_err());
    let short = ConnectionPair { user: vec![1; 15].into(), other: id(1) };
    assert!(read(&page(vec![Connection { pair: Some(short), ..Connection::default() }], false), None).is_err());
}
