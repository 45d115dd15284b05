//! The federation policy in force in this process.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aldis_proto::{
    channel::Channel,
    convert,
    internal::v1::{WatchPolicyRequest, policy_client::PolicyClient},
};
use aldis_types::{Domain, PolicySnapshot};
use arc_swap::ArcSwap;
use tokio::sync::watch;
use tonic::{Request, Status};

use crate::Origin;

const RECONNECT: Duration = Duration::from_millis(500);
/// Users sends a beat every 15 s; a stream that is silent for longer is opened again.
const SILENCE: Duration = Duration::from_secs(40);

/// The policy refuses a backend, or it is too old to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("federation with this backend is denied")]
pub struct Denied;

impl From<Denied> for Status {
    fn from(_: Denied) -> Self {
        aldis_proto::error::status(
            tonic::Code::PermissionDenied,
            aldis_proto::federation::v1::Hop::PeerFederator,
            "federation-denied",
            "",
            "this backend does not federate with the origin",
        )
    }
}

struct Held {
    snapshot: Arc<PolicySnapshot>,
    heard: Instant,
}

/// The policy, followed from the users service. Cheap to clone. Fails closed: without a word from users for longer than
/// the allowed age, everybody is denied.
#[derive(Clone)]
pub struct Policy {
    held: Arc<ArcSwap<Held>>,
    max_age: Duration,
    changes: watch::Sender<u64>,
}

impl Policy {
    /// A policy that denies everybody until the first snapshot.
    pub fn new(max_age: Duration) -> Self {
        let held = Held { snapshot: Arc::default(), heard: Instant::now() };
        Self { held: Arc::new(ArcSwap::from_pointee(held)), max_age, changes: watch::Sender::new(0) }
    }

    /// Puts a snapshot in force.
    pub fn update(&self, snapshot: PolicySnapshot) {
        let version = snapshot.version;
        self.held.store(Arc::new(Held { snapshot: Arc::new(snapshot), heard: Instant::now() }));
        self.changes.send_replace(version);
    }

    /// Notes that the policy in force is still the current one.
    pub fn confirm(&self) {
        let snapshot = self.held.load().snapshot.clone();
        self.held.store(Arc::new(Held { snapshot, heard: Instant::now() }));
    }

    /// The policy in force; one that denies everybody when it is too old.
    pub fn current(&self) -> Arc<PolicySnapshot> {
        let held = self.held.load();
        if held.heard.elapsed() > self.max_age { Arc::default() } else { held.snapshot.clone() }
    }

    /// Whether calls to and from `domain` are allowed.
    pub fn allows(&self, domain: &Domain) -> bool {
        self.current().allows(domain)
    }

    /// Admits a backend that calls us.
    pub fn admit(&self, origin: &Origin) -> Result<(), Denied> {
        if self.allows(origin.domain()) { Ok(()) } else { Err(Denied) }
    }

    /// The backend behind a request to a federation service, which must be another one than ours and allowed.
    pub fn admit_caller<T>(&self, own: &Domain, request: &Request<T>) -> Result<Origin, Status> {
        let origin = Origin::of(request)?;
        self.admit(&origin)?;
        if origin.domain() == own {
            return Err(Status::permission_denied("a backend does not federate with itself"));
        }
        Ok(origin)
    }

    /// Ticks with the version of every new policy.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Follows the users service for as long as the future is polled, reconnecting after failures.
    pub async fn follow(self, users: Channel) {
        let mut client = PolicyClient::new(users);
        loop {
            if let Err(status) = self.follow_once(&mut client).await {
                tracing::debug!(grpc.code = ?status.code(), "stream of the federation policy ended");
            }
            tokio::time::sleep(RECONNECT).await;
        }
    }

    async fn follow_once(&self, client: &mut PolicyClient<Channel>) -> Result<(), Status> {
        let mut stream = client.watch(WatchPolicyRequest {}).await?.into_inner();
        let mut first = true;
        while let Some(snapshot) = tokio::time::timeout(SILENCE, stream.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no beat from users"))??
        {
            if first || snapshot.version != self.held.load().snapshot.version {
                self.update(convert::from_policy(&snapshot)?);
                first = false;
            } else {
                self.confirm();
            }
        }
        Ok(())
    }
}
