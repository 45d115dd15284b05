//! The engine of a cluster: `ScyllaDB` or Cassandra.
//!
//! A service has a keyspace of its own, `<prefix>_<service>`. Its statements are constants with a name; from what each one
//! does follow its consistency and whether it is repeated. There are no transactions: what must be atomic is one statement,
//! or one batch of a partition, with a condition. A row that is decided by conditions is changed by conditions only.

mod error;
mod migrations;
mod options;
mod session;
mod statement;
#[cfg(feature = "cql-tests")]
pub mod testing;
#[cfg(all(test, feature = "cql-tests"))]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use futures::{Stream, StreamExt as _};
use scylla::{
    client::{execution_profile::ExecutionProfileHandle, session::Session},
    deserialize::row::DeserializeRow,
    response::query_result::{QueryResult, QueryRowsResult},
    statement::{
        SerialConsistency,
        batch::{Batch, BatchType},
        prepared::PreparedStatement,
        unprepared,
    },
    value::Row,
};

pub use error::{CqlError, Failure};
pub use migrations::CqlMigration;
pub use options::{CqlOptions, CqlTls, Quorum, is_datacenter, is_keyspace_prefix};
pub use scylla::{serialize::row::SerializeRow, value::CqlValue};
pub use statement::{Kind, Statement};

use crate::StoreError;
use statement::measured;

/// A row that is read whole: every type of the driver that owns its values.
pub trait ReadRow: for<'frame, 'metadata> DeserializeRow<'frame, 'metadata> + 'static {}

impl<T> ReadRow for T where T: for<'frame, 'metadata> DeserializeRow<'frame, 'metadata> + 'static {}

/// Rows of one page: few, because some hold messages.
const PAGE_ROWS: i32 = 256;

/// The keyspace of one service. Cheap to clone.
#[derive(Clone)]
pub struct Cql(Arc<Inner>);

struct Inner {
    session: Session,
    options: CqlOptions,
    service: &'static str,
    keyspace: String,
    reads: ExecutionProfileHandle,
    prepared: RwLock<HashMap<&'static str, Arc<PreparedStatement>>>,
}

impl Cql {
    /// Connects, without looking at the keyspace: for [`Cql::migrate`].
    pub async fn connect(options: &CqlOptions, service: &'static str) -> Result<Self, StoreError> {
        let session = Box::pin(session::connect(options)).await?;
        let keyspace = format!("{}_{service}", options.keyspace_prefix);
        let reads = session::reads(options).into_handle();
        let options = options.clone();
        Ok(Self(Arc::new(Inner { session, options, service, keyspace, reads, prepared: RwLock::default() })))
    }

    /// Connects to a keyspace that must have exactly the schema of this build.
    pub async fn open(options: &CqlOptions, service: &'static str, steps: &[CqlMigration]) -> Result<Self, StoreError> {
        let cql = Self::connect(options, service).await?;
        cql.check_schema(steps).await?;
        cql.use_keyspace().await?;
        Ok(cql)
    }

    /// Prepares the statements that a store uses: one that the server does not understand stops the start.
    pub async fn prepare(&self, statements: &[Statement]) -> Result<(), StoreError> {
        for statement in statements {
            self.prepared(statement).await?;
        }
        Ok(())
    }

    /// Whether a statement can be done now.
    pub async fn works(&self) -> Result<(), StoreError> {
        self.ask::<(String,)>("SELECT key FROM system.local WHERE key = ?", ("local",)).await.map(drop)
    }

    /// Does a statement of [`Kind::Write`].
    pub async fn write(&self, statement: &Statement, values: impl SerializeRow) -> Result<(), StoreError> {
        self.execute(statement, values).await.map(drop)
    }

    /// Does a statement of [`Kind::Decide`]; whether its condition held.
    pub async fn decide(&self, statement: &Statement, values: impl SerializeRow) -> Result<bool, StoreError> {
        applied(statement.name, self.execute(statement, values).await?)
    }

    /// Does statements of one partition together if all their conditions hold; whether they did. Bounded by the caller: a
    /// server refuses batches of some megabytes.
    pub async fn decide_together(
        &self,
        name: &'static str,
        statements: Vec<(&Statement, Vec<Option<CqlValue>>)>,
    ) -> Result<bool, StoreError> {
        let mut batch = Batch::new(BatchType::Unlogged);
        let (plain, serial) = statement::consistencies(self.0.options.quorum);
        batch.set_consistency(plain);
        batch.set_serial_consistency(Some(serial));
        batch.set_is_idempotent(false);
        let mut rows = Vec::with_capacity(statements.len());
        for (statement, values) in statements {
            batch.append_statement(PreparedStatement::clone(&*self.prepared(statement).await?));
            rows.push(values);
        }
        let execution = async {
            Box::pin(self.0.session.batch(&batch, rows)).await.map_err(|error| CqlError::execution(name, error))
        };
        applied(name, measured(name, execution).await?)
    }

    /// All rows of a statement that says itself how many there can be.
    pub async fn rows<T: ReadRow>(
        &self,
        statement: &Statement,
        values: impl SerializeRow,
    ) -> Result<Vec<T>, StoreError> {
        let name = statement.name;
        let rows = of_rows(name, self.execute(statement, values).await?)?;
        let rows = rows.rows::<T>().map_err(|error| CqlError::refused(name, error))?;
        Ok(rows.collect::<Result<_, _>>().map_err(|error| CqlError::refused(name, error))?)
    }

    /// The first row of a statement.
    pub async fn row<T: ReadRow>(
        &self,
        statement: &Statement,
        values: impl SerializeRow,
    ) -> Result<Option<T>, StoreError> {
        let name = statement.name;
        let rows = of_rows(name, self.execute(statement, values).await?)?;
        Ok(rows.maybe_first_row::<T>().map_err(|error| CqlError::refused(name, error))?)
    }

    /// The rows of a statement page by page, however many there are.
    pub async fn pages<T: ReadRow + Send, V: SerializeRow>(
        &self,
        statement: &Statement,
        values: V,
    ) -> Result<impl Stream<Item = Result<T, StoreError>> + Send + use<T, V>, StoreError> {
        let name = statement.name;
        let prepared = self.prepared(statement).await?;
        let mut prepared = PreparedStatement::clone(&*prepared);
        prepared.set_page_size(PAGE_ROWS);
        let pager = Box::pin(self.0.session.execute_iter(prepared, values)).await;
        let pager = pager.map_err(|error| CqlError::paging(name, error))?;
        let rows = pager.rows_stream::<T>().map_err(|error| CqlError::refused(name, error))?;
        Ok(rows.map(move |row| row.map_err(|error| CqlError::new(name, Failure::Unavailable, error).into())))
    }

    async fn execute(&self, statement: &Statement, values: impl SerializeRow) -> Result<QueryResult, StoreError> {
        let prepared = self.prepared(statement).await?;
        let execution = async {
            // Of many KiB: not to be carried about by whoever waits for it.
            let result = Box::pin(self.0.session.execute_unpaged(&prepared, values)).await;
            result.map_err(|error| CqlError::execution(statement.name, error))
        };
        Ok(measured(statement.name, execution).await?)
    }

    async fn prepared(&self, statement: &Statement) -> Result<Arc<PreparedStatement>, StoreError> {
        let known =
            |inner: &Inner| inner.prepared.read().unwrap_or_else(PoisonError::into_inner).get(statement.name).cloned();
        if let Some(prepared) = known(&self.0) {
            return Ok(prepared);
        }
        let prepared = Box::pin(self.0.session.prepare(statement.cql)).await;
        let mut prepared = prepared.map_err(|error| CqlError::preparation(statement.name, error))?;
        statement.settle(&mut prepared, self.0.options.quorum, &self.0.reads);
        let prepared = Arc::new(prepared);
        let mut all = self.0.prepared.write().unwrap_or_else(PoisonError::into_inner);
        Ok(all.entry(statement.name).or_insert(prepared).clone())
    }

    fn session(&self) -> &Session {
        &self.0.session
    }

    fn options(&self) -> &CqlOptions {
        &self.0.options
    }

    fn service(&self) -> &'static str {
        self.0.service
    }

    fn keyspace(&self) -> &str {
        &self.0.keyspace
    }

    async fn use_keyspace(&self) -> Result<(), StoreError> {
        let used = Box::pin(self.0.session.use_keyspace(self.keyspace(), false)).await;
        Ok(used.map_err(|error| CqlError::refused("use", error))?)
    }

    /// A row of a statement that is used seldom.
    async fn ask<T: ReadRow>(&self, cql: &str, values: impl SerializeRow) -> Result<Option<T>, StoreError> {
        let mut statement = unprepared::Statement::new(cql);
        statement.set_is_idempotent(true);
        let result = Box::pin(self.0.session.query_unpaged(statement, values)).await;
        let rows = of_rows("ask", result.map_err(|error| CqlError::execution("ask", error))?)?;
        Ok(rows.maybe_first_row::<T>().map_err(|error| CqlError::refused("ask", error))?)
    }

    /// The same after everything that was decided.
    async fn ask_latest<T: ReadRow>(&self, cql: &str, values: impl SerializeRow) -> Result<Option<T>, StoreError> {
        let mut statement = unprepared::Statement::new(cql);
        statement.set_is_idempotent(true);
        statement.set_consistency(scylla::statement::Consistency::Serial);
        statement.set_serial_consistency(Some(SerialConsistency::Serial));
        let result = Box::pin(self.0.session.query_unpaged(statement, values)).await;
        let rows = of_rows("ask", result.map_err(|error| CqlError::execution("ask", error))?)?;
        Ok(rows.maybe_first_row::<T>().map_err(|error| CqlError::refused("ask", error))?)
    }
}

fn of_rows(name: &'static str, result: QueryResult) -> Result<QueryRowsResult, StoreError> {
    Ok(result.into_rows_result().map_err(|error| CqlError::refused(name, error))?)
}

/// Whether a condition held: the first column of the first row, whatever follows.
fn applied(name: &'static str, result: QueryResult) -> Result<bool, StoreError> {
    let rows = of_rows(name, result)?;
    let row = rows.first_row::<Row>().map_err(|error| CqlError::refused(name, error))?;
    match row.columns.first() {
        Some(Some(CqlValue::Boolean(applied))) => Ok(*applied),
        _ => Err(StoreError::Corrupt(name)),
    }
}
