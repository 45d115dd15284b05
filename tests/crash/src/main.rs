//! The crash campaign: people of several backends write to each other without a break, while their backends are
//! killed, stopped, cut off, given other certificates and kept from growing. In the end everything that was confirmed
//! must be at every device that was to get it, once and in order, and all backends must say the same.
//!
//! Faults and choices come from a seed. Machines and schedulers differ, so a seed repeats what is done, not the instant
//! at which it meets the backends.

mod agree;
mod check;
mod faults;
mod history;
mod plan;
mod readers;
mod report;
mod senders;
mod world;

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use aldis_harness::local::LocalFederation;
use anyhow::{Context as _, Result};
use clap::Parser;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    check::{Findings, Tally, check},
    faults::Trouble,
    history::{History, Log, Recorder},
    plan::{Plan, dice},
    readers::Reader,
    report::Report,
    senders::{Changer, Couple, Flow, Shared},
    world::{DOMAINS, Way, World},
};

/// Keeps a federation busy while its backends fail, and checks that nothing is lost, doubled or out of order.
#[derive(Debug, Clone, Parser)]
#[command(name = "aldis-crash")]
struct Arguments {
    /// The binary to test; the one beside this program when absent.
    #[arg(long, env = "ALDIS_BIN")]
    binary: Option<PathBuf>,
    /// Decides about faults and choices.
    #[arg(long, env = "CRASH_SEED", default_value_t = 1)]
    seed: u64,
    /// How long things fail.
    #[arg(long, env = "CRASH_SECONDS", default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// How long to wait afterwards until everything has come.
    #[arg(long, default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    patience: u64,
    /// Backends, two or three.
    #[arg(long, env = "CRASH_BACKENDS", default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=3))]
    backends: u8,
    /// Mean pause in milliseconds of each sender between two messages.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pace: u64,
    /// Prints the first faults of the seed and does nothing else.
    #[arg(long, value_name = "FAULTS")]
    plan: Option<usize>,
    /// Writes the results as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Writes what the backends logged to this file when something is wrong.
    #[arg(long)]
    logs: Option<PathBuf>,
}

/// Changes of a group, and of a connection, are rarer than messages.
const CHANGES: Duration = Duration::from_millis(2_500);
/// A last look for what comes twice, after everything has come.
const AFTERWARDS: Duration = Duration::from_secs(4);

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(count) = arguments.plan {
        for fault in Plan::new(arguments.seed, usize::from(arguments.backends)).take(count) {
            let at = DOMAINS[fault.side];
            println!("after {:?}: {} at {at} for {:?}", fault.after, fault.kind, fault.lasting);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(run(&arguments)).with_context(|| format!("seed {}", arguments.seed))?;
    if let Some(file) = &arguments.json {
        std::fs::write(file, serde_json::to_string_pretty(&report)?)?;
    }
    for (answer, count) in &report.answers {
        eprintln!("{count:>8} {answer}");
    }
    println!("{}{}", report.text(), report.row());
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run(arguments: &Arguments) -> Result<Report> {
    let domains = &DOMAINS[..usize::from(arguments.backends)];
    eprintln!("starting {}", domains.join(", "));
    let mut federation = world::start(arguments.binary.clone(), domains.len()).await?;
    let campaign = Campaign::prepare(&federation, domains).await?;
    let outcome = campaign.run(&mut federation, domains, arguments).await;
    if let Some(file) = &arguments.logs
        && !outcome.as_ref().is_ok_and(Report::is_clean)
    {
        std::fs::write(file, federation.output()?)?;
    }
    let report = outcome?;
    federation.stop().await?;
    Ok(report)
}

struct Campaign {
    shared: Shared,
    over: watch::Sender<bool>,
    finished: watch::Sender<bool>,
}

impl Campaign {
    async fn prepare(federation: &LocalFederation, domains: &[&str]) -> Result<Self> {
        let world = World::make(federation, domains).await?;
        let ways: Vec<_> = world.devices.iter().map(|device| device.way.name()).collect();
        let recorder = Recorder::new(&ways);
        let (over, listening) = watch::channel(false);
        let shared = Shared { world: Arc::new(world), recorder: Arc::new(recorder), over: listening };
        Ok(Self { shared, over, finished: watch::Sender::new(false) })
    }

    async fn run(
        &self,
        federation: &mut LocalFederation,
        domains: &[&'static str],
        arguments: &Arguments,
    ) -> Result<Report> {
        let mut readers = self.readers(arguments.seed);
        let mut writers = self.writers(arguments);
        let begun = Instant::now();
        eprintln!("{} devices read, {} tasks write and change", readers.len(), writers.len());
        let recorder = &*self.shared.recorder;
        let mut trouble = Trouble { federation, domains, recorder };
        let plan = Plan::new(arguments.seed, domains.len());
        let faults = trouble.run(plan, Duration::from_secs(arguments.seconds)).await?;
        for domain in domains {
            federation.wait_for(domain).await?;
        }
        let seconds = begun.elapsed().as_secs();
        eprintln!("{} faults in {seconds} s; waiting until everything has come", faults.values().sum::<u64>());
        self.over.send_replace(true);
        self.join(&mut writers).await;
        let begun = Instant::now();
        let patience = Duration::from_secs(arguments.patience);
        let mut findings = self.look().await;
        while !findings.as_ref().is_ok_and(Findings::is_settled) && begun.elapsed() < patience {
            sleep(Duration::from_secs(2)).await;
            findings = self.look().await;
        }
        let settled_seconds = begun.elapsed().as_secs();
        sleep(AFTERWARDS).await;
        self.finished.send_replace(true);
        self.join(&mut readers).await;
        let mut findings = check(&self.history(true).await?);
        for double in recorder.doubles() {
            findings.duplicated.add(|| double);
        }
        look_for_panics(federation, recorder)?;
        let answers = recorder.answers();
        Ok(Report {
            seed: arguments.seed,
            backends: domains.len(),
            seconds,
            settled_seconds,
            operations: answers.values().sum(),
            faults,
            findings,
            odd: Tally::of(recorder.oddities()),
            answers,
        })
    }

    fn readers(&self, seed: u64) -> JoinSet<Result<()>> {
        let mut readers = JoinSet::new();
        for device in 0..self.shared.world.devices.len() {
            let dice = dice(seed, 10_000 + number(device));
            let finished = self.finished.subscribe();
            readers.spawn(Reader { shared: self.shared.clone(), device, dice, finished }.run());
        }
        readers
    }

    fn writers(&self, arguments: &Arguments) -> JoinSet<Result<()>> {
        let mut writers = JoinSet::new();
        let mut stream = 0;
        let mut next = || {
            stream += 1;
            (stream, dice(arguments.seed, 1_000 + u64::from(stream)), self.shared.clone())
        };
        let pace = Duration::from_millis(arguments.pace);
        for (place, conversation) in self.shared.world.conversations.iter().enumerate() {
            for sender in &conversation.senders {
                let (stream, dice, shared) = next();
                writers.spawn(Flow { shared, stream, conversation: place, sender: *sender, pace, dice }.run());
            }
            for admin in &conversation.admins {
                let (stream, dice, shared) = next();
                let pace = CHANGES;
                writers.spawn(Changer { shared, stream, conversation: place, admin: *admin, pace, dice }.run());
            }
        }
        for both in &self.shared.world.couples {
            let (_, dice, shared) = next();
            writers.spawn(Couple { shared, both: *both, pace: CHANGES, dice }.run());
        }
        writers
    }

    /// Waits for tasks; none may fail.
    async fn join(&self, tasks: &mut JoinSet<Result<()>>) {
        while let Some(ended) = tasks.join_next().await {
            let ended = ended.map_err(anyhow::Error::from).flatten();
            if let Err(error) = ended {
                self.shared.recorder.odd(format!("a task failed: {error:#}"));
            }
        }
    }

    async fn look(&self) -> Result<Findings> {
        Ok(check(&self.history(false).await?))
    }

    /// What happened so far; in the end with what is in the queues from the beginning.
    async fn history(&self, with_queues: bool) -> Result<History> {
        let world = &*self.shared.world;
        let (posted, mut logs) = self.shared.recorder.so_far();
        if with_queues {
            for (device, it) in world.devices.iter().enumerate().filter(|(_, it)| it.way == Way::Socket) {
                let events = it.user.queue(None).await?;
                let items = events
                    .iter()
                    .filter_map(|event| readers::item(world, &self.shared.recorder, &it.user, &event.value));
                logs.push(Log { device, way: "queue", items: items.collect() });
            }
        }
        let views = timeout(Duration::from_secs(120), agree::views(world)).await.context("looking took too long")??;
        Ok(History { devices: world.names(), posted, logs, views })
    }
}

fn number(place: usize) -> u64 {
    u64::try_from(place).unwrap_or(u64::MAX)
}

/// A task that panicked does not end its process; it must not happen all the same.
fn look_for_panics(federation: &LocalFederation, recorder: &Recorder) -> Result<()> {
    for line in federation.output()?.lines().filter(|line| line.contains("panicked at")) {
        recorder.odd(line.to_owned());
    }
    Ok(())
}
