//! What a change of a connection tells: the clients of both users, our conversations service, the other backend.

use std::collections::BTreeSet;

use aldis_api::Session;
use aldis_delivery::{LocalService, Outgoing, Peer};
use aldis_proto::{
    convert::{bytes_of, to_qualified, to_relation},
    federation::v1::{ConnectionRescinded, users_event::Change},
    internal::v1::ApplyRelationRequest,
};
use aldis_types::{
    ConversationId, Domain, EventId, Name, OneToOneProtocol, Profile, Qualified, Relation, Timestamp, UserId,
    one_to_one,
};
use prost::Message;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::store::{CancelledRows, ConnectionRow, OtherSide};
use crate::{
    accounts::json::{delete_event, profile_event},
    events::{alert_users, missed, once_to_users, to_backend, to_users},
};

const APPLY_RELATION: u32 = 1;
/// Users in one notification.
const MAX_TARGETS: usize = 1000;

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
    let change = Change::ConnectionRescinded(ConnectionRescinded { to: bytes_of(row.other.id) });
    to_backend(&row.other.domain, user, row.time, change)
}

/// The effects of the end of an account on those who had a connection with its user. Contacts learn that the account is
/// gone; a request that was never answered is taken back.
pub(crate) fn of_departure(
    gone: &Qualified<UserId>,
    sides: &[OtherSide],
    domain: &Domain,
    now: Timestamp,
) -> Vec<Outgoing> {
    let contacts: Vec<_> =
        sides.iter().filter(|(_, row)| row.status == Relation::Accepted).map(|(user, _)| *user).collect();
    let event = delete_event(gone);
    let mut effects: Vec<_> =
        contacts.chunks(MAX_TARGETS).map(|users| to_users(gone.id, users, &event, None)).collect();
    for (user, row) in sides {
        if matches!(row.status, Relation::Sent | Relation::Pending | Relation::Ignored) {
            let time = now.max(Timestamp::from_millis(row.time.millis() + 1));
            let cancelled = ConnectionRow { status: Relation::Cancelled, time, ..row.clone() };
            effects.extend(of_others_change(*user, &cancelled, domain, None));
        }
    }
    effects
}

/// The effects of a change of another backend's profile: contacts here are told.
pub(crate) fn of_profile(profile: &Profile, contacts: &[UserId]) -> Vec<Outgoing> {
    let event = profile_event(profile);
    contacts.chunks(MAX_TARGETS).map(|users| to_users(profile.id.id, users, &event, None)).collect()
}

/// The effects of something that another backend's user did, and that was dropped before it came.
pub(crate) fn of_missed(user: UserId, contacts: &[UserId], id: EventId) -> Vec<Outgoing> {
    contacts.chunks(MAX_TARGETS).map(|users| missed(user, users, id)).collect()
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
