//! `/calls/config/v2`.

use aldis_api::{HttpError, Json, Query, UserCaller, label};
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ice_servers;
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
    let servers = ice_servers(config, &app.random, caller.user, app.clock.now(), query.limit);
    if servers.is_empty() {
        return Err(HttpError::with_message(label::SERVER_ERROR, "No TURN server is configured"));
    }
    let ice_servers = servers.into_iter().map(|server| IceServerJson {
        urls: [server.uri.clone()],
        username: server.username,
        credential: server.credential,
    });
    let sft = |count: usize| {
        let servers = config.sft_urls.iter().take(count).map(|url| SftServerJson { urls: [url.clone()] });
        (!config.sft_urls.is_empty()).then(|| servers.collect())
    };
    Ok(Json(CallsConfig {
        ttl: config.ttl_seconds,
        ice_servers: ice_servers.collect(),
        sft_servers: sft(1),
        sft_servers_all: sft(usize::MAX),
    }))
}
