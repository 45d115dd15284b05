//! The client route of messages.

use aldis_api::{HttpError, Json, Path, Query, UserCaller, extract, label};
use aldis_types::{ConversationId, Domain, Qualified};
use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    Sent,
    older::{Form, MissingQuery, OlderStatus},
};
use crate::app::App;

/// `POST /conversations/{domain}/{id}/proteus/messages`.
#[tracing::instrument(name = "http.messages.send", skip_all, fields(user.id, conversation.id = %id))]
pub(crate) async fn send(
    State(app): State<App>,
    caller: UserCaller,
    Path((domain, id)): Path<(Domain, ConversationId)>,
    request: Request,
) -> Result<Response, HttpError> {
    if !has_type(&request, "application/x-protobuf") {
        return Err(label::UNSUPPORTED_MEDIA_TYPE.into());
    }
    let body = extract::body(request, &app).await?;
    Ok(match app.send(&caller, Qualified::new(id, domain), body).await? {
        Sent::Accepted(status) => (StatusCode::CREATED, Json(status)).into_response(),
        Sent::Mismatch(status) => (StatusCode::PRECONDITION_FAILED, Json(status)).into_response(),
    })
}

/// `POST /conversations/{id}/otr/messages`: the older form, JSON or protobuf.
#[tracing::instrument(name = "http.messages.send_older", skip_all, fields(user.id, conversation.id = %id))]
pub(crate) async fn send_older(
    State(app): State<App>,
    caller: UserCaller,
    Path(id): Path<ConversationId>,
    Query(query): Query<MissingQuery>,
    request: Request,
) -> Result<Response, HttpError> {
    let form = if has_type(&request, "application/x-protobuf") {
        Form::Protobuf
    } else if has_type(&request, "application/json") {
        Form::Json
    } else {
        return Err(label::UNSUPPORTED_MEDIA_TYPE.into());
    };
    let body = extract::body(request, &app).await?;
    Ok(match app.send_older(&caller, id, &query, form, body).await? {
        Sent::Accepted(status) => (StatusCode::CREATED, Json(OlderStatus::of(status, &app.domain))).into_response(),
        Sent::Mismatch(status) => {
            (StatusCode::PRECONDITION_FAILED, Json(OlderStatus::of(status, &app.domain))).into_response()
        }
    })
}

fn has_type(request: &Request, wanted: &str) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|text| text.split(';').next()).map(str::trim);
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(wanted))
}

/// `POST /broadcast/…`: contacts of a team, and there are no teams.
#[tracing::instrument(name = "http.messages.broadcast", skip_all, fields(user.id))]
pub(crate) async fn broadcast(_: UserCaller) -> HttpError {
    label::NON_BINDING_TEAM.into()
}
