//! What the sender of a message is told.

use aldis_proto::{
    convert::{self, InvalidWire},
    federation::v1::{self as pb, send_message_response},
};
use aldis_types::{ClientId, Timestamp};
use bytes::Bytes;
use prost::Message;
use schemars::JsonSchema;
use serde::Serialize;

use super::mismatch::{Clients, Comparison, of_user};

/// More users, and more clients of one of them, than any conversation has.
const MAX_USERS: usize = 20_000;
const MAX_CLIENTS: usize = 20_000;

/// What became of a message, in the client API's form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "MessageStatus")]
pub(crate) struct Status {
    pub time: Timestamp,
    pub missing: Clients,
    pub redundant: Clients,
    pub deleted: Clients,
    pub failed_to_send: Clients,
    pub failed_to_confirm_clients: Clients,
}

/// Whether a message was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Durable.
    Accepted(Status),
    /// Clients are missing; nothing was sent.
    Mismatch(Status),
}

impl Status {
    /// At a time, from the comparison.
    pub(crate) fn new(time: Timestamp, comparison: Comparison) -> Self {
        Self {
            time,
            missing: comparison.missing,
            redundant: comparison.redundant,
            deleted: comparison.deleted,
            failed_to_send: comparison.failed_to_send,
            failed_to_confirm_clients: comparison.failed_to_confirm,
        }
    }

    fn write(&self) -> pb::MessageStatus {
        pb::MessageStatus {
            time: self.time.millis(),
            missing: write_clients(&self.missing),
            redundant: write_clients(&self.redundant),
            deleted: write_clients(&self.deleted),
            failed_to_send: write_clients(&self.failed_to_send),
            failed_to_confirm_clients: write_clients(&self.failed_to_confirm_clients),
        }
    }

    fn read(status: &pb::MessageStatus) -> Result<Self, InvalidWire> {
        Ok(Self {
            time: Timestamp::from_millis(status.time),
            missing: read_clients(&status.missing)?,
            redundant: read_clients(&status.redundant)?,
            deleted: read_clients(&status.deleted)?,
            failed_to_send: read_clients(&status.failed_to_send)?,
            failed_to_confirm_clients: read_clients(&status.failed_to_confirm_clients)?,
        })
    }
}

impl Sent {
    /// As it goes to the sender's backend, and into the store of answers.
    pub(crate) fn write(&self) -> pb::SendMessageResponse {
        let outcome = match self {
            Self::Accepted(status) => send_message_response::Outcome::Sent(status.write()),
            Self::Mismatch(status) => send_message_response::Outcome::Mismatch(status.write()),
        };
        pb::SendMessageResponse { outcome: Some(outcome) }
    }

    /// Reads the answer that was kept.
    pub(crate) fn read_kept(answer: Bytes) -> Result<Self, InvalidWire> {
        let answer = pb::SendMessageResponse::decode(answer).map_err(|_| InvalidWire("answer"))?;
        match answer.outcome {
            Some(send_message_response::Outcome::Sent(status)) => Self::accepted(&status),
            Some(send_message_response::Outcome::Mismatch(status)) => Self::mismatch(&status),
            Some(send_message_response::Outcome::Refused(_)) | None => Err(InvalidWire("answer")),
        }
    }

    /// Reads what an owner says of a message that was sent.
    pub(crate) fn accepted(status: &pb::MessageStatus) -> Result<Self, InvalidWire> {
        Ok(Self::Accepted(Status::read(status)?))
    }

    /// Reads what an owner says of a message that was not sent.
    pub(crate) fn mismatch(status: &pb::MessageStatus) -> Result<Self, InvalidWire> {
        Ok(Self::Mismatch(Status::read(status)?))
    }
}

fn write_clients(clients: &Clients) -> Vec<pb::ClientSet> {
    clients
        .iter()
        .flat_map(|(domain, users)| {
            users.iter().map(move |(user, clients)| pb::ClientSet {
                user: Some(pb::QualifiedId { id: convert::bytes_of(user), domain: domain.as_str().to_owned() }),
                clients: clients.iter().map(|client| client.0).collect(),
            })
        })
        .collect()
}

fn read_clients(sets: &[pb::ClientSet]) -> Result<Clients, InvalidWire> {
    if sets.len() > MAX_USERS || sets.iter().map(|set| set.clients.len()).sum::<usize>() > MAX_CLIENTS {
        return Err(InvalidWire("clients"));
    }
    let mut clients = Clients::new();
    for set in sets {
        let user = convert::qualified_user(set.user.as_ref())?;
        of_user(&mut clients, &user).extend(set.clients.iter().copied().map(ClientId));
    }
    Ok(clients)
}
