//! Ports for local federations that pick their own (`--base-port 0`).
//!
//! They stay a folder's for as long as it exists, also while its backends are down: they lie outside of the range from
//! which the machine takes ports for outgoing connections, and other folders of this user leave them alone. Who has
//! which block is written down in a folder for temporary files.

use std::{
    fs::{self, File},
    net::{TcpListener, UdpSocket},
    ops::Range,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::layout::{Folder, loopback};

/// Ports of one block: those of one backend.
pub(crate) const BLOCK: u16 = 100;
/// Below are ports of well-known services.
const FIRST: u16 = 10_240;
const LAST: u16 = 60_000;
/// Where the kernel's usual range for outgoing connections begins.
const USUAL_OUTGOING: u16 = 32_768;
/// Fewer ports are not worth staying in.
const LEAST: u16 = 20 * BLOCK;

/// The blocks of this machine's user, while one process gives some away.
pub(crate) struct Blocks {
    records: PathBuf,
    owner: Folder,
    taken: Vec<u16>,
    _lock: File,
}

impl Blocks {
    /// Waits for its turn; `owner` is who gets the blocks.
    pub(crate) fn of(owner: &Folder) -> Result<Self> {
        let user = fs::metadata("/proc/self")?.uid();
        let records = std::env::temp_dir().join(format!("aldis-ports-{user}"));
        Self::in_folder(records, user, owner)
    }

    fn in_folder(records: PathBuf, user: u32, owner: &Folder) -> Result<Self> {
        let described = || format!("folder {}", records.display());
        if let Err(error) = fs::DirBuilder::new().mode(0o700).create(&records)
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(error).with_context(described);
        }
        let found = fs::symlink_metadata(&records).with_context(described)?;
        ensure!(found.is_dir() && found.uid() == user, "{} is not ours: remove it", records.display());
        let lock = File::options().create(true).truncate(false).write(true).open(records.join("lock"))?;
        lock.lock().with_context(described)?;
        Ok(Self { records, owner: owner.clone(), taken: Vec::new(), _lock: lock })
    }

    /// The first port of a block that no other folder has and nobody listens in.
    pub(crate) fn take(&mut self) -> Result<u16> {
        let mut bases: Vec<u16> = range(outgoing()).step_by(BLOCK.into()).collect();
        let start = rand::random_range(0..bases.len().max(1));
        bases.rotate_left(start);
        let mut owned = Vec::new();
        for base in bases.into_iter().filter(|base| !self.taken.contains(base)).collect::<Vec<_>>() {
            match self.owned_since(base) {
                Some(since) => owned.push((since, base)),
                None if is_free(base) => return self.give(base),
                None => {}
            }
        }
        // Folders that were forgotten must not use up everything.
        owned.sort_unstable();
        match owned.into_iter().find(|(_, base)| is_free(*base)) {
            Some((_, base)) => self.give(base),
            None => bail!("no free block of {BLOCK} ports found"),
        }
    }

    fn give(&mut self, base: u16) -> Result<u16> {
        fs::write(self.record(base), self.owner.path().as_os_str().as_encoded_bytes())?;
        self.taken.push(base);
        Ok(base)
    }

    fn record(&self, base: u16) -> PathBuf {
        self.records.join(base.to_string())
    }

    /// When the block was given to a folder that still has it.
    fn owned_since(&self, base: u16) -> Option<SystemTime> {
        let record = self.record(base);
        let owner = Folder::at(Path::new(&fs::read_to_string(&record).ok()?)).ok()?;
        owner.state().ok().filter(|state| state.uses(base))?;
        fs::metadata(record).and_then(|record| record.modified()).ok()
    }
}

/// The range from which the machine takes ports for outgoing connections.
fn outgoing() -> Option<(u16, u16)> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut ends = text.split_whitespace().map(str::parse);
    match (ends.next(), ends.next()) {
        (Some(Ok(low)), Some(Ok(high))) => Some((low, high)),
        _ => None,
    }
}

/// Where blocks lie: below that range, else above it, else where it usually is not.
fn range(outgoing: Option<(u16, u16)>) -> Range<u16> {
    match outgoing {
        Some((low, _)) if low >= FIRST + LEAST => FIRST..low.min(LAST) - BLOCK,
        Some((_, high)) if high <= LAST - LEAST => high.max(FIRST) + 1..LAST,
        _ => FIRST..USUAL_OUTGOING - BLOCK,
    }
}

/// Whether nobody listens in the block at this moment, for TCP or UDP.
fn is_free(base: u16) -> bool {
    (base..base + BLOCK).all(|port| {
        let address = loopback(port);
        TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_lie_outside_of_the_range_for_outgoing_connections() {
        assert_eq!(range(Some((32_768, 60_999))), 10_240..32_668);
        assert_eq!(range(Some((1_024, 40_000))), 40_001..60_000);
        assert_eq!(range(Some((1_024, 65_535))), 10_240..32_668);
        assert_eq!(range(None), 10_240..32_668);
        assert_eq!(range(Some((61_000, 65_535))), 10_240..59_900);
    }

    #[test]
    fn a_block_stays_with_its_folder_for_as_long_as_that_exists() {
        let folder = tempfile::tempdir().unwrap();
        let user = fs::metadata(folder.path()).unwrap().uid();
        let records = folder.path().join("records");
        let of = |name: &str| {
            let owner = Folder::at(&folder.path().join(name)).unwrap();
            (Blocks::in_folder(records.clone(), user, &owner).unwrap(), owner)
        };
        let (mut blocks, one) = of("one");
        let first = blocks.take().unwrap();
        assert_ne!(blocks.take().unwrap(), first);
        assert!(blocks.owned_since(first).is_none(), "not before it is written down");
        drop(blocks);
        let state = format!("version = 1\nbase_port = 0\ndns_port = {first}\n");
        fs::create_dir(one.path()).unwrap();
        fs::write(one.state_file(), state).unwrap();
        let (blocks, _) = of("two");
        assert!(blocks.owned_since(first).is_some());
        fs::remove_dir_all(one.path()).unwrap();
        assert!(blocks.owned_since(first).is_none());
    }
}
