//! Clearing away in write jobs that are short, so that others have their turn in between.

use std::time::{Duration, Instant};

use aldis_storage::{Db, StoreError};
use rusqlite::Connection;

/// Time for one write job.
const JOB: Duration = Duration::from_millis(15);
/// Pause between two jobs, in which others have their turn.
const PAUSE: Duration = Duration::from_millis(20);

/// Repeats a step, which says how many rows it removed, until there are none; says how many went in all.
pub(crate) async fn until_none<F>(db: &Db, step: F) -> Result<u64, StoreError>
where
    F: Fn(&Connection) -> Result<usize, StoreError> + Clone + Send + 'static,
{
    let mut removed = 0;
    loop {
        let step = step.clone();
        let (rows, more) = db.write(move |tx| job(tx, &step)).await?;
        removed += rows;
        if !more {
            return Ok(removed);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// One job; says how many rows went and whether more may be left.
fn job(tx: &Connection, step: &impl Fn(&Connection) -> Result<usize, StoreError>) -> Result<(u64, bool), StoreError> {
    let begun = Instant::now();
    let mut removed = 0;
    loop {
        let rows = step(tx)?;
        removed += u64::try_from(rows).unwrap_or(0);
        if rows == 0 || begun.elapsed() > JOB {
            return Ok((removed, rows > 0));
        }
    }
}
