//! DNS: what is found, what is not, and what is remembered.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::support::{
    dns::{Mood, Target},
    wait::eventually,
};
use aldis_runtime::{Random, SystemRandom};
use anyhow::ensure;
use tokio::time::advance;

use super::world::{Backend, Proxy, World, domain, host};
use crate::{
    StaticTarget,
    discovery::{Cache, order},
    network::{LookupError, SrvRecord},
};

#[tokio::test]
async fn a_domain_without_a_record_is_invalid_and_a_failing_dns_is_not() {
    let world = World::new().await;
    let alpha = world.backend("alpha.test").await;
    let answer = alpha.call("nowhere.test", "Echo").await;
    assert_eq!(Backend::label(&answer, "nowhere.test"), (422, "invalid-domain"));
    // A service that is decidedly not offered.
    world.dns.set_federator("closed.test", &[Target::new(".", 0)]).unwrap();
    let answer = alpha.call("closed.test", "Echo").await;
    assert_eq!(Backend::label(&answer, "closed.test"), (422, "invalid-domain"));
    for mood in [Mood::Failing, Mood::Silent] {
        world.dns.set_mood(mood);
        let target = format!("{mood:?}.test").to_lowercase();
        let answer = alpha.call(&target, "Echo").await;
        assert_eq!(Backend::label(&answer, &target), (400, "discovery-failure"));
    }
}

#[tokio::test]
async fn federation_goes_on_while_dns_fails() {
    let world = World::new().await;
    world.dns.set_ttl(1);
    let mut config = world.config(&world.identity("alpha.test"));
    config.connection_max_age_seconds = 2;
    let alpha = world.backend_with("alpha.test", config).await;
    let beta = world.backend("beta.test").await;
    let proxy = Proxy::to(beta.port).await;
    world.point("beta.test", &[proxy.port]);
    assert!(alpha.call("beta.test", "Echo").await.is_ok());
    world.dns.set_mood(Mood::Failing);
    // Beyond the time to live, in both directions, over new connections too.
    eventually("new connections without DNS", async || {
        let answer = alpha.call("beta.test", "Echo").await;
        assert!(answer.is_ok(), "{answer:?}");
        ensure!(proxy.accepted() >= 3);
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_peer_that_moves_is_followed() {
    let world = World::new().await;
    world.dns.set_ttl(1);
    let alpha = world.backend("alpha.test").await;
    let old = world.backend("beta.test").await;
    assert!(alpha.call("beta.test", "Echo").await.is_ok());
    let new = world.backend("beta.test").await;
    eventually("the new place", async || {
        assert!(alpha.call("beta.test", "Echo").await.is_ok());
        ensure!(!new.echo.seen().is_empty());
        Ok(())
    })
    .await
    .unwrap();
    assert!(!old.echo.seen().is_empty());
}

#[tokio::test]
async fn static_targets_need_no_dns() {
    let world = World::new().await;
    world.dns.set_mood(Mood::Silent);
    let fixed = |name: &str, port| {
        let target = StaticTarget { host: host(name), port, address: Some([127, 0, 0, 1].into()) };
        (domain(name), vec![target])
    };
    let mut config = world.config(&world.identity("beta.test"));
    config.static_targets = [fixed("alpha.test", 9)].into();
    let beta = Backend::start("beta.test", config, None).await;
    let mut config = world.config(&world.identity("alpha.test"));
    config.static_targets = [fixed("beta.test", beta.port)].into();
    let alpha = Backend::start("alpha.test", config, None).await;
    assert!(alpha.call("beta.test", "Echo").await.is_ok());
}

fn record(priority: u16, weight: u16, host: &str) -> SrvRecord {
    SrvRecord { priority, weight, port: 1, host: host.to_owned() }
}

struct Highest;

impl Random for Highest {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0xff);
    }

    fn below(&self, bound: u64) -> u64 {
        bound - 1
    }
}

#[test]
fn targets_are_ordered_by_priority_and_drawn_by_weight() {
    let records = [record(20, 1, "last"), record(10, 3, "heavy"), record(10, 1, "light"), record(10, 0, "rare")];
    let mut firsts = std::collections::HashMap::new();
    for _ in 0..5_000 {
        let ordered = order(&records, &SystemRandom);
        assert_eq!(ordered.len(), 4);
        assert_eq!(ordered[3].host, "last");
        *firsts.entry(ordered[0].host.clone()).or_insert(0) += 1;
    }
    // Numbers 0 to 4: 0 draws the record without weight, 1 the light one, 2 to 4 the heavy one.
    assert!((2_700..3_300).contains(&firsts["heavy"]), "{firsts:?}");
    assert!((800..1_200).contains(&firsts["light"]), "{firsts:?}");
    assert!((800..1_200).contains(&firsts["rare"]), "{firsts:?}");

    let hosts: Vec<_> = order(&records, &Highest).into_iter().map(|record| record.host).collect();
    assert_eq!(hosts, ["heavy", "light", "rare", "last"]);
    assert!(order(&[], &Highest).is_empty());
}

type Answer = Result<(u32, Duration), LookupError>;

struct Source {
    answer: Mutex<Answer>,
    asked: AtomicUsize,
}

impl Source {
    fn set(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn cache(stale: Duration) -> (Arc<Cache<u8, u32>>, Arc<Source>) {
    let source = Arc::new(Source { answer: Mutex::new(Ok((1, Duration::from_secs(100)))), asked: AtomicUsize::new(0) });
    let from = source.clone();
    let fetch = move |_| -> futures::future::BoxFuture<'static, Answer> {
        let from = from.clone();
        Box::pin(async move {
            from.asked.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
            from.answer.lock().unwrap().clone()
        })
    };
    (Cache::new(stale, Box::new(fetch)), source)
}

fn failed() -> Answer {
    Err(LookupError::Failed("no".to_owned()))
}

const HOUR: Duration = Duration::from_hours(1);

#[tokio::test(start_paused = true)]
async fn equal_look_ups_are_one_and_live_as_long_as_the_record() {
    let (cache, source) = cache(HOUR);
    let all = futures::future::join_all((0..10).map(|_| cache.get(1))).await;
    assert!(all.iter().all(|found| found.as_ref().unwrap().value == 1));
    assert_eq!(source.asked(), 1);
    source.set(Ok((2, Duration::from_secs(100))));
    advance(Duration::from_secs(70)).await;
    let found = cache.get(1).await.unwrap();
    assert_eq!((found.value, source.asked()), (1, 1));
    assert!(found.fresh_for <= Duration::from_secs(30));
    // Renewed in the background before it ends.
    advance(Duration::from_secs(20)).await;
    assert_eq!(cache.get(1).await.unwrap().value, 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((cache.get(1).await.unwrap().value, source.asked()), (2, 2));
    // Unused, it ends.
    advance(Duration::from_secs(101)).await;
    source.set(Ok((3, Duration::from_secs(100))));
    assert_eq!(cache.get(1).await.unwrap().value, 3);
}

#[tokio::test(start_paused = true)]
async fn an_old_answer_is_served_while_dns_fails_but_not_for_ever() {
    let (cache, source) = cache(HOUR);
    assert_eq!(cache.get(1).await.unwrap().value, 1);
    source.set(failed());
    advance(Duration::from_secs(200)).await;
    for _ in 0..3 {
        let found = cache.get(1).await.unwrap();
        assert_eq!((found.value, found.fresh_for), (1, Duration::ZERO));
    }
    assert_eq!(source.asked(), 2, "a failure is believed for a moment");
    advance(Duration::from_secs(3)).await;
    assert_eq!(cache.get(1).await.unwrap().value, 1);
    assert_eq!(source.asked(), 3);
    advance(HOUR).await;
    assert_eq!(cache.get(1).await.unwrap_err(), failed().unwrap_err());
    source.set(Ok((2, Duration::from_secs(100))));
    advance(Duration::from_secs(3)).await;
    assert_eq!(cache.get(1).await.unwrap().value, 2);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_gone_is_gone_and_remembered_for_a_short_time() {
    let (cache, source) = cache(HOUR);
    assert_eq!(cache.get(1).await.unwrap().value, 1);
    let gone = LookupError::NotFound { ttl: Duration::from_hours(24) };
    source.set(Err(gone.clone()));
    advance(Duration::from_secs(101)).await;
    assert_eq!(cache.get(1).await.unwrap_err(), gone);
    assert_eq!(cache.get(1).await.unwrap_err(), gone);
    assert_eq!(source.asked(), 2);
    // However long DNS says.
    source.set(Ok((2, Duration::from_secs(100))));
    advance(Duration::from_secs(31)).await;
    assert_eq!(cache.get(1).await.unwrap().value, 2);
}
