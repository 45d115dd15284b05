//! A certificate authority of the test: real certificates, true and false ones.

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};

pub use rcgen::ExtendedKeyUsagePurpose as Usage;

/// A certificate with its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate in PEM.
    pub certificate_pem: String,
    /// The private key in PEM.
    pub key_pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Identity {
    /// The certificate chain as rustls takes it.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.clone()
    }

    /// The same with the certificate of the authority that issued it behind its own.
    #[must_use]
    pub fn with_intermediate(mut self, authority: &Authority) -> Self {
        self.certificate_pem.push_str(authority.pem());
        self.chain.push(authority.certificate());
        self
    }

    /// The private key as rustls takes it.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }
}

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    certificate: CertificateDer<'static>,
}

impl Authority {
    /// A new authority of this name.
    pub fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let params = authority(name, 1)?;
        let certificate = params.self_signed(&key).context("signing the authority")?;
        Ok(Self {
            certificate_pem: certificate.pem(),
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The authority with this certificate and key.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self> {
        let key = KeyPair::from_pem(key_pem).context("key of the authority")?;
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).context("its certificate")?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).context("certificate of the authority")?;
        Ok(Self { issuer, certificate_pem: certificate_pem.to_owned(), certificate })
    }

    /// An authority below this one, whose certificate nobody trusts by itself.
    pub fn intermediate(&self, name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = authority(name, 0)?;
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).context("signing the intermediate")?;
        Ok(Self {
            certificate_pem: certificate.pem(),
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The authority's own certificate in PEM.
    pub fn pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// A certificate for these DNS names, good for servers and clients.
    pub fn issue(&self, names: &[&str]) -> Result<Identity> {
        self.sign(names, |_| {})
    }

    /// A certificate for these DNS names that ran out long ago.
    pub fn issue_expired(&self, names: &[&str]) -> Result<Identity> {
        self.sign(names, |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        })
    }

    /// A certificate for these DNS names that only servers may use, or only clients.
    pub fn issue_for_one(&self, names: &[&str], usage: ExtendedKeyUsagePurpose) -> Result<Identity> {
        self.sign(names, |params| params.extended_key_usages = vec![usage])
    }

    fn sign(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Result<Identity> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.clone())?;
        params.distinguished_name = named(names.first().map_or("nobody", String::as_str));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).context("signing a certificate")?;
        Ok(Identity {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            chain: vec![certificate.der().clone()],
            key: key.serialize_der(),
        })
    }
}

fn authority(name: &str, below: u8) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
