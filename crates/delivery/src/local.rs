//! Relays to our own services: in order of commit, again until it works.

use std::time::Duration;

use aldis_proto::{
    channel::Channel,
    internal::v1::{
        ApplyRelationRequest, Notification, OpenConsumerRequest, PushRequest, RemoveClientRequest,
        RemoveUserQueuesRequest, RemoveUserRequest, memberships_client::MembershipsClient, push_client::PushClient,
    },
};
use aldis_storage::StoreError;
use aldis_types::EventId;
use futures::future::{BoxFuture, FutureExt};
use prost::Message;
use tonic::{Code, Request, Status};

use crate::{
    derive_event_id, event_id,
    fresh::Reader,
    outbox::{LocalQueue, LocalService, Outbox},
    window::{Backoff, MAX_BYTES, MAX_ROWS, Row},
};

/// How long one call to our own service may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// Most notifications in one call.
const MAX_NOTIFICATIONS: usize = 4096;
const MAX_MESSAGE_BYTES: usize = 256 * 1024 * 1024;

/// Kinds of rows for our own services.
pub(crate) const PUSH: u32 = 0;
pub(crate) const APPLY_RELATION: u32 = 1;
pub(crate) const REMOVE_USER: u32 = 2;
pub(crate) const REMOVE_CLIENT: u32 = 3;
/// The body is an `OpenConsumerRequest`.
pub(crate) const OPEN_CONSUMER: u32 = 4;
/// The body is a `RemoveUserQueuesRequest`.
pub(crate) const REMOVE_QUEUES: u32 = 5;

/// Why a row was not delivered.
enum Failure {
    /// Ask again later.
    Passing(Status),
    /// It will never work.
    Final(Status),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::InvalidArgument | Code::Unimplemented | Code::OutOfRange => Self::Final(status),
            _ => Self::Passing(status),
        }
    }
}

fn row_event_id(outbox: &Outbox, service: LocalService, row: &Row) -> EventId {
    let shared = &outbox.shared;
    let component = format!("{}/{}", shared.component.as_str(), service.key());
    event_id(&shared.domain, &shared.services_incarnation, &component, &row.lane, row.id.cast_unsigned())
}

fn request<M>(message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

/// Reads the next rows, waiting for some.
async fn next(reader: &mut Reader<'_>, queue: &LocalQueue) -> Vec<Row> {
    let mut backoff = Backoff::new();
    loop {
        match reader.next(MAX_ROWS, MAX_BYTES).await {
            Ok(rows) if rows.is_empty() => queue.tail.wake.notified().await,
            Ok(rows) => return rows,
            // The process is about to end.
            Err(StoreError::Closed) => std::future::pending().await,
            Err(error) => {
                tracing::error!(%error, "reading the outbox failed");
                backoff.pause().await;
            }
        }
    }
}

/// Removes what was delivered and tells who waits for it.
fn done(outbox: &Outbox, queue: &LocalQueue, rows: &[Row]) {
    if let Some(last) = rows.last() {
        queue.delivered(last.id);
    }
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    outbox.remove(&ids);
}

/// Rows go out in runs: pushes that follow each other as one call.
pub(crate) async fn relay_notifications(outbox: Outbox, channel: Channel) {
    const SERVICE: LocalService = LocalService::Notifications;
    let mut client = PushClient::new(channel)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    let Some(queue) = outbox.local_queue(SERVICE) else { return };
    let mut reader = Reader::new(&outbox, &queue.tail, SERVICE.key().into());
    loop {
        let rows = next(&mut reader, queue).await;
        let mut rest = rows.as_slice();
        while !rest.is_empty() {
            let (count, notifications) = run_of_pushes(&outbox, rest);
            let run = count.max(1);
            if count > 0 {
                push_run(&outbox, &mut client, &rest[..run], notifications).await;
            } else {
                let row = rest[0].clone();
                let client = client.clone();
                deliver_one(&outbox, &rest[0], || tell_other(client.clone(), row.clone()).boxed()).await;
            }
            done(&outbox, queue, &rest[..run]);
            rest = &rest[run..];
        }
    }
}

/// The rows at the start that are pushes, and their notifications with event ids.
fn run_of_pushes(outbox: &Outbox, rows: &[Row]) -> (usize, Vec<Notification>) {
    let mut notifications = Vec::with_capacity(rows.len());
    let mut count = 0;
    for row in rows.iter().take_while(|row| row.kind == PUSH) {
        let pushed = notifications_of(outbox, row);
        if count > 0 && notifications.len() + pushed.len() > MAX_NOTIFICATIONS {
            break;
        }
        notifications.extend(pushed);
        count += 1;
    }
    (count, notifications)
}

fn notifications_of(outbox: &Outbox, row: &Row) -> Vec<Notification> {
    let mut request = match PushRequest::decode(row.body.clone()) {
        Ok(request) => request,
        Err(error) => {
            tracing::error!(%error, "a row of the outbox cannot be read");
            PushRequest::default()
        }
    };
    let id = row_event_id(outbox, LocalService::Notifications, row);
    for (index, notification) in (0..).zip(&mut request.notifications) {
        // One that is there already is the same from several rows, so that a client gets it once.
        if notification.event_id.is_empty() {
            notification.event_id = aldis_proto::convert::bytes_of(derive_event_id(id, index));
        }
        if notification.traceparent.is_none() {
            notification.traceparent.clone_from(&row.trace);
        }
    }
    request.notifications
}

/// Pushes a run with one call; when it is refused, row by row, so that one bad row does not cost the others.
async fn push_run(outbox: &Outbox, client: &mut PushClient<Channel>, rows: &[Row], notifications: Vec<Notification>) {
    let mut backoff = Backoff::new();
    loop {
        let message = PushRequest { notifications: notifications.clone() };
        match client.push(request(message)).await.map_err(Failure::from) {
            Ok(_) => return,
            Err(Failure::Final(_)) => break,
            Err(Failure::Passing(status)) => {
                tracing::warn!(grpc.code = ?status.code(), "pushing notifications failed, trying again");
                backoff.pause().await;
            }
        }
    }
    for row in rows {
        let message = PushRequest { notifications: notifications_of(outbox, row) };
        deliver_one(outbox, row, || push_one(client.clone(), message.clone()).boxed()).await;
    }
}

async fn push_one(mut client: PushClient<Channel>, message: PushRequest) -> Result<(), Failure> {
    client.push(request(message)).await?;
    Ok(())
}

async fn tell_other(mut client: PushClient<Channel>, row: Row) -> Result<(), Failure> {
    match row.kind {
        REMOVE_CLIENT => {
            client.remove_client(request(decode::<RemoveClientRequest>(&row)?)).await?;
        }
        OPEN_CONSUMER => {
            client.open_consumer(request(decode::<OpenConsumerRequest>(&row)?)).await?;
        }
        REMOVE_QUEUES => {
            client.remove_user(request(decode::<RemoveUserQueuesRequest>(&row)?)).await?;
        }
        _ => return Err(Failure::Final(Status::invalid_argument("unknown kind"))),
    }
    Ok(())
}

fn decode<M: Message + Default>(row: &Row) -> Result<M, Failure> {
    M::decode(row.body.clone()).map_err(|error| Failure::Final(Status::invalid_argument(error.to_string())))
}

/// Delivers a row, again until it works or is refused for good.
async fn deliver_one(outbox: &Outbox, row: &Row, deliver: impl Fn() -> BoxFuture<'static, Result<(), Failure>>) {
    let mut backoff = Backoff::new();
    loop {
        match deliver().await {
            Ok(()) => return,
            Err(Failure::Final(status)) => {
                tracing::error!(row.kind, grpc.code = ?status.code(), "a row was refused for good by our own service");
                match outbox.bury(row.id, status.message()).await {
                    Ok(()) => return,
                    Err(error) => tracing::error!(%error, "writing a dead letter failed"),
                }
            }
            Err(Failure::Passing(status)) => {
                tracing::warn!(row.kind, grpc.code = ?status.code(), "telling our own service failed, trying again");
            }
        }
        backoff.pause().await;
    }
}

/// Row by row: each changes state.
pub(crate) async fn relay_conversations(outbox: Outbox, channel: Channel) {
    const SERVICE: LocalService = LocalService::Conversations;
    let client = MembershipsClient::new(channel);
    let Some(queue) = outbox.local_queue(SERVICE) else { return };
    let mut reader = Reader::new(&outbox, &queue.tail, SERVICE.key().into());
    loop {
        let rows = next(&mut reader, queue).await;
        for row in &rows {
            let id = row_event_id(&outbox, SERVICE, row);
            deliver_one(&outbox, row, || apply(client.clone(), row.clone(), id).boxed()).await;
            done(&outbox, queue, std::slice::from_ref(row));
        }
    }
}

async fn apply(mut client: MembershipsClient<Channel>, row: Row, id: EventId) -> Result<(), Failure> {
    let event_id = aldis_proto::convert::bytes_of(id);
    match row.kind {
        APPLY_RELATION => {
            let message = ApplyRelationRequest { event_id, ..decode(&row)? };
            client.apply_relation(request(message)).await?;
        }
        REMOVE_USER => {
            let message = RemoveUserRequest { event_id, ..decode(&row)? };
            client.remove_user(request(message)).await?;
        }
        _ => return Err(Failure::Final(Status::invalid_argument("unknown kind"))),
    }
    Ok(())
}
