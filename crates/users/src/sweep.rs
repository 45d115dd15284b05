//! Removing what has expired.

use std::{sync::Arc, time::Duration};

use aldis_peers::QUOTA_SWEEP;
use aldis_runtime::SharedClock;
use aldis_storage::StoreError;
use aldis_types::Timestamp;

use crate::{
    accounts::store::AccountStore,
    auth::{Auth, store::AuthStore},
    config::Config,
    lifecycle::store::LifecycleStore,
    quotas::Quotas,
};

/// What is swept.
pub(crate) struct Sweeper {
    pub(crate) config: Arc<Config>,
    pub(crate) accounts: Arc<dyn AccountStore>,
    pub(crate) sessions: Arc<dyn AuthStore>,
    pub(crate) auth: Arc<Auth>,
    pub(crate) lifecycle: Arc<dyn LifecycleStore>,
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) clock: SharedClock,
}

impl Sweeper {
    /// Runs until it is dropped.
    pub(crate) async fn run(self) {
        let mut turn = tokio::time::interval(QUOTA_SWEEP);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            self.quotas.sweep();
            if let Err(error) = self.auth.drop_old_keys().await {
                tracing::error!(%error, "forgetting old token keys failed");
            }
            if let Err(error) = self.sweep().await {
                tracing::error!(%error, "removing expired rows failed");
            }
        }
    }

    async fn sweep(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let before = |age: Duration| Timestamp::from_millis(now.millis() - i64::try_from(age.as_millis()).unwrap_or(0));
        let unactivated = before(Duration::from_secs(self.config.limits.unactivated_seconds));
        let audit = before(self.config.retention.audit());
        self.sessions.sweep(now).await?;
        self.lifecycle.sweep(now).await?;
        self.accounts.sweep(now, unactivated, audit).await?;
        Ok(())
    }
}
