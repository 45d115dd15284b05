//! What clients are told: events as JSON, in rows for the notifications service that are written with the change.

use std::sync::Arc;

use aldis_api::Session;
use aldis_delivery::{LocalService, Outgoing, Peer};
use aldis_proto::{
    convert::bytes_of,
    federation::v1::{UsersEvent, users_event::Change},
    internal::v1::{
        Notification, OpenConsumerRequest, PushRequest, RemoveClientRequest, RemoveUserQueuesRequest,
        RemoveUserRequest, Session as SessionMessage, Target,
    },
};
use aldis_types::{ClientId, Domain, EventId, Timestamp, UserId};
use bytes::Bytes;
use prost::Message;
use serde::Serialize;

/// What a change has to tell, once its outcome is known. A store may call it more than once and writes the last answer.
pub(crate) type Effects<T> = Arc<dyn Fn(&T) -> Vec<Outgoing> + Send + Sync>;

const PUSH: u32 = 0;
const REMOVE_USER: u32 = 2;
const REMOVE_CLIENT: u32 = 3;
const OPEN_CONSUMER: u32 = 4;
const REMOVE_QUEUES: u32 = 5;

/// Field numbers in `UsersEvent`.
pub(crate) const CONNECTION_RESCINDED: u32 = 10;
pub(crate) const USER_DELETED: u32 = 11;
pub(crate) const PROFILE_CHANGED: u32 = 12;

/// An event for every client of `users`, in the lane of `lane`. The socket of the session that caused it is skipped.
pub(crate) fn to_users(lane: UserId, users: &[UserId], event: &impl Serialize, origin: Option<&Session>) -> Outgoing {
    push(lane, users, event, origin, false)
}

/// As [`to_users`], and it may wake a mobile app.
pub(crate) fn alert_users(
    lane: UserId,
    users: &[UserId],
    event: &impl Serialize,
    origin: Option<&Session>,
) -> Outgoing {
    push(lane, users, event, origin, true)
}

/// An event of this id for every client of `users`; whoever gets several of the id takes the first alone.
pub(crate) fn once_to_users(lane: UserId, users: &[UserId], event: &impl Serialize, id: EventId) -> Outgoing {
    let mut notification = notification(users, event, None, false);
    notification.event_id = bytes_of(id);
    to_notifications(lane, PUSH, PushRequest { notifications: vec![notification] }.encode_to_vec())
}

/// Lets all clients of `users` know that they missed something; whoever gets several of the id takes the first alone.
pub(crate) fn missed(lane: UserId, users: &[UserId], id: EventId) -> Outgoing {
    let targets = users.iter().map(|user| Target { user: bytes_of(user), clients: Vec::new() }).collect();
    let notification = Notification { event_id: bytes_of(id), targets, missed: true, ..Notification::default() };
    to_notifications(lane, PUSH, PushRequest { notifications: vec![notification] }.encode_to_vec())
}

fn push(
    lane: UserId,
    users: &[UserId],
    event: &impl Serialize,
    origin: Option<&Session>,
    native_push: bool,
) -> Outgoing {
    let request = PushRequest { notifications: vec![notification(users, event, origin, native_push)] };
    to_notifications(lane, PUSH, request.encode_to_vec())
}

fn notification(users: &[UserId], event: &impl Serialize, origin: Option<&Session>, native_push: bool) -> Notification {
    Notification {
        event_id: Bytes::new(),
        targets: users.iter().map(|user| Target { user: bytes_of(user), clients: Vec::new() }).collect(),
        event: encode(event),
        transient: false,
        origin: origin.map(|session| SessionMessage { user: bytes_of(session.user), connection: session.connection.0 }),
        native_push,
        high_priority: false,
        traceparent: None,
        missed: false,
    }
}

/// Lets the queue and the sockets of a removed client be forgotten.
pub(crate) fn remove_client(user: UserId, client: ClientId) -> Outgoing {
    let request = RemoveClientRequest { user: bytes_of(user), client: client.0 };
    to_notifications(user, REMOVE_CLIENT, request.encode_to_vec())
}

/// Lets what comes for a client from now on wait until the client acknowledged it.
pub(crate) fn open_consumer(user: UserId, client: ClientId) -> Outgoing {
    let request = OpenConsumerRequest { user: bytes_of(user), client: client.0 };
    to_notifications(user, OPEN_CONSUMER, request.encode_to_vec())
}

/// Lets every queue and every socket of a user be forgotten.
pub(crate) fn remove_queues(user: UserId) -> Outgoing {
    let request = RemoveUserQueuesRequest { user: bytes_of(user) };
    to_notifications(user, REMOVE_QUEUES, request.encode_to_vec())
}

/// Lets a user be taken out of every conversation.
pub(crate) fn remove_user(user: UserId, time: Timestamp) -> Outgoing {
    let request = RemoveUserRequest { event_id: Bytes::new(), user: bytes_of(user), time: time.millis() };
    Outgoing {
        peer: Peer::Service(LocalService::Conversations),
        lane: *user.as_bytes(),
        kind: REMOVE_USER,
        body: request.encode_to_vec().into(),
    }
}

/// Tells another backend what a user of ours did.
pub(crate) fn to_backend(domain: &Domain, user: UserId, time: Timestamp, change: Change) -> Outgoing {
    let kind = match change {
        Change::ConnectionRescinded(_) => CONNECTION_RESCINDED,
        Change::UserDeleted(_) => USER_DELETED,
        Change::ProfileChanged(_) => PROFILE_CHANGED,
    };
    let event = UsersEvent { user: bytes_of(user), time: time.millis(), change: Some(change) };
    Outgoing { peer: Peer::Backend(domain.clone()), lane: *user.as_bytes(), kind, body: event.encode_to_vec().into() }
}

fn to_notifications(lane: UserId, kind: u32, body: Vec<u8>) -> Outgoing {
    Outgoing { peer: Peer::Service(LocalService::Notifications), lane: *lane.as_bytes(), kind, body: body.into() }
}

fn encode(event: &impl Serialize) -> Bytes {
    match serde_json::to_vec(event) {
        Ok(json) => json.into(),
        Err(error) => {
            tracing::error!(%error, "an event cannot be written as JSON");
            Bytes::new()
        }
    }
}
