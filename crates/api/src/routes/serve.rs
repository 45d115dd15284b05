//! The description for people and programs: `/api/openapi.json`, and a page that shows it. The page asks nobody else
//! for anything.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    response::{Html, IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, header, request::Parts};
use swagger_ui_redist::SwaggerUi;

use super::{Description, Routes, Table, get};
use crate::{ApiVersion, HttpError, Path, label, serve::AskedVersion};

const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                              img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                              frame-ancestors 'none'";
const PAGE: &str = include_str!("viewer.html");
const SCRIPT: &str = include_str!("viewer.js");

/// The routes that show a description.
pub(crate) fn router(description: Arc<Description>) -> Router {
    routes().split().0.with_state(description)
}

/// Their table.
pub(super) fn table() -> Table {
    routes().split().1
}

fn routes() -> Routes<Arc<Description>> {
    Routes::new()
        .group("Description")
        .route(
            "/api/openapi.json",
            get(document, "This description; without a prefix that of the newest version")
                .answers::<serde_json::Map<String, serde_json::Value>>(200)
                .unprefixed(),
        )
        .route("/api", get(page, "A page that shows it").unprefixed())
        .route(
            "/api/viewer/{file}",
            get(file, "A part of that page")
                .answers_as(200, "text/javascript")
                .errors(&[label::NOT_FOUND])
                .unprefixed(),
        )
}

/// `GET /api/openapi.json`, of the version in the prefix or else the newest.
async fn document(State(description): State<Arc<Description>>, parts: Parts) -> Response {
    let asked = parts.extensions.get::<AskedVersion>().map_or(ApiVersion::MAX, |asked| asked.0);
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], description.json(asked)).into_response()
}

/// `GET /api`.
async fn page() -> (PageHeaders, Html<&'static str>) {
    (page_headers(), Html(PAGE))
}

/// `GET /api/viewer/{file}`: 404 `not-found`.
async fn file(Path(name): Path<String>) -> Result<Response, HttpError> {
    let content = if name == "viewer.js" { Some(SCRIPT.as_bytes()) } else { viewer_file(&name) };
    let content = content.ok_or(label::NOT_FOUND)?;
    let kind = if name == "swagger-ui.css" { "text/css" } else { "text/javascript" };
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], content).into_response())
}

/// Script and style of Swagger UI.
fn viewer_file(name: &str) -> Option<&'static [u8]> {
    let used = ["swagger-ui.css", "swagger-ui-bundle.js"].contains(&name);
    let mut files = SwaggerUi::static_files().iter().filter(|_| used);
    files.find(|(file, _)| file.file_name() == name).map(|(_, content)| *content)
}

type PageHeaders = [(HeaderName, HeaderValue); 3];

fn page_headers() -> PageHeaders {
    [
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ]
}
