//! Administration: `aldis user`, `aldis remote`, `aldis outbox`, `aldis keys`, `aldis audit`. Works through the running backend, or on the
//! store when none runs.

mod audit;
mod keys;
mod outbox;
mod remotes;
mod users;

use std::{io::Write as _, path::PathBuf, time::Duration};

use aldis_proto::channel::Channel;
use aldis_runtime::channel;
use aldis_types::Timestamp;
use anyhow::{Context as _, Result, bail};
use clap::Args;
use tonic::Status;

pub(crate) use self::{
    audit::{Audit, run as audit},
    keys::{Keys, run as keys},
    outbox::{Outbox, run as outbox},
    remotes::{Remote, run as remote},
    users::{User, run as user},
};
use crate::{
    backend::{self, Offline},
    config::Config,
};

/// How long one step of administration may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long a backend that is just starting may take to listen to administration.
const STARTING: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// The configuration file of the backend.
    #[arg(long, value_name = "FILE", env = "ALDIS_CONFIG")]
    pub(crate) config: PathBuf,
}

/// The way to a backend's administration.
pub(crate) struct Administration {
    channel: Channel,
    _offline: Option<Offline>,
}

impl Administration {
    /// Through the backend that runs, else through its store.
    pub(crate) async fn of(config: &Config) -> Result<Self> {
        let socket = config.store.socket();
        let deadline = tokio::time::Instant::now() + STARTING;
        loop {
            if backend::answers(&socket) {
                let running = Self { channel: channel::unix(&socket), _offline: None };
                // A process that is just ending still accepts, and answers nothing.
                if tokio::time::timeout(DEADLINE, running.remotes()).await.is_ok_and(|answer| answer.is_ok()) {
                    return Ok(running);
                }
            }
            if let Some(offline) = Offline::open(config).await? {
                return Ok(Self { channel: offline.channel.clone(), _offline: Some(offline) });
            }
            if tokio::time::Instant::now() > deadline {
                bail!("a process owns {} and does not answer on {}", config.store.path.display(), socket.display());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn ask<R>(call: impl Future<Output = Result<tonic::Response<R>, Status>>) -> Result<R> {
    let answer = tokio::time::timeout(DEADLINE, call).await.context("the backend does not answer")?;
    answer.map(tonic::Response::into_inner).map_err(|status| failure(&status))
}

/// One line for the operator.
fn failure(status: &Status) -> anyhow::Error {
    if status.message().is_empty() {
        anyhow::anyhow!("the backend answered {:?}", status.code())
    } else {
        anyhow::anyhow!("{}", status.message())
    }
}

/// A time for people and programs; `None` for 0, which stands for never.
fn time(millis: i64) -> Option<Timestamp> {
    (millis > 0).then(|| Timestamp::from_millis(millis))
}

/// The same as a column.
fn time_or_dash(millis: i64) -> String {
    time(millis).map_or_else(|| "-".to_owned(), |time| time.to_string())
}

/// Prints lines for a person. Whoever reads them may stop in the middle, as `head` does.
fn print_lines(lines: impl IntoIterator<Item = String>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for line in lines {
        if let Err(error) = writeln!(out, "{}", line.trim_end()) {
            return if error.kind() == std::io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error.into()) };
        }
    }
    Ok(())
}

/// Prints one JSON value.
fn print_json(value: &serde_json::Value) -> Result<()> {
    print_lines([value.to_string()])
}
