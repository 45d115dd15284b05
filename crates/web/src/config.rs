//! `[web]`.

use documented::{Documented, DocumentedFields};
use serde::{Deserialize, Serialize};

/// The web client, under `/app` where clients are served.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether `aldis all` serves it. `aldis web` always does.
    pub enabled: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: true }
    }
}
