//! Processes that `up` and `services` start: each in a process group of its own, so that Ctrl-C reaches us alone, and
//! tied to us by a pipe, so that none outlives us.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::process::{Child, ChildStdin, Command};

/// Set for a process that must stop when its standard input ends.
pub(crate) const TIED: &str = "ALDIS_STOP_WITH_STDIN";
/// How long a process may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(15);
/// A log beyond this size is put aside when its process starts.
const MAX_LOG_BYTES: u64 = 16 * 1024 * 1024;
const FOLLOW: Duration = Duration::from_millis(100);
/// Most of a log that is read at once.
const CHUNK: u64 = 256 * 1024;

/// A process that we started.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) pid: u32,
    /// What starts it again.
    pub(crate) command: Vec<String>,
    pub(crate) log: PathBuf,
    /// Where its part of the log begins.
    pub(crate) log_start: u64,
    child: Child,
    tie: Option<ChildStdin>,
}

impl Process {
    /// Starts `aldis` with these arguments; its output is appended to `log`.
    pub(crate) fn start(name: &str, arguments: &[&str], log: &Path) -> Result<Self> {
        let program = std::env::current_exe().context("the path of this program")?;
        let program = program.to_str().context("the path of this program is not UTF-8")?;
        if std::fs::metadata(log).is_ok_and(|it| it.len() > MAX_LOG_BYTES) {
            let mut old = log.as_os_str().to_owned();
            old.push(".old");
            std::fs::rename(log, &old)?;
        }
        // A file and not a pipe: it takes what is written even while we are stopped or dead.
        let output =
            File::options().create(true).append(true).open(log).with_context(|| format!("log {}", log.display()))?;
        let log_start = output.metadata()?.len();
        let mut child = Command::new(program)
            .args(arguments)
            .env(TIED, "1")
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let tie = child.stdin.take();
        let command = std::iter::once(program).chain(arguments.iter().copied()).map(str::to_owned).collect();
        let pid = child.id().context("the process ended at once")?;
        Ok(Self { name: name.to_owned(), pid, command, log: log.to_owned(), log_start, child, tie })
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait().await?)
    }

    /// Its end, if it has come.
    pub(crate) fn has_ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Stops it in good order, or kills it when that takes too long.
    pub(crate) async fn stop(mut self) {
        drop(self.tie.take());
        if tokio::time::timeout(STOP, self.child.wait()).await.is_err() {
            eprintln!("{} does not stop and is killed", self.name);
            if let Err(error) = self.child.kill().await {
                eprintln!("{} cannot be killed: {error}", self.name);
            }
        }
    }

    /// What it wrote last, for an error message.
    pub(crate) fn last_words(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(4096).max(self.log_start)))?;
            let mut bytes = Vec::new();
            file.take(4096).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default().trim_end().to_owned()
    }
}

/// Stops all of them at the same time.
pub(crate) async fn stop_all(processes: Vec<Process>) {
    futures::future::join_all(processes.into_iter().map(Process::stop)).await;
}

/// Ends when our standard input does, if whoever started us asked for that.
pub(crate) async fn untied() {
    if std::env::var_os(TIED).is_none() {
        return std::future::pending().await;
    }
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    // A thread, as a blocking read of the runtime would hold up its shutdown.
    let reader = std::thread::Builder::new().name("tie".to_owned()).spawn(move || {
        let mut buffer = [0; 64];
        let mut input = std::io::stdin().lock();
        while input.read(&mut buffer).is_ok_and(|read| read > 0) {}
        drop(ended);
    });
    match reader {
        Ok(_) => drop(end.await),
        Err(error) => {
            tracing::error!(%error, "standard input cannot be watched");
            std::future::pending::<()>().await;
        }
    }
}

/// Copies what processes log to standard error, each line with the name of its process.
pub(crate) struct LogFollower {
    files: Sender<Followed>,
    done: Receiver<()>,
    _thread: JoinHandle<()>,
}

struct Followed {
    name: String,
    file: File,
    rest: Vec<u8>,
}

impl LogFollower {
    /// Starts without files.
    pub(crate) fn start() -> Result<Self> {
        let (files, incoming) = channel::<Followed>();
        let (finished, done) = channel();
        // A thread, as standard error may block for as long as its reader likes.
        let thread = std::thread::Builder::new().name("logs".to_owned()).spawn(move || {
            let mut followed = Vec::new();
            loop {
                let more = incoming.recv_timeout(FOLLOW);
                let ends = matches!(more, Err(RecvTimeoutError::Disconnected));
                followed.extend(more);
                for file in &mut followed {
                    file.copy();
                }
                if ends {
                    break drop(finished);
                }
            }
        })?;
        Ok(Self { files, done, _thread: thread })
    }

    /// Copies what a process writes from now on.
    pub(crate) fn follow(&self, process: &Process) -> Result<()> {
        let mut file = File::open(&process.log)?;
        file.seek(SeekFrom::Start(process.log_start))?;
        // The thread lives as long as we do.
        let _ = self.files.send(Followed { name: process.name.clone(), file, rest: Vec::new() });
        Ok(())
    }

    /// Copies what is left, unless standard error is blocked.
    pub(crate) fn finish(self) {
        drop(self.files);
        let _ = self.done.recv_timeout(Duration::from_secs(1));
    }
}

impl Followed {
    fn copy(&mut self) {
        let Ok(_) = (&mut self.file).take(CHUNK).read_to_end(&mut self.rest) else { return };
        let complete = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let complete = if self.rest.len() > 64 * 1024 { self.rest.len() } else { complete };
        let mut output = std::io::stderr().lock();
        for line in self.rest[..complete].split_inclusive(|byte| *byte == b'\n') {
            // Whoever closed our standard error does not want to read this.
            let _ = write!(output, "{} | ", self.name);
            let _ = output.write_all(line);
        }
        self.rest.drain(..complete);
    }
}
