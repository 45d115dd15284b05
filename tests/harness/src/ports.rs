//! Blocks of ports for processes that are killed and started again: while one is down, nobody else may take its port.

use std::{
    fs::{File, TryLockError},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail};

/// Ports of one block: those of the DNS server and of four backends.
const SIZE: u16 = 500;
/// Below the range from which the machine takes ports for outgoing connections.
const FIRST: u16 = 10_500;
const BLOCKS: u16 = 43;

/// A block that no other test program on this machine uses, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Block {
    base: u16,
    _lock: File,
}

impl Block {
    /// Takes a block that is free.
    pub(crate) fn take() -> Result<Self> {
        let start = rand::random_range(0..BLOCKS);
        for offset in 0..BLOCKS {
            let number = (start + offset) % BLOCKS;
            let base = FIRST + number * SIZE;
            let path = lock_file(number);
            let lock = File::options().create(true).truncate(false).write(true).open(&path);
            let lock = lock.with_context(|| path.display().to_string())?;
            match lock.try_lock() {
                Ok(()) if is_free(base) => return Ok(Self { base, _lock: lock }),
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error).with_context(|| path.display().to_string()),
            }
        }
        bail!("no free block of {SIZE} ports from {FIRST} on")
    }

    /// Its first port.
    pub(crate) fn base(&self) -> u16 {
        self.base
    }
}

fn lock_file(number: u16) -> PathBuf {
    std::env::temp_dir().join(format!("aldis-test-ports-{number}.lock"))
}

/// Whether nobody outside of tests listens in the block.
fn is_free(base: u16) -> bool {
    let free = |port| {
        let address = (Ipv4Addr::LOCALHOST, port);
        TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
    };
    (base..base + SIZE).all(free)
}
