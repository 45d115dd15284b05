//! Long work in write jobs that are short, so that others have their turn in between.

use std::time::Duration;

use rusqlite::Connection;
use tokio::time::Instant;

use crate::{Db, StoreError};

/// Time after which a job begins no further step. With a last step that is as short as it should be, a job stays below
/// 20 ms.
const TURN: Duration = Duration::from_millis(10);
/// Pause between two jobs.
const PAUSE: Duration = Duration::from_millis(20);

/// The time that one write job may take.
#[derive(Debug, Clone, Copy)]
pub struct Turn(Instant);

impl Turn {
    /// Begins now.
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    /// Whether the job has to come to its end: what is left is for another one.
    pub fn is_over(self) -> bool {
        self.0.elapsed() > TURN
    }
}

/// Repeats a step, which says how many rows it changed, for the time that one write job may take. Tells how many rows
/// those were, and whether more may be left: a step that changes none ends the work.
pub fn one_turn(mut step: impl FnMut() -> Result<usize, StoreError>) -> Result<(u64, bool), StoreError> {
    let turn = Turn::begin();
    let mut changed = 0;
    loop {
        let rows = step()?;
        changed += u64::try_from(rows).unwrap_or(u64::MAX);
        if rows == 0 || turn.is_over() {
            return Ok((changed, rows > 0));
        }
    }
}

impl Db {
    /// Repeats a step, which changes a few rows and says how many, until it changes none; tells how many those were in
    /// all. As many steps go into one write job as fit into 10 ms on this machine at this moment, and there is a pause
    /// after each job. A step should be a matter of a millisecond or two.
    pub async fn write_in_turns<F>(&self, step: F) -> Result<u64, StoreError>
    where
        F: Fn(&Connection) -> Result<usize, StoreError> + Clone + Send + 'static,
    {
        let mut changed = 0;
        loop {
            let step = step.clone();
            let (rows, more) = self.write(move |tx| one_turn(|| step(tx))).await?;
            changed += rows;
            if !more {
                return Ok(changed);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::DbOptions;

    #[test]
    fn a_turn_ends_with_the_work_or_with_its_time() {
        let mut left = [3, 2, 0].into_iter();
        assert_eq!(one_turn(|| Ok(left.next().unwrap())).unwrap(), (5, false));
        let mut steps = 0;
        let slow = one_turn(|| {
            steps += 1;
            std::thread::sleep(TURN / 2);
            Ok(1)
        });
        let (changed, more) = slow.unwrap();
        assert!(more && changed == steps && steps <= 3, "{steps} steps");
        assert!(one_turn(|| Err(StoreError::Closed)).is_err());
    }

    #[tokio::test]
    async fn others_write_between_the_turns_of_long_work() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("aldis.db"), &DbOptions::default()).unwrap();
        db.write(|tx| {
            tx.execute_batch("CREATE TABLE things (id INTEGER PRIMARY KEY); CREATE TABLE others (id INTEGER)")?;
            for id in 0..50 {
                tx.execute("INSERT INTO things VALUES (?)", [id])?;
            }
            Ok(())
        })
        .await
        .unwrap();
        let jobs = Arc::new(AtomicUsize::new(0));
        let (work, counted) = (db.clone(), jobs.clone());
        let long = tokio::spawn(async move {
            work.write_in_turns(move |tx| {
                counted.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(4));
                Ok(tx.execute("DELETE FROM things WHERE id IN (SELECT id FROM things LIMIT 5)", [])?)
            })
            .await
        });
        while jobs.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let left: i64 = db
            .write(|tx| {
                tx.execute("INSERT INTO others VALUES (1)", [])?;
                Ok(tx.query_row("SELECT count(*) FROM things", [], |row| row.get(0))?)
            })
            .await
            .unwrap();
        assert!(left > 0, "the whole work was one job");
        assert_eq!(long.await.unwrap().unwrap(), 50);
        assert_eq!(jobs.load(Ordering::SeqCst), 11, "a step that finds nothing ends it");
    }
}
