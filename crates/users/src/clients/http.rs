//! `/clients`, `/users/…/clients`, `/users/…/prekeys`.

use std::collections::{BTreeMap, HashMap};

use aldis_api::{HttpError, Json, Path, UserCaller, label};
use aldis_types::{
    Capability, ClientClass, ClientId, ClientType, Domain, Prekey, PrekeyId, Qualified, Timestamp, UserId,
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Client, ClientError, Registration, store::ClientChange};
use crate::{app::App, auth::passwords::Password, peers::MAX_USERS};

/// Keys and labels that are longer are refused.
const MAX_TEXT_BYTES: usize = 1024;
const MAX_MLS_KEYS: usize = 8;
/// One client's prekeys in one request.
const MAX_PREKEYS: usize = 4096;

/// A device of the caller.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Client")]
pub(crate) struct ClientJson<'a, C> {
    id: ClientId,
    #[serde(rename = "type")]
    kind: ClientType,
    time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<ClientClass>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cookie: Option<&'a str>,
    capabilities: C,
    mls_public_keys: &'a BTreeMap<String, String>,
    /// The beginning of the week, counted from 1970, in which it last fetched notifications.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_active: Option<Timestamp>,
}

/// A client as its own user sees it.
pub(crate) type OwnClient = ClientJson<'static, Vec<Capability>>;

/// Capabilities as events show them.
#[derive(Serialize)]
struct Nested<'a> {
    capabilities: &'a [Capability],
}

fn shape<C>(client: &Client, capabilities: C) -> ClientJson<'_, C> {
    ClientJson {
        id: client.id,
        kind: client.kind,
        time: client.created,
        class: client.class,
        label: client.label.as_deref(),
        model: client.model.as_deref(),
        cookie: client.cookie.as_deref(),
        capabilities,
        mls_public_keys: &client.mls_public_keys,
        last_active: client.last_active,
    }
}

fn client_json(client: &Client) -> Value {
    json!(shape(client, &client.capabilities))
}

/// `user.client-add`, in the old shape.
pub(super) fn add_event(client: &Client) -> Value {
    json!({ "type": "user.client-add", "client": shape(client, Nested { capabilities: &client.capabilities }) })
}

/// `user.client-remove`.
pub(super) fn remove_event(client: ClientId) -> Value {
    json!({ "type": "user.client-remove", "client": { "id": client } })
}

/// A device as other users see it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PublicClient")]
pub(crate) struct PublicClientJson {
    id: ClientId,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<ClientClass>,
}

fn public_json((id, class): &super::PublicClient) -> PublicClientJson {
    PublicClientJson { id: *id, class: *class }
}

/// Devices by domain and user.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ClientsOfUsers {
    qualified_user_map: BTreeMap<Domain, BTreeMap<UserId, Vec<PublicClientJson>>>,
}

/// A prekey of one device.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ClaimedPrekey {
    client: ClientId,
    prekey: Prekey,
}

/// A prekey of each device of a user.
#[derive(Serialize, JsonSchema)]
pub(crate) struct PrekeyBundle {
    user: UserId,
    clients: Vec<ClaimedPrekey>,
}

/// Prekeys by domain, user and device; `null` where there is none.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ClaimedPrekeys {
    qualified_user_client_prekeys: BTreeMap<Domain, BTreeMap<UserId, BTreeMap<ClientId, Option<Prekey>>>>,
    /// Users of backends that could not be asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed_to_list: Vec<Qualified<UserId>>,
}

/// What a device can do.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Capabilities {
    capabilities: Vec<Capability>,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct RegisterBody {
    #[serde(rename = "type")]
    kind: ClientType,
    prekeys: Vec<Prekey>,
    lastkey: Prekey,
    password: Option<Password>,
    label: Option<String>,
    model: Option<String>,
    class: Option<ClientClass>,
    cookie: Option<String>,
    capabilities: Option<Vec<Capability>>,
    mls_public_keys: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct UpdateBody {
    #[serde(default)]
    prekeys: Vec<Prekey>,
    lastkey: Option<Prekey>,
    label: Option<String>,
    capabilities: Option<Vec<Capability>>,
    mls_public_keys: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct RemoveBody {
    password: Option<Password>,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct ListClientsBody {
    qualified_users: Vec<Qualified<UserId>>,
}

fn texts(texts: &[&Option<String>]) -> Result<(), ClientError> {
    if texts.iter().any(|text| text.as_ref().is_some_and(|text| text.len() > MAX_TEXT_BYTES)) {
        return Err(ClientError::Invalid("A text of the client is too long"));
    }
    Ok(())
}

fn mls_keys(keys: Option<BTreeMap<String, String>>) -> Result<BTreeMap<String, String>, ClientError> {
    let keys = keys.unwrap_or_default();
    let fits = |(scheme, key): (&String, &String)| scheme.len() <= 64 && key.len() <= MAX_TEXT_BYTES;
    if keys.len() <= MAX_MLS_KEYS && keys.iter().all(fits) {
        Ok(keys)
    } else {
        Err(ClientError::Invalid("The MLS public keys are too many or too long"))
    }
}

fn capabilities(mut capabilities: Vec<Capability>) -> Vec<Capability> {
    capabilities.sort_unstable();
    capabilities.dedup();
    capabilities
}

fn prekeys(prekeys: Vec<Prekey>) -> Result<Vec<Prekey>, ClientError> {
    if prekeys.len() <= MAX_PREKEYS { Ok(prekeys) } else { Err(ClientError::Invalid("Too many prekeys at once")) }
}

/// `POST /clients`: 201 with `Location`; 400 `bad-request` (prekeys), `client-error` (legal hold); 403 `missing-auth`,
/// `invalid-credentials`, `too-many-clients`.
#[tracing::instrument(name = "http.clients.register", skip_all, fields(user.id, client.id))]
pub(crate) async fn register(
    State(app): State<App>,
    caller: UserCaller,
    Json(body): Json<RegisterBody>,
) -> Result<Response, HttpError> {
    texts(&[&body.label, &body.model, &body.cookie])?;
    let registration = Registration {
        kind: body.kind,
        class: body.class,
        label: body.label,
        model: body.model,
        cookie: body.cookie,
        capabilities: capabilities(body.capabilities.unwrap_or_default()),
        mls_public_keys: mls_keys(body.mls_public_keys)?,
        prekeys: prekeys(body.prekeys)?,
        last_prekey: body.lastkey,
        password: body.password,
    };
    let client = app.clients.register(*caller, registration).await?;
    tracing::Span::current().record("client.id", tracing::field::display(client.id));
    let mut response = (StatusCode::CREATED, Json(client_json(&client))).into_response();
    if let Ok(location) = HeaderValue::try_from(client.id.to_string()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// `GET /clients`.
#[tracing::instrument(name = "http.clients.list", skip_all, fields(user.id))]
pub(crate) async fn list(State(app): State<App>, caller: UserCaller) -> Result<Json<Vec<Value>>, HttpError> {
    let clients = app.clients.own(caller.user).await?;
    Ok(Json(clients.iter().map(client_json).collect()))
}

/// `GET /clients/{id}`: 404 `client-not-found`.
#[tracing::instrument(name = "http.clients.get", skip_all, fields(user.id, client.id = %client))]
pub(crate) async fn get(
    State(app): State<App>,
    caller: UserCaller,
    Path(client): Path<ClientId>,
) -> Result<Json<Value>, HttpError> {
    Ok(Json(client_json(&app.clients.own_client(caller.user, client).await?)))
}

/// `PUT /clients/{id}`: 400 `bad-request`, `mls-duplicate-public-key`; 404 `client-not-found`; 409
/// `client-capabilities-cannot-be-removed`.
#[tracing::instrument(name = "http.clients.update", skip_all, fields(user.id, client.id = %client))]
pub(crate) async fn update(
    State(app): State<App>,
    caller: UserCaller,
    Path(client): Path<ClientId>,
    Json(body): Json<UpdateBody>,
) -> Result<StatusCode, HttpError> {
    texts(&[&body.label])?;
    let change = ClientChange {
        prekeys: prekeys(body.prekeys)?,
        last_prekey: body.lastkey,
        label: body.label,
        capabilities: body.capabilities.map(capabilities),
        mls_public_keys: mls_keys(body.mls_public_keys)?,
    };
    app.clients.update(caller.user, client, change).await?;
    Ok(StatusCode::OK)
}

/// `DELETE /clients/{id}` with the password for permanent clients: 403 `missing-auth`, `invalid-credentials`; 404
/// `client-not-found`.
#[tracing::instrument(name = "http.clients.remove", skip_all, fields(user.id, client.id = %client))]
pub(crate) async fn remove(
    State(app): State<App>,
    caller: UserCaller,
    Path(client): Path<ClientId>,
    body: Option<Json<RemoveBody>>,
) -> Result<StatusCode, HttpError> {
    app.clients.remove(*caller, client, body.and_then(|Json(body)| body.password)).await?;
    Ok(StatusCode::OK)
}

/// `GET /clients/{id}/capabilities`.
#[tracing::instrument(name = "http.clients.get_capabilities", skip_all, fields(user.id, client.id = %client))]
pub(crate) async fn get_capabilities(
    State(app): State<App>,
    caller: UserCaller,
    Path(client): Path<ClientId>,
) -> Result<Json<Capabilities>, HttpError> {
    let client = app.clients.own_client(caller.user, client).await?;
    Ok(Json(Capabilities { capabilities: client.capabilities }))
}

/// `GET /clients/{id}/prekeys`: the numbers that are left, the last resort key's included.
#[tracing::instrument(name = "http.clients.list_prekeys", skip_all, fields(user.id, client.id = %client))]
pub(crate) async fn list_prekeys(
    State(app): State<App>,
    caller: UserCaller,
    Path(client): Path<ClientId>,
) -> Result<Json<Vec<PrekeyId>>, HttpError> {
    Ok(Json(app.clients.prekey_ids(caller.user, client).await?))
}

/// `GET /users/{domain}/{id}/clients`: the federation errors when the user's backend cannot be asked.
#[tracing::instrument(name = "http.clients.list_of_user", skip_all, fields(user.domain = %domain))]
pub(crate) async fn list_of_user(
    State(app): State<App>,
    _: UserCaller,
    Path((domain, id)): Path<(Domain, UserId)>,
) -> Result<Json<Vec<PublicClientJson>>, HttpError> {
    let clients = app.clients.list_of(Qualified::new(id, domain)).await?;
    Ok(Json(clients.iter().map(public_json).collect()))
}

/// `GET /users/{domain}/{id}/clients/{client}`: 404 `client-not-found`; the federation errors.
#[tracing::instrument(name = "http.clients.get_of_user", skip_all, fields(user.domain = %domain))]
pub(crate) async fn get_of_user(
    State(app): State<App>,
    _: UserCaller,
    Path((domain, id, client)): Path<(Domain, UserId, ClientId)>,
) -> Result<Json<PublicClientJson>, HttpError> {
    let clients = app.clients.list_of(Qualified::new(id, domain)).await?;
    let found = clients.iter().find(|(id, _)| *id == client).ok_or(ClientError::NotFound)?;
    Ok(Json(public_json(found)))
}

/// `POST /users/list-clients`: backends that cannot be asked are missing.
#[tracing::instrument(name = "http.clients.list_of_users", skip_all)]
pub(crate) async fn list_of_users(
    State(app): State<App>,
    _: UserCaller,
    Json(body): Json<ListClientsBody>,
) -> Result<Json<ClientsOfUsers>, HttpError> {
    if !(1..=MAX_USERS).contains(&body.qualified_users.len()) {
        return Err(ClientError::Invalid("1 to 500 users are required").into());
    }
    let found = app.clients.list_many(body.qualified_users).await?;
    let map = found.into_iter().map(|(domain, users)| {
        let users = users.into_iter().map(|clients| (clients.user, clients.clients.iter().map(public_json).collect()));
        (domain, users.collect())
    });
    Ok(Json(ClientsOfUsers { qualified_user_map: map.collect() }))
}

/// `GET /users/{domain}/{id}/prekeys/{client}`: 404 `not-found`; the federation errors.
#[tracing::instrument(name = "http.clients.claim_prekey", skip_all, fields(user.domain = %domain))]
pub(crate) async fn claim_prekey(
    State(app): State<App>,
    _: UserCaller,
    Path((domain, id, client)): Path<(Domain, UserId, ClientId)>,
) -> Result<Json<ClaimedPrekey>, HttpError> {
    let prekey = app.clients.claim_prekey(Qualified::new(id, domain), client).await?;
    Ok(Json(ClaimedPrekey { client, prekey }))
}

/// `GET /users/{domain}/{id}/prekeys`: one of each client; the federation errors.
#[tracing::instrument(name = "http.clients.claim_bundle", skip_all, fields(user.domain = %domain))]
pub(crate) async fn claim_bundle(
    State(app): State<App>,
    _: UserCaller,
    Path((domain, id)): Path<(Domain, UserId)>,
) -> Result<Json<PrekeyBundle>, HttpError> {
    let prekeys = app.clients.claim_bundle(Qualified::new(id, domain)).await?;
    let clients = prekeys.into_iter().map(|(client, prekey)| ClaimedPrekey { client, prekey }).collect();
    Ok(Json(PrekeyBundle { user: id, clients }))
}

/// `POST /users/list-prekeys`: `null` for clients without prekeys or that do not exist; users of backends that cannot be
/// asked are in `failed_to_list`. 403 `too-many-clients` for more than 500 users.
#[tracing::instrument(name = "http.clients.claim_many", skip_all)]
pub(crate) async fn claim_many(
    State(app): State<App>,
    _: UserCaller,
    Json(wanted): Json<BTreeMap<Domain, HashMap<UserId, Vec<ClientId>>>>,
) -> Result<Json<ClaimedPrekeys>, HttpError> {
    let claimed = app.clients.claim_many(wanted).await?;
    let map = claimed.prekeys.into_iter().map(|(domain, users)| {
        let users = users.into_iter().map(|(user, clients)| (user, clients.into_iter().collect()));
        (domain, users.collect())
    });
    Ok(Json(ClaimedPrekeys { qualified_user_client_prekeys: map.collect(), failed_to_list: claimed.failed }))
}

/// `/mls/key-packages/…`: this backend does not speak MLS.
#[tracing::instrument(name = "http.clients.mls_not_enabled", skip_all, fields(user.id))]
pub(crate) async fn mls_not_enabled(_: UserCaller) -> HttpError {
    label::MLS_NOT_ENABLED.into()
}
