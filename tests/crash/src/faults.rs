//! What happens to the backends. Only processes that the harness started are touched, by their ids.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use aldis_harness::{
    local::LocalFederation,
    pki::{Authority, Identity},
};
use anyhow::{Context as _, Result};
use rusqlite::Connection;
use tokio::time::{Instant, sleep};

use crate::{
    history::Recorder,
    plan::{Fault, Kind, Plan},
};

/// The smallest bound of a store; one that is as large already may not grow at all.
const BOUND: &str = "[store]\nmax_mib = 16\n";
/// The same in pages.
const BOUND_PAGES: u32 = 16 * 128;
/// Pages that are left free, so that the store fills up while it is used.
const LEFT_PAGES: u32 = 60;
const PAGE_BYTES: u32 = 8_192;

/// The backends, while they are made to fail.
pub(crate) struct Trouble<'a> {
    pub(crate) federation: &'a mut LocalFederation,
    pub(crate) domains: &'a [&'static str],
    pub(crate) recorder: &'a Recorder,
}

impl Trouble<'_> {
    /// Makes things fail one after the other; a fault that has begun is brought to its end. Gives counts by kind.
    pub(crate) async fn run(&mut self, plan: Plan, time: Duration) -> Result<BTreeMap<String, u64>> {
        let end = Instant::now() + time;
        let mut counts = BTreeMap::new();
        for fault in plan {
            let begin = Instant::now() + fault.after;
            if begin + fault.lasting > end {
                tokio::time::sleep_until(end).await;
                break;
            }
            tokio::time::sleep_until(begin).await;
            let domain = self.domains[fault.side];
            self.happen(&fault, domain).await.with_context(|| format!("{} at {domain}", fault.kind))?;
            self.count_the_living().await?;
            *counts.entry(fault.kind.to_string()).or_default() += 1;
        }
        Ok(counts)
    }

    async fn happen(&mut self, fault: &Fault, domain: &str) -> Result<()> {
        let federation = &mut *self.federation;
        match fault.kind {
            Kind::Kill => {
                federation.kill(domain).await?;
                sleep(fault.lasting).await;
                federation.restart(domain).await
            }
            Kind::Stop => {
                federation.terminate(domain).await?;
                sleep(fault.lasting).await;
                federation.restart(domain).await
            }
            Kind::Freeze => {
                federation.freeze(domain)?;
                sleep(fault.lasting).await;
                federation.thaw(domain)
            }
            Kind::Dns => {
                federation.freeze_dns()?;
                sleep(fault.lasting).await;
                federation.thaw_dns()
            }
            Kind::DnsAndKill => {
                federation.freeze_dns()?;
                federation.kill(domain).await?;
                federation.restart(domain).await?;
                sleep(fault.lasting).await;
                federation.thaw_dns()
            }
            Kind::Certificate => {
                certify(federation, domain, &authority(federation)?)?;
                sleep(fault.lasting).await;
                Ok(())
            }
            Kind::BadCertificate => {
                certify(federation, domain, &Authority::new("Nobody's authority")?)?;
                sleep(fault.lasting).await;
                certify(federation, domain, &authority(federation)?)
            }
            Kind::DiskFull => {
                federation.kill(domain).await?;
                fill_up(&store(federation, domain))?;
                let before = federation.configure(domain, BOUND)?;
                federation.restart(domain).await?;
                sleep(fault.lasting).await;
                self.count_the_living().await?;
                self.federation.kill(domain).await?;
                fs::write(&self.federation.ready(domain)?.config, before)?;
                make_room(&store(self.federation, domain))?;
                self.federation.restart(domain).await
            }
        }
    }

    /// Nothing that we do may end a process but what is meant to; one that ended is started again.
    async fn count_the_living(&mut self) -> Result<()> {
        for domain in self.domains {
            if !self.federation.is_alive(domain)? {
                self.recorder.odd(format!("{domain} has ended by itself"));
                self.federation.restart(domain).await?;
            }
        }
        Ok(())
    }
}

/// The folder of all backends.
fn root(federation: &LocalFederation) -> PathBuf {
    federation.folder().join("federation")
}

fn store(federation: &LocalFederation, domain: &str) -> PathBuf {
    root(federation).join(domain).join("data/aldis.db")
}

/// Takes nearly all that the smallest bound leaves to a store that nobody has open.
fn fill_up(store: &Path) -> Result<()> {
    let store = Connection::open(store)?;
    let pragma = |name: &str| store.pragma_query_value(None, name, |row| row.get::<_, u32>(0));
    let (pages, free) = (pragma("page_count")?, pragma("freelist_count")?);
    let taken = (free + BOUND_PAGES.saturating_sub(pages)).saturating_sub(LEFT_PAGES);
    store.execute_batch("CREATE TABLE crash_ballast (bytes BLOB NOT NULL)")?;
    let bytes = u64::from(taken) * u64::from(PAGE_BYTES);
    store.execute("INSERT INTO crash_ballast (bytes) VALUES (zeroblob(?))", [i64::try_from(bytes)?])?;
    Ok(())
}

/// Gives it back.
fn make_room(store: &Path) -> Result<()> {
    Ok(Connection::open(store)?.execute_batch("DROP TABLE crash_ballast")?)
}

/// The authority that all backends trust.
fn authority(federation: &LocalFederation) -> Result<Authority> {
    let read = |name: &str| fs::read_to_string(root(federation).join(name)).with_context(|| name.to_owned());
    Authority::from_pem(&read("ca.pem")?, &read("ca-key.pem")?)
}

/// Gives a backend another certificate and key.
fn certify(federation: &LocalFederation, domain: &str, authority: &Authority) -> Result<()> {
    let Identity { certificate_pem, key_pem, .. } = &authority.issue(&[&format!("federator.{domain}")])?;
    let folder = root(federation).join(domain);
    replace(&folder.join("federation-key.pem"), key_pem)?;
    replace(&folder.join("federation.pem"), certificate_pem)
}

fn replace(file: &Path, content: &str) -> Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, content)?;
    fs::rename(&new, file).with_context(|| file.display().to_string())
}
