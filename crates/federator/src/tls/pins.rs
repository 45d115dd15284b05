//! What the operator demands of the certificates of single peers.

use std::{collections::BTreeMap, fmt, sync::Arc};

use aldis_types::Domain;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::CryptoProvider,
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};

use crate::config::{self, Config};

/// A pin, ready for use.
#[derive(Debug, Clone)]
pub(crate) struct Pin {
    keys: Vec<[u8; 32]>,
    names: Vec<ServerName<'static>>,
}

impl Pin {
    /// Whether the peer is proven without its SRV record.
    pub(crate) fn proves_alone(&self) -> bool {
        !self.keys.is_empty() || !self.names.is_empty()
    }

    /// Whether the key is one of the pinned ones, if keys are pinned.
    pub(crate) fn key_matches(&self, leaf: &ParsedCertificate<'_>) -> bool {
        let hash = || -> [u8; 32] { Sha256::digest(leaf.subject_public_key_info().as_ref()).into() };
        self.keys.is_empty() || self.keys.contains(&hash())
    }

    /// Whether the certificate carries one of the pinned names, if names are pinned.
    pub(crate) fn name_matches(&self, leaf: &ParsedCertificate<'_>) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| verify_server_name(leaf, name).is_ok())
    }
}

/// The pins of all peers.
#[derive(Debug, Default)]
pub(crate) struct Pins(BTreeMap<Domain, Pin>);

impl Pins {
    pub(crate) fn new(config: &Config) -> Self {
        let pin = |pin: &config::Pin| Pin {
            keys: pin.spki_sha256.iter().filter_map(|text| config::spki(text)).collect(),
            names: pin.names.iter().filter_map(|name| ServerName::try_from(name.clone()).ok()).collect(),
        };
        Self(config.pins.iter().map(|(domain, parts)| (domain.clone(), pin(parts))).collect())
    }

    pub(crate) fn of(&self, domain: &Domain) -> Option<&Pin> {
        self.0.get(domain)
    }

    pub(crate) fn domains(&self) -> impl Iterator<Item = &Domain> {
        self.0.keys()
    }
}

/// Verifies the server of a pinned peer: first as always, then by the pin.
pub(super) struct PinnedVerifier {
    inner: Option<Arc<WebPkiServerVerifier>>,
    pin: Option<Pin>,
    schemes: Vec<SignatureScheme>,
}

impl fmt::Debug for PinnedVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedVerifier").field("pin", &self.pin).finish_non_exhaustive()
    }
}

impl PinnedVerifier {
    pub(super) fn new(inner: Arc<WebPkiServerVerifier>, pin: &Pin) -> Self {
        let schemes = inner.supported_verify_schemes();
        Self { inner: Some(inner), pin: Some(pin.clone()), schemes }
    }

    /// For peers without a pin when only pinned ones have trusted authorities.
    pub(super) fn nobody(provider: &CryptoProvider) -> Self {
        let schemes = provider.signature_verification_algorithms.supported_schemes();
        Self { inner: None, pin: None, schemes }
    }

    fn inner(&self) -> Result<&WebPkiServerVerifier, Error> {
        self.inner.as_deref().ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let inner = self.inner()?;
        let leaf = ParsedCertificate::try_from(end_entity)?;
        let pinned_name =
            self.pin.as_ref().and_then(|pin| pin.names.iter().find(|name| verify_server_name(&leaf, name).is_ok()));
        let verified = inner.verify_server_cert(
            end_entity,
            intermediates,
            pinned_name.unwrap_or(server_name),
            ocsp_response,
            now,
        )?;
        match &self.pin {
            Some(pin) if !pin.name_matches(&leaf) => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
            Some(pin) if !pin.key_matches(&leaf) => {
                Err(Error::General("the public key of the peer is not the pinned one".to_owned()))
            }
            _ => Ok(verified),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner()?.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner()?.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
