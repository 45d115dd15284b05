//! `openapi.json`, from the table.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};

use bytes::Bytes;
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Content, Input, Route, Table};
use crate::{ApiVersion, Label, label};

const VERSIONS: usize = (ApiVersion::MAX.0 - ApiVersion::MIN.0 + 1) as usize;
/// Where schemas with a name are kept.
const COMPONENTS: &str = "/components/schemas";

/// The body of an error.
#[derive(Serialize, JsonSchema)]
#[allow(dead_code)] // shown, never made: errors are written by `HttpError`
struct Error {
    /// The HTTP status.
    code: u16,
    /// What went wrong, for programs.
    label: String,
    /// What went wrong, for people.
    message: String,
    /// Of failures of a call to another backend: which one.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<FederationData>,
    /// Of failures of a call to another backend: what it said itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    inner: Option<Inner>,
}

#[derive(Serialize, JsonSchema)]
#[allow(dead_code)]
struct FederationData {
    /// Always `federation`.
    #[serde(rename = "type")]
    kind: String,
    /// The other backend.
    domain: String,
    path: String,
}

#[derive(Serialize, JsonSchema)]
#[allow(dead_code)]
struct Inner {
    code: u16,
    label: String,
    message: String,
}

/// The description of all client routes, in every version.
#[derive(Debug, Default)]
pub struct Description {
    table: Table,
    documents: [OnceLock<Bytes>; VERSIONS],
}

impl Description {
    /// From the tables of all services; the routes that show the description are added.
    pub fn new(table: Table) -> Self {
        Self { table: table.and(super::serve::table()), documents: Default::default() }
    }

    /// The routes.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// `openapi.json` for a version of the API; the nearest one that we speak.
    pub fn json(&self, version: ApiVersion) -> Bytes {
        let version = version.clamp(ApiVersion::MIN, ApiVersion::MAX);
        let place = usize::from(version.0 - ApiVersion::MIN.0);
        let make = || Bytes::from(self.openapi(version).to_string());
        self.documents.get(place).map_or_else(make, |document| document.get_or_init(make).clone())
    }

    /// The description as JSON, `OpenAPI` 3.1.
    pub fn openapi(&self, version: ApiVersion) -> Value {
        let mut schemas = Schemas::new();
        let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
        let mut groups = Vec::new();
        for route in self.table.rows().iter().filter(|route| route.is_in(version)) {
            let operation = operation(route, version, &mut schemas);
            paths.entry(route.path).or_default().insert(route.method.to_lowercase(), operation);
            if !route.group.is_empty() && !groups.contains(&route.group) {
                groups.push(route.group);
            }
        }
        let mut document = json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Client API",
                "version": format!("v{}", version.0),
                "description": "What apps ask of this backend. Paths are below the version prefix.",
            },
            "servers": [{ "url": format!("/v{}", version.0) }],
            "tags": groups.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>(),
            "paths": paths,
        });
        document["components"] = json!({
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer" },
                "cookie": { "type": "apiKey", "in": "cookie", "name": "zuid" },
            },
            "schemas": schemas.finish(&mut document["paths"]),
        });
        document
    }
}

/// Schemas of what is read and of what is written: a field that may be left out of a request is always in an answer,
/// so one type has two forms.
struct Schemas {
    read: SchemaGenerator,
    written: SchemaGenerator,
}

/// Marks a reference to the form that is read, until it is known whether there are two.
const READ: &str = "#read";

impl Schemas {
    fn new() -> Self {
        let settings = |settings: SchemaSettings| {
            settings.with(|it| {
                it.definitions_path = COMPONENTS.into();
                it.meta_schema = None;
            })
        };
        Self {
            read: settings(SchemaSettings::draft2020_12().for_deserialize()).into_generator(),
            written: settings(SchemaSettings::draft2020_12().for_serialize()).into_generator(),
        }
    }

    fn read(&mut self, make: super::SchemaOf) -> Value {
        let mut schema = make(&mut self.read).to_value();
        each_reference(&mut schema, &mut |reference| reference.push_str(READ));
        schema
    }

    fn written(&mut self, make: super::SchemaOf) -> Value {
        make(&mut self.written).to_value()
    }

    /// The schemas with a name, and references to them in `paths` set right.
    fn finish(mut self, paths: &mut Value) -> Value {
        let mut all = self.written.take_definitions(true);
        let mut read = self.read.take_definitions(true);
        let differs = |name: &String, schema: &Value| all.get(name).is_some_and(|other| other != schema);
        let mut twofold: BTreeSet<String> =
            read.iter().filter(|(name, schema)| differs(name, schema)).map(|(name, _)| name.clone()).collect();
        // What refers to a type of two forms has two forms itself.
        loop {
            let refers = |schema: &Value| {
                let mut found = false;
                each_reference(&mut schema.clone(), &mut |reference| found |= twofold.contains(name_in(reference)));
                found
            };
            let more: Vec<String> = read
                .iter()
                .filter(|(name, schema)| !twofold.contains(*name) && all.contains_key(*name) && refers(schema))
                .map(|(name, _)| name.clone())
                .collect();
            if more.is_empty() {
                break;
            }
            twofold.extend(more);
        }
        let place = |reference: &mut String| {
            if twofold.contains(name_in(reference)) {
                reference.push_str("Input");
            }
        };
        for (name, mut schema) in std::mem::take(&mut read) {
            each_reference(&mut schema, &mut |reference| place(reference));
            let name = if twofold.contains(&name) { format!("{name}Input") } else { name };
            all.insert(name, schema);
        }
        each_reference(paths, &mut |reference| {
            if let Some(bare) = reference.strip_suffix(READ) {
                *reference = bare.to_owned();
                place(reference);
            }
        });
        Value::Object(all)
    }
}

fn name_in(reference: &str) -> &str {
    reference.rsplit('/').next().unwrap_or_default()
}

/// Calls `change` with every `$ref` inside.
fn each_reference(value: &mut Value, change: &mut impl FnMut(&mut String)) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(reference) if name == "$ref" => change(reference),
                    _ => each_reference(field, change),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| each_reference(item, change)),
        _ => {}
    }
}

fn operation(route: &Route, version: ApiVersion, schemas: &mut Schemas) -> Value {
    let mut operation = json!({
        "summary": route.summary,
        "operationId": operation_id(route),
        "parameters": parameters(route, schemas),
        "responses": responses(route, version, schemas),
        "security": security(&route.input),
    });
    if !route.group.is_empty() {
        operation["tags"] = json!([route.group]);
    }
    let bodies = route.input.body.iter().filter_map(|body| match body {
        Content::Json(schema) => Some(("application/json", json!({ "schema": schemas.read(*schema) }))),
        Content::Other(media) => Some((*media, json!({ "schema": { "type": "string", "format": "binary" } }))),
        Content::Empty => None,
    });
    let bodies: BTreeMap<_, _> = bodies.collect();
    if !bodies.is_empty() {
        operation["requestBody"] = json!({ "content": bodies, "required": !route.input.body_is_optional });
    }
    operation
}

fn operation_id(route: &Route) -> String {
    let words = route.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(route.method.to_lowercase()).chain(words.map(str::to_lowercase)).collect::<Vec<_>>().join("-")
}

fn security(input: &Input) -> Value {
    match (input.token, input.cookie) {
        (Some(true), _) => json!([{ "token": [] }]),
        (Some(false), _) => json!([{}, { "token": [] }]),
        (None, true) => json!([{ "cookie": [] }, { "cookie": [], "token": [] }]),
        (None, false) => json!([]),
    }
}

fn parameters(route: &Route, schemas: &mut Schemas) -> Vec<Value> {
    let mut parameters = Vec::new();
    let names: Vec<&str> = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
    let path = route.input.path.map(|make| schemas.read(make)).unwrap_or_default();
    let fields: Vec<Value> = match path.get("prefixItems") {
        Some(Value::Array(items)) => items.clone(),
        _ => vec![path],
    };
    for (index, name) in names.iter().enumerate() {
        let schema = fields.get(index).filter(|schema| !schema.is_null()).cloned();
        let schema = schema.unwrap_or_else(|| json!({ "type": "string" }));
        parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": schema }));
    }
    let query = route.input.query.map(|make| schemas.read(make)).unwrap_or_default();
    let required: Vec<&str> = query["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, schema) in query["properties"].as_object().into_iter().flatten() {
        let mut schema = schema.clone();
        without_null(&mut schema);
        let mut parameter =
            json!({ "name": name, "in": "query", "required": required.contains(&name.as_str()), "schema": schema });
        if let Some(Value::String(description)) =
            parameter["schema"].as_object_mut().and_then(|schema| schema.remove("description"))
        {
            parameter["description"] = description.into();
        }
        parameters.push(parameter);
    }
    parameters
}

/// A query cannot say `null`; a parameter is there or not.
fn without_null(schema: &mut Value) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            schema["type"] = only.clone();
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| choice["type"] != "null");
        if let [only] = choices.as_slice() {
            *schema = only.clone();
        }
    }
}

/// The labels that a route can answer, its own and those of every route of its kind.
pub(super) fn labels(route: &Route) -> Vec<Label> {
    let mut labels = route.errors.clone();
    let input = &route.input;
    if input.path.is_some() || input.query.is_some() || !input.body.is_empty() {
        labels.push(label::BAD_REQUEST);
    }
    if input.token == Some(true) {
        labels.push(label::INVALID_TOKEN_401);
    }
    if !input.body.is_empty() {
        labels.extend([label::INVALID_COMPRESSION, label::TOO_LARGE]);
    }
    labels.extend(label::GENERAL);
    labels
}

/// Says that an answer comes without a body too.
pub const MAY_BE_EMPTY: &str = "x-may-be-empty";

fn responses(route: &Route, version: ApiVersion, schemas: &mut Schemas) -> Value {
    let mut responses: BTreeMap<u16, Value> = BTreeMap::new();
    for answer in &route.answers {
        if !(answer.versions.0..=answer.versions.1).contains(&version) {
            continue;
        }
        let content = match answer.content {
            Content::Json(schema) => json!({ "application/json": { "schema": schemas.written(schema) } }),
            Content::Other(media) => json!({ media: { "schema": { "type": "string" } } }),
            Content::Empty => Value::Null,
        };
        let mut own = response("Success", content);
        // Said twice, with and without a body: either may come.
        if let Some(other) = responses.remove(&answer.status) {
            if own["content"].is_null() {
                own = other;
            }
            own[MAY_BE_EMPTY] = true.into();
        }
        responses.insert(answer.status, own);
    }
    let mut failures: BTreeMap<u16, BTreeSet<&str>> = BTreeMap::new();
    for row in labels(route) {
        failures.entry(row.status).or_default().insert(row.label);
    }
    let mut bodies: BTreeMap<u16, Vec<Value>> = BTreeMap::new();
    let error = schemas.written(super::schema_of::<Error>);
    for (status, labels) in &failures {
        let own = json!({ "allOf": [error, { "properties": { "label": { "enum": labels } } }] });
        bodies.entry(*status).or_default().push(own);
    }
    for (status, schema) in &route.deviations {
        bodies.entry(*status).or_default().push(schemas.written(*schema));
    }
    for (status, mut choices) in bodies {
        let schema = if choices.len() == 1 { choices.remove(0) } else { json!({ "anyOf": choices }) };
        let content =
            if route.method == "HEAD" { Value::Null } else { json!({ "application/json": { "schema": schema } }) };
        let labels: Vec<&str> = failures.get(&status).into_iter().flatten().copied().collect();
        let text = if labels.is_empty() { "Error".to_owned() } else { labels.join(", ") };
        responses.entry(status).or_insert_with(|| response(&text, content));
    }
    json!(responses)
}

fn response(description: &str, content: Value) -> Value {
    let mut response = json!({ "description": description });
    if !content.is_null() {
        response["content"] = content;
    }
    response
}
