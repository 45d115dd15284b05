//! `aldis backup` and `aldis restore`: copies of the store.

use std::path::PathBuf;

use aldis_runtime::{Clock as _, Random as _, SystemClock, SystemRandom};
use aldis_storage::{ServiceLock, StoreError};
use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::{
    admin::ConfigFile,
    config::{Config, ServiceName},
};

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The copy; must not exist yet.
    file: PathBuf,
    #[command(flatten)]
    config: ConfigFile,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// A copy that `aldis backup` made.
    file: PathBuf,
    #[command(flatten)]
    config: ConfigFile,
}

/// Copies the store, whether or not the backend runs.
pub(crate) fn backup(arguments: &Backup) -> Result<()> {
    let store = Config::load(&arguments.config.config)?.store.path;
    ensure!(store.is_file(), "there is no store at {}", store.display());
    let file = arguments.file.display();
    aldis_storage::copy(&store, &arguments.file).with_context(|| format!("copying {} to {file}", store.display()))
}

/// Puts a copy in the place of the store of a backend that does not run.
pub(crate) fn restore(arguments: &Restore) -> Result<()> {
    let config = Config::load(&arguments.config.config)?;
    let store = &config.store.path;
    ensure!(arguments.file.is_file(), "there is no file {}", arguments.file.display());
    let mut locks = Vec::new();
    for service in ServiceName::ALL {
        match ServiceLock::take(store, service.as_str()) {
            Ok(lock) => locks.push(lock),
            Err(StoreError::Locked(service)) => bail!("{service} runs on this store; stop the backend first"),
            Err(error) => return Err(error).with_context(|| format!("store {}", store.display())),
        }
    }
    let mut id = [0; 16];
    SystemRandom.fill(&mut id);
    let kept = aldis_storage::restore(&arguments.file, store, &config.domain, id, SystemClock.now())?;
    drop(locks);
    match kept {
        Some(kept) => println!("restored; the store that was there is kept as {}", kept.display()),
        None => println!("restored"),
    }
    Ok(())
}
