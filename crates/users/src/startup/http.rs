//! The routes of start-up. The answers are small and true.

use aldis_api::{ApiVersion, HttpError, Json, UserCaller, label};
use aldis_types::Strategy;
use axum::{
    extract::State,
    response::{Html, IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{app::App, config::Registration};

/// `GET /api-version`.
#[tracing::instrument(name = "http.startup.api_version", level = "debug", skip_all)]
pub(crate) async fn api_version(State(app): State<App>) -> Json<Value> {
    let supported: Vec<u8> = (ApiVersion::MIN.0..=ApiVersion::MAX.0).collect();
    Json(json!({
        "supported": supported,
        "development": [],
        "federation": app.config.federation.strategy != Strategy::AllowNone,
        "domain": app.domain,
    }))
}

/// `GET /status`: the backend answers.
#[tracing::instrument(name = "http.startup.status", level = "debug", skip_all)]
pub(crate) async fn status() -> StatusCode {
    StatusCode::OK
}

/// `GET /deeplink.json` and `GET /config.json`: 404 `not-found` when no endpoints are configured.
#[tracing::instrument(name = "http.startup.deeplink", skip_all)]
pub(crate) async fn deeplink(State(app): State<App>) -> Result<Response, HttpError> {
    let deeplink = app.config.deeplink.as_ref().ok_or(label::NOT_FOUND)?;
    let json = json!({
        "endpoints": {
            "backendURL": deeplink.backend_url,
            "backendWSURL": deeplink.backend_ws_url,
            "blackListURL": deeplink.black_list_url,
            "teamsURL": deeplink.teams_url,
            "accountsURL": deeplink.accounts_url,
            "websiteURL": deeplink.website_url,
        },
        "title": deeplink.title,
    });
    let everybody = HeaderValue::from_static("*");
    Ok(([(header::ACCESS_CONTROL_ALLOW_ORIGIN, everybody)], Json(json)).into_response())
}

/// `GET /deeplink.html`: a page with the link that points an app here.
#[tracing::instrument(name = "http.startup.deeplink_page", skip_all)]
pub(crate) async fn deeplink_page(State(app): State<App>) -> Result<Html<String>, HttpError> {
    let deeplink = app.config.deeplink.as_ref().ok_or(label::NOT_FOUND)?;
    let url = escape(&deeplink.backend_url);
    let title = escape(&deeplink.title);
    Ok(Html(format!(
        "<!DOCTYPE html><html><head><meta charset=\"utf-8\"><title>{title}</title></head><body>\
         <a href=\"wire://access/?config={url}/deeplink.json\">Open {title} in the app</a></body></html>"
    )))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn creation_is_restricted(app: &App) -> bool {
    app.config.registration == Registration::Closed
}

/// `GET /system/settings/unauthorized`.
#[tracing::instrument(name = "http.startup.public_settings", skip_all)]
pub(crate) async fn public_settings(State(app): State<App>) -> Json<Value> {
    Json(json!({ "setRestrictUserCreation": creation_is_restricted(&app) }))
}

/// `GET /system/settings`.
#[tracing::instrument(name = "http.startup.settings", skip_all)]
pub(crate) async fn settings(State(app): State<App>, _: UserCaller) -> Json<Value> {
    Json(json!({ "setRestrictUserCreation": creation_is_restricted(&app), "setEnableMls": false }))
}

#[derive(Deserialize)]
pub(crate) struct DomainRegistrationBody {
    #[serde(rename = "email")]
    _email: String,
}

/// `POST /get-domain-registration`: no e-mail domain is sent elsewhere.
#[tracing::instrument(name = "http.startup.domain_registration", skip_all)]
pub(crate) async fn domain_registration(Json(_): Json<DomainRegistrationBody>) -> Json<Value> {
    Json(json!({ "domain_redirect": "none" }))
}

/// `GET /sso/settings`: there is no single sign-on.
#[tracing::instrument(name = "http.startup.sso_settings", skip_all)]
pub(crate) async fn sso_settings() -> Json<Value> {
    Json(json!({}))
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

/// `GET /self/consent`: nothing is asked for.
#[tracing::instrument(name = "http.startup.consent", skip_all)]
pub(crate) async fn consent(_: UserCaller) -> Json<Value> {
    Json(json!({ "results": [] }))
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

/// `GET /clientblacklist/{platform}`: no version of an app is refused here.
#[tracing::instrument(name = "http.startup.client_blacklist", level = "debug", skip_all)]
pub(crate) async fn client_blacklist() -> Json<Value> {
    Json(json!({ "min_version": "0", "exclude": [] }))
}
