//! Files that users exchange.
//!
//! Not available yet: the routes exist, check the caller, and answer 501 `not-implemented`, so that apps fail as they
//! should instead of waiting.

use aldis_api::{
    Label, TokenVerifier, UserCaller, label,
    routes::{self as client, Table, delete, get, post},
};
use axum::{Router, extract::FromRef};
use serde::Deserialize;
use tokio::task::JoinSet;
use tonic::service::Routes;

/// Path prefixes of this service in the client API.
pub const PREFIXES: &[&str] = &["/assets"];

/// Section `[assets]`; no settings yet.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {}

impl Config {
    /// Refuses what cannot be used.
    pub fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// What the service needs from outside.
#[derive(Clone)]
pub struct Dependencies {
    /// Checks tokens.
    pub verifier: TokenVerifier,
}

/// A running service.
pub struct Service {
    /// Client API, without version prefix.
    pub client: Router,
    /// Internal gRPC.
    pub internal: Routes,
    /// What other backends may call; nothing yet.
    pub federation: Option<Routes>,
    /// Background work.
    pub tasks: JoinSet<()>,
}

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is wrong; the text names it.
    #[error("{0}")]
    Config(String),
}

#[derive(Clone)]
struct App {
    verifier: TokenVerifier,
}

impl FromRef<App> for TokenVerifier {
    fn from_ref(app: &App) -> Self {
        app.verifier.clone()
    }
}

const NOT_AVAILABLE: &[Label] = &[label::NOT_IMPLEMENTED];

async fn not_available(_caller: UserCaller) -> Label {
    label::NOT_IMPLEMENTED
}

/// The table of routes.
pub fn table() -> Table {
    routes().split().1
}

fn routes() -> client::Routes<App> {
    let file = "/assets/{domain}/{key}";
    let token = "/assets/{key}/token";
    client::Routes::new()
        .group("Assets")
        .route("/assets", post(not_available, "Stores a file").errors(NOT_AVAILABLE))
        .route(file, get(not_available, "A file").errors(NOT_AVAILABLE))
        .route(file, delete(not_available, "Removes a file").errors(NOT_AVAILABLE))
        .route(token, post(not_available, "Renews the token of a file").errors(NOT_AVAILABLE))
        .route(token, delete(not_available, "Makes a file public").errors(NOT_AVAILABLE))
}

/// Starts the service.
#[allow(clippy::unused_async)] // of one shape with the other services
pub async fn start(config: Config, dependencies: Dependencies) -> Result<Service, StartError> {
    config.check().map_err(StartError::Config)?;
    let client = routes().split().0.with_state(App { verifier: dependencies.verifier });
    Ok(Service { client, internal: Routes::default(), federation: None, tasks: JoinSet::new() })
}

#[cfg(test)]
mod tests {
    use http::{Request, StatusCode};
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn routes_want_a_token_first() {
        let dependencies = Dependencies { verifier: TokenVerifier::new() };
        let service = start(Config::default(), dependencies).await.unwrap();
        for (method, path) in [("POST", "/assets"), ("GET", "/assets/a.test/3-1-x"), ("DELETE", "/assets/x/token")] {
            let request = Request::builder().method(method).uri(path).body(axum::body::Body::empty()).unwrap();
            let response = service.client.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
        }
    }
}
