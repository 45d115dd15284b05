//! How large the tables are, for the metrics.

use std::time::Duration;

use rusqlite::Connection;

use crate::{Db, StoreError};

/// Between two looks at all tables of a service.
const EVERY: Duration = Duration::from_secs(300);
/// Between two tables, so that readers are not held up.
const PAUSE: Duration = Duration::from_millis(50);
/// Rows that are counted of a table; a larger one is shown with this number, because counting on would keep a reader
/// busy and push what is in use out of its cache.
const MOST_ROWS: i64 = 1_000_000;

impl Db {
    /// Tells the metrics how many rows each table of a service has (its tables begin with its name), and how large the
    /// file is, again and again, for as long as it is polled.
    pub async fn measure_tables(self, service: &'static str) {
        loop {
            if let Err(error) = self.measure_once(service).await {
                tracing::debug!(%error, "measuring tables failed");
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn measure_once(&self, service: &'static str) -> Result<(), StoreError> {
        let (pages, free, size) = self
            .read(|tx| Ok((pragma(tx, "page_count")?, pragma(tx, "freelist_count")?, pragma(tx, "page_size")?)))
            .await?;
        metrics::gauge!("aldis_store_bytes").set(float(pages.saturating_mul(size)));
        metrics::gauge!("aldis_store_free_bytes").set(float(free.saturating_mul(size)));
        let tables = self.read(move |tx| tables(tx, service)).await?;
        for table in tables {
            let name = table.clone();
            let rows = self.read(move |tx| Ok(count(tx, &name)?)).await?;
            metrics::gauge!("aldis_store_table_rows", "table" => table).set(float(rows));
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}

#[allow(clippy::cast_precision_loss)]
fn float(number: i64) -> f64 {
    number as f64
}

fn pragma(tx: &Connection, name: &str) -> rusqlite::Result<i64> {
    tx.pragma_query_value(None, name, |row| row.get(0))
}

fn tables(tx: &Connection, service: &str) -> Result<Vec<String>, StoreError> {
    let mut query =
        tx.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND substr(name, 1, length(?1)) = ?1")?;
    let names = query.query_map([format!("{service}_")], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

/// Only names from the schema come here.
fn count(tx: &Connection, table: &str) -> rusqlite::Result<i64> {
    tx.query_row(&format!("SELECT count(*) FROM (SELECT 1 FROM \"{table}\" LIMIT {MOST_ROWS})"), [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DbOptions;

    #[tokio::test]
    async fn the_tables_of_a_service_are_found_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("aldis.db"), &DbOptions::default()).unwrap();
        db.write(|tx| {
            tx.execute_batch(
                "CREATE TABLE users_one (id INTEGER PRIMARY KEY); INSERT INTO users_one VALUES (1), (2), (3);
                 CREATE TABLE users_two (id BLOB PRIMARY KEY) WITHOUT ROWID; CREATE TABLE other (id INTEGER);
                 CREATE INDEX users_index ON other (id);",
            )?;
            Ok(())
        })
        .await
        .unwrap();
        let mut names = db.read(|tx| tables(tx, "users")).await.unwrap();
        names.sort();
        assert_eq!(names, ["users_one", "users_two"]);
        assert_eq!(db.read(|tx| Ok(count(tx, "users_one")?)).await.unwrap(), 3);
        db.measure_once("users").await.unwrap();
    }
}
