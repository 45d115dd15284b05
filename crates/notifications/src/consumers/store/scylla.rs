//! Standings on a cluster. What a client has missed is found out when it matters: what passed its retention is still there for
//! a week. Whoever drops the oldest events of a full queue marks here who misses them.

use std::time::Duration;

use aldis_storage::{
    StoreError,
    cql::{Cql, Statement},
};
use aldis_types::{ClientId, UserId};
use async_trait::async_trait;

use super::{ConsumerStore, Standing};
use crate::queues::store::{Oldest, ScyllaQueues};

const OPEN: Statement = Statement::decide(
    "notifications.consumer.open",
    "INSERT INTO notifications_consumer (user, client, revision, floor, missed, known) VALUES (?, ?, 0, ?, false, ?) \
     IF NOT EXISTS",
);
const GET: Statement = Statement::read_latest(
    "notifications.consumer.get",
    "SELECT revision, floor, acknowledged, missed, known FROM notifications_consumer WHERE user = ? AND client = ?",
);
const SET: Statement = Statement::decide(
    "notifications.consumer.set",
    "UPDATE notifications_consumer SET revision = ?, floor = ?, acknowledged = ?, missed = ?, known = ? \
     WHERE user = ? AND client = ? IF revision = ?",
);
const LIST: Statement =
    Statement::read("notifications.consumer.list", "SELECT client FROM notifications_consumer WHERE user = ?");
const FORGET: Statement = Statement::decide(
    "notifications.consumer.forget",
    "DELETE FROM notifications_consumer WHERE user = ? AND client = ? IF EXISTS",
);

/// What standings need prepared.
pub(crate) const STATEMENTS: &[Statement] = &[OPEN, GET, SET, LIST, FORGET];

/// How often a change is tried while others change the same row.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, Clone)]
struct Row {
    revision: i64,
    floor: i64,
    acknowledged: Vec<i64>,
    missed: bool,
    /// The client knows of everything that was dropped up to this tick.
    known: i64,
}

type Columns = (Option<i64>, Option<i64>, Option<Vec<i64>>, Option<bool>, Option<i64>);

async fn get(cql: &Cql, user: UserId, client: ClientId) -> Result<Option<Row>, StoreError> {
    let columns: Option<Columns> = cql.row(&GET, (user.uuid(), client.0.cast_signed())).await?;
    Ok(columns.map(|(revision, floor, acknowledged, missed, known)| Row {
        revision: revision.unwrap_or(0),
        floor: floor.unwrap_or(0),
        acknowledged: acknowledged.unwrap_or_default(),
        missed: missed.unwrap_or(false),
        known: known.unwrap_or(0),
    }))
}

/// Changes a row that is there; `edit` may be asked more than once.
async fn change(
    cql: &Cql,
    user: UserId,
    client: ClientId,
    edit: impl Fn(Row) -> Row + Send + Sync,
) -> Result<(), StoreError> {
    for attempt in 0..ATTEMPTS {
        let Some(row) = get(cql, user, client).await? else { return Ok(()) };
        let revision = row.revision;
        let row = edit(row);
        let key = (user.uuid(), client.0.cast_signed());
        let values = (revision + 1, row.floor, row.acknowledged, row.missed, row.known, key.0, key.1, revision);
        match cql.decide(&SET, values).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            // Done once more it says the same.
            Err(error) if error.is_unsure() => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(PAUSE * (attempt + 1)).await;
    }
    Err(StoreError::Contended("notifications_consumer"))
}

/// Marks who misses events that are dropped, which are the oldest of the queue.
pub(crate) async fn mark_missed(cql: &Cql, user: UserId, dropped: &[Oldest]) -> Result<(), StoreError> {
    for (client,) in cql.rows::<(i64,)>(&LIST, (user.uuid(),)).await? {
        let misses = |row: &Row| {
            dropped.iter().any(|event| {
                event.tick > row.floor
                    && (event.client == 0 || event.client == client)
                    && !row.acknowledged.contains(&event.tick)
            })
        };
        let id = ClientId(client.cast_unsigned());
        if get(cql, user, id).await?.is_some_and(|row| !row.missed && misses(&row)) {
            change(cql, user, id, |row| Row { missed: row.missed || misses(&row), ..row }).await?;
        }
    }
    Ok(())
}

/// Ticks have 60 bits.
fn column(tick: u64) -> i64 {
    i64::try_from(tick).unwrap_or(i64::MAX)
}

impl ScyllaQueues {
    /// Whether something for the client has passed its retention that it neither acknowledged nor knows of.
    async fn passed_unread(&self, user: UserId, client: ClientId, row: &Row) -> Result<bool, StoreError> {
        let from = row.floor.max(row.known).unsigned_abs();
        self.left_unread(user, client, from, self.expired(), &row.acknowledged).await
    }
}

#[async_trait]
impl ConsumerStore for ScyllaQueues {
    async fn open(&self, user: UserId, client: ClientId) -> Result<(), StoreError> {
        let floor = column(self.floor_of_new(user).await?);
        let opened = self.cql().decide(&OPEN, (user.uuid(), client.0.cast_signed(), floor, floor)).await;
        match opened {
            Err(error) if error.is_unsure() && get(self.cql(), user, client).await?.is_some() => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    async fn standing(&self, user: UserId, client: ClientId) -> Result<Option<Standing>, StoreError> {
        let Some(row) = get(self.cql(), user, client).await? else { return Ok(None) };
        let (_, gap) = self.dropped(user).await?;
        let missed = row.missed || column(gap) > row.known || self.passed_unread(user, client, &row).await?;
        let mut acknowledged: Vec<u64> = row.acknowledged.into_iter().map(i64::cast_unsigned).collect();
        acknowledged.sort_unstable();
        Ok(Some(Standing { floor: row.floor.cast_unsigned(), acknowledged, missed }))
    }

    async fn acknowledge(&self, user: UserId, client: ClientId, floor: u64, above: Vec<u64>) -> Result<(), StoreError> {
        let Some(before) = get(self.cql(), user, client).await? else { return Ok(()) };
        // Before the floor passes it.
        let passed = self.passed_unread(user, client, &before).await?;
        let edit = |row: Row| {
            let missed = row.missed || passed;
            let floor = row.floor.max(column(floor));
            let mut acknowledged = row.acknowledged;
            acknowledged.extend(above.iter().copied().map(column));
            acknowledged.retain(|tick| *tick > floor);
            acknowledged.sort_unstable();
            acknowledged.dedup();
            Row { floor, acknowledged, missed, ..row }
        };
        change(self.cql(), user, client, edit).await
    }

    async fn knows(&self, user: UserId, client: ClientId) -> Result<(), StoreError> {
        let (dropped, gap) = self.dropped(user).await?;
        let known = column(dropped.max(gap).max(self.expired()));
        change(self.cql(), user, client, |row| Row { missed: false, known: row.known.max(known), ..row }).await
    }

    async fn forget(&self, user: UserId, client: Option<ClientId>) -> Result<(), StoreError> {
        let clients = match client {
            Some(client) => vec![(client.0.cast_signed(),)],
            None => self.cql().rows(&LIST, (user.uuid(),)).await?,
        };
        for (client,) in clients {
            match self.cql().decide(&FORGET, (user.uuid(), client)).await {
                // Gone or going: once more says for sure.
                Err(error) if error.is_unsure() => self.cql().decide(&FORGET, (user.uuid(), client)).await.map(drop)?,
                outcome => outcome.map(drop)?,
            }
        }
        Ok(())
    }
}
