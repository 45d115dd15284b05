//! What was found, for people and for programs.

use std::fmt;

use aldis_federator::probe::{Check, Outcome, Side};
use aldis_types::Domain;
use serde::Serialize;

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Our own domain; absent when the configuration cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<Domain>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partner: Option<Domain>,
    /// `passed` or `failed`.
    outcome: Outcome,
    own: Vec<Check>,
    way: Vec<Check>,
}

impl Report {
    pub(super) fn new(domain: &Domain, partner: Option<&Domain>) -> Self {
        Self {
            domain: Some(domain.clone()),
            partner: partner.cloned(),
            outcome: Outcome::Passed,
            own: Vec::new(),
            way: Vec::new(),
        }
    }

    /// Nothing could be found out but this.
    pub(super) fn of_nobody(check: Check) -> Self {
        let outcome = check.outcome;
        Self { domain: None, partner: None, outcome, own: vec![check], way: Vec::new() }
    }

    /// About our own set-up.
    pub(super) fn ours(&mut self, checks: impl IntoIterator<Item = Check>) {
        self.own.extend(checks);
        self.judge();
    }

    /// About the way to the partner.
    pub(super) fn theirs(&mut self, checks: impl IntoIterator<Item = Check>) {
        self.way.extend(checks);
        self.judge();
    }

    fn judge(&mut self) {
        if self.checks().any(|check| check.outcome == Outcome::Failed) {
            self.outcome = Outcome::Failed;
        }
    }

    /// Whether any check failed.
    pub fn failed(&self) -> bool {
        self.outcome == Outcome::Failed
    }

    /// All checks, those of our own set-up first.
    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        self.own.iter().chain(&self.way)
    }

    /// The checks of this name: one, or one for each of several targets.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Check> {
        self.checks().filter(move |check| check.name == name)
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "ok",
        Outcome::Warning => "WARNING",
        Outcome::Failed => "FAILED",
        Outcome::Skipped => "skipped",
    }
}

fn place(side: Side) -> &'static str {
    match side {
        Side::Ours => "here",
        Side::Theirs => "at the partner",
        Side::Between => "here or at the partner",
    }
}

fn line(f: &mut fmt::Formatter<'_>, check: &Check) -> fmt::Result {
    write!(f, "  {:8} {:26} ", word(check.outcome), check.name)?;
    if let Some(about) = &check.about {
        write!(f, "{about}: ")?;
    }
    writeln!(f, "{}", check.found)?;
    match (&check.side, &check.advice) {
        (Some(side), Some(advice)) => writeln!(f, "{:11}to do {}: {advice}", "", place(*side)),
        _ => Ok(()),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.domain {
            Some(domain) => writeln!(f, "{domain}: own set-up")?,
            None => writeln!(f, "own set-up")?,
        }
        self.own.iter().try_for_each(|check| line(f, check))?;
        if let Some(partner) = &self.partner {
            writeln!(f, "\nthe way to {partner}")?;
            self.way.iter().try_for_each(|check| line(f, check))?;
        }
        let count = |outcome| self.checks().filter(|check| check.outcome == outcome).count();
        let (passed, failed) = (count(Outcome::Passed), count(Outcome::Failed));
        let (warnings, skipped) = (count(Outcome::Warning), count(Outcome::Skipped));
        writeln!(f, "\n{passed} ok, {warnings} warnings, {failed} failed, {skipped} skipped")
    }
}
