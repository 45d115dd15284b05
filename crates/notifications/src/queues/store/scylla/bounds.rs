//! Dropping what is too much, or a user's that is gone.

use aldis_storage::{StoreError, cql::Statement};
use aldis_types::UserId;

use super::{AHEAD, Head, Shared, as_i64, tick, week_of};
use crate::consumers::store::mark_missed;

const OLDEST: Statement = Statement::read(
    "notifications.queue.oldest",
    "SELECT tick, client, number, total, size FROM notifications_queue WHERE user = ? AND week = ? AND tick > ? LIMIT 256",
);
const DROP: Statement = Statement::write(
    "notifications.queue.drop",
    "DELETE FROM notifications_queue WHERE user = ? AND week = ? AND tick > 0 AND tick <= ?",
);

pub(super) const STATEMENTS: &[Statement] = &[OLDEST, DROP];

/// Most looks at the oldest events for one append; what is left then goes with the next.
const MAX_LOOKS: usize = 4;

/// A row that may have to go.
pub(crate) struct Oldest {
    pub tick: i64,
    pub client: i64,
    number: i64,
    total: i64,
    size: i64,
}

type Row = (i64, i64, Option<i64>, Option<i64>, Option<i64>);

impl Shared {
    /// Drops the oldest events of a queue that has grown too large.
    pub(super) async fn keep_bounds(&self, user: UserId, mut head: Head) -> Result<Head, StoreError> {
        // Usually seen without asking.
        if !self.exceeds(head.number - head.dropped.0, head.total - head.dropped.1) {
            return Ok(head);
        }
        let state = self.state(user).await?;
        head.dropped = (state.floor_number, state.floor_total);
        let mut floor = state.floor.max(self.expired());
        for _ in 0..MAX_LOOKS {
            if !self.exceeds(head.number - head.dropped.0, head.total - head.dropped.1) {
                break;
            }
            let rows = self.oldest(user, floor).await?;
            let Some(first) = rows.first() else { break };
            // What passed its retention counts no more. The newest stays, whatever its size.
            let mut new = (tick(first.tick).saturating_sub(1), first.number - 1, first.total - first.size);
            let goes = |row: &&Oldest| {
                let left = (head.number - row.number + 1, head.total - row.total + row.size);
                tick(row.tick) < head.tick && self.exceeds(left.0, left.1)
            };
            let dropped = rows.iter().take_while(goes).count();
            let dropped = &rows[..dropped];
            if let Some(last) = dropped.last() {
                new = (tick(last.tick), last.number, last.total);
                mark_missed(&self.cql, user, dropped).await?;
            }
            self.raise_floor(user, new.0, new.1, new.2).await?;
            if !dropped.is_empty() {
                self.cql.write(&DROP, (user.uuid(), week_of(new.0), as_i64(new.0))).await?;
                let count = u64::try_from(dropped.len()).unwrap_or(u64::MAX);
                metrics::counter!("aldis_notifications_dropped_total").increment(count);
            }
            floor = new.0;
            head.dropped = (new.1, new.2);
        }
        Ok(head)
    }

    fn exceeds(&self, events: i64, bytes: i64) -> bool {
        events > as_i64(self.bounds.events) || bytes > as_i64(self.bounds.bytes)
    }

    /// The oldest events above a floor, of one week.
    async fn oldest(&self, user: UserId, floor: u64) -> Result<Vec<Oldest>, StoreError> {
        for week in week_of(floor)..=week_of(self.now().saturating_add(AHEAD)) {
            let rows: Vec<Row> = self.cql.rows(&OLDEST, (user.uuid(), week, as_i64(floor))).await?;
            if !rows.is_empty() {
                let row = |(tick, client, number, total, size): Row| {
                    let [number, total, size] = [number, total, size].map(Option::unwrap_or_default);
                    Oldest { tick, client, number, total, size }
                };
                return Ok(rows.into_iter().map(row).collect());
            }
        }
        Ok(Vec::new())
    }

    /// Removes all events of a user. Ids of later ones are greater all the same.
    pub(super) async fn remove_user(&self, user: UserId) -> Result<(), StoreError> {
        let Some(head) = self.newest(user).await? else { return Ok(()) };
        self.raise_floor(user, head.tick, head.number, head.total).await?;
        for week in week_of(self.expired())..=head.week {
            self.cql.write(&DROP, (user.uuid(), week, as_i64(head.tick))).await?;
        }
        Ok(())
    }
}
