//! Our certificate, the authorities that we trust, and their reload without a restart.
//!
//! Files are read again every few seconds and compared by content, which also notices symbolic links that are swapped.
//! What cannot be used is logged and what worked stays in force. New material holds for new connections at once, and old
//! connections are replaced gracefully. Sessions are never resumed: a resumed session would skip the verification.

mod files;
mod pins;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aldis_runtime::SharedClock;
use aldis_types::{Domain, KeyPin, Timestamp};
use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use self::pins::PinnedVerifier;
pub(crate) use self::{files::Files, pins::Pins};
use crate::{config::Config, metering, probe::CertificateFacts};

const RELOAD: Duration = Duration::from_secs(2);
const ALPN: &[u8] = b"h2";
const DAY_MILLIS: i64 = 24 * 3_600 * 1_000;
/// Days before the expiry of our certificate at which the log warns.
const WARN_DAYS: [i64; 3] = [30, 14, 3];

/// Why certificates or trust cannot be used. Names files, never their content.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds no usable PEM.
    #[error("{}: {text}", path.display())]
    Pem {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        text: String,
    },
    /// Nobody is trusted.
    #[error("no certificate authority is trusted: set `federation.ca_file`, or `federation.trust` to \"system\"")]
    NoRoots,
    /// The certificate, the key, or their combination.
    #[error("certificate or key for federation: {0}")]
    Rustls(#[from] rustls::Error),
    /// The verification cannot be set up.
    #[error("trust for federation: {0}")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

/// What the files say at one time.
pub(crate) struct Material {
    /// Rises with every reload.
    pub(crate) generation: u64,
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) not_after: Timestamp,
    leaf: CertificateDer<'static>,
    client: Arc<ClientConfig>,
    pinned_clients: BTreeMap<Domain, Arc<ClientConfig>>,
    /// Who may issue certificates of callers: in general, and for peers whose pin names authorities.
    callers: Option<Arc<dyn ClientCertVerifier>>,
    pinned_callers: BTreeMap<Domain, Arc<dyn ClientCertVerifier>>,
}

impl Material {
    /// How to connect to a peer.
    pub(crate) fn client(&self, domain: &Domain) -> Arc<ClientConfig> {
        self.pinned_clients.get(domain).unwrap_or(&self.client).clone()
    }

    /// Verifies that a caller's chain ends at an authority that may speak for `domain`.
    pub(crate) fn verify_caller(
        &self,
        domain: &Domain,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<(), rustls::Error> {
        let verifier = self.pinned_callers.get(domain).or(self.callers.as_ref());
        let verifier = verifier.ok_or(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer))?;
        let now = Duration::from_millis(u64::try_from(now.millis()).unwrap_or(0));
        verifier.verify_client_cert(leaf, intermediates, UnixTime::since_unix_epoch(now)).map(drop)
    }
}

/// The material in force, followed from the files.
pub(crate) struct Tls {
    config: Config,
    pins: Arc<Pins>,
    clock: SharedClock,
    current: ArcSwap<Material>,
    digest: Mutex<[u8; 32]>,
    changes: watch::Sender<u64>,
}

impl Tls {
    pub(crate) fn load(config: &Config, pins: Arc<Pins>, clock: SharedClock) -> Result<Arc<Self>, TlsError> {
        let files = Files::read(config)?;
        let material = build(config, &pins, &files, 0)?;
        let tls = Self {
            config: config.clone(),
            pins,
            clock,
            current: ArcSwap::from_pointee(material),
            digest: Mutex::new(files.digest()),
            changes: watch::Sender::new(0),
        };
        tls.tell_expiry(None);
        Ok(Arc::new(tls))
    }

    pub(crate) fn current(&self) -> Arc<Material> {
        self.current.load_full()
    }

    /// Ticks with the generation of every reload.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Our certificate.
    pub(crate) fn certificate(&self) -> Option<CertificateFacts> {
        CertificateFacts::read(&self.current.load().leaf)
    }

    /// Days until our certificate expires; negative afterwards.
    pub(crate) fn days_left(&self) -> i64 {
        days_until(self.current.load().not_after, self.clock.now())
    }

    /// Follows the files for as long as it is polled.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut days = self.days_left();
        loop {
            tokio::time::sleep(RELOAD).await;
            match self.reload().await {
                Ok(true) => tracing::info!(days.left = self.days_left(), "certificates for federation reloaded"),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "certificates for federation could not be reloaded"),
            }
            days = self.tell_expiry(Some(days));
        }
    }

    /// Reads the files again; `true` when something new is in force. An error is returned once per content.
    async fn reload(&self) -> Result<bool, TlsError> {
        let config = self.config.clone();
        let Ok(Ok(files)) = tokio::task::spawn_blocking(move || Files::read(&config)).await else {
            // Between two steps of a replacement a file can be missing; the next round tells.
            return Ok(false);
        };
        let digest = files.digest();
        if std::mem::replace(&mut *self.digest.lock().unwrap_or_else(PoisonError::into_inner), digest) == digest {
            return Ok(false);
        }
        let generation = self.current.load().generation + 1;
        self.current.store(Arc::new(build(&self.config, &self.pins, &files, generation)?));
        self.changes.send_replace(generation);
        Ok(true)
    }

    fn tell_expiry(&self, before: Option<i64>) -> i64 {
        let days = self.days_left();
        #[allow(clippy::cast_precision_loss)]
        metering::certificate_days(days as f64);
        let crossed = |limit: &i64| days <= *limit && before.is_none_or(|before| before > *limit);
        if days < 0 && before.is_none_or(|before| before >= 0) {
            tracing::error!("our federation certificate has expired");
        } else if WARN_DAYS.iter().any(crossed) {
            tracing::warn!(days.left = days, "our federation certificate expires soon");
        }
        days
    }
}

/// Whole days until `then`; negative when it has passed.
pub(crate) fn days_until(then: Timestamp, now: Timestamp) -> i64 {
    (then.millis() - now.millis()).div_euclid(DAY_MILLIS)
}

/// The end of a certificate's validity; `None` when it cannot be read.
pub(crate) fn not_after(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(Timestamp::from_millis(parsed.validity().not_after.timestamp().saturating_mul(1_000)))
}

/// The hash of a certificate's public key; `None` when the certificate cannot be read.
pub(crate) fn key_of(certificate: &CertificateDer<'_>) -> Option<KeyPin> {
    let leaf = ParsedCertificate::try_from(certificate).ok()?;
    Some(KeyPin(Sha256::digest(leaf.subject_public_key_info().as_ref()).into()))
}

fn provider(tls12: bool) -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    if tls12 {
        // For 1.2 only what federations of this kind offer: ECDHE with AES-256.
        provider.cipher_suites.retain(|suite| match suite {
            rustls::SupportedCipherSuite::Tls12(suite) => {
                format!("{:?}", suite.common.suite).contains("WITH_AES_256_GCM")
            }
            rustls::SupportedCipherSuite::Tls13(_) => true,
        });
    }
    Arc::new(provider)
}

fn build(config: &Config, pins: &Pins, files: &Files, generation: u64) -> Result<Material, TlsError> {
    let provider = provider(config.tls12);
    let versions: &[&rustls::SupportedProtocolVersion] =
        if config.tls12 { &[&rustls::version::TLS13, &rustls::version::TLS12] } else { &[&rustls::version::TLS13] };
    let chain = Files::certificates(&config.certificate_file, &files.certificate)?;
    let unreadable = || TlsError::Pem {
        path: config.certificate_file.clone(),
        text: "the first certificate cannot be read".to_owned(),
    };
    let leaf = chain.first().ok_or_else(unreadable)?;
    let not_after = not_after(leaf).ok_or_else(unreadable)?;
    warn_about_usage(&chain);
    let key = PrivateKeyDer::from_pem_slice(&files.key)
        .map_err(|error| TlsError::Pem { path: config.key_file.clone(), text: error.to_string() })?;

    let (general, pinned) = roots(config, files)?;
    let mut everyone = general.clone();
    for store in pinned.values() {
        everyone.extend(store.roots.iter().cloned());
    }
    let caller_verifier = |store: RootCertStore| {
        WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider.clone())
            .clear_root_hint_subjects()
            .build()
    };
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(caller_verifier(everyone)?)
        .with_single_cert(chain.clone(), key.clone_key())?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;

    let client = |store: &RootCertStore, domain: Option<&Domain>| -> Result<Arc<ClientConfig>, TlsError> {
        let verifier: Arc<dyn ServerCertVerifier> = if store.is_empty() {
            Arc::new(PinnedVerifier::nobody(&provider))
        } else {
            let inner =
                WebPkiServerVerifier::builder_with_provider(Arc::new(store.clone()), provider.clone()).build()?;
            match domain.and_then(|domain| pins.of(domain)) {
                Some(pin) => Arc::new(PinnedVerifier::new(inner, pin)),
                None => inner,
            }
        };
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(chain.clone(), key.clone_key())?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        Ok(Arc::new(client))
    };
    let mut pinned_clients = BTreeMap::new();
    let mut pinned_callers = BTreeMap::new();
    for domain in pins.domains() {
        let store = pinned.get(domain).unwrap_or(&general);
        pinned_clients.insert(domain.clone(), client(store, Some(domain))?);
    }
    for (domain, store) in &pinned {
        pinned_callers.insert(domain.clone(), caller_verifier(store.clone())?);
    }
    Ok(Material {
        generation,
        server: Arc::new(server),
        not_after,
        leaf: leaf.clone(),
        client: client(&general, None)?,
        pinned_clients,
        callers: if general.is_empty() { None } else { Some(caller_verifier(general)?) },
        pinned_callers,
    })
}

type Roots = (RootCertStore, BTreeMap<Domain, RootCertStore>);

fn roots(config: &Config, files: &Files) -> Result<Roots, TlsError> {
    let mut general = RootCertStore::empty();
    if config.trust.system() {
        let native = rustls_native_certs::load_native_certs();
        let (added, _) = general.add_parsable_certificates(native.certs);
        tracing::debug!(roots = added, problems = native.errors.len(), "certificate authorities of the machine read");
    }
    if let (true, Some(path), Some(text)) = (config.trust.private(), &config.ca_file, &files.ca) {
        for certificate in Files::certificates(path, text)? {
            general.add(certificate)?;
        }
    }
    let mut pinned = BTreeMap::new();
    for (domain, (path, text)) in &files.pinned {
        let mut store = RootCertStore::empty();
        for certificate in Files::certificates(path, text)? {
            store.add(certificate)?;
        }
        pinned.insert(domain.clone(), store);
    }
    if general.is_empty() && pinned.is_empty() { Err(TlsError::NoRoots) } else { Ok((general, pinned)) }
}

/// A certificate that serves one direction only is a common mistake, and fails at the partner, not here.
fn warn_about_usage(chain: &[CertificateDer<'_>]) {
    let Some((_, leaf)) = chain.first().and_then(|leaf| x509_parser::parse_x509_certificate(leaf).ok()) else { return };
    let Ok(Some(usage)) = leaf.extended_key_usage() else { return };
    if !usage.value.any && !usage.value.client_auth {
        tracing::warn!("our federation certificate lacks the usage clientAuth: peers will refuse our calls");
    }
    if !usage.value.any && !usage.value.server_auth {
        tracing::warn!("our federation certificate lacks the usage serverAuth: peers cannot call us");
    }
}
