//! `aldis local init`: makes what is missing in the folder, and leaves alone what is there.

use std::{collections::BTreeSet, fs::File};

use aldis_types::{Domain, SearchPolicy};
use anyhow::{Context as _, Result, ensure};

use super::{
    certificates,
    layout::{Access, Backend, DomainFolder, Folder, ServicePorts, State, loopback, make_folder, write},
};
use crate::{admin::Administration, config::Config};

/// Domains of a federation for which none are named.
const DEFAULT_DOMAINS: [&str; 2] = ["alpha.test", "beta.test"];

/// How a folder is made.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// None: those that are there, else the default ones.
    pub(crate) domains: Vec<Domain>,
    pub(crate) base_port: u16,
    /// Whether requests are throttled, for backends that are made now.
    pub(crate) throttle: bool,
}

/// Makes the folder. Returns its state; what is there already stays as it is.
pub(crate) async fn run(folder: &Folder, options: &Options) -> Result<State> {
    ensure!(
        options.base_port == 0 || (1024..=60_000).contains(&options.base_port),
        "`--base-port` = {}; allowed: 1024 to 60000, or 0 to pick free ports",
        options.base_port
    );
    make_folder(folder.path())?;
    let lock = File::options().create(true).truncate(false).write(true).open(folder.init_lock())?;
    // Two runs at once would give a domain two sets of keys.
    lock.lock().context("waiting for another `aldis local init`")?;

    let mut domains = options.domains.clone();
    if domains.is_empty() && !folder.state_file().exists() {
        domains = DEFAULT_DOMAINS.iter().map(|domain| domain.parse()).collect::<Result<_, _>>()?;
    }
    certificates::make_authority(folder)?;
    let mut state = folder.assign(&domains, options.base_port)?;
    for backend in &state.backends {
        make_backend(folder, &state, backend, options.throttle)?;
    }
    introduce(folder, &mut state).await?;
    Ok(state)
}

/// Lists every backend at every other one, once: what an administrator changes afterwards stays changed.
async fn introduce(folder: &Folder, state: &mut State) -> Result<()> {
    let domains: BTreeSet<Domain> = state.backends.iter().map(|backend| backend.domain.clone()).collect();
    for index in 0..state.backends.len() {
        let backend = &state.backends[index];
        let unlisted = |domain: &&Domain| **domain != backend.domain && !backend.listed.contains(*domain);
        let others: Vec<Domain> = domains.iter().filter(unlisted).cloned().collect();
        if others.is_empty() {
            continue;
        }
        let config = Config::load(&folder.of(&backend.domain).config())?;
        let administration = Administration::of(&config).await.with_context(|| backend.domain.to_string())?;
        let known = administration.remotes().await?;
        for other in others.iter().filter(|other| !known.contains_key(*other)) {
            administration.set_remote(other, SearchPolicy::FullSearch).await?;
        }
        state.backends[index].listed.extend(others);
        folder.save(state)?;
    }
    Ok(())
}

fn make_backend(folder: &Folder, state: &State, backend: &Backend, throttle: bool) -> Result<()> {
    let target = folder.of(&backend.domain);
    // The configuration is written last: with it, the folder is complete.
    if target.config().exists() {
        return Ok(());
    }
    make_folder(target.path())?;
    make_folder(&target.mail())?;
    if let Some(data) = target.store().parent() {
        make_folder(data)?;
    }
    certificates::issue_federation(folder, &backend.domain, &target)?;
    certificates::issue_internal(&backend.domain, &target)?;
    write_config(&target, state, backend, throttle)
}

fn write_config(target: &DomainFolder, state: &State, backend: &Backend, throttle: bool) -> Result<()> {
    // It holds the secret shared with the TURN server.
    write(&target.config(), config(state, backend, throttle).as_bytes(), Access::Owner)
}

/// The configuration of one backend.
fn config(state: &State, backend: &Backend, throttle: bool) -> String {
    let Backend { domain, client, federation, operations, .. } = backend;
    let secret = hex::encode(rand::random::<[u8; 24]>());
    let (client, federation, operations) = (loopback(*client), loopback(*federation), loopback(*operations));
    let dns = state.dns();
    let router = super::ROUTER_ADDRESS;
    let mut text = format!(
        r#"# One backend of a local federation, written once by `aldis local init`; yours to edit.
# File names are relative to this file.
domain = "{domain}"

[store]
path = "data/aldis.db"

[client]
listen = "{client}"
allow_loopback_origins = true
# The development router of `aldis local services`.
trusted_proxies = ["{router}/32"]

[client.throttle]
enabled = {throttle}

[operations]
listen = "{operations}"
drain_seconds = 3

[log]
format = "human"
filter = "info"

[users]
registration = "open"

[users.cookie]
# Clients speak plain HTTP here.
secure = false

[users.mail]
folder = "mail"

[users.calls]
turn_uris = ["turn:127.0.0.1:3478?transport=udp", "turn:127.0.0.1:3478?transport=tcp"]
secret = "{secret}"

[users.deeplink]
title = "{domain}"
backend_url = "http://{client}"
backend_ws_url = "http://{client}"
black_list_url = "http://{client}/clientblacklist"
teams_url = "http://{client}"
accounts_url = "http://{client}"
website_url = "http://{client}"

[users.federation]
# The others are listed with `aldis remote`.
strategy = "allow_list"

[federation]
listen = "{federation}"
certificate_file = "federation.pem"
key_file = "federation-key.pem"
ca_file = "../ca.pem"
dns = "{dns}"

# For `aldis users`, `aldis conversations` and so on, each a process of its own. `aldis all` needs none of this.
[services]
ca_file = "internal/ca.pem"
"#
    );
    for (service, ports) in backend.services() {
        text.push_str(&service_section(service, ports));
    }
    let (client, operations) = (loopback(backend.web().client), loopback(backend.web().operations));
    format!("{text}\n[services.web]\nclient = \"{client}\"\noperations = \"{operations}\"\n")
}

fn service_section(service: &str, ports: ServicePorts) -> String {
    use std::fmt::Write as _;

    let mut text = format!("\n[services.{service}]\n");
    let listeners = [
        ("client", ports.client, service != "federator"),
        ("internal", ports.internal, true),
        ("federation", ports.federation, matches!(service, "users" | "conversations" | "assets")),
        ("operations", ports.operations, true),
    ];
    for (key, port, has) in listeners {
        if has {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{key} = \"{}\"", loopback(port));
        }
    }
    let _ = writeln!(text, "certificate_file = \"internal/{service}.pem\"");
    let _ = writeln!(text, "key_file = \"internal/{service}-key.pem\"");
    text
}

/// One line: the folder and its domains.
pub(crate) fn describe(folder: &Folder, state: &State) -> String {
    let domains: Vec<&str> = state.backends.iter().map(|backend| backend.domain.as_str()).collect();
    format!("{}: {}", folder.path().display(), domains.join(", "))
}
