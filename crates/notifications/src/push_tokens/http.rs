//! `/push/tokens`, answered as a backend without push configuration does.

use aldis_api::{Json, Label, UserCaller, label};
use serde_json::{Value, json};

/// `GET /push/tokens`: always empty.
#[tracing::instrument(name = "http.push_tokens.list", skip_all, fields(user.id))]
pub(crate) async fn list(_caller: UserCaller) -> Json<Value> {
    Json(json!({ "tokens": [] }))
}

/// `POST /push/tokens`: 404 `app-not-found`.
#[tracing::instrument(name = "http.push_tokens.add", skip_all, fields(user.id))]
pub(crate) async fn add(_caller: UserCaller) -> Label {
    label::APP_NOT_FOUND
}

/// `DELETE /push/tokens/{token}`: 404 `not-found`.
#[tracing::instrument(name = "http.push_tokens.remove", skip_all, fields(user.id))]
pub(crate) async fn remove(_caller: UserCaller) -> Label {
    label::NOT_FOUND
}
