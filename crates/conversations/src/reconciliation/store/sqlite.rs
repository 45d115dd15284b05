//! The embedded engine.

use std::collections::BTreeMap;

use aldis_delivery::{LaneEnd, Outbox};
use aldis_storage::{Db, StoreError};
use aldis_types::{ConversationId, ConversationType, Domain, Qualified, UserId};
use async_trait::async_trait;
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::{Page, ReconciliationStore, Side};
use crate::reconciliation::digest::{BUCKETS, Digest, Digester, Users};

/// Buckets whose digests are computed in one go.
const BUCKETS_PER_READ: usize = 16;
/// Stands after every id: ids have 16 bytes.
const LAST: [u8; 17] = [0xff; 17];

/// Reads the tables of conversations. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SqliteReconciliation {
    db: Db,
    outbox: Outbox,
}

impl SqliteReconciliation {
    /// Over a store whose tables were migrated.
    pub(crate) const fn new(db: Db, outbox: Outbox) -> Self {
        Self { db, outbox }
    }
}

impl Side {
    /// Pairs of conversation and user between two ids, in order.
    fn pairs(self) -> String {
        match self {
            Self::Theirs => format!(
                "SELECT m.conversation, m.user FROM conversations_members AS m JOIN conversations_heads AS h \
                 ON h.id = m.conversation WHERE m.domain = ?1 AND m.conversation >= ?2 AND m.conversation < ?3 \
                 AND h.kind = {} ORDER BY m.conversation, m.user",
                ConversationType::Regular.number()
            ),
            Self::Ours => "SELECT conversation, user FROM conversations_remote AS m WHERE domain = ?1 \
                 AND conversation >= ?2 AND conversation < ?3 AND NOT EXISTS \
                 (SELECT 1 FROM conversations_relations AS r WHERE r.conversation = m.conversation) \
                 ORDER BY conversation, user"
                .to_owned(),
        }
    }
}

/// The first id of a bucket; what stands after all ids for the one after the last.
fn start_of(bucket: usize) -> Vec<u8> {
    match u8::try_from(bucket) {
        Ok(first) => {
            let mut id = [0; 16];
            id[0] = first;
            id.to_vec()
        }
        Err(_) => LAST.to_vec(),
    }
}

fn digest(tx: &Connection, side: Side, domain: &Domain, bucket: usize) -> Result<(Digest, u64), StoreError> {
    let mut query = tx.prepare_cached(&side.pairs())?;
    let mut rows = query.query(params![domain.as_str(), start_of(bucket), start_of(bucket + 1)])?;
    let mut digester = Digester::default();
    while let Some(row) = rows.next()? {
        digester.add(&row.get(0)?, &row.get(1)?);
    }
    Ok(digester.finish())
}

/// Conversations between two ids with their users; at most `limit`, and whether there are more.
fn conversations(
    tx: &Connection,
    (side, domain): (Side, &Domain),
    from: &[u8],
    to: &[u8],
    limit: usize,
) -> Result<(Vec<(ConversationId, Users)>, bool), StoreError> {
    let mut query = tx.prepare_cached(&side.pairs())?;
    let mut rows = query.query(params![domain.as_str(), from, to])?;
    let mut found: Vec<(ConversationId, Users)> = Vec::new();
    while let Some(row) = rows.next()? {
        let conversation = ConversationId::new(Uuid::from_bytes(row.get(0)?));
        let user = UserId::new(Uuid::from_bytes(row.get(1)?));
        if found.last().is_none_or(|(last, _)| *last != conversation) {
            if found.len() == limit {
                return Ok((found, true));
            }
            found.push((conversation, Users::new()));
        }
        if let Some((_, users)) = found.last_mut() {
            users.insert(user);
        }
    }
    Ok((found, false))
}

impl SqliteReconciliation {
    /// Adds where the lanes end, as the same snapshot has it.
    fn page_of(
        outbox: &Outbox,
        tx: &Connection,
        domain: &Domain,
        (memberships, more): (Vec<(ConversationId, Users)>, bool),
    ) -> Result<Option<Page>, StoreError> {
        let lanes: Vec<_> = memberships.iter().map(|(conversation, _)| *conversation.as_bytes()).collect();
        let ends = outbox.lane_ends(tx, domain, &lanes)?;
        Ok(ends.map(|ends| Page { memberships, ends, more }))
    }
}

#[async_trait]
impl ReconciliationStore for SqliteReconciliation {
    async fn digests(&self, side: Side, domain: &Domain) -> Result<(Vec<Digest>, u64), StoreError> {
        let (mut digests, mut all) = (Vec::with_capacity(BUCKETS), 0);
        while digests.len() < BUCKETS {
            let (domain, first) = (domain.clone(), digests.len());
            let some = self.db.read(move |tx| {
                (first..first + BUCKETS_PER_READ).map(|bucket| digest(tx, side, &domain, bucket)).collect()
            });
            let some: Vec<(Digest, u64)> = some.await?;
            for (digest, count) in some {
                digests.push(digest);
                all += count;
            }
        }
        Ok((digests, all))
    }

    async fn page(
        &self,
        domain: &Domain,
        bucket: u8,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Option<Page>, StoreError> {
        let (domain, outbox) = (domain.clone(), self.outbox.clone());
        let page = self.db.read(move |connection| {
            let tx = connection.unchecked_transaction()?;
            let (mut from, to) = (start_of(bucket.into()), start_of(usize::from(bucket) + 1));
            if let Some(after) = after {
                // The shortest that stands after an id.
                from = [after.as_bytes().as_slice(), &[0]].concat();
            }
            let found = conversations(&tx, (Side::Theirs, &domain), &from, &to, limit)?;
            Self::page_of(&outbox, &tx, &domain, found)
        });
        page.await
    }

    async fn some(&self, domain: &Domain, asked: Vec<ConversationId>) -> Result<Option<Page>, StoreError> {
        let (domain, outbox) = (domain.clone(), self.outbox.clone());
        let page = self.db.read(move |connection| {
            let tx = connection.unchecked_transaction()?;
            let mut memberships = Vec::with_capacity(asked.len());
            for conversation in asked {
                let from = conversation.as_bytes().as_slice();
                let (found, _) = conversations(&tx, (Side::Theirs, &domain), from, &[from, &[0]].concat(), 1)?;
                let users = found.into_iter().next().map(|(_, users)| users).unwrap_or_default();
                memberships.push((conversation, users));
            }
            Self::page_of(&outbox, &tx, &domain, (memberships, false))
        });
        page.await
    }

    async fn places(
        &self,
        domain: &Domain,
        bucket: u8,
        limit: usize,
    ) -> Result<Option<BTreeMap<ConversationId, Users>>, StoreError> {
        let domain = domain.clone();
        let places = self.db.read(move |tx| {
            let (from, to) = (start_of(bucket.into()), start_of(usize::from(bucket) + 1));
            let (found, more) = conversations(tx, (Side::Ours, &domain), &from, &to, limit)?;
            Ok((!more).then(|| found.into_iter().collect()))
        });
        places.await
    }

    async fn told(&self, conversation: &Qualified<ConversationId>) -> Result<Option<LaneEnd>, StoreError> {
        let (domain, lane, outbox) = (conversation.domain.clone(), *conversation.id.as_bytes(), self.outbox.clone());
        let ends = self.db.read(move |connection| {
            let tx = connection.unchecked_transaction()?;
            outbox.lane_ends(&tx, &domain, &[lane])
        });
        let end = ends.await?.and_then(|ends| ends.ends.first().copied());
        Ok(end.filter(|end| end.delivered))
    }

    async fn owners(&self) -> Result<Vec<Domain>, StoreError> {
        // Hops from one domain to the next: there are few of them, and many rows.
        let sql = "WITH RECURSIVE owner (domain) AS (SELECT min(domain) FROM conversations_remote UNION ALL \
                   SELECT (SELECT min(domain) FROM conversations_remote WHERE domain > owner.domain) FROM owner \
                   WHERE owner.domain IS NOT NULL) SELECT domain FROM owner WHERE domain IS NOT NULL";
        let owners = self.db.read(move |tx| {
            let mut query = tx.prepare_cached(sql)?;
            Ok(query.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?)
        });
        Ok(owners.await?.iter().filter_map(|domain| domain.parse().ok()).collect())
    }
}
