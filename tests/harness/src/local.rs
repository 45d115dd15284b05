//! A federation in processes of its own: the real binary, started as a user starts it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde::Deserialize;
use tempfile::TempDir;

use crate::{
    client::{Answer, Api, MailFolder, Person, User},
    settings,
    wait::{eventually, within},
};

/// Where the binary is, unless this says so.
pub const BINARY: &str = "ALDIS_BIN";
/// How long a start may take; a debug build on a busy machine is slow.
const START: Duration = Duration::from_secs(120);
/// How long `up` may take to stop everything.
const STOP: Duration = Duration::from_secs(30);

/// One backend in the ready file.
#[derive(Debug, Clone, Deserialize)]
pub struct Ready {
    /// Its domain.
    pub domain: String,
    /// Base URL of the client API.
    pub api: String,
    /// Base URL of sockets.
    pub websocket: String,
    /// Address of its federator.
    pub federation: String,
    /// Base URL of health and metrics.
    pub operations: String,
    /// Its configuration file.
    pub config: PathBuf,
    /// Where its mail goes.
    pub mail_dir: PathBuf,
    /// The process.
    pub pid: i32,
    /// What starts it again.
    pub command: Vec<String>,
}

#[derive(Deserialize)]
struct ReadyFile {
    dns: ReadyDns,
    backends: Vec<Ready>,
}

#[derive(Deserialize)]
struct ReadyDns {
    address: String,
    pid: i32,
}

/// A running `aldis local up`. Everything it started ends when this is dropped.
pub struct LocalFederation {
    binary: PathBuf,
    folder: TempDir,
    up: Child,
    dns_address: String,
    dns_pid: i32,
    processes: BTreeMap<String, Process>,
}

struct Process {
    ready: Ready,
    api: Api,
    /// Set once we started it again ourselves.
    child: Option<Child>,
}

impl Process {
    fn pid(&self) -> Result<Pid> {
        let raw = match &self.child {
            Some(child) => i32::try_from(child.id()).context("process id")?,
            None => self.ready.pid,
        };
        Pid::from_raw(raw).context("process id")
    }
}

/// Options of a local federation.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its domains.
    pub domains: Vec<String>,
    /// The binary; `None` looks where [`BINARY`] says, then beside the running program.
    pub binary: Option<PathBuf>,
    /// Settings (TOML) that are added to the configuration of every backend before it starts.
    pub settings: String,
}

impl Options {
    /// These domains, with the binary that this build made.
    pub fn of(domains: &[&str]) -> Self {
        Self {
            domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
            binary: None,
            settings: String::new(),
        }
    }
}

/// The binary that tests run: what [`BINARY`] names, else `aldis` in the target folder of the running program.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(BINARY) {
        return Ok(PathBuf::from(path));
    }
    let program = std::env::current_exe()?;
    let candidates = program.ancestors().skip(1).take(3).map(|folder| folder.join("aldis"));
    candidates.into_iter().find(|path| path.is_file()).with_context(|| {
        format!("no binary `aldis` near {}: build it first (cargo build -p aldis), or set {BINARY}", program.display())
    })
}

impl LocalFederation {
    /// Makes and starts a federation, throttling off, and waits until every backend is ready.
    pub async fn start(options: &Options) -> Result<Self> {
        let binary = options.binary.clone().map_or_else(binary, Ok)?;
        let folder = TempDir::with_prefix("aldis-it-")?;
        let ready_file = folder.path().join("ready.json");
        let dir = folder.path().join("federation");
        let domains = || options.domains.iter().flat_map(|domain| ["--domain", domain.as_str()]);
        let init = Command::new(&binary)
            .args(["local", "init", "--dir"])
            .arg(&dir)
            .args(["--base-port", "0", "--throttle", "off"])
            .args(domains())
            .output()
            .with_context(|| format!("running {}", binary.display()))?;
        ensure!(init.status.success(), "local init: {}", String::from_utf8_lossy(&init.stderr));
        for domain in &options.domains {
            settings::add(&dir.join(domain).join("aldis.toml"), &options.settings)?;
        }
        let log = std::fs::File::create(folder.path().join("up.log"))?;
        let up = Command::new(&binary)
            .args(["local", "up", "--dir"])
            .arg(&dir)
            .args(domains())
            .arg("--ready-file")
            .arg(&ready_file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut federation =
            Self { binary, folder, up, dns_address: String::new(), dns_pid: 0, processes: BTreeMap::new() };
        federation.wait_ready(&ready_file).await?;
        Ok(federation)
    }

    async fn wait_ready(&mut self, ready_file: &Path) -> Result<()> {
        let up = &mut self.up;
        let log = self.folder.path().join("up.log");
        let text = within(START, "the ready file", async || {
            if let Some(status) = up.try_wait()? {
                // Ends the wait below; a process that is gone will not write the file.
                return Ok(Err(status));
            }
            Ok(Ok(std::fs::read_to_string(ready_file)?))
        })
        .await?;
        let text = text.map_err(|status| {
            let log = std::fs::read_to_string(log).unwrap_or_default();
            anyhow::anyhow!("local up ended with {status}: {log}")
        })?;
        let file: ReadyFile = serde_json::from_str(&text).context("ready file")?;
        self.dns_address = file.dns.address;
        self.dns_pid = file.dns.pid;
        for ready in file.backends {
            let api = Api::new(&ready.api, &ready.websocket)?;
            self.processes.insert(ready.domain.clone(), Process { ready, api, child: None });
        }
        Ok(())
    }

    fn process(&self, domain: &str) -> Result<&Process> {
        self.processes.get(domain).with_context(|| format!("no backend {domain}"))
    }

    /// What the ready file says about a backend.
    pub fn ready(&self, domain: &str) -> Result<&Ready> {
        Ok(&self.process(domain)?.ready)
    }

    /// The client API of a backend.
    pub fn api(&self, domain: &str) -> Result<&Api> {
        Ok(&self.process(domain)?.api)
    }

    /// Everything that `up` and what it started wrote to its output so far.
    pub fn output(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.folder.path().join("up.log"))?)
    }

    /// The folder with everything.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs `aldis` with these arguments as given.
    pub fn run(&self, arguments: &[&str]) -> Result<std::process::Output> {
        Ok(Command::new(&self.binary).args(arguments).output()?)
    }

    /// `GET` on a backend's listener for health and metrics.
    pub async fn operations(&self, domain: &str, path: &str) -> Result<Answer> {
        let operations = Api::new(&self.process(domain)?.ready.operations, "ws://unused")?.with_version(None);
        operations.get(path).await
    }

    /// Address of the DNS server.
    pub fn dns_address(&self) -> &str {
        &self.dns_address
    }

    /// The process of a backend as it runs now.
    pub fn pid(&self, domain: &str) -> Result<i32> {
        Ok(self.process(domain)?.pid()?.as_raw_nonzero().get())
    }

    /// Registers somebody with one device.
    pub async fn user(&self, domain: &str, name: &str) -> Result<User> {
        let process = self.process(domain)?;
        let mail = MailFolder::new(&process.ready.mail_dir);
        User::register(&process.api, &mail, Person::new(name)).await?.add_device().await
    }

    /// Runs `aldis` with these arguments and the configuration of a backend, and returns its standard output.
    pub fn administer(&self, domain: &str, arguments: &[&str]) -> Result<String> {
        let config = &self.process(domain)?.ready.config;
        let output = Command::new(&self.binary).args(arguments).arg("--config").arg(config).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "aldis {}: {error}", arguments.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Sends a signal to a backend.
    pub fn signal(&self, domain: &str, signal: Signal) -> Result<()> {
        Ok(kill_process(self.process(domain)?.pid()?, signal)?)
    }

    /// Stops a backend in its tracks; it keeps its sockets.
    pub fn freeze(&self, domain: &str) -> Result<()> {
        self.signal(domain, Signal::STOP)
    }

    /// Lets a frozen backend go on.
    pub fn thaw(&self, domain: &str) -> Result<()> {
        self.signal(domain, Signal::CONT)
    }

    /// `kill -9`; returns when the process is gone.
    pub async fn kill(&mut self, domain: &str) -> Result<()> {
        self.signal(domain, Signal::KILL)?;
        let process = self.processes.get_mut(domain).with_context(|| format!("no backend {domain}"))?;
        if let Some(child) = &mut process.child {
            child.wait()?;
            return Ok(());
        }
        let pid = process.pid()?;
        eventually("the end of a killed process", async || {
            // `up` has to notice and reap it; a zombie holds neither ports nor files.
            ensure!(test_kill_process(pid).is_err() || is_zombie(pid), "process {pid:?} is still there");
            Ok(())
        })
        .await
    }

    /// Starts a killed backend again with the command of the ready file, and waits until it serves.
    pub async fn restart(&mut self, domain: &str) -> Result<()> {
        let log = self.folder.path().join(format!("{domain}-restarted.log"));
        let process = self.processes.get_mut(domain).with_context(|| format!("no backend {domain}"))?;
        let [program, arguments @ ..] = process.ready.command.as_slice() else { bail!("empty command") };
        let log = std::fs::File::options().create(true).append(true).open(log)?;
        let child = Command::new(program)
            .args(arguments)
            .current_dir("/")
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        process.child = Some(child);
        self.wait_for(domain).await
    }

    /// Waits until a backend says that it can serve.
    pub async fn wait_for(&self, domain: &str) -> Result<()> {
        let ready = async || self.operations(domain, "/readyz").await?.expect(200);
        within(START, "a backend that is ready", ready).await.map(drop)
    }

    /// Asks `up` to stop as Ctrl-C does, and checks that nothing is left of what it started.
    pub async fn stop(mut self) -> Result<()> {
        let pids: Vec<i32> = self.processes.values().map(|process| process.ready.pid).chain([self.dns_pid]).collect();
        self.end(Signal::INT)?;
        for pid in pids.into_iter().filter_map(Pid::from_raw) {
            within(STOP, "the end of a process that `up` started", async || {
                ensure!(test_kill_process(pid).is_err() || is_zombie(pid), "process {pid:?} is still there");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        for process in self.processes.values_mut() {
            // A frozen process would not hear `up`.
            let _ = process.pid().map(|pid| kill_process(pid, Signal::CONT));
            if let Some(mut child) = process.child.take() {
                let _ = child.kill();
                child.wait()?;
            }
        }
        if self.up.try_wait()?.is_some() {
            return Ok(());
        }
        kill_process(Pid::from_child(&self.up), signal)?;
        let deadline = std::time::Instant::now() + STOP;
        while self.up.try_wait()?.is_none() {
            if std::time::Instant::now() > deadline {
                self.up.kill()?;
                self.up.wait()?;
                bail!("`aldis local up` did not stop within {STOP:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for LocalFederation {
    fn drop(&mut self) {
        if let Err(error) = self.end(Signal::TERM) {
            eprintln!("stopping the local federation: {error:#}");
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("up.log")).unwrap_or_default();
            eprintln!("--- output of `aldis local up`\n{log}");
        }
    }
}

fn is_zombie(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}
