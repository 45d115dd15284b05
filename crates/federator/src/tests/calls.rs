//! What passes, what does not, and who is refused.

use super::support::{
    rogue::{Conduct, Rogue},
    wait::{eventually, soon},
};
use aldis_peers::{CallOptions, PeerErrorKind, Peers};
use aldis_proto::{
    federation::v1::{PingRequest, federator_client::FederatorClient},
    internal::v1::{ListPeersRequest, peer_states_client::PeerStatesClient},
    metadata,
};
use aldis_types::RemoteState;
use anyhow::ensure;
use tower_service::Service as _;

use super::world::{Backend, Echo, World, domain};

#[tokio::test]
async fn a_call_reaches_the_peers_service_with_a_proven_origin() {
    let world = World::new().await;
    let (alpha, beta) = (world.backend("alpha.test").await, world.backend("beta.test").await);
    let answer = alpha
        .send(
            "beta.test",
            "/aldis.federation.v1.Users/Echo",
            &[
                (metadata::ORIGIN_DOMAIN, "evil.test"),
                (metadata::OWN_FAILURE, "1"),
                (metadata::IDEMPOTENCY_KEY, "0a0b"),
                ("aldis-new", "1"),
                ("x-secret", "1"),
                ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ],
            b"hello",
        )
        .await;
    assert!(answer.is_ok(), "{:?}", answer.status);
    assert_eq!(&answer.data[..], b"hello");
    for name in [metadata::OWN_FAILURE, "x-secret"] {
        assert!(!answer.headers.contains_key(name) && !answer.trailers.contains_key(name), "{name}");
    }
    let seen = beta.echo.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].path, "/aldis.federation.v1.Users/Echo");
    assert_eq!(seen[0].origin, Some(domain("alpha.test")));
    assert_eq!(seen[0].headers[metadata::IDEMPOTENCY_KEY], "0a0b");
    assert!(seen[0].headers.contains_key("grpc-timeout"));
    // A peer's traces are not continued unless the operator says so.
    for name in [metadata::ORIGIN_DOMAIN, metadata::TARGET_DOMAIN, metadata::OWN_FAILURE, "aldis-new", "x-secret"] {
        assert!(!seen[0].headers.contains_key(name), "{name}");
    }
    assert!(!seen[0].headers.contains_key("traceparent"));
}

#[tokio::test]
async fn a_trace_goes_on_at_a_peer_that_trusts_ours() {
    let world = World::new().await;
    let alpha = world.backend("alpha.test").await;
    let mut config = world.config(&world.identity("beta.test"));
    config.continue_traces = true;
    let beta = world.backend_with("beta.test", config).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let path = "/aldis.federation.v1.Conversations/Echo";
    assert!(alpha.send("beta.test", path, &[("traceparent", trace)], b"").await.is_ok());
    assert_eq!(beta.echo.seen()[0].headers["traceparent"], trace);
}

#[tokio::test]
async fn a_stream_carries_both_ways_for_as_long_as_it_is_open() {
    let world = World::new().await;
    let alpha = world.backend("alpha.test").await;
    let mut config = world.config(&world.identity("beta.test"));
    config.call_deadline_ms = 300;
    let beta = world.backend_with("beta.test", config).await;
    let mut stream = alpha.open("beta.test").await.unwrap();
    stream.say("one").await;
    assert_eq!(stream.hear().await, "one");
    // Longer than any call may take.
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    stream.say("two").await;
    assert_eq!(stream.hear().await, "two");
    assert!(!beta.echo.seen()[0].headers.contains_key("grpc-timeout"));
    drop(stream.send);
    let mut rest = super::world::Conversation { send: tokio::sync::mpsc::channel(1).0, body: stream.body };
    assert_eq!(rest.end().await.code(), tonic::Code::Ok);
    eventually("the service to finish", async || {
        ensure!(beta.echo.running() == 0);
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_peer_cannot_pass_its_failures_off_as_ours() {
    let world = World::new().await;
    let alpha = world.backend("alpha.test").await;
    let _beta = world.backend("beta.test").await;
    // A rogue federator that strips nothing.
    let gamma = Rogue::start(&world.authority, &world.identity("gamma.test"), Conduct::Serve(Echo::default().routes()))
        .await
        .unwrap();
    world.point("gamma.test", &[gamma.port()]);
    for peer in ["beta.test", "gamma.test"] {
        let answer = alpha.call(peer, "Fail").await;
        assert!(!answer.headers.contains_key(metadata::OWN_FAILURE) && !answer.headers.contains_key("x-secret"));
        assert_eq!(Backend::label(&answer, peer), (533, "federation-remote-error"));
        assert_eq!(answer.inner(), "federation-denied");
        let answer = alpha.call(peer, "Echo").await;
        assert!(answer.is_ok() && !answer.trailers.contains_key(metadata::OWN_FAILURE));
    }
}

#[tokio::test]
async fn generated_clients_work_over_the_egress_and_over_its_routes() {
    let world = World::new().await;
    let (alpha, _beta) = (world.backend("alpha.test").await, world.backend("beta.test").await);
    let options = CallOptions::default();
    let over_routes = aldis_proto::channel::InProcess::new();
    over_routes.serve(alpha.service.internal.clone());
    for channel in [alpha.service.egress.clone(), over_routes.channel()] {
        let mut client = FederatorClient::new(channel);
        let request = Peers::request(&domain("beta.test"), PingRequest {}, &options);
        let pong = Peers::finish(&domain("beta.test"), &options, client.ping(request)).await.unwrap();
        assert!(pong.time > 0);
    }
    let mut states = PeerStatesClient::new(over_routes.channel());
    let peers = states.list_peers(ListPeersRequest::default()).await.unwrap().into_inner().peers;
    assert_eq!(peers.len(), 1);
    assert_eq!(
        (peers[0].domain.as_str(), peers[0].connected, peers[0].breaker.as_str()),
        ("beta.test", true, "closed")
    );
    assert!(peers[0].build.starts_with("aldis ") && peers[0].connected_since > 0);
    assert_eq!(peers[0].capabilities.as_ref().unwrap().conversations_kinds, [10, 11]);
    assert!(alpha.service.health.degraded().is_empty());
}

#[tokio::test]
async fn our_own_policy_refuses_first() {
    let world = World::new().await;
    let (alpha, beta) = (world.backend("alpha.test").await, world.backend("beta.test").await);
    alpha.remotes(&[("gamma.test", RemoteState::Active), ("delta.test", RemoteState::Suspended)]);
    for target in ["beta.test", "delta.test", "alpha.test"] {
        let answer = alpha.call(target, "Echo").await;
        assert_eq!(Backend::label(&answer, target), (400, "federation-denied"), "{target}");
    }
    assert!(beta.echo.seen().is_empty());
    for (target, path) in [("not a domain", "/aldis.federation.v1.Users/Echo"), ("beta.test", "/users")] {
        assert_eq!(alpha.send(target, path, &[], b"").await.label(), "federation-local-error");
    }
}

#[tokio::test]
async fn the_peers_policy_refuses_with_its_own_label() {
    let world = World::new().await;
    let (alpha, beta) = (world.backend("alpha.test").await, world.backend("beta.test").await);
    beta.remotes(&[("gamma.test", RemoteState::Active)]);
    for _ in 0..2 {
        let answer = alpha.call("beta.test", "Echo").await;
        assert_eq!(Backend::label(&answer, "beta.test"), (533, "federation-remote-error"));
        assert_eq!(answer.inner(), "federation-denied");
    }
    assert!(beta.echo.seen().is_empty());
    beta.remotes(&[("alpha.test", RemoteState::Active)]);
    assert!(alpha.call("beta.test", "Echo").await.is_ok());
    assert_eq!(beta.echo.seen().len(), 1);
}

#[tokio::test]
async fn what_nobody_waits_for_ends_at_the_peer_too() {
    let world = World::new().await;
    let (alpha, beta) = (world.backend("alpha.test").await, world.backend("beta.test").await);
    let call = alpha.call("beta.test", "Hang");
    tokio::select! {
        _ = call => panic!("nobody answers"),
        running = eventually("the call to arrive", async || { ensure!(beta.echo.running() == 1); Ok(()) }) => running.unwrap(),
    }
    let stream = alpha.open("beta.test").await.unwrap();
    // The sender stays, and only the answer is dropped.
    let send = stream.send;
    drop(stream.body);
    eventually("both calls to be abandoned", async || {
        ensure!(beta.echo.running() == 0, "{} calls", beta.echo.running());
        Ok(())
    })
    .await
    .unwrap();
    drop(send);
}

#[tokio::test]
async fn a_service_that_hangs_is_given_up_by_its_own_federator() {
    let world = World::new().await;
    let (alpha, beta) = (world.backend("alpha.test").await, world.backend("beta.test").await);
    let path = "/aldis.federation.v1.Users/Hang";
    let answer = soon("the deadline", alpha.send("beta.test", path, &[("grpc-timeout", "300m")], b"")).await.unwrap();
    assert_eq!(answer.status.code(), tonic::Code::DeadlineExceeded);
    assert_eq!(answer.label(), "federation-remote-error");
    eventually("the call to end", async || {
        ensure!(beta.echo.running() == 0);
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn answers_that_are_too_large_or_no_grpc_are_refused() {
    let world = World::new().await;
    let mut config = world.config(&world.identity("alpha.test"));
    config.max_message_bytes = 1 << 20;
    let alpha = world.backend_with("alpha.test", config).await;
    let large =
        Rogue::start(&world.authority, &world.identity("beta.test"), Conduct::Oversized(1 << 30)).await.unwrap();
    world.point("beta.test", &[large.port()]);
    let answer = soon("the answer to be cut", alpha.call("beta.test", "Echo")).await.unwrap();
    assert_eq!(Backend::label(&answer, "beta.test"), (533, "federation-invalid-body"));
    assert!(answer.data.len() < 4 << 20);

    let garbage = Rogue::start(&world.authority, &world.identity("gamma.test"), Conduct::Garbage).await.unwrap();
    world.point("gamma.test", &[garbage.port()]);
    let options = CallOptions::default();
    let gamma = domain("gamma.test");
    let mut client = aldis_proto::federation::v1::users_client::UsersClient::new(alpha.service.egress.clone());
    let request = Peers::request(&gamma, aldis_proto::federation::v1::GetUsersRequest::default(), &options);
    let failure = Peers::finish(&gamma, &options, client.get_users(request)).await.unwrap_err();
    assert!(matches!(failure.kind, PeerErrorKind::Peer { .. }), "{failure:?}");
}

#[tokio::test]
async fn a_message_that_is_too_large_does_not_get_in() {
    let world = World::new().await;
    let alpha = world.backend("alpha.test").await;
    let mut config = world.config(&world.identity("beta.test"));
    config.max_message_bytes = 1 << 20;
    let beta = world.backend_with("beta.test", config).await;
    let path = "/aldis.federation.v1.Users/Echo";
    let answer = alpha.send("beta.test", path, &[], &vec![7; 8 << 20]).await;
    assert!(!answer.is_ok() && answer.data.len() < 4 << 20);
    assert!(alpha.send("beta.test", path, &[], &vec![7; 1_000 * 1024]).await.is_ok());
    assert_eq!(beta.echo.seen().len(), 2);
}

#[tokio::test]
async fn a_peer_without_a_common_version_is_told_so() {
    let world = World::new().await;
    let alpha = world.backend("alpha.test").await;
    let identity = world.identity("beta.test");
    let config = world.config(&identity);
    let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    world.point("beta.test", &[listener.local_addr().unwrap().port()]);
    let echo = Echo::default();
    let policy = alpha.policy.clone();
    let mut capabilities = crate::Capabilities::of_this_build(vec![], vec![], 1);
    capabilities.versions = vec![2, 3];
    let deps = crate::Dependencies {
        domain: domain("beta.test"),
        clock: std::sync::Arc::new(aldis_runtime::SystemClock),
        random: std::sync::Arc::new(aldis_runtime::SystemRandom),
        policy,
        capabilities,
        components: crate::Components { users: echo.channel(), conversations: echo.channel(), assets: None },
        stated_origin: false,
    };
    let _beta = crate::start(config, deps, listener).unwrap();
    for _ in 0..2 {
        let answer = alpha.call("beta.test", "Echo").await;
        assert_eq!(Backend::label(&answer, "beta.test"), (533, "federation-version-error"));
    }
    assert!(echo.seen().is_empty());
}

#[tokio::test]
async fn services_behind_sockets_are_told_the_origin_in_metadata() {
    let world = World::new().await;
    let alpha = world.backend("alpha.test").await;
    let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    world.point("beta.test", &[listener.local_addr().unwrap().port()]);
    let echo = Echo::default();
    let deps = crate::Dependencies {
        domain: domain("beta.test"),
        clock: std::sync::Arc::new(aldis_runtime::SystemClock),
        random: std::sync::Arc::new(aldis_runtime::SystemRandom),
        policy: alpha.policy.clone(),
        capabilities: crate::Capabilities::of_this_build(vec![], vec![], 1),
        components: crate::Components { users: echo.channel(), conversations: echo.channel(), assets: None },
        stated_origin: true,
    };
    let _beta = crate::start(world.config(&world.identity("beta.test")), deps, listener).unwrap();
    assert!(alpha.call("beta.test", "Echo").await.is_ok());
    assert_eq!(echo.seen()[0].headers[metadata::ORIGIN_DOMAIN], "alpha.test");
    let missing = alpha.send("beta.test", "/aldis.federation.v1.Assets/Fetch", &[], b"").await;
    assert_eq!((missing.status.code(), missing.inner().as_str()), (tonic::Code::Unimplemented, "unknown-component"));
}

#[tokio::test]
async fn the_egress_answers_even_without_a_body() {
    let world = World::new().await;
    let alpha = world.backend("alpha.test").await;
    let request = http::Request::get("/aldis.federation.v1.Users/Echo").body(tonic::body::Body::empty()).unwrap();
    let response = alpha.service.egress.clone().call(request).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "3");
    assert_eq!(response.headers()[metadata::OWN_FAILURE], "1");
}
