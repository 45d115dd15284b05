//! Files that users exchange.
//!
//! Not available yet: the routes exist, check the caller, and answer 501 `not-implemented`, so that apps fail as they
//! should instead of waiting.

use aldis_api::{Label, TokenVerifier, UserCaller, label};
use axum::{
    Router,
    extract::FromRef,
    routing::{delete, get, post},
};
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

async fn not_available(_caller: UserCaller) -> Label {
    label::NOT_IMPLEMENTED
}

/// Starts the service.
#[allow(clippy::unused_async)] // of one shape with the other services
pub async fn start(config: Config, dependencies: Dependencies) -> Result<Service, StartError> {
    config.check().map_err(StartError::Config)?;
    let client = Router::new()
        .route("/assets", post(not_available))
        .route("/assets/{domain}/{key}", get(not_available).delete(not_available))
        .route("/assets/{key}/token", post(not_available).merge(delete(not_available)))
        .with_state(App { verifier: dependencies.verifier });
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
