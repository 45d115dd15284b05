//! The result: for people, and as JSON.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use crate::check::{Findings, Tally};

/// Everything that one campaign found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) backends: usize,
    /// From the first fault's beginning to when nothing new was begun.
    pub(crate) seconds: u64,
    /// Until everything that was confirmed had come.
    pub(crate) settled_seconds: u64,
    /// Requests, repeated ones too.
    pub(crate) operations: u64,
    pub(crate) faults: BTreeMap<String, u64>,
    pub(crate) findings: Findings,
    /// What must not happen and is neither loss nor order: processes that end, answers that cannot be read.
    pub(crate) odd: Tally,
    /// How each operation ended, and how often.
    pub(crate) answers: BTreeMap<String, u64>,
}

impl Report {
    pub(crate) fn is_clean(&self) -> bool {
        self.findings.is_clean() && self.odd.count == 0
    }

    fn wrong(&self) -> [(&'static str, &Tally); 6] {
        let Findings { lost, duplicated, reordered, diverged, unexpected, .. } = &self.findings;
        [
            ("lost", lost),
            ("duplicated", duplicated),
            ("reordered", reordered),
            ("diverged", diverged),
            ("unexpected", unexpected),
            ("odd", &self.odd),
        ]
    }

    /// Counts, and the first offenders.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let faults: u64 = self.faults.values().sum();
        let kinds: Vec<String> = self.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        // Writing to a String cannot fail.
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            let _ = writeln!(text, "{name:<12} {value}");
        };
        line("seed", &self.seed);
        line("seconds", &self.seconds);
        line("settled in", &format_args!("{} s", self.settled_seconds));
        line("operations", &self.operations);
        line("confirmed", &self.findings.confirmed);
        line("faults", &format_args!("{faults} ({})", kinds.join(", ")));
        line("delivered", &self.findings.delivered);
        for (name, tally) in self.wrong() {
            line(name, &tally.count);
        }
        for (name, tally) in self.wrong() {
            for offender in &tally.first {
                let _ = writeln!(text, "  {name}: {offender}");
            }
        }
        text
    }

    /// The line of the table in `docs/reliability.md`.
    pub(crate) fn row(&self) -> String {
        let Findings { confirmed, delivered, lost, duplicated, reordered, diverged, .. } = &self.findings;
        let faults: u64 = self.faults.values().sum();
        format!(
            "| {} | {} | {} | {faults} | {} | {confirmed} | {delivered} | {} | {} | {} | {} |",
            self.seed,
            self.backends,
            self.seconds,
            self.operations,
            lost.count,
            duplicated.count,
            reordered.count,
            diverged.count,
        )
    }
}
