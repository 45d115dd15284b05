//! At most one process per service and store.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use crate::StoreError;

/// Held for as long as a process runs a service on an embedded store; released with the process, however it ends.
#[derive(Debug)]
pub struct ServiceLock {
    _file: File,
}

impl ServiceLock {
    /// Takes the lock file `<store>.<service>.lock`.
    pub fn take(store: &Path, service: &'static str) -> Result<Self, StoreError> {
        let mut name = store.as_os_str().to_owned();
        name.push(format!(".{service}.lock"));
        let file = File::options().create(true).truncate(false).write(true).open(Path::new(&name))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked(service)),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }
}
