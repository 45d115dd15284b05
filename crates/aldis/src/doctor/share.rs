//! `aldis doctor --share`: what a partner needs to know of this backend.

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::config::Config;

/// Prints it, as text that can be sent to the partner or as JSON.
pub(super) async fn print(config: &Config, json: bool) -> Result<()> {
    let probe = super::probe(config, &[]).await.context("the configuration has no section `[federation]`")?;
    let certificate = probe.certificate().context("the certificate files cannot be used; `aldis doctor` tells why")?;
    let targets = probe.targets().await;
    let domain = &config.domain;
    if json {
        println!("{}", json!({ "domain": domain, "targets": targets, "certificate": certificate }));
        return Ok(());
    }
    let record = format!("_wire-server-federator._tcp.{domain}");
    let targets = if targets.is_empty() { "not published yet".to_owned() } else { targets.join(", ") };
    println!("backend domain     {domain}");
    println!("SRV record         {record}");
    println!("federators         {targets}");
    println!("certificate        {}", certificate.names.join(", "));
    println!("issued by          {}", certificate.issuer);
    println!("valid to           {}", certificate.not_after);
    println!("SHA-256            {}", certificate.fingerprint);
    println!("SHA-256 of the key {}", certificate.spki_sha256);
    println!("\nWhat the partner does:");
    println!("1. add the certificate of our authority ({}) to `federation.ca_file`", certificate.issuer);
    println!("2. let its federator reach {targets}, and ours reach its own");
    println!("3. aldis remote set {domain} --search-policy exact_handle_search");
    println!("4. to trust nobody else for {domain}, whatever DNS says, in aldis.toml:");
    println!("   [federation.pins.\"{domain}\"]");
    println!("   spki_sha256 = [\"{}\"]", certificate.spki_sha256);
    println!("5. aldis doctor {domain}");
    Ok(())
}
