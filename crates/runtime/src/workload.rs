//! Workload identity: how services of one backend prove themselves to each other over sockets.
//!
//! Every service process has a certificate of the backend's internal authority with the DNS name
//! `<service>.internal.<domain>`. Both sides of an internal connection check the other's name; TLS 1.3 only.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs, server::WebPkiClientVerifier, version::TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};
use x509_parser::{extensions::GeneralName, prelude::FromDer};

/// Makes the one cryptographic provider of this process known. Call it first thing; further calls change nothing.
pub fn install_crypto() {
    // An error means that a provider is there already, which can only be the same one.
    let _ = aws_lc_rs::default_provider().install_default();
}

/// The DNS name that stands for a service of a backend in internal certificates.
pub fn workload_name(service: &str, domain: &str) -> String {
    format!("{service}.internal.{domain}")
}

/// Why certificates cannot be used.
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
    #[error("internal TLS: {0}")]
    Setup(String),
}

/// Certificate, key and authority of one service process.
#[derive(Clone)]
pub struct Workload {
    server: Arc<ServerConfig>,
    client: ClientTlsConfig,
}

impl std::fmt::Debug for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Workload")
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::File { path: path.to_owned(), what: error.to_string() })
}

impl Workload {
    /// Reads PEM files: the authority's certificate, this process's certificate chain and its private key.
    pub fn load(ca: &Path, certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let bad = |path: &Path, what: &dyn std::fmt::Display| TlsError::File {
            path: path.to_owned(),
            what: what.to_string(),
        };
        let (ca_pem, certificate_pem, key_pem) = (read(ca)?, read(certificate)?, read(key)?);
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&ca_pem) {
            let root = root.map_err(|error| bad(ca, &error))?;
            roots.add(root).map_err(|error| bad(ca, &error))?;
        }
        let chain = CertificateDer::pem_slice_iter(&certificate_pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| bad(certificate, &error))?;
        let private = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| bad(key, &error))?;

        let setup = |error: &dyn std::fmt::Display| TlsError::Setup(error.to_string());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| setup(&error))?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| setup(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, private)
            .map_err(|error| setup(&error))?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        let client = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&ca_pem))
            .identity(Identity::from_pem(&certificate_pem, &key_pem));
        Ok(Self { server: Arc::new(server), client })
    }

    /// For a listener: callers must show a certificate of the internal authority.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// For a connection to the service with this name.
    pub(crate) fn client(&self, name: &str) -> ClientTlsConfig {
        self.client.clone().domain_name(name)
    }
}

/// The DNS names in a certificate; none when it cannot be read.
pub(crate) fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = x509_parser::certificate::X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(alternative)) = parsed.subject_alternative_name() else { return Vec::new() };
    let dns = alternative.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    dns.collect()
}
