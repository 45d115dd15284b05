//! Delivery between backends, simulated.
//!
//! Two or three backends run in one thread, in simulated time and on a simulated network: `Outbox`, its relays and the
//! receiver (`crates/delivery`), the store (`crates/storage`, `SQLite` and its files, the writer inline), and the federators
//! with TLS and HTTP/2 (`crates/federator`) are the real ones. What is simulated is what stands beyond the seams: time,
//! connections, names, when a store's steps are taken, and the services that tell and are told.
//!
//! A seed decides everything, so that a run can be repeated: one process per seed, as the system's randomness is replaced
//! too (`entropy.rs`). `trace` in the last line of a run is a hash of everything that happened.
//!
//! | what goes wrong | where |
//! |---|---|
//! | a process ends at any step of its store: before a commit, between commit and answer, before a query; or at any moment | `pace.rs`, `backend.rs` |
//! | what it had sent arrives, arrives up to 20 s later (after its successor's), or falls silent | `Network::left` |
//! | bytes are late by up to 12 s, split, held up in one direction or both | `Network::set_link`, `sever` |
//! | a connection breaks, with any part of what was on its way, or falls silent on one side or both | `Network::cut` |
//! | names are not found, or nobody answers | `Network::set_dns` |
//! | slow disk, full disk; slow or overloaded services; kinds that are not known yet; refusals; bodies that are too large | `faults.rs`, `service.rs` |
//! | a peer is suspended; a relay is paused; what waits is dropped; federation ends; a store is restored from a backup | `faults.rs` |
//!
//! While it runs: nothing takes effect twice, no batch is larger than it may be, and nothing is tried too often in a second.
//! In the end the faults stop, and within five minutes of simulated time nothing may wait. Then every change that a store
//! holds has taken effect once, in the order of its lane, or is accounted for: refused, too large, ended, or within what the
//! receiver was told that it missed.
//!
//! That it finds what it looks for is shown by breaking rules of the protocol: see `Broken`, and `tests/seeds.rs`.

mod backend;
mod chance;
mod check;
mod entropy;
mod faults;
mod network;
mod pace;
mod run;
mod senders;
mod service;
mod tables;
mod trace;

use std::{
    collections::BTreeMap,
    io::Read as _,
    process::{Command, ExitCode, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum as _};

use crate::service::Broken;

/// A run that takes longer by the clock on the wall hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Simulates the delivery between backends.
#[derive(Parser)]
struct Options {
    /// How many seeds.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// How many at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Go on after a seed that fails.
    #[arg(long)]
    keep_going: bool,
    /// This seed alone, in this process.
    #[arg(long)]
    one: Option<u64>,
    /// Print everything that happens; with `--one`.
    #[arg(long)]
    trace: bool,
    /// Break a rule of the protocol.
    #[arg(long, value_enum)]
    broken: Option<Broken>,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    if let Some(seed) = options.one {
        return one(seed, options.broken, options.trace);
    }
    many(&options)
}

fn one(seed: u64, broken: Option<Broken>, printed: bool) -> Result<ExitCode> {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().to_owned();
    // A thread of its own, whose randomness nobody has used yet.
    let running = thread::Builder::new().stack_size(16 << 20).spawn(move || {
        entropy::follow(seed);
        run::run(seed, &path, broken, printed)
    })?;
    let outcome = running.join().map_err(|_| anyhow::anyhow!("the run panicked"))??;
    for wrong in &outcome.wrong {
        println!("wrong {wrong}");
    }
    println!("seed {seed} {}", outcome.summary);
    Ok(if outcome.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn many(options: &Options) -> Result<ExitCode> {
    let next = AtomicU64::new(options.first);
    let end = options.first.saturating_add(options.seeds);
    let stopped = AtomicBool::new(false);
    let failed = Mutex::new(Vec::new());
    let totals = Mutex::new(BTreeMap::<String, u64>::new());
    let begun = Instant::now();
    thread::scope(|scope| -> Result<()> {
        let work = || -> Result<()> {
            loop {
                let seed = next.fetch_add(1, Ordering::SeqCst);
                if seed >= end || stopped.load(Ordering::SeqCst) {
                    return Ok(());
                }
                let (succeeded, output) = child(seed, options.broken)?;
                if succeeded {
                    add(&mut totals.lock().unwrap_or_else(PoisonError::into_inner), &output);
                    continue;
                }
                stopped.store(!options.keep_going, Ordering::SeqCst);
                failed.lock().unwrap_or_else(PoisonError::into_inner).push(seed);
                println!("seed {seed} failed:\n{output}");
                println!("run it alone with everything that happens: aldis-simulation --one {seed} --trace\n");
            }
        };
        let workers: Vec<_> = (0..options.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??;
        }
        Ok(())
    })?;
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    let done = totals.get("seeds").copied().unwrap_or(0);
    println!("{done} seeds went well, {} did not {failed:?}, in {} s", failed.len(), begun.elapsed().as_secs());
    println!("{totals:?}");
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a seed in a process of its own: some of the state that decides is the process's.
fn child(seed: u64, broken: Option<Broken>) -> Result<(bool, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--one", &seed.to_string()]);
    if let Some(value) = broken.and_then(|broken| broken.to_possible_value()) {
        command.args(["--broken", value.get_name()]);
    }
    let mut running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut streams = [
        Box::new(running.stdout.take().context("no output")?) as Box<dyn std::io::Read + Send>,
        Box::new(running.stderr.take().context("no output")?),
    ];
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = running.try_wait()? {
            break status;
        }
        if begun.elapsed() > PATIENCE {
            running.kill()?;
            running.wait()?;
            bail!("seed {seed} hangs");
        }
        thread::sleep(Duration::from_millis(2));
    };
    let mut output = String::new();
    for stream in &mut streams {
        stream.read_to_string(&mut output)?;
    }
    Ok((status.success(), output))
}

/// Adds up the counts in the last line of a run.
fn add(totals: &mut BTreeMap<String, u64>, output: &str) {
    let Some(line) = output.lines().rfind(|line| line.starts_with("seed ")) else { return };
    *totals.entry("seeds".to_owned()).or_default() += 1;
    let words: Vec<_> = line.split(' ').skip(4).collect();
    for pair in words.chunks(2) {
        let [name, count] = pair else { continue };
        let Ok(count) = count.parse::<u64>() else { continue };
        let total = totals.entry((*name).to_owned()).or_default();
        *total = if name.starts_with("most-") { (*total).max(count) } else { *total + count };
    }
}
