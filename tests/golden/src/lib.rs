//! Holds our types against golden JSON: samples of the client API that are not part of this project.
//!
//! The tests exist with the feature `golden` alone, and `make test` leaves them out by name, so that a run without samples
//! never looks as if it had compared anything. `make test-golden GOLDEN=folder` runs them. The folder holds `golden/` and `golden-federation/`, whose files
//! are named `testObject_<type>_<number>.json`; files in `golden/fromJSON/` are read but never written.
//!
//! [`variations`] of samples are what nobody should send; [`expect_documented`] says whether a route may answer so. They
//! need no golden samples.
//!
//! Every type of sample belongs to the part of Aldis that reads or writes it, or is left out for a reason; see
//! [`Part::types`] and `left_out`. A type that nobody knows fails the tests, and so does one that is not checked.

#[cfg(all(test, feature = "golden"))]
mod labels;
mod table;
#[cfg(all(test, feature = "golden"))]
mod types;
mod variations;

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

pub use variations::{expect_documented, variations};

/// Who reads or writes a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The values that services share.
    Types,
    /// The users service.
    Users,
    /// The conversations service.
    Conversations,
    /// The notifications service.
    Notifications,
    /// The assets service.
    Assets,
}

/// What became of one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// We read or write it.
    Alike,
    /// It shows what we do not offer; says what.
    LeftOut(&'static str),
}

impl From<()> for Verdict {
    fn from((): ()) -> Self {
        Self::Alike
    }
}

/// The samples, and which of them a part has checked.
#[derive(Debug)]
pub struct Golden {
    part: Part,
    samples: Samples,
    checked: BTreeSet<&'static str>,
    failures: Vec<String>,
    alike: usize,
    left_out: BTreeMap<&'static str, usize>,
}

/// By type and file name.
type Samples = BTreeMap<String, BTreeMap<String, Value>>;

impl Golden {
    /// Reads the samples from the folder in `ALDIS_GOLDEN`.
    ///
    /// # Panics
    /// When there are none.
    pub fn of(part: Part) -> Self {
        let (samples, checked) = (samples(), BTreeSet::new());
        Self { part, samples, checked, failures: Vec::new(), alike: 0, left_out: BTreeMap::new() }
    }

    /// At most `count` samples of a type, for a second look: they do not count as checked.
    ///
    /// # Panics
    /// When the type has no samples.
    pub fn some(&self, kind: &str, count: usize) -> Vec<Value> {
        of_type(&self.samples, kind).values().take(count).cloned().collect()
    }

    /// Runs `check`, which panics for a difference, on every sample of a type.
    ///
    /// # Panics
    /// When the type has no samples.
    pub fn check<V: Into<Verdict>>(&mut self, kind: &'static str, mut check: impl FnMut(&Value) -> V) {
        let samples = of_type(&self.samples, kind);
        for (name, sample) in samples {
            // The text of the panic is among the output of the test.
            match catch_unwind(AssertUnwindSafe(|| check(sample).into())) {
                Ok(Verdict::Alike) => self.alike += 1,
                Ok(Verdict::LeftOut(why)) => *self.left_out.entry(why).or_default() += 1,
                Err(_) => self.failures.push(name.clone()),
            }
        }
        assert!(self.checked.insert(kind), "{kind} is checked twice");
    }

    /// As [`Golden::check`], for checks that ask a running service. The first difference ends the test.
    ///
    /// # Panics
    /// When the type has no samples.
    pub async fn ask(&mut self, kind: &'static str, check: impl AsyncFn(&Value)) {
        let samples = of_type(&self.samples, kind);
        for (name, sample) in samples {
            println!("{name}");
            check(sample).await;
            self.alike += 1;
        }
        assert!(self.checked.insert(kind), "{kind} is checked twice");
    }

    /// Every sample of the type can be read.
    pub fn reads<T: DeserializeOwned>(&mut self, kind: &'static str) {
        self.check(kind, |sample| drop(read::<T>(sample)));
    }

    /// Every sample of the type can be read, and is written as it was.
    pub fn round_trips<T: DeserializeOwned + Serialize>(&mut self, kind: &'static str) {
        self.check(kind, |sample| same(read::<T>(sample), sample));
    }

    /// What we write, at each of these JSON pointers, has no key that no sample of the type has there; and, where there
    /// are many samples, every key that all of them have.
    ///
    /// # Panics
    /// When the type has no samples.
    pub fn has_shape(&mut self, kind: &'static str, ours: &[(&str, &Value)]) {
        const MANY: usize = 10;
        let samples = of_type(&self.samples, kind).clone();
        let keys_at = |pointer: &str| -> Vec<_> {
            samples.values().filter_map(|sample| sample.pointer(pointer)).filter_map(keys).collect()
        };
        self.check(kind, |_| {
            for (pointer, ours) in ours {
                let ours = keys(ours).unwrap_or_else(|| panic!("not an object: {ours}"));
                let samples = keys_at(pointer);
                let known: BTreeSet<_> = samples.iter().flatten().cloned().collect();
                assert!(ours.is_subset(&known), "{kind}{pointer}: unknown keys {:?}", ours.difference(&known));
                let always = samples.iter().cloned().reduce(|a, b| &a & &b).unwrap_or_default();
                let complete = samples.len() < MANY || ours.is_superset(&always);
                assert!(complete, "{kind}{pointer}: missing keys {:?}", always.difference(&ours));
            }
        });
    }

    /// Ends the checks of the part.
    ///
    /// # Panics
    /// When a sample differs, or when what was checked is not what the part is to check.
    pub fn finish(self) {
        println!("{:?}: {} samples of {} types fit", self.part, self.alike, self.checked.len());
        for (why, count) in &self.left_out {
            println!("  {count} samples left out: {why}");
        }
        assert!(self.failures.is_empty(), "samples that differ: {:#?}", self.failures);
        let expected: BTreeSet<_> = self.part.types().iter().copied().collect();
        assert_eq!(self.checked, expected, "types that are, and that are to be, checked");
        assert!(self.alike > 0);
    }
}

/// Reads a sample.
///
/// # Panics
/// When that is not possible.
pub fn read<T: DeserializeOwned>(sample: &Value) -> T {
    serde_json::from_value(sample.clone()).unwrap_or_else(|error| panic!("{error} in {sample}"))
}

/// Compares what we write with a sample.
///
/// # Panics
/// When they differ.
pub fn same(ours: impl Serialize, sample: &Value) {
    let ours = serde_json::to_value(ours).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(&ours, sample, "ours, and the sample");
}

fn of_type<'a>(samples: &'a Samples, kind: &str) -> &'a BTreeMap<String, Value> {
    samples.get(kind).unwrap_or_else(|| panic!("no sample of {kind}"))
}

fn keys(value: &Value) -> Option<BTreeSet<String>> {
    Some(value.as_object()?.keys().cloned().collect())
}

fn samples() -> Samples {
    let folder = std::env::var_os("ALDIS_GOLDEN").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| panic!("ALDIS_GOLDEN does not name the folder of the samples"));
    let mut samples = Samples::new();
    add(&mut samples, &folder.join("golden"), "");
    add(&mut samples, &folder.join("golden/fromJSON"), "fromJSON/");
    add(&mut samples, &folder.join("golden-federation"), "federation/");
    samples
}

fn add(samples: &mut Samples, folder: &Path, prefix: &str) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut count = 0;
    for entry in entries {
        let path = entry.unwrap_or_else(|error| panic!("{}: {error}", folder.display())).path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some(name) = name.strip_prefix("testObject_").and_then(|name| name.strip_suffix(".json")) {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let sample = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            samples.entry(format!("{prefix}{}", kind(name))).or_default().insert(format!("{prefix}{name}"), sample);
            count += 1;
        }
    }
    assert!(count > 0, "no samples in {}", folder.display());
}

/// The type in a name: all but the number at its end.
fn kind(name: &str) -> &str {
    let kind = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
    kind.strip_suffix('_').unwrap_or(kind)
}

#[cfg(all(test, feature = "golden"))]
mod tests {
    use super::*;

    #[test]
    fn golden_types_have_one_place_each() {
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        let parts = [Part::Types, Part::Users, Part::Conversations, Part::Notifications, Part::Assets];
        let checked = parts.iter().flat_map(|part| part.types());
        let left_out = table::LEFT_OUT.iter().flat_map(|(_, kinds)| *kinds);
        for kind in checked.chain(left_out) {
            *places.entry(kind).or_default() += 1;
        }
        let twice: Vec<_> = places.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "in more than one place: {twice:?}");
        let samples = samples();
        let unknown: Vec<_> = samples.keys().filter(|kind| !places.contains_key(kind.as_str())).collect();
        assert!(unknown.is_empty(), "in no place: {unknown:#?}");
        let gone: Vec<_> = places.keys().filter(|kind| !samples.contains_key(**kind)).collect();
        assert!(gone.is_empty(), "without samples: {gone:#?}");
        for (why, kinds) in table::LEFT_OUT {
            let count: usize = kinds.iter().map(|kind| samples[*kind].len()).sum();
            println!("{count} samples of {} types left out: {why}", kinds.len());
        }
    }
}
