//! What `aldis local up` prints once everything runs.

use std::{fmt::Write as _, io::Write as _, path::Path};

use super::{
    layout::{Backend, Folder, State, loopback},
    people::Person,
};

/// What the guide is about.
pub(crate) struct Guide<'a> {
    pub(crate) folder: &'a Folder,
    pub(crate) state: &'a State,
    pub(crate) backends: &'a [Backend],
    pub(crate) people: &'a [Person],
    pub(crate) ready_file: Option<&'a Path>,
}

/// Prints the guide to standard output.
pub(crate) fn print(guide: &Guide<'_>) {
    let mut output = std::io::stdout().lock();
    // Whoever closed our standard output does not want to read this.
    let _ = output.write_all(text(guide).as_bytes()).and_then(|()| output.flush());
}

/// The guide. Lines to paste into a shell are indented by four spaces, and nothing else is.
fn text(guide: &Guide<'_>) -> String {
    let (folder, backends) = (guide.folder, guide.backends);
    let mut parts = vec![urls(guide), registration(folder, backends)];
    if let [first, second, ..] = backends {
        parts.push(walk(first, second));
        parts.push(messages(first, second, guide.ready_file));
    }
    if !guide.people.is_empty() {
        parts.push(people(guide));
    }
    parts.push(END.to_owned());
    parts.join("\n")
}

/// Last, where it is seen: the addresses to open, and who logs in there.
fn people(guide: &Guide<'_>) -> String {
    let mut text = match guide.people {
        [_] => "OPEN THIS ADDRESS in a browser and log in:\n\n",
        _ => "OPEN THESE ADDRESSES in two windows of a browser, log in, and write to each other:\n\n",
    }
    .to_owned();
    for person in guide.people {
        let home = guide.backends.iter().find(|backend| backend.domain.as_str() == person.domain);
        let app = home.map(|backend| guide.state.app(backend)).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {app}   {:17} password {}", person.email, person.password);
    }
    text.push_str("\nThey are connected and in a group, \"");
    text.push_str(super::people::GROUP);
    text.push_str("\".\n");
    if !aldis_web::is_built() {
        text.push_str("But this program was built without the web client: `make web` builds it (Node 20 or later), then start again.\n");
    }
    text
}

fn urls(guide: &Guide<'_>) -> String {
    let Guide { folder, state, backends, .. } = guide;
    let mut text = match backends {
        [_] => "\nOne backend is ready.\n\n".to_owned(),
        _ => format!("\n{} backends are ready and federate with each other.\n\n", backends.len()),
    };
    for backend in *backends {
        let (client, operations) = (loopback(backend.client), loopback(backend.operations));
        let target = folder.of(&backend.domain);
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "{domain}\n  web client  {app}\n  client API  http://{client}   (sockets ws://{client}, apps deeplink http://{client}/deeplink.json)\n  \
             status      http://{operations}/   (/readyz, /metrics)\n  mail        {mail}\n  settings    {config}\n\n",
            domain = backend.domain,
            app = state.app(backend),
            mail = target.mail().display(),
            config = target.config().display(),
        );
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn registration(folder: &Folder, backends: &[Backend]) -> String {
    let Some(first) = backends.first() else { return String::new() };
    format!(
        "ACCOUNTS\n\
         Anybody may register with an app; the activation code comes by mail, into the folder above (`X-Zeta-Code`).\n\
         Point an app that is built on @wireapp/core at a backend by `rest` http://{client} and `ws` ws://{client}.\n\
         Phones want https and a public name: see the README. Without an app, these two lines make two people:\n\n{}",
        accounts(folder, backends),
        client = loopback(first.client),
    )
}

const PEOPLE: [(&str, &str); 2] = [("Ann", "ann"), ("Ben", "ben")];

fn accounts(folder: &Folder, backends: &[Backend]) -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "aldis".into());
    let mut text = format!("    aldis='{}'\n", program.display());
    let homes = backends.iter().chain(backends.iter().cycle());
    for ((name, handle), backend) in PEOPLE.into_iter().zip(homes) {
        let config = folder.of(&backend.domain).config();
        let config = config.display();
        let person =
            format!("--email {handle}@example.com --password '{handle} likes lamps' --name {name} --handle {handle}");
        let _ = writeln!(text, "    \"$aldis\" user create --config '{config}' {person}");
    }
    text
}

/// Two people of two backends find each other and connect.
fn walk(first: &Backend, second: &Backend) -> String {
    let token = r#"sed -n 's/.*"access_token":"\([^"]*\)".*/\1/p'"#;
    let id = r#"sed -n 's/.*"id":"\([^"]*\)".*/\1/p'"#;
    let (alpha, beta) = (&first.domain, &second.domain);
    format!(
        r#"CONNECT
They log in,

    A=http://{a}/v13 B=http://{b}/v13
    ann=$(curl -s $A/login -d '{{"email":"ann@example.com","password":"ann likes lamps"}}' | {token})
    ben=$(curl -s $B/login -d '{{"email":"ben@example.com","password":"ben likes lamps"}}' | {token})

Ann searches Ben at the other backend and asks to connect,

    curl -s "$A/search/contacts?q=ben&domain={beta}" -H "Authorization: Bearer $ann"; echo
    ben_id=$(curl -s "$A/users/by-handle/{beta}/ben" -H "Authorization: Bearer $ann" | {id})
    curl -s -X POST "$A/connections/{beta}/$ben_id" -H "Authorization: Bearer $ann"; echo

and Ben accepts. From then on both are members of their one-to-one conversation, whose events wait for Ben's app:

    ann_id=$(curl -s $A/self -H "Authorization: Bearer $ann" | {id})
    curl -s -X PUT "$B/connections/{alpha}/$ann_id" -H "Authorization: Bearer $ben" -d '{{"status":"accepted"}}'; echo
    curl -s "$B/notifications?size=100" -H "Authorization: Bearer $ben"; echo
"#,
        a = loopback(first.client),
        b = loopback(second.client),
    )
}

/// How they write to each other.
fn messages(first: &Backend, second: &Backend, ready_file: Option<&Path>) -> String {
    let (alpha, beta) = (&first.domain, &second.domain);
    let ready = ready_file.map_or_else(|| "FILE".to_owned(), |file| format!("'{}'", file.display()));
    let hint = if ready_file.is_some() { "" } else { " (FILE is what `--ready-file` writes)" };
    format!(
        "MESSAGES\n\
         Apps encrypt them, which curl cannot do. The real client library can: Node 20, in the folder of the sources, in two\n\
         terminals{hint}. It makes these people if they are not there.\n\n  \
         make chat ME=ann@{alpha} WITH=ben@{beta} READY={ready}\n  \
         make chat ME=ben@{beta} WITH=ann@{alpha} READY={ready}\n"
    )
}

const END: &str =
    "Ctrl-C stops everything; started again, everything is as it was. `aldis local clean --dir …` removes it all.\n\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_backend_needs_no_walk() {
        let folder = Folder::at(Path::new("/federation")).unwrap();
        let state: State = toml::from_str("version = 1\nbase_port = 0\ndns_port = 0\n").unwrap();
        let backend = Backend {
            domain: "alpha.test".parse().unwrap(),
            client: 1,
            federation: 2,
            operations: 3,
            listed: std::collections::BTreeSet::default(),
            services: Vec::new(),
        };
        let guide = Guide { folder: &folder, state: &state, backends: &[backend], people: &[], ready_file: None };
        let text = super::text(&guide);
        assert!(text.contains("One backend") && text.contains("user create") && !text.contains("CONNECT"), "{text}");
    }
}
