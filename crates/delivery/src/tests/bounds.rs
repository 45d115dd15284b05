//! Backends that are away for too long, are held, or lost what they knew.

use std::sync::atomic::AtomicU32;

use aldis_types::RemoteState;

use super::*;
use crate::condition::Activity;

const FOR_EVER: Duration = Duration::from_hours(1_000_000);

fn text(letter: char) -> String {
    letter.to_string().repeat(100)
}

async fn marks(store: &Store) -> Vec<(String, bool, u8, String)> {
    store
        .db
        .read(|tx| {
            let mut query = tx.prepare("SELECT peer, ours, lane, reason FROM conversations_reconcile ORDER BY lane")?;
            let rows = query.query_map([], |row| {
                let lane: Vec<u8> = row.get(2)?;
                Ok((row.get(0)?, row.get(1)?, lane.first().copied().unwrap_or_default(), row.get(3)?))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
        .unwrap()
}

fn mark(peer: &str, ours: bool, lane: u8, reason: &str) -> (String, bool, u8, String) {
    (peer.to_owned(), ours, lane, reason.to_owned())
}

#[tokio::test]
async fn what_is_too_much_is_dropped_oldest_first_and_both_sides_know() {
    let pair = pair().await;
    pair.down.store(true, Ordering::SeqCst);
    for (lane, letter) in [(1, 'a'), (1, 'b'), (2, 'c'), (1, 'd'), (2, 'e'), (3, 'f')] {
        pair.send(vec![to_beta(lane, &text(letter))]).await;
    }
    assert_eq!(pair.outbox.enforce(FOR_EVER, 600).await.unwrap(), 0);
    assert_eq!(pair.outbox.enforce(FOR_EVER, 450).await.unwrap(), 2);
    assert_eq!(pair.outbox.enforce(FOR_EVER, 220).await.unwrap(), 2, "what stands for them counts a little");
    assert_eq!(pair.count("conversations_outbox").await, 4, "a row per lane stands for what was dropped");
    let dropped: i64 = pair
        .alpha
        .db
        .read(|tx| Ok(tx.query_row("SELECT dropped FROM conversations_outbox_peers", [], |row| row.get(0))?))
        .await
        .unwrap();
    assert_eq!(dropped, 4);
    pair.down.store(false, Ordering::SeqCst);
    eventually("the outbox is empty", async || pair.count("conversations_outbox").await == 0).await;
    assert_eq!(pair.seen(1).await, ["missed 1-3"]);
    assert_eq!(pair.seen(2).await, ["missed 1-1".to_owned(), text('e')]);
    assert_eq!(pair.seen(3).await, [text('f')]);
    let ours = [1, 2].map(|lane| mark("beta.test", true, lane, "dropped"));
    let theirs = [1, 2].map(|lane| mark("alpha.test", false, lane, "dropped"));
    assert_eq!(marks(&pair.alpha).await, ours);
    assert_eq!(marks(&pair.beta).await, theirs);
    pair.send(vec![to_beta(1, "g")]).await;
    eventually("the outbox is empty", async || pair.count("conversations_outbox").await == 0).await;
    assert_eq!(pair.seen(1).await, ["missed 1-3", "g"]);
}

#[tokio::test]
async fn what_is_too_old_is_dropped() {
    let pair = pair().await;
    pair.down.store(true, Ordering::SeqCst);
    pair.send(vec![to_beta(1, "a"), to_beta(1, "b")]).await;
    pair.alpha
        .db
        .write(|tx| Ok(tx.execute("UPDATE conversations_outbox SET created = created - 60000", [])?))
        .await
        .unwrap();
    pair.send(vec![to_beta(1, "c")]).await;
    assert_eq!(pair.outbox.enforce(Duration::from_secs(50), u64::MAX).await.unwrap(), 2);
    pair.down.store(false, Ordering::SeqCst);
    eventually("the outbox is empty", async || pair.count("conversations_outbox").await == 0).await;
    assert_eq!(pair.seen(1).await, ["missed 1-2", "c"]);
}

#[tokio::test]
async fn what_was_dropped_may_have_been_applied_in_part() {
    let beta = store().await;
    let (_cut, cuts) = watch::channel(0);
    let channel = transport(server(&beta), cuts, Arc::default());
    let id = |sequence| event_id(&domain("alpha.test"), &[7; 16], "conversations", &[1; 16], sequence);
    let dropped = |sequence, previous| super_pb::Envelope {
        kind: 2,
        body: Bytes::new(),
        ..envelope(sequence, previous, id(sequence))
    };
    let first = vec![envelope(1, 0, id(1)), envelope(2, 1, id(2)), dropped(5, 0), envelope(6, 5, id(6))];
    let outcomes = deliver_by_hand(channel.clone(), first).await.unwrap();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, outcome::Result::Applied(_))), "{outcomes:?}");
    let again = deliver_by_hand(channel, vec![dropped(5, 0), dropped(9, 7)]).await.unwrap();
    assert!(matches!(again[0], outcome::Result::Applied(_)));
    assert!(matches!(&again[1], outcome::Result::Gap(gap) if gap.last == 6), "{again:?}");
    let seen: i64 =
        beta.db.read(|tx| Ok(tx.query_row("SELECT count(*) FROM seen", [], |row| row.get(0))?)).await.unwrap();
    assert_eq!(seen, 4);
}

#[tokio::test]
async fn a_peer_that_lost_what_it_had_acknowledged_is_told_what_it_misses() {
    let first = pair().await;
    first.send(["a", "b"].map(|body| to_beta(1, body)).into()).await;
    first.send(vec![to_beta(2, "c")]).await;
    eventually("the outbox is empty", async || first.count("conversations_outbox").await == 0).await;
    let Pair { alpha, _relay: relay, .. } = first;
    drop(relay);
    let second = pair_of(alpha, store().await, None).await;
    second.send(["d", "e"].map(|body| to_beta(1, body)).into()).await;
    second.send(vec![to_beta(3, "f")]).await;
    eventually("the outbox is empty", async || second.count("conversations_outbox").await == 0).await;
    assert_eq!(second.seen(1).await, ["missed 1-2", "d", "e"]);
    assert_eq!(second.seen(3).await, ["f"]);
    assert_eq!(marks(&second.alpha).await, [mark("beta.test", true, 1, "lost-by-peer")]);
    assert_eq!(marks(&second.beta).await, [mark("alpha.test", false, 1, "dropped")]);
}

#[tokio::test]
async fn another_store_of_a_known_peer_is_noticed_once() {
    let beta = store().await;
    let (_cut, cuts) = watch::channel(0);
    let channel = transport(server(&beta), cuts, Arc::default());
    for (incarnation, epoch) in [(7, 1), (7, 2), (8, 1), (8, 2), (7, 3)] {
        let open =
            Open { incarnation: vec![incarnation; 16].into(), component: "conversations".to_owned(), shard: 0, epoch };
        let mut answers = send_by_hand(channel.clone(), vec![deliver_request::Content::Open(open)]).await.unwrap();
        answers.message().await.unwrap().unwrap();
    }
    let seen: Vec<String> = beta
        .db
        .read(|tx| {
            let mut query = tx.prepare("SELECT body FROM seen ORDER BY number")?;
            let rows = query.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
            Ok(rows.map(|body| String::from_utf8(body.unwrap()).unwrap()).collect())
        })
        .await
        .unwrap();
    assert_eq!(seen, ["renewed 8"]);
    assert_eq!(marks(&beta).await, [mark("alpha.test", false, 0, "store-renewed")]);
}

#[tokio::test]
async fn a_refused_change_marks_its_lane_and_a_refused_message_does_not() {
    let pair = pair().await;
    let change = Outgoing { kind: 13, ..to_beta(1, "reject") };
    pair.send(vec![change, to_beta(1, "a"), to_beta(2, "reject")]).await;
    eventually("the outbox is empty", async || pair.count("conversations_outbox").await == 0).await;
    assert_eq!(pair.seen(1).await, ["a"]);
    assert_eq!(pair.count("conversations_outbox_dead").await, 2);
    assert_eq!(marks(&pair.alpha).await, [mark("beta.test", true, 1, "refused")]);
}

#[tokio::test]
async fn a_relay_that_is_held_waits_over_a_restart_until_it_may_go_on() {
    let first = pair().await;
    let beta = domain("beta.test");
    first.send(vec![to_beta(1, "a")]).await;
    eventually("the first event", async || first.count("conversations_outbox").await == 0).await;
    first.outbox.set_paused(&beta, true).await.unwrap();
    first.send(vec![to_beta(1, "b")]).await;
    let paused = async |pair: &Pair| pair.outbox.shared.conditions.get(&beta).activity == Activity::Paused;
    eventually("the relay is held", async || paused(&first).await).await;
    let Pair { alpha, beta: store, _relay: relay, .. } = first;
    drop(relay);
    let second = pair_of(alpha, store, None).await;
    eventually("the relay is held again", async || paused(&second).await).await;
    assert_eq!(second.count("conversations_outbox").await, 1);
    second.outbox.set_paused(&beta, false).await.unwrap();
    eventually("the outbox is empty", async || second.count("conversations_outbox").await == 0).await;
    assert_eq!(second.seen(1).await, ["a", "b"]);
}

#[tokio::test]
async fn a_peer_that_is_not_allowed_keeps_its_backlog() {
    let (alpha, beta) = (store().await, store().await);
    let (_cut, cuts) = watch::channel(0);
    let policy = Policy::new(Duration::from_secs(3600));
    let listed = |version, state| {
        let mut snapshot = PolicySnapshot { version, strategy: Strategy::AllowAll, ..PolicySnapshot::default() };
        snapshot
            .remotes
            .insert(domain("beta.test"), aldis_types::RemotePolicy::new(state, aldis_types::SearchPolicy::NoSearch));
        snapshot
    };
    policy.update(listed(1, RemoteState::Suspended));
    let peers = Peers::new(transport(server(&beta), cuts, Arc::default()));
    let pair = pair_with(alpha, beta, peers, policy.clone()).await;
    pair.send(vec![to_beta(1, "a")]).await;
    let activity = || pair.outbox.shared.conditions.get(&domain("beta.test")).activity;
    eventually("the relay sees that it may not", async || activity() == Activity::NotAllowed).await;
    assert_eq!(pair.count("conversations_outbox").await, 1);
    policy.update(listed(2, RemoteState::Active));
    eventually("the outbox is empty", async || pair.count("conversations_outbox").await == 0).await;
    assert_eq!(pair.seen(1).await, ["a"]);
}

#[tokio::test]
async fn a_peer_that_has_too_much_to_do_is_asked_again() {
    let (alpha, beta) = (store().await, store().await);
    let (_cut, cuts) = watch::channel(0);
    let inner = transport(server(&beta), cuts, Arc::default());
    let refused = Arc::new(AtomicU32::new(0));
    let counted = refused.clone();
    let busy = boxed(service_fn(move |request: http::Request<Body>| {
        let (inner, counted) = (inner.clone(), counted.clone());
        async move {
            if counted.fetch_add(1, Ordering::SeqCst) < 4 {
                return Ok(Status::resource_exhausted("busy").into_http());
            }
            inner.oneshot(request).await
        }
    }));
    let pair = pair_with(alpha, beta, Peers::new(busy), open_policy()).await;
    pair.send(["a", "b"].map(|body| to_beta(1, body)).into()).await;
    eventually("it was tried", async || refused.load(Ordering::SeqCst) > 1).await;
    let condition = pair.outbox.shared.conditions.get(&domain("beta.test"));
    assert!(condition.last_error.is_some_and(|(error, _)| error.contains("beta.test")));
    eventually("the outbox is empty", async || pair.count("conversations_outbox").await == 0).await;
    assert_eq!(pair.seen(1).await, ["a", "b"]);
    assert_eq!(pair.count("conversations_outbox_dead").await, 0);
}
