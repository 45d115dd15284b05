//! `/calls/config/v2`.

use aldis_api::{HttpError, Json, Query, UserCaller, label};
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ice_servers;
use crate::app::App;

const MAX_LIMIT: usize = 10;

#[derive(Deserialize)]
pub(crate) struct CallsQuery {
    limit: Option<usize>,
}

/// `GET /calls/config/v2?limit=1..10`: 500 when no TURN server is configured.
#[tracing::instrument(name = "http.calls.get_config", skip_all, fields(user.id))]
pub(crate) async fn get_config(
    State(app): State<App>,
    caller: UserCaller,
    Query(query): Query<CallsQuery>,
) -> Result<Json<Value>, HttpError> {
    if query.limit.is_some_and(|limit| !(1..=MAX_LIMIT).contains(&limit)) {
        return Err(HttpError::with_message(label::BAD_REQUEST, "The limit is 1 to 10"));
    }
    let config = &app.config.calls;
    let servers = ice_servers(config, &app.random, caller.user, app.clock.now(), query.limit);
    if servers.is_empty() {
        return Err(HttpError::with_message(label::SERVER_ERROR, "No TURN server is configured"));
    }
    let servers: Vec<_> = servers
        .into_iter()
        .map(|server| json!({ "urls": [server.uri], "username": server.username, "credential": server.credential }))
        .collect();
    let mut answer = json!({ "ttl": config.ttl_seconds, "ice_servers": servers });
    if !config.sft_urls.is_empty() {
        let servers: Vec<_> = config.sft_urls.iter().map(|url| json!({ "urls": [url] })).collect();
        answer["sft_servers"] = json!(servers[..1]);
        answer["sft_servers_all"] = json!(servers);
    }
    Ok(Json(answer))
}
