//! The web client: among the routes of `aldis all`, or in a process of its own.

use aldis_runtime::operations::Health;
use aldis_web::Facts;
use anyhow::{Context as _, Result};
use axum::Router;

use super::{parts::Process, status::Sources};
use crate::config::Config;

/// The routes of the web client, for a backend with this configuration.
pub(super) fn routes(config: &Config) -> Router {
    if !aldis_web::is_built() {
        tracing::info!("this program was built without the web client (`make web` builds it): /app says so");
    }
    aldis_web::router(Facts {
        product: "Aldis",
        version: env!("CARGO_PKG_VERSION"),
        domain: config.domain.clone(),
        websocket: "/await",
        registration: !matches!(config.users.registration, aldis_users::Registration::Closed),
        federation: config.federation.is_some(),
    })
}

/// Serves the web client, and nothing else, until `stop`, or until a signal asks it to. Whatever is in front sends `/app`
/// here and the rest to the services.
pub(crate) async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<()> {
    let own = &config.services.web;
    let client = own.client.context("configuration: key `services.web.client` is missing")?;
    let operations = own.operations.context("configuration: key `services.web.operations` is missing")?;
    let mut process = Process::begin("web", &config)?;
    process.serve_clients(&config, client, routes(&config)).await?;
    process.serve_operations(&config, operations, Health::new(), Sources::default()).await?;
    process.run(stop).await
}
