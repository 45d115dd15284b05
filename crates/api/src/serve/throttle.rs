//! How often a caller may ask: a bounded number of buckets, per user where there is a token, else per address.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher, Hash},
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use aldis_types::UserId;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter, clock::Clock, clock::DefaultClock};
use http::Method;

use super::{config::ThrottleConfig, cors::is_below};
use crate::{HttpError, label};

/// Routes that need no token: counted per address and route.
const OPEN: [&str; 19] = [
    "/register",
    "/activate/send",
    "/activate",
    "/login",
    "/delete",
    "/password-reset/complete",
    "/password-reset",
    "/verification-code/send",
    "/conversations/code-check",
    "/custom-backend/by-domain",
    "/sso",
    "/system/settings/unauthorized",
    "/get-domain-registration",
    "/teams/invitations/info",
    "/provider",
    "/deeplink.json",
    "/deeplink.html",
    "/config.json",
    "/clientblacklist",
];
/// Routes that are never counted: renewal of tokens, what monitors and apps poll, and the files of the web client.
const EXEMPT: [&str; 4] = ["/access", "/api-version", "/status", "/app"];
/// What is below an exempt route and counted all the same.
const COUNTED: &str = "/access/self";
/// Routes with a higher rate.
const RELAXED: [&str; 2] = ["/one2one-conversations", "/mls/key-packages/claim"];
/// Buckets shared by strangers once too many callers are known.
const SHARED_BUCKETS: u64 = 1024;
/// The number of known callers is looked at once per this many requests.
const LOOK_EVERY: u32 = 1024;

/// Who is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Caller {
    User(UserId),
    Address(IpAddr),
    Shared(u64),
}

/// How a route is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    Exempt,
    /// Index of the route in [`OPEN`].
    Open(usize),
    User,
    Relaxed,
}

impl Class {
    pub(super) fn of(method: &Method, path: &str) -> Self {
        let download = (method == Method::GET || method == Method::HEAD) && is_below(path, "/assets");
        let exempt = EXEMPT.iter().any(|prefix| is_below(path, prefix)) && !is_below(path, COUNTED);
        if download || exempt {
            return Self::Exempt;
        }
        if let Some(index) = OPEN.iter().position(|prefix| is_below(path, prefix)) {
            return Self::Open(index);
        }
        if RELAXED.iter().any(|prefix| is_below(path, prefix)) { Self::Relaxed } else { Self::User }
    }
}

/// A rate per key with a bounded number of keys.
struct Rate<K: Hash + Eq + Clone> {
    limiter: DefaultKeyedRateLimiter<K>,
    max_keys: usize,
    asked: AtomicU32,
    full: AtomicBool,
}

impl<K: Hash + Eq + Clone> Rate<K> {
    fn new(quota: Quota, max_keys: usize) -> Self {
        Self { limiter: RateLimiter::keyed(quota), max_keys, asked: AtomicU32::new(0), full: AtomicBool::new(false) }
    }

    /// Whether strangers must share buckets by now. Forgets callers who have been quiet first.
    fn is_full(&self) -> bool {
        if self.asked.fetch_add(1, Ordering::Relaxed) % LOOK_EVERY == LOOK_EVERY - 1 {
            if self.limiter.len() > self.max_keys / 2 {
                self.limiter.retain_recent();
            }
            self.full.store(self.limiter.len() >= self.max_keys, Ordering::Relaxed);
        }
        self.full.load(Ordering::Relaxed)
    }

    /// Seconds to wait when the rate is exceeded.
    fn check(&self, key: &K) -> Result<(), u64> {
        self.limiter.check_key(key).map_err(|until| {
            let wait = until.wait_time_from(DefaultClock::default().now());
            wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
        })
    }
}

pub(super) struct Throttle {
    open: Rate<(Caller, usize)>,
    user: Rate<Caller>,
    relaxed: Rate<Caller>,
    under_way: Arc<Mutex<HashMap<Caller, u32>>>,
    open_parallel: u32,
    user_parallel: u32,
    hasher: RandomState,
}

/// Counts a request as under way until dropped.
pub(super) struct UnderWay {
    counts: Arc<Mutex<HashMap<Caller, u32>>>,
    caller: Caller,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.caller);
            }
        }
    }
}

fn at_least_one(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

impl Throttle {
    /// `None` when throttling is off.
    pub(super) fn new(config: &ThrottleConfig) -> Option<Self> {
        if !config.enabled {
            return None;
        }
        let per_second = |rate, burst| Quota::per_second(at_least_one(rate)).allow_burst(at_least_one(burst));
        let open = Quota::per_minute(at_least_one(config.open_per_minute)).allow_burst(at_least_one(config.open_burst));
        Some(Self {
            open: Rate::new(open, config.max_callers),
            user: Rate::new(per_second(config.user_per_second, config.user_burst), config.max_callers),
            relaxed: Rate::new(per_second(config.relaxed_per_second, config.relaxed_burst), config.max_callers),
            under_way: Arc::default(),
            open_parallel: config.open_parallel,
            user_parallel: config.user_parallel,
            hasher: RandomState::new(),
        })
    }

    /// Admits a request, or answers 420. `user` is the verified user of the request's token, if any.
    pub(super) fn admit(
        &self,
        class: Class,
        address: IpAddr,
        user: impl FnOnce() -> Option<UserId>,
    ) -> Result<Option<UnderWay>, HttpError> {
        let address = Caller::Address(network(address));
        let (caller, outcome, parallel) = match class {
            Class::Exempt => return Ok(None),
            Class::Open(route) => {
                let caller = if self.open.is_full() { self.shared(&address) } else { address };
                (caller, self.open.check(&(caller, route)), self.open_parallel)
            }
            Class::User | Class::Relaxed => {
                let rate = if class == Class::User { &self.user } else { &self.relaxed };
                // A bad token is answered 401 further on; until then its bearer is known by address alone.
                let caller = user().map_or(address, Caller::User);
                let caller = if rate.is_full() { self.shared(&caller) } else { caller };
                (caller, rate.check(&caller), self.user_parallel)
            }
        };
        outcome.map_err(refused)?;
        let mut counts = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(caller).or_default();
        if *count >= parallel {
            return Err(refused(1));
        }
        *count += 1;
        Ok(Some(UnderWay { counts: self.under_way.clone(), caller }))
    }

    /// Buckets of open routes.
    #[cfg(test)]
    pub(super) fn known_callers(&self) -> usize {
        self.open.limiter.len()
    }

    fn shared(&self, caller: &Caller) -> Caller {
        Caller::Shared(self.hasher.hash_one(caller) % SHARED_BUCKETS)
    }
}

fn refused(seconds: u64) -> HttpError {
    metrics::counter!("aldis_http_throttled_total").increment(1);
    HttpError::from(label::TOO_MANY_REQUESTS).retry_after(seconds.clamp(1, Duration::from_secs(3600).as_secs()))
}

/// What one customer of a network provider gets: an IPv4 address, or an IPv6 network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let bits = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(bits))
        }
    }
}
