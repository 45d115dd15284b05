//! The settings with their documentation, from the doc comments of the structs that they are read into: what
//! `aldis config print` writes, and the reference in docs/configuration.md.
//!
//! A doc comment may end with a paragraph `Allowed: …`, which gets a column of its own.

use std::fmt::Write as _;

use aldis_api::serve::{ClientConfig, ThrottleConfig, TlsFiles};
use aldis_runtime::telemetry::{LogConfig, TracingConfig};
use anyhow::{Context as _, Result};
use documented::{Documented, DocumentedFields};
use serde::{Serialize, de::DeserializeOwned};
use toml::{Table, Value};

use super::{
    ClusterConfig, Config, OperationsConfig, ServiceConfig, ServiceName, ServicesConfig, StoreConfig, WebServiceConfig,
};

/// One table of the file.
struct Section {
    /// Empty for the keys that belong to no table.
    name: &'static str,
    docs: &'static str,
    presence: Presence,
    keys: Vec<Key>,
}

/// Whether a table is there when the file does not hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// It must be in the file.
    Needed,
    /// Its defaults hold.
    Always,
    /// What it is about is off.
    Off,
}

struct Key {
    name: &'static str,
    meaning: String,
    allowed: Option<String>,
    /// The default, or an example for a key that has none and is needed.
    value: Option<Value>,
    needed: bool,
}

/// Words of a doc comment on one line.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A table that is read from `least`: its keys there are needed, the values of all others are defaults.
fn section<T>(name: &'static str, presence: Presence, least: &str) -> Result<Section>
where
    T: Documented + DocumentedFields + Serialize + DeserializeOwned,
{
    let read = || -> Result<(Table, Table)> {
        let least: Table = toml::from_str(least)?;
        let whole: T = least.clone().try_into()?;
        Ok((least, Table::try_from(whole)?))
    };
    let (least, values) = read().with_context(|| format!("defaults of [{name}]"))?;
    let keys = T::FIELD_NAMES.iter().zip(T::FIELD_DOCS).map(|(name, docs)| {
        let (meaning, allowed) = match docs.rsplit_once("\n\nAllowed: ") {
            Some((meaning, allowed)) => (meaning, Some(line(allowed).trim_end_matches('.').to_owned())),
            None => (*docs, None),
        };
        let value = values.get(*name).cloned();
        Key { name, meaning: line(meaning), allowed, value, needed: least.contains_key(*name) }
    });
    // Tables in it are sections of their own.
    let keys = keys.filter(|key| !matches!(&key.value, Some(Value::Table(table)) if !table.is_empty()));
    Ok(Section { name, docs: T::DOCS, presence, keys: keys.collect() })
}

/// What the smallest file holds.
const LEAST: &str = "domain = \"example.com\"\n[store]\npath = \"data/aldis.db\"";

fn sections() -> Result<Vec<Section>> {
    use Presence::{Always, Needed, Off};

    let mut all = vec![
        section::<Config>("", Needed, LEAST)?,
        section::<StoreConfig>("store", Needed, "path = 'data/aldis.db'")?,
        section::<ClusterConfig>("store.cql", Off, "addresses = ['127.0.0.1:9042']")?,
        section::<ClientConfig>("client", Always, "")?,
        section::<TlsFiles>("client.tls", Off, "certificate_file = 'client.pem'\nkey_file = 'client-key.pem'")?,
        section::<ThrottleConfig>("client.throttle", Always, "")?,
        section::<OperationsConfig>("operations", Always, "")?,
        section::<LogConfig>("log", Always, "")?,
        section::<TracingConfig>("tracing", Always, "")?,
        section::<aldis_users::Config>("users", Always, "")?,
        section::<aldis_users::Tokens>("users.tokens", Always, "")?,
        section::<aldis_users::Cookie>("users.cookie", Always, "")?,
        section::<aldis_users::Mail>("users.mail", Always, "")?,
        section::<aldis_users::Smtp>("users.mail.smtp", Off, "host = 'smtp.example.com'")?,
        section::<aldis_users::Calls>("users.calls", Always, "")?,
        section::<aldis_users::Deeplink>("users.deeplink", Off, "backend_url = 'https://api.example.com'")?,
        section::<aldis_users::AppVersions>("users.blacklist.android", Always, "")?,
        section::<aldis_users::AppVersions>("users.blacklist.ios", Always, "")?,
        section::<aldis_users::Passwords>("users.passwords", Always, "")?,
        section::<aldis_users::Limits>("users.limits", Always, "")?,
        section::<aldis_users::Retention>("users.retention", Always, "")?,
        section::<aldis_users::FederationConfig>("users.federation", Always, "")?,
        section::<aldis_users::Quotas>("users.federation.quotas", Always, "")?,
        section::<aldis_conversations::Config>("conversations", Always, "")?,
        section::<aldis_conversations::Quotas>("conversations.quotas", Always, "")?,
        section::<aldis_assets::Config>("assets", Always, "")?,
        section::<aldis_assets::RemoteConfig>("assets.remote", Always, "")?,
        section::<aldis_assets::CacheConfig>("assets.cache", Always, "")?,
        section::<aldis_assets::PeersConfig>("assets.peers", Always, "")?,
        section::<aldis_assets::S3Config>(
            "assets.s3",
            Off,
            "bucket = 'aldis'\naccess_key_id = 'aldis'\nsecret_access_key = ''",
        )?,
        section::<aldis_notifications::Config>("notifications", Always, "")?,
        section::<aldis_notifications::Push>("notifications.push", Always, "")?,
        section::<aldis_web::Config>("web", Always, "")?,
        section::<aldis_delivery::Config>("outbox", Always, "")?,
        section::<aldis_federator::Config>(
            "federation",
            Off,
            "certificate_file = 'federation.pem'\nkey_file = 'federation-key.pem'",
        )?,
        section::<ServicesConfig>("services", Always, "")?,
        section::<ServiceConfig>(SERVICE, Always, "")?,
        section::<WebServiceConfig>("services.web", Always, "")?,
    ];
    let names: Vec<&str> = all.iter().map(|section| section.name).collect();
    for section in &mut all {
        let inner =
            |key: &str| if section.name.is_empty() { key.to_owned() } else { format!("{}.{key}", section.name) };
        section.keys.retain(|key| !names.contains(&inner(key.name).as_str()));
    }
    // Every service has the same table.
    let services = ServiceName::ALL.map(ServiceName::as_str);
    if let Some(section) = all.iter_mut().find(|section| section.name == "services") {
        section.keys.retain(|key| !services.contains(&key.name));
    }
    Ok(all)
}

/// Stands for the table of each service.
const SERVICE: &str = "services.<service>";

/// A file that says what every setting means, with everything at its default: what is not needed is commented out.
pub(crate) fn toml() -> Result<String> {
    let mut text = "# Configuration of an Aldis backend: every setting with its default.\n\
         # Lines that begin with `#` and a space explain; take the `#` off the others to change them.\n\
         # A relative file name is meant from the folder of this file.\n"
        .to_owned();
    for section in sections()? {
        let off = if section.presence == Presence::Needed { "" } else { "#" };
        if !section.name.is_empty() {
            text.push('\n');
            comment(&mut text, section.docs);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{off}[{}]", section.name.replace("<service>", "users"));
        }
        for key in section.keys {
            text.push('\n');
            comment(&mut text, &key.meaning);
            if let Some(allowed) = &key.allowed {
                comment(&mut text, &format!("Allowed: {}.", allowed.replace('`', "")));
            }
            let off = if key.needed { off } else { "#" };
            let value = key.value.map(|value| format!(" {value}")).unwrap_or_default();
            let _ = writeln!(text, "{off}{} ={value}", key.name);
        }
    }
    Ok(text)
}

const WIDTH: usize = 110;

/// Paragraphs as comments.
fn comment(text: &mut String, docs: &str) {
    for paragraph in docs.split("\n\n").map(line) {
        let mut column = 0;
        for word in paragraph.split(' ') {
            if column > 0 && column + word.chars().count() < WIDTH {
                text.push(' ');
            } else {
                text.push_str(if column == 0 { "# " } else { "\n# " });
                column = 1;
            }
            column += word.chars().count() + 1;
            text.push_str(word);
        }
        text.push('\n');
    }
}

/// The reference as Markdown: a heading and a table of keys per section.
#[cfg(test)]
pub(crate) fn markdown() -> Result<String> {
    let mut text = String::new();
    for section in sections()? {
        if section.name.is_empty() {
            text.push_str("### The file\n");
        } else {
            let _ = write!(text, "\n### `[{}]`\n", section.name);
        }
        for paragraph in section.docs.split("\n\n").map(line) {
            let _ = write!(text, "\n{paragraph}\n");
        }
        if section.keys.is_empty() {
            continue;
        }
        text.push_str("\n| key | default | allowed | meaning |\n|---|---|---|---|\n");
        for key in &section.keys {
            let name = if section.name.is_empty() { String::new() } else { format!("{}.", section.name) };
            let default = match &key.value {
                _ if key.needed => "needed".to_owned(),
                None => "none".to_owned(),
                Some(value) => format!("`{value}`"),
            };
            let allowed = key.allowed.as_deref().unwrap_or_default();
            let cells = format!("| `{name}{}` | {default} | {allowed} | {} |", key.name, key.meaning);
            let _ = writeln!(text, "{}", cells.replace("|  |", "| |"));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const BEGIN: &str = "<!-- The reference is made from the code's doc comments: `make docs` writes it anew. -->\n";
    const END: &str = "<!-- End of the reference. -->\n";

    #[test]
    fn the_reference_in_the_documentation_is_what_the_code_says() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
        let page = std::fs::read_to_string(&file).unwrap();
        let (before, rest) = page.split_once(BEGIN).unwrap();
        let (reference, after) = rest.split_once(END).unwrap();
        let expected = format!("\n{}\n", markdown().unwrap());
        if std::env::var_os("ALDIS_WRITE_DOCS").is_some() {
            std::fs::write(file, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
        } else {
            assert!(
                reference == expected,
                "docs/configuration.md is not what the code says: `make docs` writes it anew"
            );
        }
    }

    /// Reads a configuration file with this text.
    fn read(text: &str) -> Table {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        let file = folder.path().join("aldis.toml");
        std::fs::write(&file, text).unwrap();
        let mut table = Table::try_from(Config::load(&file).unwrap()).unwrap();
        // It was made absolute, from a folder that is another one each time.
        table.remove("store");
        table
    }

    #[test]
    fn what_is_printed_is_the_default_configuration() {
        let printed = toml().unwrap();
        let least = read(LEAST);
        assert_eq!(read(&printed), least);
        // Also without the signs of comment before everything that has a value and belongs to no table that is off.
        let off: Vec<String> = sections()
            .unwrap()
            .into_iter()
            .filter(|section| section.presence == Presence::Off)
            .map(|section| format!("[{}]", section.name))
            .collect();
        let mut skipped = false;
        let mut whole = String::new();
        for text in printed.lines() {
            let setting = text.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(text);
            if setting.starts_with('[') {
                skipped = off.iter().any(|name| name == setting);
            }
            if !skipped && !setting.ends_with(" =") {
                whole.push_str(setting);
                whole.push('\n');
            }
        }
        assert!(whole.contains("\n[users.limits]\n") && whole.contains("\nretention_days = 28\n"), "{whole}");
        assert_eq!(read(&whole), least);
    }

    #[test]
    fn no_table_is_forgotten() {
        let names: Vec<&str> = sections().unwrap().iter().map(|section| section.name).collect();
        let whole: Config = toml::from_str(LEAST).unwrap();
        let mut open = vec![(String::new(), Table::try_from(whole).unwrap())];
        while let Some((name, table)) = open.pop() {
            for (key, value) in table {
                let name = if name.is_empty() { key } else { format!("{name}.{key}") };
                let Value::Table(inner) = value else { continue };
                let service = name.strip_prefix("services.").is_some();
                // A table that holds nothing but tables needs no heading.
                let outer = inner.values().all(Value::is_table);
                assert!(outer || service || names.contains(&name.as_str()), "{name}");
                open.push((name, inner));
            }
        }
    }
}
