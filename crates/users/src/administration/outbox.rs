//! `aldis.internal.v1.OutboxAdmin`: changes to what waits for other backends, in both outboxes, with a record of them.

use std::time::Duration;

use aldis_api::status;
use aldis_proto::{
    channel::Channel,
    internal::v1::{
        ChangeOutboxRequest, ChangeOutboxResponse,
        change_outbox_request::Change,
        conversations_outbox_client::ConversationsOutboxClient,
        outbox_admin_server::{OutboxAdmin, OutboxAdminServer},
        users_outbox_server::UsersOutbox as _,
    },
};
use tonic::{Request, Response, Status};

use super::Administration;
use crate::audit::{Administrator, AuditEntry};

/// How long the conversations service may take.
const DEADLINE: Duration = Duration::from_secs(15);
/// Longest name of a peer.
const MAX_PEER_BYTES: usize = 255;

/// Both outboxes for the administrator.
pub(crate) struct OutboxAdminGrpc {
    pub(crate) administration: Administration,
    pub(crate) users: aldis_delivery::OutboxServer,
    pub(crate) conversations: Channel,
}

impl OutboxAdminGrpc {
    pub(crate) fn server(self) -> OutboxAdminServer<Self> {
        OutboxAdminServer::new(self)
    }

    async fn in_conversations(&self, request: ChangeOutboxRequest) -> Result<ChangeOutboxResponse, Status> {
        let mut client = ConversationsOutboxClient::new(self.conversations.clone());
        let answer = tokio::time::timeout(DEADLINE, client.change_outbox(request)).await;
        match answer {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) if status.message().is_empty() => {
                Err(Status::unavailable("the conversations service does not answer; nothing of its own was changed"))
            }
            Ok(Err(status)) => Err(Status::new(status.code(), status.message())),
            Err(_) => Err(Status::deadline_exceeded("the conversations service takes too long; it may still do it")),
        }
    }
}

fn action(change: Option<&Change>) -> Result<&'static str, Status> {
    match change {
        Some(Change::Pause(_)) => Ok("outbox-paused"),
        Some(Change::Resume(_)) => Ok("outbox-resumed"),
        Some(Change::Drop(_)) => Ok("outbox-dropped"),
        Some(Change::Replay(_)) => Ok("outbox-replayed"),
        None => Err(Status::invalid_argument("no change is named")),
    }
}

fn described(entry: AuditEntry, users: &ChangeOutboxResponse, conversations: &ChangeOutboxResponse) -> AuditEntry {
    let skipped = users.skipped + conversations.skipped;
    entry.detail(format!("users {}, conversations {}, skipped {skipped}", users.rows, conversations.rows))
}

#[tonic::async_trait]
impl OutboxAdmin for OutboxAdminGrpc {
    #[tracing::instrument(name = "grpc.administration.change_outboxes", skip_all)]
    async fn change_outboxes(
        &self,
        request: Request<ChangeOutboxRequest>,
    ) -> Result<Response<ChangeOutboxResponse>, Status> {
        let by = Administrator::of(&request);
        let request = request.into_inner();
        let action = action(request.change.as_ref())?;
        if request.peer.is_empty() || request.peer.len() > MAX_PEER_BYTES {
            return Err(Status::invalid_argument("no backend is named"));
        }
        let entry = by.does(action, &request.peer);
        // In whatever state a crash leaves the two outboxes, it is known who meant to do what.
        self.administration.begins(entry.clone()).await.map_err(|error| status(&error))?;
        // First the one that may not answer: what is refused is done in neither.
        let conversations = match self.in_conversations(request.clone()).await {
            Ok(done) => done,
            Err(status) => {
                self.administration.refused(entry, "not-done").await;
                return Err(status);
            }
        };
        let users = match self.users.change_outbox(Request::new(request)).await {
            Ok(done) => done.into_inner(),
            Err(status) => {
                let entry = described(entry, &ChangeOutboxResponse::default(), &conversations);
                self.administration.refused(entry, "half-done").await;
                return Err(status);
            }
        };
        self.administration.done_with(described(entry, &users, &conversations)).await;
        let rows = users.rows + conversations.rows;
        Ok(Response::new(ChangeOutboxResponse { rows, skipped: users.skipped + conversations.skipped }))
    }
}
