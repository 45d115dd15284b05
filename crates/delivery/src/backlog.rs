//! What waits, for the administrator.

use std::collections::BTreeMap;

use aldis_proto::internal::v1::{
    ListBacklogRequest, ListBacklogResponse, PeerBacklog, conversations_outbox_server, users_outbox_server,
};
use aldis_storage::{Db, StoreError};
use rusqlite::{Connection, OptionalExtension};
use tonic::{Request, Response, Status};

use crate::{ending::domain_of, outbox::Component};

/// Answers what waits in the outbox of a component. Reads its tables only, so that it works without relays too.
#[derive(Clone)]
pub struct BacklogServer {
    component: Component,
    db: Db,
}

/// `aldis.internal.v1.UsersOutbox`.
pub fn users_outbox(db: Db) -> users_outbox_server::UsersOutboxServer<BacklogServer> {
    users_outbox_server::UsersOutboxServer::new(BacklogServer { component: Component::Users, db })
}

/// `aldis.internal.v1.ConversationsOutbox`.
pub fn conversations_outbox(db: Db) -> conversations_outbox_server::ConversationsOutboxServer<BacklogServer> {
    conversations_outbox_server::ConversationsOutboxServer::new(BacklogServer {
        component: Component::Conversations,
        db,
    })
}

/// A store that no service of this component has opened yet has no tables, and so no rows.
fn exists(tx: &Connection, table: &str) -> rusqlite::Result<bool> {
    let found: Option<i64> = tx
        .prepare_cached("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?")?
        .query_row([table], |row| row.get(0))
        .optional()?;
    Ok(found.is_some())
}

fn read(tx: &Connection, component: &str) -> Result<Vec<PeerBacklog>, StoreError> {
    if !exists(tx, &format!("{component}_outbox"))? {
        return Ok(Vec::new());
    }
    let mut found: BTreeMap<String, PeerBacklog> = BTreeMap::new();
    // Rows are numbered in the order in which they were written.
    let waiting = format!(
        "SELECT waiting.peer, waiting.rows, oldest.created FROM \
         (SELECT peer, count(*) AS rows, min(id) AS id FROM {component}_outbox GROUP BY peer) AS waiting \
         JOIN {component}_outbox AS oldest ON oldest.id = waiting.id"
    );
    let mut query = tx.prepare_cached(&waiting)?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (key, rows, oldest): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let peer = domain_of(&key).to_owned();
        let entry = found.entry(peer.clone()).or_insert_with(|| PeerBacklog { peer, oldest, ..PeerBacklog::default() });
        entry.rows += rows.cast_unsigned();
        entry.oldest = entry.oldest.min(oldest);
    }
    let mut query = tx.prepare_cached(&format!("SELECT peer, count(*) FROM {component}_outbox_dead GROUP BY peer"))?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (peer, dead): (String, i64) = (row.get(0)?, row.get(1)?);
        let entry = found.entry(peer.clone()).or_insert_with(|| PeerBacklog { peer, ..PeerBacklog::default() });
        entry.dead += dead.cast_unsigned();
    }
    Ok(found.into_values().collect())
}

impl BacklogServer {
    async fn list(&self) -> Result<Response<ListBacklogResponse>, Status> {
        let component = self.component.as_str();
        let peers = self.db.read(move |tx| read(tx, component)).await.map_err(|error| {
            tracing::error!(%error, "the backlog cannot be read");
            Status::unavailable("the store failed")
        })?;
        Ok(Response::new(ListBacklogResponse { peers }))
    }
}

#[tonic::async_trait]
impl users_outbox_server::UsersOutbox for BacklogServer {
    #[tracing::instrument(name = "grpc.outbox.list_backlog", skip_all)]
    async fn list_backlog(&self, _: Request<ListBacklogRequest>) -> Result<Response<ListBacklogResponse>, Status> {
        self.list().await
    }
}

#[tonic::async_trait]
impl conversations_outbox_server::ConversationsOutbox for BacklogServer {
    #[tracing::instrument(name = "grpc.outbox.list_backlog", skip_all)]
    async fn list_backlog(&self, _: Request<ListBacklogRequest>) -> Result<Response<ListBacklogResponse>, Status> {
        self.list().await
    }
}
