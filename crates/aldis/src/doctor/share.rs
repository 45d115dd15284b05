//! `aldis doctor --share`: what a partner needs to know of this backend.

use std::fmt;

use aldis_federator::probe::{Authority, CertificateFacts};
use aldis_types::{Domain, Strategy};
use anyhow::{Context as _, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::config::Config;

/// Prints it, as text that can be sent to the partner or as JSON.
pub(super) async fn print(config: &Config, json: bool) -> Result<()> {
    let probe = super::probe(config, &[]).context("the configuration has no section `[federation]`")?;
    let certificate = probe.certificate().context("the certificate files cannot be used; `aldis doctor` tells why")?;
    let mut targets = probe.targets().await;
    targets.sort();
    let share = Share {
        domain: &config.domain,
        targets,
        listens_on: config.federation.as_ref().map_or(0, |federation| federation.listen.port()),
        certificate,
        authority: probe.authority(),
        strategy: config.users.federation.strategy,
    };
    if json {
        println!("{}", share.json());
    } else {
        print!("{share}");
    }
    Ok(())
}

struct Share<'a> {
    domain: &'a Domain,
    /// `host:port` of the federators, as published.
    targets: Vec<String>,
    listens_on: u16,
    certificate: &'a CertificateFacts,
    authority: Option<Authority>,
    strategy: Strategy,
}

impl Share<'_> {
    fn json(&self) -> Value {
        let authority =
            self.authority.as_ref().map(|it| json!({ "certificate": it.facts, "pem": pem(&it.certificate) }));
        json!({
            "domain": self.domain,
            "record": self.record(),
            "targets": self.targets,
            "certificate": self.certificate,
            "authority": authority,
            "strategy": self.strategy,
        })
    }

    fn record(&self) -> String {
        format!("_wire-server-federator._tcp.{}", self.domain)
    }

    /// Where the federators are, or what has to be done before that can be told.
    fn places(&self) -> String {
        if !self.targets.is_empty() {
            return self.targets.join(", ");
        }
        format!("not published yet; it listens on port {}", self.listens_on)
    }

    fn policy(&self) -> &'static str {
        match self.strategy {
            Strategy::AllowNone => "federates with nobody until `users.federation.strategy` is changed",
            Strategy::AllowAll => "federates with everybody; our users are found from there once you are on our list",
            Strategy::AllowList => "federates with those on its list; ours is set by `aldis remote set YOUR-DOMAIN`",
        }
    }
}

impl fmt::Display for Share<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (domain, certificate) = (self.domain, self.certificate);
        writeln!(f, "backend domain     {domain}")?;
        writeln!(f, "SRV record         {}", self.record())?;
        writeln!(f, "federators         {} (TCP, mutual TLS 1.3)", self.places())?;
        writeln!(f, "policy             {}", self.policy())?;
        writeln!(f, "certificate        {}", certificate.names.join(", "))?;
        writeln!(f, "valid to           {}", certificate.not_after)?;
        writeln!(f, "SHA-256            {}", certificate.fingerprint)?;
        writeln!(f, "SHA-256 of the key {}", certificate.spki_sha256)?;
        writeln!(f, "issued by          {}", certificate.issuer)?;
        if let Some(authority) = &self.authority {
            writeln!(f, "authority          {}", authority.facts.subject)?;
            writeln!(f, "valid to           {}", authority.facts.not_after)?;
            writeln!(f, "SHA-256            {}", authority.facts.fingerprint)?;
        }
        self.checklist(f)
    }
}

impl Share<'_> {
    fn checklist(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (domain, places) = (self.domain, self.places());
        writeln!(f, "\nWhat the partner does:")?;
        match &self.authority {
            Some(authority) => {
                writeln!(
                    f,
                    "1. compare the SHA-256 of the authority by another way than this text came, for instance by phone;"
                )?;
                writeln!(
                    f,
                    "   then add its certificate, which is below, to `federation.ca_file` ({})",
                    authority.facts.subject
                )?;
            }
            None => {
                writeln!(
                    f,
                    "1. for a public authority: set `federation.trust` to \"system\" or \"both\"; for one of our own: ask for its"
                )?;
                writeln!(f, "   certificate ({}) and add it to `federation.ca_file`", self.certificate.issuer)?;
            }
        }
        writeln!(
            f,
            "2. publish an SRV record of its own, with a certificate that carries its target and may be used by servers and clients"
        )?;
        writeln!(f, "3. let its federator reach {places}, and ours reach its own; nothing on the way may end TLS")?;
        writeln!(f, "4. aldis remote set {domain} --search-policy exact_handle_search")?;
        writeln!(f, "5. to trust nobody else for {domain}, whatever DNS says, in aldis.toml:")?;
        writeln!(f, "   [federation.pins.\"{domain}\"]")?;
        writeln!(f, "   spki_sha256 = [\"{}\"]", self.certificate.spki_sha256)?;
        writeln!(f, "6. send us the same: aldis doctor --share")?;
        writeln!(f, "7. aldis doctor {domain}")?;
        if let Some(authority) = &self.authority {
            write!(f, "\n{}", pem(&authority.certificate))?;
        }
        Ok(())
    }
}

/// A certificate as PEM.
fn pem(certificate: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(certificate);
    let mut lines = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        lines.extend(line.iter().map(|byte| char::from(*byte)));
        lines.push('\n');
    }
    lines.push_str("-----END CERTIFICATE-----\n");
    lines
}
