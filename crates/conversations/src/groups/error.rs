//! Why a request about conversations failed.

use std::{borrow::Cow, collections::BTreeSet};

use aldis_api::{Fault, Label, label};
use aldis_peers::PeerError;
use aldis_storage::StoreError;
use aldis_types::{Action, Domain};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use crate::users::UsersError;

/// Backends that cannot take part, as apps are told: they ask again without the users of all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Unreachable {
    /// Everyone, in order.
    #[serde(rename = "unreachable_backends")]
    pub domains: BTreeSet<Domain>,
    /// Those among them that can be reached and are not allowed, by them or by us.
    #[serde(rename = "denied_backends", skip_serializing_if = "BTreeSet::is_empty")]
    pub denied: BTreeSet<Domain>,
}

/// Why a request about conversations failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GroupError {
    #[error("no such conversation, or not for this user")]
    NoConversation,
    #[error("no such member")]
    NoMember,
    #[error("access denied")]
    AccessDenied,
    #[error("the role does not allow {0}")]
    ActionDenied(Action),
    #[error("not possible in this kind of conversation")]
    InvalidOp,
    #[error("nobody could be in a conversation with this access")]
    InvalidTargetAccess,
    #[error("not connected with somebody")]
    NotConnected,
    #[error("too many members")]
    TooManyMembers,
    #[error("not offered: {0}")]
    OperationDenied(&'static str),
    #[error("channels do not exist here")]
    ChannelsNotEnabled,
    #[error("guest links do not exist here")]
    GuestLinksDisabled,
    #[error("no such guest link")]
    NoConversationCode,
    #[error("teams do not exist here")]
    NoTeamMember,
    #[error("MLS is not enabled")]
    MlsNotEnabled,
    #[error("bad request: {0}")]
    BadRequest(&'static str),
    #[error("not available across backends")]
    NotAcrossBackends,
    #[error("unreachable backends: {0:?}")]
    Unreachable(Unreachable),
    #[error("{0} and {1} do not federate")]
    NonFederating(Domain, Domain),
    #[error("our policy denies {0}")]
    Denied(Domain),
    #[error("refused by the owner: {}", .0.label)]
    Refused(Label),
    #[error("another backend")]
    Peer(#[from] PeerError),
    #[error("asking users")]
    Users(#[from] UsersError),
    #[error("too many changes at the same time")]
    Busy,
    #[error("conversation store")]
    Store(#[from] StoreError),
}

impl Fault for GroupError {
    fn label(&self) -> Label {
        match self {
            Self::NoConversation => label::NO_CONVERSATION,
            Self::NoMember => label::NO_CONVERSATION_MEMBER,
            Self::AccessDenied => label::ACCESS_DENIED,
            Self::ActionDenied(_) => label::ACTION_DENIED,
            Self::InvalidOp | Self::InvalidTargetAccess => label::INVALID_OP,
            Self::NotConnected => label::NOT_CONNECTED,
            Self::TooManyMembers => label::TOO_MANY_MEMBERS,
            Self::OperationDenied(_) => label::OPERATION_DENIED,
            Self::ChannelsNotEnabled => label::CHANNELS_NOT_ENABLED,
            Self::GuestLinksDisabled => label::GUEST_LINKS_DISABLED,
            Self::NoConversationCode => label::NO_CONVERSATION_CODE,
            Self::NoTeamMember => label::NO_TEAM_MEMBER,
            Self::MlsNotEnabled => label::MLS_NOT_ENABLED,
            Self::BadRequest(_) => label::BAD_REQUEST,
            Self::NotAcrossBackends => label::FEDERATION_NOT_IMPLEMENTED,
            Self::Unreachable(_) => label::FEDERATION_REMOTE_ERROR,
            Self::NonFederating(..) => Label { status: 409, ..label::FEDERATION_REMOTE_ERROR },
            Self::Denied(_) => label::FEDERATION_DENIED,
            Self::Refused(label) => *label,
            Self::Peer(error) => error.label(),
            Self::Busy | Self::Users(_) => label::OVERLOADED,
            Self::Store(error) if error.is_overloaded() => label::OVERLOADED,
            Self::Store(_) => label::SERVER_ERROR,
        }
    }

    fn passes_on(&self) -> Option<&dyn Fault> {
        match self {
            Self::Peer(error) => Some(error),
            _ => None,
        }
    }

    fn message(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::ActionDenied(action) => Some(format!("Insufficient authorization (missing {action})").into()),
            Self::BadRequest(text) | Self::OperationDenied(text) => Some(Cow::Borrowed(text)),
            Self::InvalidTargetAccess => Some(Cow::Borrowed("Invalid target access")),
            _ => None,
        }
    }

    fn body(&self) -> Option<Value> {
        match self {
            Self::Unreachable(unreachable) => Some(json!(unreachable)),
            Self::NonFederating(first, second) => Some(json!({ "non_federating_backends": [first, second] })),
            _ => None,
        }
    }

    fn federation_domain(&self) -> Option<String> {
        match self {
            Self::Denied(domain) => Some(domain.to_string()),
            _ => self.passes_on()?.federation_domain(),
        }
    }

    fn retry_after(&self) -> Option<u64> {
        matches!(self, Self::Busy | Self::Users(_)).then_some(1)
    }
}

/// The row for a refusal of an owner; `None` when the owner may not refuse with that.
pub(crate) fn refusal(name: &str) -> Option<Label> {
    const ROWS: [Label; 10] = [
        label::NO_CONVERSATION,
        label::NO_CONVERSATION_MEMBER,
        label::ACCESS_DENIED,
        label::ACTION_DENIED,
        label::INVALID_OP,
        label::NOT_CONNECTED,
        label::TOO_MANY_MEMBERS,
        label::UNKNOWN_CLIENT,
        label::BAD_REQUEST,
        label::FEDERATION_DENIED,
    ];
    ROWS.into_iter().find(|row| row.label == name)
}
