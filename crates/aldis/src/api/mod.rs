//! The client API of a whole backend, as it describes itself.

#[cfg(all(test, feature = "golden"))]
mod golden;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use aldis_api::{ApiVersion, routes::Description};
use anyhow::Result;
use clap::Args;
use serde_json::json;

/// Which service answers which paths where each is a process of its own: the services' own tables, by the first parts of
/// paths. `users` answers the rest. `web`, which is no service, may be left out.
pub(crate) const PREFIXES: [(&str, &[&str]); 5] = [
    ("users", aldis_users::PREFIXES),
    ("conversations", aldis_conversations::PREFIXES),
    ("assets", aldis_assets::PREFIXES),
    ("notifications", aldis_notifications::PREFIXES),
    ("web", &[aldis_web::PATH]),
];

/// The client routes of all services: every process can show them, whichever services run in it.
pub fn description() -> Arc<Description> {
    static DESCRIPTION: OnceLock<Arc<Description>> = OnceLock::new();
    let make = || {
        let tables = aldis_users::table()
            .and(aldis_conversations::table())
            .and(aldis_notifications::table())
            .and(aldis_assets::table());
        Arc::new(Description::new(tables))
    };
    DESCRIPTION.get_or_init(make).clone()
}

/// Which description is wanted.
#[derive(Debug, Args)]
pub(crate) struct OpenApi {
    /// Version of the client API.
    #[arg(long, value_name = "N", default_value_t = ApiVersion::MAX.0,
          value_parser = clap::value_parser!(u8).range(i64::from(ApiVersion::MIN.0)..=i64::from(ApiVersion::MAX.0)))]
    api_version: u8,
}

/// Prints the description.
pub(crate) fn print(wanted: &OpenApi) -> Result<()> {
    let document = description().openapi(ApiVersion(wanted.api_version));
    println!("{}", serde_json::to_string_pretty(&document)?);
    Ok(())
}

/// Prints, as one JSON object, what has to be in front of services that are processes of their own: `versions`, of which one
/// may stand before a path (`/v8`), `services` with the first parts of the paths that each answers, and the `default`.
pub(crate) fn print_routes() -> Result<()> {
    let versions: Vec<u8> = (ApiVersion::MIN.0..=ApiVersion::MAX.0).collect();
    let services: BTreeMap<&str, &[&str]> = PREFIXES.into();
    let routes = json!({ "versions": versions, "services": services, "default": "users" });
    println!("{}", serde_json::to_string_pretty(&routes)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, field)| match field {
                Value::String(text) if name == "$ref" => drop(found.insert(text)),
                _ => references(field, found),
            }),
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_route_says_how_it_succeeds_and_fails() {
        let description = description();
        assert_eq!(description.table().undescribed(), Vec::<String>::new());
        for route in description.table().rows() {
            let place = format!("{} {}", route.method, route.path);
            assert!(route.is_built() || !route.errors.is_empty(), "{place} says neither");
            assert!(!route.summary.is_empty() && !route.group.is_empty(), "{place}");
            for label in &route.errors {
                assert!(aldis_api::label::ALL.contains(label), "{place}: {label:?} is not in the table of labels");
            }
        }
    }

    #[test]
    fn descriptions_of_all_versions_hold_together() {
        for version in ApiVersion::MIN.0..=ApiVersion::MAX.0 {
            let document = description().openapi(ApiVersion(version));
            let mut found = BTreeSet::new();
            references(&document, &mut found);
            for reference in found {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "v{version}: {reference} leads nowhere");
            }
            let mut ids = BTreeSet::new();
            for (path, operations) in document["paths"].as_object().unwrap() {
                for (method, operation) in operations.as_object().unwrap() {
                    assert!(ids.insert(operation["operationId"].to_string()), "{method} {path}");
                    let parameters = operation["parameters"].as_array().unwrap();
                    let named = parameters.iter().filter(|parameter| parameter["in"] == "path").count();
                    assert_eq!(named, path.matches('{').count(), "{method} {path}");
                }
            }
        }
    }
}
