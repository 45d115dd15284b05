//! Client routes of guest links, which do not exist here: honest answers for apps that ask all the same.

use aldis_api::{HttpError, Json, Path, Query, UserCaller};
use aldis_types::{Access, ConversationId};
use axum::extract::State;
use schemars::JsonSchema;
use serde::Deserialize;

use super::error::GroupError;
use crate::app::App;

impl App {
    /// Whether a member may ask about links of a conversation at all.
    async fn check_links(&self, caller: &UserCaller, id: ConversationId) -> Result<(), GroupError> {
        let conversation = self.find_own_for(caller.user, id).await?;
        if conversation.metadata.access.contains(&Access::Code) { Ok(()) } else { Err(GroupError::AccessDenied) }
    }
}

/// `POST` and `GET /conversations/{id}/code`: 409 `guest-links-disabled`, once the conversation could have one.
#[tracing::instrument(name = "http.groups.link", skip_all, fields(user.id, conversation.id = %id))]
pub(crate) async fn link(State(app): State<App>, caller: UserCaller, Path(id): Path<ConversationId>) -> HttpError {
    match app.check_links(&caller, id).await {
        Ok(()) => GroupError::GuestLinksDisabled.into(),
        Err(error) => error.into(),
    }
}

/// `DELETE /conversations/{id}/code`: there is none, 404 `no-conversation-code`.
#[tracing::instrument(name = "http.groups.remove_link", skip_all, fields(user.id, conversation.id = %id))]
pub(crate) async fn remove_link(
    State(app): State<App>,
    caller: UserCaller,
    Path(id): Path<ConversationId>,
) -> HttpError {
    match app.check_links(&caller, id).await {
        Ok(()) => GroupError::NoConversationCode.into(),
        Err(error) => error.into(),
    }
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Link {
    #[expect(dead_code, reason = "no link is known; the request must be well-formed all the same")]
    key: String,
    #[expect(dead_code, reason = "as the key")]
    code: String,
}

/// `POST /conversations/code-check`, without token: no link is known, 404 `no-conversation-code`.
#[tracing::instrument(name = "http.groups.check_link", skip_all)]
pub(crate) async fn check_link(Json(_): Json<Link>) -> HttpError {
    GroupError::NoConversationCode.into()
}

/// `GET /conversations/join?key=&code=`: 409 `guest-links-disabled`.
#[tracing::instrument(name = "http.groups.linked", skip_all, fields(user.id))]
pub(crate) async fn linked(_: UserCaller, Query(_): Query<Link>) -> HttpError {
    GroupError::GuestLinksDisabled.into()
}

/// `POST /conversations/join`: 409 `guest-links-disabled`.
#[tracing::instrument(name = "http.groups.join_by_link", skip_all, fields(user.id))]
pub(crate) async fn join_by_link(_: UserCaller, Json(_): Json<Link>) -> HttpError {
    GroupError::GuestLinksDisabled.into()
}
