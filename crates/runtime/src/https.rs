//! HTTPS on a listener of our own, for installations without a proxy in front.

use std::{path::Path, sync::Arc, time::Duration};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    version::{TLS12, TLS13},
};
use x509_parser::parse_x509_certificate;

use crate::{
    SharedClock,
    followed::{Content, Followed, TlsError},
};

/// Days of validity below which the certificate is worth a word.
const FEW_DAYS: i64 = 14;
const DAY: i64 = 24 * 3_600;
/// How often the metric follows the time.
const TURN: Duration = Duration::from_secs(60);

struct Material {
    server: Arc<ServerConfig>,
    /// The end of its validity, in seconds since 1970.
    not_after: i64,
}

/// A certificate for clients and its key, followed: new content of the files holds for new connections at once, without a
/// restart. Connections that are open stay. Cheap to clone.
#[derive(Clone)]
pub struct Https(Arc<Followed<Material, 2>>);

impl std::fmt::Debug for Https {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Https")
    }
}

impl Https {
    /// Reads PEM files: the certificate with every intermediate after it, and its private key.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let paths = [certificate.to_owned(), key.to_owned()];
        Ok(Self(Arc::new(Followed::load("the certificate for clients", paths, build)?)))
    }

    /// Puts new content of the files in force and tells its validity as a metric, for as long as it is polled.
    pub async fn follow(self, clock: SharedClock) {
        let telling = async {
            loop {
                #[allow(clippy::cast_precision_loss)]
                metrics::gauge!("aldis_client_certificate_expiry_days").set(self.days_left(&clock) as f64);
                tokio::time::sleep(TURN).await;
            }
        };
        tokio::select! {
            () = self.0.clone().follow() => {}
            () = telling => {}
        }
    }

    /// For `/readyz`: whether the certificate is valid for some time yet.
    pub fn check(&self, clock: &SharedClock) -> Result<(), String> {
        match self.days_left(clock) {
            ..0 => Err("the certificate for clients has expired".to_owned()),
            days @ 0..FEW_DAYS => Err(format!("the certificate for clients expires in {days} days")),
            _ => Ok(()),
        }
    }

    fn days_left(&self, clock: &SharedClock) -> i64 {
        (self.0.current().not_after - clock.now().millis() / 1_000).div_euclid(DAY)
    }

    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        self.0.current().server.clone()
    }
}

fn build([certificate, key]: &[Content; 2]) -> Result<Material, TlsError> {
    let chain = certificate.certificates()?;
    let leaf = chain.first().and_then(|leaf| parse_x509_certificate(leaf).ok());
    let not_after = leaf.ok_or_else(|| TlsError::setup("the first certificate cannot be read"))?.1.validity().not_after;
    let not_after = not_after.timestamp();
    let mut server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(TlsError::setup)?
        .with_no_client_auth()
        .with_single_cert(chain, key.key()?)
        .map_err(TlsError::setup)?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Material { server: Arc::new(server), not_after })
}
