//! The routes of start-up. The answers are small and true.

use aldis_api::{ApiVersion, HttpError, Json, Path, UserCaller, label};
use aldis_types::{Domain, Strategy};
use axum::{
    extract::State,
    response::{Html, IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    app::App,
    config::{AppVersions, Deeplink, Registration},
};

/// Which versions of the API there are.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ApiVersions {
    supported: Vec<u8>,
    development: [u8; 0],
    /// Whether users of other backends can be reached.
    federation: bool,
    domain: Domain,
}

/// `GET /api-version`.
#[tracing::instrument(name = "http.startup.api_version", level = "debug", skip_all)]
pub(crate) async fn api_version(State(app): State<App>) -> Json<ApiVersions> {
    let supported: Vec<u8> = (ApiVersion::MIN.0..=ApiVersion::MAX.0).collect();
    Json(ApiVersions {
        supported,
        development: [],
        federation: app.config.federation.strategy != Strategy::AllowNone,
        domain: app.domain.clone(),
    })
}

/// `GET /status`: the backend answers.
#[tracing::instrument(name = "http.startup.status", level = "debug", skip_all)]
pub(crate) async fn status() -> StatusCode {
    StatusCode::OK
}

/// Where an app finds this backend.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Deeplink")]
pub(crate) struct DeeplinkJson<'a> {
    endpoints: EndpointsJson<'a>,
    title: &'a str,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Endpoints")]
struct EndpointsJson<'a> {
    #[serde(rename = "backendURL")]
    backend: &'a str,
    #[serde(rename = "backendWSURL")]
    backend_ws: &'a str,
    #[serde(rename = "blackListURL")]
    black_list: &'a str,
    #[serde(rename = "teamsURL")]
    teams: &'a str,
    #[serde(rename = "accountsURL")]
    accounts: &'a str,
    #[serde(rename = "websiteURL")]
    website: &'a str,
}

/// `GET /deeplink.json` and `GET /config.json`: 404 `not-found` when no endpoints are configured.
#[tracing::instrument(name = "http.startup.deeplink", skip_all)]
pub(crate) async fn deeplink(State(app): State<App>) -> Result<Response, HttpError> {
    let link = app.config.deeplink.as_ref().ok_or(label::NOT_FOUND)?;
    let backend = link.backend_url.as_str();
    let black_list = format!("{backend}/clientblacklist");
    let json = DeeplinkJson {
        endpoints: EndpointsJson {
            backend,
            backend_ws: link.backend_ws_url.as_deref().unwrap_or(backend),
            black_list: link.black_list_url.as_deref().unwrap_or(&black_list),
            teams: link.teams_url.as_deref().unwrap_or(backend),
            accounts: link.accounts_url.as_deref().unwrap_or(backend),
            website: link.website_url.as_deref().unwrap_or(backend),
        },
        title: title(&app, link),
    };
    let everybody = HeaderValue::from_static("*");
    Ok(([(header::ACCESS_CONTROL_ALLOW_ORIGIN, everybody)], Json(json)).into_response())
}

/// `GET /deeplink.html`: a page with the link that points an app here.
#[tracing::instrument(name = "http.startup.deeplink_page", skip_all)]
pub(crate) async fn deeplink_page(State(app): State<App>) -> Result<Html<String>, HttpError> {
    let deeplink = app.config.deeplink.as_ref().ok_or(label::NOT_FOUND)?;
    let url = escape(&deeplink.backend_url);
    let title = escape(title(&app, deeplink));
    Ok(Html(format!(
        "<!DOCTYPE html><html><head><meta charset=\"utf-8\"><title>{title}</title></head><body>\
         <a href=\"wire://access/?config={url}/deeplink.json\">Open {title} in the app</a></body></html>"
    )))
}

fn title<'a>(app: &'a App, link: &'a Deeplink) -> &'a str {
    link.title.as_deref().unwrap_or(app.domain.as_str())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn creation_is_restricted(app: &App) -> bool {
    app.config.registration == Registration::Closed
}

/// What an app needs to know before anybody has logged in.
#[derive(Serialize, JsonSchema)]
pub(crate) struct PublicSettings {
    #[serde(rename = "setRestrictUserCreation")]
    restrict_user_creation: bool,
}

/// What an app needs to know.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Settings {
    #[serde(rename = "setRestrictUserCreation")]
    restrict_user_creation: bool,
    #[serde(rename = "setEnableMls")]
    enable_mls: bool,
}

/// `GET /system/settings/unauthorized`.
#[tracing::instrument(name = "http.startup.public_settings", skip_all)]
pub(crate) async fn public_settings(State(app): State<App>) -> Json<PublicSettings> {
    Json(PublicSettings { restrict_user_creation: creation_is_restricted(&app) })
}

/// `GET /system/settings`.
#[tracing::instrument(name = "http.startup.settings", skip_all)]
pub(crate) async fn settings(State(app): State<App>, _: UserCaller) -> Json<Settings> {
    Json(Settings { restrict_user_creation: creation_is_restricted(&app), enable_mls: false })
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct DomainRegistrationBody {
    #[serde(rename = "email")]
    _email: String,
}

/// Where users of an e-mail domain log in.
#[derive(Serialize, JsonSchema)]
pub(crate) struct DomainRegistration {
    domain_redirect: &'static str,
}

/// `POST /get-domain-registration`: no e-mail domain is sent elsewhere.
#[tracing::instrument(name = "http.startup.domain_registration", skip_all)]
pub(crate) async fn domain_registration(Json(_): Json<DomainRegistrationBody>) -> Json<DomainRegistration> {
    Json(DomainRegistration { domain_redirect: "none" })
}

/// Settings of single sign-on: none.
#[derive(Serialize, JsonSchema)]
pub(crate) struct SsoSettings {}

/// `GET /sso/settings`: there is no single sign-on.
#[tracing::instrument(name = "http.startup.sso_settings", skip_all)]
pub(crate) async fn sso_settings() -> Json<SsoSettings> {
    Json(SsoSettings {})
}

/// `HEAD /sso/initiate-login/{code}`: there is no single sign-on.
#[tracing::instrument(name = "http.startup.sso_login", skip_all)]
pub(crate) async fn sso_login() -> HttpError {
    label::NOT_FOUND.into()
}

/// `GET /custom-backend/by-domain/{domain}`: none is registered.
#[tracing::instrument(name = "http.startup.custom_backend", skip_all)]
pub(crate) async fn custom_backend() -> HttpError {
    label::CUSTOM_BACKEND_NOT_FOUND.into()
}

/// What somebody agreed to.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Consent {
    results: [String; 0],
}

/// `GET /self/consent`: nothing is asked for.
#[tracing::instrument(name = "http.startup.consent", skip_all)]
pub(crate) async fn consent(_: UserCaller) -> Json<Consent> {
    Json(Consent { results: [] })
}

/// `PUT /self/consent`: nothing is kept.
#[tracing::instrument(name = "http.startup.put_consent", skip_all)]
pub(crate) async fn put_consent(_: UserCaller) -> StatusCode {
    StatusCode::OK
}

/// What no service has: 404 `no-endpoint`.
pub(crate) async fn no_endpoint() -> HttpError {
    label::NO_ENDPOINT.into()
}

/// A path that exists with another method: 405 `method-not-allowed`.
pub(crate) async fn method_not_allowed() -> HttpError {
    label::METHOD_NOT_ALLOWED.into()
}

/// Versions of an app that are refused.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ClientBlacklist {
    min_version: String,
    exclude: Vec<String>,
}

/// `GET /clientblacklist/{platform}`: versions of the app for `android` or `ios` that may not be used any more.
#[tracing::instrument(name = "http.startup.client_blacklist", level = "debug", skip_all)]
pub(crate) async fn client_blacklist(State(app): State<App>, Path(platform): Path<String>) -> Json<ClientBlacklist> {
    let versions = match platform.as_str() {
        "android" => app.config.blacklist.android.clone(),
        "ios" => app.config.blacklist.ios.clone(),
        _ => AppVersions::default(),
    };
    Json(ClientBlacklist { min_version: versions.min_version, exclude: versions.exclude })
}
