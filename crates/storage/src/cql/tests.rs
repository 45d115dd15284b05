//! On a real server.

use futures::{StreamExt as _, TryStreamExt as _, future::join_all};
use uuid::Uuid;

use super::{Cql, CqlError, CqlMigration, Failure, Statement, testing};
use crate::StoreError;

const STEPS: &[CqlMigration] = &[
    CqlMigration {
        name: "one",
        cql: "-- A comment.\nCREATE TABLE IF NOT EXISTS things (id uuid, at bigint, what text, PRIMARY KEY (id, at));\n",
    },
    CqlMigration {
        name: "two",
        cql: "CREATE TABLE IF NOT EXISTS more (id uuid PRIMARY KEY);\nCREATE TABLE IF NOT EXISTS still_more (id uuid PRIMARY KEY);\n",
    },
];

const PUT: Statement = Statement::write("things.put", "INSERT INTO things (id, at, what) VALUES (?, ?, ?)");
const GET: Statement = Statement::read("things.get", "SELECT what FROM things WHERE id = ? AND at = ?");
const ALL: Statement = Statement::read("things.all", "SELECT at FROM things WHERE id = ?");
const CLAIM: Statement =
    Statement::decide("things.claim", "INSERT INTO things (id, at, what) VALUES (?, ?, ?) IF NOT EXISTS");
const LATEST: Statement = Statement::read_latest("things.latest", "SELECT what FROM things WHERE id = ? AND at = ?");
const WRONG: Statement = Statement::read("things.wrong", "SELECT nothing FROM nowhere");

#[tokio::test]
async fn on_cql_many_migrate_at_once_and_older_builds_refuse() {
    let options = testing::options().await;
    assert!(matches!(
        Cql::open(&options, "things", STEPS).await.map(drop),
        Err(StoreError::OlderSchema { found: 0, known: 2, .. })
    ));
    let migrate = async |steps| Cql::connect(&options, "things").await.unwrap().migrate(steps).await;
    migrate(&STEPS[..1]).await.unwrap();
    for outcome in join_all((0..4).map(|_| migrate(STEPS))).await {
        outcome.unwrap();
    }
    migrate(STEPS).await.unwrap();
    let newer = StoreError::NewerSchema { service: "things", found: 2, known: 1 }.to_string();
    assert_eq!(migrate(&STEPS[..1]).await.unwrap_err().to_string(), newer);
    assert_eq!(Cql::open(&options, "things", &STEPS[..1]).await.map(drop).unwrap_err().to_string(), newer);
    let cql = Cql::open(&options, "things", STEPS).await.unwrap();
    testing::Keyspace { cql, options }.remove().await;
}

#[tokio::test]
async fn on_cql_statements_do_what_they_say() {
    let keyspace = testing::Keyspace::make("things", STEPS).await;
    let cql = &keyspace.cql;
    cql.prepare(&[PUT, GET, ALL, CLAIM, LATEST]).await.unwrap();
    cql.works().await.unwrap();
    let id = Uuid::new_v4();
    cql.write(&PUT, (id, 1_i64, "a")).await.unwrap();
    assert_eq!(cql.row::<(String,)>(&GET, (id, 1_i64)).await.unwrap(), Some(("a".to_owned(),)));
    assert_eq!(cql.row::<(String,)>(&GET, (id, 2_i64)).await.unwrap(), None);

    // Of many who want the same one gets it.
    let claims = (0..8_i32).map(|number| {
        let text = number.to_string();
        async move { cql.decide(&CLAIM, (id, 2_i64, text)).await.unwrap() }
    });
    assert_eq!(join_all(claims).await.into_iter().filter(|won| *won).count(), 1);
    assert!(cql.row::<(String,)>(&LATEST, (id, 2_i64)).await.unwrap().is_some());

    // More than one page.
    let puts = (0..6000_i64).map(|at| cql.write(&PUT, (id, at, "b")));
    futures::stream::iter(puts).buffer_unordered(64).for_each(|done| async { done.unwrap() }).await;
    let rows: Vec<(i64,)> = cql.pages::<(i64,), _>(&ALL, (id,)).await.unwrap().try_collect().await.unwrap();
    assert_eq!(rows.len(), 6000);
    assert!(rows.is_sorted());
    keyspace.remove().await;
}

#[tokio::test]
async fn on_cql_failures_say_what_they_mean() {
    let keyspace = testing::Keyspace::make("things", STEPS).await;
    let failure = |error| match error {
        StoreError::Cql(CqlError { statement, failure, .. }) => (statement, failure),
        other => panic!("{other}"),
    };
    let wrong = keyspace.cql.prepare(&[WRONG]).await.unwrap_err();
    assert_eq!(failure(wrong), ("things.wrong", Failure::Refused));
    let mistyped = keyspace.cql.write(&PUT, ("text", 1_i64, "a")).await.unwrap_err();
    assert_eq!(failure(mistyped), ("things.put", Failure::Refused));
    let nowhere = super::CqlOptions { addresses: vec!["127.0.0.1:1".to_owned()], ..keyspace.options.clone() };
    let nobody = Cql::connect(&nowhere, "things").await.map(drop).unwrap_err();
    assert_eq!(failure(nobody), ("connect", Failure::Unavailable));
    keyspace.remove().await;
}
