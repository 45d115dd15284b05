//! A federation in processes of its own: the real binary, started as a user starts it.

use std::{
    collections::BTreeMap,
    fs::File,
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
    memory::{self, Memory},
    settings,
    wait::within,
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
    /// Its services, when each is a process of its own.
    #[serde(default)]
    services: Vec<ReadyService>,
}

#[derive(Debug, Clone, Deserialize)]
struct ReadyService {
    service: String,
    pid: i32,
    command: Vec<String>,
    listeners: BTreeMap<String, String>,
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

/// A running `aldis local up`, or `aldis local services` for each domain. Everything it started ends when this is
/// dropped.
pub struct LocalFederation {
    binary: PathBuf,
    folder: TempDir,
    /// The one that started the DNS server first.
    leaders: Vec<Child>,
    dns_address: String,
    dns_pid: i32,
    backends: BTreeMap<String, Backend>,
    processes: BTreeMap<String, Process>,
}

struct Backend {
    ready: Ready,
    api: Api,
}

struct Process {
    /// The backend that it belongs to.
    domain: String,
    first_pid: i32,
    command: Vec<String>,
    /// Base URL of its health and metrics.
    operations: String,
    /// Set once we started it again ourselves.
    child: Option<Child>,
}

impl Process {
    fn pid(&self) -> Result<Pid> {
        let raw = match &self.child {
            Some(child) => i32::try_from(child.id()).context("process id")?,
            None => self.first_pid,
        };
        Pid::from_raw(raw).context("process id")
    }
}

/// The name of one service of a backend whose services are processes of their own, as [`LocalFederation::kill`] and the
/// like take it.
pub fn service_of(domain: &str, service: &str) -> String {
    format!("{domain} {service}")
}

/// Options of a local federation.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its domains.
    pub domains: Vec<String>,
    /// Whether every service is a process of its own.
    pub apart: bool,
    /// The binary; `None` looks where [`BINARY`] says, then beside the running program.
    pub binary: Option<PathBuf>,
    /// Settings (TOML) that are added to the configuration of every backend before it starts.
    pub settings: String,
}

impl Options {
    /// These domains, with the binary that this build made.
    pub fn of(domains: &[&str]) -> Self {
        let domains = domains.iter().map(|domain| (*domain).to_owned()).collect();
        Self { domains, apart: false, binary: None, settings: String::new() }
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
        let dir = folder.path().join("federation");
        let init = Command::new(&binary)
            .args(["local", "init", "--base-port", "0", "--throttle", "off", "--dir"])
            .arg(&dir)
            .args(named(&options.domains))
            .output()
            .with_context(|| format!("running {}", binary.display()))?;
        ensure!(init.status.success(), "local init: {}", String::from_utf8_lossy(&init.stderr));
        for domain in &options.domains {
            settings::add(&dir.join(domain).join("aldis.toml"), &options.settings)?;
        }
        let mut federation = Self {
            binary,
            folder,
            leaders: Vec::new(),
            dns_address: String::new(),
            dns_pid: 0,
            backends: BTreeMap::new(),
            processes: BTreeMap::new(),
        };
        if options.apart {
            for domain in &options.domains {
                federation.lead("services", &dir, named([domain])).await?;
            }
        } else {
            let mut arguments = named(&options.domains);
            arguments.push("--no-people".to_owned());
            federation.lead("up", &dir, arguments).await?;
        }
        Ok(federation)
    }

    /// Runs `aldis local up` or `services` and waits for its ready file.
    async fn lead(&mut self, command: &str, dir: &Path, arguments: Vec<String>) -> Result<()> {
        let ready_file = self.folder.path().join(format!("ready-{}.json", self.leaders.len()));
        let log = File::options().create(true).append(true).open(self.log())?;
        let leader = Command::new(&self.binary)
            .args(["local", command, "--dir"])
            .arg(dir)
            .args(arguments)
            .arg("--ready-file")
            .arg(&ready_file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.leaders.push(leader);
        let leader = self.leaders.last_mut().context("the process just started")?;
        let text = within(START, "the ready file", async || {
            if let Some(status) = leader.try_wait()? {
                // Ends the wait; a process that is gone will not write the file.
                return Ok(Err(status));
            }
            Ok(Ok(std::fs::read_to_string(&ready_file)?))
        })
        .await?;
        let text = text.map_err(|status| {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            anyhow::anyhow!("local {command} ended with {status}: {log}")
        })?;
        let file: ReadyFile = serde_json::from_str(&text).context("ready file")?;
        if self.dns_pid == 0 {
            self.dns_address = file.dns.address;
            self.dns_pid = file.dns.pid;
        }
        for ready in file.backends {
            let domain = ready.domain.clone();
            let api = Api::new(&ready.api, &ready.websocket)?;
            self.add(&domain, domain.clone(), ready.pid, &ready.command, &ready.operations);
            for service in &ready.services {
                let listener = service.listeners.get("operations").context("a service without operations")?;
                let (name, operations) = (service_of(&domain, &service.service), format!("http://{listener}"));
                self.add(&domain, name, service.pid, &service.command, &operations);
            }
            self.backends.insert(domain, Backend { ready, api });
        }
        Ok(())
    }

    fn add(&mut self, domain: &str, name: String, pid: i32, command: &[String], operations: &str) {
        let process = Process {
            domain: domain.to_owned(),
            first_pid: pid,
            command: command.to_vec(),
            operations: operations.to_owned(),
            child: None,
        };
        self.processes.insert(name, process);
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("up.log")
    }

    fn backend(&self, domain: &str) -> Result<&Backend> {
        self.backends.get(domain).with_context(|| format!("no backend {domain}"))
    }

    fn process(&self, name: &str) -> Result<&Process> {
        self.processes.get(name).with_context(|| format!("no process {name}"))
    }

    /// What the ready file says about a backend.
    pub fn ready(&self, domain: &str) -> Result<&Ready> {
        Ok(&self.backend(domain)?.ready)
    }

    /// The client API of a backend.
    pub fn api(&self, domain: &str) -> Result<&Api> {
        Ok(&self.backend(domain)?.api)
    }

    /// Everything that `up` and what it started wrote to its output so far.
    pub fn output(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.log())?)
    }

    /// The folder with everything.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs `aldis` with these arguments as given.
    pub fn run(&self, arguments: &[&str]) -> Result<std::process::Output> {
        Ok(Command::new(&self.binary).args(arguments).output()?)
    }

    /// `GET` on the listener for health and metrics of a backend, or of a service.
    pub async fn operations(&self, name: &str, path: &str) -> Result<Answer> {
        Api::other(&self.process(name)?.operations)?.get(path).await
    }

    /// Address of the DNS server.
    pub fn dns_address(&self) -> &str {
        &self.dns_address
    }

    /// The process of a backend, or of a service, as it runs now.
    pub fn pid(&self, name: &str) -> Result<i32> {
        Ok(self.process(name)?.pid()?.as_raw_nonzero().get())
    }

    /// What each process of each backend takes, by name.
    pub fn memory(&self) -> Result<BTreeMap<String, Memory>> {
        self.processes.keys().map(|name| Ok((name.clone(), memory::of(self.pid(name)?)?))).collect()
    }

    /// Has the peaks of [`LocalFederation::memory`] counted from now.
    pub fn forget_peaks(&self) -> Result<()> {
        self.processes.keys().try_for_each(|name| memory::forget_peak(self.pid(name)?))
    }

    /// Registers somebody with one device.
    pub async fn user(&self, domain: &str, name: &str) -> Result<User> {
        let backend = self.backend(domain)?;
        let mail = MailFolder::new(&backend.ready.mail_dir);
        User::register(&backend.api, &mail, Person::new(name)).await?.add_device().await
    }

    /// Runs `aldis` with these arguments and the configuration of a backend, and returns its standard output.
    pub fn administer(&self, domain: &str, arguments: &[&str]) -> Result<String> {
        let config = &self.backend(domain)?.ready.config;
        let output = Command::new(&self.binary).args(arguments).arg("--config").arg(config).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "aldis {}: {error}", arguments.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Sends a signal to a backend, or to a service.
    pub fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        Ok(kill_process(self.process(name)?.pid()?, signal)?)
    }

    /// Stops a process in its tracks; it keeps its sockets.
    pub fn freeze(&self, name: &str) -> Result<()> {
        self.signal(name, Signal::STOP)
    }

    /// Lets a frozen process go on.
    pub fn thaw(&self, name: &str) -> Result<()> {
        self.signal(name, Signal::CONT)
    }

    /// `kill -9`; returns when the process is gone.
    pub async fn kill(&mut self, name: &str) -> Result<()> {
        self.signal(name, Signal::KILL)?;
        let process = self.processes.get_mut(name).with_context(|| format!("no process {name}"))?;
        if let Some(child) = &mut process.child {
            child.wait()?;
            return Ok(());
        }
        gone(process.pid()?).await
    }

    /// Asks a process to stop in good order; returns when it is gone.
    pub async fn terminate(&mut self, name: &str) -> Result<()> {
        self.signal(name, Signal::TERM)?;
        let process = self.processes.get_mut(name).with_context(|| format!("no process {name}"))?;
        let Some(child) = &mut process.child else { return gone(process.pid()?).await };
        within(STOP, "the end of a process", async || {
            child.try_wait()?.map(drop).with_context(|| format!("{name} is still there"))
        })
        .await
    }

    /// Whether a process is there; one that is stopped in its tracks is.
    pub fn is_alive(&self, name: &str) -> Result<bool> {
        let pid = self.process(name)?.pid()?;
        Ok(test_kill_process(pid).is_ok() && !is_zombie(pid))
    }

    /// Stops the DNS server in its tracks: it answers nobody.
    pub fn freeze_dns(&self) -> Result<()> {
        self.signal_dns(Signal::STOP)
    }

    /// Lets the DNS server answer again.
    pub fn thaw_dns(&self) -> Result<()> {
        self.signal_dns(Signal::CONT)
    }

    fn signal_dns(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_raw(self.dns_pid).context("process id of the DNS server")?, signal)?)
    }

    /// Adds settings to the configuration file of a backend; they are in force when it is started again. Gives back
    /// what the file said before.
    pub fn configure(&self, domain: &str, settings: &str) -> Result<String> {
        let file = &self.backend(domain)?.ready.config;
        let before = std::fs::read_to_string(file)?;
        settings::add(file, settings)?;
        Ok(before)
    }

    /// Starts a killed process again with the command of the ready file, and waits until its backend serves.
    pub async fn restart(&mut self, name: &str) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let process = self.processes.get_mut(name).with_context(|| format!("no process {name}"))?;
        let [program, arguments @ ..] = process.command.as_slice() else { bail!("empty command") };
        let child = Command::new(program)
            .args(arguments)
            .current_dir("/")
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        process.child = Some(child);
        let domain = process.domain.clone();
        let started = self.wait_for(&domain).await;
        started.with_context(|| format!("starting {name} again; the log ends:\n{}", self.end_of_log()))
    }

    fn end_of_log(&self) -> String {
        const LINES: usize = 40;
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    /// Waits until a backend says that it can serve.
    pub async fn wait_for(&self, domain: &str) -> Result<()> {
        let ready = async || self.operations(domain, "/readyz").await?.expect(200);
        within(START, "a backend that is ready", ready).await.map(drop)
    }

    /// Asks everything to stop as Ctrl-C does, and checks that nothing is left.
    pub async fn stop(mut self) -> Result<()> {
        let pids: Vec<i32> = self.processes.values().map(|process| process.first_pid).chain([self.dns_pid]).collect();
        self.end(Signal::INT)?;
        for pid in pids.into_iter().filter_map(Pid::from_raw) {
            gone(pid).await?;
        }
        Ok(())
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        if self.dns_pid != 0 {
            // Nor would the DNS server; it may be gone already.
            let _ = self.thaw_dns();
        }
        for process in self.processes.values_mut() {
            // A frozen process would not hear its leader.
            let _ = process.pid().map(|pid| kill_process(pid, Signal::CONT));
            if let Some(mut child) = process.child.take() {
                let _ = child.kill();
                child.wait()?;
            }
        }
        // The one with the DNS server last.
        while let Some(leader) = self.leaders.pop() {
            end_leader(leader, signal)?;
        }
        Ok(())
    }
}

fn named<'a>(domains: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    domains.into_iter().flat_map(|domain| ["--domain".to_owned(), domain.clone()]).collect()
}

fn end_leader(mut leader: Child, signal: Signal) -> Result<()> {
    if leader.try_wait()?.is_some() {
        return Ok(());
    }
    kill_process(Pid::from_child(&leader), signal)?;
    let deadline = std::time::Instant::now() + STOP;
    while leader.try_wait()?.is_none() {
        if std::time::Instant::now() > deadline {
            leader.kill()?;
            leader.wait()?;
            bail!("`aldis local` did not stop within {STOP:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Waits until a process is gone. Its leader has to notice and reap it; a zombie holds neither ports nor files.
async fn gone(pid: Pid) -> Result<()> {
    within(STOP, "the end of a process", async || {
        ensure!(test_kill_process(pid).is_err() || is_zombie(pid), "process {pid:?} is still there");
        Ok(())
    })
    .await
}

impl Drop for LocalFederation {
    fn drop(&mut self) {
        if let Err(error) = self.end(Signal::TERM) {
            eprintln!("stopping the local federation: {error:#}");
        }
        if std::thread::panicking() {
            eprintln!("--- output of `aldis local`\n{}", std::fs::read_to_string(self.log()).unwrap_or_default());
        }
    }
}

fn is_zombie(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}
