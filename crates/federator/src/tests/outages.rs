//! Peers that are gone, slow or silent, and those that must not notice.

use std::time::{Duration, Instant};

use super::support::{
    rogue::{Conduct, Rogue},
    wait::{eventually, soon},
};
use anyhow::ensure;

use super::world::{Backend, Proxy, World};

/// A port where nobody listens.
async fn nowhere() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn a_peer_that_is_down_shows_as_refused_and_is_noticed_when_it_returns() {
    let world = World::new().await;
    let alpha = world.backend("alpha.test").await;
    let config = world.config(&world.identity("beta.test"));
    let port = nowhere().await;
    world.point("beta.test", &[port]);
    for _ in 0..8 {
        // The label stays the same when the peer is left alone.
        let answer = alpha.call("beta.test", "Echo").await;
        assert_eq!(Backend::label(&answer, "beta.test"), (521, "federation-connection-refused"));
    }
    assert_eq!(alpha.service.health.degraded().len(), 1);
    let _beta = Backend::start("beta.test", config, Some(port)).await;
    eventually("the peer to be noticed", async || {
        ensure!(alpha.call("beta.test", "Echo").await.is_ok());
        Ok(())
    })
    .await
    .unwrap();
    assert!(alpha.service.health.degraded().is_empty());
}

#[tokio::test]
async fn a_peer_that_calls_us_is_not_left_alone_any_longer() {
    let world = World::new().await;
    let mut config = world.config(&world.identity("alpha.test"));
    config.breaker_pause_ms = 60_000;
    let alpha = world.backend_with("alpha.test", config).await;
    let config = world.config(&world.identity("beta.test"));
    let port = nowhere().await;
    world.point("beta.test", &[port]);
    // One pause of a second at most is followed by longer ones.
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(2) {
        assert_eq!(alpha.call("beta.test", "Echo").await.label(), "federation-connection-refused");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let beta = Backend::start("beta.test", config, Some(port)).await;
    assert!(beta.call("alpha.test", "Echo").await.is_ok());
    assert!(alpha.call("beta.test", "Echo").await.is_ok());
}

#[tokio::test]
async fn the_next_target_is_tried() {
    let world = World::new().await;
    let alpha = world.backend("alpha.test").await;
    let beta = world.backend("beta.test").await;
    let mute = Rogue::start(&world.authority, &world.identity("beta.test"), Conduct::Mute).await.unwrap();
    let wrong = Rogue::start(&world.authority, &world.identity("wrong.test"), Conduct::Silent).await.unwrap();
    world.point("beta.test", &[nowhere().await, wrong.port(), mute.port(), beta.port]);
    assert!(alpha.call("beta.test", "Echo").await.is_ok());
    assert_eq!(beta.echo.seen().len(), 1);
}

#[tokio::test]
async fn a_peer_that_accepts_and_never_speaks_shows_as_refused() {
    let world = World::new().await;
    let alpha = world.backend("alpha.test").await;
    let mute = Rogue::start(&world.authority, &world.identity("beta.test"), Conduct::Mute).await.unwrap();
    world.point("beta.test", &[mute.port()]);
    let answer = soon("the time to connect", alpha.call("beta.test", "Echo")).await.unwrap();
    assert_eq!(Backend::label(&answer, "beta.test"), (521, "federation-connection-refused"));
}

#[tokio::test]
async fn a_peer_that_greets_and_never_answers_fails_by_the_deadline_and_is_then_left_alone() {
    let world = World::new().await;
    let mut config = world.config(&world.identity("alpha.test"));
    config.call_deadline_ms = 300;
    config.breaker_failures = 3;
    config.breaker_pause_ms = 60_000;
    let alpha = world.backend_with("alpha.test", config).await;
    let silent = Rogue::start(&world.authority, &world.identity("beta.test"), Conduct::Silent).await.unwrap();
    world.point("beta.test", &[silent.port()]);
    let gamma = world.backend("gamma.test").await;
    let slow = futures::future::join_all((0..6).map(|_| alpha.call("beta.test", "Echo")));
    let fast = async {
        for _ in 0..20 {
            assert!(alpha.call("gamma.test", "Echo").await.is_ok());
        }
    };
    let (answers, ()) = soon("the deadline", futures::future::join(slow, fast)).await.unwrap();
    for answer in answers {
        assert_eq!(Backend::label(&answer, "beta.test"), (533, "federation-http2-error"));
    }
    assert_eq!(gamma.echo.seen().len(), 20);
    assert_eq!(alpha.service.health.degraded(), ["peer beta.test does not answer: federation-http2-error"]);
    // Left alone: at once, and no less clear.
    assert_eq!(alpha.call("beta.test", "Echo").await.label(), "federation-http2-error");
}

#[tokio::test]
async fn a_frozen_peer_slows_nobody_down_and_is_used_again_when_it_thaws() {
    let world = World::new().await;
    let mut config = world.config(&world.identity("alpha.test"));
    config.call_deadline_ms = 500;
    let alpha = world.backend_with("alpha.test", config).await;
    let (beta, _gamma) = (world.backend("beta.test").await, world.backend("gamma.test").await);
    let proxy = Proxy::to(beta.port).await;
    world.point("beta.test", &[proxy.port]);
    assert!(alpha.call("beta.test", "Echo").await.is_ok());
    let mut stream = alpha.open("beta.test").await.unwrap();
    proxy.freeze(true);
    for _ in 0..3 {
        let (frozen, other) = soon(
            "the deadline",
            futures::future::join(alpha.call("beta.test", "Echo"), alpha.call("gamma.test", "Echo")),
        )
        .await
        .unwrap();
        assert_eq!(Backend::label(&frozen, "beta.test"), (533, "federation-http2-error"));
        assert!(other.is_ok());
    }
    // Many more at once, so that the peer is left alone.
    for answer in futures::future::join_all((0..20).map(|_| alpha.call("beta.test", "Echo"))).await {
        assert!(["federation-http2-error", "federation-connection-refused"].contains(&answer.label()));
    }
    proxy.freeze(false);
    eventually("the peer to be noticed", async || {
        ensure!(alpha.call("beta.test", "Echo").await.is_ok());
        Ok(())
    })
    .await
    .unwrap();
    // The freeze was shorter than the patience of keep-alive.
    stream.say("still there?").await;
    assert_eq!(stream.hear().await, "still there?");
}

#[tokio::test]
async fn calls_beyond_the_limit_of_a_peer_fail_at_once() {
    let world = World::new().await;
    let mut config = world.config(&world.identity("alpha.test"));
    config.max_concurrent_per_peer = 2;
    let alpha = world.backend_with("alpha.test", config).await;
    let (beta, _gamma) = (world.backend("beta.test").await, world.backend("gamma.test").await);
    let hanging = futures::future::join(alpha.call("beta.test", "Hang"), alpha.call("beta.test", "Hang"));
    let meanwhile = async {
        eventually("two calls to hang", async || {
            ensure!(beta.echo.running() == 2);
            Ok(())
        })
        .await
        .unwrap();
        let refused = alpha.call("beta.test", "Echo").await;
        assert_eq!(Backend::label(&refused, "beta.test"), (533, "federation-http2-error"));
        assert!(refused.status.message().starts_with("busy"));
        assert!(alpha.call("gamma.test", "Echo").await.is_ok());
        let mut stream = alpha.open("beta.test").await.unwrap();
        stream.say("streams have places of their own").await;
        assert_eq!(stream.hear().await, "streams have places of their own");
    };
    tokio::select! {
        _ = hanging => panic!("nobody answers"),
        () = meanwhile => {}
    }
    // The places are free again.
    assert!(alpha.call("beta.test", "Echo").await.is_ok());
}

#[tokio::test]
async fn connections_are_shared_and_replaced_in_time_without_failing_a_call() {
    let world = World::new().await;
    let mut config = world.config(&world.identity("alpha.test"));
    config.connection_max_age_seconds = 2;
    let alpha = world.backend_with("alpha.test", config).await;
    let beta = world.backend("beta.test").await;
    let proxy = Proxy::to(beta.port).await;
    world.point("beta.test", &[proxy.port]);
    for answer in futures::future::join_all((0..50).map(|_| alpha.call("beta.test", "Echo"))).await {
        assert!(answer.is_ok());
    }
    assert_eq!(proxy.accepted(), 1);
    eventually("a second connection", async || {
        let answer = alpha.call("beta.test", "Echo").await;
        assert!(answer.is_ok(), "{answer:?}");
        ensure!(proxy.accepted() >= 2);
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_peer_that_restarts_is_reached_again_without_a_pause() {
    let world = World::new().await;
    let alpha = world.backend("alpha.test").await;
    let config = world.config(&world.identity("beta.test"));
    let mut beta = world.backend_with("beta.test", config.clone()).await;
    let mut stream = alpha.open("beta.test").await.unwrap();
    assert!(alpha.call("beta.test", "Echo").await.is_ok());
    beta.service.shutdown.cancel();
    // Calls end with the drain; here nothing runs but the stream, which its relay would open again.
    drop(stream.send);
    stream.send = tokio::sync::mpsc::channel(1).0;
    assert_eq!(soon("the stream's end", stream.end()).await.unwrap().code(), tonic::Code::Ok);
    soon("the end of all work", async { while beta.service.tasks.join_next().await.is_some() {} }).await.unwrap();
    let port = beta.port;
    drop(beta);
    let _beta = Backend::start("beta.test", config, Some(port)).await;
    eventually("the new process", async || {
        ensure!(alpha.call("beta.test", "Echo").await.is_ok());
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_stream_ends_with_our_own_word_when_the_peer_is_cut_off() {
    let world = World::new().await;
    let (alpha, beta) = (world.backend("alpha.test").await, world.backend("beta.test").await);
    let proxy = Proxy::to(beta.port).await;
    world.point("beta.test", &[proxy.port]);
    let mut stream = alpha.open("beta.test").await.unwrap();
    stream.say("hello").await;
    assert_eq!(stream.hear().await, "hello");
    drop(proxy);
    let status = soon("the stream's end", stream.end()).await.unwrap();
    let failure = aldis_peers::PeerError::from_status(&super::world::domain("beta.test"), &status);
    assert_eq!(failure.label().label, "federation-http2-error", "{status:?}");
}

#[tokio::test]
async fn a_call_that_is_given_up_harms_no_other() {
    let world = World::new().await;
    let mut config = world.config(&world.identity("alpha.test"));
    config.breaker_failures = 1;
    let alpha = world.backend_with("alpha.test", config).await;
    let beta = world.backend("beta.test").await;
    let proxy = Proxy::to(beta.port).await;
    world.point("beta.test", &[proxy.port]);
    let mut kept = alpha.open("beta.test").await.unwrap();
    for _ in 0..5 {
        let mut stream = alpha.open("beta.test").await.unwrap();
        stream.say("hello").await;
        assert_eq!(stream.hear().await, "hello");
        // Our service breaks off in the middle.
        stream.send.send(Err(tonic::Status::cancelled("enough"))).await.unwrap();
        assert_ne!(soon("the stream's end", stream.end()).await.unwrap().code(), tonic::Code::Ok);
    }
    kept.say("still here").await;
    assert_eq!(kept.hear().await, "still here");
    assert!(alpha.call("beta.test", "Echo").await.is_ok());
    assert_eq!(proxy.accepted(), 1);
    assert!(alpha.service.health.degraded().is_empty());
}
