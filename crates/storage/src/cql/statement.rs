//! Statements, each with a name and with what may be done with it.

use std::time::Instant;

use scylla::{
    client::execution_profile::ExecutionProfileHandle,
    statement::{Consistency, SerialConsistency, prepared::PreparedStatement},
};

use super::{CqlError, options::Quorum};

/// What a statement does, from which follow its consistency and whether it may be done twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Reads what a quorum has. Retried, and asked of a second replica when the first one is slow.
    Read,
    /// Reads after everything that was ever decided by a condition in the partition. Retried.
    ReadLatest,
    /// Writes the same however often it is done. Retried.
    Write,
    /// Is done if a condition holds. Never repeated: whoever is unsure reads with [`Kind::ReadLatest`].
    Decide,
}

/// A statement.
#[derive(Debug, Clone, Copy)]
pub struct Statement {
    /// For errors, metrics and traces; unique in a service.
    pub name: &'static str,
    /// Its text. Tables are those of the service's keyspace.
    pub cql: &'static str,
    /// What it does.
    pub kind: Kind,
}

impl Statement {
    /// See [`Kind::Read`].
    pub const fn read(name: &'static str, cql: &'static str) -> Self {
        Self { name, cql, kind: Kind::Read }
    }

    /// See [`Kind::ReadLatest`].
    pub const fn read_latest(name: &'static str, cql: &'static str) -> Self {
        Self { name, cql, kind: Kind::ReadLatest }
    }

    /// See [`Kind::Write`].
    pub const fn write(name: &'static str, cql: &'static str) -> Self {
        Self { name, cql, kind: Kind::Write }
    }

    /// See [`Kind::Decide`].
    pub const fn decide(name: &'static str, cql: &'static str) -> Self {
        Self { name, cql, kind: Kind::Decide }
    }

    /// Sets what the kind says on the statement as the driver knows it.
    pub(super) fn settle(&self, prepared: &mut PreparedStatement, quorum: Quorum, reads: &ExecutionProfileHandle) {
        let (plain, serial) = consistencies(quorum);
        match self.kind {
            Kind::Read => prepared.set_execution_profile_handle(Some(reads.clone())),
            Kind::ReadLatest | Kind::Write | Kind::Decide => {}
        }
        prepared.set_is_idempotent(self.kind != Kind::Decide);
        prepared.set_consistency(match (self.kind, quorum) {
            (Kind::ReadLatest, Quorum::Local) => Consistency::LocalSerial,
            (Kind::ReadLatest, Quorum::All) => Consistency::Serial,
            _ => plain,
        });
        prepared.set_serial_consistency(Some(serial));
    }
}

pub(super) const fn consistencies(quorum: Quorum) -> (Consistency, SerialConsistency) {
    match quorum {
        Quorum::Local => (Consistency::LocalQuorum, SerialConsistency::LocalSerial),
        Quorum::All => (Consistency::Quorum, SerialConsistency::Serial),
    }
}

/// Waits for a statement and tells the metrics how long it took and how it failed.
pub(super) async fn measured<T>(
    name: &'static str,
    execution: impl Future<Output = Result<T, CqlError>>,
) -> Result<T, CqlError> {
    let begun = Instant::now();
    let outcome = execution.await;
    metrics::histogram!("aldis_store_statement_seconds", "statement" => name).record(begun.elapsed());
    if let Err(error) = &outcome {
        let failure = error.failure.as_str();
        metrics::counter!("aldis_store_statement_failures_total", "statement" => name, "failure" => failure)
            .increment(1);
    }
    outcome
}
