//! `/calls/config/v2`.

use aldis_api::{HttpError, Json, Query, UserCaller, label};
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ice_servers, sft_servers};
use crate::app::App;

const MAX_LIMIT: usize = 10;

#[derive(Deserialize, JsonSchema)]
pub(crate) struct CallsQuery {
    #[schemars(range(min = 1, max = 10))]
    limit: Option<usize>,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct IceServerJson {
    urls: [String; 1],
    username: String,
    credential: String,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct SftServerJson {
    urls: [String; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
}

/// Servers for calls.
#[derive(Serialize, JsonSchema)]
pub(crate) struct CallsConfig {
    /// Seconds for which it holds.
    ttl: u64,
    ice_servers: Vec<IceServerJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sft_servers: Option<Vec<SftServerJson>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sft_servers_all: Option<Vec<SftServerJson>>,
    /// Whether the SFT servers take part in conferences with those of other backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    is_federating: Option<bool>,
}

/// `GET /calls/config/v2?limit=1..10`: 500 when no TURN server is configured.
#[tracing::instrument(name = "http.calls.get_config", skip_all, fields(user.id))]
pub(crate) async fn get_config(
    State(app): State<App>,
    caller: UserCaller,
    Query(query): Query<CallsQuery>,
) -> Result<Json<CallsConfig>, HttpError> {
    if query.limit.is_some_and(|limit| !(1..=MAX_LIMIT).contains(&limit)) {
        return Err(HttpError::with_message(label::BAD_REQUEST, "The limit is 1 to 10"));
    }
    let config = &app.config.calls;
    let lists = app.servers.now();
    let now = app.clock.now();
    let servers = ice_servers(config, &lists, &app.random, caller.user, now, query.limit);
    if servers.is_empty() {
        return Err(HttpError::with_message(label::SERVER_ERROR, "No TURN server is configured"));
    }
    let ice_servers = servers.into_iter().map(|server| IceServerJson {
        urls: [server.uri.clone()],
        username: server.username,
        credential: server.credential,
    });
    let sft = sft_servers(config, &lists, &app.random, caller.user, now);
    let bare = |url: String| SftServerJson { urls: [url], username: None, credential: None };
    let known = |url: String| SftServerJson {
        urls: [url],
        username: sft.credentials.as_ref().map(|it| it.username.clone()),
        credential: sft.credentials.as_ref().map(|it| it.credential.clone()),
    };
    Ok(Json(CallsConfig {
        ttl: config.ttl_seconds,
        ice_servers: ice_servers.collect(),
        sft_servers: (!sft.some.is_empty()).then(|| sft.some.iter().cloned().map(bare).collect()),
        sft_servers_all: sft.all.as_ref().map(|all| all.iter().cloned().map(known).collect()),
        is_federating: config.sft_federating,
    }))
}
