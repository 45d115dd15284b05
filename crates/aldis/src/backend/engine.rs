//! What services keep their data in: the backend's file, or keyspaces of a cluster.

use aldis_storage::{
    ServiceLock, Store,
    cql::{Cql, CqlMigration, CqlOptions},
};
use anyhow::{Context as _, Result, bail};

use super::parts;
use crate::config::{Config, Engine, ServiceName};

/// The schema of a service on a cluster.
const fn migrations(service: ServiceName) -> &'static [CqlMigration] {
    match service {
        ServiceName::Notifications => aldis_notifications::CLUSTER_MIGRATIONS,
        ServiceName::Assets => aldis_assets::CLUSTER_MIGRATIONS,
        ServiceName::Users | ServiceName::Conversations | ServiceName::Federator => &[],
    }
}

/// What a service does not keep on a cluster yet.
const fn missing(service: ServiceName) -> Option<&'static str> {
    match service {
        ServiceName::Users => Some("accounts, tokens, clients, connections, other backends, and the outbox"),
        ServiceName::Conversations => Some("conversations, what other backends tell, and the outbox"),
        ServiceName::Assets | ServiceName::Notifications | ServiceName::Federator => None,
    }
}

/// Refuses services that cannot keep everything where the configuration says.
pub(super) fn check(config: &Config, services: &[ServiceName]) -> Result<()> {
    if config.store.engine == Engine::Sqlite {
        return Ok(());
    }
    let missing: Vec<String> = services
        .iter()
        .filter_map(|service| missing(*service).map(|what| format!("{} ({what})", service.as_str())))
        .collect();
    if !missing.is_empty() {
        bail!("`store.engine` = \"cql\": this version does not keep on a cluster: {}", missing.join("; "));
    }
    Ok(())
}

fn options(config: &Config) -> Result<CqlOptions> {
    let cluster = config.store.cql.as_ref().context("configuration: section `[store.cql]` is missing")?;
    cluster.options().context("configuration: `store.cql.password_file`")
}

/// Opens what a service of its own process keeps its data in.
pub(super) async fn open(config: &Config, service: ServiceName) -> Result<(Store, Vec<ServiceLock>)> {
    check(config, &[service])?;
    match config.store.engine {
        Engine::Sqlite => {
            let parts::Store { db, locks } = parts::Store::take_over(config, &[service]).await?;
            Ok((Store::Embedded(db), locks))
        }
        Engine::Cql => {
            let (options, name) = (options(config)?, service.as_str());
            let cql = Cql::open(&options, name, migrations(service)).await;
            let cql = cql.with_context(|| format!("cluster {}", options.addresses.join(", ")))?;
            Ok((Store::Cluster(cql), Vec::new()))
        }
    }
}

/// Brings the keyspaces of all services to the schema of this version.
pub(crate) async fn migrate(config: &Config) -> Result<()> {
    if config.store.engine == Engine::Sqlite {
        println!("the embedded store is migrated by the services that start on it");
        return Ok(());
    }
    let options = options(config)?;
    for service in ServiceName::ALL {
        let (name, steps) = (service.as_str(), migrations(service));
        if steps.is_empty() {
            continue;
        }
        let migrated = async { Cql::connect(&options, name).await?.migrate(steps).await };
        migrated.await.with_context(|| format!("keyspace of {name}"))?;
        println!("{name}: version {}", steps.len());
    }
    Ok(())
}
