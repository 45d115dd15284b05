//! Certificates and keys in files that an operator replaces while the process runs.
//!
//! Files are read again every few seconds and compared by content, which also notices symbolic links that are swapped.
//! What cannot be used is logged, once, and what worked stays in force.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

const RELOAD: Duration = Duration::from_secs(2);
const MAX_FILE_BYTES: u64 = 1024 * 1024;
const MAX_CERTIFICATES: usize = 256;

/// Why certificates cannot be used. Names files, never their content.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds no PEM of the kind expected.
    #[error("{}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Certificate and key don't fit, or the authority is unusable.
    #[error("TLS: {0}")]
    Setup(String),
}

impl TlsError {
    pub(crate) fn setup(error: impl ToString) -> Self {
        Self::Setup(error.to_string())
    }

    fn file(path: &Path, what: impl ToString) -> Self {
        Self::File { path: path.to_owned(), what: what.to_string() }
    }
}

/// A file as it was read.
pub(crate) struct Content {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Content {
    fn read(path: &Path) -> Result<Self, TlsError> {
        let failed = |error| TlsError::file(path, error);
        let mut bytes = Vec::new();
        File::open(path).map_err(failed)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(TlsError::file(path, format_args!("larger than {MAX_FILE_BYTES} bytes")));
        }
        Ok(Self { path: path.to_owned(), bytes })
    }

    /// The certificates in it: at least one.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).take(MAX_CERTIFICATES).collect();
        match read {
            Ok(certificates) if certificates.is_empty() => Err(TlsError::file(&self.path, "holds no certificate")),
            Ok(certificates) => Ok(certificates),
            Err(error) => Err(TlsError::file(&self.path, error)),
        }
    }

    /// The private key in it.
    pub(crate) fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|error| TlsError::file(&self.path, error))
    }
}

/// Makes what is in force from `N` files.
type Build<T, const N: usize> = fn(&[Content; N]) -> Result<T, TlsError>;

/// What `N` files say, followed.
pub(crate) struct Followed<T, const N: usize> {
    what: &'static str,
    paths: [PathBuf; N],
    build: Build<T, N>,
    current: ArcSwap<T>,
    digest: Mutex<[u8; 32]>,
    changes: watch::Sender<u64>,
}

impl<T: Send + Sync + 'static, const N: usize> Followed<T, N> {
    /// Reads the files; `what` names them in the log.
    pub(crate) fn load(what: &'static str, paths: [PathBuf; N], build: Build<T, N>) -> Result<Self, TlsError> {
        let contents = read(&paths)?;
        let (current, digest) = (ArcSwap::from_pointee(build(&contents)?), Mutex::new(digest(&contents)));
        Ok(Self { what, paths, build, current, digest, changes: watch::Sender::new(0) })
    }

    pub(crate) fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Ticks when something new is in force.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Follows the files for as long as it is polled.
    pub(crate) async fn follow(self: Arc<Self>) {
        loop {
            tokio::time::sleep(RELOAD).await;
            let followed = self.clone();
            match tokio::task::spawn_blocking(move || followed.reload()).await {
                Ok(Ok(true)) => tracing::info!("{} reloaded", self.what),
                Ok(Ok(false)) | Err(_) => {}
                Ok(Err(error)) => tracing::error!(%error, "{} could not be reloaded", self.what),
            }
        }
    }

    /// Reads the files again; `true` when something new is in force. An error is returned once per content.
    fn reload(&self) -> Result<bool, TlsError> {
        // Between two steps of a replacement a file can be missing; the next round tells.
        let Ok(contents) = read(&self.paths) else { return Ok(false) };
        let digest = digest(&contents);
        if std::mem::replace(&mut *self.digest.lock().unwrap_or_else(PoisonError::into_inner), digest) == digest {
            return Ok(false);
        }
        self.current.store(Arc::new((self.build)(&contents)?));
        self.changes.send_modify(|generation| *generation += 1);
        Ok(true)
    }
}

fn read<const N: usize>(paths: &[PathBuf; N]) -> Result<[Content; N], TlsError> {
    let contents = paths.iter().map(|path| Content::read(path)).collect::<Result<Vec<_>, _>>()?;
    contents.try_into().map_err(|_| TlsError::setup("files are missing"))
}

fn digest(contents: &[Content]) -> [u8; 32] {
    let mut all = Sha256::new();
    for content in contents {
        all.update(Sha256::digest(&content.bytes));
    }
    all.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("certificates.pem");
        let certificate = || rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap().cert.pem();
        std::fs::write(&path, certificate()).unwrap();
        let build: Build<usize, 1> = |[file]| file.certificates().map(|certificates| certificates.len());
        let followed = Followed::load("certificates", [path.clone()], build).unwrap();
        let changes = followed.changes();
        assert!(!followed.reload().unwrap());
        std::fs::write(&path, "nonsense").unwrap();
        assert!(followed.reload().unwrap_err().to_string().contains("certificates.pem"));
        assert!(!followed.reload().unwrap(), "told once");
        std::fs::remove_file(&path).unwrap();
        assert!(!followed.reload().unwrap());
        assert!(*followed.current() == 1 && !changes.has_changed().unwrap());
        std::fs::write(&path, certificate() + &certificate()).unwrap();
        assert!(followed.reload().unwrap());
        assert!(*followed.current() == 2 && changes.has_changed().unwrap());
    }
}
