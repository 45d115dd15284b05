//! Proteus messages: checked against the clients of all members, then told to each of them.

mod error;
pub(crate) mod http;
pub(crate) mod mismatch;
pub(crate) mod older;
mod send;
pub(crate) mod status;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

use aldis_api::Session;
use aldis_peers::PeerError;
use aldis_proto::{
    convert,
    federation::v1::{self as pb, send_message_response},
};
use aldis_types::{ClientId, ConversationId, Domain, Locality, Qualified, Remote, UserClients, UserId};
use bytes::Bytes;
use sha2::{Digest, Sha256};

pub(crate) use error::MessageError;
pub(crate) use send::Sending;
pub(crate) use status::{Sent, Status};

use crate::{
    app::App,
    groups::{
        error::{GroupError, refusal},
        store::AnswerKey,
    },
    messages::wire::NewMessage,
};

/// Names a message: ciphertexts never repeat.
pub(crate) fn message_key(conversation: ConversationId, sender: UserId, client: ClientId, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(conversation.as_bytes());
    hash.update(sender.as_bytes());
    hash.update(client.0.to_be_bytes());
    hash.update(body);
    hash.finalize().into()
}

/// The place of an answer in the store: no backend can name another one's, nor a message a change.
pub(crate) fn answer_key(asking: &Domain, purpose: &'static str, key: &[u8; 32]) -> AnswerKey {
    let mut hash = Sha256::new();
    hash.update(asking.as_str().as_bytes());
    hash.update([0]);
    hash.update(purpose.as_bytes());
    hash.update([0]);
    hash.update(key);
    hash.finalize().into()
}

/// The purpose of answers to messages.
pub(crate) const MESSAGE: &str = "message";

impl App {
    /// Sends a message of one of our users.
    pub(crate) async fn send(
        &self,
        session: &Session,
        conversation: Qualified<ConversationId>,
        body: Bytes,
    ) -> Result<Sent, MessageError> {
        let message = NewMessage::read(body.clone())?;
        let key = message_key(conversation.id, session.user, message.sender, &body);
        match self.domain.locate(conversation) {
            Locality::Local(id) => {
                let sending = Sending {
                    conversation: *id.id(),
                    sender: self.own_user(session.user),
                    origin_clients: None,
                    patience: None,
                    key: answer_key(&self.domain, MESSAGE, &key),
                    message,
                };
                self.send_here(&sending).await
            }
            Locality::Remote(id) => self.send_elsewhere(session, &id, message.sender, key, body).await,
        }
    }

    /// Hands the message to the owner, with the clients of all our members.
    async fn send_elsewhere(
        &self,
        session: &Session,
        conversation: &Remote<ConversationId>,
        client: ClientId,
        key: [u8; 32],
        body: Bytes,
    ) -> Result<Sent, MessageError> {
        let found = self.find_elsewhere(conversation.as_qualified()).await?.ok_or(GroupError::NoConversation)?;
        if !found.contains(session.user) {
            return Err(GroupError::NoConversation.into());
        }
        let clients = self.users.clients(&found.users().collect::<Vec<_>>()).await?;
        if !clients.get(&session.user).is_some_and(|clients| clients.contains(&client)) {
            return Err(MessageError::UnknownClient);
        }
        let owner = conversation.domain();
        if !self.policy.allows(owner) {
            return Err(MessageError::denied(owner.clone()));
        }
        let origin_clients = clients.into_iter().map(|(user, clients)| {
            convert::to_clients(&UserClients { user, clients: clients.into_iter().map(|id| (id, None)).collect() })
        });
        let request = pb::SendMessageRequest {
            conversation: convert::bytes_of(conversation.id()),
            sender: convert::bytes_of(session.user),
            sender_client: client.0,
            origin_clients: origin_clients.collect(),
            message: body,
            sender_connection: session.connection.0,
        };
        let answer = self.backends.send_message(owner, request, key).await?;
        read_owners_answer(owner, answer)
    }
}

fn read_owners_answer(owner: &Domain, answer: pb::SendMessageResponse) -> Result<Sent, MessageError> {
    use send_message_response::Outcome;
    let invalid = |what: &'static str| PeerError::invalid_answer(owner, what);
    match answer.outcome.ok_or_else(|| invalid("outcome"))? {
        Outcome::Sent(status) => Ok(Sent::accepted(&status).map_err(|e| invalid(e.0))?),
        Outcome::Mismatch(status) => Ok(Sent::mismatch(&status).map_err(|e| invalid(e.0))?),
        Outcome::Refused(refused) => {
            Err(GroupError::Refused(refusal(&refused.label).ok_or_else(|| invalid("refused.label"))?).into())
        }
    }
}
