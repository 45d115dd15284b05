//! `/self/password`, `/password-reset`, `/access/self/email`, `DELETE /self`, `/delete`.

use aldis_api::{HttpError, Json, UserCaller};
use aldis_types::Email;
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, request::Parts};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LifecycleError, deletion::DeletionAsked, passwords::ResetOf};
use crate::{
    app::App,
    auth::{AuthError, http::presented, passwords::Password},
};

/// Longest code or key that is looked at.
const MAX_CODE_BYTES: usize = 64;

#[derive(Deserialize, JsonSchema)]
pub(crate) struct PasswordBody {
    old_password: Option<Password>,
    new_password: Password,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct ResetBody {
    email: String,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct CompleteResetBody {
    email: Option<String>,
    key: Option<String>,
    code: String,
    password: Password,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct EmailBody {
    email: String,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct DeleteSelfBody {
    password: Option<Password>,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct DeleteBody {
    key: String,
    code: String,
}

/// A deletion that waits for its confirmation by mail.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeletionCode")]
pub(crate) struct DeletionJson {
    /// Seconds.
    expires_in: u64,
}

/// The error while a deletion waits for its confirmation.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PendingDeletion")]
pub(crate) struct PendingDeletionJson {
    code: u16,
    label: String,
    message: String,
    /// Seconds.
    expires_in: u64,
}

fn email(text: &str) -> Result<Email, LifecycleError> {
    text.parse().map_err(|_| LifecycleError::InvalidEmail)
}

/// `PUT /self/password`: 400 `bad-request` (too short); 403 `invalid-credentials`; 409 `password-must-differ`.
#[tracing::instrument(name = "http.lifecycle.put_password", skip_all, fields(user.id))]
pub(crate) async fn put_password(
    State(app): State<App>,
    caller: UserCaller,
    Json(body): Json<PasswordBody>,
) -> Result<StatusCode, HttpError> {
    app.lifecycle.change_password(*caller, body.old_password, body.new_password).await?;
    Ok(StatusCode::OK)
}

/// `POST /password-reset`: 201, whether or not anybody has the address; 400 `invalid-email`.
#[tracing::instrument(name = "http.lifecycle.request_reset", skip_all)]
pub(crate) async fn request_reset(
    State(app): State<App>,
    Json(body): Json<ResetBody>,
) -> Result<StatusCode, HttpError> {
    app.lifecycle.request_reset(email(&body.email)?).await?;
    Ok(StatusCode::CREATED)
}

/// `POST /password-reset/complete`: 400 `invalid-code`, `invalid-key`, `invalid-email`, `bad-request` (too short); 409
/// `password-must-differ`.
#[tracing::instrument(name = "http.lifecycle.complete_reset", skip_all)]
pub(crate) async fn complete_reset(
    State(app): State<App>,
    Json(body): Json<CompleteResetBody>,
) -> Result<StatusCode, HttpError> {
    let of = match (body.key, body.email) {
        (Some(key), _) => ResetOf::User(key.parse().map_err(|_| LifecycleError::InvalidKey)?),
        (None, Some(address)) => ResetOf::Email(email(&address)?),
        (None, None) => return Err(LifecycleError::Invalid("A key or an e-mail address is required").into()),
    };
    if body.code.len() > MAX_CODE_BYTES {
        return Err(LifecycleError::WrongResetCode.into());
    }
    app.lifecycle.reset_password(of, &body.code, body.password).await?;
    Ok(StatusCode::OK)
}

/// `PUT /access/self/email`, with cookie and access token: 202 when a code is on its way there, 204 when nothing
/// changes. 400 `invalid-email`; 403 `invalid-credentials` as `/access`, `unauthorized`; 409 `key-exists`; 429
/// `too-many-requests`.
#[tracing::instrument(name = "http.lifecycle.put_email", skip_all, fields(user.id))]
pub(crate) async fn put_email(
    State(app): State<App>,
    caller: UserCaller,
    parts: Parts,
    Json(body): Json<EmailBody>,
) -> Result<StatusCode, HttpError> {
    if app.auth.user_of(&presented(&parts)).await? != caller.user {
        return Err(AuthError::InvalidToken.into());
    }
    let pending = app.lifecycle.change_email(caller.user, email(&body.email)?).await?;
    Ok(if pending { StatusCode::ACCEPTED } else { StatusCode::NO_CONTENT })
}

/// `DELETE /self/email`: 403 `last-identity`, as an account has no other.
#[tracing::instrument(name = "http.lifecycle.remove_email", skip_all)]
pub(crate) async fn remove_email(_: UserCaller) -> HttpError {
    LifecycleError::LastIdentity.into()
}

/// `DELETE /self`: 200 with the password, else 202 with the seconds within which a mail confirms it. 403
/// `invalid-credentials`, `missing-auth`, `pending-delete`.
#[tracing::instrument(name = "http.lifecycle.delete_self", skip_all, fields(user.id))]
pub(crate) async fn delete_self(
    State(app): State<App>,
    caller: UserCaller,
    body: Option<Json<DeleteSelfBody>>,
) -> Result<Response, HttpError> {
    let password = body.and_then(|Json(body)| body.password);
    match app.lifecycle.ask_for_deletion(*caller, password).await? {
        DeletionAsked::Done => Ok(StatusCode::OK.into_response()),
        DeletionAsked::Mailed(within) => {
            Ok((StatusCode::ACCEPTED, Json(DeletionJson { expires_in: within.as_secs() })).into_response())
        }
    }
}

/// `POST /delete`, with what was mailed: 403 `invalid-code`.
#[tracing::instrument(name = "http.lifecycle.confirm_deletion", skip_all)]
pub(crate) async fn confirm_deletion(
    State(app): State<App>,
    Json(body): Json<DeleteBody>,
) -> Result<StatusCode, HttpError> {
    if body.code.len() > MAX_CODE_BYTES {
        return Err(LifecycleError::WrongDeletionCode.into());
    }
    let user = body.key.parse().map_err(|_| LifecycleError::WrongDeletionCode)?;
    app.lifecycle.confirm_deletion(user, &body.code).await?;
    Ok(StatusCode::OK)
}
