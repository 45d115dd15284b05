//! Connections: consent between two users. What may follow what is in [`machine`]; this is who is asked and told.
//!
//! Blocking and ignoring are nobody else's business: they work while the other backend is down. A request asks the other
//! backend first and changes nothing here when that fails; taking one back is done here and told by the outbox.

pub(crate) mod asking;
mod error;
pub(crate) mod events;
pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod machine;
pub(crate) mod reconciliation;
mod remote;
pub(crate) mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use aldis_api::Session;
use aldis_peers::Policy;
use aldis_runtime::SharedClock;
use aldis_types::{Domain, Locality, Name, Qualified, Relation, UserId};
pub(crate) use error::ConnectionError;
pub(crate) use remote::Asked;

use self::{
    asking::InProgress,
    machine::{Outcome, Pair},
    store::{Change, Changed, ConnectionRow, ConnectionStore, Decide, Decision, Refusal, Sides, Write, Written},
};
use crate::{
    accounts::{Account, LOCAL_DELIVERY, store::AccountStore},
    config::Config,
    detached::detached,
    events::Effects,
    peers::UserPeers,
};

/// The parts that [`Connections`] is made of.
pub(crate) struct ConnectionParts {
    pub(crate) domain: Domain,
    pub(crate) store: Arc<dyn ConnectionStore>,
    pub(crate) accounts: Arc<dyn AccountStore>,
    pub(crate) peers: UserPeers,
    pub(crate) policy: Policy,
    pub(crate) clock: SharedClock,
    /// Requests that are on their way.
    pub(crate) in_progress: InProgress,
}

/// Connections with users here and elsewhere.
#[derive(Clone)]
pub(crate) struct Connections {
    config: Arc<Config>,
    parts: Arc<ConnectionParts>,
}

/// A connection after a request.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) row: ConnectionRow,
    /// Whether there was none before.
    pub(crate) created: bool,
}

impl Connections {
    pub(crate) fn new(config: Arc<Config>, parts: ConnectionParts) -> Self {
        Self { config, parts: Arc::new(parts) }
    }

    pub(crate) fn store(&self) -> &Arc<dyn ConnectionStore> {
        &self.parts.store
    }

    /// How a user stands to another.
    pub(crate) async fn get(&self, user: UserId, other: &Qualified<UserId>) -> Result<ConnectionRow, ConnectionError> {
        self.parts.store.get(user, other).await?.ok_or(ConnectionError::NotFound)
    }

    /// Asks to connect, or accepts what the other one asked.
    pub(crate) async fn connect(
        &self,
        session: Session,
        other: Qualified<UserId>,
    ) -> Result<Connected, ConnectionError> {
        let me = self.activated(session.user).await?;
        let changed = match self.parts.domain.locate(other) {
            Locality::Local(other) => {
                if *other.id() == session.user || !self.can_be_connected(*other.id()).await? {
                    return Err(ConnectionError::InvalidUser);
                }
                let decide = |sides: &Sides| machine::connect(sides.my_status(), sides.their_status());
                self.change_pair(session, me.name, other.into_qualified(), decide).await?
            }
            Locality::Remote(other) => self.connect_remote(session, me.name, other).await?,
        };
        let created = changed.before.is_none();
        let row = changed.after.ok_or(ConnectionError::NotFound)?;
        Ok(Connected { row, created })
    }

    /// Brings a connection to the wanted status; `None` when it already was there.
    pub(crate) async fn update(
        &self,
        session: Session,
        other: Qualified<UserId>,
        wanted: Relation,
    ) -> Result<Option<ConnectionRow>, ConnectionError> {
        let me = self.own(session.user).await?;
        let changed = match self.parts.domain.locate(other) {
            Locality::Local(other) => {
                let decide = move |sides: &Sides| match sides.my_status() {
                    Some(mine) => machine::change(mine, sides.their_status(), wanted),
                    None => Outcome::Refused,
                };
                self.change_pair(session, me.name, other.into_qualified(), decide).await?
            }
            Locality::Remote(other) => self.update_remote(session, me, other, wanted).await?,
        };
        let before = changed.before.map(|row| row.status);
        Ok(changed.after.filter(|row| Some(row.status) != before))
    }

    async fn own(&self, user: UserId) -> Result<Account, ConnectionError> {
        let account = self.parts.accounts.get(user).await?.filter(|account| !account.deleted);
        account.ok_or(ConnectionError::NotActivated)
    }

    async fn activated(&self, user: UserId) -> Result<Account, ConnectionError> {
        let account = self.own(user).await?;
        if account.is_activated() { Ok(account) } else { Err(ConnectionError::NotActivated) }
    }

    async fn can_be_connected(&self, user: UserId) -> Result<bool, ConnectionError> {
        let account = self.parts.accounts.get(user).await?;
        Ok(account.is_some_and(|account| account.is_activated() && !account.deleted))
    }

    /// Changes a connection between two users of ours.
    async fn change_pair(
        &self,
        session: Session,
        name: Name,
        other: Qualified<UserId>,
        rule: impl Fn(&Sides) -> Outcome + Send + Sync + 'static,
    ) -> Result<Changed, ConnectionError> {
        let limit = self.config.limits.connections;
        let decide: Decide = Arc::new(move |sides| match rule(sides) {
            Outcome::Unchanged => Decision::Keep,
            Outcome::Refused if sides.mine.is_none() => Decision::Refuse(Refusal::NotConnected),
            Outcome::Refused => Decision::Refuse(Refusal::BadUpdate),
            Outcome::Change(Pair { mine, .. }) if exceeds(sides, mine, limit) => Decision::Refuse(Refusal::Limit),
            Outcome::Change(Pair { mine, theirs }) => {
                Decision::Write { mine: mine.map(Write::announced), theirs: theirs.map(Write::announced) }
            }
        });
        let (domain, other_id) = (self.parts.domain.clone(), other.id);
        let effects: Effects<Written> = Arc::new(move |written: &Written| {
            let mut effects = Vec::with_capacity(4);
            if let Some(mine) = &written.mine {
                effects.extend(events::of_own_change(&session, mine, &domain, &name));
            }
            if let Some(theirs) = &written.theirs {
                effects.extend(events::of_others_change(other_id, theirs, &domain, Some(&name)));
            }
            effects
        });
        let change = Change { user: session.user, other, local: true, now: self.parts.clock.now(), decide, effects };
        self.apply(change).await
    }

    /// Writes a change and waits until our own services know of it. An answer may be given before they do when that
    /// takes too long: the rows stay.
    async fn apply(&self, change: Change) -> Result<Changed, ConnectionError> {
        let store = self.parts.store.clone();
        detached(async move {
            let mut changed = store.change(change).await?;
            if let Some(refusal) = changed.refused {
                return Err(ConnectionError::Refused(refusal));
            }
            if let Some(delivery) = changed.delivery.take() {
                delivery.local(LOCAL_DELIVERY).await;
            }
            Ok(changed)
        })
        .await
    }
}

const fn is_open(status: Option<Relation>) -> bool {
    matches!(status, Some(Relation::Sent | Relation::Accepted))
}

/// Whether a change to `status` would open one connection too many.
fn exceeds(sides: &Sides, status: Option<Relation>, limit: u32) -> bool {
    is_open(status) && !is_open(sides.my_status()) && sides.open >= limit
}
