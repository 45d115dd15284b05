//! Every client path of this service, with all that it can answer.

use std::{sync::Arc, time::Duration};

use aldis_api::{
    Label, TokenVerifier, label,
    routes::{Routes, Table, delete, get, post},
};
use aldis_types::Domain;
use axum::{Router, extract::FromRef};
use tokio::sync::Semaphore;

use crate::{
    objects::{Assets, audience::Audience, http},
    remote::Remotes,
};

/// What handlers share.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) domain: Domain,
    pub(crate) assets: Assets,
    pub(crate) remotes: Remotes,
    /// Asked before a file is taken, when the operator wants that.
    pub(crate) audience: Option<Audience>,
    pub(crate) verifier: TokenVerifier,
    /// Places for uploads.
    pub(crate) uploads: Arc<Semaphore>,
    pub(crate) upload_idle: Duration,
    pub(crate) upload_timeout: Duration,
}

impl FromRef<App> for TokenVerifier {
    fn from_ref(app: &App) -> Self {
        app.verifier.clone()
    }
}

pub(crate) fn router(app: App) -> Router {
    routes().split().0.with_state(app)
}

/// The table of routes.
pub fn table() -> Table {
    routes().split().1
}

const UPLOAD_ERRORS: &[Label] = &[
    label::CLIENT_ERROR,
    label::ASSET_EMPTY,
    label::ASSET_INCOMPLETE,
    label::ASSET_DIGEST,
    label::ASSET_NOT_ALLOWED,
    label::TIMEOUT,
    label::ASSET_TOO_LARGE,
    label::UNSUPPORTED_MEDIA_TYPE,
    label::OVERLOADED,
];
const DOWNLOAD_ERRORS: &[Label] =
    &[label::ASSET_NOT_ALLOWED, label::NOT_FOUND, label::RANGE_NOT_SATISFIABLE, label::OVERLOADED];
const OWNER_ERRORS: &[Label] = &[label::ASSET_UNAUTHORISED, label::NOT_FOUND];

fn routes() -> Routes<App> {
    let file = "/assets/{domain}/{key}";
    let token = "/assets/{key}/token";
    Routes::new()
        .group("Assets")
        .route(
            "/assets",
            post(http::upload, "Stores a file")
                .reads("multipart/mixed")
                .answers::<http::StoredJson>(201)
                .errors(UPLOAD_ERRORS),
        )
        .route(
            file,
            get(http::download, "A file, or a part of it")
                .answers_as(200, "*/*")
                .answers_as(206, "*/*")
                .empty(302)
                .errors(DOWNLOAD_ERRORS)
                .federated(),
        )
        .route(
            file,
            delete(http::delete, "Removes a file").errors(OWNER_ERRORS).errors(&[label::FEDERATION_NOT_IMPLEMENTED]),
        )
        .route(token, post(http::renew_token, "Renews the token of a file").errors(OWNER_ERRORS))
        .route(token, delete(http::drop_token, "Makes a file public").errors(OWNER_ERRORS))
}
