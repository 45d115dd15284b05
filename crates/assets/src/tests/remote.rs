//! Files of other backends: beta's users read what alpha's have stored.

use std::time::Duration;

use aldis_peers::Origin;
use aldis_proto::{
    convert::bytes_of,
    federation::v1::{
        AssetAccess, AssetRefused, CheckAssetRequest, FetchAssetRequest, asset_refused::Reason,
        assets_client::AssetsClient, check_asset_response::Outcome, fetch_asset_response::Part,
    },
};
use axum::body::Body;
use http::{Method, Request};
use serde_json::json;

use super::world::{ALPHA, BETA, Backend, Form, World, bytes, user};
use crate::{CacheConfig, Config, PeersConfig, RemoteConfig};

const ANN: u8 = 1;
const BOB: u8 = 2;
const BEN: u8 = 3;

fn with(path: &str, token: &str) -> String {
    format!("{path}?asset_token={token}")
}

/// Waits until nothing but what is kept lies in the cache.
async fn cached(beta: &Backend, count: usize) {
    for _ in 0..3000 {
        if beta.files("assets-cache").len() == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", beta.files("assets-cache"));
}

#[tokio::test]
async fn a_file_of_another_backend_is_read_whole_and_in_parts() {
    let world = World::new();
    let (alpha, beta) = world.pair().await;
    let (path, token) = alpha.upload(ANN, &Form { media_type: "image/png", ..Form::of(bytes(700_000)) }).await;
    let answer = beta.get(BOB, &with(&path, &token)).await.expect(200);
    assert!(answer.body.as_ref().unwrap() == &bytes(700_000));
    assert_eq!((answer.header("content-length"), answer.header("content-type")), ("700000", "image/png"));
    for query in ["", "?asset_token=wrong"] {
        beta.get(BOB, &format!("{path}{query}")).await.expect_error(404, "not-found");
    }
    let request = Request::builder().uri(with(&path, &token)).header("range", "bytes=699990-");
    let part = beta.send(Some(BOB), request, Body::empty()).await.expect(206);
    assert_eq!(part.body.unwrap(), &bytes(700_000)[699_990..]);
    let head = beta.call(BOB, Method::HEAD, &with(&path, &token)).await.expect(200);
    assert_eq!(head.header("content-length"), "700000");
    let unknown = format!("/assets/{ALPHA}/3-1-47de4580-ae51-4650-acbb-d10c028cb0ac");
    beta.get(BOB, &unknown).await.expect_error(404, "not-found");
}

fn from_beta<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.extensions_mut().insert(Origin::proven(BETA.parse().unwrap()));
    request
}

#[tokio::test]
async fn the_uploaders_id_gains_another_backend_nothing() {
    let world = World::new();
    let (alpha, _beta) = world.pair().await;
    let (path, token) = alpha.upload(ANN, &Form::of("x")).await;
    let mut client = AssetsClient::new(alpha.federation.channel());
    let access = |token: &str| AssetAccess {
        reader: bytes_of(user(ANN)),
        key: path.rsplit('/').next().unwrap().to_owned(),
        token: token.to_owned(),
    };
    let check = CheckAssetRequest { access: Some(access("")), sha256: bytes::Bytes::new() };
    let answer = client.check(from_beta(check)).await.unwrap().into_inner();
    assert_eq!(answer.outcome, Some(Outcome::Refused(AssetRefused { reason: Reason::NotFound.into() })));
    let fetch = FetchAssetRequest { access: Some(access("")), offset: 0, length: 0 };
    let mut stream = client.fetch(from_beta(fetch.clone())).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(first.part, Some(Part::Refused(AssetRefused { reason: Reason::NotFound.into() })));
    assert_eq!(stream.message().await.unwrap(), None);
    let far = FetchAssetRequest { access: Some(access(&token)), offset: 1, length: 0 };
    let first = client.fetch(from_beta(far)).await.unwrap().into_inner().message().await.unwrap().unwrap();
    assert_eq!(first.part, Some(Part::Refused(AssetRefused { reason: Reason::OutOfRange.into() })));
    // Without a proven origin there is no answer at all.
    assert_eq!(client.fetch(fetch).await.unwrap_err().code(), tonic::Code::Unauthenticated);
    let own = tonic::Request::new(CheckAssetRequest::default());
    assert_eq!(client.check(own).await.unwrap_err().code(), tonic::Code::Unauthenticated);
}

#[tokio::test]
async fn a_copy_is_given_after_asking_the_owner() {
    let world = World::new();
    let (alpha, beta) = world.pair().await;
    let (path, token) = alpha.upload(ANN, &Form::of(bytes(300_000))).await;
    for reader in [BOB, BEN, BOB] {
        let answer = beta.get(reader, &with(&path, &token)).await.expect(200);
        assert!(answer.body.unwrap() == bytes(300_000));
        cached(&beta, 1).await;
    }
    assert_eq!((world.wire.calls("Fetch"), world.wire.calls("Check")), (1, 2));
    beta.get(BEN, &with(&path, "wrong")).await.expect_error(404, "not-found");
    cached(&beta, 1).await;

    // A new token holds at once, and the copy stays.
    let token_path = format!("/assets/{}/token", path.rsplit('/').next().unwrap());
    let renewed = alpha.call(ANN, Method::POST, &token_path).await.expect(200).json();
    beta.get(BOB, &with(&path, &token)).await.expect_error(404, "not-found");
    beta.get(BOB, &with(&path, renewed["token"].as_str().unwrap())).await.expect(200);
    assert_eq!(world.wire.calls("Fetch"), 1);

    // An owner that cannot be asked gives nobody access.
    world.wire.set_down(true);
    let error = beta.get(BOB, &with(&path, &token)).await.expect_error(521, "federation-connection-refused");
    assert_eq!(error["data"]["domain"], ALPHA);
    world.wire.set_down(false);

    alpha.call(ANN, Method::DELETE, &path).await.expect(200);
    beta.get(BOB, &with(&path, renewed["token"].as_str().unwrap())).await.expect_error(404, "not-found");
    cached(&beta, 0).await;
}

#[tokio::test]
async fn an_end_at_the_owner_reaches_the_copy() {
    let world = World::new();
    let alpha = world.start(ALPHA, Config::default(), None).await;
    let config = Config { sweep_interval_seconds: 1, ..Config::default() };
    let beta = world.start(BETA, config, Some(&alpha)).await;
    let form = Form { description: json!({ "retention": "volatile", "public": true }), ..Form::of("x") };
    let (path, _) = alpha.upload(ANN, &form).await;
    beta.get(BOB, &path).await.expect(200);
    cached(&beta, 1).await;
    world.clock.advance(Duration::from_secs(28 * 86_400));
    beta.get(BOB, &path).await.expect_error(404, "not-found");
    cached(&beta, 0).await;
}

#[tokio::test]
async fn a_copy_of_what_is_gone_is_dropped_although_nobody_reads_it() {
    let world = World::new();
    let alpha = world.start(ALPHA, Config::default(), None).await;
    let config = Config { sweep_interval_seconds: 1, ..Config::default() };
    let beta = world.start(BETA, config, Some(&alpha)).await;
    let mut paths = Vec::new();
    for text in ["goes", "stays"] {
        let (path, token) = alpha.upload(ANN, &Form::of(text)).await;
        beta.get(BOB, &with(&path, &token)).await.expect(200);
        paths.push((path, token));
    }
    cached(&beta, 2).await;
    alpha.call(ANN, Method::DELETE, &paths[0].0).await.expect(200);
    world.wire.set_down(true);
    world.clock.advance(Duration::from_secs(6 * 3600));
    called(&world, "Check", 2).await;
    assert_eq!(beta.files("assets-cache").len(), 2, "an owner that is away says nothing");
    world.wire.set_down(false);
    world.clock.advance(Duration::from_secs(6 * 3600));
    cached(&beta, 1).await;
    let (path, token) = &paths[1];
    assert_eq!(beta.get(BOB, &with(path, token)).await.expect(200).body.unwrap(), b"stays");
    assert_eq!(world.wire.calls("Fetch"), 2);
}

/// Waits until a method was called so often.
async fn called(world: &World, method: &str, times: usize) {
    while world.wire.calls(method) < times {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn readers_at_the_same_time_share_one_transfer() {
    let world = World::new();
    let (alpha, beta) = world.pair().await;
    let (path, token) = alpha.upload(ANN, &Form::of(bytes(2_000_000))).await;
    let allowed = with(&path, &token);
    world.wire.hold(true);
    let read = async |reader| {
        let answer = beta.get(reader, &allowed).await.expect(200);
        assert!(answer.body.unwrap() == bytes(2_000_000));
    };
    let join = async {
        called(&world, "Fetch", 1).await;
        tokio::join!(read(BEN), read(BOB));
    };
    let stranger = async {
        called(&world, "Fetch", 1).await;
        beta.get(BEN, &path).await.expect_error(404, "not-found");
    };
    let release = async {
        called(&world, "Check", 3).await;
        world.wire.hold(false);
    };
    tokio::join!(read(BOB), join, stranger, release);
    cached(&beta, 1).await;
    assert_eq!((world.wire.calls("Fetch"), world.wire.calls("Check")), (1, 3));
}

#[tokio::test]
async fn a_transfer_that_breaks_off_goes_on_where_it_was() {
    let world = World::new();
    let (alpha, beta) = world.pair().await;
    let (path, token) = alpha.upload(ANN, &Form::of(bytes(1_000_000))).await;
    world.wire.break_after(300_000, 2);
    let answer = beta.get(BOB, &with(&path, &token)).await.expect(200);
    assert!(answer.body.unwrap() == bytes(1_000_000));
    assert_eq!(world.wire.calls("Fetch"), 3);
}

#[tokio::test]
async fn what_is_cut_short_or_altered_never_looks_whole() {
    let world = World::new();
    let (alpha, beta) = world.pair().await;
    let (path, token) = alpha.upload(ANN, &Form::of(bytes(600_000))).await;
    world.wire.break_after(200_000, 1);
    world.wire.hold(true);
    let url = with(&path, &token);
    let (answer, ()) = tokio::join!(beta.get(BOB, &url), async {
        called(&world, "Fetch", 1).await;
        // The answer under way breaks off, and nothing follows.
        world.wire.set_down(true);
        world.wire.hold(false);
    });
    let answer = answer.expect(200);
    assert_eq!(answer.header("content-length"), "600000");
    assert!(answer.body.unwrap_err().len() < 600_000);
    world.wire.set_down(false);
    cached(&beta, 0).await;

    world.wire.alter();
    let answer = beta.get(BOB, &with(&path, &token)).await.expect(200);
    assert!(answer.body.unwrap_err().len() < 600_000);
    cached(&beta, 0).await;
}

#[tokio::test]
async fn our_own_rules_hold_for_files_of_others() {
    let world = World::new();
    let alpha = world.start(ALPHA, Config::default(), None).await;
    let remote = RemoteConfig { max_bytes: 1000, types: vec!["image/*".to_owned()], ..RemoteConfig::default() };
    let beta = world.start(BETA, Config { remote, ..Config::default() }, Some(&alpha)).await;
    let large = alpha.upload(ANN, &Form { media_type: "image/png", ..Form::public(bytes(1001)) }).await.0;
    let other = alpha.upload(ANN, &Form::public("x")).await.0;
    let fits = alpha.upload(ANN, &Form { media_type: "image/png", ..Form::public(bytes(1000)) }).await.0;
    for path in [&large, &other] {
        beta.get(BOB, path).await.expect_error(403, "asset-not-allowed");
        beta.call(BOB, Method::HEAD, path).await.expect(403);
    }
    beta.get(BOB, &fits).await.expect(200);
}

#[tokio::test]
async fn an_owner_limits_transfers_of_each_backend() {
    let world = World::new();
    let peers = PeersConfig { max_concurrent: 1, bytes_per_second: 1 << 30, ..PeersConfig::default() };
    let alpha = world.start(ALPHA, Config { peers, ..Config::default() }, None).await;
    let beta = world.start(BETA, Config::default(), Some(&alpha)).await;
    let first = alpha.upload(ANN, &Form::public(bytes(2_000_000))).await.0;
    let second = alpha.upload(ANN, &Form::public("x")).await.0;
    world.wire.hold(true);
    let (answer, ()) = tokio::join!(beta.get(BOB, &first), async {
        called(&world, "Fetch", 1).await;
        // The other one waits until the owner has a place.
        let release = async {
            called(&world, "Fetch", 3).await;
            world.wire.hold(false);
        };
        let (answer, ()) = tokio::join!(beta.get(BOB, &second), release);
        answer.expect(200);
    });
    assert!(answer.expect(200).body.unwrap() == bytes(2_000_000));
}

#[tokio::test]
async fn copies_are_bounded_and_survive_a_restart() {
    let world = World::new();
    let alpha = world.start(ALPHA, Config::default(), None).await;
    let cache = CacheConfig { max_mib: 1, max_age_seconds: 3600, ..CacheConfig::default() };
    let config = Config { cache, ..Config::default() };
    let beta = world.start(BETA, config.clone(), Some(&alpha)).await;
    let mut paths = Vec::new();
    for size in [400_000, 400_001, 400_002, 2_000_000] {
        paths.push(alpha.upload(ANN, &Form::public(bytes(size))).await.0);
    }
    for (path, kept) in paths.iter().zip([1, 2, 2, 2]) {
        world.clock.advance(Duration::from_secs(1));
        beta.get(BOB, path).await.expect(200);
        cached(&beta, kept).await;
    }
    drop(beta);
    std::fs::write(world.folder.path().join(BETA).join("assets-cache/leftover"), "x").unwrap();
    let beta = world.start(BETA, config, Some(&alpha)).await;
    cached(&beta, 2).await;
    assert_eq!(world.wire.calls("Fetch"), 4);
    beta.get(BOB, &paths[1]).await.expect(200);
    assert_eq!(world.wire.calls("Fetch"), 4, "kept");
    beta.get(BOB, &paths[0]).await.expect(200);
    assert_eq!(world.wire.calls("Fetch"), 5, "dropped, as the one that was not read for longest");
    world.clock.advance(Duration::from_secs(3600));
    beta.get(BOB, &paths[1]).await.expect(200);
    assert_eq!(world.wire.calls("Fetch"), 6, "too old");
}

#[tokio::test]
async fn without_a_cache_nothing_stays() {
    let world = World::new();
    let alpha = world.start(ALPHA, Config::default(), None).await;
    let cache = CacheConfig { enabled: false, ..CacheConfig::default() };
    let beta = world.start(BETA, Config { cache, ..Config::default() }, Some(&alpha)).await;
    let path = alpha.upload(ANN, &Form::public(bytes(500_000))).await.0;
    for _ in 0..2 {
        assert!(beta.get(BOB, &path).await.expect(200).body.unwrap() == bytes(500_000));
        cached(&beta, 0).await;
    }
    assert_eq!((world.wire.calls("Fetch"), world.wire.calls("Check")), (2, 0));
}
