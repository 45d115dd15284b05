//! `/properties`, `/properties-values`.

use std::collections::BTreeMap;

use aldis_api::{HttpError, Json, Path, UserCaller, extract};
use axum::extract::{Request, State};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use super::{PropertyError, PropertyKey, PropertyValue};
use crate::app::App;

/// `user.properties-set`.
pub(super) fn set_event(key: &PropertyKey, value: &PropertyValue) -> impl Serialize + use<> {
    #[derive(Serialize)]
    struct Event {
        #[serde(rename = "type")]
        kind: &'static str,
        key: String,
        value: Box<RawValue>,
    }

    Event { kind: "user.properties-set", key: key.as_str().to_owned(), value: value.raw().to_owned() }
}

/// `user.properties-delete`, or `user.properties-clear` without a key.
pub(super) fn remove_event(key: Option<&PropertyKey>) -> Value {
    match key {
        Some(key) => json!({ "type": "user.properties-delete", "key": key.as_str() }),
        None => json!({ "type": "user.properties-clear" }),
    }
}

/// `PUT /properties/{key}`: 403 `too-many-properties`, `property-key-too-large`, `property-value-too-large`.
#[tracing::instrument(name = "http.properties.set", skip_all, fields(user.id))]
pub(crate) async fn set(
    State(app): State<App>,
    caller: UserCaller,
    Path(key): Path<String>,
    request: Request,
) -> Result<StatusCode, HttpError> {
    let body = extract::body(request, &app).await?;
    app.properties.set(*caller, PropertyKey::new(key)?, PropertyValue::new(&body)?).await?;
    Ok(StatusCode::OK)
}

/// `GET /properties/{key}`: 404 `not-found`.
#[tracing::instrument(name = "http.properties.get", skip_all, fields(user.id))]
pub(crate) async fn get(
    State(app): State<App>,
    caller: UserCaller,
    Path(key): Path<String>,
) -> Result<Json<Box<RawValue>>, HttpError> {
    let value = app.properties.get(caller.user, PropertyKey::new(key)?).await?;
    Ok(Json(value.ok_or(PropertyError::NotFound)?))
}

/// `GET /properties`: the keys.
#[tracing::instrument(name = "http.properties.list", skip_all, fields(user.id))]
pub(crate) async fn list(State(app): State<App>, caller: UserCaller) -> Result<Json<Vec<String>>, HttpError> {
    Ok(Json(app.properties.all(caller.user).await?.into_keys().collect()))
}

/// `GET /properties-values`: keys and values.
#[tracing::instrument(name = "http.properties.values", skip_all, fields(user.id))]
pub(crate) async fn values(
    State(app): State<App>,
    caller: UserCaller,
) -> Result<Json<BTreeMap<String, Box<RawValue>>>, HttpError> {
    Ok(Json(app.properties.all(caller.user).await?))
}

/// `DELETE /properties/{key}`.
#[tracing::instrument(name = "http.properties.remove", skip_all, fields(user.id))]
pub(crate) async fn remove(
    State(app): State<App>,
    caller: UserCaller,
    Path(key): Path<String>,
) -> Result<StatusCode, HttpError> {
    app.properties.remove(*caller, Some(PropertyKey::new(key)?)).await?;
    Ok(StatusCode::OK)
}

/// `DELETE /properties`.
#[tracing::instrument(name = "http.properties.clear", skip_all, fields(user.id))]
pub(crate) async fn clear(State(app): State<App>, caller: UserCaller) -> Result<StatusCode, HttpError> {
    app.properties.remove(*caller, None).await?;
    Ok(StatusCode::OK)
}
