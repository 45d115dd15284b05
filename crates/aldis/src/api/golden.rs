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

/// Where we differ on purpose: what, with `*` for anything, and why. Routes without parameters' names.
const DELIBERATE: &[(&str, &str)] = &[
    ("GET /api*: is not there", "the description itself, and the page that shows it"),
    ("GET /deeplink.*: is not there", "files for apps, which others serve beside the API"),
    ("GET /config.json: is not there", "as the deeplink"),
    ("GET /clientblacklist/{}: is not there", "as the deeplink"),
    ("GET /status: is not there", "for monitors, which others describe elsewhere"),
    ("* /self/consent: is not there", "of a service of its own elsewhere"),
    ("GET /teams: is not there", "older apps ask; there are no teams"),
    ("GET /users/by-handle/{}/{}: is not there", "described elsewhere for older versions only, and still asked"),
    (
        "DELETE /*/members/{}/{}: leaves out .data.* of 200",
        "one form for the data of all events: theirs needs the fields of each",
    ),
    ("POST /*/members: leaves out .data.* of 200", "as above"),
    ("PUT /conversations/*: leaves out .data.* of 200", "as above"),
    ("* /*conversations*: leaves out *epoch of *", "of MLS conversations, which do not exist here"),
    ("* /*conversations*: leaves out *epoch_timestamp of *", "as above"),
    ("* /*conversations*: leaves out *group_id of *", "as above"),
    ("* /*conversations*: leaves out *cipher_suite of *", "as above"),
    ("GET /mls/public-keys: leaves out .removal.*", "the schemes are keys of a map; two of them are offered"),
    ("POST /get-domain-registration: leaves out *", "fields of answers that name another backend; ours never do"),
    (
        "GET /search/contacts: leaves out .documents.searchable of 200",
        "described for later versions, left out by servers",
    ),
    ("GET /search/contacts: leaves out .documents.user_groups of 200", "there are no user groups"),
    ("GET /users/{}/rich-info: leaves out .fields.* of 200", "the list is always empty"),
    ("POST /conversations: does not read .team.*", "there are no teams: any is refused"),
    ("POST /one2one-conversations: does not read .team.*", "as above"),
    ("POST /one2one-conversations: needs .qualified_users", "nobody can be meant without"),
    ("POST /one2one-conversations: never answers 201", "connecting makes the conversation"),
    ("POST /register: does not read .team.*", "there are no teams: any is refused"),
    ("* /*: does not read .assets.type", "a picture may come without its type, which is always the same"),
    ("POST /activate: can do without .dryrun", "as if it were false"),
    ("POST /handles: can do without .return", "as if it were one"),
    (
        "POST /cookies/remove: can do without .password",
        "answered 403 missing-auth, as apps expect of a missing password",
    ),
    ("PUT /self/password: can do without .old_password", "as above"),
    ("POST /password-reset/complete: can do without .key", "the address may stand for the key"),
    ("POST /password-reset: needs .email", "there are no phone numbers"),
    ("PUT /conversations/{}/{}/members/{}/{}: needs .conversation_role", "there is nothing else to change"),
    ("GET /activate: never answers 409", "an address is kept for whoever asked first"),
    ("POST /activate: never answers 409", "as above"),
    ("POST /activate/send: never answers 451", "no domain is blocked for legal reasons"),
    ("POST /conversations: never answers 200", "a group is always a new one"),
    ("GET /conversations/{}/{}/self: never answers 404", "null says that the caller is no member"),
    ("GET /feature-configs: never answers *", "refusals of teams, which do not exist here"),
    ("GET /await: never answers 426", "answered 400 malformed-request, as apps know it"),
    ("GET /events: never answers 426", "as above"),
    ("HEAD /handles/{}: differs in whether 200 has a body", "answers to HEAD have none"),
    ("PUT /access/self/email: differs in whether * has a body", "no app reads it"),
    ("* /*: can answer 403", "said by labels that others leave unsaid"),
    ("* /*: can answer 404", "as above: what is asked for does not exist"),
    ("PUT /self/handle: can answer 409", "as above: the handle is taken"),
    ("PUT /clients/{}: can answer 409", "as above: capabilities cannot be removed"),
    ("POST /password-reset/complete: can answer 409", "as above: the password must differ"),
    ("GET /assets/{}/{}: can answer 206", "parts of files can be asked for"),
    ("GET /assets/{}/{}: can answer 416", "as above"),
];

/// Whether a text is of a pattern.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(first) else { return false };
    (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| fits(rest, &text[at..]))
}

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
    matches!(status, 400 | 401 | 408 | 413 | 415 | 420 | 429 | 500 | 501 | 503)
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
    if !statuses(mine).iter().any(|status| *status < 400) {
        // There for an honest error.
        return;
    }

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
        let (always, known_always, fields) = (ours.required(&written), theirs.required(&known), ours.fields(&written));
        for field in known_always.difference(&always) {
            // Part of something that need not be there, and never is.
            let parent = field.rsplit_once('.').map_or("", |(parent, _)| parent);
            if parent.is_empty() || known_always.contains(parent) || fields.contains(field) {
                note(format!("leaves out {field} of {status}"));
            }
        }
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
            let mut reasons = DELIBERATE.iter().filter(|(what, _)| fits(what, &difference)).peekable();
            let is_known = reasons.peek().is_some();
            for (what, _) in reasons {
                unused.remove(what);
            }
            if !is_known {
                unknown.entry(difference).or_insert_with(Vec::new).push(version);
            }
        }
    }
    println!("{compared} routes compared, {} kinds of differences on purpose", DELIBERATE.len());
    assert!(unknown.is_empty(), "differences without a reason: {unknown:#?}");
    assert!(unused.is_empty(), "differences that are gone: {unused:#?}");
}
