//! What the documentation says is so.

use std::{collections::BTreeSet, fs, path::Path};

/// Names of metrics in a text.
fn metrics(text: &str, begin: &str) -> BTreeSet<String> {
    let names = text.split(begin).skip(1).map(|rest| {
        rest.chars().take_while(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || *letter == '_')
    });
    names.map(|letters| format!("aldis_{}", letters.collect::<String>())).collect()
}

/// Every source file below a folder.
fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_metric_is_documented_and_every_documented_one_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("docs/operations.md")).unwrap();
    let table = page.split("\n## ").find(|part| part.starts_with("Metrics")).unwrap();
    let documented: BTreeSet<String> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `aldis_"))
        .map(|line| format!("aldis_{}", line.split('`').next().unwrap()))
        .collect();
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join("crates")).unwrap() {
        sources(&entry.unwrap().path().join("src"), &mut found);
    }
    // In the code a name is a literal, and crates are named without quotes before them.
    let exported: BTreeSet<String> = found.iter().flat_map(|source| metrics(source, "\"aldis_")).collect();
    let exported: BTreeSet<String> =
        exported.into_iter().filter(|name| !name.ends_with('_') && !is_crate(name)).collect();
    let undocumented: Vec<_> = exported.difference(&documented).collect();
    let missing: Vec<_> = documented.difference(&exported).collect();
    assert!(undocumented.is_empty() && missing.is_empty(), "undocumented: {undocumented:?}; not there: {missing:?}");
}

/// Log filters name crates as they name metrics.
fn is_crate(name: &str) -> bool {
    let crates = ["api", "conversations", "delivery", "federator", "notifications", "peers", "storage", "users"];
    crates.iter().any(|it| name == format!("aldis_{it}"))
}
