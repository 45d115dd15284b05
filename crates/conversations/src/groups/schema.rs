//! How answers look to clients where one struct of ours has several forms. Only described, never made.

use std::{borrow::Cow, collections::BTreeSet};

use aldis_types::{ConversationId, Domain, Qualified, Timestamp, UserId};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

use super::json::ConversationJson;

/// A conversation with the top-level `id`: in lists, and single ones up to version 9.
pub(crate) struct ListedConversation(());

/// A conversation without it: single ones from version 10 on.
pub(crate) struct SingleConversation(());

fn shape(generator: &mut SchemaGenerator, with_id: bool) -> Schema {
    let mut schema = ConversationJson::json_schema(generator);
    if let Some(fields) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        // Of the form in events only.
        fields.remove("access_role_v2");
        if !with_id {
            fields.remove("id");
        }
    }
    if let (true, Some(required)) = (with_id, schema.get_mut("required").and_then(Value::as_array_mut)) {
        required.push(json!("id"));
    }
    schema
}

impl JsonSchema for ListedConversation {
    fn schema_name() -> Cow<'static, str> {
        "ListedConversation".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        shape(generator, true)
    }
}

impl JsonSchema for SingleConversation {
    fn schema_name() -> Cow<'static, str> {
        "Conversation".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        shape(generator, false)
    }
}

/// A new conversation.
#[derive(JsonSchema)]
#[schemars(rename = "Created{C}")]
#[allow(dead_code)]
pub(crate) struct Created<C> {
    #[serde(flatten)]
    conversation: C,
    failed_to_add: BTreeSet<Qualified<UserId>>,
}

/// Conversations by id.
#[derive(JsonSchema)]
#[allow(dead_code)]
pub(crate) struct Conversations {
    found: Vec<ListedConversation>,
    not_found: Vec<Qualified<ConversationId>>,
    failed: Vec<Qualified<ConversationId>>,
}

/// Two backends that do not federate with each other; nothing was changed.
#[derive(JsonSchema)]
#[allow(dead_code)]
pub(crate) struct NonFederatingBackends {
    non_federating_backends: [Domain; 2],
}

/// The event that tells of a change, as the clients of members get it.
#[derive(JsonSchema)]
#[allow(dead_code)]
pub(crate) struct ConversationEvent {
    #[serde(rename = "type")]
    kind: String,
    conversation: ConversationId,
    qualified_conversation: Qualified<ConversationId>,
    from: UserId,
    qualified_from: Qualified<UserId>,
    time: Timestamp,
    via: String,
    /// What changed, of a form for each type.
    data: Value,
}
