//! `aldis doctor`: checks our own set-up and the way to a partner, and says what to do on which side.

mod partner;
mod report;
mod setup;
mod share;
mod status;

use std::{net::SocketAddr, path::Path, process::ExitCode, sync::Arc};

use aldis_federator::probe::{Check, Probe, ProbeDependencies, Side};
use aldis_runtime::{SystemClock, SystemRandom};
use aldis_types::Domain;
use anyhow::{Context as _, Result, ensure};
use clap::Args;

pub use self::report::Report;
use crate::{admin::ConfigFile, backend, config::Config};

/// Exit status when nothing failed, when something failed, and when the check could not be made.
const STATUS: [u8; 3] = [0, 1, 2];

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Check the way to this partner too.
    domain: Option<Domain>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    /// Print what a partner needs to federate with this backend, instead of checking.
    #[arg(long, conflicts_with = "domain")]
    share: bool,
    /// Compare with the answers of this DNS server too, for instance a public one: ADDRESS or ADDRESS:PORT.
    #[arg(long = "resolver", value_name = "ADDRESS", value_parser = resolver)]
    resolvers: Vec<SocketAddr>,
    /// Ask the running processes there, HOST:PORT of their listeners for operations, instead of on this machine. Repeat it for
    /// each; a name stands for all its addresses.
    #[arg(long = "operations", value_name = "ADDRESS", conflicts_with = "share")]
    operations: Vec<String>,
    #[command(flatten)]
    config: ConfigFile,
}

/// What is examined.
#[derive(Debug, Clone, Default)]
pub struct Examination {
    /// The partner, if the way to one is examined too.
    pub partner: Option<Domain>,
    /// Further DNS servers whose answers are compared.
    pub resolvers: Vec<SocketAddr>,
    /// Where the processes' listeners for operations are reached, `host:port`; empty: on this machine, as configured.
    pub operations: Vec<String>,
}

fn resolver(text: &str) -> Result<SocketAddr, String> {
    let alone = || text.parse().ok().map(|address| SocketAddr::new(address, 53));
    text.parse().ok().or_else(alone).ok_or_else(|| "allowed: an IP address, or ADDRESS:PORT".to_owned())
}

/// Runs `aldis doctor`. Exit status 0: nothing failed; 1: something did; 2: it could not be checked.
pub(crate) async fn run(arguments: Doctor) -> ExitCode {
    match try_run(arguments).await {
        Ok(failed) => ExitCode::from(STATUS[usize::from(failed)]),
        Err(error) => {
            eprintln!("aldis: {error:#}");
            ExitCode::from(STATUS[2])
        }
    }
}

async fn try_run(arguments: Doctor) -> Result<bool> {
    let file = &arguments.config.config.clone();
    ensure!(file.exists(), "{}: there is no such file", file.display());
    if arguments.share {
        share::print(&Config::load(file)?, arguments.json).await?;
        return Ok(false);
    }
    let Doctor { domain: partner, resolvers, operations, .. } = arguments;
    let examination = Examination { partner, resolvers, operations };
    let report = examine(file, &examination).await?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report).context("report")?);
    } else {
        print!("{report}");
    }
    Ok(report.failed())
}

/// Examines a backend by its configuration file. Works whether it runs or not, and changes nothing.
pub async fn examine(file: &Path, examination: &Examination) -> Result<Report> {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => {
            let advice = "correct the file; docs/configuration.md lists every key";
            return Ok(Report::of_nobody(Check::failed("configuration", Side::Ours, error.to_string(), advice)));
        }
    };
    let partner = examination.partner.as_ref();
    ensure!(partner != Some(&config.domain), "{} is this backend's own domain", config.domain);
    let mut report = Report::new(&config.domain, partner);
    report.ours([Check::passed("configuration", file.display().to_string())]);
    let elsewhere = &examination.operations;
    let (status, silent) = if elsewhere.is_empty() {
        (status::ask(&config).await, Vec::new())
    } else {
        status::ask_elsewhere(&config, elsewhere).await
    };
    if elsewhere.is_empty() {
        setup::examine(&config, status.as_ref(), &mut report).await;
    } else {
        setup::examine_elsewhere(&config, status.as_ref(), &silent, &mut report);
    }
    let probe = probe(&config, &examination.resolvers);
    match &probe {
        Some(probe) => report.ours(probe.own().await),
        None => {
            let advice = "add the section `[federation]`; apps see `federation-not-enabled` until then";
            let found = "the configuration has no section `[federation]`: this backend federates with nobody";
            report.ours([Check::warning("federation", Side::Ours, found, advice)]);
        }
    }
    if let Some(partner) = partner {
        report.theirs([partner::policy(&config, partner).await]);
        if let Some(probe) = &probe {
            report.theirs(probe.peer(partner).await);
        }
        report.theirs(partner::standing(partner, status.as_ref()));
    }
    Ok(report)
}

/// A probe for this backend, if it federates.
fn probe(config: &Config, resolvers: &[SocketAddr]) -> Option<Probe> {
    let federation = config.federation.as_ref()?;
    let dependencies = ProbeDependencies {
        domain: config.domain.clone(),
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
        capabilities: backend::capabilities(federation, &config.assets),
        other_dns: resolvers.to_vec(),
    };
    Some(Probe::new(federation, dependencies))
}
