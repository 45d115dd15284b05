//! For tests of stores on a real server: the one that `ALDIS_TEST_CQL` names, as `scripts/cassandra.sh` sets it.
#![allow(clippy::missing_panics_doc, reason = "tests end with a panic")]

use std::{collections::BTreeMap, time::Duration};

use uuid::Uuid;

use super::{Cql, CqlMigration, CqlOptions, Quorum};

/// Keyspaces that nobody else uses. Panics without a server.
pub async fn options() -> CqlOptions {
    let address = std::env::var("ALDIS_TEST_CQL").expect("ALDIS_TEST_CQL names the server; see `make test-scylla`");
    let mut options = CqlOptions {
        addresses: vec![address],
        keyspace_prefix: format!("t{}", &Uuid::new_v4().simple().to_string()[..12]),
        datacenter: String::new(),
        replication: BTreeMap::new(),
        tls: None,
        credentials: None,
        connect_timeout: Duration::from_secs(20),
        request_timeout: Duration::from_secs(30),
        ask_another_after: Some(Duration::from_secs(5)),
        quorum: Quorum::Local,
    };
    options.datacenter = datacenter(&options).await;
    options.replication = BTreeMap::from([(options.datacenter.clone(), 1)]);
    options
}

/// What the server calls its datacenter.
async fn datacenter(options: &CqlOptions) -> String {
    let session = scylla::client::session_builder::SessionBuilder::new()
        .known_nodes(&options.addresses)
        .connection_timeout(options.connect_timeout)
        .build()
        .await
        .unwrap();
    let result = session.query_unpaged("SELECT data_center FROM system.local", ()).await.unwrap();
    result.into_rows_result().unwrap().first_row::<(String,)>().unwrap().0
}

/// A keyspace that is removed at the end of a test.
pub struct Keyspace {
    /// Open, with the newest schema.
    pub cql: Cql,
    /// How to open it once more.
    pub options: CqlOptions,
}

impl Keyspace {
    /// Makes it.
    pub async fn make(service: &'static str, steps: &[CqlMigration]) -> Self {
        let options = options().await;
        Cql::connect(&options, service).await.unwrap().migrate(steps).await.unwrap();
        let cql = Cql::open(&options, service, steps).await.unwrap();
        Self { cql, options }
    }

    /// Empties a table.
    pub async fn truncate(&self, table: &str) {
        self.cql.session().query_unpaged(format!("TRUNCATE {table}"), ()).await.unwrap();
    }

    /// Removes it.
    pub async fn remove(self) {
        let cql = format!("DROP KEYSPACE {}", self.cql.keyspace());
        self.cql.session().query_unpaged(cql, ()).await.unwrap();
    }
}
