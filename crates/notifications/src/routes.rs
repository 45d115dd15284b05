//! Every client path of this service, with all that it can answer.

use aldis_api::{
    TokenVerifier, label,
    routes::{Routes, Table, delete, get, post},
};
use aldis_runtime::SharedClock;
use axum::{Router, extract::FromRef};

use crate::{
    activity::Activity,
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
    pub activity: Activity,
    pub verifier: TokenVerifier,
    pub clock: SharedClock,
}

pub(crate) fn router(app: App) -> Router {
    routes().split().0.with_state(app)
}

/// The table of routes.
pub fn table() -> Table {
    routes().split().1
}

fn routes() -> Routes<App> {
    Routes::new()
        .group("Notifications")
        .route(
            "/notifications",
            get(queues::http::list, "What waits for a client, from the oldest on")
                .answers::<queues::http::Notifications>(200)
                .errors(&[label::NOT_FOUND]),
        )
        .route(
            "/notifications/last",
            get(queues::http::last, "The newest that waits for a client")
                .answers::<queues::http::Notification>(200)
                .errors(&[label::NOT_FOUND]),
        )
        .route(
            "/notifications/{id}",
            get(queues::http::get, "One notification")
                .answers::<queues::http::Notification>(200)
                .errors(&[label::NOT_FOUND]),
        )
        .route("/time", get(queues::http::time, "The time of the backend").since(9))
        .route(
            "/await",
            get(sockets::http::open, "A socket on which new notifications come")
                .empty(101)
                .errors(&[label::MALFORMED_REQUEST])
                .unprefixed(),
        )
        .route(
            "/events",
            get(consumers::http::open, "A socket on which notifications are acknowledged")
                .empty(101)
                .errors(&[label::MALFORMED_REQUEST, label::NOT_FOUND]),
        )
        .group("Push tokens")
        .route("/push/tokens", get(push_tokens::http::list, "How apps of the caller are woken"))
        .route(
            "/push/tokens",
            post(push_tokens::http::add, "Lets an app be woken").answers::<push_tokens::PushToken>(201).errors(&[
                label::APNS_VOIP_NOT_SUPPORTED,
                label::APP_NOT_FOUND,
                label::TOKEN_TOO_LONG,
            ]),
        )
        .route(
            "/push/tokens/{token}",
            delete(push_tokens::http::remove, "Lets an app sleep").empty(204).errors(&[label::NOT_FOUND]),
        )
}
