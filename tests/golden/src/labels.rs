//! Our table of error labels against the one in the description of the client API, `client-api.md` in the folder of the
//! samples.

use std::{collections::BTreeSet, fs, path::PathBuf};

use aldis_api::label;

/// Labels of the description that nothing here answers, and why.
const LEFT_OUT: &[(&str, &[&str])] = &[
    (
        "there is no second factor",
        &["code-authentication-*", "code-authentication-required", "code-authentication-failed"],
    ),
    (
        "every account has a proven address and a password that stays good",
        &["ephemeral", "missing-identity", "password-is-stale", "unverified-user"],
    ),
    (
        "no address or domain is on a list of those that may not register",
        &["blacklisted-email", "condition-failed", "domain-blocked-for-registration"],
    ),
    ("a code for a new password is sent again, and the older one stays good", &["code-exists"]),
    (
        "there are no teams, no single sign-on and no legal hold",
        &["managed-by-scim", "missing-legalhold-consent", "no-self-delete-for-team-owner", "same-binding-team-users"],
    ),
    ("guest links are refused before anything else", &["create-conv-code-conflict", "invalid-conversation-password"]),
    ("of MLS conversations", &["mls-receipts-not-allowed", "non-empty-member-list"]),
    ("a push token is any text, and is not asked for at a vendor", &["invalid-token", "metadata-too-long"]),
    ("`server-error` says it", &["internal-error"]),
    ("`federation-invalid-body` says it", &["federation-unexpected-body"]),
];

/// The lines of a section, up to the next heading.
fn section<'a>(text: &'a str, heading: &str) -> Vec<&'a str> {
    let lines = text.lines().skip_while(|line| !line.starts_with(heading)).skip(1);
    lines.take_while(|line| !line.starts_with("##")).filter(|line| line.starts_with('|')).collect()
}

/// Statuses and labels in a cell such as `403: one, two · 404: three`.
fn labels(cell: &str) -> Vec<(u16, String)> {
    let mut found = Vec::new();
    for part in cell.split(['·', ';']) {
        let part = part.split('(').next().unwrap_or_default().trim();
        let digits = part.chars().take_while(char::is_ascii_digit).count();
        let (Ok(status), Some(names)) = (part[..digits].parse(), part.get(digits..)) else { continue };
        let names = names.trim_start_matches([' ', ':']).split([',', '/']).map(str::trim);
        let is_label =
            |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || "-*".contains(c));
        found.extend(names.filter(is_label).map(|name| (status, name.to_owned())));
    }
    found
}

#[test]
fn golden_labels_are_those_of_the_table() {
    let folder = std::env::var_os("ALDIS_GOLDEN").map(PathBuf::from).expect("ALDIS_GOLDEN names the folder");
    let text = fs::read_to_string(folder.join("client-api.md")).expect("client-api.md");
    let cells = |line: &str| line.split('|').nth(2).map(str::to_owned).unwrap_or_default();
    let by_group = section(&text, "### 19.1");
    let federation = section(&text, "### 19.3");
    let wanted: Vec<_> = by_group.iter().chain(&federation).flat_map(|line| labels(&cells(line))).collect();
    assert!(wanted.len() > 100, "{} labels in section 19", wanted.len());
    let mut unused: BTreeSet<&str> = LEFT_OUT.iter().flat_map(|(_, names)| *names).copied().collect();
    let mut unknown = BTreeSet::new();
    for (status, name) in &wanted {
        let known = label::ALL.iter().any(|row| row.status == *status && row.label == name);
        let left_out = LEFT_OUT.iter().flat_map(|(_, names)| *names).any(|left_out| left_out == name);
        unused.remove(name.as_str());
        if known && left_out {
            unknown.insert(format!("{status} {name} is left out, and there"));
        } else if !known && !left_out && !name.starts_with("mls-") {
            unknown.insert(format!("{status} {name} is missing"));
        }
    }
    println!("{} labels compared", wanted.len());
    assert!(unknown.is_empty(), "{unknown:#?}");
    assert!(unused.is_empty(), "left out, and not in the description: {unused:#?}");
}
