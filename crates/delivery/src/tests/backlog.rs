//! Many events at once.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::window::MAX_ROWS;

/// Moves lanes on, a batch with one write; counts.
struct Counts {
    db: Db,
    batches: Arc<AtomicUsize>,
    largest: Arc<AtomicUsize>,
}

#[async_trait]
impl Receive for Counts {
    async fn receive(&self, _: &Origin, envelopes: Vec<Envelope>, positions: &Positions) -> Vec<Verdict> {
        let (positions, count) = (positions.clone(), envelopes.len());
        self.batches.fetch_add(1, Ordering::SeqCst);
        self.largest.fetch_max(count, Ordering::SeqCst);
        let moved = self.db.write(move |tx| envelopes.iter().try_for_each(|envelope| positions.advance(tx, envelope)));
        vec![moved.await.map_or(Verdict::Deferred, |()| Verdict::Applied); count]
    }

    async fn missed(&self, _: &Origin, envelopes: Vec<Envelope>, _: &Positions) -> Vec<Verdict> {
        vec![Verdict::Deferred; envelopes.len()]
    }

    async fn renewed(&self, _: &Origin, _: [u8; 16]) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_backlog_drains_in_batches_of_bounded_size() {
    const EVENTS: usize = 20_000;
    const LANES: usize = 200;
    const STEP: usize = 2_000;
    let (alpha, beta) = (store().await, store().await);
    let (batches, largest) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let counts = Counts { db: beta.db.clone(), batches: batches.clone(), largest: largest.clone() };
    let (db, clock) = (beta.db.clone(), Arc::new(SystemClock));
    let receiving = Receiving::default();
    let server = conversations_server(domain("beta.test"), db, clock, open_policy(), receiving, Arc::new(counts));
    let (_cut, cuts) = watch::channel(0);
    let down = Arc::new(AtomicBool::new(true));
    let peers = Peers::new(transport(Routes::new(server), cuts, down.clone()));
    let pair = pair_with(alpha, beta, peers, open_policy()).await;
    for step in 0..EVENTS / STEP {
        let lane = |number: usize| u8::try_from((step * STEP + number) % LANES).unwrap();
        pair.send((0..STEP).map(|number| to_beta(lane(number), "a text of some length")).collect()).await;
    }
    assert_eq!(pair.count("conversations_outbox").await, i64::try_from(EVENTS).unwrap());
    down.store(false, Ordering::SeqCst);
    eventually("the outbox is empty", async || pair.count("conversations_outbox").await == 0).await;
    let applied: i64 = pair
        .beta
        .db
        .read(|tx| Ok(tx.query_row("SELECT sum(last) FROM conversations_received", [], |row| row.get(0))?))
        .await
        .unwrap();
    assert_eq!(applied, i64::try_from(EVENTS).unwrap());
    // No more is on its way, and so in memory, than a window; what is applied together is about as much.
    assert!(largest.load(Ordering::SeqCst) <= 2 * MAX_ROWS);
    assert!(batches.load(Ordering::SeqCst) < EVENTS / 16, "{batches:?} batches");
}
