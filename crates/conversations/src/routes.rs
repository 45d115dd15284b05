//! Every client path of this service, with all that it can answer. Paths stand here without the version prefix.

use aldis_api::{
    Label, label,
    routes::{Endpoint, Routes, Table, delete, get, post, put},
};
use axum::{Router, extract::DefaultBodyLimit, routing::any};

use crate::{
    app::App,
    config::Config,
    features::http as features,
    groups::{
        error::Unreachable,
        http::{self as groups, changes},
        json::SelfMemberJson,
        links,
        schema::{
            ConversationEvent, Conversations, Created, ListedConversation, NonFederatingBackends, SingleConversation,
        },
    },
    messages::{
        Status, http as messages,
        older::{Body as OlderMessage, OlderStatus},
    },
};

/// The first parts of the paths that are routed to this service, except where another one lists a longer part.
pub const PREFIXES: &[&str] =
    &["/conversations", "/one2one-conversations", "/mls", "/feature-configs", "/teams", "/broadcast"];

/// What a change of a conversation can answer, the owner's refusals included.
const CHANGE: &[Label] = &[label::NO_CONVERSATION, label::ACCESS_DENIED, label::ACTION_DENIED, label::INVALID_OP];

pub(crate) fn router(app: App) -> Router {
    routes(&app.config).split().0.with_state(app)
}

/// The table of routes.
pub fn table() -> Table {
    routes(&Config::default()).split().1
}

fn routes(config: &Config) -> Routes<App> {
    others(messages(not_offered(changed(conversations(Routes::new()))), config))
}

fn conversations(routes: Routes<App>) -> Routes<App> {
    let create = [
        label::MLS_NOT_ENABLED,
        label::NOT_CONNECTED,
        label::OPERATION_DENIED,
        label::TOO_MANY_MEMBERS,
        label::NO_TEAM_MEMBER,
        label::CHANNELS_NOT_ENABLED,
    ];
    routes
        .group("Conversations")
        .route(
            "/conversations",
            post(groups::create, "Creates a group")
                .answers_in::<Created<ListedConversation>>(201, 8, 9)
                .answers_in::<Created<SingleConversation>>(201, 10, 13)
                .errors(&create)
                .federated()
                .deviates::<NonFederatingBackends>(409)
                .deviates::<Unreachable>(533),
        )
        .route(
            "/conversations/self",
            post(groups::create_self, "The conversation of a user with himself")
                .answers::<ListedConversation>(201)
                .answers::<ListedConversation>(200),
        )
        .route("/conversations/list", post(groups::list, "Conversations by id").answers::<Conversations>(200))
        .route(
            "/conversations/list-ids",
            post(groups::list_ids, "The ids of all conversations, a page at a time").answers::<groups::ListedIds>(200),
        )
        .route(
            "/conversations/{domain}/{id}",
            get(groups::get, "A conversation")
                .answers_in::<ListedConversation>(200, 8, 9)
                .answers_in::<SingleConversation>(200, 10, 13)
                .errors(&[label::NO_CONVERSATION, label::ACCESS_DENIED])
                .federated(),
        )
        .route(
            "/conversations/{id}/roles",
            get(groups::roles, "The roles of a conversation")
                .answers::<groups::RolesJson>(200)
                .errors(&[label::NO_CONVERSATION, label::ACCESS_DENIED]),
        )
        .route(
            "/one2one-conversations",
            post(groups::one_to_one, "The conversation with a connected user")
                .answers::<ListedConversation>(200)
                .errors(&[label::NOT_CONNECTED, label::NO_CONVERSATION])
                .federated(),
        )
        .route(
            "/conversations/{id}/features/conversationGuestLinks",
            get(features::guest_links, "Whether guests may come by a link")
                .errors(&[label::NO_CONVERSATION, label::ACCESS_DENIED]),
        )
}

/// What apps know and this backend does not have: refused by the label that says so.
fn not_offered(routes: Routes<App>) -> Routes<App> {
    let mls = &[label::MLS_NOT_ENABLED];
    let link = &[label::NO_CONVERSATION, label::ACCESS_DENIED, label::GUEST_LINKS_DISABLED];
    let no_link = &[label::NO_CONVERSATION, label::ACCESS_DENIED, label::NO_CONVERSATION_CODE];
    let sub = "/conversations/{domain}/{id}/subconversations/{name}";
    routes
        .group("Guest links")
        .route("/conversations/{id}/code", post(links::link, "Makes a link for guests").errors(link))
        .route("/conversations/{id}/code", get(links::link, "The link for guests").errors(link))
        .route("/conversations/{id}/code", delete(links::remove_link, "Removes the link for guests").errors(no_link))
        .route(
            "/conversations/code-check",
            post(links::check_link, "Whether a link is known").errors(&[label::NO_CONVERSATION_CODE]),
        )
        .route(
            "/conversations/join",
            get(links::linked, "The conversation of a link").errors(&[label::GUEST_LINKS_DISABLED]),
        )
        .route(
            "/conversations/join",
            post(links::join_by_link, "Joins by a link").errors(&[label::GUEST_LINKS_DISABLED]),
        )
        .group("MLS")
        .route(
            "/conversations/mls-self",
            get(groups::mls_not_enabled, "The MLS conversation of a user with himself").errors(mls),
        )
        .route(
            "/one2one-conversations/{domain}/{user}",
            get(groups::mls_not_enabled, "The MLS conversation with a user").errors(mls),
        )
        .route(
            "/conversations/{domain}/{id}/groupinfo",
            get(groups::mls_not_enabled, "The public state of a group").errors(mls),
        )
        .route(
            "/conversations/{domain}/{id}/protocol",
            put(groups::mls_not_enabled, "Moves a conversation to MLS").errors(mls),
        )
        .route(sub, get(groups::mls_not_enabled, "A group inside a group").errors(mls))
        .route(sub, delete(groups::mls_not_enabled, "Begins a group inside a group anew").errors(mls))
        .route(
            "/conversations/{domain}/{id}/subconversations/{name}/groupinfo",
            get(groups::mls_not_enabled, "The public state of a group inside a group").errors(mls),
        )
        .route(
            "/conversations/{domain}/{id}/subconversations/{name}/self",
            delete(groups::mls_not_enabled, "Leaves a group inside a group").errors(mls),
        )
}

/// A change answers with the event, or 204 when nothing changed.
fn change(endpoint: Endpoint<App>) -> Endpoint<App> {
    endpoint.answers::<ConversationEvent>(200).empty(204).errors(CHANGE).federated()
}

fn changed(routes: Routes<App>) -> Routes<App> {
    routes
        .route("/conversations/{domain}/{id}/name", change(put(changes::rename, "Renames a conversation")))
        .route(
            "/conversations/{domain}/{id}/members",
            change(post(changes::add_members, "Adds members"))
                .errors(&[label::NOT_CONNECTED, label::TOO_MANY_MEMBERS])
                .deviates::<NonFederatingBackends>(409)
                .deviates::<Unreachable>(533),
        )
        .route(
            "/conversations/{domain}/{id}/members",
            put(changes::replace_members, "Makes these the members")
                .since(13)
                .errors(CHANGE)
                .errors(&[label::NOT_CONNECTED, label::TOO_MANY_MEMBERS])
                .federated()
                .deviates::<NonFederatingBackends>(409)
                .deviates::<Unreachable>(533),
        )
        .route(
            "/conversations/{domain}/{id}/access",
            change(put(changes::set_access, "Sets how people get in, and who may")),
        )
        .route(
            "/conversations/{domain}/{id}/add-permission",
            put(changes::set_add_permission, "Sets who may add members to a channel")
                .errors(&[label::NO_CONVERSATION, label::ACCESS_DENIED, label::INVALID_OP])
                .federated(),
        )
        .route(
            "/conversations/{domain}/{id}/members/{user_domain}/{user}",
            put(changes::set_role, "Changes the role of a member")
                .errors(CHANGE)
                .errors(&[label::NO_CONVERSATION_MEMBER])
                .federated(),
        )
        .route(
            "/conversations/{domain}/{id}/members/{user_domain}/{user}",
            change(delete(changes::remove_member, "Removes a member, or leaves"))
                .errors(&[label::NO_CONVERSATION_MEMBER]),
        )
        .route(
            "/conversations/{domain}/{id}/message-timer",
            change(put(changes::set_message_timer, "Sets how long messages stay")),
        )
        .route(
            "/conversations/{domain}/{id}/receipt-mode",
            change(put(changes::set_receipt_mode, "Sets whether reading is confirmed")),
        )
        .route(
            "/conversations/{domain}/{id}/self",
            get(changes::get_self_member, "The caller's own settings")
                .answers::<Option<SelfMemberJson>>(200)
                .federated()
                .since(9),
        )
        .route(
            "/conversations/{domain}/{id}/self",
            put(changes::update_settings, "Mutes, archives, hides").errors(&[label::NO_CONVERSATION]),
        )
        .route(
            "/conversations/{domain}/{id}/typing",
            post(changes::typing, "Tells that the caller types").errors(&[label::NO_CONVERSATION]).federated(),
        )
}

fn messages(routes: Routes<App>, config: &Config) -> Routes<App> {
    let limit = DefaultBodyLimit::max(config.max_message_bytes);
    routes
        .group("Messages")
        .route(
            "/conversations/{domain}/{id}/proteus/messages",
            post(messages::send, "Sends a message")
                .reads("application/x-protobuf")
                .answers::<Status>(201)
                .errors(&[label::NO_CONVERSATION, label::INVALID_OP, label::UNKNOWN_CLIENT])
                .federated()
                .deviates::<Status>(412)
                .layer(limit),
        )
        .route(
            "/conversations/{id}/otr/messages",
            post(messages::send_older, "Sends a message in the older form, within this backend")
                .reads_json::<OlderMessage>()
                .reads("application/x-protobuf")
                .answers::<OlderStatus>(201)
                .errors(&[label::NO_CONVERSATION, label::INVALID_OP, label::UNKNOWN_CLIENT])
                .federated()
                .deviates::<OlderStatus>(412)
                .layer(limit),
        )
        .route(
            "/broadcast/proteus/messages",
            post(messages::broadcast, "Sends a message to a team").errors(&[label::NON_BINDING_TEAM]),
        )
        .route(
            "/broadcast/otr/messages",
            post(messages::broadcast, "Sends a message to a team").errors(&[label::NON_BINDING_TEAM]),
        )
}

fn others(routes: Routes<App>) -> Routes<App> {
    routes
        .group("Features")
        .route("/feature-configs", get(features::get_feature_configs, "What can be used"))
        .route(
            "/mls/public-keys",
            get(features::public_keys, "Keys with which the backend signs proposals")
                .answers::<features::PublicKeys>(200),
        )
        .route("/teams", get(features::teams, "The teams of the caller"))
        .below("/mls/{*rest}", any(groups::mls_not_enabled))
        .below("/teams/{*rest}", any(features::no_team))
}
