//! What every part of this service works with.

use std::{ops::Deref, sync::Arc, time::Duration};

use aldis_api::TokenVerifier;
use aldis_peers::Policy;
use aldis_runtime::{SharedClock, SharedRandom};
use aldis_types::{Domain, Qualified, UserId};
use axum::extract::FromRef;

use crate::{
    backends::Backends,
    config::Config,
    features::RemovalKeys,
    groups::{TypingLimit, store::ConversationStore},
    in_progress::InProgress,
    push::Pushes,
    received::store::MembershipStore,
    users::Users,
};

/// How long a client waits until our own services know of its change; it is durable before that.
pub(crate) const LOCAL_DELIVERY: Duration = Duration::from_secs(5);

/// The parts; see [`App`].
pub(crate) struct Parts {
    pub domain: Domain,
    pub config: Config,
    /// Conversations of ours.
    pub store: Arc<dyn ConversationStore>,
    /// Our users in conversations of other backends.
    pub memberships: Arc<dyn MembershipStore>,
    pub users: Users,
    pub backends: Backends,
    pub pushes: Pushes,
    pub clock: SharedClock,
    pub random: SharedRandom,
    pub policy: Policy,
    pub verifier: TokenVerifier,
    pub keys: RemovalKeys,
    /// Requests with a key that are being worked on.
    pub in_progress: InProgress,
    pub typing_limit: TypingLimit,
}

/// The service. The operations of each feature are in its folder. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Parts>);

impl App {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// One of our users, qualified.
    pub(crate) fn own_user(&self, user: UserId) -> Qualified<UserId> {
        self.domain.own(user).into_qualified()
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl FromRef<App> for TokenVerifier {
    fn from_ref(app: &App) -> Self {
        app.verifier.clone()
    }
}
