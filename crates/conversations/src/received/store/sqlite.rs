//! The embedded engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aldis_delivery::{Appended, Component, Delivery, Envelope, LaneEnd, Outbox, Outgoing, Place, Positions};
use aldis_runtime::SharedClock;
use aldis_storage::{Db, StoreError, Turn};
use aldis_types::{ConversationId, Domain, Qualified, UserId};
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};
use tracing::Instrument;
use uuid::Uuid;

use super::{MemberChange, MembershipStore, RemoteConversation, Repair, Repaired, Told};
use crate::{
    cache::Cache,
    groups::{
        model::SettingsUpdate,
        store::{Effects, Mark, SettingsRow, Stamp, index, put_mark, unindex},
    },
};

/// Members kept in memory, over all conversations; about 160 bytes each.
const CACHED_MEMBERS: u64 = 200_000;
/// Most conversations read in one go.
const READ_CHUNK: usize = 100;

/// Memberships in the embedded store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SqliteMemberships {
    shared: Arc<Shared>,
}

struct Shared {
    db: Db,
    outbox: Outbox,
    clock: SharedClock,
    cache: Cache<Qualified<ConversationId>, RemoteConversation>,
}

impl SqliteMemberships {
    /// Over a store whose tables were migrated.
    pub(crate) fn new(db: Db, outbox: Outbox, clock: SharedClock) -> Self {
        let weigh = |found: &RemoteConversation| u32::try_from(found.members.len() + 1).unwrap_or(u32::MAX);
        Self { shared: Arc::new(Shared { db, outbox, clock, cache: Cache::new(CACHED_MEMBERS, weigh) }) }
    }

    /// Runs a write job to its end even when the caller gives up, so that the cache never holds what was before.
    async fn write(
        &self,
        forget: Option<Qualified<ConversationId>>,
        job: impl FnOnce(&Connection, &Outbox) -> Result<Option<Appended>, StoreError> + Send + 'static,
    ) -> Result<Option<Delivery>, StoreError> {
        let ((), delivery) = self.write_and_say(forget, |tx, outbox| Ok(((), job(tx, outbox)?))).await?;
        Ok(delivery)
    }

    /// The same for a job that says more.
    async fn write_and_say<T: Send + 'static>(
        &self,
        forget: Option<Qualified<ConversationId>>,
        job: impl FnOnce(&Connection, &Outbox) -> Result<(T, Option<Appended>), StoreError> + Send + 'static,
    ) -> Result<(T, Option<Delivery>), StoreError> {
        let shared = self.shared.clone();
        let run = async move {
            let outbox = shared.outbox.traced();
            let result = shared.db.write(move |tx| job(tx, &outbox)).await;
            if let Some(id) = forget {
                shared.cache.forget(&id);
            }
            let (said, appended) = result?;
            Ok((said, appended.map(|appended| shared.outbox.committed(appended))))
        };
        tokio::spawn(run.in_current_span()).await.map_err(|_| StoreError::Panicked)?
    }
}

fn write_members(tx: &Connection, id: &Qualified<ConversationId>, change: &MemberChange) -> Result<(), StoreError> {
    let domain = id.domain.as_str();
    let conversation = id.id.as_bytes();
    for user in &change.join {
        let sql = "INSERT INTO conversations_remote (domain, conversation, user) VALUES (?1, ?2, ?3) \
                   ON CONFLICT (domain, conversation, user) DO NOTHING";
        tx.prepare_cached(sql)?.execute(params![domain, conversation, user.as_bytes()])?;
        index(tx, *user, domain, conversation)?;
    }
    for user in &change.leave {
        let sql = "DELETE FROM conversations_remote WHERE domain = ?1 AND conversation = ?2 AND user = ?3";
        tx.prepare_cached(sql)?.execute(params![domain, conversation, user.as_bytes()])?;
        unindex(tx, *user, domain, conversation)?;
    }
    Ok(())
}

/// Places of our users in conversations of a backend, in order, after one.
fn places_after(
    tx: &Connection,
    domain: &Domain,
    after: Option<(ConversationId, UserId)>,
    limit: i64,
) -> Result<Vec<(ConversationId, UserId)>, StoreError> {
    let sql = "SELECT conversation, user FROM conversations_remote WHERE domain = ?1 AND (conversation, user) > (?2, ?3) \
               ORDER BY conversation, user LIMIT ?4";
    let mut statement = tx.prepare_cached(sql)?;
    let (conversation, user) = match &after {
        Some((conversation, user)) => (conversation.as_bytes().as_slice(), user.as_bytes().as_slice()),
        None => (&[][..], &[][..]),
    };
    let rows = statement.query_map(params![domain.as_str(), conversation, user, limit], |row| {
        Ok((ConversationId::new(Uuid::from_bytes(row.get(0)?)), UserId::new(Uuid::from_bytes(row.get(1)?))))
    })?;
    Ok(rows.collect::<Result<Vec<_>, _>>()?)
}

fn read_members(tx: &Connection, id: &Qualified<ConversationId>) -> Result<Option<RemoteConversation>, StoreError> {
    let sql = format!(
        "SELECT user, {} FROM conversations_remote WHERE domain = ?1 AND conversation = ?2",
        SettingsRow::COLUMNS
    );
    let mut statement = tx.prepare_cached(&sql)?;
    let rows = statement.query_map(params![id.domain.as_str(), id.id.as_bytes()], |row| {
        Ok((UserId::new(Uuid::from_bytes(row.get(0)?)), SettingsRow::read(row, 1)?))
    })?;
    let members = rows.collect::<Result<BTreeMap<_, _>, _>>()?;
    Ok((!members.is_empty()).then(|| RemoteConversation { id: id.clone(), members }))
}

#[async_trait]
impl MembershipStore for SqliteMemberships {
    async fn load(&self, ids: &[Qualified<ConversationId>]) -> Result<Vec<Arc<RemoteConversation>>, StoreError> {
        let cache = &self.shared.cache;
        let mut found = Vec::with_capacity(ids.len());
        let mut missing = Vec::new();
        for id in ids {
            let generation = cache.generation(id);
            match cache.get(id) {
                Some(conversation) => found.push(conversation),
                None => missing.push((id.clone(), generation)),
            }
        }
        for chunk in missing.chunks(READ_CHUNK) {
            let chunk = chunk.to_vec();
            let read = self.shared.db.read(move |tx| {
                let mut read = Vec::with_capacity(chunk.len());
                for (id, generation) in chunk {
                    if let Some(conversation) = read_members(tx, &id)? {
                        read.push((generation, Arc::new(conversation)));
                    }
                }
                Ok(read)
            });
            for (generation, conversation) in read.await? {
                cache.insert(conversation.id.clone(), generation, conversation.clone());
                found.push(conversation);
            }
        }
        Ok(found)
    }

    async fn places(
        &self,
        domain: &Domain,
        after: Option<(ConversationId, UserId)>,
        limit: usize,
    ) -> Result<Vec<(ConversationId, UserId)>, StoreError> {
        let domain = domain.clone();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.shared.db.read(move |tx| places_after(tx, &domain, after, limit)).await
    }

    async fn apply_event(
        &self,
        id: Qualified<ConversationId>,
        change: MemberChange,
        (positions, envelope): (Positions, Envelope),
        outgoing: Vec<Outgoing>,
    ) -> Result<Delivery, StoreError> {
        let delivery = self
            .write(Some(id.clone()), move |tx, outbox| {
                write_members(tx, &id, &change)?;
                positions.advance(tx, &envelope)?;
                Ok(Some(outbox.append(tx, &outgoing)?))
            })
            .await?;
        delivery.ok_or(StoreError::Corrupt("conversations_remote"))
    }

    async fn repair(
        &self,
        id: Qualified<ConversationId>,
        stated: Place,
        told: Option<LaneEnd>,
        repair: Repair,
    ) -> Result<Repaired, StoreError> {
        let of = id.clone();
        let job = move |tx: &Connection, outbox: &Outbox| {
            let derived = "SELECT EXISTS (SELECT 1 FROM conversations_relations WHERE conversation = ?1)";
            let is_derived: bool = tx.prepare_cached(derived)?.query_row([of.id.as_bytes()], |row| row.get(0))?;
            if is_derived || !stated.is_reached(tx, Component::Conversations)? {
                return Ok((true, None));
            }
            if told.is_some() {
                let ends = outbox.lane_ends(tx, &of.domain, &[*of.id.as_bytes()])?;
                if ends.and_then(|ends| ends.ends.first().copied()) != told {
                    return Ok((true, None));
                }
            }
            let (change, outgoing) = repair(read_members(tx, &of)?.as_ref());
            if change == MemberChange::default() && outgoing.is_empty() {
                return Ok((false, None));
            }
            write_members(tx, &of, &change)?;
            Ok((false, Some(outbox.append(tx, &outgoing)?)))
        };
        Ok(match self.write_and_say(Some(id), job).await? {
            (true, _) => Repaired::Waits,
            (false, None) => Repaired::Alike,
            (false, Some(delivery)) => Repaired::Done(delivery),
        })
    }

    async fn apply_relation(
        &self,
        id: Qualified<ConversationId>,
        change: MemberChange,
        mark: Mark,
        outgoing: Vec<Outgoing>,
    ) -> Result<Option<Delivery>, StoreError> {
        self.write(Some(id.clone()), move |tx, outbox| {
            if !put_mark(tx, &mark)? {
                return Ok(None);
            }
            write_members(tx, &id, &change)?;
            Ok(Some(outbox.append(tx, &outgoing)?))
        })
        .await
    }

    async fn forget_some(&self, domain: &Domain, limit: usize, told: Told) -> Result<usize, StoreError> {
        let shared = self.shared.clone();
        let domain = domain.clone();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        // To its end even when the caller gives up, so that the cache never holds what was before.
        let run = async move {
            let (outbox, backend) = (shared.outbox.clone(), domain.clone());
            let job = move |tx: &Connection| {
                let turn = Turn::begin();
                let (mut places, mut users) = (Vec::new(), BTreeSet::new());
                for (conversation, user) in places_after(tx, &backend, None, limit)? {
                    let id = Qualified::new(conversation, backend.clone());
                    let change = MemberChange { leave: [user].into(), ..MemberChange::default() };
                    write_members(tx, &id, &change)?;
                    users.insert(user);
                    places.push((conversation, user));
                    if turn.is_over() {
                        break;
                    }
                }
                let outgoing = if users.is_empty() { Vec::new() } else { told(&users) };
                Ok((places, outbox.append(tx, &outgoing)?))
            };
            let (places, appended) = shared.db.write(job).await?;
            for (conversation, _) in &places {
                shared.cache.forget(&Qualified::new(*conversation, domain.clone()));
            }
            shared.outbox.committed(appended);
            Ok(places.len())
        };
        tokio::spawn(run.in_current_span()).await.map_err(|_| StoreError::Panicked)?
    }

    async fn forget(
        &self,
        id: Qualified<ConversationId>,
        user: UserId,
        outgoing: Vec<Outgoing>,
    ) -> Result<(), StoreError> {
        let change = MemberChange { leave: [user].into(), ..MemberChange::default() };
        let forgotten = Some(id.clone());
        let job = move |tx: &Connection, outbox: &Outbox| {
            write_members(tx, &id, &change)?;
            Ok(Some(outbox.append(tx, &outgoing)?))
        };
        self.write(forgotten, job).await.map(drop)
    }

    async fn advance(&self, positions: Positions, envelopes: Vec<Envelope>) -> Result<(), StoreError> {
        let job = move |tx: &Connection| {
            for envelope in &envelopes {
                positions.advance(tx, envelope)?;
            }
            Ok(())
        };
        self.shared.db.write(job).await
    }

    async fn tell(&self, outgoing: Vec<Outgoing>) -> Result<Delivery, StoreError> {
        let delivery = self.write(None, move |tx, outbox| Ok(Some(outbox.append(tx, &outgoing)?))).await?;
        delivery.ok_or(StoreError::Corrupt("conversations_outbox"))
    }

    async fn update_settings(
        &self,
        id: Qualified<ConversationId>,
        user: UserId,
        update: SettingsUpdate,
        effects: Effects,
    ) -> Result<Option<Delivery>, StoreError> {
        let now = self.shared.clock.now();
        self.write(Some(id.clone()), move |tx, outbox| {
            let key = (id.domain.as_str(), id.id.as_bytes(), user.as_bytes());
            let sql = format!(
                "SELECT {} FROM conversations_remote WHERE domain = ?1 AND conversation = ?2 AND user = ?3",
                SettingsRow::COLUMNS
            );
            let found = tx.prepare_cached(&sql)?.query_row(key, |row| SettingsRow::read(row, 0)).optional()?;
            let Some(found) = found else { return Ok(None) };
            SettingsRow::write(
                tx,
                "conversations_remote",
                ["domain", "conversation", "user"],
                &update.apply(found),
                key,
            )?;
            let written = effects(&Stamp { time: now, version: 0, sequence: 0 });
            Ok(Some(outbox.append(tx, &written.outgoing)?))
        })
        .await
    }
}
