//! Every client path of this service and who answers it. Paths stand here without the version prefix.

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{any, delete, get, post, put},
};

use crate::{
    app::App,
    features::http as features,
    groups::{http as groups, links},
    messages::http as messages,
};

/// The first parts of the paths that are routed to this service, except where another one lists a longer part.
pub const PREFIXES: &[&str] =
    &["/conversations", "/one2one-conversations", "/mls", "/feature-configs", "/teams", "/broadcast"];

pub(crate) fn router(app: App) -> Router {
    let message_limit = DefaultBodyLimit::max(app.config.max_message_bytes);
    Router::new()
        .route("/conversations", post(groups::create))
        .route("/conversations/self", post(groups::create_self))
        .route("/conversations/list", post(groups::list))
        .route("/conversations/list-ids", post(groups::list_ids))
        .route("/conversations/mls-self", get(groups::mls_not_enabled))
        .route("/conversations/code-check", post(links::check_link))
        .route("/conversations/join", get(links::linked).post(links::join_by_link))
        .route("/conversations/{id}/code", get(links::link).post(links::link).delete(links::remove_link))
        .route("/conversations/{id}/roles", get(groups::roles))
        .route("/conversations/{id}/features/conversationGuestLinks", get(features::guest_links))
        .route("/conversations/{id}/otr/messages", post(messages::send_older).layer(message_limit))
        .route("/conversations/{domain}/{id}", get(groups::get))
        .route("/conversations/{domain}/{id}/access", put(groups::set_access))
        .route("/conversations/{domain}/{id}/add-permission", put(groups::set_add_permission))
        .route("/conversations/{domain}/{id}/groupinfo", get(groups::mls_not_enabled))
        .route("/conversations/{domain}/{id}/name", put(groups::rename))
        .route("/conversations/{domain}/{id}/members", post(groups::add_members).put(groups::replace_members))
        .route(
            "/conversations/{domain}/{id}/members/{user_domain}/{user}",
            put(groups::set_role).delete(groups::remove_member),
        )
        .route("/conversations/{domain}/{id}/message-timer", put(groups::set_message_timer))
        .route("/conversations/{domain}/{id}/protocol", put(groups::mls_not_enabled))
        .route("/conversations/{domain}/{id}/receipt-mode", put(groups::set_receipt_mode))
        .route("/conversations/{domain}/{id}/self", get(groups::get_self_member).put(groups::update_settings))
        .route(
            "/conversations/{domain}/{id}/subconversations/{name}",
            get(groups::mls_not_enabled).delete(groups::mls_not_enabled),
        )
        .route("/conversations/{domain}/{id}/subconversations/{name}/groupinfo", get(groups::mls_not_enabled))
        .route("/conversations/{domain}/{id}/subconversations/{name}/self", delete(groups::mls_not_enabled))
        .route("/conversations/{domain}/{id}/typing", post(groups::typing))
        .route("/conversations/{domain}/{id}/proteus/messages", post(messages::send).layer(message_limit))
        .route("/one2one-conversations", post(groups::one_to_one))
        .route("/one2one-conversations/{domain}/{user}", get(groups::mls_not_enabled))
        .route("/broadcast/proteus/messages", post(messages::broadcast))
        .route("/broadcast/otr/messages", post(messages::broadcast))
        .route("/feature-configs", get(features::get_feature_configs))
        .route("/mls/public-keys", get(features::public_keys))
        .route("/mls/{*rest}", any(groups::mls_not_enabled))
        .route("/teams", get(features::teams))
        .route("/teams/{*rest}", any(features::no_team))
        .with_state(app)
}
