//! Settings of a test on top of those of a configuration file.

use std::path::Path;

use anyhow::{Context as _, Result};
use toml::{Table, Value};

/// Puts `from` over `into`, table by table.
pub(crate) fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(value)) => merge(inner, value),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

/// Adds settings to a configuration file.
pub(crate) fn add(file: &Path, settings: &str) -> Result<()> {
    if settings.is_empty() {
        return Ok(());
    }
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let mut config: Table = toml::from_str(&text)?;
    merge(&mut config, toml::from_str(settings).context("settings of a test")?);
    // Overwritten in place, so that the mode of the file stays.
    Ok(std::fs::write(file, toml::to_string(&config)?)?)
}
