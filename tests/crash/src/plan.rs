//! Which faults happen when: decided by the seed alone.

use std::{fmt, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// What happens to a backend, or between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `kill -9`, and started again.
    Kill,
    /// Asked to stop, and started again.
    Stop,
    /// Stopped in its tracks; it keeps its sockets and goes on later.
    Freeze,
    /// DNS answers nobody.
    Dns,
    /// As before, and a backend that remembers nothing is started meanwhile.
    DnsAndKill,
    /// The federation certificate is replaced by another good one.
    Certificate,
    /// The federation certificate is replaced by one that nobody trusts, and later by a good one.
    BadCertificate,
    /// The store may not grow.
    DiskFull,
}

/// Kinds with how often each is chosen.
const WEIGHTS: [(Kind, u32); 8] = [
    (Kind::Kill, 28),
    (Kind::Stop, 10),
    (Kind::Freeze, 24),
    (Kind::Dns, 8),
    (Kind::DnsAndKill, 6),
    (Kind::Certificate, 8),
    (Kind::BadCertificate, 8),
    (Kind::DiskFull, 8),
];

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Peace before it.
    pub(crate) after: Duration,
    pub(crate) kind: Kind,
    /// Place of the backend in the list.
    pub(crate) side: usize,
    /// From its beginning to its end.
    pub(crate) lasting: Duration,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill -9",
            Self::Stop => "restart",
            Self::Freeze => "freeze",
            Self::Dns => "no DNS",
            Self::DnsAndKill => "no DNS and kill -9",
            Self::Certificate => "new certificate",
            Self::BadCertificate => "bad certificate",
            Self::DiskFull => "disk full",
        })
    }
}

/// The generator of random choices for one task of a campaign.
pub(crate) fn dice(seed: u64, task: u64) -> StdRng {
    StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(task))
}

/// Faults without end, the same for a seed.
pub(crate) struct Plan {
    dice: StdRng,
    sides: usize,
}

impl Plan {
    pub(crate) fn new(seed: u64, sides: usize) -> Self {
        Self { dice: dice(seed, 0), sides }
    }
}

impl Iterator for Plan {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        let dice = &mut self.dice;
        let total: u32 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut left = dice.random_range(0..total);
        let (kind, _) = WEIGHTS.iter().find(|(_, weight)| {
            let here = left < *weight;
            left = left.saturating_sub(*weight);
            here
        })?;
        let (shortest, longest) = match kind {
            Kind::Kill | Kind::Stop | Kind::Certificate => (0, 2_000),
            Kind::Freeze => (500, 7_000),
            // Longer than records may be kept.
            Kind::Dns | Kind::DnsAndKill => (2_000, 14_000),
            // Longer than it takes until a file is read again.
            Kind::BadCertificate | Kind::DiskFull => (2_500, 8_000),
        };
        Some(Fault {
            after: Duration::from_millis(dice.random_range(500..4_000)),
            kind: *kind,
            side: dice.random_range(0..self.sides),
            lasting: Duration::from_millis(dice.random_range(shortest..longest)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_faults_again_and_another_one_others() {
        let faults = |seed| Plan::new(seed, 2).take(50).collect::<Vec<_>>();
        assert_eq!(faults(7), faults(7));
        assert_ne!(faults(7), faults(8));
    }

    #[test]
    fn every_kind_comes_to_every_side() {
        let faults: Vec<_> = Plan::new(1, 3).take(1_000).collect();
        let seen: BTreeSet<_> = faults.iter().map(|fault| (fault.kind, fault.side)).collect();
        assert_eq!(seen.len(), WEIGHTS.len() * 3);
    }
}
