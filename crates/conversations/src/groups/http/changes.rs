//! Client routes that change a conversation, or what its members see of it.

use std::collections::BTreeSet;

use aldis_api::{HttpError, Json, Path, UserCaller};
use aldis_types::{Access, AccessRole, ConversationId, Domain, Member, Qualified, RoleName, UserId};
use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{AddPermission, ConversationPath, qualified};
use crate::{
    app::App,
    groups::{
        error::GroupError,
        json::self_member,
        model::{Action, SettingsUpdate, Typing},
        sorted,
    },
};

/// An event as the answer to a change, or 204.
fn event_or_nothing(event: Option<Vec<u8>>) -> Response {
    match event {
        Some(event) => {
            ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], Bytes::from(event)).into_response()
        }
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct RenameBody {
    name: String,
}

/// `PUT /conversations/{domain}/{id}/name`.
#[tracing::instrument(name = "http.groups.rename", skip_all, fields(user.id, conversation.id))]
pub(crate) async fn rename(
    State(app): State<App>,
    caller: UserCaller,
    path: ConversationPath,
    Json(body): Json<RenameBody>,
) -> Result<Response, HttpError> {
    Ok(event_or_nothing(app.update(&caller, qualified(path), Action::Rename(body.name)).await?))
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewMembers")]
pub(crate) struct AddBody {
    qualified_users: Vec<Qualified<UserId>>,
    conversation_role: Option<RoleName>,
}

impl AddBody {
    fn read(self, app: &App) -> Result<(Vec<Qualified<UserId>>, RoleName), GroupError> {
        let users: BTreeSet<_> = self.qualified_users.into_iter().collect();
        if users.is_empty() {
            return Err(GroupError::BadRequest("qualified_users must not be empty"));
        }
        if users.len() > app.config.max_members {
            return Err(GroupError::TooManyMembers);
        }
        Ok((users.into_iter().collect(), self.conversation_role.unwrap_or_else(RoleName::admin)))
    }
}

/// `POST /conversations/{domain}/{id}/members`.
#[tracing::instrument(name = "http.groups.add_members", skip_all, fields(user.id, conversation.id))]
pub(crate) async fn add_members(
    State(app): State<App>,
    caller: UserCaller,
    path: ConversationPath,
    Json(body): Json<AddBody>,
) -> Result<Response, HttpError> {
    let (users, role) = body.read(&app)?;
    let action = Action::AddMembers { users, role };
    Ok(event_or_nothing(app.update(&caller, qualified(path), action).await?))
}

/// `PUT /conversations/{domain}/{id}/members`, from version 13 on: the list of everybody else.
#[tracing::instrument(name = "http.groups.replace_members", skip_all, fields(user.id, conversation.id))]
pub(crate) async fn replace_members(
    State(app): State<App>,
    caller: UserCaller,
    path: ConversationPath,
    Json(body): Json<AddBody>,
) -> Result<StatusCode, HttpError> {
    let (users, role) = body.read(&app)?;
    app.update(&caller, qualified(path), Action::ReplaceMembers { users, role }).await?;
    Ok(StatusCode::OK)
}

type MemberPath = Path<(Domain, ConversationId, Domain, UserId)>;

/// `DELETE /conversations/{domain}/{id}/members/{domain}/{user}`.
#[tracing::instrument(name = "http.groups.remove_member", skip_all, fields(user.id, conversation.id = %id))]
pub(crate) async fn remove_member(
    State(app): State<App>,
    caller: UserCaller,
    Path((domain, id, user_domain, user)): MemberPath,
) -> Result<Response, HttpError> {
    let action = Action::RemoveMembers(vec![Qualified::new(user, user_domain)]);
    Ok(event_or_nothing(app.update(&caller, Qualified::new(id, domain), action).await?))
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct RoleBody {
    conversation_role: RoleName,
}

/// `PUT /conversations/{domain}/{id}/members/{domain}/{user}`.
#[tracing::instrument(name = "http.groups.set_role", skip_all, fields(user.id, conversation.id = %id))]
pub(crate) async fn set_role(
    State(app): State<App>,
    caller: UserCaller,
    Path((domain, id, user_domain, user)): MemberPath,
    Json(body): Json<RoleBody>,
) -> Result<StatusCode, HttpError> {
    let member = Member { user: Qualified::new(user, user_domain), role: body.conversation_role };
    app.update(&caller, Qualified::new(id, domain), Action::SetMemberRole(member)).await?;
    Ok(StatusCode::OK)
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct TimerBody {
    message_timer: Option<i64>,
}

/// `PUT /conversations/{domain}/{id}/message-timer`.
#[tracing::instrument(name = "http.groups.set_message_timer", skip_all, fields(user.id, conversation.id))]
pub(crate) async fn set_message_timer(
    State(app): State<App>,
    caller: UserCaller,
    path: ConversationPath,
    Json(body): Json<TimerBody>,
) -> Result<Response, HttpError> {
    let action = Action::SetMessageTimer(body.message_timer);
    Ok(event_or_nothing(app.update(&caller, qualified(path), action).await?))
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct ReceiptBody {
    receipt_mode: i32,
}

/// `PUT /conversations/{domain}/{id}/receipt-mode`.
#[tracing::instrument(name = "http.groups.set_receipt_mode", skip_all, fields(user.id, conversation.id))]
pub(crate) async fn set_receipt_mode(
    State(app): State<App>,
    caller: UserCaller,
    path: ConversationPath,
    Json(body): Json<ReceiptBody>,
) -> Result<Response, HttpError> {
    let action = Action::SetReceiptMode(body.receipt_mode);
    Ok(event_or_nothing(app.update(&caller, qualified(path), action).await?))
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct AccessBody {
    access: Vec<Access>,
    access_role: Vec<AccessRole>,
}

/// `PUT /conversations/{domain}/{id}/access`.
#[tracing::instrument(name = "http.groups.set_access", skip_all, fields(user.id, conversation.id))]
pub(crate) async fn set_access(
    State(app): State<App>,
    caller: UserCaller,
    path: ConversationPath,
    Json(body): Json<AccessBody>,
) -> Result<Response, HttpError> {
    let action = Action::SetAccess { access: sorted(&body.access), roles: sorted(&body.access_role) };
    Ok(event_or_nothing(app.update(&caller, qualified(path), action).await?))
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "MemberSettings")]
pub(crate) struct SettingsBody {
    otr_muted_status: Option<i32>,
    otr_muted_ref: Option<String>,
    otr_archived: Option<bool>,
    otr_archived_ref: Option<String>,
    hidden: Option<bool>,
    hidden_ref: Option<String>,
}

/// `PUT /conversations/{domain}/{id}/self`.
#[tracing::instrument(name = "http.groups.update_settings", skip_all, fields(user.id, conversation.id))]
pub(crate) async fn update_settings(
    State(app): State<App>,
    caller: UserCaller,
    path: ConversationPath,
    Json(body): Json<SettingsBody>,
) -> Result<StatusCode, HttpError> {
    let update = SettingsUpdate {
        muted_status: body.otr_muted_status,
        muted_ref: body.otr_muted_ref,
        archived: body.otr_archived,
        archived_ref: body.otr_archived_ref,
        hidden: body.hidden,
        hidden_ref: body.hidden_ref,
    };
    app.update_settings(&caller, qualified(path), update).await?;
    Ok(StatusCode::OK)
}

/// `GET /conversations/{domain}/{id}/self`.
#[tracing::instrument(name = "http.groups.self_member", skip_all, fields(user.id, conversation.id))]
pub(crate) async fn get_self_member(
    State(app): State<App>,
    caller: UserCaller,
    path: ConversationPath,
) -> Result<Response, HttpError> {
    let found = app.self_member(caller.user, qualified(path)).await?;
    Ok(Json(found.as_ref().map(|(member, settings)| self_member(member, settings))).into_response())
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct TypingBody {
    status: Typing,
}

/// `POST /conversations/{domain}/{id}/typing`.
#[tracing::instrument(name = "http.groups.typing", skip_all, fields(user.id, conversation.id))]
pub(crate) async fn typing(
    State(app): State<App>,
    caller: UserCaller,
    path: ConversationPath,
    Json(body): Json<TypingBody>,
) -> Result<StatusCode, HttpError> {
    app.typing(&caller, qualified(path), body.status).await?;
    Ok(StatusCode::OK)
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct AddPermissionBody {
    #[expect(dead_code, reason = "no conversation has one; the request must be well-formed all the same")]
    add_permission: AddPermission,
}

/// `PUT /conversations/{domain}/{id}/add-permission`: only channels have one, 403 `invalid-op`.
#[tracing::instrument(name = "http.groups.set_add_permission", skip_all, fields(user.id, conversation.id))]
pub(crate) async fn set_add_permission(
    State(app): State<App>,
    caller: UserCaller,
    path: ConversationPath,
    Json(_): Json<AddPermissionBody>,
) -> HttpError {
    match app.get(caller.user, qualified(path)).await {
        Ok(_) => GroupError::InvalidOp.into(),
        Err(error) => error.into(),
    }
}
