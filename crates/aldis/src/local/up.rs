//! `aldis local up`: the DNS server and every backend, each a process of its own, for as long as we run.

use std::path::Path;

use aldis_storage::{ServiceLock, StoreError};
use aldis_types::Domain;
use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    dns, guide, init,
    layout::{Backend, Folder, SERVICES, State, loopback},
    people::{self, Person},
    process::{LogFollower, Process, stop_all},
    ready::{self, ReadyBackend, ReadyDns, ReadyFile, is_ready, wait},
};
use crate::config::Config;

/// Starts the backends of `folder` (those that `options` names, or all) and stays until asked to stop.
pub(crate) async fn run(
    folder: &Folder,
    options: &init::Options,
    with_people: bool,
    ready_file: Option<&Path>,
) -> Result<()> {
    let state = init::run(folder, options).await?;
    let backends = chosen(&state, &options.domains)?;
    for backend in &backends {
        is_free(folder, &backend.domain)?;
        keeps_its_ports(folder, backend)?;
    }
    remove_stale(ready_file)?;
    let mut stop = Stop::new()?;
    let mut started = Vec::new();
    let logs = LogFollower::start()?;
    let wanted = Wanted { folder, state: &state, backends: &backends, with_people, ready_file };
    let outcome = tokio::select! {
        outcome = start(&wanted, &logs, &mut started) => outcome.map(Some),
        () = stop.asked() => Ok(None),
    };
    if let Ok(Some(people)) = &outcome {
        guide::print(&guide::Guide { folder, state: &state, backends: &backends, people, ready_file });
        watch(&mut started, &mut stop).await;
    }
    eprintln!("stopping");
    remove_stale(ready_file)?;
    stop_all(started).await;
    logs.finish();
    outcome.map(drop)
}

/// The backends to start: those named, else all.
fn chosen(state: &State, named: &[Domain]) -> Result<Vec<Backend>> {
    let chosen = |backend: &&Backend| named.is_empty() || named.contains(&backend.domain);
    let backends: Vec<Backend> = state.backends.iter().filter(chosen).cloned().collect();
    ensure!(!backends.is_empty(), "there are no backends to start");
    Ok(backends)
}

/// Refuses to start what runs already.
pub(super) fn is_free(folder: &Folder, domain: &Domain) -> Result<()> {
    let store = folder.of(domain).store();
    for service in SERVICES {
        match ServiceLock::take(&store, service) {
            Ok(_) => {}
            Err(StoreError::Locked(_)) => bail!("{domain} runs from {} already", folder.path().display()),
            Err(error) => return Err(error).with_context(|| format!("store of {domain}")),
        }
    }
    Ok(())
}

/// Refuses settings under which the backend would not be where everybody looks for it, or be open to the network.
pub(super) fn keeps_its_ports(folder: &Folder, backend: &Backend) -> Result<()> {
    let file = folder.of(&backend.domain).config();
    let config = Config::load(&file)?;
    let federation = config.federation.as_ref().map(|federation| federation.listen);
    let listeners = [
        ("client.listen", Some(config.client.listen), backend.client),
        ("operations.listen", Some(config.operations.listen), backend.operations),
        ("federation.listen", federation, backend.federation),
    ];
    for (key, address, port) in listeners {
        let expected = loopback(port);
        if let Some(address) = address.filter(|address| *address != expected) {
            bail!("{}: `{key}` = {address}; allowed in a local federation: {expected}", file.display());
        }
    }
    Ok(())
}

/// A file that an earlier run left would be taken for ours.
pub(super) fn remove_stale(ready_file: Option<&Path>) -> Result<()> {
    let Some(path) = ready_file else { return Ok(()) };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Starts the DNS server, unless one runs, and waits until it answers.
pub(super) async fn start_dns(
    folder: &Folder,
    state: &State,
    domain: &Domain,
    logs: &LogFollower,
    started: &mut Vec<Process>,
) -> Result<ReadyDns> {
    let (ready, process) = ready::start_dns(folder, state)?;
    if let Some(process) = process {
        logs.follow(&process)?;
        started.push(process);
        if let Some(process) = started.last_mut() {
            wait(process, async || dns::ask(state.dns(), domain).await).await?;
        }
    }
    Ok(ready)
}

/// What is started.
struct Wanted<'a> {
    folder: &'a Folder,
    state: &'a State,
    backends: &'a [Backend],
    with_people: bool,
    ready_file: Option<&'a Path>,
}

/// Starts everything and waits until it is ready. Returns who can log in already.
async fn start(wanted: &Wanted<'_>, logs: &LogFollower, started: &mut Vec<Process>) -> Result<Vec<Person>> {
    let &Wanted { folder, state, backends, with_people, ready_file } = wanted;
    let server = start_dns(folder, state, &backends[0].domain, logs, started).await?;
    let first = started.len();
    for backend in backends {
        let target = folder.of(&backend.domain);
        let config = target.config();
        let config = config.to_str().context("the folder's name is not UTF-8")?;
        let process = Process::start(backend.domain.as_str(), &["all", "--config", config], &target.log("aldis"))?;
        logs.follow(&process)?;
        started.push(process);
    }
    let waiting = started[first..].iter_mut().zip(backends).map(|(process, backend)| {
        let operations = loopback(backend.operations);
        wait(process, async move || is_ready(operations).await)
    });
    futures::future::try_join_all(waiting).await?;
    let people = if with_people { people::of(folder, backends).await } else { Ok(Vec::new()) };
    // The backends are there all the same.
    let people = people.unwrap_or_else(|error| {
        eprintln!("the first people could not be made: {error:#}");
        Vec::new()
    });
    let running = started[first..].iter().zip(backends);
    let ready = running.map(|(process, it)| ReadyBackend::new(folder, state, it, process, Vec::new())).collect();
    if let Some(path) = ready_file {
        ReadyFile::new(folder, server, ready, people.clone()).write(path)?;
    }
    Ok(people)
}

/// Reports processes that end, until asked to stop.
pub(super) async fn watch(started: &mut [Process], stop: &mut Stop) {
    let mut ends: FuturesUnordered<_> = started
        .iter_mut()
        .map(|process| async {
            let ended = process.ended().await;
            (process.name.clone(), process.pid, ended)
        })
        .collect();
    loop {
        tokio::select! {
            () = stop.asked() => return,
            Some((name, pid, ended)) = ends.next() => match ended {
                Ok(status) => eprintln!("{name} (process {pid}) ended with {status}; it is not restarted"),
                Err(error) => eprintln!("{name} (process {pid}) cannot be watched: {error}"),
            },
        }
    }
}

/// Ctrl-C, TERM, or the end of standard input where that was agreed.
pub(super) struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Stop {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    pub(super) async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
