use std::collections::BTreeSet;

use aldis_delivery::{Appended, Delivery, Envelope, Outbox, Outgoing, Positions};
use aldis_storage::{Db, StoreError, Turn};
use aldis_types::{Domain, Qualified, Relation, Timestamp, UserId};
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    CancelledRows, Change, Changed, ConnectionRow, ConnectionStore, Decision, OtherSide, Pair, Refusal, Sides, Wanted,
    Write, Written,
};
use crate::{events::Effects, sql};

/// Connections in `SQLite`.
pub(crate) struct SqliteConnections {
    db: Db,
    outbox: Outbox,
}

impl SqliteConnections {
    pub(crate) fn new(db: Db, outbox: Outbox) -> Self {
        Self { db, outbox }
    }

    /// Moves a lane of another backend on, together with what is told of it here.
    async fn told(
        &self,
        positions: Positions,
        envelope: Envelope,
        effects: impl FnOnce(&Connection) -> Result<Vec<Outgoing>, StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let outbox = self.outbox.traced();
        let appended = self
            .db
            .write(move |tx| {
                positions.advance(tx, &envelope)?;
                outbox.append(tx, &effects(tx)?)
            })
            .await?;
        drop(self.outbox.committed(appended));
        Ok(())
    }
}

const SENT: i64 = 1;
const PENDING: i64 = 2;
const ACCEPTED: i64 = 3;

const fn to_number(relation: Relation) -> i64 {
    match relation {
        Relation::Sent => SENT,
        Relation::Pending => PENDING,
        Relation::Accepted => ACCEPTED,
        Relation::Ignored => 4,
        Relation::Blocked => 5,
        Relation::Cancelled => 6,
    }
}

fn relation(row: &Row<'_>, column: usize) -> rusqlite::Result<Relation> {
    Ok(match row.get::<_, i64>(column)? {
        SENT => Relation::Sent,
        PENDING => Relation::Pending,
        ACCEPTED => Relation::Accepted,
        4 => Relation::Ignored,
        5 => Relation::Blocked,
        6 => Relation::Cancelled,
        other => return Err(rusqlite::Error::IntegralValueOutOfRange(column, other)),
    })
}

const CONNECTION: &str = "domain, other, status, time, remote_time";

fn connection(row: &Row<'_>) -> rusqlite::Result<ConnectionRow> {
    Ok(ConnectionRow {
        other: Qualified::new(sql::user_id(row, 1)?, sql::parsed(row, 0)?),
        status: relation(row, 2)?,
        time: sql::time(row, 3)?,
        remote_time: sql::time(row, 4)?,
    })
}

fn get(tx: &Connection, user: UserId, other: &Qualified<UserId>) -> rusqlite::Result<Option<ConnectionRow>> {
    tx.prepare_cached(&format!(
        "SELECT {CONNECTION} FROM users_connections WHERE user = ? AND domain = ? AND other = ?"
    ))?
    .query_row(params![user.as_bytes().as_slice(), other.domain.as_str(), other.id.as_bytes().as_slice()], connection)
    .optional()
}

fn put(
    tx: &Connection,
    user: UserId,
    other: &Qualified<UserId>,
    before: Option<&ConnectionRow>,
    write: &Write,
    now: Timestamp,
) -> rusqlite::Result<ConnectionRow> {
    let after_last = before.map_or(Timestamp::EPOCH, |row| Timestamp::from_millis(row.time.millis() + 1));
    let row = ConnectionRow {
        other: other.clone(),
        status: write.status,
        time: now.max(after_last).max(write.not_before),
        remote_time: write.remote_time.or(before.map(|row| row.remote_time)).unwrap_or_default(),
    };
    tx.prepare_cached(
        "INSERT INTO users_connections (user, domain, other, status, time, remote_time, wanted, told) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?4 IN (1, 3), ?5) \
         ON CONFLICT (user, domain, other) DO UPDATE SET status = excluded.status, time = excluded.time, \
         remote_time = excluded.remote_time, \
         wanted = CASE excluded.status WHEN 5 THEN wanted ELSE excluded.wanted END, \
         told = CASE WHEN excluded.status = 5 OR wanted = excluded.wanted THEN told ELSE excluded.told END",
    )?
    .execute(params![
        user.as_bytes().as_slice(),
        other.domain.as_str(),
        other.id.as_bytes().as_slice(),
        to_number(row.status),
        row.time.millis(),
        row.remote_time.millis()
    ])?;
    Ok(row)
}

fn counts(tx: &Connection, user: UserId) -> rusqlite::Result<(u32, u32)> {
    tx.prepare_cached(
        "SELECT count(*) FILTER (WHERE status IN (1, 3)), count(*) FILTER (WHERE status = 2) \
         FROM users_connections WHERE user = ?",
    )?
    .query_row([user.as_bytes().as_slice()], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// What is kept of blocked connections with users of a backend is the same as of all others: nothing is wanted any more.
fn forget_blocked(tx: &Connection, domain: &Domain) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE users_connections SET wanted = 0 WHERE domain = ? AND status = 5 AND wanted > 0")?
        .execute([domain.as_str()])?;
    Ok(())
}

/// Connections with users of a backend that are neither blocked nor cancelled.
fn open_with(tx: &Connection, domain: &Domain, limit: usize) -> rusqlite::Result<CancelledRows> {
    let sql =
        format!("SELECT {CONNECTION}, user FROM users_connections WHERE domain = ? AND status IN (1, 2, 3, 4) LIMIT ?");
    let mut query = tx.prepare_cached(&sql)?;
    let rows = query
        .query_map(params![domain.as_str(), sql::rows(limit)], |row| Ok((sql::user_id(row, 5)?, connection(row)?)))?;
    rows.collect()
}

/// Ids of a pair for a comparison of rows; those of no pair stand before all.
fn key_of(pair: Option<(UserId, UserId)>) -> (Vec<u8>, Vec<u8>) {
    pair.map(|(first, second)| (first.as_bytes().to_vec(), second.as_bytes().to_vec())).unwrap_or_default()
}

/// Removes everybody's connection with `other`; gives what there was.
fn end_about(tx: &Connection, other: &Qualified<UserId>) -> rusqlite::Result<Vec<OtherSide>> {
    let key = params![other.id.as_bytes().as_slice(), other.domain.as_str()];
    let sides = tx
        .prepare_cached(&format!(
            "SELECT {CONNECTION}, user FROM users_connections WHERE other = ? AND domain = ? ORDER BY user"
        ))?
        .query_map(key, |row| Ok((sql::user_id(row, 5)?, connection(row)?)))?
        .collect::<Result<Vec<_>, _>>()?;
    tx.prepare_cached("DELETE FROM users_connections WHERE other = ? AND domain = ?")?.execute(key)?;
    Ok(sides)
}

/// Inside the job that deletes an account: removes every connection of and with its user. Gives how others here stood
/// to the user, and the other backends that there were connections with.
pub(crate) fn end_connections(
    tx: &Connection,
    user: &Qualified<UserId>,
) -> rusqlite::Result<(Vec<OtherSide>, BTreeSet<Domain>)> {
    let id = user.id.as_bytes().as_slice();
    let elsewhere = tx
        .prepare_cached("SELECT DISTINCT domain FROM users_connections WHERE user = ? AND domain <> ?")?
        .query_map(params![id, user.domain.as_str()], |row| sql::parsed(row, 0))?
        .collect::<Result<_, _>>()?;
    tx.prepare_cached("DELETE FROM users_connections WHERE user = ?")?.execute([id])?;
    Ok((end_about(tx, user)?, elsewhere))
}

fn contacts_of(tx: &Connection, other: &Qualified<UserId>) -> rusqlite::Result<Vec<UserId>> {
    let key = params![other.id.as_bytes().as_slice(), other.domain.as_str(), ACCEPTED];
    tx.prepare_cached("SELECT user FROM users_connections WHERE other = ? AND domain = ? AND status = ?")?
        .query_map(key, |row| sql::user_id(row, 0))?
        .collect()
}

/// What a job did, before its rows are handed to the relays.
struct Done {
    before: Option<ConnectionRow>,
    after: Option<ConnectionRow>,
    refused: Option<Refusal>,
    appended: Appended,
}

fn apply(tx: &Connection, outbox: &Outbox, change: &Change) -> Result<Done, StoreError> {
    let (user, other) = (change.user, &change.other);
    let mirrored = Qualified::new(user, other.domain.clone());
    if sql::is_deleted(tx, user)? || (change.local && sql::is_deleted(tx, other.id)?) {
        return Ok(Done { before: None, after: None, refused: Some(Refusal::Gone), appended: Appended::default() });
    }
    let (open, pending) = counts(tx, user)?;
    let sides = Sides {
        mine: get(tx, user, other)?,
        theirs: if change.local { get(tx, other.id, &mirrored)? } else { None },
        open,
        pending,
    };
    let before = sides.mine.clone();
    let (mine, theirs) = match (change.decide)(&sides) {
        Decision::Keep => {
            let after = before.clone();
            return Ok(Done { before, after, refused: None, appended: Appended::default() });
        }
        Decision::Refuse(refusal) => {
            let after = before.clone();
            return Ok(Done { before, after, refused: Some(refusal), appended: Appended::default() });
        }
        Decision::Write { mine, theirs } => (mine, theirs),
    };
    let mut written = Written::default();
    let mut after = before.clone();
    if let Some(write) = mine {
        let row = put(tx, user, other, before.as_ref(), &write, change.now)?;
        written.mine = write.announced.then(|| row.clone());
        after = Some(row);
    }
    if let Some(write) = theirs.filter(|_| change.local) {
        let row = put(tx, other.id, &mirrored, sides.theirs.as_ref(), &write, change.now)?;
        written.theirs = write.announced.then_some(row);
    }
    let appended = outbox.append(tx, &(change.effects)(&written))?;
    Ok(Done { before, after, refused: None, appended })
}

impl SqliteConnections {
    fn finish(&self, done: Done) -> Changed {
        let delivery: Delivery = self.outbox.committed(done.appended);
        Changed { before: done.before, after: done.after, refused: done.refused, delivery: Some(delivery) }
    }
}

#[async_trait]
impl ConnectionStore for SqliteConnections {
    async fn get(&self, user: UserId, other: &Qualified<UserId>) -> Result<Option<ConnectionRow>, StoreError> {
        let other = other.clone();
        self.db.read(move |tx| Ok(get(tx, user, &other)?)).await
    }

    async fn list(
        &self,
        user: UserId,
        after: Option<Qualified<UserId>>,
        limit: usize,
    ) -> Result<Vec<ConnectionRow>, StoreError> {
        self.db
            .read(move |tx| {
                let mut query = tx.prepare_cached(&format!(
                    "SELECT {CONNECTION} FROM users_connections WHERE user = ? AND (domain, other) > (?, ?) \
                     ORDER BY domain, other LIMIT ?"
                ))?;
                let (domain, other) = match &after {
                    Some(after) => (after.domain.as_str(), after.id.as_bytes().as_slice()),
                    None => ("", [].as_slice()),
                };
                let key = params![user.as_bytes().as_slice(), domain, other, sql::rows(limit)];
                let rows = query.query_map(key, connection)?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    async fn relations(
        &self,
        user: UserId,
        others: Vec<Qualified<UserId>>,
    ) -> Result<Vec<Option<Relation>>, StoreError> {
        self.db
            .read(move |tx| {
                let found = others.iter().map(|other| Ok(get(tx, user, other)?.map(|row| row.status)));
                Ok(found.collect::<rusqlite::Result<_>>()?)
            })
            .await
    }

    async fn open(&self, user: UserId) -> Result<u32, StoreError> {
        self.db.read(move |tx| Ok(counts(tx, user)?.0)).await
    }

    async fn local_contacts(&self, user: UserId, domain: Domain) -> Result<Vec<UserId>, StoreError> {
        self.db
            .read(move |tx| {
                let mut query = tx.prepare_cached(
                    "SELECT other FROM users_connections WHERE user = ? AND domain = ? AND status = ?",
                )?;
                let key = params![user.as_bytes().as_slice(), domain.as_str(), ACCEPTED];
                let rows = query.query_map(key, |row| sql::user_id(row, 0))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    async fn contact_backends(&self, user: UserId, own: Domain) -> Result<Vec<Domain>, StoreError> {
        self.db
            .read(move |tx| {
                let mut query = tx.prepare_cached(
                    "SELECT DISTINCT domain FROM users_connections WHERE user = ? AND domain <> ? AND status = ?",
                )?;
                let key = params![user.as_bytes().as_slice(), own.as_str(), ACCEPTED];
                let rows = query.query_map(key, |row| sql::parsed(row, 0))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    async fn change(&self, change: Change) -> Result<Changed, StoreError> {
        let outbox = self.outbox.traced();
        let done = self.db.write(move |tx| apply(tx, &outbox, &change)).await?;
        Ok(self.finish(done))
    }

    async fn cancel_some(
        &self,
        domain: &Domain,
        limit: usize,
        now: Timestamp,
        effects: Effects<CancelledRows>,
    ) -> Result<usize, StoreError> {
        let (outbox, domain) = (self.outbox.clone(), domain.clone());
        let (count, appended) = self
            .db
            .write(move |tx| {
                let (turn, mut cancelled) = (Turn::begin(), Vec::new());
                forget_blocked(tx, &domain)?;
                for (user, before) in open_with(tx, &domain, limit)? {
                    let write = Write::announced(Relation::Cancelled);
                    let row = put(tx, user, &before.other, Some(&before), &write, now)?;
                    cancelled.push((user, row));
                    if turn.is_over() {
                        break;
                    }
                }
                Ok((cancelled.len(), outbox.append(tx, &effects(&cancelled))?))
            })
            .await?;
        self.outbox.committed(appended);
        Ok(count)
    }

    async fn receive(&self, change: Change, positions: Positions, envelope: Envelope) -> Result<Changed, StoreError> {
        let outbox = self.outbox.traced();
        let done = self
            .db
            .write(move |tx| {
                positions.advance(tx, &envelope)?;
                apply(tx, &outbox, &change)
            })
            .await?;
        Ok(self.finish(done))
    }

    async fn end_with(
        &self,
        gone: Qualified<UserId>,
        positions: Positions,
        envelope: Envelope,
        effects: Effects<Vec<OtherSide>>,
    ) -> Result<(), StoreError> {
        self.told(positions, envelope, move |tx| Ok(effects(&end_about(tx, &gone)?))).await
    }

    async fn end(&self, gone: Qualified<UserId>, effects: Effects<Vec<OtherSide>>) -> Result<(), StoreError> {
        let outbox = self.outbox.traced();
        let appended = self.db.write(move |tx| outbox.append(tx, &effects(&end_about(tx, &gone)?))).await?;
        drop(self.outbox.committed(appended));
        Ok(())
    }

    async fn wanted(
        &self,
        domain: &Domain,
        after: Option<(UserId, UserId)>,
        limit: usize,
    ) -> Result<Vec<Wanted>, StoreError> {
        let (domain, (user, other)) = (domain.clone(), key_of(after));
        let page = self.db.read(move |tx| {
            let mut query = tx.prepare_cached(
                "SELECT user, other, told, wanted = 1 FROM users_connections INDEXED BY users_connections_wanted \
                 WHERE domain = ? AND wanted > 0 AND (user, other) > (?, ?) ORDER BY user, other LIMIT ?",
            )?;
            let rows = query.query_map(params![domain.as_str(), user, other, sql::rows(limit)], |row| {
                Ok(Wanted {
                    user: sql::user_id(row, 0)?,
                    other: sql::user_id(row, 1)?,
                    time: sql::time(row, 2)?,
                    known: row.get(3)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        });
        page.await
    }

    async fn with(
        &self,
        domain: &Domain,
        after: Option<Pair>,
        limit: usize,
    ) -> Result<Vec<(Pair, ConnectionRow)>, StoreError> {
        let (domain, (other, user)) = (domain.clone(), key_of(after));
        let page = self.db.read(move |tx| {
            let mut query = tx.prepare_cached(&format!(
                "SELECT {CONNECTION}, user FROM users_connections INDEXED BY users_connections_by_other \
                 WHERE domain = ? AND (other, user) > (?, ?) ORDER BY other, user LIMIT ?"
            ))?;
            let rows = query.query_map(params![domain.as_str(), other, user, sql::rows(limit)], |row| {
                let found = connection(row)?;
                Ok(((found.other.id, sql::user_id(row, 5)?), found))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        });
        page.await
    }

    async fn backends(&self, own: &Domain) -> Result<Vec<Domain>, StoreError> {
        // Hops from one domain to the next: there are few of them, and many rows.
        let sql = "WITH RECURSIVE backend (domain) AS (SELECT min(domain) FROM users_connections UNION ALL \
                   SELECT (SELECT min(domain) FROM users_connections WHERE domain > backend.domain) FROM backend \
                   WHERE backend.domain IS NOT NULL) SELECT domain FROM backend WHERE domain IS NOT NULL";
        let domains = self.db.read(move |tx| {
            let mut query = tx.prepare_cached(sql)?;
            Ok(query.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?)
        });
        let domains = domains.await?;
        Ok(domains.iter().filter_map(|domain| domain.parse().ok()).filter(|domain| domain != own).collect())
    }

    async fn tell_contacts(
        &self,
        other: Qualified<UserId>,
        positions: Positions,
        envelope: Envelope,
        effects: Effects<Vec<UserId>>,
    ) -> Result<(), StoreError> {
        self.told(positions, envelope, move |tx| Ok(effects(&contacts_of(tx, &other)?))).await
    }

    async fn skip(&self, positions: Positions, envelope: Envelope) -> Result<(), StoreError> {
        self.db.write(move |tx| positions.advance(tx, &envelope)).await
    }
}
