//! Certificates, true and false ones.

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

pub(in crate::tests) struct Identity {
    pub(in crate::tests) certificate_pem: String,
    pub(in crate::tests) key_pem: String,
    pub(super) certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Identity {
    pub(in crate::tests) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone()]
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }
}

pub(in crate::tests) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    pub(super) certificate: CertificateDer<'static>,
}

impl Authority {
    pub(in crate::tests) fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok(Self { pem: certificate.pem(), certificate: certificate.der().clone(), issuer: Issuer::new(params, key) })
    }

    pub(in crate::tests) fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for these DNS names, good for servers and clients.
    pub(in crate::tests) fn issue(&self, names: &[&str]) -> Result<Identity> {
        self.sign(names, |_| {})
    }

    /// One that ran out long ago.
    pub(in crate::tests) fn issue_expired(&self, names: &[&str]) -> Result<Identity> {
        self.sign(names, |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        })
    }

    /// One whose name stands in the subject alone.
    pub(in crate::tests) fn issue_without_names(&self, name: &str) -> Result<Identity> {
        self.sign(&[name], |params| params.subject_alt_names.clear())
    }

    /// One that is good for servers alone.
    pub(in crate::tests) fn issue_for_server(&self, names: &[&str]) -> Result<Identity> {
        self.sign(names, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])
    }

    fn sign(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Result<Identity> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.clone())?;
        params.distinguished_name = named(&names[0]);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            certificate: certificate.der().clone(),
            key: key.serialize_der(),
        })
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
