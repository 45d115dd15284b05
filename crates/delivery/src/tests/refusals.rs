//! Answers that say why something was refused, and that are lost.

use super::*;
use crate::window::MAX_ROWS;

/// As [`transport`], but no answer after that to the opening comes through while `mute` is set.
fn mute_transport(server: Routes, mute: Arc<AtomicBool>, cut: watch::Receiver<u64>) -> Channel {
    let inner = transport(server, cut, Arc::default());
    boxed(service_fn(move |request: http::Request<Body>| {
        let (inner, mute) = (inner.clone(), mute.clone());
        async move {
            let response = inner.oneshot(request).await.map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(response.map(|body| {
                let mut is_first = true;
                let heard = BodyStream::new(body).filter(move |frame| {
                    let passes = std::mem::take(&mut is_first)
                        || !mute.load(Ordering::SeqCst)
                        || frame.as_ref().is_ok_and(|frame| !frame.is_data());
                    std::future::ready(passes)
                });
                Body::new(StreamBody::new(heard))
            }))
        }
    }))
}

async fn beta_count(pair: &Pair, table: &'static str) -> i64 {
    let query = format!("SELECT count(*) FROM {table}");
    pair.beta.db.read(move |tx| Ok(tx.query_row(&query, [], |row| row.get(0))?)).await.unwrap()
}

#[tokio::test]
async fn a_refusal_whose_answer_is_lost_is_answered_again() {
    let (alpha, beta) = (store().await, store().await);
    let (cut, cuts) = watch::channel(0);
    let mute = Arc::new(AtomicBool::new(true));
    let peers = Peers::new(mute_transport(server(&beta), mute.clone(), cuts));
    let pair = Pair { cut, ..pair_with(alpha, beta, peers, open_policy()).await };
    let rename = Outgoing { kind: 20, ..to_beta(2, "reject") };
    pair.send(vec![to_beta(1, "a"), to_beta(1, "reject"), to_beta(1, "b"), rename]).await;
    eventually("everything is decided", async || {
        pair.seen(1).await == ["a", "b"] && beta_count(&pair, "conversations_received_refusals").await == 2
    })
    .await;
    assert_eq!((pair.count("conversations_outbox").await, pair.count("conversations_outbox_dead").await), (4, 0));
    mute.store(false, Ordering::SeqCst);
    pair.cut.send_modify(|cut| *cut += 1);
    eventually("the outbox is empty", async || pair.count("conversations_outbox").await == 0).await;
    let dead = pair.alpha.db.read(|tx| {
        let mut query = tx.prepare("SELECT sequence, reason FROM conversations_outbox_dead ORDER BY id")?;
        let rows = query.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    });
    assert_eq!(dead.await.unwrap(), [(2, "bad-request".to_owned()), (1, "bad-request".to_owned())]);
    assert_eq!(pair.seen(1).await, ["a", "b"]);
    // A change of state that one side refused is compared by both.
    for db in [&pair.alpha.db, &pair.beta.db] {
        let marked = db.read(|tx| {
            Ok(tx.query_row("SELECT lane, reason FROM conversations_reconcile", [], |row| {
                Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, String>(1)?))
            })?)
        });
        assert_eq!(marked.await.unwrap(), ([2; 16], "refused".to_owned()));
    }
}

#[tokio::test]
async fn no_more_refusals_are_kept_than_may_be_on_their_way() {
    let pair = pair().await;
    for _ in 0..6 {
        pair.send((0..MAX_ROWS).map(|_| to_beta(1, "reject")).collect()).await;
    }
    eventually("the outbox is empty", async || pair.count("conversations_outbox").await == 0).await;
    let all = i64::try_from(6 * MAX_ROWS).unwrap();
    assert_eq!(pair.count("conversations_outbox_dead").await, all);
    assert_eq!(beta_count(&pair, "conversations_received_refusals").await, all / 3);
    let last = pair.beta.db.read(|tx| {
        Ok(tx.query_row("SELECT max(sequence), min(sequence) FROM conversations_received_refusals", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })?)
    });
    assert_eq!(last.await.unwrap(), (all, all - all / 3 + 1));
}
