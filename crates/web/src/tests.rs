//! What a browser gets.

use std::{borrow::Cow, collections::BTreeMap};

use axum::{Router, body::Body};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use rust_embed::{EmbeddedFile, Metadata};
use tower::ServiceExt as _;

use crate::{
    files::Files,
    serve::{Facts, with},
};

fn facts() -> Facts {
    Facts {
        product: "Aldis",
        version: "1.2.3",
        domain: "alpha.test".parse().unwrap(),
        websocket: "/await",
        registration: true,
        federation: false,
    }
}

fn file(content: &'static str, kind: &'static str) -> EmbeddedFile {
    let mut digest = [0; 32];
    for (place, byte) in content.bytes().enumerate() {
        digest[place % 32] ^= byte;
    }
    EmbeddedFile {
        data: Cow::Borrowed(content.as_bytes()),
        metadata: Metadata::__rust_embed_new(digest, None, None, kind),
    }
}

fn app() -> Router {
    let files = [
        ("index.html", file("<html>", "text/html")),
        ("icon.svg", file("<svg>", "image/svg+xml")),
        ("assets/main-1a2b.js", file("let it = 'be';", "text/javascript")),
        ("assets/main-1a2b.js.gz", file("squeezed", "application/gzip")),
        ("assets/crypto-3c4d.wasm", file("\0asm", "application/wasm")),
    ];
    with(Files::of(files.map(|(name, file)| (name.to_owned(), file))), facts())
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

async fn ask(app: &Router, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

#[tokio::test]
async fn paths_of_the_app_are_the_page_and_files_are_files() {
    let app = app();
    let answer = ask(&app, "/app", &[]).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::PERMANENT_REDIRECT, Some("/app/")));
    for path in ["/app/", "/app/index.html", "/app/conversations/alpha.test/", "/app/settings?a=b.c"] {
        let answer = ask(&app, path, &[]).await;
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "<html>"), "{path}");
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(answer.header("cache-control"), Some("no-cache"));
    }
    let kinds = BTreeMap::from([
        ("/app/icon.svg", ("image/svg+xml", "no-cache")),
        ("/app/assets/main-1a2b.js", ("text/javascript; charset=utf-8", "public, max-age=31536000, immutable")),
        ("/app/assets/crypto-3c4d.wasm", ("application/wasm", "public, max-age=31536000, immutable")),
    ]);
    for (path, (kind, cache)) in kinds {
        let answer = ask(&app, path, &[]).await;
        assert_eq!((answer.header("content-type"), answer.header("cache-control")), (Some(kind), Some(cache)));
    }
    for path in
        ["/app/none.js", "/app/assets/none", "/app/a/b.png", "/app/assets/main-1a2b.js.gz", "/app/../Cargo.toml"]
    {
        assert_eq!(ask(&app, path, &[]).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn every_answer_carries_the_policy() {
    let app = app();
    let host = ("host", "chat.example.com:8443");
    for path in ["/app/", "/app/config.json", "/app/assets/main-1a2b.js", "/app/none.js"] {
        let answer = ask(&app, path, &[host]).await;
        let policy = answer.header("content-security-policy").unwrap();
        let connect = "connect-src 'self' ws://chat.example.com:8443 wss://chat.example.com:8443;";
        assert!(policy.starts_with("default-src 'none'; ") && policy.contains(connect), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("'unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(answer.header("cross-origin-opener-policy"), Some("same-origin"));
    }
    for host in ["a.test; script-src *", "user@a.test", "a.test/x", "*"] {
        let answer = ask(&app, "/app/", &[("host", host)]).await;
        assert!(answer.header("content-security-policy").unwrap().contains("connect-src 'self';"), "{host}");
    }
}

#[tokio::test]
async fn files_are_sent_once_and_small() {
    let app = app();
    let path = "/app/assets/main-1a2b.js";
    let plain = ask(&app, path, &[]).await;
    assert_eq!((plain.body.as_str(), plain.header("vary")), ("let it = 'be';", Some("Accept-Encoding")));
    for (accepted, compressed) in [
        ("gzip, deflate, br", true),
        ("br;q=1.0, GZIP;q=0.5", true),
        ("gzip;q=0", false),
        ("gzip;q=0.00", false),
        ("br", false),
    ] {
        let answer = ask(&app, path, &[("accept-encoding", accepted)]).await;
        assert_eq!(answer.header("content-encoding"), compressed.then_some("gzip"), "{accepted}");
        assert_eq!(answer.body == "squeezed", compressed);
        assert_eq!(answer.header("etag") == plain.header("etag"), !compressed);
    }
    let tag = plain.header("etag").unwrap();
    let again = ask(&app, path, &[("if-none-match", tag)]).await;
    assert_eq!((again.status, again.body.as_str(), again.header("etag")), (StatusCode::NOT_MODIFIED, "", Some(tag)));
    assert!(again.header("content-security-policy").is_some() && again.header("cache-control").is_some());
    let changed = ask(&app, path, &[("if-none-match", "\"other\"")]).await;
    assert_eq!(changed.status, StatusCode::OK);
}

#[tokio::test]
async fn the_app_learns_where_it_is() {
    let answer = ask(&app(), "/app/config.json", &[]).await;
    let facts: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let expected = serde_json::json!({
        "product": "Aldis", "version": "1.2.3", "domain": "alpha.test", "websocket": "/await",
        "registration": true, "federation": false,
    });
    assert_eq!((facts, answer.header("cache-control")), (expected, Some("no-cache")));
}

#[tokio::test]
async fn a_build_without_the_app_says_so() {
    let app = with(Files::default(), facts());
    for path in ["/app/", "/app/conversations", "/app/assets/main.js"] {
        let answer = ask(&app, path, &[]).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert!(answer.body.contains("make web"), "{}", answer.body);
    }
    assert_eq!(ask(&app, "/app/config.json", &[]).await.status, StatusCode::OK);
}
