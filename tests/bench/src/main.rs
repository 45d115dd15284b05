//! Measures a federation of two backends from outside, as its users load it.
//!
//! Starts `aldis local up` with throttling off, lets people of both backends write to each other at saturation and at
//! a light fixed rate, sends to a group over both backends, and opens idle sockets. The load comes from this very
//! machine, so the numbers are for comparing one build with another, not for sizing.

mod load;
mod people;
mod process;
mod report;
mod sockets;

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Parser;

use crate::{
    load::{Pace, Plan},
    people::{Crowd, Flow},
    report::{Machine, Measured, Parameters, Report},
};

/// Measures a federation of two backends from outside.
#[derive(Debug, Clone, Parser)]
#[command(name = "aldis-bench")]
struct Arguments {
    /// The binary to measure; the one beside this program when absent.
    #[arg(long, env = "ALDIS_BIN")]
    binary: Option<PathBuf>,
    /// Pairs of people who write to each other across the backends.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pairs: u16,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
    /// Most messages of one measurement, all senders together.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=5_000_000))]
    messages: u32,
    /// Messages per second of the light load, all senders together.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    rate: u16,
    /// Members of the group, half of them on each backend.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(2..=200))]
    group: u16,
    /// Size of a message's text in bytes.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(32..=100_000))]
    bytes: u32,
    /// Idle sockets to open; 0 leaves this measurement out.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(0..=20_000))]
    sockets: u32,
    /// Writes the results as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Rewrites the table between the markers in this file.
    #[arg(long)]
    table: Option<PathBuf>,
}

const ALPHA: &str = "alpha.test";
const BETA: &str = "beta.test";
/// Descriptors beside one per socket: connections of the load, files of the store.
const SPARE_DESCRIPTORS: u64 = 2_000;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // The processes that are measured inherit the limit.
    process::raise_descriptors(u64::from(arguments.sockets) + SPARE_DESCRIPTORS)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> Result<()> {
    if let Some(file) = &arguments.table {
        // Better now than after all the work.
        report::frame(file)?;
    }
    let report = measure(&arguments).await?;
    let json = serde_json::to_string_pretty(&report)?;
    if let Some(file) = &arguments.json {
        std::fs::write(file, &json)?;
    }
    if let Some(file) = &arguments.table {
        report::rewrite_table(file, &report)?;
    }
    println!("{}", report.table());
    Ok(())
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    eprintln!("starting {ALPHA} and {BETA}");
    let mut crowd = Crowd::gather(arguments.binary.clone(), arguments.pairs, arguments.group).await?;
    let limits = Plan {
        time: Duration::from_secs(arguments.seconds.into()),
        messages: arguments.messages,
        bytes: usize::try_from(arguments.bytes)?,
        pace: Pace::Saturated,
    };
    let light = Plan { pace: Pace::PerSecond(arguments.rate), ..limits };

    let idle = if arguments.sockets == 0 {
        None
    } else {
        eprintln!("{} idle sockets", arguments.sockets);
        Some(sockets::measure(&mut crowd, arguments.sockets).await?)
    };
    eprintln!("one to one, saturated");
    let saturated = crowd.measure(&crowd.pairs, &limits).await?;
    eprintln!("one to one, {} messages per second", arguments.rate);
    let steady = crowd.measure(&crowd.pairs, &light).await?;
    eprintln!("group of {}", crowd.group.readers.len() + 1);
    let group = crowd.measure(std::slice::from_ref(&crowd.group), &limits).await?;
    let report = Report {
        machine: Machine::this(),
        commit: report::commit(),
        parameters: Parameters::of(arguments),
        one_to_one_saturated: Measured::of(&saturated),
        one_to_one_light: Measured::of(&steady),
        group_saturated: Measured::of(&group),
        idle_sockets: idle,
    };
    crowd.leave().await?;
    Ok(report)
}

impl Parameters {
    fn of(arguments: &Arguments) -> Self {
        Self {
            pairs: arguments.pairs,
            seconds: arguments.seconds,
            light_rate: arguments.rate,
            group_members: arguments.group,
            text_bytes: arguments.bytes,
        }
    }
}

impl Crowd {
    /// Runs one load and adds what the processes used for it.
    async fn measure(&self, flows: &[Flow], plan: &Plan) -> Result<load::Outcome> {
        let before = self.usage()?;
        let mut outcome = load::run(flows, plan).await?;
        outcome.cpu = self.usage()?.since(&before);
        Ok(outcome)
    }
}
