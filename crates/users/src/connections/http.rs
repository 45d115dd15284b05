//! `/connections`, `/list-connections`.

use aldis_api::{HttpError, Json, Path, UserCaller};
use aldis_types::{Domain, Qualified, Relation, UserId};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    ConnectionError,
    events::{ConnectionJson, connection_json},
};
use crate::app::App;

const DEFAULT_SIZE: usize = 100;
const MAX_SIZE: usize = 500;

#[derive(Deserialize, JsonSchema)]
pub(crate) struct UpdateBody {
    status: Relation,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct ListBody {
    #[schemars(range(min = 1, max = 500))]
    size: Option<usize>,
    paging_state: Option<String>,
}

/// Some connections, and where to go on.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ConnectionPage {
    connections: Vec<ConnectionJson>,
    has_more: bool,
    paging_state: String,
}

/// `POST /connections/{domain}/{id}`: 201, or 200 when there was a connection. 400 `invalid-user`; 403 `no-identity`,
/// `bad-conn-update`, `connection-limit`, `team-not-federating`; the federation errors, which change nothing.
#[tracing::instrument(name = "http.connections.connect", skip_all, fields(user.id, other.domain = %domain))]
pub(crate) async fn connect(
    State(app): State<App>,
    caller: UserCaller,
    Path((domain, id)): Path<(Domain, UserId)>,
) -> Result<Response, HttpError> {
    let connected = app.connections.connect(*caller, Qualified::new(id, domain)).await?;
    let status = if connected.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(connection_json(caller.user, &connected.row, &app.domain))).into_response())
}

/// `PUT /connections/{domain}/{id}` with the wanted status: 200, or 204 when nothing changes. 403 `not-connected`,
/// `bad-conn-update`; for accepting also as `POST`.
#[tracing::instrument(name = "http.connections.update", skip_all, fields(user.id, other.domain = %domain))]
pub(crate) async fn update(
    State(app): State<App>,
    caller: UserCaller,
    Path((domain, id)): Path<(Domain, UserId)>,
    Json(body): Json<UpdateBody>,
) -> Result<Response, HttpError> {
    match app.connections.update(*caller, Qualified::new(id, domain), body.status).await? {
        Some(row) => Ok(Json(connection_json(caller.user, &row, &app.domain)).into_response()),
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

/// `GET /connections/{domain}/{id}`: 404 `not-found`.
#[tracing::instrument(name = "http.connections.get", skip_all, fields(user.id, other.domain = %domain))]
pub(crate) async fn get(
    State(app): State<App>,
    caller: UserCaller,
    Path((domain, id)): Path<(Domain, UserId)>,
) -> Result<Json<ConnectionJson>, HttpError> {
    let row = app.connections.get(caller.user, &Qualified::new(id, domain)).await?;
    Ok(Json(connection_json(caller.user, &row, &app.domain)))
}

/// `POST /list-connections`: a page at a time.
#[tracing::instrument(name = "http.connections.list", skip_all, fields(user.id))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: UserCaller,
    Json(body): Json<ListBody>,
) -> Result<Json<ConnectionPage>, HttpError> {
    let size = body.size.unwrap_or(DEFAULT_SIZE);
    if !(1..=MAX_SIZE).contains(&size) {
        return Err(ConnectionError::Invalid("The size is 1 to 500").into());
    }
    let after = body.paging_state.as_deref().filter(|state| !state.is_empty()).map(from_paging_state).transpose()?;
    let rows = app.connections.store().list(caller.user, after.clone(), size + 1).await;
    let mut rows = rows.map_err(ConnectionError::from)?;
    let has_more = rows.len() > size;
    rows.truncate(size);
    let last = rows.last().map(|row| row.other.clone()).or(after);
    let connections = rows.iter().map(|row| connection_json(caller.user, row, &app.domain)).collect();
    let paging_state = last.as_ref().map(paging_state).unwrap_or_default();
    Ok(Json(ConnectionPage { connections, has_more, paging_state }))
}

/// The last connection of a page, opaque to clients.
fn paging_state(last: &Qualified<UserId>) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}@{}", last.id, last.domain))
}

fn from_paging_state(state: &str) -> Result<Qualified<UserId>, ConnectionError> {
    let invalid = || ConnectionError::Invalid("The paging state is not one of ours");
    let text =
        URL_SAFE_NO_PAD.decode(state).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(invalid)?;
    let (id, domain) = text.split_once('@').ok_or_else(invalid)?;
    Ok(Qualified::new(id.parse().map_err(|_| invalid())?, domain.parse().map_err(|_| invalid())?))
}
