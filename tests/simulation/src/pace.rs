//! A store's steps take time, and any of them may be the last one of its process.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aldis_storage::{Moment, Pace};
use async_trait::async_trait;

use crate::{
    chance::Chance,
    trace::{Life, Trace},
};

/// The pace of one process's store.
pub(crate) struct Steps {
    pub(crate) life: Life,
    pub(crate) chance: Chance,
    pub(crate) trace: Trace,
    pub(crate) is_slow: AtomicBool,
    /// After how many steps the process is killed.
    pub(crate) left: Mutex<Option<u64>>,
}

impl Steps {
    /// Kills the process in so many steps.
    pub(crate) fn kill_in(&self, steps: u64) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(steps);
    }

    /// Nothing goes wrong any more.
    pub(crate) fn recover(&self) {
        self.is_slow.store(false, Ordering::SeqCst);
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn is_last(&self) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(steps) = left.as_mut() else { return false };
        *steps = steps.saturating_sub(1);
        *steps == 0
    }

    fn pause(&self) -> Duration {
        let most = match self.chance.number(20) {
            0 => 25,
            1..=5 => 3,
            _ => 0,
        };
        let most = if self.is_slow.load(Ordering::SeqCst) { 20 * (most + 1) } else { most };
        if most == 0 { Duration::ZERO } else { self.chance.millis(1, most) }
    }
}

#[async_trait]
impl Pace for Steps {
    async fn reach(&self, moment: Moment) {
        self.life.go_on().await;
        self.trace.attempt("store");
        let pause = self.pause();
        if pause.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(pause).await;
        }
        self.life.go_on().await;
        if self.is_last() {
            self.trace.note(format_args!("the process ends at {moment:?}"));
            self.life.end();
            self.life.go_on().await;
        }
    }
}
