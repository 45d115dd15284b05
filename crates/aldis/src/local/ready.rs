//! The ready file, and how readiness is found out.

use std::{net::SocketAddr, path::Path, time::Duration};

use aldis_types::Domain;
use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde::Serialize;

use super::{
    dns,
    layout::{Access, Backend, Folder, State, loopback, write},
    people::Person,
    process::Process,
};

/// How long a start may take. A busy machine is slow.
const START: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(100);
const ANSWER: Duration = Duration::from_secs(3);
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The file that `up` and `services` write once everything is ready.
#[derive(Debug, Serialize)]
pub(crate) struct ReadyFile {
    dns: ReadyDns,
    ca_file: String,
    backends: Vec<ReadyBackend>,
    /// Who can log in already, if anybody was made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    people: Vec<Person>,
}

/// The DNS server.
#[derive(Debug, Serialize)]
pub(crate) struct ReadyDns {
    address: String,
    pid: u32,
    command: Vec<String>,
}

/// A backend, as clients, peers and tests reach it.
#[derive(Debug, Serialize)]
pub(crate) struct ReadyBackend {
    domain: Domain,
    api: String,
    websocket: String,
    /// The web client.
    app: String,
    federation: String,
    operations: String,
    config: String,
    mail_dir: String,
    certificate_file: String,
    key_file: String,
    pid: u32,
    command: Vec<String>,
    /// Set when every service is a process of its own; the process above is then the router in front.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    services: Vec<ReadyService>,
}

/// One process of a backend.
#[derive(Debug, Serialize)]
pub(crate) struct ReadyService {
    pub(crate) service: String,
    pub(crate) replica: u32,
    pub(crate) listeners: std::collections::BTreeMap<&'static str, String>,
    pub(crate) pid: u32,
    pub(crate) command: Vec<String>,
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

impl ReadyBackend {
    pub(crate) fn new(
        folder: &Folder,
        state: &State,
        backend: &Backend,
        process: &Process,
        services: Vec<ReadyService>,
    ) -> Self {
        let target = folder.of(&backend.domain);
        let client = loopback(backend.client);
        Self {
            domain: backend.domain.clone(),
            api: format!("http://{client}"),
            websocket: format!("ws://{client}"),
            app: state.app(backend),
            federation: loopback(backend.federation).to_string(),
            operations: format!("http://{}", loopback(backend.operations)),
            config: text(&target.config()),
            mail_dir: text(&target.mail()),
            certificate_file: text(&target.certificate()),
            key_file: text(&target.key()),
            pid: process.pid,
            command: process.command.clone(),
            services,
        }
    }
}

impl ReadyFile {
    pub(crate) fn new(folder: &Folder, dns: ReadyDns, backends: Vec<ReadyBackend>, people: Vec<Person>) -> Self {
        Self { dns, ca_file: text(&folder.ca()), backends, people }
    }

    /// Writes it so that a reader finds it complete or not at all.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut content = serde_json::to_vec_pretty(self)?;
        content.push(b'\n');
        // It may hold passwords.
        write(path, &content, Access::Owner)
    }
}

/// Starts the DNS server of the folder, unless one runs. The process is `None` when another one of ours serves.
pub(crate) fn start_dns(folder: &Folder, state: &State) -> Result<(ReadyDns, Option<Process>)> {
    let arguments = ["local", "dns", "--dir", folder.path().to_str().context("the folder's name is not UTF-8")?];
    let address = state.dns().to_string();
    if let Some(pid) = dns::running(folder) {
        let program = text(&std::env::current_exe()?);
        let command = std::iter::once(program).chain(arguments.map(str::to_owned)).collect();
        return Ok((ReadyDns { address, pid, command }, None));
    }
    let process = Process::start("dns", &arguments, &folder.dns_log())?;
    Ok((ReadyDns { address, pid: process.pid, command: process.command.clone() }, Some(process)))
}

/// The status of a `GET`, and the answer.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<(http::StatusCode, String)> {
    send(http::Request::get(format!("http://{address}{path}")).body(Full::default())?, ANSWER).await
}

/// The status and text of an answer that comes in time and is not too long.
pub(crate) async fn send(
    request: http::Request<Full<Bytes>>,
    patience: Duration,
) -> Result<(http::StatusCode, String)> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answered = async {
        let response = client.request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        Ok::<_, anyhow::Error>((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::time::timeout(patience, answered).await.context("no answer")?
}

/// Waits until `probe` succeeds. Ends with an error when the process does, or when it takes too long.
pub(crate) async fn wait(process: &mut Process, probe: impl AsyncFn() -> Result<()>) -> Result<()> {
    let deadline = tokio::time::Instant::now() + START;
    loop {
        let failure = match probe().await {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        if let Some(status) = process.has_ended()? {
            bail!("{} ended with {status}:\n{}", process.name, process.last_words());
        }
        if tokio::time::Instant::now() > deadline {
            return Err(failure.context(format!("{} is not ready after {} s", process.name, START.as_secs())));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Succeeds once `/readyz` does.
pub(crate) async fn is_ready(operations: SocketAddr) -> Result<()> {
    let (status, body) = get(operations, "/readyz").await?;
    ensure!(status.is_success(), "not ready: {body}");
    Ok(())
}

/// Succeeds once `/readyz` does and the service has what it needs from users, for which its own readiness does not wait.
pub(crate) async fn has_heard_of_users(operations: SocketAddr) -> Result<()> {
    let (status, body) = get(operations, "/readyz").await?;
    ensure!(status.is_success(), "not ready: {body}");
    let report: serde_json::Value = serde_json::from_str(&body)?;
    let degraded = report["degraded"].as_array().map_or(&[][..], Vec::as_slice);
    let waits =
        |it: &serde_json::Value| it.as_str().is_some_and(|it| it.starts_with("tokens") || it.starts_with("policy"));
    ensure!(!degraded.iter().any(waits), "not ready: {body}");
    Ok(())
}
