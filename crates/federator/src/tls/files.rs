//! The files that certificates and trust come from.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use aldis_types::Domain;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};

use super::TlsError;
use crate::config::Config;

const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
const MAX_CERTIFICATES: usize = 2_048;

pub(crate) struct Files {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
    pub(crate) ca: Option<Vec<u8>>,
    pub(crate) pinned: BTreeMap<Domain, (PathBuf, Vec<u8>)>,
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mut content = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(failed(std::io::Error::other(format!("larger than {MAX_FILE_BYTES} bytes"))));
    }
    Ok(content)
}

impl Files {
    /// Blocks while files are read.
    pub(crate) fn read(config: &Config) -> Result<Self, TlsError> {
        let mut pinned = BTreeMap::new();
        for (domain, pin) in &config.pins {
            if let Some(path) = &pin.ca_file {
                pinned.insert(domain.clone(), (path.clone(), read(path)?));
            }
        }
        Ok(Self {
            certificate: read(&config.certificate_file)?,
            key: read(&config.key_file)?,
            ca: match &config.ca_file {
                Some(path) => Some(read(path)?),
                None => None,
            },
            pinned,
        })
    }

    /// Changes whenever any content does.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut all = Sha256::new();
        let contents = [&self.certificate, &self.key].into_iter().chain(&self.ca);
        for content in contents.chain(self.pinned.values().map(|(_, content)| content)) {
            all.update(Sha256::digest(content));
        }
        all.finalize().into()
    }

    /// The certificates in a PEM file: at least one.
    pub(crate) fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let wrong = |text: String| TlsError::Pem { path: path.to_owned(), text };
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(text)
            .take(MAX_CERTIFICATES)
            .collect::<Result<_, _>>()
            .map_err(|error| wrong(error.to_string()))?;
        if certificates.is_empty() { Err(wrong("holds no certificate".to_owned())) } else { Ok(certificates) }
    }
}
