//! Opening the embedded store; reading and writing.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    time::Duration,
};

use aldis_types::Domain;
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use tokio::sync::{Semaphore, oneshot};

use crate::{
    Migration, StoreError,
    inline::{Inline, Moment, Pace},
    migrations,
    writer::{self, Job, Order},
};

/// How the embedded store is opened.
#[derive(Debug, Clone)]
pub struct DbOptions {
    /// Connections for reading, at least 1.
    pub readers: usize,
    /// Largest size of the file in pages of 8 KiB; `None`: as large as the disk.
    pub max_pages: Option<u32>,
}

impl Default for DbOptions {
    fn default() -> Self {
        Self { readers: 2, max_pages: None }
    }
}

/// The embedded store of one backend. Cheap to clone; the writer stops when the last clone is dropped.
#[derive(Clone)]
pub struct Db {
    orders: Sender<Order>,
    readers: Arc<Readers>,
    path: Arc<PathBuf>,
    /// Instead of the writer's thread and those of readers.
    inline: Option<Arc<Inline>>,
}

struct Readers {
    idle: parking::Pool,
    permits: Arc<Semaphore>,
}

/// A stack of idle connections.
mod parking {
    use std::sync::{Mutex, PoisonError};

    use rusqlite::Connection;

    #[derive(Default)]
    pub(super) struct Pool(Mutex<Vec<Connection>>);

    impl Pool {
        pub(super) fn take(&self) -> Option<Connection> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
        }

        pub(super) fn put(&self, connection: Connection) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }
}

/// How long a process waits for another one's transaction on the same file.
const BUSY: Duration = Duration::from_secs(10);
/// Statements kept prepared per connection.
const STATEMENTS: usize = 256;

fn prepare(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Without it a prepared statement is compiled anew whenever a value is bound to it that the planner looked at.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch(
        "PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 268435456; PRAGMA cache_size = -65536;",
    )
}

/// Creates the file readable for its owner alone, since it holds keys and hashes; `SQLite` gives its companions the
/// same mode. A file that exists keeps its mode.
fn create_private(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    Ok(())
}

fn open_for_writing(path: &Path, options: &DbOptions) -> Result<Connection, StoreError> {
    create_private(path)?;
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.execute_batch(
        "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
         PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864;",
    )?;
    if let Some(pages) = options.max_pages {
        connection.pragma_update(None, "max_page_count", pages)?;
    }
    prepare(&connection)?;
    Ok(connection)
}

impl Db {
    /// Opens the file, creating it if needed: WAL, every commit synced, pages of 8 KiB.
    pub fn open(path: &Path, options: &DbOptions) -> Result<Self, StoreError> {
        let connection = open_for_writing(path, options)?;
        let (orders, queue) = mpsc::channel();
        std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || writer::run(connection, queue))?;
        Self::with(orders, None, path, options)
    }

    /// Opens the file for a simulation: no thread is started, everything is done on the thread of the current runtime, and
    /// `pace` says when. What is committed survives the end of the process, but not a loss of power.
    pub fn open_inline(path: &Path, options: &DbOptions, pace: Arc<dyn Pace>) -> Result<Self, StoreError> {
        let connection = open_for_writing(path, options)?;
        connection.execute_batch("PRAGMA synchronous = OFF")?;
        let (orders, queue) = mpsc::channel();
        Self::with(orders, Some(Arc::new(Inline::new(connection, queue, pace))), path, options)
    }

    fn with(
        orders: Sender<Order>,
        inline: Option<Arc<Inline>>,
        path: &Path,
        options: &DbOptions,
    ) -> Result<Self, StoreError> {
        let readers =
            Readers { idle: parking::Pool::default(), permits: Arc::new(Semaphore::new(options.readers.max(1))) };
        for _ in 0..options.readers.max(1) {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let reader = Connection::open_with_flags(path, flags)?;
            prepare(&reader)?;
            readers.idle.put(reader);
        }
        Ok(Self { orders, readers: Arc::new(readers), path: Arc::new(path.to_owned()), inline })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Records that the store belongs to `domain`, which is fixed for life, or refuses when it belongs to another one.
    pub async fn belongs_to(&self, domain: &Domain) -> Result<(), StoreError> {
        let domain = domain.clone();
        self.write(move |tx| {
            tx.execute_batch(
                "CREATE TABLE IF NOT EXISTS store_domain (one INTEGER PRIMARY KEY CHECK (one = 1), domain TEXT NOT NULL)",
            )?;
            tx.execute(
                "INSERT INTO store_domain (one, domain) VALUES (1, ?) ON CONFLICT (one) DO NOTHING",
                [domain.as_str()],
            )?;
            let found: String = tx.query_row("SELECT domain FROM store_domain", [], |row| row.get(0))?;
            if found == domain.as_str() { Ok(()) } else { Err(StoreError::OtherDomain { found, configured: domain }) }
        })
        .await
    }

    /// Brings the tables of one service to the newest version. See [`Migration`].
    pub async fn migrate(&self, service: &'static str, steps: &'static [Migration]) -> Result<(), StoreError> {
        let path = self.path.clone();
        self.write(move |tx| migrations::check(tx, service, steps)).await?;
        self.write(move |tx| migrations::apply(tx, &path, service, steps)).await
    }

    /// Runs `job` in a savepoint of the next group and answers after its commit. An error rolls back this job alone.
    pub async fn write<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = writer::in_savepoint(connection, job);
            Box::new(move |committed| {
                // A caller that has gone away no longer cares; the write stands.
                let _ = answer.send(committed.and(result));
            })
        });
        self.orders.send(Order::Now(job)).map_err(|_| StoreError::Closed)?;
        let Some(inline) = &self.inline else { return answered.await.map_err(|_| StoreError::Closed)? };
        inline.clone().commit_soon();
        let answer = answered.await.map_err(|_| StoreError::Closed)?;
        inline.reach(Moment::Committed).await;
        answer
    }

    /// Runs `job` along with the next group, or after a quarter of a second in one of its own: for what may be lost in a
    /// crash, and nobody waits for. Meanwhile readers see what was before. A failure is logged. `then` hears on the writer's
    /// thread what became of it, and must be short.
    pub fn write_along<T, F>(&self, job: F, then: impl FnOnce(Option<T>) + Send + 'static)
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let job: Job = Box::new(move |connection| {
            let result = writer::in_savepoint(connection, job);
            Box::new(move |committed| {
                let outcome = committed.and(result);
                if let Err(error) = &outcome {
                    tracing::warn!(%error, "a write that nobody waits for failed");
                }
                then(outcome.ok());
            })
        });
        // The writer ends with its last handle, and we hold one.
        let _ = self.orders.send(Order::Along(job));
        if let Some(inline) = &self.inline {
            inline.clone().commit_later();
        }
    }

    /// Runs `query` on one of the readers, which see every commit that was answered.
    pub async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let permit = self.readers.permits.clone().acquire_owned().await.map_err(|_| StoreError::Closed)?;
        if let Some(inline) = &self.inline {
            inline.reach(Moment::Reading).await;
            let connection = self.readers.idle.take().ok_or(StoreError::Closed)?;
            let result = query(&connection);
            self.readers.idle.put(connection);
            return result;
        }
        let connection = self.readers.idle.take().ok_or(StoreError::Closed)?;
        let pool = self.readers.clone();
        // The task owns the permit: a caller that gives up must not free it before the connection is back.
        let task = tokio::task::spawn_blocking(move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| query(&connection)));
            pool.idle.put(connection);
            drop(permit);
            result.unwrap_or(Err(StoreError::Panicked))
        });
        // A query that panicked has said so by itself; one that never ran was dropped with the runtime.
        task.await.map_err(|_| StoreError::Closed)?
    }
}
