//! Reading the configuration: one TOML file, then the environment on top of it.
//!
//! An environment variable `ALDIS_SECTION__KEY` replaces `key` of `[section]`, deeper tables likewise
//! (`ALDIS_USERS__MAIL__FOLDER`); `ALDIS_DOMAIN` replaces the domain. Whatever cannot be used stops the start with the
//! key, its value and what is allowed.

use std::path::{Path, PathBuf};

use figment::{
    Figment,
    error::{Actual, Kind},
    providers::{Env, Format, Toml},
    value::Value,
};
use serde::de::DeserializeOwned;

/// Prefix of environment variables that belong to the configuration.
const PREFIX: &str = "ALDIS_";
/// Largest configuration file that is read.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The configuration cannot be used. The text names the key, the value and what is allowed; values of keys that hold
/// secrets are left out.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key or value is wrong; one line each.
    #[error("configuration: {0}")]
    Invalid(String),
}

impl ConfigError {
    /// A value that was read but makes no sense; `text` names key, value and what is allowed.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }
}

/// Reads `file` and the environment into `T`. `paths` lists the keys (`section.key`) whose values are file names: a
/// relative one is meant from the folder of the configuration file, whatever the working directory is.
pub fn load<T: DeserializeOwned>(file: &Path, paths: &[String]) -> Result<T, ConfigError> {
    let unreadable = |source| ConfigError::File { path: file.to_owned(), source };
    let size = std::fs::metadata(file).map_err(unreadable)?.len();
    if size > MAX_FILE_BYTES {
        return Err(unreadable(std::io::Error::other(format!("larger than {MAX_FILE_BYTES} bytes"))));
    }
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    let folder =
        std::path::absolute(file).map_err(unreadable)?.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
    extract(Figment::from(Toml::string(&text)).merge(environment()), &folder, paths, file)
}

fn environment() -> Env {
    // Other variables with this prefix (ALDIS_BIN of a test, say) are none of ours.
    Env::prefixed(PREFIX)
        .filter(|key| key.as_str().contains("__") || key.as_str().eq_ignore_ascii_case("domain"))
        .split("__")
}

fn extract<T: DeserializeOwned>(
    mut figment: Figment,
    folder: &Path,
    paths: &[String],
    file: &Path,
) -> Result<T, ConfigError> {
    for key in paths {
        let Ok(value) = figment.find_value(key) else { continue };
        if let Some(text) = value.as_str().filter(|text| !text.is_empty() && Path::new(text).is_relative()) {
            let absolute = folder.join(text).to_string_lossy().into_owned();
            figment = figment.merge((key.as_str(), absolute));
        }
    }
    figment.extract().map_err(|errors| {
        let lines: Vec<String> = errors.into_iter().map(|error| explain(&error, &figment, file)).collect();
        ConfigError::Invalid(lines.join("\n"))
    })
}

/// One line: where, the key, its value, what is wrong and what is allowed.
fn explain(error: &figment::Error, figment: &Figment, file: &Path) -> String {
    let source = match error.metadata.as_ref().map(|metadata| metadata.name.as_ref()) {
        Some(name) if name.contains("environment") => "environment".to_owned(),
        _ => file.display().to_string(),
    };
    let key = |last: Option<&str>| {
        let mut path: Vec<&str> = error.path.iter().map(String::as_str).collect();
        if let Some(last) = last.filter(|last| path.last() != Some(last)) {
            path.push(last);
        }
        path.join(".")
    };
    let named = |key: &str| match shown(key, figment.find_value(key).ok().as_ref()) {
        Some(value) => format!("`{key}` = {value}"),
        None => format!("`{key}`"),
    };
    let text = match &error.kind {
        Kind::UnknownField(field, allowed) => {
            format!("unknown key {}; known keys here: {}", named(&key(Some(field))), list(allowed))
        }
        Kind::MissingField(field) => format!("key `{}` is missing", key(Some(field))),
        Kind::UnknownVariant(_, allowed) => {
            format!("{} is not allowed; allowed: {}", named(&key(None)), list(allowed))
        }
        Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
            format!("{} is {}; allowed: {expected}", named(&key(None)), kind_of(actual))
        }
        Kind::InvalidLength(length, expected) => {
            format!("{} has length {length}; allowed: {expected}", named(&key(None)))
        }
        Kind::Message(message) if error.path.is_empty() => message.trim_end().to_owned(),
        Kind::Message(message) => format!("{}: {message}", named(&key(None))),
        other => format!("{}: {other}", named(&key(None))),
    };
    format!("{source}: {text}")
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn kind_of(actual: &Actual) -> String {
    match actual {
        Actual::Bool(_) => "a boolean".to_owned(),
        Actual::Unsigned(_) | Actual::Signed(_) => "a whole number".to_owned(),
        Actual::Float(_) => "a fraction".to_owned(),
        Actual::Str(_) | Actual::Char(_) => "a text".to_owned(),
        Actual::Seq => "a list".to_owned(),
        Actual::Map => "a table".to_owned(),
        _ => "of the wrong kind".to_owned(),
    }
}

/// A scalar as the operator wrote it; nothing for tables and for keys that hold secrets.
fn shown(key: &str, value: Option<&Value>) -> Option<String> {
    let last = key.rsplit('.').next().unwrap_or(key);
    if ["secret", "password", "token", "key", "credential"].iter().any(|word| last.ends_with(word)) {
        return None;
    }
    match value? {
        Value::String(_, text) => Some(format!("{text:?}")),
        Value::Char(_, text) => Some(format!("{text:?}")),
        Value::Bool(_, truth) => Some(truth.to_string()),
        Value::Num(_, number) => {
            let whole = number.to_i128().map(|number| number.to_string());
            whole.or_else(|| number.to_f64().map(|number| number.to_string()))
        }
        _ => None,
    }
}
