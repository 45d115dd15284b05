//! Every client path of this service.

use aldis_api::TokenVerifier;
use aldis_runtime::SharedClock;
use axum::{
    Router,
    extract::FromRef,
    routing::{delete, get},
};

use crate::{
    consumers::{self, Consumers},
    push_tokens::{self, PushTokens},
    queues::{self, Queues},
    sockets::{self, Sockets},
};

/// What handlers share.
#[derive(Clone, FromRef)]
pub(crate) struct App {
    pub queues: Queues,
    pub consumers: Consumers,
    pub push_tokens: PushTokens,
    pub sockets: Sockets,
    pub verifier: TokenVerifier,
    pub clock: SharedClock,
}

pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/notifications", get(queues::http::list))
        .route("/notifications/last", get(queues::http::last))
        .route("/notifications/{id}", get(queues::http::get))
        .route("/time", get(queues::http::time))
        .route("/await", get(sockets::http::open))
        .route("/events", get(consumers::http::open))
        .route("/push/tokens", get(push_tokens::http::list).post(push_tokens::http::add))
        .route("/push/tokens/{token}", delete(push_tokens::http::remove))
        .with_state(app)
}
