//! Lists of clients that other backends let us rely on for a few seconds, so that we need not ask for every message.
//!
//! The other backend confirms a change of its users' clients only after we have forgotten the list, or our lease has run
//! out by its clock, which started later than ours.

use std::time::Duration;

use aldis_types::{ClientId, Domain, UserId};
use tokio::time::Instant;

use crate::{
    cache::{Cache, Generation},
    users::ClientMap,
};

/// Clients kept, over all users.
const CACHED_CLIENTS: u64 = 200_000;
/// No lease is relied on for longer.
const LONGEST: Duration = Duration::from_secs(30);

/// How long an answer may be relied on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lease {
    until: Instant,
}

impl Lease {
    /// From when the question was asked; `None` without a lease.
    pub(crate) fn new(asked_at: Instant, millis: u32) -> Option<Self> {
        let length = Duration::from_millis(millis.into()).min(LONGEST);
        (!length.is_zero()).then(|| Self { until: asked_at + length })
    }
}

struct Leased {
    clients: Vec<ClientId>,
    lease: Lease,
}

/// The lists that may be relied on.
pub(crate) struct Leases(Cache<(Domain, UserId), Leased>);

impl Default for Leases {
    fn default() -> Self {
        let weigh = |leased: &Leased| u32::try_from(leased.clients.len() + 1).unwrap_or(u32::MAX);
        Self(Cache::new(CACHED_CLIENTS, weigh))
    }
}

impl Leases {
    /// Enters the lists that may be relied on at `now`; the rest has to be asked for, and can be kept with what is given
    /// here.
    pub(crate) fn known(
        &self,
        domain: &Domain,
        users: &[UserId],
        map: &mut ClientMap,
        now: Instant,
    ) -> Vec<(UserId, Generation)> {
        let mut unknown = Vec::new();
        for user in users {
            let key = (domain.clone(), *user);
            let generation = self.0.generation(&key);
            match self.0.get(&key).filter(|leased| now < leased.lease.until) {
                Some(leased) if leased.clients.is_empty() => {}
                Some(leased) => drop(map.insert(*user, leased.clients.clone())),
                None => unknown.push((*user, generation)),
            }
        }
        unknown
    }

    /// Keeps what was answered for users who were unknown, unless it was to be forgotten since.
    pub(crate) fn keep(&self, domain: &Domain, asked: &[(UserId, Generation)], answered: &ClientMap, lease: Lease) {
        for (user, generation) in asked {
            let clients = answered.get(user).cloned().unwrap_or_default();
            self.0.insert((domain.clone(), *user), *generation, Leased { clients, lease }.into());
        }
    }

    /// Relies no longer on the lists of these users.
    pub(crate) fn forget(&self, domain: &Domain, users: &[UserId]) {
        for user in users {
            self.0.forget(&(domain.clone(), *user));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_relied_on_until_it_is_forgotten_or_the_lease_ends() {
        let leases = Leases::default();
        let domain: Domain = "beta.test".parse().unwrap();
        let [ann, bob] = [1, 2].map(|number| UserId::new(uuid::Uuid::from_u128(number)));
        let start = Instant::now();
        let known_at = |users: &[UserId], millis| {
            let mut map = ClientMap::new();
            let unknown = leases.known(&domain, users, &mut map, start + Duration::from_millis(millis));
            (map, unknown)
        };
        let known = |users: &[UserId]| known_at(users, 0);
        let answered = ClientMap::from([(ann, vec![ClientId(7)])]);
        let lease = Lease::new(start, 3_000).unwrap();
        assert!(Lease::new(start, 0).is_none());

        let (_, asked) = known(&[ann, bob]);
        assert_eq!(asked.len(), 2);
        leases.keep(&domain, &asked, &answered, lease);
        let (map, unknown) = known(&[ann, bob]);
        assert_eq!((map, unknown.len()), (answered.clone(), 0), "that bob has none is known too");

        leases.forget(&domain, &[ann]);
        let (map, unknown) = known(&[ann, bob]);
        assert!(map.is_empty() && unknown.len() == 1);
        // An answer that was on its way when the list was to be forgotten.
        let (_, asked) = known(&[ann]);
        leases.forget(&domain, &[ann]);
        leases.keep(&domain, &asked, &answered, lease);
        assert_eq!(known(&[ann]).1.len(), 1);

        let (_, asked) = known(&[ann]);
        leases.keep(&domain, &asked, &answered, lease);
        assert_eq!(known_at(&[ann], 2_999).0, answered);
        assert_eq!(known_at(&[ann], 3_000).1.len(), 1, "it counts from when it was asked for");
    }
}
