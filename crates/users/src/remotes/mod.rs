//! The list of remotes: which backends we federate with, and what their users may find here. Every service follows it.

pub(crate) mod ending;
pub(crate) mod grpc;
pub(crate) mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use aldis_api::{Fault, Label, label};
use aldis_peers::Policy;
use aldis_runtime::SharedClock;
use aldis_storage::StoreError;
use aldis_types::{Domain, KeyPin, PolicySnapshot, RemotePolicy, RemoteState, SearchPolicy, Strategy, TeamId};
use tokio::sync::{Mutex, watch};

use self::store::RemoteStore;
use crate::{
    audit::{Administrator, AuditEntry},
    detached::detached,
    errors::store_label,
};

/// Remotes that can be listed.
const MAX_REMOTES: usize = 10_000;

/// Why a change of the list failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    #[error("the domain is this backend's own")]
    OwnDomain,
    #[error("the domain is not on the list")]
    Unknown,
    #[error("the domain is not on the list yet, and needs a search policy")]
    NoSearchPolicy,
    #[error("there are {MAX_REMOTES} remotes already")]
    TooMany,
    #[error("federation with the domain was ended; `aldis remote set` begins anew")]
    Ended,
    #[error("remote store")]
    Store(#[from] StoreError),
}

impl Fault for RemoteError {
    fn label(&self) -> Label {
        match self {
            Self::OwnDomain | Self::NoSearchPolicy | Self::Ended => label::BAD_REQUEST,
            Self::Unknown => label::NOT_FOUND,
            Self::TooMany => label::TOO_MANY_REQUESTS,
            Self::Store(error) => store_label(error),
        }
    }

    fn message(&self) -> Option<std::borrow::Cow<'static, str>> {
        match self {
            Self::Store(_) => None,
            other => Some(other.to_string().into()),
        }
    }
}

/// Which users of a remote may find and connect.
#[derive(Debug, Clone)]
pub(crate) enum Restriction {
    /// All of them.
    None,
    /// Those of these teams.
    Teams(Vec<TeamId>),
}

/// What is changed of a remote; `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct RemoteChange {
    pub(crate) search_policy: Option<SearchPolicy>,
    pub(crate) teams: Option<Restriction>,
    pub(crate) pins: Option<Vec<KeyPin>>,
}

/// The list in force.
#[derive(Clone)]
pub(crate) struct Remotes {
    domain: Domain,
    strategy: Strategy,
    store: Arc<dyn RemoteStore>,
    policy: Policy,
    clock: SharedClock,
    watched: Arc<watch::Sender<Arc<PolicySnapshot>>>,
    /// One change at a time, so that snapshots come into force in the order of their versions.
    changing: Arc<Mutex<()>>,
}

impl Remotes {
    /// Reads the list and puts it in force in this process.
    pub(crate) async fn open(
        domain: Domain,
        strategy: Strategy,
        store: Arc<dyn RemoteStore>,
        policy: Policy,
        clock: SharedClock,
    ) -> Result<Self, StoreError> {
        // A strategy that was changed in the configuration must not be hidden behind an old version.
        let (version, remotes) = store.load().await?;
        let version = version.max(clock.now().millis().unsigned_abs());
        let snapshot = PolicySnapshot { version, strategy, remotes };
        policy.update(snapshot.clone());
        let watched = Arc::new(watch::Sender::new(Arc::new(snapshot)));
        Ok(Self { domain, strategy, store, policy, clock, watched, changing: Arc::default() })
    }

    /// Follows the list.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<PolicySnapshot>> {
        self.watched.subscribe()
    }

    /// The list now.
    pub(crate) fn current(&self) -> Arc<PolicySnapshot> {
        self.watched.borrow().clone()
    }

    /// Adds an unlisted remote, changes a listed one, revives an ended one.
    pub(crate) async fn set(
        &self,
        by: &Administrator,
        domain: Domain,
        change: RemoteChange,
    ) -> Result<(), RemoteError> {
        let audit = by.does("remote-set", &domain);
        self.change(domain, audit, move |before| {
            let (state, search_policy, teams, pins) = match before {
                Some(before) => {
                    let state = match before.state {
                        RemoteState::Suspended => RemoteState::Suspended,
                        RemoteState::Active | RemoteState::Ended => RemoteState::Active,
                    };
                    (state, Some(before.search_policy), before.teams.clone(), before.pins.clone())
                }
                None => (RemoteState::Active, None, None, Vec::new()),
            };
            Ok(RemotePolicy {
                state,
                search_policy: change.search_policy.or(search_policy).ok_or(RemoteError::NoSearchPolicy)?,
                teams: match change.teams {
                    None => teams,
                    Some(Restriction::None) => None,
                    Some(Restriction::Teams(teams)) => Some(teams),
                },
                ended: None,
                pins: change.pins.unwrap_or(pins),
            })
        })
        .await
    }

    /// Suspends, resumes or ends a listed remote. One that is ended stays so until it is set anew.
    pub(crate) async fn set_state(
        &self,
        by: &Administrator,
        domain: Domain,
        state: RemoteState,
    ) -> Result<(), RemoteError> {
        let audit = by.does("remote-state-set", &domain);
        let now = self.clock.now();
        self.change(domain, audit, move |before| {
            let before = before.ok_or(RemoteError::Unknown)?;
            let ended = match (before.state, state) {
                (RemoteState::Ended, RemoteState::Ended) => before.ended,
                (RemoteState::Ended, _) => return Err(RemoteError::Ended),
                (_, RemoteState::Ended) => Some(now),
                _ => None,
            };
            Ok(RemotePolicy { state, ended, ..before.clone() })
        })
        .await
    }

    async fn change(
        &self,
        domain: Domain,
        audit: AuditEntry,
        rule: impl FnOnce(Option<&RemotePolicy>) -> Result<RemotePolicy, RemoteError> + Send + 'static,
    ) -> Result<(), RemoteError> {
        if domain == self.domain {
            return Err(RemoteError::OwnDomain);
        }
        let this = self.clone();
        detached(async move {
            let _changing = this.changing.lock().await;
            let current = this.current();
            let before = current.remotes.get(&domain);
            if before.is_none() && current.remotes.len() >= MAX_REMOTES {
                return Err(RemoteError::TooMany);
            }
            let after = rule(before)?;
            if before == Some(&after) {
                return Ok(());
            }
            let version = (current.version + 1).max(this.clock.now().millis().unsigned_abs());
            let detail = describe(&after);
            this.store.put(domain.clone(), after.clone(), version, audit.detail(detail), this.clock.now()).await?;
            let mut remotes = current.remotes.clone();
            remotes.insert(domain, after);
            this.publish(PolicySnapshot { version, strategy: this.strategy, remotes });
            Ok(())
        })
        .await
    }

    fn publish(&self, snapshot: PolicySnapshot) {
        self.policy.update(snapshot.clone());
        self.watched.send_replace(Arc::new(snapshot));
    }

    /// Confirms to this process's own policy that the list is current, for as long as it is polled.
    pub(crate) async fn keep_current(self) {
        let mut beat = tokio::time::interval(crate::beats::BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            self.policy.confirm();
        }
    }
}

/// For the audit record.
fn describe(remote: &RemotePolicy) -> String {
    let state = match remote.state {
        RemoteState::Active => "active",
        RemoteState::Suspended => "suspended",
        RemoteState::Ended => "ended",
    };
    let teams = remote.teams.as_ref().map_or_else(|| "any team".to_owned(), |teams| format!("{} teams", teams.len()));
    format!("{state}, {}, {teams}, {} pins", remote.search_policy, remote.pins.len())
}
