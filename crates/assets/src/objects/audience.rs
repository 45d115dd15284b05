//! For whom a file is meant, as far as the app says it, and whether their backends would fetch it.
//!
//! Apps may name a conversation when they upload. What is not known refuses nothing: no conversation, none of this user, a
//! backend with which there is no connection, or no answer in time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aldis_peers::{AssetLimits, Peers};
use aldis_proto::{
    channel::Channel,
    convert::{bytes_of, to_qualified},
    internal::v1::{ListBackendsRequest, audiences_client::AudiencesClient},
};
use aldis_types::{ConversationId, Domain, Qualified, UserId};
use tonic::{Code, Request};

use super::{Upload, allows};
use crate::error::AssetError;

/// How long an upload may wait for what is known of its audience.
const PATIENCE: Duration = Duration::from_secs(3);

/// Knows the backends of conversations and what they fetch. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Audience {
    conversations: AudiencesClient<Channel>,
    peers: Peers,
}

impl Audience {
    pub(crate) fn new(conversations: Channel, peers: Peers) -> Self {
        Self { conversations: AudiencesClient::new(conversations), peers }
    }

    /// Refuses a file that a backend of this conversation says it does not fetch.
    pub(crate) async fn admit(
        &self,
        conversation: &Qualified<ConversationId>,
        upload: &Upload,
    ) -> Result<(), AssetError> {
        let look_up = async {
            let backends = self.backends(conversation, upload.owner).await;
            if backends.is_empty() { BTreeMap::new() } else { self.peers.asset_limits(&backends).await }
        };
        let limits = tokio::time::timeout(PATIENCE, look_up).await.unwrap_or_default();
        let refusing: Vec<Domain> =
            limits.into_iter().filter(|(_, limits)| !fetches(limits, upload)).map(|(domain, _)| domain).collect();
        if refusing.is_empty() {
            return Ok(());
        }
        metrics::counter!("aldis_assets_refused_early_total").increment(1);
        Err(AssetError::NotAllowedThere(refusing.into()))
    }

    async fn backends(&self, conversation: &Qualified<ConversationId>, user: UserId) -> BTreeSet<Domain> {
        let message = ListBackendsRequest { user: bytes_of(user), conversation: Some(to_qualified(conversation)) };
        let mut request = Request::new(message);
        request.set_timeout(PATIENCE);
        match self.conversations.clone().list_backends(request).await {
            Ok(answer) => answer.into_inner().domains.iter().filter_map(|domain| domain.parse().ok()).collect(),
            Err(status) => {
                if status.code() != Code::NotFound {
                    tracing::debug!(code = ?status.code(), "the backends of a conversation are not known");
                }
                BTreeSet::new()
            }
        }
    }
}

fn fetches(limits: &AssetLimits, upload: &Upload) -> bool {
    upload.size <= limits.max_bytes && allows(&limits.types, &upload.media_type)
}
