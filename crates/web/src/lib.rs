//! The web client: a single-page app, built by `make web` and embedded in the binary, and the routes that serve it.
//!
//! Everything lies under `/app`. The app is the client API's user like any other: it knows nothing but what
//! `/app/config.json` says, asks its own origin alone, and keeps keys and history in the browser. A page of this origin
//! could read them, so every answer carries a policy under which nothing runs but the app's own files.
//!
//! A binary that was built without the app answers with a page that says so.

mod config;
mod files;
mod serve;

#[cfg(test)]
mod tests;

pub use self::{
    config::Config,
    serve::{Facts, router},
};

/// Where the app lies on the client listener.
pub const PATH: &str = "/app";

/// Whether the app is in this binary.
pub fn is_built() -> bool {
    files::is_built()
}
