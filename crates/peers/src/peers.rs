//! Requests to other backends.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aldis_proto::{
    channel::Channel,
    internal::v1::{ListPeersRequest, PeerState, peer_states_client::PeerStatesClient},
    metadata,
};
use aldis_types::{Domain, Remote};
use tonic::{
    Request, Status,
    metadata::{AsciiMetadataValue, MetadataValue},
};

use crate::PeerError;

/// How long a call to another backend may take, unless the caller says otherwise.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long our own federator may take to say what it knows of a peer.
const LOCAL_DEADLINE: Duration = Duration::from_secs(2);
/// At most this many peers are asked at once for one client request.
pub const FAN_OUT: usize = 8;

/// Asks other backends through our own federator. Cheap to clone.
///
/// `peers.channel()` is what generated clients are built on; [`Peers::request`] addresses a request, and
/// [`Peers::finish`] reads the outcome.
#[derive(Clone)]
pub struct Peers {
    egress: Channel,
}

/// What a call may need beside its message.
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    /// Deadline instead of the usual 10 s.
    pub deadline: Option<Duration>,
    /// A retry with the same key gets the first answer.
    pub idempotency_key: Option<[u8; 32]>,
}

/// Which files a backend fetches for its users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetLimits {
    /// The largest; 0: none are fetched.
    pub max_bytes: u64,
    /// Their media types, as `image/png` or `image/*`; none: all.
    pub types: Vec<String>,
}

impl Peers {
    /// Peers behind this federator.
    pub fn new(egress: Channel) -> Self {
        Self { egress }
    }

    /// The channel for generated clients.
    pub fn channel(&self) -> Channel {
        self.egress.clone()
    }

    /// What our federator knows of this peer, or of all when none is named. `None` when it cannot say.
    async fn states(&self, domain: Option<&Domain>) -> Option<Vec<PeerState>> {
        let domain = domain.map(ToString::to_string).unwrap_or_default();
        let mut request = Request::new(ListPeersRequest { domain });
        request.set_timeout(LOCAL_DEADLINE);
        let mut federator = PeerStatesClient::new(self.channel());
        let answer = tokio::time::timeout(LOCAL_DEADLINE, federator.list_peers(request)).await.ok()?.ok()?;
        Some(answer.into_inner().peers)
    }

    /// The largest message that `domain` says it takes on any hop, in bytes. `None` when that is not known: the peer is
    /// not connected, or our federator cannot say.
    pub async fn max_message_bytes(&self, domain: &Domain) -> Option<u64> {
        let peer = self.states(Some(domain)).await?.into_iter().find(|peer| peer.domain == domain.as_str())?;
        peer.capabilities.map(|capabilities| capabilities.max_message_bytes).filter(|limit| *limit > 0)
    }

    /// Which files these backends say that they fetch for their users. Those of which that is not known are left out: the
    /// peer is not connected, or our federator cannot say.
    pub async fn asset_limits(&self, domains: &BTreeSet<Domain>) -> BTreeMap<Domain, AssetLimits> {
        let mut limits = BTreeMap::new();
        for peer in self.states(None).await.unwrap_or_default() {
            let domain = peer.domain.parse().ok().filter(|domain| domains.contains(domain));
            if let (Some(domain), Some(capabilities)) = (domain, peer.capabilities) {
                let found = AssetLimits { max_bytes: capabilities.max_asset_bytes, types: capabilities.asset_types };
                limits.insert(domain, found);
            }
        }
        limits
    }

    /// Addresses `message` to the backend `domain`.
    pub fn request<M>(domain: &Domain, message: M, options: &CallOptions) -> Request<M> {
        let mut request = Request::new(message);
        request.set_timeout(options.deadline.unwrap_or(DEADLINE));
        // A domain is ASCII, and so is hexadecimal.
        if let Ok(value) = AsciiMetadataValue::try_from(domain.as_str()) {
            request.metadata_mut().insert(metadata::TARGET_DOMAIN, value);
        }
        if let Some(key) = options.idempotency_key {
            use std::fmt::Write as _;
            let mut text = String::with_capacity(64);
            for byte in key {
                let _ = write!(text, "{byte:02x}");
            }
            if let Ok(value) = MetadataValue::try_from(text) {
                request.metadata_mut().insert(metadata::IDEMPOTENCY_KEY, value);
            }
        }
        request
    }

    /// Addresses a message to the backend that owns `target`.
    pub fn request_about<T, M>(target: &Remote<T>, message: M) -> Request<M> {
        Self::request(target.domain(), message, &CallOptions::default())
    }

    /// Turns the outcome of a call to `domain` into an answer or a classified error. A second deadline on our side
    /// keeps a federator that hangs from holding the caller.
    pub async fn finish<R>(
        domain: &Domain,
        options: &CallOptions,
        call: impl Future<Output = Result<tonic::Response<R>, Status>>,
    ) -> Result<R, PeerError> {
        let deadline = options.deadline.unwrap_or(DEADLINE) + Duration::from_millis(500);
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(PeerError::from_status(domain, &status)),
            Err(_) => Err(PeerError::from_status(domain, &Status::deadline_exceeded("no answer in time"))),
        }
    }
}
