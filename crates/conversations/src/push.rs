//! What goes to the notifications service: as outbox rows with a change, or at once for what is not stored.

use std::{collections::BTreeSet, time::Duration};

use aldis_delivery::{LocalService, Outgoing, Peer};
use aldis_proto::{
    channel::Channel,
    convert::bytes_of,
    internal::v1::{Notification, PushRequest, Session, Target, push_client::PushClient},
};
use aldis_types::{ClientId, ConnId, ConversationId, Domain, EventId, Timestamp, UserId};
use prost::Message;
use tonic::{Code, Request, Status};

use crate::events::Event;

/// Kind of an outbox row that is a `PushRequest`.
const PUSH_KIND: u32 = 0;
/// One row, or one call, holds at most so many notifications, and so many bytes unless it is a single one.
const MAX_NOTIFICATIONS: usize = 1000;
const MAX_BYTES: usize = 2 * 1024 * 1024;
/// How long notifications may take to store what is pushed.
const DEADLINE: Duration = Duration::from_secs(10);
/// As large as the largest message, in base64.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// The session that caused an event; its socket is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cause {
    /// A user of ours.
    pub user: UserId,
    /// His session.
    pub connection: ConnId,
}

/// A notification that lacks its time.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    /// Users of ours, with their clients; none: all of them.
    pub targets: Vec<(UserId, Vec<ClientId>)>,
    /// What they get.
    pub event: Event,
    /// Who needs no word of it.
    pub cause: Option<Cause>,
    /// May wake a mobile app.
    pub native_push: bool,
    /// With priority.
    pub high_priority: bool,
    /// For open sockets only.
    pub transient: bool,
}

impl Draft {
    /// For all clients of these users.
    pub(crate) fn to_users(users: impl IntoIterator<Item = UserId>, event: Event, cause: Option<Cause>) -> Self {
        let targets = users.into_iter().map(|user| (user, Vec::new())).collect();
        Self { targets, event, cause, native_push: true, high_priority: false, transient: false }
    }

    /// The notification with its time; without an event id.
    pub(crate) fn at(self, time: Timestamp) -> Notification {
        Notification {
            event_id: bytes::Bytes::new(),
            targets: self
                .targets
                .into_iter()
                .map(|(user, clients)| Target {
                    user: bytes_of(user),
                    clients: clients.into_iter().map(|client| client.0).collect(),
                })
                .collect(),
            event: self.event.at(time).into(),
            transient: self.transient,
            origin: self.cause.map(|cause| Session { user: bytes_of(cause.user), connection: cause.connection.0 }),
            native_push: self.native_push,
            high_priority: self.high_priority,
            traceparent: None,
            missed: false,
        }
    }
}

/// Splits notifications into requests within the limits, in order. Those without targets are left out.
fn requests(notifications: Vec<Notification>) -> Vec<PushRequest> {
    let mut requests: Vec<PushRequest> = Vec::new();
    let mut room = 0;
    for notification in notifications.into_iter().filter(|notification| !notification.targets.is_empty()) {
        let size = notification.event.len() + 64 * notification.targets.len();
        match requests.last_mut() {
            Some(request) if request.notifications.len() < MAX_NOTIFICATIONS && size <= room => {
                room -= size;
                request.notifications.push(notification);
            }
            _ => {
                room = MAX_BYTES.saturating_sub(size);
                requests.push(PushRequest { notifications: vec![notification] });
            }
        }
    }
    requests
}

/// The outbox row of a request.
fn row(lane: [u8; 16], request: &PushRequest) -> Outgoing {
    Outgoing {
        peer: Peer::Service(LocalService::Notifications),
        lane,
        kind: PUSH_KIND,
        body: request.encode_to_vec().into(),
    }
}

/// Outbox rows that push what a change of a conversation means for users of ours.
pub(crate) fn rows(lane: ConversationId, drafts: Vec<Draft>, time: Timestamp) -> Vec<Outgoing> {
    let requests = requests(drafts.into_iter().map(|draft| draft.at(time)).collect());
    requests.iter().map(|request| row(*lane.as_bytes(), request)).collect()
}

/// Rows that tell all clients of users that they missed something. A queue takes an event id once.
pub(crate) fn missed(lane: ConversationId, users: impl Iterator<Item = UserId>, id: EventId) -> Vec<Outgoing> {
    let targets: Vec<_> = users.map(|user| Target { user: bytes_of(user), clients: Vec::new() }).collect();
    let notification = Notification { event_id: bytes_of(id), targets, missed: true, ..Notification::default() };
    requests(vec![notification]).iter().map(|request| row(*lane.as_bytes(), request)).collect()
}

/// A row that tells users that federation with a backend ended. Whoever gets several of one id takes the first alone.
pub(crate) fn federation_ended(
    lane: ConversationId,
    users: &BTreeSet<UserId>,
    domain: &Domain,
    id: EventId,
) -> Outgoing {
    let notification = Notification {
        event_id: bytes_of(id),
        targets: users.iter().map(|user| Target { user: bytes_of(user), clients: Vec::new() }).collect(),
        event: federation_deleted(domain).into(),
        ..Notification::default()
    };
    row(*lane.as_bytes(), &PushRequest { notifications: vec![notification] })
}

/// `federation.delete` as clients get it.
fn federation_deleted(domain: &Domain) -> Vec<u8> {
    // A domain needs no escapes.
    format!("{{\"type\":\"federation.delete\",\"domain\":\"{domain}\"}}").into_bytes()
}

/// A row that pushes nothing: once it is delivered, everything before it was.
pub(crate) fn barrier() -> Outgoing {
    row([0; 16], &PushRequest::default())
}

/// The notifications service did not store what was pushed.
#[derive(Debug, thiserror::Error)]
#[error("the notifications service failed: {:?}", .0.code())]
pub(crate) struct PushError(Box<Status>);

impl PushError {
    /// Whether pushing the same again can only fail again.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self.0.code(), Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented)
    }
}

/// Pushes at once. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pushes(PushClient<Channel>);

impl Pushes {
    pub(crate) fn new(channel: Channel) -> Self {
        Self(PushClient::new(channel).max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// Pushes in order; durable when it returns, but for what is transient.
    pub(crate) async fn push(&self, notifications: Vec<Notification>) -> Result<(), PushError> {
        for request in requests(notifications) {
            let mut request = Request::new(request);
            request.set_timeout(DEADLINE);
            let mut client = self.0.clone();
            match tokio::time::timeout(DEADLINE, client.push(request)).await {
                Ok(Ok(_)) => {}
                Ok(Err(status)) => return Err(PushError(Box::new(status))),
                Err(_) => return Err(PushError(Box::new(Status::deadline_exceeded("no answer in time")))),
            }
        }
        Ok(())
    }
}
