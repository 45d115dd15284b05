//! The embedded engine: the single writer makes every step conditional for free.

use std::sync::Arc;

use aldis_delivery::{Appended, Outbox};
use aldis_runtime::SharedClock;
use aldis_storage::{Db, StoreError};
use aldis_types::{ConversationId, Domain, Member, Qualified, RoleName, Timestamp, UserId};
use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use tracing::Instrument;
use uuid::Uuid;

use super::{
    AnswerKey, Committed, ConversationStore, Edit, Effects, Mark, Stamp, Step,
    rows::{METADATA_COLUMNS, MetadataRow, SettingsRow, index, put_mark, unindex},
};
use crate::{
    cache::Cache,
    groups::model::{Conversation, SettingsUpdate, StoredMember},
};

/// Members kept in memory, over all conversations; about 160 bytes each.
const CACHED_MEMBERS: u64 = 200_000;
const CORRUPT_HEAD: StoreError = StoreError::Corrupt("conversations_heads");
/// Answers that one step of a sweep forgets.
const SWEEP_STEP: i64 = 16;
/// Most conversations read in one go.
const READ_CHUNK: usize = 100;

/// Conversations in the embedded store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SqliteConversations {
    shared: Arc<Shared>,
}

struct Shared {
    domain: Domain,
    db: Db,
    outbox: Outbox,
    clock: SharedClock,
    cache: Cache<ConversationId, Conversation>,
}

/// How a write job ended.
enum Outcome {
    Done(Stamp, Appended),
    Answered(Bytes),
    Conflict,
}

impl SqliteConversations {
    /// Over a store whose tables were migrated.
    pub(crate) fn new(domain: Domain, db: Db, outbox: Outbox, clock: SharedClock) -> Self {
        let weigh = |conversation: &Conversation| u32::try_from(conversation.members.len() + 1).unwrap_or(u32::MAX);
        let cache = Cache::new(CACHED_MEMBERS, weigh);
        Self { shared: Arc::new(Shared { domain, db, outbox, clock, cache }) }
    }

    /// Runs a write job to its end even when the caller gives up, so that the cache never holds what was before.
    async fn write<T: Send + 'static>(
        &self,
        forget: Option<ConversationId>,
        job: impl FnOnce(&Connection, &Shared, &Outbox) -> Result<T, StoreError> + Send + 'static,
        finish: impl FnOnce(&Outbox, T) -> Step + Send + 'static,
    ) -> Result<Step, StoreError> {
        let shared = self.shared.clone();
        let run = async move {
            let (inner, outbox) = (shared.clone(), shared.outbox.traced());
            let result = shared.db.write(move |tx| job(tx, &inner, &outbox)).await;
            if let Some(id) = forget {
                shared.cache.forget(&id);
            }
            Ok(finish(&shared.outbox, result?))
        };
        tokio::spawn(run.in_current_span()).await.map_err(|_| StoreError::Panicked)?
    }

    async fn step(
        &self,
        forget: Option<ConversationId>,
        job: impl FnOnce(&Connection, &Shared, &Outbox) -> Result<Outcome, StoreError> + Send + 'static,
    ) -> Result<Step, StoreError> {
        self.write(forget, job, |outbox, outcome| match outcome {
            Outcome::Done(stamp, appended) => Step::Done(Committed { stamp, delivery: outbox.committed(appended) }),
            Outcome::Answered(answer) => Step::Answered(answer),
            Outcome::Conflict => Step::Conflict,
        })
        .await
    }
}

impl Shared {
    /// Advances the head by one conditional step; `None` when it is not of this version.
    fn advance(
        tx: &Connection,
        id: ConversationId,
        version: u64,
        rise: i64,
        now: Timestamp,
    ) -> Result<Option<Stamp>, StoreError> {
        let sql = "UPDATE conversations_heads SET version = version + ?3, last_sequence = last_sequence + 1, \
                   last_time = max(?4, last_time + 1) WHERE id = ?1 AND version = ?2 \
                   RETURNING version, last_sequence, last_time";
        let stamp = tx
            .prepare_cached(sql)?
            .query_row(params![id.as_bytes(), version.cast_signed(), rise, now.millis()], read_stamp)
            .optional()?;
        Ok(stamp)
    }

    /// Writes what goes with a step: rows for others and the answer that is kept.
    fn write_effects(
        &self,
        (tx, outbox): (&Connection, &Outbox),
        key: Option<AnswerKey>,
        stamp: Stamp,
        effects: Effects,
    ) -> Result<Outcome, StoreError> {
        let written = effects(&stamp);
        let appended = outbox.append(tx, &written.outgoing)?;
        if let Some((positions, envelope)) = &written.position {
            positions.advance(tx, envelope)?;
        }
        if let Some(key) = key {
            let sql = "INSERT INTO conversations_answers (key, answer, created) VALUES (?1, ?2, ?3)";
            tx.prepare_cached(sql)?.execute(params![key, written.answer.as_ref(), self.clock.now().millis()])?;
        }
        Ok(Outcome::Done(stamp, appended))
    }

    fn add_member(&self, tx: &Connection, id: ConversationId, member: &Member) -> Result<(), StoreError> {
        let sql = "INSERT INTO conversations_members (conversation, domain, user, role) VALUES (?1, ?2, ?3, ?4) \
                   ON CONFLICT (conversation, domain, user) DO NOTHING";
        let user = &member.user;
        tx.prepare_cached(sql)?.execute(params![
            id.as_bytes(),
            user.domain.as_str(),
            user.id.as_bytes(),
            member.role.as_str()
        ])?;
        if user.domain == self.domain {
            index(tx, user.id, self.domain.as_str(), id.as_bytes())?;
        }
        Ok(())
    }

    fn write_edit(&self, tx: &Connection, id: ConversationId, edit: &Edit) -> Result<(), StoreError> {
        for user in &edit.remove {
            let sql = "DELETE FROM conversations_members WHERE conversation = ?1 AND domain = ?2 AND user = ?3";
            tx.prepare_cached(sql)?.execute(params![id.as_bytes(), user.domain.as_str(), user.id.as_bytes()])?;
            if user.domain == self.domain {
                unindex(tx, user.id, self.domain.as_str(), id.as_bytes())?;
            }
        }
        for member in &edit.add {
            self.add_member(tx, id, member)?;
        }
        if let Some(member) = &edit.role {
            let sql =
                "UPDATE conversations_members SET role = ?4 WHERE conversation = ?1 AND domain = ?2 AND user = ?3";
            let user = &member.user;
            let role = member.role.as_str();
            tx.prepare_cached(sql)?.execute(params![id.as_bytes(), user.domain.as_str(), user.id.as_bytes(), role])?;
        }
        if let Some(metadata) = &edit.metadata {
            MetadataRow::of(metadata)?.update(tx, id.as_bytes())?;
        }
        Ok(())
    }
}

fn read_stamp(row: &rusqlite::Row<'_>) -> Result<Stamp, rusqlite::Error> {
    Ok(Stamp {
        version: row.get::<_, i64>(0)?.cast_unsigned(),
        sequence: row.get::<_, i64>(1)?.cast_unsigned(),
        time: Timestamp::from_millis(row.get(2)?),
    })
}

fn find_answer(tx: &Connection, key: &AnswerKey) -> Result<Option<Bytes>, StoreError> {
    let sql = "SELECT answer FROM conversations_answers WHERE key = ?1";
    let found: Option<Vec<u8>> = tx.prepare_cached(sql)?.query_row(params![key], |row| row.get(0)).optional()?;
    Ok(found.map(Bytes::from))
}

fn read_conversation(tx: &Connection, id: ConversationId) -> Result<Option<Conversation>, StoreError> {
    let sql = format!("SELECT version, {METADATA_COLUMNS} FROM conversations_heads WHERE id = ?1");
    let head = tx
        .prepare_cached(&sql)?
        .query_row(params![id.as_bytes()], |row| Ok((row.get::<_, i64>(0)?, MetadataRow::read(row, 1)?)))
        .optional()?;
    let Some((version, metadata)) = head else { return Ok(None) };
    let sql = format!(
        "SELECT domain, user, role, {} FROM conversations_members WHERE conversation = ?1",
        SettingsRow::COLUMNS
    );
    let mut statement = tx.prepare_cached(&sql)?;
    let mut rows = statement.query(params![id.as_bytes()])?;
    let mut members = Vec::new();
    while let Some(row) = rows.next()? {
        const CORRUPT: StoreError = StoreError::Corrupt("conversations_members");
        let domain: Domain = row.get_ref(0)?.as_str().ok().and_then(|text| text.parse().ok()).ok_or(CORRUPT)?;
        let role: RoleName = row.get_ref(2)?.as_str().ok().and_then(|text| text.parse().ok()).ok_or(CORRUPT)?;
        let user = Qualified::new(UserId::new(Uuid::from_bytes(row.get(1)?)), domain);
        members.push(StoredMember { member: Member { user, role }, settings: SettingsRow::read(row, 3)? });
    }
    members.sort_by(|a, b| a.member.user.cmp(&b.member.user));
    let metadata = metadata.into_metadata()?;
    Ok(Some(Conversation { id, metadata, members, version: version.cast_unsigned() }))
}

#[async_trait]
impl ConversationStore for SqliteConversations {
    async fn load(&self, ids: &[ConversationId]) -> Result<Vec<Arc<Conversation>>, StoreError> {
        let cache = &self.shared.cache;
        let mut found = Vec::with_capacity(ids.len());
        let mut missing = Vec::new();
        for id in ids {
            let generation = cache.generation(id);
            match cache.get(id) {
                Some(conversation) => found.push(conversation),
                None => missing.push((*id, generation)),
            }
        }
        for chunk in missing.chunks(READ_CHUNK) {
            let chunk = chunk.to_vec();
            let read = self.shared.db.read(move |tx| {
                let mut read = Vec::with_capacity(chunk.len());
                for (id, generation) in chunk {
                    if let Some(conversation) = read_conversation(tx, id)? {
                        read.push((generation, Arc::new(conversation)));
                    }
                }
                Ok(read)
            });
            for (generation, conversation) in read.await? {
                cache.insert(conversation.id, generation, conversation.clone());
                found.push(conversation);
            }
        }
        Ok(found)
    }

    async fn create(&self, new: Conversation, mark: Option<Mark>, effects: Effects) -> Result<Step, StoreError> {
        self.step(Some(new.id), move |tx, shared, outbox| {
            let time = shared.clock.now();
            if !MetadataRow::of(&new.metadata)?.insert(tx, new.id.as_bytes(), time.millis())? {
                return Ok(Outcome::Conflict);
            }
            if let Some(mark) = &mark
                && !put_mark(tx, mark)?
            {
                tx.prepare_cached("DELETE FROM conversations_heads WHERE id = ?1")?.execute([new.id.as_bytes()])?;
                return Ok(Outcome::Conflict);
            }
            for stored in &new.members {
                shared.add_member(tx, new.id, &stored.member)?;
            }
            shared.write_effects((tx, outbox), None, Stamp { time, version: 1, sequence: 1 }, effects)
        })
        .await
    }

    async fn change(
        &self,
        id: ConversationId,
        version: u64,
        edits: Vec<Edit>,
        mark: Option<Mark>,
        key: Option<AnswerKey>,
        effects: Effects,
    ) -> Result<Step, StoreError> {
        self.step(Some(id), move |tx, shared, outbox| {
            if let Some(answer) = key.as_ref().map(|key| find_answer(tx, key)).transpose()?.flatten() {
                return Ok(Outcome::Answered(answer));
            }
            let found: Option<i64> = tx
                .prepare_cached("SELECT version FROM conversations_heads WHERE id = ?1")?
                .query_row([id.as_bytes()], |row| row.get(0))
                .optional()?;
            if found != Some(version.cast_signed()) {
                return Ok(Outcome::Conflict);
            }
            if let Some(mark) = &mark
                && !put_mark(tx, mark)?
            {
                return Ok(Outcome::Conflict);
            }
            // With one reading of the clock the stamps of the edits follow each other without a gap.
            let now = shared.clock.now();
            let mut first = None;
            for (version, edit) in (version..).zip(&edits) {
                // An error undoes the step; there is none, since the version was the expected one.
                let stamp = Shared::advance(tx, id, version, 1, now)?.ok_or(CORRUPT_HEAD)?;
                shared.write_edit(tx, id, edit)?;
                first.get_or_insert(stamp);
            }
            let stamp = first.ok_or(CORRUPT_HEAD)?;
            shared.write_effects((tx, outbox), key, stamp, effects)
        })
        .await
    }

    async fn record_message(
        &self,
        id: ConversationId,
        version: u64,
        key: Option<AnswerKey>,
        effects: Effects,
    ) -> Result<Step, StoreError> {
        let step = self
            .step(None, move |tx, shared, outbox| {
                if let Some(answer) = key.as_ref().map(|key| find_answer(tx, key)).transpose()?.flatten() {
                    return Ok(Outcome::Answered(answer));
                }
                let now = shared.clock.now();
                let Some(stamp) = Shared::advance(tx, id, version, 0, now)? else { return Ok(Outcome::Conflict) };
                shared.write_effects((tx, outbox), key, stamp, effects)
            })
            .await?;
        if matches!(step, Step::Conflict) {
            self.shared.cache.forget(&id);
        }
        Ok(step)
    }

    async fn update_settings(
        &self,
        id: ConversationId,
        user: UserId,
        update: SettingsUpdate,
        effects: Effects,
    ) -> Result<Option<Committed>, StoreError> {
        let step = self
            .step(Some(id), move |tx, shared, outbox| {
                let key = (id.as_bytes(), shared.domain.as_str(), user.as_bytes());
                let sql = format!(
                    "SELECT {} FROM conversations_members WHERE conversation = ?1 AND domain = ?2 AND user = ?3",
                    SettingsRow::COLUMNS
                );
                let found = tx.prepare_cached(&sql)?.query_row(key, |row| SettingsRow::read(row, 0)).optional()?;
                let Some(found) = found else { return Ok(Outcome::Conflict) };
                let columns = ["conversation", "domain", "user"];
                SettingsRow::write(tx, "conversations_members", columns, &update.apply(found), key)?;
                let sql = "UPDATE conversations_heads SET last_sequence = last_sequence + 1, \
                           last_time = max(?2, last_time + 1) WHERE id = ?1 RETURNING version, last_sequence, last_time";
                let now = shared.clock.now().millis();
                let stamp = tx.prepare_cached(sql)?.query_row(params![id.as_bytes(), now], read_stamp)?;
                shared.write_effects((tx, outbox), None, stamp, effects)
            })
            .await?;
        Ok(match step {
            Step::Done(committed) => Some(committed),
            Step::Answered(_) | Step::Conflict => None,
        })
    }

    async fn answer(&self, key: AnswerKey) -> Result<Option<Bytes>, StoreError> {
        self.shared.db.read(move |tx| find_answer(tx, &key)).await
    }

    async fn sweep_answers(&self, before: Timestamp) -> Result<u64, StoreError> {
        let sql = "DELETE FROM conversations_answers WHERE key IN \
                   (SELECT key FROM conversations_answers WHERE created < ?1 ORDER BY created LIMIT ?2)";
        let step = move |tx: &Connection| Ok(tx.prepare_cached(sql)?.execute(params![before.millis(), SWEEP_STEP])?);
        self.shared.db.write_in_turns(step).await
    }

    async fn is_in_elsewhere(&self, user: UserId, id: ConversationId) -> Result<bool, StoreError> {
        let domain = self.shared.domain.clone();
        let sql = "SELECT 1 FROM conversations_by_user WHERE user = ?1 AND domain <> ?2 AND conversation = ?3";
        let key = move |tx: &Connection| {
            Ok(tx.prepare_cached(sql)?.exists(params![user.as_bytes(), domain.as_str(), id.as_bytes()])?)
        };
        self.shared.db.read(key).await
    }

    async fn list_own(
        &self,
        user: UserId,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError> {
        let domain = self.shared.domain.clone();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let sql = "SELECT conversation FROM conversations_by_user WHERE user = ?1 AND domain = ?2 AND conversation > ?3 \
                   ORDER BY conversation LIMIT ?4";
        let read = self.shared.db.read(move |tx| {
            let after: &[u8] = after.as_ref().map_or(&[], |id| id.as_bytes().as_slice());
            let mut statement = tx.prepare_cached(sql)?;
            let rows = statement.query_map(params![user.as_bytes(), domain.as_str(), after, limit], |row| {
                Ok(ConversationId::new(Uuid::from_bytes(row.get(0)?)))
            })?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        });
        read.await
    }

    async fn list_with_backend(
        &self,
        domain: &Domain,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError> {
        let domain = domain.clone();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let sql = "SELECT DISTINCT conversation FROM conversations_members WHERE domain = ?1 AND conversation > ?2 \
                   ORDER BY conversation LIMIT ?3";
        let read = self.shared.db.read(move |tx| {
            let after: &[u8] = after.as_ref().map_or(&[], |id| id.as_bytes().as_slice());
            let mut statement = tx.prepare_cached(sql)?;
            let rows = statement.query_map(params![domain.as_str(), after, limit], |row| {
                Ok(ConversationId::new(Uuid::from_bytes(row.get(0)?)))
            })?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        });
        read.await
    }

    async fn list_remote(
        &self,
        user: UserId,
        after: Option<Qualified<ConversationId>>,
        limit: usize,
    ) -> Result<Vec<Qualified<ConversationId>>, StoreError> {
        let domain = self.shared.domain.clone();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let sql = "SELECT domain, conversation FROM conversations_by_user WHERE user = ?1 AND domain <> ?2 \
                   AND (domain, conversation) > (?3, ?4) ORDER BY domain, conversation LIMIT ?5";
        let read = self.shared.db.read(move |tx| {
            let last_domain = after.as_ref().map_or("", |after| after.domain.as_str());
            let last_id: &[u8] = after.as_ref().map_or(&[], |after| after.id.as_bytes().as_slice());
            let mut statement = tx.prepare_cached(sql)?;
            let mut rows = statement.query(params![user.as_bytes(), domain.as_str(), last_domain, last_id, limit])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let text: String = row.get(0)?;
                let domain = text.parse().map_err(|_| StoreError::Corrupt("conversations_by_user"))?;
                found.push(Qualified::new(ConversationId::new(Uuid::from_bytes(row.get(1)?)), domain));
            }
            Ok(found)
        });
        read.await
    }

    async fn mark(&self, conversation: ConversationId, user: UserId) -> Result<Option<Mark>, StoreError> {
        let sql = "SELECT time, relation FROM conversations_relations WHERE conversation = ?1 AND user = ?2";
        let read = self.shared.db.read(move |tx| {
            let found = tx
                .prepare_cached(sql)?
                .query_row(params![conversation.as_bytes(), user.as_bytes()], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, i32>(1)?))
                })
                .optional()?;
            let Some((time, relation)) = found else { return Ok(None) };
            let relation = aldis_proto::internal::v1::Relation::try_from(relation)
                .ok()
                .and_then(|relation| aldis_proto::convert::from_relation(relation).ok())
                .ok_or(StoreError::Corrupt("conversations_relations"))?;
            Ok(Some(Mark { conversation, user, time: Timestamp::from_millis(time), relation }))
        });
        read.await
    }

    async fn set_mark(&self, mark: Mark) -> Result<(), StoreError> {
        self.shared.db.write(move |tx| put_mark(tx, &mark).map(|_| ())).await
    }
}
