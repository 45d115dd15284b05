//! The routes.

use std::sync::Arc;

use aldis_types::Domain;
use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use axum_extra::headers::{ETag, HeaderMapExt as _, IfNoneMatch};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts, uri::Authority};
use serde::Serialize;

use crate::{
    PATH,
    files::{File, Files, INDEX},
};

/// The folder of files whose names change with their content.
const HASHED: &str = "assets/";
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// Kept, and asked about each time.
const ASK: HeaderValue = HeaderValue::from_static("no-cache");
const MISSING: &str = include_str!("missing.html");
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const SAME_ORIGIN: HeaderValue = HeaderValue::from_static("same-origin");

/// What the app cannot know by itself: the content of `/app/config.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// What the product is called.
    pub product: &'static str,
    /// The version of the backend.
    pub version: &'static str,
    /// The backend's domain.
    pub domain: Domain,
    /// Path of the socket on this origin.
    pub websocket: &'static str,
    /// Whether people may register.
    pub registration: bool,
    /// Whether there are other backends.
    pub federation: bool,
}

struct Site {
    files: Files,
    facts: Facts,
}

/// Serves the app of this binary, or the page that says that there is none.
pub fn router(facts: Facts) -> Router {
    with(Files::built(), facts)
}

pub(crate) fn with(files: Files, facts: Facts) -> Router {
    Router::new()
        .route(PATH, get(|| async { Redirect::permanent("/app/") }))
        .route("/app/", get(file))
        .route("/app/config.json", get(config))
        .route("/app/{*path}", get(file))
        .with_state(Arc::new(Site { files, facts }))
}

/// `GET /app/config.json`: what the app must know of this backend.
async fn config(State(site): State<Arc<Site>>, parts: Parts) -> Response {
    let mut response = Json(&site.facts).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, ASK);
    guarded(&parts, response)
}

/// `GET /app/{path}`: a file of the app; for a path inside the app, which has no ending, the page that is the app.
async fn file(State(site): State<Arc<Site>>, parts: Parts) -> Response {
    let path = parts.uri.path().strip_prefix("/app/").unwrap_or_default();
    let response = match site.find(path) {
        Some((name, file)) => answer(name, file, &parts.headers),
        None if site.files.get(INDEX).is_none() => (StatusCode::NOT_FOUND, html(), MISSING).into_response(),
        None => (StatusCode::NOT_FOUND, "There is no such file.\n").into_response(),
    };
    guarded(&parts, response)
}

fn html() -> [(HeaderName, HeaderValue); 2] {
    [(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")), (header::CACHE_CONTROL, ASK)]
}

impl Site {
    fn find<'a>(&'a self, path: &'a str) -> Option<(&'a str, &'a File)> {
        if let Some(file) = self.files.get(path) {
            return Some((path, file));
        }
        let last = path.rsplit('/').next().unwrap_or_default();
        if path.starts_with(HASHED) || last.contains('.') {
            return None;
        }
        self.files.get(INDEX).map(|file| (INDEX, file))
    }
}

fn answer(name: &str, file: &File, asked: &HeaderMap) -> Response {
    let compressed = file.gzip.as_ref().filter(|_| accepts_gzip(asked));
    // Two forms of a file are two things to compare.
    let tag = format!("\"{}{}\"", file.digest, if compressed.is_some() { "-gzip" } else { "" });
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, if name.starts_with(HASHED) { FOR_EVER } else { ASK });
    if file.gzip.is_some() {
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    if let Ok(tag) = tag.parse::<ETag>() {
        let unchanged = asked.typed_get::<IfNoneMatch>().is_some_and(|known| !known.precondition_passes(&tag));
        headers.typed_insert(tag);
        if unchanged {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
    }
    if let Ok(kind) = HeaderValue::try_from(&file.media_type) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    if compressed.is_some() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    (headers, compressed.unwrap_or(&file.bytes).clone()).into_response()
}

/// Whether gzip is among the accepted encodings, and not with weight 0.
fn accepts_gzip(asked: &HeaderMap) -> bool {
    let named = asked.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    named.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.trim_end_matches(['0', '.']).is_empty());
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

/// Adds what every answer carries.
fn guarded(parts: &Parts, mut response: Response) -> Response {
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::try_from(content_policy(own_authority(parts).as_ref())) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(OPENER_POLICY, SAME_ORIGIN);
    headers.insert(RESOURCE_POLICY, SAME_ORIGIN);
    response
}

/// Host and port by which the browser asks.
fn own_authority(parts: &Parts) -> Option<Authority> {
    let stated = parts.headers.get(header::HOST).and_then(|value| value.to_str().ok()?.parse().ok());
    let authority: Authority = stated.or_else(|| parts.uri.authority().cloned())?;
    let plain = |letter: char| letter.is_ascii_alphanumeric() || ".-:[]".contains(letter);
    authority.as_str().chars().all(plain).then_some(authority)
}

/// Nothing but the app's own files, the client API of the same origin and its sockets: older browsers don't count
/// these as the origin itself. WebAssembly is compiled; decrypted pictures and films are shown from memory.
fn content_policy(own: Option<&Authority>) -> String {
    let sockets = own.map(|own| format!(" ws://{own} wss://{own}")).unwrap_or_default();
    format!(
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob: data:; \
         media-src blob:; font-src 'self'; connect-src 'self'{sockets}; worker-src 'self'; manifest-src 'self'; \
         frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    )
}
