//! The older way to post a message, by bots of our own backend: JSON or protobuf without domains.

use std::collections::{BTreeMap, BTreeSet};

use aldis_api::Session;
use aldis_types::{ClientId, ConversationId, Domain, Qualified, Timestamp, UserId};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    MESSAGE, MessageError, Sending, Sent, answer_key, message_key,
    mismatch::Clients,
    status::Status,
    wire::{InvalidMessage, MAX_ENTRIES, NewMessage, Recipient, Strategy},
};
use crate::{app::App, groups::error::GroupError};

/// What a user id takes in a list, from below.
const ID_BYTES: usize = 36;

/// In which form the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Protobuf,
}

/// `?ignore_missing=&report_missing=`: `true`, `false`, or ids with commas between them.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct MissingQuery {
    ignore_missing: Option<String>,
    report_missing: Option<String>,
}

enum Missing {
    All,
    None,
    Of(Vec<UserId>),
}

impl Missing {
    fn read(text: &str) -> Result<Self, InvalidMessage> {
        match text {
            "true" => Ok(Self::All),
            "false" => Ok(Self::None),
            _ if text.len() > MAX_ENTRIES * ID_BYTES => Err(InvalidMessage("The list of users is too long")),
            list => {
                let ids = list.split(',').map(|id| id.trim().parse());
                let ids = ids.collect::<Result<_, _>>().map_err(|_| InvalidMessage("A user id is malformed"))?;
                Ok(Self::Of(ids))
            }
        }
    }
}

impl MissingQuery {
    /// What to do about missing clients, unless the body says it. Without a word all are reported.
    fn strategy(&self, own: &Domain) -> Result<Strategy, InvalidMessage> {
        let qualified = |ids: Vec<UserId>| ids.into_iter().map(|id| own.own(id).into_qualified()).collect();
        if let Some(ignored) = &self.ignore_missing {
            return Ok(match Missing::read(ignored)? {
                Missing::All => Strategy::IgnoreAll,
                Missing::None => Strategy::ReportAll,
                Missing::Of(ids) => Strategy::IgnoreOnly(qualified(ids)),
            });
        }
        let Some(reported) = &self.report_missing else { return Ok(Strategy::ReportAll) };
        Ok(match Missing::read(reported)? {
            Missing::All => Strategy::ReportAll,
            Missing::None => Strategy::IgnoreAll,
            Missing::Of(ids) => Strategy::ReportOnly(qualified(ids)),
        })
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Priority {
    Low,
    High,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "OlderMessage")]
pub(crate) struct Body {
    sender: ClientId,
    recipients: BTreeMap<UserId, BTreeMap<ClientId, String>>,
    native_push: Option<bool>,
    native_priority: Option<Priority>,
    transient: Option<bool>,
    data: Option<String>,
    report_missing: Option<Vec<UserId>>,
}

pub(crate) fn read_json(body: &[u8], own: &Domain, strategy: Strategy) -> Result<NewMessage, InvalidMessage> {
    // Every value stands behind a colon or a comma, and base64 has neither.
    if body.iter().filter(|byte| matches!(byte, b':' | b',')).count() > 2 * MAX_ENTRIES {
        return Err(InvalidMessage("The message has too many recipients"));
    }
    let body: Body = aldis_api::read_json(body).map_err(|_| InvalidMessage("The body is not a message"))?;
    let decode = |text: &str| STANDARD.decode(text).map_err(|_| InvalidMessage("A text is not base64"));
    let mut recipients = Vec::new();
    for (user, clients) in body.recipients {
        let user = own.own(user).into_qualified();
        for (client, text) in clients {
            recipients.push(Recipient { user: user.clone(), client, text: decode(&text)?.into() });
        }
    }
    let listed = body.report_missing.map(|ids| ids.into_iter().map(|id| own.own(id).into_qualified()).collect());
    Ok(NewMessage {
        sender: body.sender,
        recipients,
        blob: body.data.as_deref().map(decode).transpose()?.map(Bytes::from),
        native_push: body.native_push.unwrap_or(true),
        high_priority: matches!(body.native_priority, Some(Priority::High)),
        transient: body.transient.unwrap_or(false),
        strategy: listed.map_or(strategy, Strategy::ReportOnly),
    })
}

/// What the sender is told: clients by user, of our own backend.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct OlderStatus {
    time: Timestamp,
    missing: BTreeMap<UserId, BTreeSet<ClientId>>,
    redundant: BTreeMap<UserId, BTreeSet<ClientId>>,
    deleted: BTreeMap<UserId, BTreeSet<ClientId>>,
}

impl OlderStatus {
    pub(crate) fn of(status: Status, own: &Domain) -> Self {
        let ours = |mut clients: Clients| clients.remove(own).unwrap_or_default();
        Self {
            time: status.time,
            missing: ours(status.missing),
            redundant: ours(status.redundant),
            deleted: ours(status.deleted),
        }
    }
}

impl App {
    /// Sends a message to a conversation of ours. One with members of other backends has no place for them in this
    /// form: 422 `federation-not-implemented`.
    pub(crate) async fn send_older(
        &self,
        session: &Session,
        conversation: ConversationId,
        query: &MissingQuery,
        form: Form,
        body: Bytes,
    ) -> Result<Sent, MessageError> {
        let strategy = query.strategy(&self.domain)?;
        let message = match form {
            Form::Json => read_json(&body, &self.domain, strategy)?,
            Form::Protobuf => NewMessage::read_older(body.clone(), &self.domain, strategy)?,
        };
        let sender: Qualified<UserId> = self.own_user(session.user);
        let found = self.find_own(conversation).await?.ok_or(GroupError::NoConversation)?;
        found.member(&sender).ok_or(GroupError::NoConversation)?;
        if !found.backends(&self.domain).is_empty() {
            return Err(GroupError::NotAcrossBackends.into());
        }
        let key = message_key(conversation, session.user, message.sender, &body);
        let key = answer_key(&self.domain, MESSAGE, &key);
        self.send_here(&Sending { conversation, sender, origin_clients: None, patience: None, key, message }).await
    }
}
