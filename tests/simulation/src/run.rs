//! One run: a seed decides everything.

use std::{path::Path, sync::Arc, time::Duration};

use aldis_types::Domain;
use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519,
    SerialNumber,
};
use tokio::task::JoinSet;

use crate::{
    backend::{Backend, World},
    chance::Chance,
    check,
    faults::{self, Rare, administer},
    senders,
    service::Broken,
    tables::COMPONENTS,
    trace::Trace,
};

/// Longest time that everything may take to arrive when nothing goes wrong any more. The slowest that waits is a lane whose
/// kind was not known, behind a stream that fell silent.
const REST: Duration = Duration::from_secs(300);

/// What a run came to.
pub(crate) struct Outcome {
    pub(crate) wrong: Vec<String>,
    pub(crate) summary: String,
}

/// Runs a seed on this thread.
pub(crate) fn run(seed: u64, folder: &Path, broken: Option<Broken>, printed: bool) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let outcome = runtime.block_on(simulate(seed, folder, broken, printed));
    // Threads that read files are not waited for.
    runtime.shutdown_background();
    outcome
}

async fn simulate(seed: u64, folder: &Path, broken: Option<Broken>, printed: bool) -> Result<Outcome> {
    let chance = Chance::new(seed);
    let trace = Trace::new(printed);
    let count = if chance.percent(15) { 3 } else { 2 };
    let names = ["alpha.test", "beta.test", "gamma.test"];
    let domains: Vec<Domain> = names[..count].iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
    let certificates = certificates(folder, &domains)?;
    let world = Arc::new(World::new(domains, &chance, trace.clone(), folder.to_owned(), folder.join("ca.pem"), broken));
    let backends: Vec<Arc<Backend>> = certificates
        .into_iter()
        .enumerate()
        .map(|(number, certificate)| Arc::new(Backend::new(world.clone(), number, chance.fork(), certificate)))
        .collect();
    let mut running = JoinSet::new();
    for backend in &backends {
        running.spawn(backend.clone().run());
    }
    trouble(&backends, &chance).await;
    recover(&backends).await;
    rest(&backends, &trace).await;
    if !trace.is_wrong() {
        for backend in &backends {
            while !senders::close(backend).await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        rest(&backends, &trace).await;
        let mut books = Vec::new();
        for backend in &backends {
            let process = backend.process().context("a backend does not run")?;
            books.push(check::books(&process).await.context("a store cannot be read")?);
        }
        check::compare(&backends, &books);
    }
    running.abort_all();
    let (wrong, summary) = trace.end();
    Ok(Outcome { wrong, summary })
}

/// Things go wrong while changes are made.
async fn trouble(backends: &[Arc<Backend>], chance: &Chance) {
    let rare = Rare { restores: chance.percent(40), drops: chance.percent(30), endings: chance.percent(10) };
    let mut tasks = JoinSet::new();
    for backend in backends {
        tasks.spawn(senders::send(backend.clone()));
    }
    tasks.spawn(faults::strike(backends.to_vec(), chance.fork(), rare));
    tokio::time::sleep(chance.millis(4_000, 13_000)).await;
    tasks.shutdown().await;
}

/// Nothing goes wrong any more.
async fn recover(backends: &[Arc<Backend>]) {
    for backend in backends {
        backend.world.trace.note(format_args!("{} recovers", backend.domain));
        backend.world.network.heal();
        backend.mood.recover();
        backend.suspend(Vec::new());
        let process = loop {
            match backend.process() {
                Some(process) => break process,
                None => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        process.steps.recover();
        faults::limit(&process, i64::from(u32::MAX) - 1).await;
        for which in 0..COMPONENTS.len() {
            for domain in backend.world.domains.iter().filter(|domain| **domain != backend.domain) {
                administer(backend, which, domain.as_str(), faults::resume()).await;
            }
        }
    }
}

/// Waits until nothing waits.
async fn rest(backends: &[Arc<Backend>], trace: &Trace) {
    let deadline = tokio::time::Instant::now() + REST;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut waiting = Vec::new();
        for backend in backends {
            let here = match backend.process() {
                Some(process) => check::waiting(&process).await,
                None => None,
            };
            if here.as_ref().is_none_or(|rows| !rows.is_empty()) {
                waiting.push(format!("{}: {here:?}", backend.domain));
            }
        }
        if waiting.is_empty() || trace.is_wrong() {
            return;
        }
        if tokio::time::Instant::now() >= deadline {
            trace.wrong(format!("stuck: {}", waiting.join(", ")));
            return;
        }
    }
}

/// Writes an authority, and a certificate and key of each backend. They are of a kind whose signatures are all of one length:
/// nothing that depends on lengths may differ from run to run.
fn certificates(folder: &Path, domains: &[Domain]) -> Result<Vec<(std::path::PathBuf, std::path::PathBuf)>> {
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.serial_number = Some(SerialNumber::from(1));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    std::fs::write(folder.join("ca.pem"), params.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(params, key);
    let mut files = Vec::new();
    for domain in domains {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut params = CertificateParams::new(vec![format!("federator.{domain}")])?;
        params.serial_number = Some(SerialNumber::from(2));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &issuer)?;
        let paths = (folder.join(format!("{domain}.pem")), folder.join(format!("{domain}.key")));
        std::fs::write(&paths.0, certificate.pem())?;
        std::fs::write(&paths.1, key.serialize_pem())?;
        files.push(paths);
    }
    Ok(files)
}
