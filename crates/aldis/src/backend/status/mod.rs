//! The operator's status page: what this process knows of itself and of other backends.
//!
//! The page is static; it asks for `/status.json` again and again. It loads nothing from anywhere else, and shows what
//! others say as text only.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use aldis_delivery::{Backlog, Component};
use aldis_peers::Policy;
use aldis_proto::{
    channel::Channel,
    internal::v1::{ListPeersRequest, PeerState, peer_states_client::PeerStatesClient},
};
use aldis_runtime::{SharedClock, operations::Health};
use aldis_storage::Db;
use aldis_types::{Domain, RemoteState, Timestamp};
use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::header;
use serde_json::{Value, json};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

/// How long other parts may take to say what they know.
const PATIENCE: Duration = Duration::from_secs(2);
/// For how long the backlog is not counted again.
const COUNTED: Duration = Duration::from_secs(2);
/// Nothing but our own files; nobody may put the page into a frame.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                              base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");
const STYLE: &str = include_str!("page.css");
const ICON: &str = include_str!("icon.svg");

/// Where a process learns what its page shows.
#[derive(Default)]
pub(in crate::backend) struct Sources {
    /// What the federator knows of peers.
    pub(in crate::backend) peers: Option<Channel>,
    /// The federator, where it is in this process.
    pub(in crate::backend) federator: Option<aldis_federator::Health>,
    /// The store, and whose outboxes in it are this process's.
    pub(in crate::backend) outboxes: Option<(Db, &'static [Component])>,
}

/// The whole of what is shown.
pub(super) struct Page {
    pub(super) domain: Domain,
    /// `aldis-all`, `aldis-users`, and so on.
    pub(super) process: String,
    pub(super) clock: SharedClock,
    pub(super) started: Timestamp,
    pub(super) health: Health,
    pub(super) policy: Policy,
    pub(super) sources: Sources,
}

struct App {
    page: Page,
    counted: Mutex<Option<(Instant, Vec<Backlog>)>>,
}

/// The routes.
pub(super) fn router(page: Page) -> Router {
    let file = |kind: &'static str, text: &'static str| get(move || async move { answer(kind, text) });
    Router::new()
        .route("/", file("text/html; charset=utf-8", PAGE))
        .route("/status", file("text/html; charset=utf-8", PAGE))
        .route("/status.js", file("text/javascript; charset=utf-8", SCRIPT))
        .route("/status.css", file("text/css; charset=utf-8", STYLE))
        .route("/status.svg", file("image/svg+xml", ICON))
        .route("/status.json", get(status))
        .with_state(Arc::new(App { page, counted: Mutex::default() }))
}

fn answer(kind: &'static str, body: impl IntoResponse) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, body).into_response()
}

async fn status(State(app): State<Arc<App>>) -> Response {
    answer("application/json", Json(app.status().await))
}

impl App {
    async fn status(&self) -> Value {
        let page = &self.page;
        let now = page.clock.now();
        let (health, peers, backlog) = tokio::join!(page.health.report(), self.peers(), self.backlog());
        let policy = page.policy.current();
        let mut domains: BTreeSet<String> = policy.remotes.keys().map(ToString::to_string).collect();
        domains.extend(peers.iter().flatten().map(|peer| peer.domain.clone()));
        domains.extend(backlog.iter().flatten().map(|part| part.domain.to_string()));
        let remotes: Vec<Value> = domains
            .iter()
            .map(|domain| {
                let remote =
                    policy.remotes.iter().find(|(listed, _)| listed.as_str() == domain).map(|(_, remote)| remote);
                let peer = peers.iter().flatten().find(|peer| peer.domain == *domain);
                json!({
                    "domain": domain,
                    "state": remote.map_or("unlisted", |remote| state_name(remote.state)),
                    "search_policy": remote.map(|remote| remote.search_policy),
                    "peer": peer.map(|peer| peer_json(peer, now)),
                    "backlog": backlog.as_ref().map(|parts| backlog_json(parts, domain, now)),
                })
            })
            .collect();
        let certificate = page.sources.federator.as_ref().and_then(|federator| {
            let facts = federator.certificate()?;
            let mut value = serde_json::to_value(&facts).ok()?;
            value["days_left"] = federator.certificate_days_left().into();
            Some(value)
        });
        json!({
            "domain": page.domain,
            "process": page.process,
            "version": env!("CARGO_PKG_VERSION"),
            "time": now.millis(),
            "started": page.started.millis(),
            "health": health,
            "strategy": (policy.version > 0).then_some(policy.strategy),
            "knows": {
                "peers": peers.is_some(),
                "certificate": page.sources.federator.is_some(),
                "backlog": self.components().iter().map(|component| component.as_str()).collect::<Vec<_>>(),
            },
            "certificate": certificate,
            "remotes": remotes,
        })
    }

    /// `None` when the federator does not answer, or there is none.
    async fn peers(&self) -> Option<Vec<PeerState>> {
        let mut client = PeerStatesClient::new(self.page.sources.peers.clone()?);
        let answer = timeout(PATIENCE, client.list_peers(ListPeersRequest::default())).await.ok()?.ok()?;
        Some(answer.into_inner().peers)
    }

    fn components(&self) -> &'static [Component] {
        self.page.sources.outboxes.as_ref().map_or(&[], |(_, components)| components)
    }

    /// `None` where no outbox is this process's.
    async fn backlog(&self) -> Option<Vec<Backlog>> {
        let (db, components) = self.page.sources.outboxes.as_ref()?;
        let mut counted = self.counted.lock().await;
        if let Some((_, backlog)) = counted.as_ref().filter(|(when, _)| when.elapsed() < COUNTED) {
            return Some(backlog.clone());
        }
        let mut all = Vec::new();
        for component in *components {
            all.extend(aldis_delivery::backlog(db, *component).await.ok()?);
        }
        *counted = Some((Instant::now(), all.clone()));
        Some(all)
    }
}

fn state_name(state: RemoteState) -> &'static str {
    match state {
        RemoteState::Active => "active",
        RemoteState::Suspended => "suspended",
        RemoteState::Ended => "ended",
    }
}

const DAY_MILLIS: i64 = 24 * 3_600 * 1_000;

fn peer_json(peer: &PeerState, now: Timestamp) -> Value {
    let told = |millis: i64| (millis > 0).then_some(millis);
    json!({
        "connected": peer.connected,
        "connected_since": told(peer.connected_since),
        "reachable": peer.reachable,
        "reachable_since": told(peer.reachable_since),
        "latency_ms": peer.latency_micros.map(|micros| f64::from(micros) / 1_000.0),
        "last_answer": told(peer.last_answer),
        "last_error": peer.last_error,
        "last_error_time": told(peer.last_error_time),
        "breaker": peer.breaker,
        "build": peer.build,
        "certificate_days_left": told(peer.certificate_expiry).map(|expiry| (expiry - now.millis()).div_euclid(DAY_MILLIS)),
    })
}

#[allow(clippy::cast_precision_loss)]
fn backlog_json(parts: &[Backlog], domain: &str, now: Timestamp) -> Value {
    let parts = parts.iter().filter(|part| part.domain.as_str() == domain);
    let (mut events, mut oldest) = (0, now);
    let (mut dead, mut dropped, mut marked, mut paused) = (0, 0, 0, false);
    for part in parts {
        events += part.events;
        oldest = oldest.min(part.oldest.unwrap_or(now));
        dead += part.dead;
        dropped += part.dropped;
        marked += part.marked;
        paused |= part.paused.is_some();
    }
    json!({
        "events": events,
        "oldest_seconds": now.since(oldest).as_millis() as f64 / 1_000.0,
        "dead_letters": dead,
        "dropped": dropped,
        "marked_lanes": marked,
        "paused": paused,
    })
}
