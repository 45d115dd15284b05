//! Workload identity: how services of one backend prove themselves to each other over sockets.
//!
//! Every service process has a certificate of the backend's internal authority with the DNS name
//! `<service>.internal.<domain>`. Both sides of an internal connection check the other's name; TLS 1.3 only, and no
//! session is resumed, because that would skip the verification. The files are followed ([`Workload::follow`]): new
//! ones hold for new connections at once, and listeners end the connections that were made with the old ones.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::aws_lc_rs,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use x509_parser::{extensions::GeneralName, prelude::FromDer};

pub use crate::followed::TlsError;
use crate::followed::{Content, Followed};

const ALPN: &[u8] = b"h2";

/// Makes the one cryptographic provider of this process known. Call it first thing; further calls change nothing.
pub fn install_crypto() {
    // An error means that a provider is there already, which can only be the same one.
    let _ = aws_lc_rs::default_provider().install_default();
}

/// The DNS name that stands for a service of a backend in internal certificates.
pub fn workload_name(service: &str, domain: &str) -> String {
    format!("{service}.internal.{domain}")
}

struct Material {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// Certificate, key and authority of one service process. Cheap to clone.
#[derive(Clone)]
pub struct Workload(Arc<Followed<Material, 3>>);

impl std::fmt::Debug for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Workload")
    }
}

impl Workload {
    /// Reads PEM files: the authority's certificate, this process's certificate chain and its private key.
    pub fn load(ca: &Path, certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let paths = [ca.to_owned(), certificate.to_owned(), key.to_owned()];
        Ok(Self(Arc::new(Followed::load("internal certificates", paths, build)?)))
    }

    /// Puts new content of the files in force, for as long as it is polled.
    pub async fn follow(self) {
        self.0.follow().await;
    }

    /// For a listener: callers must show a certificate of the internal authority.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        self.0.current().server.clone()
    }

    /// For a connection to another service.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        self.0.current().client.clone()
    }

    /// Ticks when other certificates are in force.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes()
    }
}

fn build([ca, certificate, key]: &[Content; 3]) -> Result<Material, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in ca.certificates()? {
        roots.add(root).map_err(TlsError::setup)?;
    }
    let roots = Arc::new(roots);
    let (chain, key) = (certificate.certificates()?, key.key()?);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::setup)?
        .with_client_cert_verifier(verifier.build().map_err(TlsError::setup)?)
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(TlsError::setup)?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::setup)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(TlsError::setup)?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = Resumption::disabled();
    Ok(Material { server: Arc::new(server), client: Arc::new(client) })
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
