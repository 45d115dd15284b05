//! `/push/tokens`.

use aldis_api::{HttpError, Json, Path, UserCaller};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;

use super::{PushToken, PushTokens};

#[derive(Serialize, JsonSchema)]
pub(crate) struct TokenList {
    tokens: Vec<PushToken>,
}

/// `GET /push/tokens`: the own tokens, those of all clients.
#[tracing::instrument(name = "http.push_tokens.list", skip_all, fields(user.id))]
pub(crate) async fn list(State(tokens): State<PushTokens>, caller: UserCaller) -> Result<Json<TokenList>, HttpError> {
    Ok(Json(TokenList { tokens: tokens.list(caller.user).await? }))
}

/// `POST /push/tokens`: 201 with the token. 400 `apns-voip-not-supported`, 404 `app-not-found` for an app that the
/// operator did not list, 413 `token-too-long`.
#[tracing::instrument(name = "http.push_tokens.add", skip_all, fields(user.id))]
pub(crate) async fn add(
    State(tokens): State<PushTokens>,
    caller: UserCaller,
    Json(token): Json<PushToken>,
) -> Result<Response, HttpError> {
    tokens.add(caller.user, token.clone()).await?;
    let mut response = (StatusCode::CREATED, Json(&token)).into_response();
    // Visible ASCII, as it was checked.
    if let Ok(location) = HeaderValue::from_str(&token.token) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// `DELETE /push/tokens/{token}`: 204, or 404 `not-found`.
#[tracing::instrument(name = "http.push_tokens.remove", skip_all, fields(user.id))]
pub(crate) async fn remove(
    State(tokens): State<PushTokens>,
    caller: UserCaller,
    Path(token): Path<String>,
) -> Result<StatusCode, HttpError> {
    tokens.remove(caller.user, token).await?;
    Ok(StatusCode::NO_CONTENT)
}
