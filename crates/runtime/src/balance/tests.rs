//! Replicas on several loopback addresses with one port, as pods behind a headless service have.

use std::collections::BTreeMap;

use axum::{Router, routing::get};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioExecutor;
use rustls_pki_types::ServerName;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::*;
use crate::{
    listen::{self, Door, Guard, Kind},
    tests::Authority as Issuer,
    workload::{install_crypto, workload_name},
};

/// Addresses that a test sets. They hold for the shortest time.
struct Set(watch::Receiver<Vec<IpAddr>>);

impl Addresses for Set {
    fn ask(&self) -> BoxFuture<'_, Result<(Vec<IpAddr>, Instant), BoxError>> {
        let found = self.0.borrow().clone();
        std::future::ready(if found.is_empty() { Err("no such host".into()) } else { Ok((found, Instant::now())) })
            .boxed()
    }
}

fn ip(last: u8) -> IpAddr {
    [127, 0, 0, last].into()
}

struct Running {
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Running {
    async fn end(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
    }
}

/// Starts a replica that answers with the last byte of its address; port 0 chooses one.
async fn start(last: u8, port: u16, door: Door) -> (Running, u16) {
    let listener = listen::bind("internal", SocketAddr::new(ip(last), port)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stop = CancellationToken::new();
    let router = Router::new()
        .route("/who", get(move || async move { last.to_string() }))
        .route("/aldis.internal.v1.Profiles/GetAccounts", get(move || async move { format!("{last} again") }))
        .route("/never", get(std::future::pending::<String>));
    let serving = tokio::spawn(listen::serve(listener, Kind::Grpc, door, router, stop.clone()));
    (Running { stop, serving }, port)
}

fn to(port: u16, addresses: &watch::Sender<Vec<IpAddr>>) -> Channel {
    channel("replicas.test:1".parse().unwrap(), port, Set(addresses.subscribe()), None)
}

async fn ask(channel: &Channel, path: &str, limit: Option<&str>) -> Result<String, Status> {
    let mut request = http::Request::get(path);
    if let Some(limit) = limit {
        request = request.header(deadline::GRPC_TIMEOUT, limit);
    }
    let asking = channel.clone().oneshot(request.body(Body::empty()).unwrap());
    let answer = timeout(Duration::from_secs(20), asking).await.expect("a call that never ends");
    let body = answer.map_err(|error| Status::from_error(Box::new(error)))?.into_body();
    Ok(String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

/// Who answers a number of calls, none of which may fail.
async fn answers(channel: &Channel, calls: u32) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for _ in 0..calls {
        *counts.entry(ask(channel, "/who", None).await.unwrap()).or_default() += 1;
    }
    counts
}

async fn until(what: &str, channel: &Channel, holds: impl Fn(&Result<String, Status>) -> bool) {
    for _ in 0..1_000 {
        if holds(&ask(channel, "/who", None).await) {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("waited in vain: {what}");
}

#[tokio::test]
async fn calls_are_shared_among_all_addresses_and_follow_them() {
    let (first, port) = start(1, 0, Door::Open).await;
    let (second, _) = start(2, port, Door::Open).await;
    let addresses = watch::Sender::new(vec![ip(1), ip(2)]);
    let channel = to(port, &addresses);
    until("the second replica", &channel, |answer| answer.as_ref().is_ok_and(|it| it == "2")).await;
    until("the first replica", &channel, |answer| answer.as_ref().is_ok_and(|it| it == "1")).await;
    let counts = answers(&channel, 200).await;
    assert!(counts["1"] > 40 && counts["2"] > 40, "{counts:?}");

    let (third, _) = start(3, port, Door::Open).await;
    addresses.send_replace(vec![ip(2), ip(3)]);
    until("the third replica", &channel, |answer| answer.as_ref().is_ok_and(|it| it == "3")).await;
    let counts = answers(&channel, 100).await;
    assert!(!counts.contains_key("1"), "{counts:?}");
    // A look-up that fails changes nothing.
    addresses.send_replace(Vec::new());
    sleep(FRESH.0 + AGAIN).await;
    assert_eq!(answers(&channel, 100).await.len(), 2);
    for replica in [first, second, third] {
        replica.end().await;
    }
}

#[tokio::test]
async fn no_call_fails_while_replicas_are_restarted_one_after_the_other() {
    let (mut first, port) = start(1, 0, Door::Open).await;
    let (mut second, _) = start(2, port, Door::Open).await;
    let addresses = watch::Sender::new(vec![ip(1), ip(2)]);
    let channel = to(port, &addresses);
    until("both", &channel, |answer| answer.as_ref().is_ok_and(|it| it == "2")).await;
    until("both", &channel, |answer| answer.as_ref().is_ok_and(|it| it == "1")).await;
    let over = CancellationToken::new();
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (channel, over) = (channel.clone(), over.clone());
            tokio::spawn(async move {
                let mut calls = 0_u64;
                while !over.is_cancelled() {
                    ask(&channel, "/who", None).await.unwrap();
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    for _ in 0..3 {
        first.end().await;
        (first, _) = start(1, port, Door::Open).await;
        until("the first replica again", &channel, |answer| answer.as_ref().unwrap() == "1").await;
        second.end().await;
        (second, _) = start(2, port, Door::Open).await;
        until("the second replica again", &channel, |answer| answer.as_ref().unwrap() == "2").await;
    }
    over.cancel();
    for caller in callers {
        assert!(caller.await.unwrap() > 0);
    }
    first.end().await;
    second.end().await;
}

#[tokio::test]
async fn calls_fail_at_once_while_nobody_is_there_and_work_again_afterwards() {
    let (first, port) = start(1, 0, Door::Open).await;
    let addresses = watch::Sender::new(Vec::new());
    let channel = to(port, &addresses);
    let unknown = ask(&channel, "/who", None).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::Unavailable, "{unknown:?}");
    addresses.send_replace(vec![ip(1)]);
    until("the replica", &channel, Result::is_ok).await;
    first.end().await;
    until("its end", &channel, |answer| answer.as_ref().is_err_and(|it| it.code() == tonic::Code::Unavailable)).await;
    let (first, _) = start(1, port, Door::Open).await;
    until("the replica again", &channel, Result::is_ok).await;
    first.end().await;
}

#[tokio::test]
async fn a_call_ends_with_the_time_that_it_allows_itself() {
    let (first, port) = start(1, 0, Door::Open).await;
    let channel = to(port, &watch::Sender::new(vec![ip(1)]));
    until("the replica", &channel, Result::is_ok).await;
    let late = ask(&channel, "/never", Some("50m")).await.unwrap_err();
    assert!(late.message().contains("imeout"), "{late:?}");
    first.end().await;
}

/// A replica that takes calls and never answers: killed while they are under way.
async fn doomed(last: u8, port: u16, took: mpsc::UnboundedSender<()>) -> (JoinHandle<()>, u16) {
    let listener = listen::bind("internal", SocketAddr::new(ip(last), port)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepting = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let took = took.clone();
            let swallow = hyper::service::service_fn(move |_| {
                took.send(()).unwrap();
                std::future::pending::<Result<http::Response<Full<bytes::Bytes>>, io::Error>>()
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            connections.spawn(server.serve_connection(TokioIo::new(stream), swallow));
        }
    });
    (accepting, port)
}

#[tokio::test]
async fn what_may_be_repeated_goes_to_another_replica_when_one_is_killed_meanwhile() {
    const REPEATABLE: &str = "/aldis.internal.v1.Profiles/GetAccounts";
    let (took, mut taken) = mpsc::unbounded_channel();
    let (first, port) = doomed(1, 0, took).await;
    let addresses = watch::Sender::new(vec![ip(1)]);
    let channel = to(port, &addresses);
    let calls = ["/who", REPEATABLE].map(|path| {
        let channel = channel.clone();
        tokio::spawn(async move {
            loop {
                match ask(&channel, path, None).await {
                    // Before the first connection.
                    Err(error) if error.message().contains("no such host") => sleep(Duration::from_millis(20)).await,
                    outcome => return outcome,
                }
            }
        })
    });
    for _ in &calls {
        taken.recv().await.unwrap();
    }
    let (second, _) = start(2, port, Door::Open).await;
    addresses.send_replace(vec![ip(1), ip(2)]);
    let mut connected = 0;
    while connected == 0 {
        // Shared among both: what the first one takes stays there.
        let asking = timeout(Duration::from_millis(200), ask(&channel, "/who", None)).await;
        connected += u32::from(asking.is_ok_and(|answer| answer.unwrap() == "2"));
    }
    first.abort();
    let [once, repeated] = calls;
    once.await.unwrap().unwrap_err();
    assert_eq!(repeated.await.unwrap().unwrap(), "2 again");
    second.end().await;
}

#[tokio::test]
async fn a_replica_that_proves_another_name_gets_no_call() {
    install_crypto();
    let issuer = Issuer::new();
    let caller = workload_name("federator", "a.test");
    let guard = |service: &str| {
        Door::Internal(Guard { workload: issuer.workload(service), callers: Arc::from([caller.clone()]) })
    };
    let (first, port) = start(1, 0, guard("assets")).await;
    let (second, _) = start(2, port, guard("users")).await;
    let addresses = watch::Sender::new(vec![ip(1), ip(2)]);
    let name = ServerName::try_from(workload_name("users", "a.test")).unwrap();
    let proof = Some(Proof { workload: issuer.workload("federator"), name });
    let channel = channel("replicas.test:1".parse().unwrap(), port, Set(addresses.subscribe()), proof);
    until("the second replica", &channel, Result::is_ok).await;
    let counts = answers(&channel, 100).await;
    assert_eq!(counts.get("2"), Some(&100), "{counts:?}");
    first.end().await;
    second.end().await;
}
