//! Push tokens: how a mobile app that is not connected is woken when something comes for it.
//!
//! Guarantees: a token is kept until the app, its client or its user removes it, the provider says that it is gone, or the
//! user has too many; an app is woken after the event is durable, and only while its client has no socket. Waking is best
//! effort: what it wakes for waits in the queue anyway, so nothing is kept for a provider that cannot be reached. Not
//! here: vendors. Without a provider tokens are kept and nobody is woken.

pub(crate) mod http;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod waker;
mod webhook;

use std::{
    collections::HashSet,
    sync::{Arc, RwLock},
};

use aldis_api::{Fault, Label, label};
use aldis_storage::StoreError;
use aldis_types::{ClientId, NotificationId, UserId};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use store::PushTokenStore;
pub(crate) use waker::{Waker, Waking};
pub(crate) use webhook::Webhook;

/// Longest token.
pub(crate) const MAX_TOKEN_BYTES: usize = 8192;
/// Longest name of an app.
pub(crate) const MAX_APP_BYTES: usize = 255;

/// Whose service carries a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum Transport {
    #[serde(rename = "GCM")]
    Gcm,
    #[serde(rename = "APNS")]
    Apns,
    #[serde(rename = "APNS_SANDBOX")]
    ApnsSandbox,
    #[serde(rename = "APNS_VOIP")]
    ApnsVoip,
    #[serde(rename = "APNS_VOIP_SANDBOX")]
    ApnsVoipSandbox,
}

impl Transport {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Gcm => "GCM",
            Self::Apns => "APNS",
            Self::ApnsSandbox => "APNS_SANDBOX",
            Self::ApnsVoip => "APNS_VOIP",
            Self::ApnsVoipSandbox => "APNS_VOIP_SANDBOX",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let all = [Self::Gcm, Self::Apns, Self::ApnsSandbox, Self::ApnsVoip, Self::ApnsVoipSandbox];
        all.into_iter().find(|transport| transport.as_str() == text)
    }
}

/// One app on one device, as a vendor's service knows it. `Debug` hides the token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct PushToken {
    pub transport: Transport,
    pub app: String,
    pub token: String,
    pub client: ClientId,
}

impl std::fmt::Debug for PushToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PushToken").field("transport", &self.transport).finish_non_exhaustive()
    }
}

/// Something came for a client.
#[derive(Debug, Clone)]
pub(crate) struct Wake {
    pub user: UserId,
    /// Where to look for it in the queue.
    pub notification: NotificationId,
    pub high_priority: bool,
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The provider took it.
    Sent,
    /// The vendor does not know the token any more.
    TokenGone,
    /// Not now; it may work later.
    Later,
    /// It will not work.
    Refused,
}

/// Wakes apps. Called within a deadline.
#[async_trait]
pub(crate) trait Provider: Send + Sync {
    /// Wakes one app.
    async fn wake(&self, token: &PushToken, wake: &Wake) -> Woken;
}

/// Why a request about push tokens failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PushTokenError {
    #[error("voice over IP pushes are not offered")]
    Voip,
    #[error("the token is too long")]
    TokenTooLong,
    #[error("a token is visible ASCII, an app's name 1 to 255 bytes")]
    Malformed,
    #[error("no such app")]
    AppNotFound,
    #[error("no such token")]
    NotFound,
    #[error("push token store")]
    Store(#[from] StoreError),
}

impl Fault for PushTokenError {
    fn label(&self) -> Label {
        match self {
            Self::Voip => label::APNS_VOIP_NOT_SUPPORTED,
            Self::TokenTooLong => label::TOKEN_TOO_LONG,
            Self::Malformed => label::BAD_REQUEST,
            Self::AppNotFound => label::APP_NOT_FOUND,
            Self::NotFound => label::NOT_FOUND,
            Self::Store(error) if error.is_overloaded() => label::OVERLOADED,
            Self::Store(_) => label::SERVER_ERROR,
        }
    }
}

/// The operations on push tokens. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PushTokens {
    store: Arc<dyn PushTokenStore>,
    /// Apps that may have tokens; empty: every one.
    apps: Arc<[String]>,
    most_per_user: u32,
    /// Users with tokens, so that a message for anybody else costs no look-up.
    users: Arc<RwLock<HashSet<UserId>>>,
}

impl PushTokens {
    pub(crate) async fn open(
        store: Arc<dyn PushTokenStore>,
        apps: &[String],
        most_per_user: u32,
    ) -> Result<Self, StoreError> {
        let users = store.users().await?.into_iter().collect();
        Ok(Self { store, apps: apps.into(), most_per_user, users: Arc::new(RwLock::new(users)) })
    }

    /// Keeps a token; it replaces the client's earlier one for the app, and the oldest of a user who has too many. A
    /// token belongs to the user who gave it last.
    pub(crate) async fn add(&self, user: UserId, token: PushToken) -> Result<(), PushTokenError> {
        if matches!(token.transport, Transport::ApnsVoip | Transport::ApnsVoipSandbox) {
            return Err(PushTokenError::Voip);
        }
        if token.token.len() > MAX_TOKEN_BYTES {
            return Err(PushTokenError::TokenTooLong);
        }
        let visible = !token.token.is_empty() && token.token.bytes().all(|byte| byte.is_ascii_graphic());
        if !visible || !(1..=MAX_APP_BYTES).contains(&token.app.len()) {
            return Err(PushTokenError::Malformed);
        }
        if !self.apps.is_empty() && !self.apps.contains(&token.app) {
            return Err(PushTokenError::AppNotFound);
        }
        self.store.add(user, token, self.most_per_user).await?;
        self.users.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(user);
        Ok(())
    }

    /// The user's tokens, oldest first.
    pub(crate) async fn list(&self, user: UserId) -> Result<Vec<PushToken>, PushTokenError> {
        Ok(self.store.list(user).await?)
    }

    /// Removes a token of the user.
    pub(crate) async fn remove(&self, user: UserId, token: String) -> Result<(), PushTokenError> {
        if self.store.remove(user, token).await? { Ok(()) } else { Err(PushTokenError::NotFound) }
    }

    /// Removes the tokens of a client, or all of the user.
    pub(crate) async fn forget(&self, user: UserId, client: Option<ClientId>) -> Result<(), StoreError> {
        self.store.forget(user, client).await?;
        if client.is_none() {
            self.users.write().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&user);
        }
        Ok(())
    }

    /// Whether the user may have tokens.
    fn may_have(&self, user: UserId) -> bool {
        self.users.read().unwrap_or_else(std::sync::PoisonError::into_inner).contains(&user)
    }
}
