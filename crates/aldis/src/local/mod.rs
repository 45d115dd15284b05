//! `aldis local`: a whole federation on one machine, for trying out and for tests. Listens on loopback only.

mod certificates;
mod clean;
mod dns;
mod guide;
mod init;
mod layout;
mod people;
mod ports;
pub(crate) mod process;
mod ready;
mod router;
mod services;
mod up;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use aldis_runtime::telemetry::{LogConfig, LogFormat, Telemetry, TracingConfig};
use aldis_types::Domain;
use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};

use self::layout::Folder;

/// Where the development router connects from, which is how services know that its word about clients counts.
pub(crate) const ROUTER_ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(127, 85, 0, 1);

/// Commands of `aldis local`.
#[derive(Debug, Subcommand)]
pub(crate) enum Local {
    /// Write a folder with an authority and, per domain, configuration, keys and certificates.
    ///
    /// What is there already stays as it is; with a further domain, that one is added.
    Init(Init),
    /// Start the DNS server and every backend, wait until all are ready, and stay until Ctrl-C.
    ///
    /// Makes the folder if needed. With --domain, only these backends are started (and added if they are new).
    Up(Up),
    /// Start one backend as separate service processes behind a development router.
    Services(Services),
    /// Answer DNS for every domain of the folder.
    Dns(Dir),
    /// Serve the client address of a backend whose services run as processes of their own.
    #[command(hide = true)]
    Router(Router),
    /// Remove what `init` made, after checking that nothing runs from it.
    Clean(Dir),
}

#[derive(Debug, Args)]
pub(crate) struct Dir {
    /// The folder of the federation.
    #[arg(long)]
    dir: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Throttle {
    On,
    Off,
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    #[command(flatten)]
    dir: Dir,
    /// A backend's domain; may be given several times. [default: alpha.test and beta.test]
    #[arg(long = "domain", value_name = "DOMAIN")]
    domains: Vec<Domain>,
    /// Where ports begin, 100 apart per backend; 0 picks free ones once and for all.
    #[arg(long, default_value_t = 18000)]
    base_port: u16,
    /// Whether new backends throttle their clients; off is for load and fuzz tests.
    #[arg(long, default_value = "on")]
    throttle: Throttle,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    init: Init,
    /// Don't make the first people: Alice at the first backend and Bob at the second.
    #[arg(long)]
    no_people: bool,
    /// Write this file as soon as everything is ready.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Services {
    #[command(flatten)]
    dir: Dir,
    /// The backend to start.
    #[arg(long)]
    domain: Domain,
    /// Processes per service. More than one is not available yet.
    #[arg(long, default_value_t = 1)]
    replicas: u32,
    /// Address of a CQL server for the stores. Not available yet.
    #[arg(long, value_name = "ADDRESS")]
    cql: Option<String>,
    /// Write this file as soon as everything is ready.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Router {
    #[command(flatten)]
    dir: Dir,
    /// The backend in front of whose services it stands.
    #[arg(long)]
    domain: Domain,
}

impl Init {
    fn parts(self) -> Result<(Folder, init::Options)> {
        let mut domains: Vec<Domain> = Vec::new();
        for domain in self.domains {
            if !domains.contains(&domain) {
                domains.push(domain);
            }
        }
        let options = init::Options { domains, base_port: self.base_port, throttle: self.throttle == Throttle::On };
        Ok((Folder::at(&self.dir.dir)?, options))
    }
}

/// Runs a command.
pub(crate) async fn run(command: Local) -> Result<()> {
    match command {
        Local::Init(arguments) => {
            let (folder, options) = arguments.parts()?;
            let state = init::run(&folder, &options).await?;
            println!("{}", init::describe(&folder, &state));
            Ok(())
        }
        Local::Up(arguments) => {
            let (folder, options) = arguments.init.parts()?;
            up::run(&folder, &options, !arguments.no_people, arguments.ready_file.as_deref()).await
        }
        Local::Services(arguments) => services(arguments).await,
        Local::Dns(arguments) => {
            let _telemetry = log("dns")?;
            dns::serve(Folder::at(&arguments.dir)?, crate::stop_asked()?).await
        }
        Local::Router(arguments) => {
            let _telemetry = log("router")?;
            let state = Folder::at(&arguments.dir.dir)?.state()?;
            let backend = state.backend(&arguments.domain).context("no such backend")?;
            router::serve(backend, crate::stop_asked()?).await
        }
        Local::Clean(arguments) => clean::run(&Folder::at(&arguments.dir)?),
    }
}

async fn services(arguments: Services) -> Result<()> {
    if arguments.replicas == 0 {
        bail!("`--replicas` = 0; allowed: 1");
    }
    if arguments.replicas > 1 || arguments.cql.is_some() {
        bail!(
            "`--replicas` above 1 and `--cql` are not available yet: several processes of one service need the \
             ScyllaDB engine, and the embedded store has one process per service"
        );
    }
    let folder = Folder::at(&arguments.dir.dir)?;
    services::run(&folder, &arguments.domain, arguments.ready_file.as_deref()).await
}

/// Logs of the small processes here, for eyes.
fn log(service: &str) -> Result<Telemetry> {
    // The DNS library tells of every question.
    let log = LogConfig { format: LogFormat::Human, filter: "info,hickory_server=warn".to_owned() };
    Ok(Telemetry::start(service, "local", &log, &TracingConfig::default())?)
}
