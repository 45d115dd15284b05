//! The schema of a service: numbered steps, applied by `aldis migrate`, looked at by every start.
//!
//! One row per keyspace holds its version and who is migrating, with a lease. It is changed by conditions only, so of
//! several that migrate at once one works and the others wait. One that lost its lease on the way can at most do once
//! more what a step says, and every step can be done twice.

use std::time::Duration;

use scylla::statement::{SerialConsistency, unprepared};
use uuid::Uuid;

use super::{Cql, CqlError, Failure};
use crate::StoreError;

/// One step of a service's schema: step `n` of the list brings version `n` to `n + 1`. Steps are never changed once
/// released, only added.
#[derive(Debug, Clone, Copy)]
pub struct CqlMigration {
    /// What it brings, for the log.
    pub name: &'static str,
    /// Statements, each ended by `;` at the end of a line, and each such that it can be done twice.
    pub cql: &'static str,
}

/// How long a lease holds; longer than any single statement may take.
const LEASE: Duration = Duration::from_secs(180);
/// How long others are waited for.
const PATIENCE: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(500);

/// The version of the only row; and its table's.
const ROW: &str = "schema";

/// Statements of a file, without comments.
fn statements(text: &str) -> impl Iterator<Item = String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("--"));
    let text = lines.collect::<Vec<_>>().join("\n");
    let all: Vec<String> = text.split(";\n").map(|one| one.trim().trim_end_matches(';').to_owned()).collect();
    all.into_iter().filter(|one| !one.is_empty())
}

impl Cql {
    /// Brings the service's keyspace to the newest version. Can be called by many at once, and again after a failure.
    pub async fn migrate(&self, steps: &[CqlMigration]) -> Result<(), StoreError> {
        self.make_keyspace().await?;
        let holder = Uuid::new_v4();
        let known = u32::try_from(steps.len()).unwrap_or(u32::MAX);
        let begun = tokio::time::Instant::now();
        loop {
            let found = self.version().await?.unwrap_or(0);
            if found > known {
                return Err(self.newer(found, known));
            }
            if found == known && known > 0 {
                return Ok(());
            }
            if self.take_lease(holder, None).await? {
                break;
            }
            if begun.elapsed() > PATIENCE {
                return Err(CqlError { statement: "schema.lease", failure: Failure::Unavailable, source: None }.into());
            }
            tracing::info!(service = self.service(), "another process migrates the store; waiting for it");
            tokio::time::sleep(PAUSE).await;
        }
        let outcome = self.apply(holder, steps).await;
        let freed = self.change("DELETE holder FROM schema_state WHERE row = ? IF holder = ?", (ROW, holder)).await;
        // It ends by itself.
        if let Err(error) = freed {
            tracing::warn!(%error, service = self.service(), "the lease of a migration could not be given back");
        }
        outcome
    }

    async fn apply(&self, holder: Uuid, steps: &[CqlMigration]) -> Result<(), StoreError> {
        // Read under the lease: somebody may have been here between.
        let found = self.version().await?.unwrap_or(0);
        for (number, step) in (1_u32..).zip(steps).skip(usize::try_from(found).unwrap_or(usize::MAX)) {
            tracing::info!(service = self.service(), migration = step.name, "migrating the store");
            for text in statements(step.cql) {
                if !self.take_lease(holder, Some(holder)).await? {
                    return Err(self.lost_lease());
                }
                self.define(&text).await?;
            }
            let version = i32::try_from(number).unwrap_or(i32::MAX);
            let set = "UPDATE schema_state SET version = ? WHERE row = ? IF holder = ?";
            if !self.change(set, (version, ROW, holder)).await? {
                return Err(self.lost_lease());
            }
        }
        Ok(())
    }

    fn lost_lease(&self) -> StoreError {
        tracing::error!(service = self.service(), "a migration took too long and lost its lease");
        CqlError { statement: "schema.lease", failure: Failure::Unavailable, source: None }.into()
    }

    fn newer(&self, found: u32, known: u32) -> StoreError {
        StoreError::NewerSchema { service: self.service(), found, known }
    }

    /// Refuses a schema that is newer than this build, or older.
    pub(super) async fn check_schema(&self, steps: &[CqlMigration]) -> Result<(), StoreError> {
        let known = u32::try_from(steps.len()).unwrap_or(u32::MAX);
        let found = if self.keyspace_exists().await? { self.version().await?.unwrap_or(0) } else { 0 };
        match found.cmp(&known) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(self.newer(found, known)),
            std::cmp::Ordering::Less => Err(StoreError::OlderSchema { service: self.service(), found, known }),
        }
    }

    async fn keyspace_exists(&self) -> Result<bool, StoreError> {
        let cql = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?";
        Ok(self.ask::<(String,)>(cql, (self.keyspace(),)).await?.is_some())
    }

    /// Tablets do not know conditional statements in every release of `ScyllaDB`; Cassandra has none.
    async fn without_tablets(&self) -> Result<&'static str, StoreError> {
        let cql = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = 'system' AND table_name = ?";
        let found = self.ask::<(String,)>(cql, ("tablets",)).await?.is_some();
        Ok(if found { " AND tablets = {'enabled': false}" } else { "" })
    }

    async fn make_keyspace(&self) -> Result<(), StoreError> {
        if !self.keyspace_exists().await? {
            let (keyspace, replication) = (self.keyspace(), self.options().replication());
            let tablets = self.without_tablets().await?;
            let cql = format!("CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {replication}{tablets}");
            self.define(&cql).await?;
        }
        self.use_keyspace().await?;
        // With a fixed id, because Cassandra makes two tables of one when two nodes are asked for it at the same time.
        let id = self.table_id();
        let cql = format!(
            "CREATE TABLE IF NOT EXISTS {}.schema_state (row text PRIMARY KEY, version int, holder uuid) WITH ID = {id}",
            self.keyspace(),
        );
        self.define(&cql).await
    }

    /// The same for the same keyspace, and another for another one.
    fn table_id(&self) -> Uuid {
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013B;
        const OFFSET: u128 = 0x6C62_272E_07BB_0142_62B8_2175_6295_C58D;
        let mix = |hash: u128, byte: u8| (hash ^ u128::from(byte)).wrapping_mul(PRIME);
        let hash = self.keyspace().bytes().fold(OFFSET, mix);
        uuid::Builder::from_custom_bytes(hash.to_be_bytes()).into_uuid()
    }

    async fn version(&self) -> Result<Option<u32>, StoreError> {
        let cql = format!("SELECT version FROM {}.schema_state WHERE row = ?", self.keyspace());
        let row = self.ask_latest::<(Option<i32>,)>(&cql, (ROW,)).await?;
        row.and_then(|(version,)| version)
            .map(u32::try_from)
            .transpose()
            .map_err(|_| StoreError::Corrupt("schema_state"))
    }

    /// Takes the lease if `current` has it, or nobody.
    async fn take_lease(&self, holder: Uuid, current: Option<Uuid>) -> Result<bool, StoreError> {
        let seconds = i32::try_from(LEASE.as_secs()).unwrap_or(i32::MAX);
        let cql = "UPDATE schema_state USING TTL ? SET holder = ? WHERE row = ? IF holder = ?";
        self.change(cql, (seconds, holder, ROW, current)).await
    }

    /// Changes the schema and waits until all nodes have agreed.
    async fn define(&self, cql: &str) -> Result<(), StoreError> {
        let mut statement = unprepared::Statement::new(cql);
        statement.set_is_idempotent(true);
        // Longer than data may take: nodes work on it.
        statement.set_request_timeout(Some(LEASE / 3));
        self.session()
            .query_unpaged(statement, ())
            .await
            .map_err(|error| CqlError::execution("schema.define", error))?;
        Ok(())
    }

    async fn change(&self, cql: &str, values: impl scylla::serialize::row::SerializeRow) -> Result<bool, StoreError> {
        let mut statement =
            unprepared::Statement::new(cql.replace("schema_state", &format!("{}.schema_state", self.keyspace())));
        statement.set_serial_consistency(Some(SerialConsistency::Serial));
        let result = self.session().query_unpaged(statement, values).await;
        let result = result.map_err(|error| CqlError::execution("schema.change", error))?;
        super::applied("schema.change", result)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_file_is_cut_into_statements() {
        let text = "-- What it is; with a sign.\nCREATE TABLE a (\n  x int PRIMARY KEY\n);\n\n  -- More.\nALTER TABLE a ADD y text;\n";
        let all: Vec<String> = super::statements(text).collect();
        assert_eq!(all, ["CREATE TABLE a (\n  x int PRIMARY KEY\n)", "ALTER TABLE a ADD y text"]);
    }
}
