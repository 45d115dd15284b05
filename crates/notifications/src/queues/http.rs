//! `/notifications` and `/time`. Events are put into answers byte by byte as they were stored.

use aldis_api::{HttpError, Json, Path, Query, UserCaller};
use aldis_runtime::SharedClock;
use aldis_types::{ClientId, NotificationId, Timestamp};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    QueueError, Queues,
    store::{Page, Stored},
};
use crate::activity::Activity;

#[derive(Deserialize, JsonSchema)]
pub(crate) struct ListQuery {
    client: Option<ClientId>,
    since: Option<String>,
    #[schemars(range(min = 100, max = 10_000))]
    size: Option<u32>,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct ClientQuery {
    client: Option<ClientId>,
}

/// What [`render`] writes.
#[derive(JsonSchema)]
#[allow(dead_code)] // the events are put in as they are, not by serde
pub(crate) struct Notification {
    id: NotificationId,
    /// Events, which name their kind in `type`.
    payload: Vec<Map<String, Value>>,
}

/// What [`render_page`] writes.
#[derive(JsonSchema)]
#[allow(dead_code, clippy::struct_field_names)]
pub(crate) struct Notifications {
    notifications: Vec<Notification>,
    has_more: bool,
    time: Timestamp,
}

/// `GET /notifications`: 400 `bad-request` for a page size or `since` of the wrong form, 404 `not-found` for a `since`
/// that is not, or no longer, in the queue.
#[tracing::instrument(name = "http.queues.list", skip_all, fields(user.id))]
pub(crate) async fn list(
    State(queues): State<Queues>,
    State(clock): State<SharedClock>,
    State(activity): State<Activity>,
    caller: UserCaller,
    Query(query): Query<ListQuery>,
) -> Result<Response, HttpError> {
    let since = query.since.map(|since| since.parse()).transpose().map_err(|_| QueueError::Since)?;
    let page = queues.page(caller.user, query.client, since, query.size).await?;
    if let Some(client) = query.client.or(caller.client) {
        activity.heard_of(caller.user, client);
    }
    Ok(json(render_page(&page, clock.now())))
}

/// `GET /notifications/last`: 404 `not-found` when the queue is empty.
#[tracing::instrument(name = "http.queues.last", skip_all, fields(user.id))]
pub(crate) async fn last(
    State(queues): State<Queues>,
    caller: UserCaller,
    Query(query): Query<ClientQuery>,
) -> Result<Response, HttpError> {
    Ok(json(render(&queues.last(caller.user, query.client).await?)))
}

/// `GET /notifications/{id}`: 404 `not-found`.
#[tracing::instrument(name = "http.queues.get", skip_all, fields(user.id))]
pub(crate) async fn get(
    State(queues): State<Queues>,
    caller: UserCaller,
    Path(id): Path<NotificationId>,
    Query(query): Query<ClientQuery>,
) -> Result<Response, HttpError> {
    Ok(json(render(&queues.get(caller.user, query.client, id).await?)))
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct Time {
    time: Timestamp,
}

/// `GET /time`.
#[tracing::instrument(name = "http.queues.time", skip_all, fields(user.id))]
pub(crate) async fn time(State(clock): State<SharedClock>, _caller: UserCaller) -> Json<Time> {
    Json(Time { time: clock.now() })
}

fn json(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

/// Bytes around an event, with room to spare.
const AROUND: usize = 96;

pub(crate) fn write(body: &mut Vec<u8>, stored: &Stored) {
    body.extend_from_slice(br#"{"id":""#);
    let mut id = [0; uuid::fmt::Hyphenated::LENGTH];
    body.extend_from_slice(stored.id.uuid().hyphenated().encode_lower(&mut id).as_bytes());
    body.extend_from_slice(br#"","payload":["#);
    body.extend_from_slice(&stored.event);
    body.extend_from_slice(b"]}");
}

pub(super) fn render(stored: &Stored) -> Vec<u8> {
    let mut body = Vec::with_capacity(stored.event.len() + AROUND);
    write(&mut body, stored);
    body
}

pub(super) fn render_page(page: &Page, now: Timestamp) -> Vec<u8> {
    let events: usize = page.notifications.iter().map(|stored| stored.event.len() + AROUND).sum();
    let mut body = Vec::with_capacity(events + AROUND);
    body.extend_from_slice(br#"{"notifications":["#);
    for (index, stored) in page.notifications.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        write(&mut body, stored);
    }
    body.extend_from_slice(format!(r#"],"has_more":{},"time":"{now}"}}"#, page.has_more).as_bytes());
    body
}
