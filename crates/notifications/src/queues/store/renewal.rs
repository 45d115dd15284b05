//! After a restore from a backup: whoever was told of events that are gone here, or was to be told, has missed something.

use aldis_storage::StoreError;
use aldis_types::{EventId, UserId};
use bytes::Bytes;
use rusqlite::{Connection, params};

use super::{Entry, QueueStore as _, SqliteQueues};
use crate::queues::MISSED;

/// Users of one step.
const PAGE: usize = 200;
/// Users with something in their queues, and clients that acknowledge, each from the next user on.
const USERS: [&str; 2] = [
    "SELECT DISTINCT user FROM notifications_queue WHERE user > ?1 ORDER BY user LIMIT ?2",
    "SELECT DISTINCT user FROM notifications_consumer WHERE user > ?1 ORDER BY user LIMIT ?2",
];

fn users_after(tx: &Connection, after: &[u8]) -> Result<Vec<UserId>, StoreError> {
    let limit = i64::try_from(PAGE).unwrap_or(i64::MAX);
    let mut found = Vec::new();
    for sql in USERS {
        let mut query = tx.prepare_cached(sql)?;
        let rows = query.query_map(params![after, limit], |row| row.get::<_, Vec<u8>>(0))?;
        for row in rows {
            found.push(UserId::from_bytes(&row?).map_err(|_| StoreError::Corrupt("notifications_queue"))?);
        }
    }
    found.sort_unstable();
    found.dedup();
    found.truncate(PAGE);
    Ok(found)
}

impl SqliteQueues {
    /// Does what a restore that is named by this id asks for, unless it was done. Goes on after a crash.
    pub(crate) async fn renew(&self, restore: [u8; 16]) -> Result<(), StoreError> {
        let done = self.db().read(move |tx| {
            Ok(tx.prepare("SELECT 1 FROM notifications_restored WHERE restore = ?")?.exists([restore.as_slice()])?)
        });
        if done.await? {
            return Ok(());
        }
        let event_id = EventId::new(uuid::Uuid::from_bytes(restore));
        let mut after: Vec<u8> = Vec::new();
        let mut all = 0;
        loop {
            let from = after.clone();
            let users = self.db().read(move |tx| users_after(tx, &from)).await?;
            let Some(last) = users.last() else { break };
            after = last.as_bytes().to_vec();
            all += users.len();
            let missed = |user| Entry { user, client: None, event_id, event: Bytes::from_static(MISSED), missed: true };
            self.append(users.into_iter().map(missed).collect()).await?;
        }
        tracing::warn!(
            users = all,
            "the store was restored from a backup; clients are told that they missed something"
        );
        self.db()
            .write(move |tx| {
                tx.execute("INSERT INTO notifications_restored (restore) VALUES (?)", [restore.as_slice()])?;
                Ok(())
            })
            .await
    }
}
