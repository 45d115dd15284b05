//! Client routes of conversations: making and reading them.

pub(crate) mod changes;

use std::collections::BTreeSet;

use aldis_api::{ApiVersion, HttpError, Json, Path, UserCaller, label};
use aldis_types::{Access, AccessRole, Action as Right, ConversationId, Domain, Protocol, Qualified, RoleName, UserId};
use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    create::NewGroup,
    error::GroupError,
    json::{ConversationJson, Shape},
    list::{Cursor, MAX_LIST, Seen},
    model::DEFAULT_ACCESS_ROLES,
};
use crate::{app::App, groups::sorted};

type ConversationPath = Path<(Domain, ConversationId)>;

fn qualified(Path((domain, id)): ConversationPath) -> Qualified<ConversationId> {
    tracing::Span::current().record("conversation.id", tracing::field::display(id));
    Qualified::new(id, domain)
}

fn one(app: &App, user: UserId, seen: &Seen, shape: Shape) -> Result<Response, HttpError> {
    let user = app.own_user(user);
    let view = seen.view(&app.domain, &user).ok_or(GroupError::NoConversation)?;
    Ok(Json(view.json(shape)).into_response())
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewConversation")]
pub(crate) struct CreateBody {
    name: Option<String>,
    #[serde(default)]
    qualified_users: Vec<Qualified<UserId>>,
    #[serde(default)]
    users: Vec<UserId>,
    conversation_role: Option<RoleName>,
    access: Option<Vec<Access>>,
    access_role: Option<Vec<AccessRole>>,
    receipt_mode: Option<i32>,
    message_timer: Option<i64>,
    protocol: Option<Protocol>,
    team: Option<Value>,
    #[serde(default)]
    skip_creator: bool,
    group_conv_type: Option<GroupKind>,
    add_permission: Option<AddPermission>,
    #[serde(default)]
    cells: bool,
    parent: Option<ConversationId>,
}

#[derive(Deserialize, PartialEq, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum GroupKind {
    GroupConversation,
    Channel,
    Meeting,
}

/// Who may add members to a channel.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum AddPermission {
    Admins,
    Everyone,
}

impl CreateBody {
    fn read(self, app: &App) -> Result<NewGroup, GroupError> {
        if self.protocol.is_some_and(|protocol| protocol != Protocol::Proteus) {
            return Err(GroupError::MlsNotEnabled);
        }
        if self.team.is_some() {
            return Err(GroupError::NoTeamMember);
        }
        self.check_offered()?;
        let mut users: BTreeSet<_> = self.qualified_users.into_iter().collect();
        users.extend(self.users.into_iter().map(|user| app.own_user(user)));
        Ok(NewGroup {
            name: self.name,
            users,
            role: self.conversation_role.unwrap_or_else(RoleName::admin),
            access: self.access.map_or_else(|| vec![Access::Invite], |access| sorted(&access)),
            access_roles: self.access_role.map_or_else(|| DEFAULT_ACCESS_ROLES.to_vec(), |roles| sorted(&roles)),
            message_timer: self.message_timer,
            receipt_mode: self.receipt_mode,
        })
    }

    /// What this backend does not have is refused, never left out in silence.
    fn check_offered(&self) -> Result<(), GroupError> {
        match &self.group_conv_type {
            None | Some(GroupKind::GroupConversation) => {}
            Some(GroupKind::Channel) => return Err(GroupError::ChannelsNotEnabled),
            Some(GroupKind::Meeting) => return Err(GroupError::OperationDenied("Meetings are not available")),
        }
        let missing = [
            (self.skip_creator, "Only in channels the creator may be left out"),
            (self.add_permission.is_some(), "Only channels have an add permission"),
            (self.cells, "Cells are not available"),
            (self.parent.is_some(), "Conversations inside conversations are not available"),
        ];
        match missing.into_iter().find(|(asked, _)| *asked) {
            Some((_, why)) => Err(GroupError::OperationDenied(why)),
            None => Ok(()),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Created<'a> {
    #[serde(flatten)]
    pub conversation: ConversationJson<'a>,
    pub failed_to_add: BTreeSet<Qualified<UserId>>,
}

/// `POST /conversations`.
#[tracing::instrument(name = "http.groups.create", skip_all, fields(user.id, conversation.id))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: UserCaller,
    version: ApiVersion,
    Json(body): Json<CreateBody>,
) -> Result<Response, HttpError> {
    let new = body.read(&app)?;
    let (conversation, failed_to_add) = app.create_group(&caller, new).await?;
    let id = conversation.id;
    tracing::Span::current().record("conversation.id", tracing::field::display(id));
    let seen = Seen::Own(conversation);
    let user = app.own_user(caller.user);
    let view = seen.view(&app.domain, &user).ok_or(GroupError::NoConversation)?;
    let body = Json(Created { conversation: view.json(Shape::single(version)), failed_to_add });
    let location = HeaderValue::try_from(id.to_string()).map_err(|_| label::SERVER_ERROR)?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], body).into_response())
}

/// `POST /conversations/self`.
#[tracing::instrument(name = "http.groups.create_self", skip_all, fields(user.id))]
pub(crate) async fn create_self(State(app): State<App>, caller: UserCaller) -> Result<Response, HttpError> {
    let (conversation, created) = app.self_conversation(caller.user).await?;
    let location = HeaderValue::try_from(conversation.id.to_string()).map_err(|_| label::SERVER_ERROR)?;
    let body = one(&app, caller.user, &Seen::Own(conversation), Shape::Own)?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, [(header::LOCATION, location)], body).into_response())
}

/// `GET /conversations/{domain}/{id}`.
#[tracing::instrument(name = "http.groups.get", skip_all, fields(user.id, conversation.id))]
pub(crate) async fn get(
    State(app): State<App>,
    caller: UserCaller,
    version: ApiVersion,
    path: ConversationPath,
) -> Result<Response, HttpError> {
    let seen = app.get(caller.user, qualified(path)).await?;
    one(&app, caller.user, &seen, Shape::single(version))
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "ConversationIds")]
pub(crate) struct ListBody {
    qualified_ids: Vec<Qualified<ConversationId>>,
}

#[derive(Serialize)]
pub(crate) struct Listed<'a> {
    pub found: Vec<ConversationJson<'a>>,
    pub not_found: Vec<Qualified<ConversationId>>,
    pub failed: Vec<Qualified<ConversationId>>,
}

/// `POST /conversations/list`.
#[tracing::instrument(name = "http.groups.list", skip_all, fields(user.id))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: UserCaller,
    Json(body): Json<ListBody>,
) -> Result<Response, HttpError> {
    let ids: BTreeSet<_> = body.qualified_ids.into_iter().collect();
    if ids.is_empty() || ids.len() > MAX_LIST {
        return Err(GroupError::BadRequest("qualified_ids must have 1 to 1000 entries").into());
    }
    let listing = app.list(caller.user, ids.into_iter().collect()).await?;
    let user = app.own_user(caller.user);
    let views: Vec<_> = listing.found.iter().filter_map(|seen| seen.view(&app.domain, &user)).collect();
    let found = views.iter().map(|view| view.json(Shape::Own)).collect();
    Ok(Json(Listed { found, not_found: listing.not_found, failed: listing.failed }).into_response())
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "ConversationIdsPage")]
pub(crate) struct ListIdsBody {
    size: Option<usize>,
    paging_state: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct ListedIds {
    qualified_conversations: Vec<Qualified<ConversationId>>,
    has_more: bool,
    paging_state: String,
}

/// `POST /conversations/list-ids`.
#[tracing::instrument(name = "http.groups.list_ids", skip_all, fields(user.id))]
pub(crate) async fn list_ids(
    State(app): State<App>,
    caller: UserCaller,
    Json(body): Json<ListIdsBody>,
) -> Result<Response, HttpError> {
    let size = body.size.unwrap_or(MAX_LIST);
    if !(1..=MAX_LIST).contains(&size) {
        return Err(GroupError::BadRequest("size must be 1 to 1000").into());
    }
    let from = match body.paging_state {
        None => Cursor::Own(None),
        Some(text) => Cursor::from_text(&text).ok_or(GroupError::BadRequest("paging_state is not valid"))?,
    };
    let page = app.list_ids(caller.user, from, size).await?;
    let paging_state = page.next.to_text();
    Ok(Json(ListedIds { qualified_conversations: page.ids, has_more: page.has_more, paging_state }).into_response())
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct RoleJson {
    pub conversation_role: RoleName,
    pub actions: Vec<Right>,
}

/// The roles of a conversation.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Roles")]
pub(crate) struct RolesJson {
    conversation_roles: [RoleJson; 2],
}

/// `GET /conversations/{id}/roles`. The roles are the same in every conversation, here and elsewhere; only a member is
/// told.
#[tracing::instrument(name = "http.groups.roles", skip_all, fields(user.id, conversation.id = %id))]
pub(crate) async fn roles(
    State(app): State<App>,
    caller: UserCaller,
    Path(id): Path<ConversationId>,
) -> Result<Response, HttpError> {
    app.expect_in(caller.user, id).await?;
    let role = |role: RoleName| {
        let actions = Right::ALL.into_iter().filter(|right| role.allows(*right)).collect();
        RoleJson { conversation_role: role, actions }
    };
    let roles = RolesJson { conversation_roles: [role(RoleName::admin()), role(RoleName::member())] };
    Ok(Json(roles).into_response())
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct OneToOneBody {
    qualified_users: Vec<Qualified<UserId>>,
}

/// `POST /one2one-conversations`: the existing one with a connected user.
#[tracing::instrument(name = "http.groups.one_to_one", skip_all, fields(user.id))]
pub(crate) async fn one_to_one(
    State(app): State<App>,
    caller: UserCaller,
    Json(body): Json<OneToOneBody>,
) -> Result<Response, HttpError> {
    let [other] = body.qualified_users.as_slice() else {
        return Err(GroupError::BadRequest("qualified_users must have one entry").into());
    };
    let seen = app.one_to_one_with(caller.user, other).await?;
    one(&app, caller.user, &seen, Shape::Own)
}

/// What cannot be done without MLS.
#[tracing::instrument(name = "http.groups.mls_not_enabled", skip_all, fields(user.id))]
pub(crate) async fn mls_not_enabled(_: UserCaller) -> HttpError {
    label::MLS_NOT_ENABLED.into()
}
