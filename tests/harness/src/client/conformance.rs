//! Holds every answer against the backend's own description of its API, and notes which route was asked by which test.
//!
//! In debug builds only, so that measurements are not disturbed.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::Write as _,
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use aldis_api::{ApiVersion, routes::MAY_BE_EMPTY};
use anyhow::{Context as _, Result, bail, ensure};
use http::Method;
use jsonschema::Validator;
use serde_json::{Value, json};

/// Names the folder in which it is noted who asked for what.
const COVERAGE: &str = "ALDIS_COVERAGE";

static DESCRIBED: LazyLock<Described> = LazyLock::new(Described::new);

/// What an answer is held against.
pub(super) struct Seen<'a> {
    pub(super) method: &'a Method,
    /// With query, and with the version prefix if the request had one.
    pub(super) path: &'a str,
    pub(super) status: u16,
    pub(super) content_type: Option<&'a str>,
    /// `None` when it is not kept.
    pub(super) body: Option<&'a [u8]>,
}

/// Fails when the route does not say that it gives such an answer.
pub(super) fn check(seen: &Seen<'_>) -> Result<()> {
    if !cfg!(debug_assertions) {
        return Ok(());
    }
    let (version, path) = split(seen.path);
    let Some(version) = version else { return Ok(()) };
    let Some(route) = DESCRIBED.route(version, seen.method, path) else { return Ok(()) };
    note(seen.method, &route.template, seen.status)?;
    let outcome = DESCRIBED.conforms(version, &route, seen);
    outcome.with_context(|| format!("{} {} answers otherwise than described", seen.method, route.template))
}

/// Tells whether JSON is a body that a route reads, as far as its description says; `None` for a route that reads none.
pub fn conforming(version: ApiVersion, method: &Method, template: &str) -> Option<impl Fn(&Value) -> bool + use<>> {
    let document = DESCRIBED.documents.get(&version.0)?;
    let body = &document["paths"][template][method.as_str().to_lowercase()]["requestBody"];
    let schema = body["content"]["application/json"].get("schema")?;
    let whole = json!({ "allOf": [schema], "components": document["components"] });
    let validator = jsonschema::draft202012::new(&whole).ok()?;
    Some(move |value: &Value| validator.is_valid(value))
}

/// Notes that a socket was opened.
pub(super) fn opened(path: &str) -> Result<()> {
    check(&Seen { method: &Method::GET, path, status: 101, content_type: None, body: Some(&[]) })
}

/// The version in a path, or the lowest; `None` for one that is not spoken. And the rest without query.
fn split(path: &str) -> (Option<u8>, &str) {
    let path = path.split('?').next().unwrap_or_default();
    let prefixed = path.strip_prefix("/v").and_then(|rest| rest.split_once('/'));
    match prefixed {
        Some((version, _)) if !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit()) => {
            let spoken = version.parse().ok().filter(|it| (ApiVersion::MIN.0..=ApiVersion::MAX.0).contains(it));
            (spoken, &path[2 + version.len()..])
        }
        _ => (Some(ApiVersion::MIN.0), path),
    }
}

struct Route {
    template: String,
    operation: Value,
}

/// Which answer: version, method, template of the path, status.
type Place = (u8, Method, String, u16);

/// The descriptions of all versions.
struct Described {
    documents: HashMap<u8, Value>,
    validators: Mutex<HashMap<Place, Arc<Validator>>>,
}

impl Described {
    fn new() -> Self {
        let description = aldis::description();
        let document = |version: u8| (version, description.openapi(ApiVersion(version)));
        let documents = (ApiVersion::MIN.0..=ApiVersion::MAX.0).map(document).collect();
        Self { documents, validators: Mutex::default() }
    }

    /// The route that a path belongs to: of several the one with the most fixed parts.
    fn route(&self, version: u8, method: &Method, path: &str) -> Option<Route> {
        let paths = self.documents.get(&version)?["paths"].as_object()?;
        let fitting =
            paths.iter().filter_map(|(template, operations)| Some((fit(template, path)?, template, operations)));
        let (_, template, operations) = fitting.max_by_key(|(fixed, ..)| *fixed)?;
        let operation = operations.get(method.as_str().to_lowercase())?;
        Some(Route { template: template.clone(), operation: operation.clone() })
    }

    fn conforms(&self, version: u8, route: &Route, seen: &Seen<'_>) -> Result<()> {
        let status = seen.status;
        let responses = &route.operation["responses"];
        let Some(response) = responses.get(status.to_string()) else { bail!("status {status} is not described") };
        let Some(content) = response["content"].as_object() else {
            ensure!(seen.body.is_none_or(<[u8]>::is_empty), "a body comes with status {status}");
            return Ok(());
        };
        let may_be_empty = response[MAY_BE_EMPTY] == true;
        if *seen.method == Method::HEAD || (may_be_empty && seen.body.is_some_and(<[u8]>::is_empty)) {
            return Ok(());
        }
        let media = seen.content_type.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        let described = content.contains_key(media) || content.contains_key("*/*");
        ensure!(described, "status {status} comes as {media:?}");
        let Some(body) = seen.body.filter(|_| media == "application/json") else { return Ok(()) };
        let body: Value = serde_json::from_slice(body).context("the body is not JSON")?;
        let validator = self.validator(version, route, seen.method, status)?;
        let mut faults = String::new();
        for fault in validator.iter_errors(&body).take(5) {
            write!(faults, "\n  at {:?}: {fault}", fault.instance_path().to_string())?;
        }
        ensure!(faults.is_empty(), "status {status}:{faults}\n  in {body}");
        Ok(())
    }

    /// Compiled once for each answer.
    fn validator(&self, version: u8, route: &Route, method: &Method, status: u16) -> Result<Arc<Validator>> {
        let key = (version, method.clone(), route.template.clone(), status);
        let mut known = self.validators.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(validator) = known.get(&key) {
            return Ok(validator.clone());
        }
        let schema = &route.operation["responses"][status.to_string()]["content"]["application/json"]["schema"];
        let components = self.documents.get(&version).map(|document| &document["components"]);
        let whole = json!({ "allOf": [schema], "components": components });
        let validator = jsonschema::draft202012::new(&whole).map_err(|error| anyhow::anyhow!("{error}"))?;
        let validator = Arc::new(validator);
        known.insert(key, validator.clone());
        Ok(validator)
    }
}

/// How many parts of a template are fixed; `None` when the path is not of its form.
fn fit(template: &str, path: &str) -> Option<usize> {
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    let mut fixed = 0;
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(fixed),
            (Some(wanted), Some(given)) if wanted.starts_with('{') && !given.is_empty() => {}
            (Some(wanted), Some(given)) if wanted == given => fixed += 1,
            _ => return None,
        }
    }
}

/// Notes that the running test asked a route and was not refused.
fn note(method: &Method, template: &str, status: u16) -> Result<()> {
    static NOTES: LazyLock<Option<Mutex<Notes>>> = LazyLock::new(|| {
        let folder = PathBuf::from(std::env::var_os(COVERAGE)?);
        Some(Mutex::new(Notes { file: folder.join(std::process::id().to_string()), noted: BTreeSet::new() }))
    });
    let Some(notes) = NOTES.as_ref() else { return Ok(()) };
    let thread = std::thread::current();
    let Some(test) = thread.name().filter(|name| name.contains("::")) else { return Ok(()) };
    let kind = if status < 400 { "answered" } else { "refused" };
    let line = format!("{kind} {method} {template} {test}\n");
    let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
    if !notes.noted.contains(&line) {
        fs::create_dir_all(notes.file.parent().context("folder of the notes")?)?;
        OpenOptions::new().create(true).append(true).open(&notes.file)?.write_all(line.as_bytes())?;
        notes.noted.insert(line);
    }
    Ok(())
}

struct Notes {
    file: PathBuf,
    noted: BTreeSet<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen<'a>(method: &'a Method, path: &'a str, status: u16, body: &'a str) -> Seen<'a> {
        Seen { method, path, status, content_type: Some("application/json"), body: Some(body.as_bytes()) }
    }

    #[test]
    fn paths_belong_to_the_route_with_the_most_fixed_parts() {
        assert_eq!(split("/v9/self?a=/b"), (Some(9), "/self"));
        assert_eq!(split("/v7/self"), (None, "/self"));
        assert_eq!(split("/verification-code/send"), (Some(8), "/verification-code/send"));
        let template = |path| DESCRIBED.route(13, &Method::GET, path).map(|route| route.template);
        assert_eq!(template("/users/by-handle/a.test/ann").unwrap(), "/users/by-handle/{domain}/{handle}");
        assert_eq!(template("/notifications/last").unwrap(), "/notifications/last");
        assert_eq!(template("/notifications/").as_deref(), None);
        assert_eq!(template("/nowhere").as_deref(), None);
    }

    #[test]
    fn answers_are_held_against_the_description() {
        let get = Method::GET;
        let good = r#"{"cookies":[]}"#;
        check(&seen(&get, "/v13/cookies", 200, good)).unwrap();
        check(&seen(&get, "/v13/unknown", 200, "")).unwrap();
        let refused = r#"{"code":401,"label":"invalid-credentials","message":"No."}"#;
        check(&seen(&get, "/v13/cookies", 401, refused)).unwrap();

        check(&seen(&get, "/v13/cookies", 404, refused)).unwrap_err();
        check(&seen(&get, "/v13/cookies", 401, &refused.replace("credentials", "other"))).unwrap_err();
        check(&seen(&get, "/v13/cookies", 200, r#"{"cookies":1}"#)).unwrap_err();
        check(&seen(&get, "/v13/cookies", 200, "")).unwrap_err();
        check(&Seen { content_type: Some("text/plain"), ..seen(&get, "/v13/cookies", 200, good) }).unwrap_err();
        check(&seen(&Method::POST, "/v13/access/logout", 200, "surprise")).unwrap_err();
    }
}
