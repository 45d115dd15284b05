//! Reading.

use std::pin::pin;

use aldis_storage::{StoreError, cql::Statement};
use aldis_types::{ClientId, NotificationId, UserId};
use bytes::Bytes;
use futures::TryStreamExt as _;
use uuid::Uuid;

use super::{AHEAD, Page, Reader, Shared, Stored, WEEK, as_i64, column, state::State, tick, week_of};

const AFTER: Statement = Statement::read(
    "notifications.queue.after",
    "SELECT tick, client, id, event FROM notifications_queue WHERE user = ? AND week = ? AND tick > ?",
);
const BEFORE: Statement = Statement::read(
    "notifications.queue.before",
    "SELECT tick, client, id, event FROM notifications_queue WHERE user = ? AND week = ? AND tick > ? ORDER BY tick DESC",
);
const GET: Statement = Statement::read(
    "notifications.queue.get",
    "SELECT tick, client, id, event FROM notifications_queue WHERE user = ? AND week = ? AND tick = ?",
);
const CLIENTS: Statement = Statement::read(
    "notifications.queue.clients",
    "SELECT tick, client FROM notifications_queue WHERE user = ? AND week = ? AND tick > ? AND tick <= ?",
);

pub(super) const STATEMENTS: &[Statement] = &[AFTER, BEFORE, GET, CLIENTS];

type Row = (i64, i64, Uuid, Option<Vec<u8>>);

fn stored((_, _, id, event): Row) -> Stored {
    Stored { id: NotificationId::new(id), event: Bytes::from(event.unwrap_or_default()) }
}

/// Whether a reader sees an event.
fn is_for(reader: Reader, state: &State, (at, client, ..): &Row) -> bool {
    let own = *client == 0 || reader.is_none_or(|reader| column(Some(reader)) == *client);
    own && !state.is_removed(*client, *at)
}

/// Takes rows until a page is full.
struct Collector<'a> {
    reader: Reader,
    state: &'a State,
    size: usize,
    bytes: usize,
    taken: usize,
    position: u64,
    page: Page,
}

impl Collector<'_> {
    /// `false`: there is no room for this one.
    fn take(&mut self, row: Row) -> bool {
        if is_for(self.reader, self.state, &row) {
            let length = row.3.as_ref().map_or(0, Vec::len);
            let full = self.page.notifications.len() == self.size;
            if full || (self.taken > 0 && self.taken + length > self.bytes) {
                self.page.has_more = true;
                return false;
            }
            self.taken += length;
            self.position = tick(row.0);
            self.page.notifications.push(stored(row));
        } else {
            self.position = tick(row.0);
        }
        true
    }
}

impl Shared {
    /// The last partition in which there may be something.
    fn newest_week(&self) -> i32 {
        week_of(self.now().saturating_add(AHEAD))
    }

    pub(super) async fn page(
        &self,
        user: UserId,
        reader: Reader,
        since: Option<NotificationId>,
        size: usize,
        bytes: usize,
    ) -> Result<Option<Page>, StoreError> {
        let Some(since) = since else {
            let state = self.state(user).await?;
            return self.read(user, reader, &state, 0, size, bytes).await.map(Some);
        };
        let Some(at) = since.ticks() else { return Ok(None) };
        let (state, found) = futures::try_join!(self.state(user), self.find(user, at))?;
        if found.is_none_or(|row| row.2 != since.uuid()) {
            return Ok(None);
        }
        let page = self.read(user, reader, &state, at, size, bytes).await?;
        // Looked at after the events: what was dropped while they were read is told.
        let state = self.state(user).await?;
        Ok((at > state.floor.max(self.expired()) && state.gap <= at).then_some(page))
    }

    /// Events after a tick, from week to week.
    pub(super) async fn read(
        &self,
        user: UserId,
        reader: Reader,
        state: &State,
        from: u64,
        size: usize,
        bytes: usize,
    ) -> Result<Page, StoreError> {
        let from = from.max(state.floor).max(self.expired());
        let page = Page { notifications: Vec::new(), has_more: false };
        let mut collector = Collector { reader, state, size, bytes, taken: 0, position: from, page };
        let mut before = None;
        for week in week_of(from)..=self.newest_week() {
            let after = (user.uuid(), week, as_i64(collector.position));
            let mut rows = pin!(self.cql.pages::<Row, _>(&AFTER, after).await?);
            let Some(first) = rows.try_next().await? else {
                before = Some(week);
                continue;
            };
            // There is something in this week, so the one before is sealed: what came late there is there now.
            if let Some(before) = before.replace(week) {
                let after = (user.uuid(), before, as_i64(collector.position));
                let mut late = pin!(self.cql.pages::<Row, _>(&AFTER, after).await?);
                while let Some(row) = late.try_next().await? {
                    if !collector.take(row) {
                        return Ok(collector.page);
                    }
                }
            }
            let mut next = Some(first);
            while let Some(row) = next {
                if !collector.take(row) {
                    return Ok(collector.page);
                }
                next = rows.try_next().await?;
            }
        }
        Ok(collector.page)
    }

    pub(super) async fn last(&self, user: UserId, reader: Reader) -> Result<Option<Stored>, StoreError> {
        let state = self.state(user).await?;
        let floor = state.floor.max(self.expired());
        for week in (week_of(floor)..=self.newest_week()).rev() {
            let mut rows = pin!(self.cql.pages::<Row, _>(&BEFORE, (user.uuid(), week, as_i64(floor))).await?);
            while let Some(row) = rows.try_next().await? {
                if is_for(reader, &state, &row) {
                    return Ok(Some(stored(row)));
                }
            }
        }
        Ok(None)
    }

    pub(super) async fn get(
        &self,
        user: UserId,
        reader: Reader,
        id: NotificationId,
    ) -> Result<Option<Stored>, StoreError> {
        let Some(at) = id.ticks() else { return Ok(None) };
        let (state, found) = futures::try_join!(self.state(user), self.find(user, at))?;
        let seen =
            |row: &Row| at > state.floor.max(self.expired()) && row.2 == id.uuid() && is_for(reader, &state, row);
        Ok(found.filter(seen).map(stored))
    }

    async fn find(&self, user: UserId, at: u64) -> Result<Option<Row>, StoreError> {
        if at == 0 {
            return Ok(None);
        }
        self.cql.row(&GET, (user.uuid(), week_of(at), as_i64(at))).await
    }

    pub(super) async fn left_unread(
        &self,
        user: UserId,
        client: ClientId,
        from: u64,
        to: u64,
        acknowledged: &[i64],
    ) -> Result<bool, StoreError> {
        if from >= to {
            return Ok(false);
        }
        if from < self.expired().saturating_sub(WEEK) {
            return Ok(true);
        }
        for week in week_of(from)..=week_of(to) {
            let range = (user.uuid(), week, as_i64(from), as_i64(to));
            let mut rows = pin!(self.cql.pages::<(i64, i64), _>(&CLIENTS, range).await?);
            while let Some((at, owner)) = rows.try_next().await? {
                if (owner == 0 || owner == column(Some(client))) && !acknowledged.contains(&at) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}
