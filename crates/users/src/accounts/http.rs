//! `/register`, `/activate`, `/self`, `/users`, `/handles`, `/list-users`.

use aldis_api::{HttpError, Json, Path, Query, UserCaller, label};
use aldis_types::{AccentId, Domain, Email, Handle, Name, Profile, ProfileAsset, Protocol, Qualified, UserId};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    AccountError, Locale, Registrant,
    activation::{Activated, activation_key},
    json::{ProfilesJson, profile_json, self_json},
    store::ProfileChange,
};
use crate::{
    app::App,
    auth::{
        http::{cookie_label, set_cookie},
        passwords::Password,
    },
};

/// Profiles asked for at once.
const MAX_IDS: usize = 2000;
const MAX_HANDLES: usize = 4;
const MAX_CANDIDATES: usize = 50;
const MAX_FREE: usize = 10;
const MAX_ASSETS: usize = 16;
const MAX_TEXT_CHARS: usize = 256;
const MAX_CODE_BYTES: usize = 64;

#[derive(Deserialize, JsonSchema)]
pub(crate) struct RegisterBody {
    name: String,
    email: Option<String>,
    email_code: Option<String>,
    password: Option<Password>,
    locale: Option<String>,
    accent_id: Option<AccentId>,
    label: Option<String>,
    #[serde(default)]
    assets: Vec<ProfileAsset>,
    supported_protocols: Option<Vec<Protocol>>,
    invitation_code: Option<Value>,
    team_code: Option<Value>,
    team: Option<Value>,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct SendCodeBody {
    email: String,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct ActivateBody {
    email: Option<String>,
    key: Option<String>,
    code: String,
    #[serde(default)]
    dryrun: bool,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct ActivateQuery {
    key: String,
    code: String,
}

/// The address that was activated.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Activated")]
pub(crate) struct ActivatedJson {
    email: Email,
    first: bool,
}

/// What teams note about members; there are no teams.
#[derive(Serialize, JsonSchema)]
pub(crate) struct RichInfo {
    version: u8,
    fields: [String; 0],
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct SelfBody {
    name: Option<String>,
    accent_id: Option<AccentId>,
    assets: Option<Vec<ProfileAsset>>,
    text_status: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct HandleBody {
    handle: String,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct LocaleBody {
    locale: String,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct ProtocolsBody {
    supported_protocols: Vec<Protocol>,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct ListUsersBody {
    qualified_ids: Option<Vec<Qualified<UserId>>>,
    qualified_handles: Option<Vec<QualifiedHandle>>,
}

#[derive(Deserialize, JsonSchema)]
struct QualifiedHandle {
    domain: Domain,
    handle: Handle,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct FreeHandlesBody {
    handles: Vec<String>,
    #[serde(rename = "return", default = "one")]
    wanted: usize,
}

const fn one() -> usize {
    1
}

fn invalid(what: &'static str) -> AccountError {
    AccountError::Invalid(what)
}

fn email(text: &str) -> Result<Email, AccountError> {
    text.parse().map_err(|_| AccountError::InvalidEmail)
}

fn name(text: &str) -> Result<Name, AccountError> {
    text.parse().map_err(|_| invalid("A name has 1 to 128 characters"))
}

fn locale(text: &str) -> Result<Locale, AccountError> {
    text.parse().map_err(|()| invalid("A locale is a language with an optional region, as \"en\" or \"en-GB\""))
}

fn assets(assets: Vec<ProfileAsset>) -> Result<Vec<ProfileAsset>, AccountError> {
    let ok = |asset: &ProfileAsset| (1..=MAX_TEXT_CHARS).contains(&asset.key.len()) && asset.key.is_ascii();
    if assets.len() <= MAX_ASSETS && assets.iter().all(ok) {
        Ok(assets)
    } else {
        Err(invalid("A profile has at most 16 assets with keys of at most 256 characters"))
    }
}

fn protocols(mut protocols: Vec<Protocol>) -> Result<Vec<Protocol>, AccountError> {
    protocols.dedup();
    let known = protocols.iter().all(|protocol| matches!(protocol, Protocol::Proteus | Protocol::Mls));
    if known && (1..=2).contains(&protocols.len()) {
        Ok(protocols)
    } else {
        Err(invalid("The supported protocols are \"proteus\", \"mls\" or both"))
    }
}

/// `POST /register`: 201 with the own profile, a cookie and `Location`. 400 `invalid-email`, `bad-request`,
/// `invalid-invitation-code`; 403 `user-creation-restricted`, `unauthorized`, `ephemeral-user-creation-disabled`; 404
/// `invalid-code`; 409 `key-exists`.
#[tracing::instrument(name = "http.accounts.register", skip_all)]
pub(crate) async fn register(State(app): State<App>, Json(body): Json<RegisterBody>) -> Result<Response, HttpError> {
    if body.invitation_code.is_some() || body.team_code.is_some() {
        return Err(label::INVALID_INVITATION_CODE.into());
    }
    if body.team.is_some() {
        let text = "This backend has no teams";
        return Err(HttpError::with_message(label::USER_CREATION_RESTRICTED, text));
    }
    app.accounts.registration_is_open()?;
    let registrant = Registrant {
        email: email(&body.email.ok_or(AccountError::EmailMissing)?)?,
        name: name(&body.name)?,
        email_code: body.email_code,
        password: body.password.ok_or(invalid("A password is required"))?,
        locale: body.locale.as_deref().map(locale).transpose()?.unwrap_or_default(),
        accent_id: body.accent_id.unwrap_or_default(),
        assets: assets(body.assets)?,
        protocols: protocols(body.supported_protocols.unwrap_or_else(|| vec![Protocol::Proteus]))?,
    };
    let label = cookie_label(body.label)?;
    let account = app.accounts.register(registrant).await?;
    let issued = app.auth.grant(account.id, label, true).await?;
    let mut response = (StatusCode::CREATED, Json(self_json(&account, &app.domain))).into_response();
    let headers = response.headers_mut();
    if let Some(value) = issued.cookie.and_then(|cookie| set_cookie(&cookie, &app.config.cookie)) {
        headers.insert(header::SET_COOKIE, value);
    }
    if let Ok(location) = HeaderValue::try_from(account.id.to_string()) {
        headers.insert(header::LOCATION, location);
    }
    Ok(response)
}

/// `POST /activate/send`: 400 `invalid-email`; 403 `user-creation-restricted`, `unauthorized`; 409 `key-exists`; 429
/// `too-many-requests`.
#[tracing::instrument(name = "http.accounts.send_code", skip_all)]
pub(crate) async fn send_code(State(app): State<App>, Json(body): Json<SendCodeBody>) -> Result<StatusCode, HttpError> {
    app.accounts.send_code(email(&body.email)?).await?;
    Ok(StatusCode::OK)
}

/// `POST /activate`: 200, or 204 when it was done before; 404 `invalid-code`.
#[tracing::instrument(name = "http.accounts.activate", skip_all)]
pub(crate) async fn activate(State(app): State<App>, Json(body): Json<ActivateBody>) -> Result<Response, HttpError> {
    let key = match (body.key, body.email) {
        (Some(key), _) => key,
        (None, Some(address)) => activation_key(&email(&address)?),
        (None, None) => return Err(invalid("A key or an e-mail address is required").into()),
    };
    if body.dryrun {
        let (key, code) = checked_code(key, body.code)?;
        app.accounts.try_code(key, code).await?;
        return Ok(StatusCode::OK.into_response());
    }
    use_code(&app, key, body.code).await
}

/// `GET /activate?key&code`: as `POST /activate`.
#[tracing::instrument(name = "http.accounts.activate_by_link", skip_all)]
pub(crate) async fn activate_by_link(
    State(app): State<App>,
    Query(query): Query<ActivateQuery>,
) -> Result<Response, HttpError> {
    use_code(&app, query.key, query.code).await
}

fn checked_code(key: String, code: String) -> Result<(String, String), AccountError> {
    if key.len() > MAX_CODE_BYTES || code.len() > MAX_CODE_BYTES {
        return Err(AccountError::InvalidCode);
    }
    Ok((key, code))
}

async fn use_code(app: &App, key: String, code: String) -> Result<Response, HttpError> {
    let (key, code) = checked_code(key, code)?;
    match app.accounts.activate(key, code).await? {
        Activated::Now { email, first } => Ok(Json(ActivatedJson { email, first }).into_response()),
        Activated::Before => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

/// `GET /self`.
#[tracing::instrument(name = "http.accounts.get_self", skip_all, fields(user.id))]
pub(crate) async fn get_self(State(app): State<App>, caller: UserCaller) -> Result<Json<Value>, HttpError> {
    let account = app.accounts.own(caller.user).await?;
    Ok(Json(self_json(&account, &app.domain)))
}

/// `PUT /self`. The obsolete `picture` is accepted and stays empty.
#[tracing::instrument(name = "http.accounts.put_self", skip_all, fields(user.id))]
pub(crate) async fn put_self(
    State(app): State<App>,
    caller: UserCaller,
    Json(body): Json<SelfBody>,
) -> Result<StatusCode, HttpError> {
    if body.text_status.as_ref().is_some_and(|text| text.chars().count() > MAX_TEXT_CHARS) {
        return Err(invalid("A status line has at most 256 characters").into());
    }
    let change = ProfileChange {
        name: body.name.as_deref().map(name).transpose()?,
        accent_id: body.accent_id,
        assets: body.assets.map(assets).transpose()?,
        text_status: body.text_status,
        ..ProfileChange::default()
    };
    app.accounts.update(*caller, change).await?;
    Ok(StatusCode::OK)
}

/// `PUT /self/handle`: 400 `invalid-handle`; 403 `no-identity`; 409 `handle-exists`.
#[tracing::instrument(name = "http.accounts.put_handle", skip_all, fields(user.id))]
pub(crate) async fn put_handle(
    State(app): State<App>,
    caller: UserCaller,
    Json(body): Json<HandleBody>,
) -> Result<StatusCode, HttpError> {
    let handle = body.handle.parse().map_err(|_| AccountError::InvalidHandle)?;
    app.accounts.set_handle(*caller, handle).await?;
    Ok(StatusCode::OK)
}

/// `PUT /self/locale`.
#[tracing::instrument(name = "http.accounts.put_locale", skip_all, fields(user.id))]
pub(crate) async fn put_locale(
    State(app): State<App>,
    caller: UserCaller,
    Json(body): Json<LocaleBody>,
) -> Result<StatusCode, HttpError> {
    let change = ProfileChange { locale: Some(locale(&body.locale)?), ..ProfileChange::default() };
    app.accounts.update(*caller, change).await?;
    Ok(StatusCode::OK)
}

/// `HEAD /self/password`: 200 when one is set, else 404.
#[tracing::instrument(name = "http.accounts.has_password", skip_all, fields(user.id))]
pub(crate) async fn has_password(State(app): State<App>, caller: UserCaller) -> Result<StatusCode, HttpError> {
    if app.accounts.has_password(caller.user).await? { Ok(StatusCode::OK) } else { Err(label::NOT_FOUND.into()) }
}

/// `PUT /self/supported-protocols`: 409 `mls-protocol-error` when MLS would be removed.
#[tracing::instrument(name = "http.accounts.put_protocols", skip_all, fields(user.id))]
pub(crate) async fn put_protocols(
    State(app): State<App>,
    caller: UserCaller,
    Json(body): Json<ProtocolsBody>,
) -> Result<StatusCode, HttpError> {
    app.accounts.set_protocols(*caller, protocols(body.supported_protocols)?).await?;
    Ok(StatusCode::OK)
}

async fn profile_of(app: &App, user: Qualified<UserId>) -> Result<Profile, HttpError> {
    Ok(app.accounts.profile(user).await?.ok_or(AccountError::NotFound)?)
}

/// `GET /users/{domain}/{id}`: 404 `not-found`; the federation errors when the user's backend cannot be asked.
#[tracing::instrument(name = "http.accounts.get_user", skip_all, fields(user.domain = %domain))]
pub(crate) async fn get_user(
    State(app): State<App>,
    _: UserCaller,
    Path((domain, id)): Path<(Domain, UserId)>,
) -> Result<Json<Value>, HttpError> {
    Ok(Json(json!(profile_json(&profile_of(&app, Qualified::new(id, domain)).await?))))
}

/// `GET /users/{domain}/{id}/supported-protocols`.
#[tracing::instrument(name = "http.accounts.get_protocols", skip_all, fields(user.domain = %domain))]
pub(crate) async fn get_protocols(
    State(app): State<App>,
    _: UserCaller,
    Path((domain, id)): Path<(Domain, UserId)>,
) -> Result<Json<Vec<Protocol>>, HttpError> {
    Ok(Json(profile_of(&app, Qualified::new(id, domain)).await?.supported_protocols))
}

/// `GET /users/{id}/rich-info`: empty for oneself; 403 `insufficient-permissions` for others, as there are no teams.
#[tracing::instrument(name = "http.accounts.get_rich_info", skip_all)]
pub(crate) async fn get_rich_info(caller: UserCaller, Path(id): Path<UserId>) -> Result<Json<RichInfo>, HttpError> {
    if id == caller.user { Ok(Json(RichInfo { version: 0, fields: [] })) } else { Err(AccountError::NotOwn.into()) }
}

/// `GET /users/by-handle/{domain}/{handle}`: 404 `not-found`; the federation errors.
#[tracing::instrument(name = "http.accounts.get_user_by_handle", skip_all, fields(user.domain = %domain))]
pub(crate) async fn get_user_by_handle(
    State(app): State<App>,
    _: UserCaller,
    Path((domain, handle)): Path<(Domain, String)>,
) -> Result<Json<Value>, HttpError> {
    let handle = handle.parse().map_err(|_| AccountError::NotFound)?;
    let found = app.accounts.profile_by_handle(&domain, &handle).await?;
    Ok(Json(json!(profile_json(&found.ok_or(AccountError::NotFound)?))))
}

/// `POST /list-users` with `qualified_ids` or `qualified_handles`: unknown users are left out, those of backends that
/// cannot be asked are listed in `failed`.
#[tracing::instrument(name = "http.accounts.list_users", skip_all)]
pub(crate) async fn list_users(
    State(app): State<App>,
    _: UserCaller,
    Json(body): Json<ListUsersBody>,
) -> Result<Json<Value>, HttpError> {
    let profiles = match (body.qualified_ids, body.qualified_handles) {
        (Some(ids), None) if ids.len() <= MAX_IDS => app.accounts.profiles(ids).await?,
        (None, Some(handles)) if (1..=MAX_HANDLES).contains(&handles.len()) => {
            let handles = handles.into_iter().map(|handle| Qualified::new(handle.handle, handle.domain)).collect();
            app.accounts.profiles_by_handle(handles).await?
        }
        _ => return Err(invalid("Either qualified_ids (at most 2000) or 1 to 4 qualified_handles are required").into()),
    };
    let failed = (!profiles.failed.is_empty()).then_some(profiles.failed.as_slice());
    Ok(Json(json!(ProfilesJson { found: profiles.found.iter().map(profile_json).collect(), failed })))
}

/// `POST /handles`: which of the handles are free.
#[tracing::instrument(name = "http.accounts.free_handles", skip_all)]
pub(crate) async fn free_handles(
    State(app): State<App>,
    _: UserCaller,
    Json(body): Json<FreeHandlesBody>,
) -> Result<Json<Vec<Handle>>, HttpError> {
    if body.handles.len() > MAX_CANDIDATES || !(1..=MAX_FREE).contains(&body.wanted) {
        return Err(invalid("At most 50 handles are checked, and 1 to 10 returned").into());
    }
    Ok(Json(app.accounts.free_handles(body.handles, body.wanted).await?))
}

/// `HEAD /handles/{handle}`: 200 taken, 404 free, 400 `invalid-handle`.
#[tracing::instrument(name = "http.accounts.check_handle", skip_all)]
pub(crate) async fn check_handle(
    State(app): State<App>,
    _: UserCaller,
    Path(handle): Path<String>,
) -> Result<StatusCode, HttpError> {
    let handle = handle.parse().map_err(|_| AccountError::InvalidHandle)?;
    if app.accounts.handle_is_taken(&handle).await? { Ok(StatusCode::OK) } else { Err(label::NOT_FOUND.into()) }
}
