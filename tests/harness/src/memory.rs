//! How much memory a process takes, as the kernel counts it.

use anyhow::{Context as _, Result};

/// Memory of one process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What it has now.
    pub resident: u64,
    /// The most that it had since [`forget_peak`].
    pub peak: u64,
}

/// The memory of a process.
pub fn of(pid: i32) -> Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).context(path)?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        kib.map(|kib| kib * 1024).with_context(|| format!("{name} of process {pid}"))
    };
    Ok(Memory { resident: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
}

/// Has the peak of a process counted from what it has now.
pub fn forget_peak(pid: i32) -> Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    std::fs::write(&path, "5").context(path)
}
