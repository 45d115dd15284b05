//! What an administrator does with what waits: `aldis.internal.v1.UsersOutbox` and `ConversationsOutbox`.

use aldis_proto::internal::v1::{
    ChangeOutboxRequest, ChangeOutboxResponse, ListBacklogRequest, ListBacklogResponse, ListLanesRequest,
    ListLanesResponse, ListRowsRequest, ListRowsResponse, change_outbox_request::Change, conversations_outbox_server,
    users_outbox_server,
};
use aldis_storage::{Db, StoreError};
use aldis_types::Domain;
use bytes::Bytes;
use rusqlite::{Connection, params};
use tonic::{Request, Response, Status};

use crate::{
    backlog::{self, Asked},
    bounds::Wanted,
    outbox::{Appended, Component, Outbox, Outgoing, Peer},
    window::Lane,
};

/// Sizes of a page.
const PAGE: std::ops::RangeInclusive<u32> = 1..=1000;
/// Rows of one step of a job.
const STEP: i64 = 32;

/// Tells what waits in the outbox of a component, and changes it.
#[derive(Clone)]
pub struct OutboxServer {
    component: Component,
    db: Db,
    access: Access,
}

/// What can be done from here.
#[derive(Clone)]
enum Access {
    /// Everything; the relays run here, so that it is known what they do.
    Running(Outbox),
    /// Everything; nobody else has the outbox open.
    AtRest(Outbox),
    /// The service may run elsewhere.
    Reading,
}

/// `aldis.internal.v1.UsersOutbox`.
pub fn users_outbox(outbox: Outbox) -> users_outbox_server::UsersOutboxServer<OutboxServer> {
    users_outbox_server::UsersOutboxServer::new(OutboxServer::of(outbox))
}

/// `aldis.internal.v1.ConversationsOutbox`.
pub fn conversations_outbox(outbox: Outbox) -> conversations_outbox_server::ConversationsOutboxServer<OutboxServer> {
    conversations_outbox_server::ConversationsOutboxServer::new(OutboxServer::of(outbox))
}

/// The same of a service that does not run, and whose lock this process holds: what is changed is found by its relays.
pub fn conversations_outbox_at_rest(
    outbox: Outbox,
) -> conversations_outbox_server::ConversationsOutboxServer<OutboxServer> {
    conversations_outbox_server::ConversationsOutboxServer::new(OutboxServer::with(outbox, Access::AtRest))
}

/// The same over the store of a service that may run elsewhere: changes nothing.
pub fn conversations_outbox_to_read(db: Db) -> conversations_outbox_server::ConversationsOutboxServer<OutboxServer> {
    let server = OutboxServer { component: Component::Conversations, db, access: Access::Reading };
    conversations_outbox_server::ConversationsOutboxServer::new(server)
}

fn store_failed(error: &StoreError) -> Status {
    tracing::error!(%error, "the outbox cannot be read or changed");
    Status::unavailable("the store failed")
}

fn page_size(limit: u32) -> Result<usize, Status> {
    if !PAGE.contains(&limit) {
        return Err(Status::invalid_argument("a page has 1 to 1000 entries"));
    }
    usize::try_from(limit).map_err(|_| Status::invalid_argument("a page has 1 to 1000 entries"))
}

fn lane_of(bytes: Option<&Bytes>) -> Result<Option<Lane>, Status> {
    let lane = bytes.map(|bytes| Lane::try_from(bytes.as_ref())).transpose();
    lane.map_err(|_| Status::invalid_argument("a lane has 16 bytes"))
}

fn backend(peer: &str) -> Result<Domain, Status> {
    peer.parse().map_err(|error| Status::invalid_argument(format!("{peer:?} is {error}")))
}

impl OutboxServer {
    /// Over an outbox whose relays run in this process.
    pub fn of(outbox: Outbox) -> Self {
        Self::with(outbox, Access::Running)
    }

    fn with(outbox: Outbox, access: impl FnOnce(Outbox) -> Access) -> Self {
        let shared = &outbox.shared;
        Self { component: shared.component, db: shared.db.clone(), access: access(outbox) }
    }

    async fn list(&self) -> Result<Response<ListBacklogResponse>, Status> {
        let component = self.component.as_str();
        let peers = self.db.read(move |tx| backlog::peers(tx, component, true)).await;
        let mut peers = peers.map_err(|error| store_failed(&error))?;
        if let Access::Running(outbox) = &self.access {
            for peer in &mut peers {
                let Ok(domain) = peer.peer.parse() else { continue };
                let condition = outbox.shared.conditions.get(&domain);
                peer.activity = String::from(condition.activity.name());
                if let Some((error, time)) = condition.last_error {
                    (peer.last_error, peer.last_error_time) = (error, time.millis());
                }
            }
        }
        Ok(Response::new(ListBacklogResponse { peers }))
    }

    async fn lanes(&self, request: ListLanesRequest) -> Result<Response<ListLanesResponse>, Status> {
        let limit = page_size(request.limit)?;
        let (component, peer) = (self.component.as_str(), request.peer.clone());
        let lanes = self.db.read(move |tx| backlog::lanes(tx, component, &peer, limit)).await;
        let mut lanes = lanes.map_err(|error| store_failed(&error))?;
        if let (Access::Running(outbox), Ok(domain)) = (&self.access, request.peer.parse::<Domain>()) {
            let condition = outbox.shared.conditions.get(&domain);
            for lane in &mut lanes {
                let held = Lane::try_from(lane.lane.as_ref()).ok().and_then(|id| condition.lanes.get(&id));
                lane.held = String::from(held.copied().unwrap_or_default());
            }
        }
        Ok(Response::new(ListLanesResponse { lanes }))
    }

    async fn rows(&self, request: ListRowsRequest) -> Result<Response<ListRowsResponse>, Status> {
        let asked = Asked {
            lane: lane_of(request.lane.as_ref())?,
            limit: page_size(request.limit)?,
            peer: request.peer,
            dead: request.dead,
            after: request.after,
        };
        let component = self.component.as_str();
        let rows = self.db.read(move |tx| backlog::rows(tx, component, &asked)).await;
        Ok(Response::new(ListRowsResponse { rows: rows.map_err(|error| store_failed(&error))? }))
    }

    async fn change(&self, request: ChangeOutboxRequest) -> Result<Response<ChangeOutboxResponse>, Status> {
        let (Access::Running(outbox) | Access::AtRest(outbox)) = &self.access else {
            return Err(Status::failed_precondition(
                "the conversations service runs without the users service; start that, or stop both",
            ));
        };
        let peer = request.peer;
        let changed = match request.change {
            Some(Change::Pause(_)) => outbox.set_paused(&backend(&peer)?, true).await.map(|()| (0, 0)),
            Some(Change::Resume(_)) => outbox.set_paused(&backend(&peer)?, false).await.map(|()| (0, 0)),
            Some(Change::Drop(wanted)) => {
                let lane = lane_of(wanted.lane.as_ref())?;
                if wanted.dead {
                    outbox.forget_dead(peer, lane).await.map(|rows| (rows, 0))
                } else {
                    outbox.drop_waiting(&backend(&peer)?, lane).await.map(|rows| (rows, 0))
                }
            }
            Some(Change::Replay(wanted)) => outbox.replay(backend(&peer)?, lane_of(wanted.lane.as_ref())?).await,
            None => return Err(Status::invalid_argument("no change is named")),
        };
        let (rows, skipped) = changed.map_err(|error| store_failed(&error))?;
        Ok(Response::new(ChangeOutboxResponse { rows, skipped }))
    }
}

impl Outbox {
    /// Drops what waits for a backend now, in one lane or in all; the backend is told. Says how many events.
    pub(crate) async fn drop_waiting(&self, domain: &Domain, lane: Option<Lane>) -> Result<u64, StoreError> {
        let mut dropped = 0;
        for key in self.keys_with_rows().await? {
            if crate::ending::domain_of(&key) != domain.as_str() {
                continue;
            }
            let (statement, of) = (self.shared.sql.newest.clone(), key.clone());
            let newest = self.shared.db.read(move |tx| Ok(tx.query_row(&statement, [of], |row| row.get(0))?));
            let newest: Option<i64> = newest.await?;
            dropped += self.drop_rows(Wanted { key, lane, last: newest.unwrap_or(0) }).await?;
        }
        Ok(dropped)
    }

    /// Forgets dead letters of a peer, in one lane or in all; says how many.
    pub(crate) async fn forget_dead(&self, peer: String, lane: Option<Lane>) -> Result<u64, StoreError> {
        let table = format!("{}_outbox_dead", self.shared.component.as_str());
        self.shared
            .db
            .write_in_turns(move |tx| {
                let mut delete = tx.prepare_cached(&format!(
                    "DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE peer = ?1 \
                 AND (?2 IS NULL OR lane = ?2) ORDER BY id LIMIT ?3)"
                ))?;
                Ok(delete.execute(params![peer, lane.as_ref().map(<[u8; 16]>::as_slice), STEP])?)
            })
            .await
    }

    /// Appends dead letters of a backend to the ends of their lanes again, messages alone; marks the lanes of the others.
    /// Says how many were appended and how many left.
    pub(crate) async fn replay(&self, domain: Domain, lane: Option<Lane>) -> Result<(u64, u64), StoreError> {
        let (mut replayed, mut skipped, mut cursor) = (0, 0, 0);
        loop {
            let (outbox, domain) = (self.clone(), domain.clone());
            let (appended, step) =
                self.shared.db.write(move |tx| outbox.replay_some(tx, &domain, lane, cursor)).await?;
            drop(self.committed(appended));
            replayed += step.appended;
            skipped += step.skipped;
            let Some(last) = step.last else { return Ok((replayed, skipped)) };
            cursor = last;
        }
    }

    fn replay_some(
        &self,
        tx: &Connection,
        domain: &Domain,
        lane: Option<Lane>,
        after: i64,
    ) -> Result<(Appended, Replayed), StoreError> {
        let c = self.shared.component.as_str();
        let now = self.shared.clock.now().millis();
        let mut dead = tx.prepare_cached(&format!(
            "SELECT id, lane, kind, body FROM {c}_outbox_dead WHERE peer = ?1 AND id > ?2 \
             AND (?3 IS NULL OR lane = ?3) ORDER BY id LIMIT ?4"
        ))?;
        let lane = lane.as_ref().map(<[u8; 16]>::as_slice);
        let letters = dead.query_map(params![domain.as_str(), after, lane, STEP], |row| {
            let body: Vec<u8> = row.get(3)?;
            Ok((row.get::<_, i64>(0)?, row.get::<_, Lane>(1)?, row.get::<_, u32>(2)?, body))
        })?;
        let mut step = Replayed::default();
        let mut outgoing = Vec::new();
        for letter in letters {
            let (id, lane, kind, body) = letter?;
            step.last = Some(id);
            if self.shared.component.is_state(kind) {
                let mark = params![domain.as_str(), true, lane.as_slice(), now, "refused"];
                tx.prepare_cached(&self.shared.sql.mark)?.execute(mark)?;
                step.skipped += 1;
                continue;
            }
            outgoing.push(Outgoing { peer: Peer::Backend(domain.clone()), lane, kind, body: body.into() });
            tx.prepare_cached(&format!("DELETE FROM {c}_outbox_dead WHERE id = ?"))?.execute([id])?;
            step.appended += 1;
        }
        Ok((self.append(tx, &outgoing)?, step))
    }
}

/// What one step did.
#[derive(Debug, Default)]
struct Replayed {
    appended: u64,
    skipped: u64,
    /// The last letter that was looked at; `None` when there was none.
    last: Option<i64>,
}

macro_rules! serve {
    ($service:path) => {
        #[tonic::async_trait]
        impl $service for OutboxServer {
            #[tracing::instrument(name = "grpc.outbox.list_backlog", skip_all)]
            async fn list_backlog(
                &self,
                _: Request<ListBacklogRequest>,
            ) -> Result<Response<ListBacklogResponse>, Status> {
                self.list().await
            }

            #[tracing::instrument(name = "grpc.outbox.list_lanes", skip_all)]
            async fn list_lanes(
                &self,
                request: Request<ListLanesRequest>,
            ) -> Result<Response<ListLanesResponse>, Status> {
                self.lanes(request.into_inner()).await
            }

            #[tracing::instrument(name = "grpc.outbox.list_rows", skip_all)]
            async fn list_rows(&self, request: Request<ListRowsRequest>) -> Result<Response<ListRowsResponse>, Status> {
                self.rows(request.into_inner()).await
            }

            #[tracing::instrument(name = "grpc.outbox.change", skip_all)]
            async fn change_outbox(
                &self,
                request: Request<ChangeOutboxRequest>,
            ) -> Result<Response<ChangeOutboxResponse>, Status> {
                self.change(request.into_inner()).await
            }
        }
    };
}

serve!(users_outbox_server::UsersOutbox);
serve!(conversations_outbox_server::ConversationsOutbox);
