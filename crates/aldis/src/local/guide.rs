//! What `aldis local up` prints once everything runs.

use std::io::Write as _;

use super::layout::{Backend, Folder, loopback};

/// Prints the guide to standard output.
pub(crate) fn print(folder: &Folder, backends: &[Backend]) {
    // Whoever closed our standard output does not want to read this.
    let _ = std::io::stdout().lock().write_all(text(folder, backends).as_bytes());
}

pub(crate) fn text(folder: &Folder, backends: &[Backend]) -> String {
    let mut text = String::new();
    for backend in backends {
        text.push_str(&format!("{} {}\n", backend.domain, loopback(backend.client)));
    }
    text.push_str(&folder.path().display().to_string());
    text
}
