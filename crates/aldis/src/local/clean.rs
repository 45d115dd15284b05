//! `aldis local clean`: removes what `init` made.

use std::{fs, io, path::Path};

use anyhow::{Context as _, Result, bail};

use super::{
    dns,
    layout::{Folder, State},
    up::is_free,
};

/// Removes the federation in `folder`, after checking that nothing runs from it. Other files stay, and so does the
/// folder while it holds some.
pub(crate) fn run(folder: &Folder) -> Result<()> {
    let state = folder.state()?;
    if let Some(pid) = dns::running(folder) {
        bail!("a DNS server (process {pid}) runs from {}: stop it first", folder.path().display());
    }
    for backend in &state.backends {
        if folder.of(&backend.domain).path().is_dir()
            && folder.of(&backend.domain).store().parent().is_some_and(Path::is_dir)
        {
            is_free(folder, &backend.domain).context("stop it first")?;
        }
    }
    remove(folder, &state)?;
    match fs::remove_dir(folder.path()) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            eprintln!("{} holds other files and stays", folder.path().display());
            Ok(())
        }
        other => other.with_context(|| format!("removing {}", folder.path().display())),
    }
}

fn remove(folder: &Folder, state: &State) -> Result<()> {
    for backend in &state.backends {
        let target = folder.of(&backend.domain);
        absent(fs::remove_dir_all(target.path()), target.path())?;
    }
    let mut old_log = folder.dns_log().into_os_string();
    old_log.push(".old");
    let files = [
        folder.ca(),
        folder.ca_key(),
        folder.people(),
        folder.dns_log(),
        old_log.into(),
        folder.dns_lock(),
        folder.init_lock(),
        // Last: without it, the folder is no federation any more.
        folder.state_file(),
    ];
    for file in files {
        absent(fs::remove_file(&file), &file)?;
    }
    Ok(())
}

/// What is gone already is fine.
fn absent(outcome: io::Result<()>, path: &Path) -> Result<()> {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}
