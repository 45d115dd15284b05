//! Our description against descriptions of the same API made elsewhere, which are not part of this project; see
//! `make test-golden`. Held against each other: paths, methods, required fields of requests and answers, statuses.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use aldis_api::ApiVersion;
use serde_json::Value;

use super::description;

/// Where we differ on purpose: what, and why. Routes without parameters' names.
const DELIBERATE: &[(&str, &str)] = &[
    ("POST /assets: can answer 403", "rules of ours on types of files"),
    ("GET /assets/{}/{}: can answer 206", "parts of a file"),
    ("GET /assets/{}/{}: can answer 403", "rules of ours on files of other backends"),
    ("GET /assets/{}/{}: can answer 416", "parts of a file"),
    ("DELETE /assets/{}/token: can answer 403", "as for the new token"),
    ("DELETE /assets/{}/token: can answer 404", "as for the new token"),
];

/// How deep fields of fields are compared.
const DEPTH: usize = 6;

struct Api {
    document: Value,
    /// By method and path, without the names of parameters.
    operations: BTreeMap<String, Value>,
}

impl Api {
    fn new(document: Value) -> Self {
        let mut operations = BTreeMap::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            let parts: Vec<_> = path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect();
            for (method, operation) in methods.as_object().unwrap() {
                operations.insert(format!("{} {}", method.to_uppercase(), parts.join("/")), operation.clone());
            }
        }
        Self { document, operations }
    }

    /// A schema with references followed, parts joined, and without the alternative `null`.
    fn whole(&self, schema: &Value) -> Value {
        if let Some(reference) = schema["$ref"].as_str() {
            return self.whole(self.document.pointer(reference.trim_start_matches('#')).unwrap());
        }
        for choice in ["anyOf", "oneOf"] {
            if let Some(choices) = schema[choice].as_array() {
                let mut choices = choices.iter().filter(|choice| choice["type"] != "null");
                if let (Some(only), None) = (choices.next(), choices.next()) {
                    return self.whole(only);
                }
            }
        }
        let Some(parts) = schema["allOf"].as_array() else { return schema.clone() };
        let mut joined = serde_json::json!({ "properties": {}, "required": [] });
        for part in parts {
            let part = self.whole(part);
            for (name, field) in part["properties"].as_object().into_iter().flatten() {
                joined["properties"][name] = field.clone();
            }
            joined["required"].as_array_mut().unwrap().extend(part["required"].as_array().cloned().unwrap_or_default());
        }
        joined
    }

    /// The fields that must be there, as `a.b`; a list's are those of its items. With each whether it can be there.
    fn required(&self, schema: &Value) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        self.add_required(schema, "", DEPTH, &mut found);
        found
    }

    fn add_required(&self, schema: &Value, place: &str, depth: usize, found: &mut BTreeSet<String>) {
        let schema = self.whole(schema);
        if depth == 0 {
            return;
        }
        if schema["items"].is_object() {
            return self.add_required(&schema["items"], place, depth - 1, found);
        }
        let required: BTreeSet<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let place = format!("{place}.{name}");
            if required.contains(name.as_str()) {
                found.insert(place.clone());
            }
            self.add_required(field, &place, depth - 1, found);
        }
    }

    /// Every field that can be there.
    fn possible(&self, schema: &Value, place: &str, depth: usize, found: &mut BTreeSet<String>) {
        let schema = self.whole(schema);
        if depth == 0 {
            return;
        }
        if schema["items"].is_object() {
            return self.possible(&schema["items"], place, depth - 1, found);
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let place = format!("{place}.{name}");
            found.insert(place.clone());
            self.possible(field, &place, depth - 1, found);
        }
    }

    fn fields(&self, schema: &Value) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        self.possible(schema, "", DEPTH, &mut found);
        found
    }
}

/// The schema of a JSON body.
fn json_of(message: &Value) -> Option<&Value> {
    let content = message["content"].as_object()?;
    content.iter().find(|(media, _)| media.starts_with("application/json")).map(|(_, content)| &content["schema"])
}

fn statuses(operation: &Value) -> BTreeSet<u16> {
    operation["responses"].as_object().unwrap().keys().filter_map(|status| status.parse().ok()).collect()
}

/// Statuses that every route may have, which other descriptions leave unsaid.
fn is_general(status: u16) -> bool {
    matches!(status, 400 | 401 | 408 | 413 | 415 | 420 | 500 | 501 | 503)
}

/// Failures of calls to another backend.
fn is_federation(status: u16) -> bool {
    matches!(status, 422 | 521 | 525 | 533)
}

fn compare(name: &str, ours: &Api, theirs: &Api, differ: &mut BTreeSet<String>) {
    let (mine, other) = (&ours.operations[name], theirs.operations.get(name));
    let mut note = |what: String| {
        differ.insert(format!("{name}: {what}"));
    };
    let Some(other) = other else { return note("is not there".to_owned()) };

    if let (Some(read), Some(known)) = (json_of(&mine["requestBody"]), json_of(&other["requestBody"])) {
        let (wanted, known_wanted) = (ours.required(read), theirs.required(known));
        wanted.difference(&known_wanted).for_each(|field| note(format!("needs {field}")));
        let (fields, known_fields) = (ours.fields(read), theirs.fields(known));
        let missing = known_wanted.difference(&wanted).filter(|field| known_fields.contains(*field));
        missing.for_each(|field| {
            note(format!("{} {field}", if fields.contains(field) { "can do without" } else { "does not read" }));
        });
    }
    let (mine_statuses, other_statuses) = (statuses(mine), statuses(other));
    for status in mine_statuses.difference(&other_statuses) {
        if !is_general(*status) && !is_federation(*status) {
            note(format!("can answer {status}"));
        }
    }
    for status in other_statuses.difference(&mine_statuses) {
        note(format!("never answers {status}"));
    }
    for status in mine_statuses.intersection(&other_statuses).filter(|status| **status < 300) {
        let answer = |operation: &Value| json_of(&operation["responses"][status.to_string()]).cloned();
        let (Some(written), Some(known)) = (answer(mine), answer(other)) else {
            if answer(mine).is_some() != answer(other).is_some() {
                note(format!("differs in whether {status} has a body"));
            }
            continue;
        };
        let always = ours.required(&written);
        theirs.required(&known).difference(&always).for_each(|field| note(format!("leaves out {field} of {status}")));
    }
}

#[test]
fn golden_descriptions_agree() {
    let folder = std::env::var_os("ALDIS_GOLDEN").map(PathBuf::from).expect("ALDIS_GOLDEN names the folder");
    let mut unused: BTreeSet<&str> = DELIBERATE.iter().map(|(what, _)| *what).collect();
    let (mut unknown, mut compared) = (BTreeMap::new(), 0);
    for version in [8, 10, 13] {
        let path = folder.join(format!("openapi/client-api-v{version}.json"));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let ours = Api::new(description().openapi(ApiVersion(version)));
        let theirs = Api::new(serde_json::from_str(&text).unwrap());
        let mut differ = BTreeSet::new();
        for name in ours.operations.keys() {
            compare(name, &ours, &theirs, &mut differ);
            compared += 1;
        }
        for difference in differ {
            if DELIBERATE.iter().any(|(what, _)| *what == difference) {
                unused.remove(difference.as_str());
            } else {
                unknown.entry(difference).or_insert_with(Vec::new).push(version);
            }
        }
    }
    println!("{compared} routes compared, {} differences on purpose", DELIBERATE.len());
    assert!(unknown.is_empty(), "differences without a reason: {unknown:#?}");
    assert!(unused.is_empty(), "differences that are gone: {unused:#?}");
}
