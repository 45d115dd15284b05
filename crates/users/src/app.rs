//! What handlers reach: the capabilities, and what they share.

use std::{ops::Deref, sync::Arc};

use aldis_api::TokenVerifier;
use aldis_runtime::{SharedClock, SharedRandom};
use aldis_types::Domain;
use axum::extract::FromRef;

use crate::{
    accounts::Accounts, auth::Auth, calls::Servers, clients::Clients, config::Config, connections::Connections,
    lifecycle::Lifecycle, properties::Properties, search::Search,
};

/// The parts of [`App`].
pub(crate) struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) domain: Domain,
    pub(crate) verifier: TokenVerifier,
    pub(crate) clock: SharedClock,
    pub(crate) random: SharedRandom,
    pub(crate) auth: Arc<Auth>,
    pub(crate) accounts: Accounts,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) clients: Clients,
    pub(crate) connections: Connections,
    pub(crate) search: Search,
    pub(crate) servers: Servers,
    pub(crate) properties: Properties,
}

/// The state of every handler; cheap to clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Parts>);

impl App {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl FromRef<App> for TokenVerifier {
    fn from_ref(app: &App) -> Self {
        app.verifier.clone()
    }
}
