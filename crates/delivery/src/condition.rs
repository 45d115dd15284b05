//! How the relays to other backends are doing: in memory, for the administrator.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aldis_types::{Domain, Timestamp};

use crate::window::Lane;

/// What a relay does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Activity {
    /// Nothing waits.
    #[default]
    Idle,
    /// Its stream is open, or is being opened for the first time.
    Delivering,
    /// The last attempt failed; it tries again and again.
    Retrying,
    /// The policy does not allow the backend: it is suspended, ended or not listed.
    NotAllowed,
    /// The administrator holds it.
    Paused,
    /// Another process carries its rows.
    Fenced,
}

impl Activity {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Delivering => "delivering",
            Self::Retrying => "retrying",
            Self::NotAllowed => "not-allowed",
            Self::Paused => "paused",
            Self::Fenced => "fenced",
        }
    }
}

/// How the relay to one backend is doing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Condition {
    pub(crate) activity: Activity,
    /// What went wrong last, and when.
    pub(crate) last_error: Option<(String, Timestamp)>,
    /// Lanes that the backend does not take right now, and why.
    pub(crate) lanes: HashMap<Lane, &'static str>,
}

/// The conditions of all relays.
#[derive(Debug, Default)]
pub(crate) struct Conditions(Mutex<HashMap<Domain, Condition>>);

impl Conditions {
    fn all(&self) -> MutexGuard<'_, HashMap<Domain, Condition>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, domain: &Domain) -> Condition {
        self.all().get(domain).cloned().unwrap_or_default()
    }

    pub(crate) fn set(&self, domain: &Domain, activity: Activity) {
        self.all().entry(domain.clone()).or_default().activity = activity;
    }

    /// Something went wrong, and will be tried again.
    pub(crate) fn failed(&self, domain: &Domain, error: String, now: Timestamp) {
        let mut all = self.all();
        let condition = all.entry(domain.clone()).or_default();
        condition.activity = Activity::Retrying;
        condition.last_error = Some((error, now));
        condition.lanes.clear();
    }

    pub(crate) fn hold_lane(&self, domain: &Domain, lane: Lane, why: &'static str) {
        self.all().entry(domain.clone()).or_default().lanes.insert(lane, why);
    }

    pub(crate) fn free_lane(&self, domain: &Domain, lane: &Lane) {
        if let Some(condition) = self.all().get_mut(domain) {
            condition.lanes.remove(lane);
        }
    }
}
