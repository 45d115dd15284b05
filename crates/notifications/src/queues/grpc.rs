//! What our own services ask.

use std::sync::Arc;

use aldis_api::status;
use aldis_proto::{
    convert::{self, InvalidWire},
    internal::v1::{
        self as pb, OpenConsumerRequest, OpenConsumerResponse, PushRequest, PushResponse, RemoveClientRequest,
        RemoveClientResponse, RemoveUserQueuesRequest, RemoveUserQueuesResponse, push_server::Push,
    },
};
use aldis_types::{ClientId, ConnId};
use bytes::Bytes;
use tonic::{Request, Response, Status};

use super::{Delivery, MISSED, QueueError, Queues};

/// Most notifications of one call.
const MAX_NOTIFICATIONS: usize = 4096;
/// Most queues that one call writes to.
const MAX_DELIVERIES: usize = 65_536;
/// Longest trace context that is passed on.
const MAX_TRACEPARENT_BYTES: usize = 64;

/// `internal.v1.Push`.
pub(crate) struct PushGrpc {
    pub queues: Queues,
}

#[tonic::async_trait]
impl Push for PushGrpc {
    #[tracing::instrument(name = "grpc.queues.push", skip_all, fields(deliveries))]
    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let deliveries = decode(request.into_inner())?;
        tracing::Span::current().record("deliveries", deliveries.len());
        self.queues.push(deliveries).await.map_err(|error| status(&error))?;
        Ok(Response::new(PushResponse {}))
    }

    #[tracing::instrument(name = "grpc.queues.open_consumer", skip_all)]
    async fn open_consumer(
        &self,
        request: Request<OpenConsumerRequest>,
    ) -> Result<Response<OpenConsumerResponse>, Status> {
        let request = request.into_inner();
        let (user, client) = (convert::user_id(&request.user)?, client(request.client)?);
        self.queues.open_consumer(user, client).await.map_err(|error| status(&error))?;
        Ok(Response::new(OpenConsumerResponse {}))
    }

    #[tracing::instrument(name = "grpc.queues.remove_client", skip_all)]
    async fn remove_client(
        &self,
        request: Request<RemoveClientRequest>,
    ) -> Result<Response<RemoveClientResponse>, Status> {
        let request = request.into_inner();
        let (user, client) = (convert::user_id(&request.user)?, client(request.client)?);
        self.queues.remove_client(user, client).await.map_err(|error| status(&error))?;
        Ok(Response::new(RemoveClientResponse {}))
    }

    #[tracing::instrument(name = "grpc.queues.remove_user", skip_all)]
    async fn remove_user(
        &self,
        request: Request<RemoveUserQueuesRequest>,
    ) -> Result<Response<RemoveUserQueuesResponse>, Status> {
        let user = convert::user_id(&request.into_inner().user)?;
        self.queues.remove_user(user).await.map_err(|error| status(&error))?;
        Ok(Response::new(RemoveUserQueuesResponse {}))
    }
}

fn too_many(what: &'static str) -> Status {
    status(&QueueError::TooMany(what))
}

/// 0 stands for "all clients" in a store and must not be taken for a client.
fn client(id: u64) -> Result<ClientId, InvalidWire> {
    if id == 0 { Err(InvalidWire("client")) } else { Ok(ClientId(id)) }
}

fn decode(request: PushRequest) -> Result<Vec<Delivery>, Status> {
    if request.notifications.len() > MAX_NOTIFICATIONS {
        return Err(too_many("notifications"));
    }
    let mut deliveries = Vec::with_capacity(request.notifications.len());
    for notification in request.notifications {
        decode_one(notification, &mut deliveries)?;
    }
    Ok(deliveries)
}

fn decode_one(notification: pb::Notification, deliveries: &mut Vec<Delivery>) -> Result<(), Status> {
    let event_id = convert::event_id(&notification.event_id)?;
    let event = if notification.missed { Bytes::from_static(MISSED) } else { notification.event };
    // The event is not read, but it must not be able to break the JSON around it by being empty.
    if !(event.starts_with(b"{") && event.ends_with(b"}")) {
        return Err(InvalidWire("event").into());
    }
    let origin = match &notification.origin {
        Some(session) => Some((convert::user_id(&session.user)?, ConnId(session.connection))),
        None => None,
    };
    let traceparent: Option<Arc<str>> =
        notification.traceparent.as_deref().filter(|text| text.len() <= MAX_TRACEPARENT_BYTES).map(Into::into);
    for target in &notification.targets {
        let user = convert::user_id(&target.user)?;
        if deliveries.len() + target.clients.len().max(1) > MAX_DELIVERIES {
            return Err(too_many("targets"));
        }
        let delivery = |client| Delivery {
            user,
            client,
            event_id,
            event: event.clone(),
            missed: notification.missed,
            transient: notification.transient,
            origin,
            native_push: notification.native_push,
            high_priority: notification.high_priority,
            traceparent: traceparent.clone(),
        };
        if notification.missed && !target.clients.is_empty() {
            return Err(InvalidWire("missed").into());
        }
        if target.clients.is_empty() {
            deliveries.push(delivery(None));
        }
        for id in &target.clients {
            deliveries.push(delivery(Some(client(*id)?)));
        }
    }
    Ok(())
}
