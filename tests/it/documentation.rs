//! `docs/client-api.md` is what the tables of routes say, and names a test for each route.
//!
//! `make docs-api` writes it. Which test asks which route is noted by the tests themselves while they run; `make test` fails
//! when a test that is named here did not ask (`scripts/check-coverage.sh`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use aldis_api::{ApiVersion, label, routes::Route};
use anyhow::{Context as _, Result, ensure};

/// What a first milestone needs: everything here does something.
const NEEDED: &str = "
    GET /api-version, GET /status, GET /deeplink.json, GET /deeplink.html
    POST /login, POST /access, POST /access/logout, GET /cookies, POST /cookies/remove, PUT /access/self/email
    POST /register, GET /activate, POST /activate, POST /activate/send, GET /self, PUT /self, DELETE /self
    PUT /self/handle, PUT /self/locale, HEAD /self/password, PUT /self/password, PUT /self/supported-protocols
    POST /password-reset, POST /password-reset/complete, POST /delete
    GET /system/settings, GET /system/settings/unauthorized
    POST /list-users, GET /users/{}/{}, POST /handles, HEAD /handles/{}, GET /users/by-handle/{}/{}
    GET /search/contacts, GET /users/{}/{}/supported-protocols
    GET /properties, DELETE /properties, GET /properties-values
    GET /properties/{}, PUT /properties/{}, DELETE /properties/{}
    POST /clients, GET /clients, GET /clients/{}, PUT /clients/{}, DELETE /clients/{}
    GET /clients/{}/capabilities, GET /clients/{}/prekeys, GET /users/{}/{}/clients, GET /users/{}/{}/clients/{}
    POST /users/list-clients, GET /users/{}/{}/prekeys, GET /users/{}/{}/prekeys/{}, POST /users/list-prekeys
    POST /connections/{}/{}, PUT /connections/{}/{}, GET /connections/{}/{}, POST /list-connections
    POST /conversations, POST /conversations/list-ids, POST /conversations/list, POST /conversations/self
    GET /conversations/{}/{}, PUT /conversations/{}/{}/name, POST /conversations/{}/{}/members
    DELETE /conversations/{}/{}/members/{}/{}, PUT /conversations/{}/{}/members/{}/{}
    GET /conversations/{}/{}/self, PUT /conversations/{}/{}/self, GET /conversations/{}/roles
    POST /conversations/{}/{}/typing, PUT /conversations/{}/{}/access, PUT /conversations/{}/{}/receipt-mode
    PUT /conversations/{}/{}/message-timer, PUT /conversations/{}/{}/members
    POST /conversations/{}/{}/proteus/messages
    GET /notifications, GET /notifications/last, GET /notifications/{}, GET /await, GET /time
    GET /feature-configs
";

/// What may be small or refuse honestly, but must be there.
const STUBS: &str = "
    POST /verification-code/send, GET /users/{}/rich-info, POST /one2one-conversations, GET /one2one-conversations/{}/{}
    GET /conversations/mls-self, POST /broadcast/proteus/messages, POST /conversations/{}/otr/messages
    GET /mls/public-keys, POST /get-domain-registration, GET /sso/settings, GET /custom-backend/by-domain/{}
    GET /self/consent, PUT /self/consent, GET /teams
    POST /conversations/{}/code, GET /conversations/{}/code, DELETE /conversations/{}/code, POST /conversations/code-check
    GET /conversations/join, POST /conversations/join, GET /conversations/{}/features/conversationGuestLinks
    GET /events, GET /push/tokens, POST /push/tokens, DELETE /push/tokens/{}, GET /calls/config/v2
    POST /assets, GET /assets/{}/{}, DELETE /assets/{}/{}, POST /assets/{}/token, DELETE /assets/{}/token
";

const INTRODUCTION: &str = "# The client API, route by route

Made by `make docs-api` from the tables of routes in the code (`crates/*/src/routes.rs`); `make test` fails when it is stale, or
when a test that is named here does not ask the route. `openapi.json` has the bodies: every backend serves it for each
version as `/vN/api/openapi.json`, shows it as a page at `/api`, and `aldis openapi` prints it.

Paths stand below a version, `/v8` to `/v13`; *bare* are those that apps ask without one. A version that is not spoken is
answered 404 `unsupported-version`, a route that a version does not have 404 `no-endpoint`, another method 405
`method-not-allowed`. A request without a version is one of version 8.

";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn name_of(route: &Route) -> String {
    format!("{} {}", route.method, route.path)
}

/// Without the names of parameters.
fn shape(name: &str) -> String {
    let parts = name.split('/').map(|part| if part.starts_with('{') { "{}" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', '\n']).map(str::trim).filter(|name| !name.is_empty())
}

fn versions(route: &Route) -> String {
    let (since, until) = (route.since.0, route.until.0);
    let range = match (since == ApiVersion::MIN.0, until == ApiVersion::MAX.0) {
        (true, true) => "all".to_owned(),
        (_, true) => format!("{since} on"),
        (true, _) => format!("to {until}"),
        _ => format!("{since}–{until}"),
    };
    if route.unprefixed { format!("{range}, bare") } else { range }
}

/// The labels of a route by status; those of calls to other backends as one.
fn labels(route: &Route) -> String {
    let federated = label::FEDERATION.iter().all(|row| route.errors.contains(row));
    let mut rows: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for row in &route.errors {
        let names = rows.entry(row.status).or_default();
        let is_listed = names.contains(&row.label) || (federated && label::FEDERATION.contains(row));
        if !is_listed {
            names.push(row.label);
        }
    }
    for (status, _) in &route.deviations {
        rows.entry(*status).or_default();
    }
    let mut texts = Vec::new();
    for (status, names) in rows {
        let own = route.deviations.iter().any(|(deviating, _)| *deviating == status);
        let names = names.iter().map(|name| format!("`{name}`"));
        let names: Vec<_> = names.chain(own.then(|| "a body of its own".to_owned())).collect();
        if !names.is_empty() {
            texts.push(format!("{status} {}", names.join(", ")));
        }
    }
    if federated {
        texts.push("federation".to_owned());
    }
    texts.join("; ")
}

/// Which tests asked a route and were answered; for routes that only refuse, refused.
type Asked = BTreeMap<String, BTreeSet<String>>;

fn noted(folder: &Path) -> Result<Asked> {
    let mut asked = Asked::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        for line in fs::read_to_string(entry?.path())?.lines() {
            let mut words = line.split(' ');
            let (Some(outcome), Some(method), Some(path), Some(test)) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                continue;
            };
            asked.entry(format!("{outcome} {method} {path}")).or_default().insert(test.to_owned());
        }
    }
    Ok(asked)
}

fn outcome(route: &Route) -> &'static str {
    if route.is_built() { "answered" } else { "refused" }
}

/// The test of each route: the one that is named already while it still asks, else the one that asks the fewest others.
fn choose(asked: &Asked, named: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut breadth: BTreeMap<&String, usize> = BTreeMap::new();
    for test in asked.values().flatten() {
        *breadth.entry(test).or_default() += 1;
    }
    let mut chosen = BTreeMap::new();
    for route in aldis::description().table().rows() {
        let name = name_of(route);
        let Some(tests) = asked.get(&format!("{} {name}", outcome(route))) else { continue };
        let old = named.get(&name).filter(|test| tests.contains(*test));
        if let Some(test) = old.or_else(|| tests.iter().min_by_key(|test| breadth.get(test))) {
            chosen.insert(name, test.clone());
        }
    }
    chosen
}

fn render(tests: &BTreeMap<String, String>) -> Result<String> {
    let mut text = INTRODUCTION.to_owned();
    let general = label::GENERAL.iter().map(|row| format!("{} `{}`", row.status, row.label));
    writeln!(
        text,
        "Any route can answer {}; one that needs a token 401 `invalid-credentials`; one that reads something 400 \
         `bad-request`, and one with a body 413 `client-error`. *Federation* stands for what a call to another backend can \
         end in: {}. Routes that are *not available* exist to say so.",
        general.collect::<Vec<_>>().join(", "),
        label::FEDERATION.iter().map(|row| format!("{} `{}`", row.status, row.label)).collect::<Vec<_>>().join(", "),
    )?;
    let description = aldis::description();
    let mut group = "";
    for route in description.table().rows() {
        if route.group != group {
            group = route.group;
            // Groups may be taken up again further down the tables.
            writeln!(text, "\n## {group}\n\n| route | versions | what it does | answers | errors of its own | test |")?;
            writeln!(text, "|---|---|---|---|---|---|")?;
        }
        let name = name_of(route);
        let statuses: BTreeSet<String> = route.answers.iter().map(|answer| answer.status.to_string()).collect();
        let answers = if statuses.is_empty() {
            "not available".to_owned()
        } else {
            statuses.into_iter().collect::<Vec<_>>().join(", ")
        };
        writeln!(
            text,
            "| `{name}` | {} | {} | {answers} | {} | {} |",
            versions(route),
            route.summary,
            labels(route),
            tests.get(&name).map(|test| format!("`{test}`")).unwrap_or_default(),
        )?;
    }
    Ok(text)
}

/// The tests that a page names, by route.
fn named(page: &str) -> BTreeMap<String, String> {
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.split(" | ").collect();
        let test = cells.last()?.strip_suffix(" |")?.trim_matches('`');
        Some((cells.first()?.trim_matches('`').to_owned(), test.to_owned()))
    });
    rows.filter(|(_, test)| !test.is_empty()).collect()
}

#[test]
fn the_page_is_what_the_tables_of_routes_say() -> Result<()> {
    let place = root().join("docs/client-api.md");
    let page = fs::read_to_string(&place).unwrap_or_default();
    let mut tests = named(&page);
    if let Some(folder) = std::env::var_os("ALDIS_WRITE_CLIENT_API") {
        tests = choose(&noted(Path::new(&folder))?, &tests);
        fs::write(&place, render(&tests)?)?;
        let missing: Vec<_> = aldis::description().table().rows().iter().map(name_of).collect();
        let missing: Vec<_> = missing.into_iter().filter(|name| !tests.contains_key(name)).collect();
        ensure!(missing.is_empty(), "no test asks {missing:#?}");
        return Ok(());
    }
    ensure!(page == render(&tests)?, "docs/client-api.md is stale; `make docs-api` writes it");
    for route in aldis::description().table().rows() {
        let name = name_of(route);
        let test = tests.get(&name).with_context(|| format!("{name} has no test"))?;
        let (module, function) = test.split_once("::").with_context(|| test.clone())?;
        let source = fs::read_to_string(root().join(format!("tests/it/{module}.rs")))?;
        ensure!(source.contains(&format!("fn {function}(")), "{test}, named for {name}, does not exist");
    }
    Ok(())
}

#[test]
fn nothing_that_apps_need_is_missing() -> Result<()> {
    let description = aldis::description();
    let rows = description.table().rows();
    let routes: BTreeMap<String, &Route> = rows.iter().map(|route| (shape(&name_of(route)), route)).collect();
    let missing: Vec<&str> = listed(NEEDED)
        .filter(|name| routes.get(*name).is_none_or(|route| !route.is_built()))
        .chain(listed(STUBS).filter(|name| !routes.contains_key(*name)))
        .collect();
    ensure!(missing.is_empty(), "missing: {missing:#?}");
    Ok(())
}
