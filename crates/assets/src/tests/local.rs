//! Files of our own users.

use std::{sync::Arc, time::Duration};

use aldis_runtime::SystemRandom;
use aldis_storage::{Db, DbOptions};
use aldis_types::{AssetKey, MediaType, Retention, Timestamp};
use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::{Method, Request};
use serde_json::json;

use super::world::{ALPHA, BETA, CONVERSATION, Form, World, bytes, user};
use crate::{
    Config,
    blobs::{BlobStore, directory::Directory},
    error::AssetError,
    objects::{
        Assets, Reader, Upload,
        store::{AssetStore, MIGRATIONS, SqliteAssets},
    },
};

const ANN: u8 = 1;
const BOB: u8 = 2;

#[tokio::test]
async fn routes_want_a_token_first() {
    let world = World::new();
    let alpha = world.start(ALPHA, Config::default(), None).await;
    let key = "3-1-47de4580-ae51-4650-acbb-d10c028cb0ac";
    for (method, path) in [
        (Method::POST, "/assets".to_owned()),
        (Method::GET, format!("/assets/{ALPHA}/{key}")),
        (Method::DELETE, format!("/assets/{ALPHA}/{key}")),
        (Method::POST, format!("/assets/{key}/token")),
        (Method::DELETE, format!("/assets/{key}/token")),
    ] {
        let request = Request::builder().method(method).uri(&path);
        alpha.send(None, request, Body::empty()).await.expect_error(401, "invalid-credentials");
    }
}

#[tokio::test]
async fn a_file_is_given_to_its_uploader_and_to_whoever_has_the_token() {
    let world = World::new();
    let alpha = world.start(ALPHA, Config::default(), None).await;
    let answer = alpha.post(ANN, Form::of(bytes(300_000)).body()).await.expect(201);
    let stored = answer.json();
    let (key, token) = (stored["key"].as_str().unwrap(), stored["token"].as_str().unwrap());
    assert_eq!(answer.header("location"), format!("/assets/{key}"));
    assert!(key.starts_with("3-2-") && token.len() == 22, "{stored}");
    assert_eq!(stored["domain"], ALPHA);
    assert_eq!(stored.get("expires"), None);

    let path = format!("/assets/{ALPHA}/{key}");
    let own = alpha.get(ANN, &path).await.expect(200);
    assert!(own.body.as_ref().unwrap() == &bytes(300_000));
    assert_eq!(own.header("content-type"), "application/octet-stream");
    assert_eq!(own.header("content-length"), "300000");
    assert_eq!(own.header("cache-control"), "private, max-age=31536000");
    assert_eq!(own.header("x-content-type-options"), "nosniff");
    alpha.get(BOB, &format!("{path}?asset_token={token}&forceCaching=true")).await.expect(200);
    let request = Request::builder().uri(&path).header("asset-token", token);
    alpha.send(Some(BOB), request, Body::empty()).await.expect(200);
    for query in ["", "?asset_token=", "?asset_token=wrong"] {
        alpha.get(BOB, &format!("{path}{query}")).await.expect_error(404, "not-found");
    }
    // Another class makes another key.
    alpha.get(ANN, &path.replace("3-2-", "3-1-")).await.expect_error(404, "not-found");
    alpha.get(ANN, &format!("/assets/{ALPHA}/nonsense")).await.expect_error(400, "bad-request");

    let head = alpha.call(ANN, Method::HEAD, &path).await.expect(200);
    assert_eq!((head.header("content-length"), head.body.as_ref().unwrap().len()), ("300000", 0));
}

#[tokio::test]
async fn public_files_and_media_types() {
    let world = World::new();
    let alpha = world.start(ALPHA, Config::default(), None).await;
    for (media_type, shown) in [
        ("image/png", "image/png"),
        ("text/html; charset=utf-8", "application/octet-stream"),
        ("image/svg+xml", "application/octet-stream"),
    ] {
        let (path, token) = alpha.upload(ANN, &Form { media_type, ..Form::public("x") }).await;
        assert_eq!(token, "");
        for query in ["", "?asset_token=whatever"] {
            let answer = alpha.get(BOB, &format!("{path}{query}")).await.expect(200);
            assert_eq!(answer.header("content-type"), shown);
        }
    }
}

#[tokio::test]
async fn parts_of_a_file() {
    let world = World::new();
    let alpha = world.start(ALPHA, Config::default(), None).await;
    let (path, _) = alpha.upload(ANN, &Form::of("hello world")).await;
    let get = async |range: &str, condition: Option<&str>| {
        let mut request = Request::builder().uri(&path).header("range", range);
        if let Some(tag) = condition {
            request = request.header("if-range", tag);
        }
        alpha.send(Some(ANN), request, Body::empty()).await
    };
    let part = get("bytes=6-", None).await.expect(206);
    assert_eq!(part.body.as_ref().unwrap(), b"world");
    assert_eq!((part.header("content-range"), part.header("content-length")), ("bytes 6-10/11", "5"));
    let tag = part.header("etag").to_owned();
    assert_eq!(get("bytes=0-0", Some(&tag)).await.expect(206).body.unwrap(), b"h");
    assert_eq!(get("bytes=0-0", Some("\"other\"")).await.expect(200).body.unwrap(), b"hello world");
    get("bytes=11-", None).await.expect_error(416, "range-not-satisfiable");
}

#[tokio::test]
async fn what_is_refused_leaves_nothing() {
    let world = World::new();
    let config = Config { max_bytes: 1000, types: vec!["image/*".to_owned()], ..Config::default() };
    let alpha = world.start(ALPHA, config, None).await;
    let image = |form: Form| Form { media_type: "image/png", ..form };
    let cases = [
        (image(Form::of("")), 400, "invalid-length"),
        (image(Form { length: Some(100), ..Form::of("short") }), 400, "incomplete-body"),
        (image(Form { length: Some(3), ..Form::of("longer") }), 400, "client-error"),
        (image(Form { md5: Some("AAAAAAAAAAAAAAAAAAAAAA==".to_owned()), ..Form::of("x") }), 400, "client-error"),
        (image(Form::of(bytes(1001))), 413, "client-error"),
        (image(Form { description: json!("text"), ..Form::of("x") }), 400, "client-error"),
        (Form::of("x"), 403, "asset-not-allowed"),
        (image(Form { description: json!({ "filetype": "text/html" }), ..Form::of("x") }), 403, "asset-not-allowed"),
    ];
    for (form, status, label) in cases {
        alpha.post(ANN, form.body()).await.expect_error(status, label);
    }
    let request = Request::builder().method(Method::POST).uri("/assets").header("content-type", "application/json");
    alpha.send(Some(ANN), request, Body::from("{}")).await.expect_error(415, "client-error");
    // A client that goes away.
    let mut body = image(Form::of(bytes(900))).body();
    body.truncate(600);
    let parts = [Ok(Bytes::from(body)), Err(std::io::Error::other("reset"))];
    alpha.post(ANN, Body::from_stream(stream::iter(parts))).await.expect_error(400, "incomplete-body");
    assert!(alpha.files("assets").is_empty(), "{:?}", alpha.files("assets"));

    alpha.upload(ANN, &image(Form::of(bytes(1000)))).await;
    assert_eq!(alpha.files("assets").len(), 1);
}

#[tokio::test]
async fn a_file_that_members_could_not_fetch_is_refused_early_if_the_operator_wants_that() {
    let world = World::new();
    world.wire.know(BETA, 1000, &["image/*"]);
    world.wire.know("gamma.test", 1000, &[]);
    world.wire.know("delta.test", 0, &[]);
    let refusing = world.start(ALPHA, Config { refuse_early: true, ..Config::default() }, None).await;
    let form = |size: usize, media_type, conversation: serde_json::Value| Form {
        description: json!({ "convId": conversation, "filename": "plan.png", "filetype": "image/png" }),
        media_type,
        ..Form::of(bytes(size))
    };
    let here = json!({ "domain": ALPHA, "id": CONVERSATION });
    let (image, other) = ("image/png", "application/octet-stream");
    for (backends, size, media_type, refused_by) in [
        (&[BETA, "gamma.test"][..], 1000, image, None),
        (&[BETA, "gamma.test"], 1001, image, Some("beta.test, gamma.test")),
        (&[BETA, "gamma.test"], 1000, other, Some("beta.test")),
        (&["gamma.test"], 1000, other, None),
        (&["delta.test"], 1, other, Some("delta.test")),
        (&["unknown.test"], 5000, other, None),
        (&[], 5000, other, None),
    ] {
        world.converse_with(backends);
        let answer = refusing.post(ANN, form(size, media_type, here.clone()).body()).await;
        let Some(refused_by) = refused_by else {
            answer.expect(201);
            continue;
        };
        let error = answer.expect_error(403, "asset-not-allowed");
        assert!(error["message"].as_str().unwrap().ends_with(&format!(": {refused_by}")), "{error}");
    }
    // Nothing is known of what is not named, or not his.
    world.converse_with(&["delta.test"]);
    for named in [json!(null), json!("text"), json!({ "domain": ALPHA, "id": "11111111-1111-4111-8111-111111111111" })]
    {
        refusing.post(ANN, form(1, other, named).body()).await.expect(201);
    }
    refusing.post(BOB, form(1, other, here.clone()).body()).await.expect(201);
    // What we ourselves refuse comes first.
    refusing.post(ANN, form(0, other, here.clone()).body()).await.expect_error(400, "invalid-length");
    let taking = world.start("taking.test", Config::default(), None).await;
    taking.post(ANN, form(1, other, here).body()).await.expect(201);
}

#[tokio::test]
async fn only_the_uploader_removes_a_file_and_changes_its_token() {
    let world = World::new();
    let alpha = world.start(ALPHA, Config::default(), None).await;
    let (path, token) = alpha.upload(ANN, &Form::of("x")).await;
    let key = path.rsplit('/').next().unwrap().to_owned();
    let token_path = format!("/assets/{key}/token");
    let with = |token: &str| format!("{path}?asset_token={token}");

    for (method, path) in [(Method::POST, &token_path), (Method::DELETE, &token_path), (Method::DELETE, &path)] {
        alpha.call(BOB, method, path).await.expect_error(403, "unauthorised");
    }
    let renewed = alpha.call(ANN, Method::POST, &token_path).await.expect(200).json();
    let renewed = renewed["token"].as_str().unwrap();
    alpha.get(BOB, &with(&token)).await.expect_error(404, "not-found");
    alpha.get(BOB, &with(renewed)).await.expect(200);
    alpha.call(ANN, Method::DELETE, &token_path).await.expect(200);
    alpha.get(BOB, &path).await.expect(200);

    alpha.call(ANN, Method::DELETE, &path).await.expect(200);
    assert!(alpha.files("assets").is_empty());
    alpha.get(ANN, &path).await.expect_error(404, "not-found");
    for (method, path) in [(Method::POST, &token_path), (Method::DELETE, &token_path), (Method::DELETE, &path)] {
        alpha.call(ANN, method, path).await.expect_error(404, "not-found");
    }
    let elsewhere = path.replace(ALPHA, "beta.test");
    alpha.call(ANN, Method::DELETE, &elsewhere).await.expect_error(422, "federation-not-implemented");
}

#[tokio::test]
async fn a_file_ends_with_its_retention() {
    let world = World::new();
    let alpha = world.start(ALPHA, Config::default(), None).await;
    let form = Form { description: json!({ "retention": "volatile" }), ..Form::of("x") };
    let stored = alpha.post(ANN, form.body()).await.expect(201).json();
    assert_eq!(stored["expires"], "2025-07-13T15:06:40.000Z");
    let path = format!("/assets/{ALPHA}/{}", stored["key"].as_str().unwrap());
    world.clock.advance(Duration::from_secs(28 * 86_400 - 1));
    alpha.get(ANN, &path).await.expect(200);
    world.clock.advance(Duration::from_secs(1));
    alpha.get(ANN, &path).await.expect_error(404, "not-found");
    assert_eq!(alpha.files("assets").len(), 1, "the sweep comes later");
    drop(alpha);
    let alpha = world.start(ALPHA, Config::default(), None).await;
    assert!(alpha.files("assets").is_empty());
}

#[tokio::test]
async fn what_a_crash_leaves_is_removed_at_the_start() {
    let world = World::new();
    let folder = world.folder.path().join(ALPHA);
    std::fs::create_dir_all(&folder).unwrap();
    let db = Db::open(&folder.join("aldis.db"), &DbOptions::default()).unwrap();
    db.migrate("assets", MIGRATIONS).await.unwrap();
    let (store, blobs) = (SqliteAssets(db), Directory::open(&folder.join("assets")).await.unwrap());
    // One upload was whole but not published, one was under way.
    let key = |id: u128| AssetKey { retention: Retention::Eternal, id: uuid::Uuid::from_u128(id) };
    let now = Timestamp::from_millis(1_750_000_000_000);
    store.begin(key(1), user(ANN), now).await.unwrap();
    let mut writer = blobs.create(key(1).id).await.unwrap();
    writer.write(Bytes::from_static(b"x")).await.unwrap();
    writer.finish().await.unwrap();
    store.begin(key(2), user(ANN), now).await.unwrap();
    drop(blobs.create(key(2).id).await.unwrap());
    drop(store);
    let alpha = world.start(ALPHA, Config::default(), None).await;
    assert!(alpha.files("assets").is_empty(), "{:?}", alpha.files("assets"));
    alpha.get(ANN, &format!("/assets/{ALPHA}/{}", key(1))).await.expect_error(404, "not-found");
}

#[tokio::test]
async fn a_sweep_leaves_uploads_alone_that_may_still_end_well() {
    let world = World::new();
    let db = Db::open(&world.folder.path().join("aldis.db"), &DbOptions::default()).unwrap();
    db.migrate("assets", MIGRATIONS).await.unwrap();
    let blobs = Arc::new(Directory::open(world.folder.path()).await.unwrap());
    let store = Arc::new(SqliteAssets(db));
    let config = Config::default();
    let assets = Assets::new(store, blobs, world.clock.clone(), Arc::new(SystemRandom), &config);
    let upload = Upload {
        owner: user(ANN),
        retention: Retention::Eternal,
        public: false,
        media_type: MediaType::octet_stream(),
        inner_type: None,
        size: 2,
        md5: None,
    };
    let slow = |pause: Duration| {
        let (sweeper, clock) = (assets.clone(), world.clock.clone());
        stream::unfold(0, move |n| {
            let (sweeper, clock) = (sweeper.clone(), clock.clone());
            async move {
                if n == 1 {
                    clock.advance(pause);
                    sweeper.sweep().await.unwrap();
                }
                (n < 2).then(|| (Ok::<_, AssetError>(Bytes::from_static(b"x")), n + 1))
            }
        })
    };
    let stored = assets.upload(upload.clone(), slow(Duration::from_secs(3600))).await.unwrap();
    assets.find(stored.key, Reader::Local(user(ANN)), None).await.unwrap();
    let late = assets.upload(upload, slow(Duration::from_secs(3 * 3600))).await;
    assert!(matches!(late, Err(AssetError::TooSlow)), "{late:?}");
}

#[tokio::test]
async fn settings_are_checked() {
    let refused = |change: &dyn Fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        config.check().unwrap_err()
    };
    assert!(refused(&|it| it.max_bytes = 0).starts_with("`assets.max_bytes` = 0; allowed: 1 to "));
    assert!(refused(&|it| it.types = vec!["image".to_owned()]).contains("`assets.types` has \"image\""));
    assert!(refused(&|it| it.peers.bytes_per_second = 10).contains("`assets.peers.bytes_per_second` = 10"));
    assert!(refused(&|it| it.cache.max_mib = 0).contains("`assets.cache.max_mib` = 0"));
    let config = Config { types: vec!["image/*".to_owned(), "*/*".to_owned()], ..Config::default() };
    config.check().unwrap();
}
