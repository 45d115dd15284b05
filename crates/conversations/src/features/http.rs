//! Client routes of features: truthful answers for accounts without teams on a backend without MLS.

use std::{borrow::Cow, collections::BTreeMap};

use aldis_api::{HttpError, Json, Path, Query, UserCaller, label};
use aldis_types::ConversationId;
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::app::App;

/// Features without settings of their own that are off and cannot be turned on.
const OFF: [&str; 18] = [
    "apps",
    "assetAuditLog",
    "cells",
    "chatBubbles",
    "consumableNotifications",
    "digitalSignatures",
    "domainRegistration",
    "exposeInvitationURLsToTeamAdmin",
    "legalhold",
    "limitedEventFanout",
    "outlookCalIntegration",
    "searchVisibility",
    "searchVisibilityInbound",
    "simplifiedUserConnectionRequestQRCode",
    "sndFactorPasswordChallenge",
    "sso",
    "stealthUsers",
    "validateSAMLemails",
];

/// Whether a feature can be used.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Feature {
    status: String,
    #[serde(rename = "lockStatus")]
    lock_status: String,
    ttl: String,
    /// Settings of the feature's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Map<String, Value>>,
}

/// The features by name.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Features(BTreeMap<String, Feature>);

/// Every feature, with its settings, is always there; some clients insist.
impl JsonSchema for Features {
    fn schema_name() -> Cow<'static, str> {
        "Features".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut properties = Map::new();
        for (name, feature) in feature_configs(false).0 {
            let mut schema = json!({
                "type": "object",
                "properties": {
                    "status": { "enum": ["enabled", "disabled"] },
                    "lockStatus": { "enum": ["locked", "unlocked"] },
                    "ttl": { "const": "unlimited" },
                },
                "required": ["status", "lockStatus", "ttl"],
            });
            if let Some(config) = &feature.config {
                let settings: Vec<&String> = config.keys().collect();
                schema["properties"]["config"] = json!({ "type": "object", "required": settings });
                let any = settings.iter().map(|name| ((*name).clone(), json!({}))).collect::<Map<_, _>>();
                schema["properties"]["config"]["properties"] = any.into();
                schema["required"] = json!(["status", "lockStatus", "ttl", "config"]);
            }
            properties.insert(name, schema);
        }
        let names: Vec<&String> = properties.keys().collect();
        json_schema!({ "type": "object", "required": names, "properties": properties })
    }
}

pub(crate) fn feature(status: &str, lock: &str, config: Option<Value>) -> Feature {
    let config = config.and_then(|config| match config {
        Value::Object(config) => Some(config),
        _ => None,
    });
    Feature { status: status.to_owned(), lock_status: lock.to_owned(), ttl: "unlimited".to_owned(), config }
}

fn off(config: Value) -> Feature {
    feature("disabled", "locked", Some(config))
}

/// Every feature that any version of the API knows.
pub(super) fn feature_configs(conference_calling: bool) -> Features {
    let mut all: BTreeMap<String, Feature> =
        OFF.iter().map(|name| ((*name).to_owned(), feature("disabled", "locked", None))).collect();
    let mut put = |name: &str, value| drop(all.insert(name.to_owned(), value));
    let app_lock = json!({ "enforceAppLock": false, "inactivityTimeoutSecs": 60 });
    put("appLock", feature("enabled", "unlocked", Some(app_lock)));
    put("fileSharing", feature("enabled", "unlocked", None));
    let conferences = json!({ "useSFTForOneToOneCalls": false });
    let conferences =
        if conference_calling { feature("enabled", "unlocked", Some(conferences)) } else { off(conferences) };
    put("conferenceCalling", conferences);
    put("selfDeletingMessages", feature("enabled", "unlocked", Some(json!({ "enforcedTimeoutSeconds": 0 }))));
    put("conversationGuestLinks", feature("disabled", "locked", None));
    put(
        "mls",
        off(json!({
            "protocolToggleUsers": [], "defaultProtocol": "proteus", "supportedProtocols": ["proteus"],
            "allowedCipherSuites": [2], "defaultCipherSuite": 2, "groupInfoDiagnostics": false,
        })),
    );
    put("mlsE2EId", off(json!({ "verificationExpiration": 86400 })));
    put("mlsMigration", off(json!({})));
    put("classifiedDomains", feature("disabled", "unlocked", Some(json!({ "domains": [] }))));
    put(
        "channels",
        off(json!({
            "allowed_to_create_channels": "team-members", "allowed_to_open_channels": "team-members",
        })),
    );
    put("allowedGlobalOperations", off(json!({ "mlsConversationReset": false })));
    put("enforceFileDownloadLocation", off(json!({})));
    Features(all)
}

/// `GET /feature-configs`.
#[tracing::instrument(name = "http.features.feature_configs", skip_all, fields(user.id))]
pub(crate) async fn get_feature_configs(State(app): State<App>, _: UserCaller) -> Json<Features> {
    Json(feature_configs(app.config.conference_calling))
}

/// `GET /conversations/{id}/features/conversationGuestLinks`, for members.
#[tracing::instrument(name = "http.features.guest_links", skip_all, fields(user.id, conversation.id = %id))]
pub(crate) async fn guest_links(
    State(app): State<App>,
    caller: UserCaller,
    Path(id): Path<ConversationId>,
) -> Result<Json<Feature>, HttpError> {
    app.find_own_for(caller.user, id).await?;
    Ok(Json(feature("disabled", "locked", None)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum KeyFormat {
    Raw,
    Jwk,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct KeysQuery {
    format: Option<KeyFormat>,
}

/// Public keys by purpose and signature scheme, as base64 or as JSON web keys.
#[derive(Serialize, JsonSchema)]
pub(crate) struct PublicKeys {
    removal: BTreeMap<String, Value>,
}

/// `GET /mls/public-keys`: answered whether or not MLS is on, because clients do not start without.
#[tracing::instrument(name = "http.features.public_keys", skip_all, fields(user.id))]
pub(crate) async fn public_keys(
    State(app): State<App>,
    _: UserCaller,
    Query(query): Query<KeysQuery>,
) -> Result<Response, HttpError> {
    Ok(Json(match query.format {
        None | Some(KeyFormat::Raw) => app.keys.raw(),
        Some(KeyFormat::Jwk) => app.keys.jwk(),
    })
    .into_response())
}

/// The teams of the caller.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Teams {
    teams: [String; 0],
    has_more: bool,
}

/// `GET /teams`: there are none.
#[tracing::instrument(name = "http.features.teams", skip_all, fields(user.id))]
pub(crate) async fn teams(_: UserCaller) -> Json<Teams> {
    Json(Teams { teams: [], has_more: false })
}

/// Anything about a team.
#[tracing::instrument(name = "http.features.no_team", skip_all, fields(user.id))]
pub(crate) async fn no_team(_: UserCaller) -> HttpError {
    label::NO_TEAM.into()
}
