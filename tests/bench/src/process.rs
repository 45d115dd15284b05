//! What a process uses, as the kernel counts it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Time on the processor by name of the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Usage(pub(crate) BTreeMap<String, Duration>);

impl Usage {
    /// What was used between two looks.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let used = self.0.iter().map(|(name, now)| {
            let before = earlier.0.get(name).copied().unwrap_or_default();
            (name.clone(), now.saturating_sub(before))
        });
        Self(used.collect())
    }
}

/// Processor time of a process so far, user and system.
pub(crate) fn cpu(pid: i32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    // The name in parentheses may hold anything; fields count from behind it.
    let fields = stat.rsplit_once(')').context("stat")?.1;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = 0_u64;
    for _ in 0..2 {
        let field: u64 = fields.next().context("times in stat")?.parse()?;
        ticks += field;
    }
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_micros(ticks.saturating_mul(1_000_000) / per_second))
}

/// Resident memory of a process in KiB.
pub(crate) fn resident_kib(pid: i32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().next().context("VmRSS")?.parse()?)
}

/// Lets this process and its children open this many files, as far as the system allows.
pub(crate) fn raise_descriptors(wanted: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum));
    if limit.current.is_some_and(|current| current < allowed) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum: limit.maximum })
            .context("raising the limit of open files")?;
    }
    Ok(())
}
