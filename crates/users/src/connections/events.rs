//! What a change of a connection tells: the clients of both users, our conversations service, the other backend.

use std::collections::BTreeSet;

use aldis_api::Session;
use aldis_delivery::{LocalService, Outgoing, Peer};
use aldis_proto::{
    convert::{bytes_of, to_qualified, to_relation},
    federation::v1::{ConnectionRescinded, UsersEvent, users_event},
    internal::v1::ApplyRelationRequest,
};
use aldis_types::{
    ConversationId, Domain, EventId, Name, OneToOneProtocol, Qualified, Relation, Timestamp, UserId, one_to_one,
};
use prost::Message;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::store::{CancelledRows, ConnectionRow};
use crate::events::{alert_users, once_to_users, to_users};

const APPLY_RELATION: u32 = 1;
/// Field number of `connection_rescinded` in `UsersEvent`.
pub(crate) const CONNECTION_RESCINDED: u32 = 10;

/// A connection as its user sees it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Connection")]
pub(crate) struct ConnectionJson {
    from: UserId,
    to: UserId,
    qualified_to: Qualified<UserId>,
    status: Relation,
    last_update: Timestamp,
    conversation: ConversationId,
    qualified_conversation: Qualified<ConversationId>,
}

/// A connection as its user sees it.
pub(crate) fn connection_json(user: UserId, row: &ConnectionRow, domain: &Domain) -> ConnectionJson {
    let own = Qualified::new(user, domain.clone());
    let conversation = one_to_one(&own, &row.other, OneToOneProtocol::Proteus);
    ConnectionJson {
        from: user,
        to: row.other.id,
        qualified_to: row.other.clone(),
        status: row.status,
        last_update: row.time,
        conversation: conversation.id,
        qualified_conversation: conversation,
    }
}

fn connection_event(user: UserId, row: &ConnectionRow, domain: &Domain, actor: Option<&Name>) -> Value {
    let mut event = json!({ "type": "user.connection", "connection": connection_json(user, row, domain) });
    if let Some(name) = actor {
        event["user"] = json!({ "name": name });
    }
    event
}

fn apply_relation(user: UserId, row: &ConnectionRow, session: Option<&Session>, name: Option<&Name>) -> Outgoing {
    let request = ApplyRelationRequest {
        event_id: bytes::Bytes::new(),
        user: bytes_of(user),
        other: Some(to_qualified(&row.other)),
        relation: to_relation(Some(row.status)).into(),
        time: row.time.millis(),
        connection: session.map(|session| session.connection.0),
        name: name.map(|name| name.as_str().to_owned()),
    };
    Outgoing {
        peer: Peer::Service(LocalService::Conversations),
        lane: *user.as_bytes(),
        kind: APPLY_RELATION,
        body: request.encode_to_vec().into(),
    }
}

/// The effects of a change that the user made: the user's other sockets are told.
pub(crate) fn of_own_change(session: &Session, row: &ConnectionRow, domain: &Domain, name: &Name) -> [Outgoing; 2] {
    let user = session.user;
    let request = (row.status == Relation::Sent).then_some(name);
    [
        apply_relation(user, row, Some(session), request),
        to_users(user, &[user], &connection_event(user, row, domain, None), Some(session)),
    ]
}

/// The effects of a change that somebody else made: every client of the user is told, with the name of the other one
/// when a request arrives or is accepted.
pub(crate) fn of_others_change(
    user: UserId,
    row: &ConnectionRow,
    domain: &Domain,
    actor: Option<&Name>,
) -> [Outgoing; 2] {
    let actor = actor.filter(|_| matches!(row.status, Relation::Pending | Relation::Accepted));
    let event = connection_event(user, row, domain, actor);
    let push = match actor {
        Some(_) => alert_users(user, &[user], &event, None),
        None => to_users(user, &[user], &event, None),
    };
    [apply_relation(user, row, None, None), push]
}

/// Tells the other backend that a request, or the connection, was taken back.
pub(crate) fn rescinded(user: UserId, row: &ConnectionRow) -> Outgoing {
    let event = UsersEvent {
        user: bytes_of(user),
        time: row.time.millis(),
        change: Some(users_event::Change::ConnectionRescinded(ConnectionRescinded { to: bytes_of(row.other.id) })),
    };
    Outgoing {
        peer: Peer::Backend(row.other.domain.clone()),
        lane: *user.as_bytes(),
        kind: CONNECTION_RESCINDED,
        body: event.encode_to_vec().into(),
    }
}

/// The effects of the end of federation with a backend on users with connections there: each hears of it once.
pub(crate) fn federation_ended(cancelled: &CancelledRows, domain: &Domain, id: EventId) -> Vec<Outgoing> {
    let users: BTreeSet<UserId> = cancelled.iter().map(|(user, _)| *user).collect();
    let users: Vec<UserId> = users.into_iter().collect();
    let Some(first) = users.first() else { return Vec::new() };
    let event = json!({ "type": "federation.delete", "domain": domain });
    let mut outgoing: Vec<_> = cancelled.iter().map(|(user, row)| apply_relation(*user, row, None, None)).collect();
    outgoing.push(once_to_users(*first, &users, &event, id));
    outgoing
}
