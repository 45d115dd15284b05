//! What holds for a user's whole queue.

use std::collections::HashMap;

use aldis_storage::{StoreError, cql::Statement};
use aldis_types::{ClientId, UserId};

use super::{Shared, as_i64, tick};

const GET: Statement = Statement::read(
    "notifications.state.get",
    "SELECT floor, floor_number, floor_total, gap, removed FROM notifications_state WHERE user = ?",
);
const RAISE: Statement = Statement::write(
    "notifications.state.raise",
    "UPDATE notifications_state USING TTL ? AND TIMESTAMP ? SET floor = ?, floor_number = ?, floor_total = ? WHERE user = ?",
);
const GAP: Statement = Statement::write(
    "notifications.state.gap",
    "UPDATE notifications_state USING TTL ? AND TIMESTAMP ? SET gap = ? WHERE user = ?",
);
const REMOVED: Statement = Statement::write(
    "notifications.state.removed",
    "UPDATE notifications_state USING TTL ? SET removed[?] = ? WHERE user = ?",
);

pub(super) const STATEMENTS: &[Statement] = &[GET, RAISE, GAP, REMOVED];

/// What holds for a user's whole queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// Events up to this tick were dropped.
    pub floor: u64,
    /// The number of the last of them, and the bytes up to it.
    pub floor_number: i64,
    pub floor_total: i64,
    /// Events are missing before this tick.
    pub gap: u64,
    /// Clients that are gone, and the newest tick when they went.
    pub removed: HashMap<i64, i64>,
}

impl State {
    /// Whether an event was for a client that is gone.
    pub(super) fn is_removed(&self, client: i64, at: i64) -> bool {
        self.removed.get(&client).is_some_and(|until| at <= *until)
    }
}

type Row = (Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<HashMap<i64, i64>>);

impl Shared {
    pub(crate) async fn state(&self, user: UserId) -> Result<State, StoreError> {
        let row: Option<Row> = self.cql.row(&GET, (user.uuid(),)).await?;
        Ok(row.map_or_else(State::default, |(floor, number, total, gap, removed)| State {
            floor: floor.map_or(0, tick),
            floor_number: number.unwrap_or(0),
            floor_total: total.unwrap_or(0),
            gap: gap.map_or(0, tick),
            removed: removed.unwrap_or_default(),
        }))
    }

    /// Drops events up to a tick. A lower floor than the kept one changes nothing.
    pub(super) async fn raise_floor(
        &self,
        user: UserId,
        floor: u64,
        number: i64,
        total: i64,
    ) -> Result<(), StoreError> {
        let values = (self.ttl(), as_i64(floor / 10), as_i64(floor), number, total, user.uuid());
        self.cql.write(&RAISE, values).await
    }

    /// Events are missing before this tick.
    pub(super) async fn open_gap(&self, user: UserId, gap: u64) -> Result<(), StoreError> {
        self.cql.write(&GAP, (self.ttl(), as_i64(gap / 10), as_i64(gap), user.uuid())).await
    }

    /// Forgets what is for one client so far.
    pub(super) async fn remove_client(&self, user: UserId, client: ClientId) -> Result<(), StoreError> {
        let Some(newest) = self.newest(user).await? else { return Ok(()) };
        let values = (self.ttl(), client.0.cast_signed(), as_i64(newest.tick), user.uuid());
        self.cql.write(&REMOVED, values).await
    }
}
