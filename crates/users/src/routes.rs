//! Every path of the client API that this service answers, and everything that no service does.

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{any, get, head, post, put},
};

use crate::{
    accounts::http as accounts, app::App, auth::http as auth, calls::http as calls, clients::http as clients,
    connections::http as connections, properties, search::http as search, startup::http as startup,
};

/// A value of the largest size has to be read to be refused by its own label.
const PROPERTY_BODY_BYTES: usize = properties::MAX_VALUE_BYTES + 64 * 1024;

pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/register", post(accounts::register))
        .route("/activate", get(accounts::activate_by_link).post(accounts::activate))
        .route("/activate/send", post(accounts::send_code))
        .route("/login", post(auth::login))
        .route("/access", post(auth::access))
        .route("/access/logout", post(auth::logout))
        .route("/cookies", get(auth::list_cookies))
        .route("/verification-code/send", post(auth::send_verification_code))
        .route("/self", get(accounts::get_self).put(accounts::put_self))
        .route("/self/handle", put(accounts::put_handle))
        .route("/self/locale", put(accounts::put_locale))
        .route("/self/password", head(accounts::has_password))
        .route("/self/supported-protocols", put(accounts::put_protocols))
        .route("/self/consent", get(startup::consent).put(startup::put_consent))
        .route("/list-users", post(accounts::list_users))
        .route("/users/{domain}/{id}", get(accounts::get_user))
        .route("/users/{domain}/{id}/supported-protocols", get(accounts::get_protocols))
        .route("/users/{id}/rich-info", get(accounts::get_rich_info))
        .route("/users/by-handle/{domain}/{handle}", get(accounts::get_user_by_handle))
        .route("/handles", post(accounts::free_handles))
        .route("/handles/{handle}", head(accounts::check_handle))
        .route("/search/contacts", get(search::contacts))
        .route("/properties", get(properties::http::list).delete(properties::http::clear))
        .route("/properties-values", get(properties::http::values))
        .route(
            "/properties/{key}",
            get(properties::http::get)
                .put(properties::http::set)
                .delete(properties::http::remove)
                .layer(DefaultBodyLimit::max(PROPERTY_BODY_BYTES)),
        )
        .route("/clients", get(clients::list).post(clients::register))
        .route("/clients/{client}", get(clients::get).put(clients::update).delete(clients::remove))
        .route("/clients/{client}/capabilities", get(clients::get_capabilities))
        .route("/clients/{client}/prekeys", get(clients::list_prekeys))
        .route("/users/{domain}/{id}/clients", get(clients::list_of_user))
        .route("/users/{domain}/{id}/clients/{client}", get(clients::get_of_user))
        .route("/users/list-clients", post(clients::list_of_users))
        .route("/users/{domain}/{id}/prekeys", get(clients::claim_bundle))
        .route("/users/{domain}/{id}/prekeys/{client}", get(clients::claim_prekey))
        .route("/users/list-prekeys", post(clients::claim_many))
        .route("/mls/key-packages/{*rest}", any(clients::mls_not_enabled))
        .route("/connections/{domain}/{id}", get(connections::get).post(connections::connect).put(connections::update))
        .route("/list-connections", post(connections::list))
        .route("/calls/config/v2", get(calls::get_config))
        .route("/api-version", get(startup::api_version))
        .route("/status", get(startup::status))
        .route("/system/settings", get(startup::settings))
        .route("/system/settings/unauthorized", get(startup::public_settings))
        .route("/deeplink.json", get(startup::deeplink))
        .route("/deeplink.html", get(startup::deeplink_page))
        .route("/config.json", get(startup::deeplink))
        .route("/clientblacklist/{platform}", get(startup::client_blacklist))
        .route("/get-domain-registration", post(startup::domain_registration))
        .route("/sso/settings", get(startup::sso_settings))
        .route("/sso/initiate-login/{code}", head(startup::sso_login))
        .route("/custom-backend/by-domain/{domain}", get(startup::custom_backend))
        .method_not_allowed_fallback(startup::method_not_allowed)
        .fallback(startup::no_endpoint)
        .with_state(app)
}
