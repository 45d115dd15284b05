//! `/login`, `/access`, `/cookies`.

use aldis_api::{HttpError, Json, Query, UserCaller, caller::access_token, label};
use aldis_types::{ClientId, Timestamp, UserId};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AuthError, Identity, Issued, NewCookie, Presented, passwords::Password, store::CookieRow};
use crate::{app::App, config};

/// Name of the cookie.
const ZUID: &str = "zuid";
/// Cookies of that name that are looked at.
const MAX_PRESENTED: usize = 8;
const MAX_LABEL_BYTES: usize = 1024;
/// Ids or labels in a request to remove cookies.
const MAX_NAMED: usize = 256;

#[derive(Deserialize, JsonSchema)]
pub(crate) struct LoginQuery {
    #[serde(default)]
    persist: bool,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct LoginBody {
    email: Option<String>,
    handle: Option<String>,
    password: Password,
    label: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct AccessQuery {
    client_id: Option<ClientId>,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct CookiesQuery {
    labels: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct RemoveCookiesBody {
    password: Option<Password>,
    #[serde(default)]
    labels: Vec<String>,
    #[serde(default)]
    ids: Vec<u32>,
}

/// What a code could be for.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum CodeAction {
    Login,
    CreateScimToken,
    DeleteTeam,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct SendCodeBody {
    #[serde(rename = "email")]
    _email: String,
    #[serde(rename = "action")]
    _action: CodeAction,
}

/// An access token.
#[derive(Serialize, JsonSchema)]
#[allow(clippy::struct_field_names)]
pub(crate) struct AccessToken {
    user: UserId,
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
}

#[derive(Serialize, JsonSchema)]
struct CookieJson {
    id: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    created: Timestamp,
    expires: Timestamp,
    label: Option<String>,
    successor: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct CookieList {
    cookies: Vec<CookieJson>,
}

/// `Set-Cookie` for a session; `Expires` for persistent ones only.
pub(crate) fn set_cookie(cookie: &NewCookie, config: &config::Cookie) -> Option<HeaderValue> {
    use std::fmt::Write as _;
    let mut text = format!("{ZUID}={}; Path=/access; HttpOnly", cookie.value);
    if config.secure {
        text.push_str("; Secure");
    }
    if let Some(expires) = cookie.expires {
        // Writing to a String cannot fail.
        let _ = write!(text, "; Expires={}", http_date(expires)?);
    }
    if let Some(domain) = &config.domain {
        let _ = write!(text, "; Domain={domain}");
    }
    HeaderValue::try_from(text).ok()
}

fn http_date(time: Timestamp) -> Option<String> {
    let time = jiff::Timestamp::from_millisecond(time.millis()).ok()?;
    jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time).ok()
}

/// A cookie label that clients may choose.
pub(crate) fn cookie_label(label: Option<String>) -> Result<Option<String>, HttpError> {
    match label {
        Some(label) if label.len() > MAX_LABEL_BYTES => {
            Err(HttpError::with_message(label::BAD_REQUEST, "The cookie label is too long"))
        }
        other => Ok(other),
    }
}

fn answer(app: &App, issued: Issued) -> Response {
    let body = Json(AccessToken {
        user: issued.user,
        access_token: issued.access_token,
        token_type: "Bearer",
        expires_in: issued.expires_in,
    });
    let mut response = body.into_response();
    if let Some(value) = issued.cookie.and_then(|cookie| set_cookie(&cookie, &app.config.cookie)) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(crate) fn presented(parts: &Parts) -> Presented {
    let token = access_token(parts).filter(|token| !token.is_empty());
    Presented { cookies: zuid_cookies(&parts.headers), token }
}

fn zuid_cookies(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().strip_prefix(ZUID)?.strip_prefix('='))
        .map(|value| value.trim_matches('"').to_owned())
        .take(MAX_PRESENTED)
        .collect()
}

/// `POST /login`: 403 `invalid-credentials`, `suspended`, `pending-activation`, `client-error` (locked out); 429
/// `client-error`, `too-many-requests`.
#[tracing::instrument(name = "http.auth.login", skip_all)]
pub(crate) async fn login(
    State(app): State<App>,
    Query(query): Query<LoginQuery>,
    Json(body): Json<LoginBody>,
) -> Result<Response, HttpError> {
    let identity = match (body.email, body.handle) {
        (Some(email), _) => email.parse().map_or(Identity::Malformed(email), Identity::Email),
        (None, Some(handle)) => {
            let bare = handle.strip_prefix('@').unwrap_or(&handle).to_lowercase();
            bare.parse().map_or(Identity::Malformed(handle), Identity::Handle)
        }
        (None, None) => return Err(AuthError::NoIdentity.into()),
    };
    let label = cookie_label(body.label)?;
    let issued = app.auth.login(identity, body.password, label, query.persist).await?;
    Ok(answer(&app, issued))
}

/// `POST /access`: 403 `invalid-credentials` with a message that says what is wrong with cookie or token.
#[tracing::instrument(name = "http.auth.access", skip_all)]
pub(crate) async fn access(
    State(app): State<App>,
    Query(query): Query<AccessQuery>,
    parts: Parts,
) -> Result<Response, HttpError> {
    let issued = app.auth.renew(&presented(&parts), query.client_id).await?;
    Ok(answer(&app, issued))
}

/// `POST /access/logout`: 403 as `/access`.
#[tracing::instrument(name = "http.auth.logout", skip_all)]
pub(crate) async fn logout(State(app): State<App>, parts: Parts) -> Result<Response, HttpError> {
    app.auth.logout(&presented(&parts)).await?;
    let gone = NewCookie { value: String::new(), expires: Some(Timestamp::EPOCH) };
    let mut response = StatusCode::OK.into_response();
    if let Some(value) = set_cookie(&gone, &app.config.cookie) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    Ok(response)
}

/// `GET /cookies`, with `labels` only those.
#[tracing::instrument(name = "http.auth.list_cookies", skip_all)]
pub(crate) async fn list_cookies(
    State(app): State<App>,
    caller: UserCaller,
    Query(query): Query<CookiesQuery>,
) -> Result<Json<CookieList>, HttpError> {
    let labels: Option<Vec<&str>> = query.labels.as_deref().map(|labels| labels.split(',').collect());
    let wanted = |cookie: &CookieRow| match &labels {
        None => true,
        Some(labels) => cookie.label.as_deref().is_some_and(|label| labels.contains(&label)),
    };
    let cookies = app.auth.cookies(caller.user).await?;
    let cookies = cookies
        .into_iter()
        .filter(wanted)
        .map(|cookie| CookieJson {
            id: cookie.id,
            kind: if cookie.session { "session" } else { "persistent" },
            created: cookie.created,
            expires: cookie.expires,
            label: cookie.label,
            successor: cookie.successor,
        })
        .collect();
    Ok(Json(CookieList { cookies }))
}

/// `POST /cookies/remove`: ends the sessions of cookies with one of the ids or labels, or all sessions when neither is
/// given. 403 `missing-auth`, `invalid-credentials`.
#[tracing::instrument(name = "http.auth.remove_cookies", skip_all, fields(user.id))]
pub(crate) async fn remove_cookies(
    State(app): State<App>,
    caller: UserCaller,
    Json(body): Json<RemoveCookiesBody>,
) -> Result<StatusCode, HttpError> {
    if body.ids.len() > MAX_NAMED || body.labels.len() > MAX_NAMED {
        return Err(HttpError::with_message(label::BAD_REQUEST, "At most 256 ids and 256 labels are removed at once"));
    }
    app.auth.reauthenticate(caller.user, body.password).await?;
    app.auth.clone().remove_cookies(caller.user, body.ids, body.labels).await?;
    Ok(StatusCode::OK)
}

/// `POST /verification-code/send`: the second factor is not offered, so there is never a code to send.
#[tracing::instrument(name = "http.auth.send_verification_code", skip_all)]
pub(crate) async fn send_verification_code(Json(_): Json<SendCodeBody>) -> StatusCode {
    StatusCode::OK
}
