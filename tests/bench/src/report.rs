//! The results: as JSON, and as a table for people.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::{load::Outcome, sockets::Idle};

const BEGIN: &str = "<!-- measured: begin -->";
const END: &str = "<!-- measured: end -->";

/// Everything that one run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) commit: String,
    pub(crate) parameters: Parameters,
    pub(crate) one_to_one_saturated: Measured,
    pub(crate) one_to_one_light: Measured,
    pub(crate) group_saturated: Measured,
    pub(crate) idle_sockets: Option<Idle>,
}

/// Where it ran.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    memory_mib: u64,
    kernel: String,
}

/// What was asked.
#[derive(Debug, Serialize)]
pub(crate) struct Parameters {
    pub(crate) pairs: u16,
    pub(crate) seconds: u16,
    pub(crate) light_rate: u16,
    pub(crate) group_members: u16,
    pub(crate) text_bytes: u32,
}

/// What one load found.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    accepted: u64,
    delivered: u64,
    accepted_per_second: f64,
    delivered_per_second: f64,
    accepted_p50_ms: f64,
    accepted_p99_ms: f64,
    socket_p50_ms: f64,
    socket_p99_ms: f64,
    cpu_ms_per_1000_delivered: BTreeMap<String, f64>,
}

fn per_second(count: u64, time: Duration) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from) / time.as_secs_f64().max(1e-9)
}

fn millis(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1000.0
}

impl Measured {
    pub(crate) fn of(outcome: &Outcome) -> Self {
        let thousands = u32::try_from(outcome.delivered).map_or(f64::INFINITY, f64::from) / 1000.0;
        let cpu =
            outcome.cpu.0.iter().map(|(name, used)| (name.clone(), used.as_secs_f64() * 1000.0 / thousands.max(1e-9)));
        Self {
            accepted: outcome.accepted,
            delivered: outcome.delivered,
            accepted_per_second: per_second(outcome.accepted, outcome.sending),
            delivered_per_second: per_second(outcome.delivered, outcome.delivering),
            accepted_p50_ms: millis(outcome.acceptance.value_at_quantile(0.5)),
            accepted_p99_ms: millis(outcome.acceptance.value_at_quantile(0.99)),
            socket_p50_ms: millis(outcome.latency.value_at_quantile(0.5)),
            socket_p99_ms: millis(outcome.latency.value_at_quantile(0.99)),
            cpu_ms_per_1000_delivered: cpu.collect(),
        }
    }

    fn row(&self, name: &str) -> String {
        let cpu: Vec<String> = self.cpu_ms_per_1000_delivered.values().map(|millis| format!("{millis:.0}")).collect();
        format!(
            "| {name} | {:.0} | {:.0} | {:.1} / {:.1} | {:.1} / {:.1} | {} |",
            self.accepted_per_second,
            self.delivered_per_second,
            self.accepted_p50_ms,
            self.accepted_p99_ms,
            self.socket_p50_ms,
            self.socket_p99_ms,
            cpu.join(" + "),
        )
    }
}

impl Machine {
    /// What the kernel says about this machine; empty where it says nothing.
    pub(crate) fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = value(&read("/proc/meminfo"), "MemTotal");
        let kib: u64 = memory.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or_default();
        Self {
            processor: value(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: kib / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// The commit of the working tree, with a mark when it has changes; empty outside a repository.
pub(crate) fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return String::new() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|status| !status.is_empty());
    if changed { format!("{commit} with changes") } else { commit }
}

impl Report {
    /// The table in Markdown.
    pub(crate) fn table(&self) -> String {
        let Machine { processor, cores, memory_mib, kernel } = &self.machine;
        let Parameters { pairs, seconds, light_rate, group_members, text_bytes } = &self.parameters;
        let mut text = format!(
            "Commit `{}`; {processor}, {cores} cores, {memory_mib} MiB, Linux {kernel}; the load runs on the same \
             machine.\n{pairs} pairs, texts of {text_bytes} bytes, {seconds} s each.\n\n",
            self.commit
        );
        text.push_str(
            "| load | accepted/s | delivered/s | to confirmation, p50 / p99 ms | to socket, p50 / p99 ms | \
             CPU ms per 1,000 delivered, alpha + beta |\n|---|---|---|---|---|---|\n",
        );
        let rows = [
            self.one_to_one_saturated.row("1:1 across backends, saturated"),
            self.one_to_one_light.row(&format!("1:1 across backends, {light_rate} messages/s")),
            self.group_saturated.row(&format!("group of {group_members} over both, one sender")),
        ];
        text.push_str(&rows.join("\n"));
        text.push('\n');
        if let Some(idle) = &self.idle_sockets {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "\nIdle socket: {:.1} KiB resident in the process ({} MiB with {} sockets, {} MiB with {}).",
                idle.kib_per_socket,
                idle.first_kib / 1024,
                idle.first_sockets,
                idle.all_kib / 1024,
                idle.sockets
            );
        }
        text
    }
}

/// What is in a file around the table.
pub(crate) fn frame(file: &Path) -> Result<(String, String)> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let missing = || format!("{} has no {BEGIN} … {END}", file.display());
    let (head, rest) = text.split_once(BEGIN).with_context(missing)?;
    let (_, tail) = rest.split_once(END).with_context(missing)?;
    Ok((head.to_owned(), tail.to_owned()))
}

/// Replaces what is between the markers of a file; the file must have both.
pub(crate) fn rewrite_table(file: &Path, report: &Report) -> Result<()> {
    let (head, tail) = frame(file)?;
    let table = report.table();
    std::fs::write(file, format!("{head}{BEGIN}\n{table}{END}{tail}"))?;
    Ok(())
}
