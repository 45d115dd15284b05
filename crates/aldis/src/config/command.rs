//! `aldis config`: work on configuration files.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use clap::Subcommand;

use super::{Config, paths, reference};

/// Commands of `aldis config`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a configuration file that says what every setting means, with everything at its default, to standard output.
    Print,
    /// Check a configuration file with the environment on top of it, and that the certificates and keys it names can be
    /// read. What is wrong is told with key, value and what is allowed.
    Check {
        /// The configuration file.
        file: PathBuf,
    },
}

/// Runs a command.
pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        // Whoever reads may go away.
        Command::Print => Ok(std::io::stdout().write_all(reference::toml()?.as_bytes())?),
        Command::Check { file } => {
            check(file)?;
            println!("{}: nothing is wrong", file.display());
            Ok(())
        }
    }
}

fn check(file: &Path) -> Result<()> {
    let config = toml::Table::try_from(Config::load(file)?)?;
    for key in paths().iter().filter(|key| key.ends_with("_file")) {
        let value =
            key.split('.').try_fold(&toml::Value::Table(config.clone()), |value, part| value.get(part)).cloned();
        let Some(path) = value.as_ref().and_then(toml::Value::as_str) else { continue };
        let opened = std::fs::File::open(path).and_then(|file| file.metadata());
        let readable = opened.is_ok_and(|file| file.is_file());
        ensure!(readable, "configuration: {}: `{key}` = {path:?}; allowed: a file that can be read", file.display());
    }
    Ok(())
}
