//! What a certificate says, and looking at a peer's without trusting it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use aldis_types::Timestamp;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, aws_lc_rs},
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use x509_parser::extensions::GeneralName;

use super::{Check, Side, shown};
use crate::{network::Io, tls::days_until};

/// Most names of a certificate that are shown.
const MAX_NAMES: usize = 16;
/// Days of validity below which a certificate deserves attention.
const SOON_DAYS: i64 = 14;

/// What a certificate says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateFacts {
    /// Whose it is.
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// Its alternative names: hosts and addresses.
    pub names: Vec<String>,
    /// Begin of its validity.
    pub not_before: Timestamp,
    /// End of its validity.
    pub not_after: Timestamp,
    /// Whether servers may use it.
    pub server_auth: bool,
    /// Whether clients may use it.
    pub client_auth: bool,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    /// SHA-256 of the public key (`SubjectPublicKeyInfo`), in hexadecimal, as pins want it.
    pub spki_sha256: String,
    #[serde(skip)]
    pub(super) self_signed: bool,
}

fn seconds(time: x509_parser::time::ASN1Time) -> Timestamp {
    Timestamp::from_millis(time.timestamp().saturating_mul(1_000))
}

fn name_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(host) => Some(shown(host)),
        GeneralName::IPAddress(bytes) => match *bytes {
            [a, b, c, d] => Some(std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string()),
            bytes => <[u8; 16]>::try_from(bytes).ok().map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
        },
        _ => None,
    }
}

impl CertificateFacts {
    /// `None` when the certificate cannot be read.
    pub(crate) fn read(certificate: &CertificateDer<'static>) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let usage = parsed.extended_key_usage().ok().flatten();
        let allows = |of: fn(&x509_parser::extensions::ExtendedKeyUsage<'_>) -> bool| {
            usage.as_ref().is_none_or(|usage| usage.value.any || of(usage.value))
        };
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names.map(|names| names.value.general_names.iter().filter_map(name_of).take(MAX_NAMES).collect());
        Some(Self {
            subject: shown(&parsed.subject().to_string()),
            issuer: shown(&parsed.issuer().to_string()),
            names: names.unwrap_or_default(),
            not_before: seconds(parsed.validity().not_before),
            not_after: seconds(parsed.validity().not_after),
            server_auth: allows(|usage| usage.server_auth),
            client_auth: allows(|usage| usage.client_auth),
            fingerprint: hex::encode(Sha256::digest(certificate)),
            spki_sha256: hex::encode(Sha256::digest(parsed.public_key().raw)),
            self_signed: parsed.subject() == parsed.issuer(),
        })
    }

    /// Validity now.
    pub(super) fn expiry(&self, name: &'static str, side: Side, now: Timestamp) -> Check {
        let days = days_until(self.not_after, now);
        let when = format!("valid from {} to {}", self.not_before, self.not_after);
        if now < self.not_before {
            let advice = "wait, or correct the clock of this machine or of the authority";
            Check::failed(name, side, format!("not valid yet: {when}"), advice)
        } else if self.not_after <= now {
            Check::failed(name, side, format!("expired: {when}"), "install a renewed certificate; no restart is needed")
        } else if days < SOON_DAYS {
            let advice = "renew it now; no restart is needed";
            Check::warning(name, side, format!("expires in {days} days: {when}"), advice)
        } else {
            Check::passed(name, format!("{when}, {days} days left"))
        }
    }

    /// Both directions must be allowed.
    pub(super) fn usage(&self, name: &'static str, side: Side) -> Check {
        let missing: Vec<&str> = [(self.server_auth, "serverAuth"), (self.client_auth, "clientAuth")]
            .iter()
            .filter(|(allowed, _)| !allowed)
            .map(|(_, usage)| *usage)
            .collect();
        if missing.is_empty() {
            return Check::passed(name, "good for servers and clients");
        }
        let found = format!("the extended key usage lacks {}", missing.join(" and "));
        let advice = "have it issued with serverAuth and clientAuth; one certificate serves both directions, and public \
                      authorities no longer grant clientAuth";
        Check::failed(name, side, found, advice)
    }
}

/// Whether a certificate may stand for a host.
pub(super) fn covers(certificate: &CertificateDer<'_>, host: &str) -> bool {
    let Ok(leaf) = ParsedCertificate::try_from(certificate) else { return false };
    ServerName::try_from(host).is_ok_and(|name| verify_server_name(&leaf, &name).is_ok())
}

/// Keeps the chain that a server shows, and trusts nobody: the handshake ends there, before anything of ours is sent.
struct Onlooker {
    seen: Mutex<Vec<CertificateDer<'static>>>,
    schemes: Vec<SignatureScheme>,
}

impl fmt::Debug for Onlooker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Onlooker")
    }
}

fn only_looking() -> Error {
    Error::General("only looking".to_owned())
}

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::iter::once(end_entity).chain(intermediates);
        let chain = chain.map(|certificate| certificate.clone().into_owned()).collect();
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = chain;
        Err(only_looking())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_looking())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_looking())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// The chain that the server behind a connection shows for `host`, leaf first; a text when it shows none.
pub(super) async fn look(io: Box<dyn Io>, host: &str, until: Instant) -> Result<Vec<CertificateDer<'static>>, String> {
    let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let onlooker = Arc::new(Onlooker { seen: Mutex::default(), schemes });
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(onlooker.clone())
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("{host} is no host name"))?;
    let outcome = timeout_at(until, TlsConnector::from(Arc::new(client)).connect(name, io)).await;
    let seen = std::mem::take(&mut *onlooker.seen.lock().unwrap_or_else(PoisonError::into_inner));
    match outcome {
        _ if !seen.is_empty() => Ok(seen),
        Ok(Err(error)) => Err(shown(&error.to_string())),
        Ok(Ok(_)) => Err("no certificate was shown".to_owned()),
        Err(_) => Err("no answer to the TLS handshake in time".to_owned()),
    }
}
