//! `aldis local services`: one backend as separate processes behind the development router.

use std::{collections::BTreeMap, path::Path};

use aldis_types::Domain;
use anyhow::{Context as _, Result};

use super::{
    layout::{Backend, DomainFolder, Folder, ServicePorts, State, WEB, WebPorts, loopback},
    process::{LogFollower, Process, stop_all},
    ready::{ReadyBackend, ReadyFile, ReadyService, has_heard_of_users, is_ready, wait},
    up::{Stop, is_free, keeps_its_ports, remove_stale, start_dns, watch},
};
use crate::config::Config;

/// Starts the services of `domain` and stays until asked to stop.
pub(crate) async fn run(folder: &Folder, domain: &Domain, ready_file: Option<&Path>) -> Result<()> {
    let state = folder.state()?;
    let backend = state.backend(domain).with_context(|| {
        let folder = folder.path().display();
        format!("{folder} has no backend {domain}: `aldis local init --dir {folder} --domain {domain}` adds it")
    })?;
    is_free(folder, domain)?;
    keeps_its_ports(folder, backend)?;
    remove_stale(ready_file)?;
    let mut stop = Stop::new()?;
    let mut started = Vec::new();
    let logs = LogFollower::start()?;
    let outcome = tokio::select! {
        outcome = start(folder, &state, backend, &logs, &mut started, ready_file) => outcome.map(Some),
        () = stop.asked() => Ok(None),
    };
    if let Ok(Some(())) = outcome {
        let (client, app) = (loopback(backend.client), state.app(backend));
        println!("{domain} serves clients at http://{client} and the web client at {app}; Ctrl-C stops it.");
        watch(&mut started, &mut stop).await;
    }
    eprintln!("stopping");
    remove_stale(ready_file)?;
    stop_all(started).await;
    logs.finish();
    outcome.map(drop)
}

async fn start(
    folder: &Folder,
    state: &State,
    backend: &Backend,
    logs: &LogFollower,
    started: &mut Vec<Process>,
    ready_file: Option<&Path>,
) -> Result<()> {
    let dns = start_dns(folder, state, &backend.domain, logs, started).await?;
    let first = started.len();
    let target = folder.of(&backend.domain);
    let config = target.config();
    let config = config.to_str().context("the folder's name is not UTF-8")?;
    for (service, _) in backend.services() {
        start_one(&target, backend, service, &[service, "--config", config], logs, started)?;
    }
    let waiting = started[first..].iter_mut().zip(backend.services()).map(|(process, (_, ports))| {
        let operations = loopback(ports.operations);
        wait(process, async move || has_heard_of_users(operations).await)
    });
    futures::future::try_join_all(waiting).await?;
    // Folders that were made before there was a web client have no place for it.
    let web = Config::load(&target.config())?.services.web.client.map(|_| backend.web());
    if let Some(web) = web {
        let process = start_one(&target, backend, WEB, &[WEB, "--config", config], logs, started)?;
        wait(process, async || is_ready(loopback(web.operations)).await).await?;
    }

    let dir = folder.path().to_str().context("the folder's name is not UTF-8")?;
    let arguments = ["local", "router", "--dir", dir, "--domain", backend.domain.as_str()];
    let router = start_one(&target, backend, "router", &arguments, logs, started)?;
    wait(router, async || is_ready(loopback(backend.operations)).await).await?;
    let Some((router, services)) = started[first..].split_last() else { return Ok(()) };
    let listeners = backend.services().map(|(service, ports)| (service, listeners(service, ports, backend)));
    let services = services.iter().zip(listeners.chain(web.map(|web| (WEB, web_listeners(web)))));
    let services = services.map(|(process, (service, listeners))| ReadyService {
        service: service.to_owned(),
        replica: 0,
        listeners,
        pid: process.pid,
        command: process.command.clone(),
    });
    let ready = ReadyBackend::new(folder, state, backend, router, services.collect());
    if let Some(path) = ready_file {
        ReadyFile::new(folder, dns, vec![ready], Vec::new()).write(path)?;
    }
    Ok(())
}

/// Starts one process of the backend.
fn start_one<'a>(
    target: &DomainFolder,
    backend: &Backend,
    name: &str,
    arguments: &[&str],
    logs: &LogFollower,
    started: &'a mut Vec<Process>,
) -> Result<&'a mut Process> {
    let process = Process::start(&format!("{} {name}", backend.domain), arguments, &target.log(name))?;
    logs.follow(&process)?;
    started.push(process);
    started.last_mut().context("the process just started")
}

fn web_listeners(web: WebPorts) -> BTreeMap<&'static str, String> {
    BTreeMap::from([("client", loopback(web.client).to_string()), ("operations", loopback(web.operations).to_string())])
}

/// Where a service listens; as in its configuration.
fn listeners(service: &str, ports: ServicePorts, backend: &Backend) -> BTreeMap<&'static str, String> {
    let mut listeners = BTreeMap::new();
    let mut add = |name, port| drop(listeners.insert(name, loopback(port).to_string()));
    add("internal", ports.internal);
    add("operations", ports.operations);
    if service == "federator" {
        add("federation", backend.federation);
    } else {
        add("client", ports.client);
    }
    if matches!(service, "users" | "conversations") {
        add("federation", ports.federation);
    }
    listeners
}
