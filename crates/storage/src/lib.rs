//! The engines below every store of ours: no table is known here.
//!
//! The embedded engine is one `SQLite` file per backend with a single writer: jobs of all services of a process are
//! committed in groups, each group with one sync, and every job in a savepoint of its own. An answer is given after the
//! commit, so that a confirmed write survives a crash and a loss of power.
//!
//! The other engine, [`cql`], is a cluster of `ScyllaDB` or Cassandra.

pub mod cql;
mod db;
mod inline;
mod lock;
mod measure;
mod migrations;
mod restore;
mod turns;
mod writer;

pub use db::{Db, DbOptions};
pub use inline::{Moment, Pace};
pub use lock::ServiceLock;
pub use migrations::Migration;
pub use restore::{RestoreError, copy, restore};
pub use turns::{Turn, one_turn};

/// What a service keeps its data in.
#[derive(Clone)]
pub enum Store {
    /// The file of the backend.
    Embedded(Db),
    /// The service's keyspace.
    Cluster(cql::Cql),
}

impl Store {
    /// Whether it works now.
    pub async fn works(&self) -> Result<(), StoreError> {
        match self {
            Self::Embedded(db) => db.write(|_| Ok(())).await,
            Self::Cluster(cql) => cql.works().await,
        }
    }
}

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The engine failed.
    #[error("store")]
    Sqlite(#[from] rusqlite::Error),
    /// The writer has stopped.
    #[error("the store is closed")]
    Closed,
    /// The disk is full, or the store has reached its allowed size; nothing was written.
    #[error("the store is full")]
    Full,
    /// The file was written by a newer version of Aldis.
    #[error("the schema of `{service}` has version {found}, this build knows up to {known}: use a newer build")]
    NewerSchema {
        /// Whose tables.
        service: &'static str,
        /// What the file has.
        found: u32,
        /// What this build has.
        known: u32,
    },
    /// The keyspace was not migrated for this version of Aldis.
    #[error("the schema of `{service}` has version {found}, this build needs {known}: run `aldis migrate` first")]
    OlderSchema {
        /// Whose tables.
        service: &'static str,
        /// What the keyspace has.
        found: u32,
        /// What this build has.
        known: u32,
    },
    /// A statement of a cluster failed.
    #[error("cluster")]
    Cql(#[from] cql::CqlError),
    /// Others kept changing the same thing at the same time. Worth trying again.
    #[error("`{0}` is changed by many at once")]
    Contended(&'static str),
    /// Names that cannot be those of keyspaces or datacenters, or no address.
    #[error("the options of the cluster make no sense")]
    Options,
    /// The store is another backend's.
    #[error("the store belongs to the domain `{found}`, not to `{configured}`: a backend's domain never changes")]
    OtherDomain {
        /// Whose it is.
        found: String,
        /// What the configuration says.
        configured: aldis_types::Domain,
    },
    /// Another process owns this service on this store.
    #[error("another process already runs `{0}` on this store")]
    Locked(&'static str),
    /// A file operation failed.
    #[error("store file")]
    Io(#[from] std::io::Error),
    /// A row cannot be read: it was damaged, or written by something else.
    #[error("a row of `{0}` cannot be read")]
    Corrupt(&'static str),
    /// A job panicked; nothing of it was written.
    #[error("a job of the store failed")]
    Panicked,
}

impl StoreError {
    /// Whether the disk or the store is full, or the cluster can't do it now: it is worth trying again later.
    pub fn is_overloaded(&self) -> bool {
        match self {
            Self::Full | Self::Contended(_) => true,
            Self::Cql(error) => error.failure == cql::Failure::Unavailable,
            Self::Sqlite(error) => error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            _ => false,
        }
    }

    /// Whether parts of what was to be written may be there all the same: on a cluster a call that fails may have done some
    /// of its work.
    pub fn leaves_parts(&self) -> bool {
        matches!(self, Self::Cql(_) | Self::Contended(_))
    }

    /// Whether what was to be written may have been written all the same.
    pub fn is_unsure(&self) -> bool {
        matches!(self, Self::Cql(error) if error.failure == cql::Failure::Unsure)
    }
}

#[cfg(test)]
mod tests;
