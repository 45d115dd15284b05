//! The one binary of Aldis: a backend in one process or in several, a federation for trying out, and administration.
//!
//! A library as well, so that a test can hold whole backends in its own process.

mod admin;
mod api;
mod backend;
mod backup;
mod config;
pub mod doctor;
mod local;

use std::{path::Path, process::ExitCode};

use clap::{Parser, Subcommand};

pub use crate::api::description;
use crate::{
    admin::ConfigFile,
    config::{Config, ServiceName},
    local::process::untied,
};

/// A federated messaging backend.
#[derive(Debug, Parser)]
#[command(name = "aldis", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole backend in this process.
    All(ConfigFile),
    /// Run the users service: accounts, login, profiles, clients, connections.
    Users(ConfigFile),
    /// Run the conversations service: conversations, members, messages.
    Conversations(ConfigFile),
    /// Run the assets service: files.
    Assets(ConfigFile),
    /// Run the notifications service: queues and sockets.
    Notifications(ConfigFile),
    /// Run the federator: all traffic with other backends.
    Federator(ConfigFile),
    /// Serve the web client, and nothing else.
    Web(ConfigFile),
    /// A whole federation on this machine, for trying out.
    #[command(subcommand)]
    Local(local::Local),
    /// Work on configuration files.
    #[command(subcommand)]
    Config(config::command::Command),
    /// Administer accounts.
    #[command(subcommand)]
    User(admin::User),
    /// Administer which other backends this one federates with.
    #[command(subcommand)]
    Remote(admin::Remote),
    /// Look at what waits for other backends, hold it, drop it, or send it once more.
    #[command(subcommand)]
    Outbox(admin::Outbox),
    /// Administer the keys that sign tokens.
    #[command(subcommand)]
    Keys(admin::Keys),
    /// Look at what was done by administration.
    #[command(subcommand)]
    Audit(admin::Audit),
    /// Make or change the tables on a cluster for this version, before its services start.
    Migrate(ConfigFile),
    /// Copy the store to a file, also while the backend runs.
    Backup(backup::Backup),
    /// Put a copy of the store in its place, while the backend does not run. Other backends and the apps are told that they
    /// may have missed something.
    Restore(backup::Restore),
    /// Check this backend's set-up, and the way to a partner: what is wrong, on which side, and what to do.
    Doctor(doctor::Doctor),
    /// Print the description of the client API (`openapi.json`).
    Openapi(api::OpenApi),
    /// Print which service answers which paths of the client API, for what is in front of services in processes of their own.
    Routes,
}

/// The program `aldis`.
pub fn main() -> ExitCode {
    aldis_runtime::workload::install_crypto();
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(run(cli.command));
            // What still blocks (a read of the store, a password hash) has nobody left to answer.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("aldis: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a whole backend in this process, as `aldis all` does, until `stop` ends. Logs go where this process logs already,
/// if it does.
pub async fn serve(config: &Path, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    Box::pin(backend::all(Config::load(config)?, stop)).await
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Doctor(arguments) => return Ok(doctor::run(arguments).await),
        Command::All(file) => serve(&file.config, stop_asked()?).await,
        Command::Users(file) => single(ServiceName::Users, &file).await,
        Command::Conversations(file) => single(ServiceName::Conversations, &file).await,
        Command::Assets(file) => single(ServiceName::Assets, &file).await,
        Command::Notifications(file) => single(ServiceName::Notifications, &file).await,
        Command::Federator(file) => single(ServiceName::Federator, &file).await,
        Command::Web(file) => backend::web(Config::load(&file.config)?, stop_asked()?).await,
        Command::Local(command) => local::run(command).await,
        Command::Config(command) => config::command::run(&command),
        Command::User(command) => admin::user(command).await,
        Command::Remote(command) => admin::remote(command).await,
        Command::Outbox(command) => Box::pin(admin::outbox(command)).await,
        Command::Keys(command) => admin::keys(command).await,
        Command::Audit(command) => admin::audit(command).await,
        Command::Migrate(file) => backend::migrate(&Config::load(&file.config)?).await,
        Command::Backup(arguments) => backup::backup(&arguments),
        Command::Restore(arguments) => backup::restore(&arguments),
        Command::Openapi(wanted) => api::print(&wanted),
        Command::Routes => api::print_routes(),
    }?;
    Ok(ExitCode::SUCCESS)
}

async fn single(name: ServiceName, file: &ConfigFile) -> anyhow::Result<()> {
    Box::pin(backend::single(name, Config::load(&file.config)?, stop_asked()?)).await
}

/// Ends when this process is asked to stop: by a signal, or by the end of its standard input where that was agreed.
fn stop_asked() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = untied() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use clap::CommandFactory as _;

    fn spawnable<T>(_: T)
    where
        T: Future + Send + 'static,
    {
    }

    #[test]
    fn a_backend_can_be_spawned_as_a_task() {
        let config = PathBuf::from("aldis.toml");
        spawnable(async move { super::serve(&config, std::future::pending()).await });
    }

    #[test]
    fn commands_and_their_arguments_fit_together() {
        super::Cli::command().debug_assert();
    }
}
