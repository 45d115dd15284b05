//! Every path of the client API that this service answers, with all that it can answer.

use aldis_api::{
    Label, label,
    routes::{Routes, Table, delete, get, head, post, put},
};
use aldis_types::Protocol;
use axum::{Router, extract::DefaultBodyLimit, routing::any};

use crate::{
    accounts::{
        http as accounts,
        json::{ProfileJson, ProfilesJson, SelfJson},
    },
    app::App,
    auth::http as auth,
    calls::http as calls,
    clients::http as clients,
    connections::{events::ConnectionJson, http as connections},
    lifecycle::http as lifecycle,
    properties,
    search::http as search,
    startup::http as startup,
};

/// A value of the largest size has to be read to be refused by its own label.
const PROPERTY_BODY_BYTES: usize = properties::MAX_VALUE_BYTES + 64 * 1024;

/// What is wrong with a cookie or token of `/access`; told apart by their messages.
const COOKIE: &[Label] = &[label::MISSING_COOKIE, label::SUSPENDED];
/// What a password check can answer.
const PASSWORD: &[Label] =
    &[label::INVALID_CREDENTIALS, label::MISSING_AUTH, label::TOO_MANY_FAILED_LOGINS, label::PASSWORDS_OVERLOADED];

pub(crate) fn router(app: App) -> Router {
    let (router, _) = routes().split();
    router.method_not_allowed_fallback(startup::method_not_allowed).fallback(startup::no_endpoint).with_state(app)
}

/// The table of routes.
pub fn table() -> Table {
    routes().split().1
}

fn routes() -> Routes<App> {
    let routes = discovery(Routes::new());
    let routes = account_life(account(login(routes)));
    let routes = users(routes);
    let routes = devices(routes);
    connected(routes)
}

fn discovery(routes: Routes<App>) -> Routes<App> {
    routes
        .group("Discovery")
        .route("/api-version", get(startup::api_version, "The versions of this API").unprefixed())
        .route("/status", get(startup::status, "Whether the backend answers").unprefixed())
        .route("/system/settings", get(startup::settings, "Settings of the backend"))
        .route("/system/settings/unauthorized", get(startup::public_settings, "Settings that are needed before login"))
        .route(
            "/deeplink.json",
            get(startup::deeplink, "Where apps find this backend")
                .answers::<startup::DeeplinkJson>(200)
                .errors(&[label::NOT_FOUND])
                .unprefixed(),
        )
        .route(
            "/deeplink.html",
            get(startup::deeplink_page, "A page with the link that points an app here")
                .errors(&[label::NOT_FOUND])
                .unprefixed(),
        )
        .route(
            "/config.json",
            get(startup::deeplink, "The same as deeplink.json")
                .answers::<startup::DeeplinkJson>(200)
                .errors(&[label::NOT_FOUND])
                .unprefixed(),
        )
        .route(
            "/clientblacklist/{platform}",
            get(startup::client_blacklist, "Versions of an app that are refused").unprefixed(),
        )
        .route("/get-domain-registration", post(startup::domain_registration, "Where users of an e-mail domain log in"))
        .route("/sso/settings", get(startup::sso_settings, "Settings of single sign-on"))
        .route(
            "/sso/initiate-login/{code}",
            head(startup::sso_login, "Begins single sign-on").errors(&[label::NOT_FOUND]),
        )
        .route(
            "/custom-backend/by-domain/{domain}",
            get(startup::custom_backend, "The backend of an e-mail domain").errors(&[label::CUSTOM_BACKEND_NOT_FOUND]),
        )
        .route("/calls/config/v2", get(calls::get_config, "Servers for calls"))
}

fn login(routes: Routes<App>) -> Routes<App> {
    let refused = [
        label::INVALID_CREDENTIALS,
        label::SUSPENDED,
        label::PENDING_ACTIVATION,
        label::TOO_MANY_FAILED_LOGINS,
        label::LOGINS_TOO_FREQUENT,
        label::PASSWORDS_OVERLOADED,
    ];
    routes
        .group("Login")
        .route("/login", post(auth::login, "Logs in").answers::<auth::AccessToken>(200).errors(&refused))
        .route(
            "/access",
            post(auth::access, "A new access token")
                .with_cookie()
                .answers::<auth::AccessToken>(200)
                .errors(COOKIE)
                .unprefixed(),
        )
        .route(
            "/access/logout",
            post(auth::logout, "Ends the session").with_cookie().empty(200).errors(COOKIE).unprefixed(),
        )
        .route("/cookies", get(auth::list_cookies, "Sessions of the user"))
        .route(
            "/cookies/remove",
            post(auth::remove_cookies, "Ends sessions").errors(PASSWORD).errors(&[label::TOO_MANY_FAILED_LOGINS]),
        )
        .route(
            "/verification-code/send",
            post(auth::send_verification_code, "Sends a second factor; there is none, so nothing is sent"),
        )
}

fn account(routes: Routes<App>) -> Routes<App> {
    let register = [
        label::INVALID_EMAIL,
        label::INVALID_INVITATION_CODE,
        label::USER_CREATION_RESTRICTED,
        label::UNAUTHORIZED_EMAIL,
        label::EPHEMERAL_DISABLED,
        label::INVALID_CODE,
        label::KEY_EXISTS,
        label::PASSWORDS_OVERLOADED,
    ];
    let code = [
        label::INVALID_EMAIL,
        label::USER_CREATION_RESTRICTED,
        label::UNAUTHORIZED_EMAIL,
        label::KEY_EXISTS,
        label::TOO_MANY_CODES,
    ];
    routes
        .group("Account")
        .route("/register", post(accounts::register, "Creates an account").answers::<SelfJson>(201).errors(&register))
        .route(
            "/activate",
            get(accounts::activate_by_link, "Activates an address by a link")
                .answers::<accounts::ActivatedJson>(200)
                .empty(204)
                .errors(&[label::INVALID_CODE]),
        )
        .route(
            "/activate",
            post(accounts::activate, "Activates an address, or tries a code")
                .answers::<accounts::ActivatedJson>(200)
                .empty(200)
                .empty(204)
                .errors(&[label::INVALID_CODE, label::INVALID_EMAIL]),
        )
        .route("/activate/send", post(accounts::send_code, "Sends a code to an address").errors(&code))
        .route("/self", get(accounts::get_self, "The own profile").answers::<SelfJson>(200))
        .route("/self", put(accounts::put_self, "Changes the own profile"))
        .route(
            "/self/handle",
            put(accounts::put_handle, "Sets the handle").errors(&[
                label::INVALID_HANDLE,
                label::NO_IDENTITY,
                label::HANDLE_EXISTS,
            ]),
        )
        .route(
            "/self/email",
            delete(lifecycle::remove_email, "Refuses to remove the only address").errors(&[label::LAST_IDENTITY]),
        )
        .route("/self/locale", put(accounts::put_locale, "Sets the language"))
        .route("/self/password", head(accounts::has_password, "Whether a password is set").errors(&[label::NOT_FOUND]))
        .route(
            "/self/supported-protocols",
            put(accounts::put_protocols, "Sets how the user can be written to")
                .errors(&[label::MLS_PROTOCOL_ERROR_409]),
        )
        .route("/self/consent", get(startup::consent, "What the user agreed to").unprefixed())
        .route("/self/consent", put(startup::put_consent, "Takes note of nothing").unprefixed())
}

fn account_life(routes: Routes<App>) -> Routes<App> {
    let password = [
        label::INVALID_CREDENTIALS,
        label::TOO_MANY_FAILED_LOGINS,
        label::PASSWORD_MUST_DIFFER,
        label::PASSWORDS_OVERLOADED,
    ];
    let reset = [
        label::INVALID_RESET_CODE,
        label::INVALID_KEY,
        label::INVALID_EMAIL,
        label::PASSWORD_MUST_DIFFER,
        label::PASSWORDS_OVERLOADED,
    ];
    let email =
        [label::INVALID_EMAIL, label::UNAUTHORIZED_EMAIL, label::SUSPENDED, label::KEY_EXISTS, label::TOO_MANY_CODES];
    routes
        .route("/self/password", put(lifecycle::put_password, "Changes the password").errors(&password))
        .route(
            "/password-reset",
            post(lifecycle::request_reset, "Sends a code for a new password")
                .empty(201)
                .errors(&[label::INVALID_EMAIL]),
        )
        .route("/password-reset/complete", post(lifecycle::complete_reset, "Sets a new password").errors(&reset))
        .route(
            "/access/self/email",
            put(lifecycle::put_email, "Changes the e-mail address")
                .with_cookie()
                .empty(202)
                .empty(204)
                .errors(COOKIE)
                .errors(&email)
                .unprefixed(),
        )
        .route(
            "/self",
            delete(lifecycle::delete_self, "Deletes the account")
                .empty(200)
                .answers::<lifecycle::DeletionJson>(202)
                .errors(PASSWORD)
                .errors(&[label::TOO_MANY_FAILED_LOGINS, label::PENDING_DELETE])
                .deviates::<lifecycle::PendingDeletionJson>(403),
        )
        .route(
            "/delete",
            post(lifecycle::confirm_deletion, "Deletes an account by a code").errors(&[label::INVALID_DELETION_CODE]),
        )
}

fn users(routes: Routes<App>) -> Routes<App> {
    routes
        .group("Users")
        .route("/list-users", post(accounts::list_users, "Profiles by id or handle").answers::<ProfilesJson>(200))
        .route(
            "/users/{domain}/{id}",
            get(accounts::get_user, "A profile").answers::<ProfileJson>(200).errors(&[label::NOT_FOUND]).federated(),
        )
        .route(
            "/users/{domain}/{id}/supported-protocols",
            get(accounts::get_protocols, "How a user can be written to")
                .answers::<Vec<Protocol>>(200)
                .errors(&[label::NOT_FOUND])
                .federated(),
        )
        .route(
            "/users/{id}/rich-info",
            get(accounts::get_rich_info, "What teams note about a member").errors(&[label::INSUFFICIENT_PERMISSIONS]),
        )
        .route(
            "/users/by-handle/{domain}/{handle}",
            get(accounts::get_user_by_handle, "The user with a handle")
                .answers::<ProfileJson>(200)
                .errors(&[label::NOT_FOUND])
                .federated(),
        )
        .route("/handles", post(accounts::free_handles, "Which of some handles are free"))
        .route(
            "/handles/{handle}",
            head(accounts::check_handle, "Whether a handle is taken")
                .errors(&[label::INVALID_HANDLE, label::NOT_FOUND]),
        )
        .route(
            "/search/contacts",
            get(search::contacts, "Finds users by name and handle")
                .errors(&[label::INSUFFICIENT_PERMISSIONS])
                .federated(),
        )
        .group("Properties")
        .route("/properties", get(properties::http::list, "The keys of all properties"))
        .route("/properties", delete(properties::http::clear, "Removes all properties"))
        .route("/properties-values", get(properties::http::values, "All properties"))
        .route("/properties/{key}", get(properties::http::get, "A property").errors(&[label::NOT_FOUND]))
        .route(
            "/properties/{key}",
            put(properties::http::set, "Sets a property")
                .reads_json::<serde_json::Value>()
                .errors(&[label::TOO_MANY_PROPERTIES, label::PROPERTY_KEY_TOO_LARGE, label::PROPERTY_VALUE_TOO_LARGE])
                .layer(DefaultBodyLimit::max(PROPERTY_BODY_BYTES)),
        )
        .route("/properties/{key}", delete(properties::http::remove, "Removes a property"))
}

fn devices(routes: Routes<App>) -> Routes<App> {
    routes
        .group("Clients")
        .route("/clients", get(clients::list, "Own clients").answers::<Vec<clients::OwnClient>>(200))
        .route(
            "/clients",
            post(clients::register, "Adds a client").answers::<clients::OwnClient>(201).errors(PASSWORD).errors(&[
                label::MALFORMED_PREKEYS,
                label::CLIENT_ERROR,
                label::MLS_DUPLICATE_PUBLIC_KEY,
                label::TOO_MANY_CLIENTS,
            ]),
        )
        .route(
            "/clients/{client}",
            get(clients::get, "An own client").answers::<clients::OwnClient>(200).errors(&[label::CLIENT_NOT_FOUND]),
        )
        .route(
            "/clients/{client}",
            put(clients::update, "Changes a client, adds prekeys").errors(&[
                label::MALFORMED_PREKEYS,
                label::MLS_DUPLICATE_PUBLIC_KEY,
                label::CLIENT_NOT_FOUND,
                label::CAPABILITIES_CANNOT_BE_REMOVED,
            ]),
        )
        .route(
            "/clients/{client}",
            delete(clients::remove, "Removes a client").errors(PASSWORD).errors(&[label::CLIENT_NOT_FOUND]),
        )
        .route(
            "/clients/{client}/capabilities",
            get(clients::get_capabilities, "What a client can do").errors(&[label::CLIENT_NOT_FOUND]),
        )
        .route(
            "/clients/{client}/prekeys",
            get(clients::list_prekeys, "The numbers of the prekeys that are left").errors(&[label::CLIENT_NOT_FOUND]),
        )
        .route("/users/{domain}/{id}/clients", get(clients::list_of_user, "The clients of a user").federated())
        .route(
            "/users/{domain}/{id}/clients/{client}",
            get(clients::get_of_user, "A client of a user").errors(&[label::CLIENT_NOT_FOUND]).federated(),
        )
        .route("/users/list-clients", post(clients::list_of_users, "The clients of many users"))
        .route(
            "/users/{domain}/{id}/prekeys",
            get(clients::claim_bundle, "Takes a prekey of each client of a user").federated(),
        )
        .route(
            "/users/{domain}/{id}/prekeys/{client}",
            get(clients::claim_prekey, "Takes a prekey of a client").errors(&[label::NOT_FOUND]).federated(),
        )
        .route(
            "/users/list-prekeys",
            post(clients::claim_many, "Takes a prekey of each of many clients").errors(&[label::TOO_MANY_CLIENTS]),
        )
        .below("/mls/key-packages/{*rest}", any(clients::mls_not_enabled))
}

fn connected(routes: Routes<App>) -> Routes<App> {
    let refused = [
        label::INVALID_USER,
        label::NO_IDENTITY,
        label::BAD_CONN_UPDATE,
        label::CONNECTION_LIMIT,
        label::TEAM_NOT_FEDERATING,
    ];
    routes
        .group("Connections")
        .route(
            "/connections/{domain}/{id}",
            get(connections::get, "The connection with a user").errors(&[label::NOT_FOUND]),
        )
        .route(
            "/connections/{domain}/{id}",
            post(connections::connect, "Asks a user to connect")
                .answers::<ConnectionJson>(201)
                .answers::<ConnectionJson>(200)
                .errors(&refused)
                .federated(),
        )
        .route(
            "/connections/{domain}/{id}",
            put(connections::update, "Accepts, ignores, blocks, takes back")
                .answers::<ConnectionJson>(200)
                .empty(204)
                .errors(&refused)
                .errors(&[label::NOT_CONNECTED])
                .federated(),
        )
        .route("/list-connections", post(connections::list, "All connections, a page at a time"))
}
