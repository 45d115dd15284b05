//! Authorities and certificates of a local federation. Not for production: the authority's key lies beside it.

use std::{fs, path::Path};

use aldis_runtime::workload::workload_name;
use aldis_types::Domain;
use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use super::layout::{Access, DomainFolder, Folder, SERVICES, make_folder, write};

/// The name under which a backend's federator is found and proves itself.
pub(crate) fn federator_host(domain: &Domain) -> String {
    format!("federator.{domain}")
}

fn named(common_name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2045, 1, 1);
    Ok(params)
}

fn authority(common_name: &str) -> Result<CertificateParams> {
    let mut params = named(common_name)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// A certificate for both ends of a connection, and its key, as `<name>.pem` and `<name>-key.pem`.
fn issue(issuer: &Issuer<'_, KeyPair>, host: &str, certificate: &Path, key: &Path) -> Result<()> {
    // A common name holds 64 characters at most; names are matched by the alternative name alone.
    let mut params = named(if host.len() <= 64 { host } else { "Aldis" })?;
    params.subject_alt_names = vec![rcgen::SanType::DnsName(host.try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let pair = KeyPair::generate()?;
    let signed = params.signed_by(&pair, issuer)?;
    write(key, pair.serialize_pem().as_bytes(), Access::Owner)?;
    write(certificate, signed.pem().as_bytes(), Access::All)
}

/// Makes the authority for federation, unless it is there.
pub(crate) fn make_authority(folder: &Folder) -> Result<()> {
    if folder.ca().exists() {
        return Ok(());
    }
    let key = KeyPair::generate()?;
    let certificate = authority("Aldis local federation")?.self_signed(&key)?;
    write(&folder.ca_key(), key.serialize_pem().as_bytes(), Access::Owner)?;
    write(&folder.ca(), certificate.pem().as_bytes(), Access::All)
}

/// Issues the federation certificate of a backend.
pub(crate) fn issue_federation(folder: &Folder, domain: &Domain, target: &DomainFolder) -> Result<()> {
    let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    let key = KeyPair::from_pem(&read(&folder.ca_key())?).context("key of the authority")?;
    let issuer = Issuer::from_ca_cert_pem(&read(&folder.ca())?, key).context("certificate of the authority")?;
    issue(&issuer, &federator_host(domain), &target.certificate(), &target.key())
}

/// Issues the certificates by which the services of a backend know each other. The key of their authority is thrown
/// away: nobody else can ever be one of them.
pub(crate) fn issue_internal(domain: &Domain, target: &DomainFolder) -> Result<()> {
    let internal = target.internal();
    make_folder(&internal)?;
    let key = KeyPair::generate()?;
    let params = authority(&format!("Services of {}", shortened(domain)))?;
    write(&internal.join("ca.pem"), params.self_signed(&key)?.pem().as_bytes(), Access::All)?;
    let issuer = Issuer::new(params, key);
    for service in SERVICES {
        let (certificate, key) = (internal.join(format!("{service}.pem")), internal.join(format!("{service}-key.pem")));
        issue(&issuer, &workload_name(service, domain.as_str()), &certificate, &key)?;
    }
    Ok(())
}

fn shortened(domain: &Domain) -> &str {
    domain.as_str().get(..40).unwrap_or(domain.as_str())
}
