//! A store that is restored from a backup.

use aldis_types::Timestamp;

use super::*;

fn reopened(store: Store) -> Store {
    let Store { db, _folder: folder } = store;
    drop(db);
    let db = Db::open(&folder.path().join("aldis.db"), &DbOptions::default()).unwrap();
    Store { db, _folder: folder }
}

/// Puts the copy that was made before in the place of the store.
fn restored(store: Store, id: u8) -> Store {
    let path = store.db.path().to_owned();
    let copy = path.with_file_name("backup.db");
    let now = Timestamp::from_millis(1_800_000_000_000 + i64::from(id));
    aldis_storage::restore(&copy, &path, &domain("alpha.test"), [id; 16], now).unwrap();
    reopened(store)
}

fn down(pair: &Pair) {
    pair.down.store(true, Ordering::SeqCst);
    pair.cut.send_modify(|cut| *cut += 1);
}

#[tokio::test]
async fn what_comes_after_a_restore_arrives_once_and_what_waited_is_not_repeated() {
    let first = pair().await;
    first.alpha.db.belongs_to(&domain("alpha.test")).await.unwrap();
    first.send(["a", "b"].map(|body| to_beta(1, body)).into()).await;
    eventually("the first events", async || first.count("conversations_outbox").await == 0).await;
    down(&first);
    first.send(vec![to_beta(1, "c"), to_beta(2, "d")]).await;
    let path = first.alpha.db.path().to_owned();
    aldis_storage::copy(&path, &path.with_file_name("backup.db")).unwrap();
    first.down.store(false, Ordering::SeqCst);
    first.send(vec![to_beta(1, "lost here")]).await;
    eventually("everything arrived", async || first.count("conversations_outbox").await == 0).await;

    let Pair { alpha, beta, _relay: relay, .. } = first;
    drop(relay);
    let second = pair_of(restored(alpha, 1), beta, None).await;
    second.send([(1, "e"), (2, "f"), (3, "g")].map(|(lane, body)| to_beta(lane, body)).into()).await;
    eventually("the outbox is empty", async || second.count("conversations_outbox").await == 0).await;
    assert_eq!(second.seen(1).await, ["a", "b", "c", "lost here", "e"]);
    assert_eq!(second.seen(2).await, ["d", "f"]);
    assert_eq!(second.seen(3).await, ["g"]);
    assert_eq!(second.seen(0).await.len(), 1, "another store was noticed");
    eventually("the earlier store is forgotten", async || second.count("conversations_outbox_earlier").await == 0)
        .await;

    // The same backup once more, and a start in between.
    let Pair { alpha, beta, _relay: relay, .. } = second;
    drop(relay);
    let third = pair_of(reopened(restored(alpha, 2)), beta, None).await;
    third.send(vec![to_beta(1, "h"), to_beta(2, "i")]).await;
    eventually("the outbox is empty", async || third.count("conversations_outbox").await == 0).await;
    assert_eq!(third.seen(1).await, ["a", "b", "c", "lost here", "e", "h"]);
    assert_eq!(third.seen(2).await, ["d", "f", "i"]);
    assert_eq!(third.seen(0).await.len(), 2);
}

#[tokio::test]
async fn what_waited_for_a_backend_that_was_away_all_the_time_arrives_after_a_restore() {
    let first = pair().await;
    first.alpha.db.belongs_to(&domain("alpha.test")).await.unwrap();
    first.send(vec![to_beta(1, "a")]).await;
    eventually("the first event", async || first.count("conversations_outbox").await == 0).await;
    down(&first);
    first.send(["b", "c"].map(|body| to_beta(1, body)).into()).await;
    let path = first.alpha.db.path().to_owned();
    aldis_storage::copy(&path, &path.with_file_name("backup.db")).unwrap();
    let Pair { alpha, beta, _relay: relay, .. } = first;
    drop(relay);
    let second = pair_of(restored(alpha, 1), beta, None).await;
    second.send(vec![to_beta(1, "d")]).await;
    eventually("the outbox is empty", async || second.count("conversations_outbox").await == 0).await;
    assert_eq!(second.seen(1).await, ["a", "b", "c", "d"]);
}

async fn opens(channel: &Channel, incarnation: u8, epoch: u64) -> Result<(), u64> {
    let component = "conversations".to_owned();
    let open = Open { incarnation: vec![incarnation; 16].into(), component, shard: 0, epoch };
    let mut answers = send_by_hand(channel.clone(), vec![deliver_request::Content::Open(open)]).await.unwrap();
    match answers.message().await.unwrap().unwrap().content.unwrap() {
        deliver_response::Content::Opened(_) => Ok(()),
        deliver_response::Content::Fenced(fenced) => Err(fenced.epoch),
        other @ deliver_response::Content::Outcomes(_) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_stream_that_was_opened_before_a_restore_and_comes_after_it_is_refused() {
    let beta = store().await;
    let (_cut, cuts) = watch::channel(0);
    let channel = transport(server(&beta), cuts, Arc::default());
    assert_eq!(opens(&channel, 1, 5).await, Ok(()));
    // Restored: another store, with a higher epoch.
    assert_eq!(opens(&channel, 2, 100).await, Ok(()));
    assert_eq!(opens(&channel, 1, 5).await, Err(100));
    assert_eq!(opens(&channel, 1, 99).await, Err(100));
    assert_eq!(opens(&channel, 2, 100).await, Ok(()), "it goes on");
    // What waited in the backup is sent as from the store before, by the restored one.
    assert_eq!(opens(&channel, 1, 100).await, Ok(()));
    assert_eq!(opens(&channel, 2, 100).await, Ok(()));
    // Whose clock was wrong at the restore is heard all the same.
    assert_eq!(opens(&channel, 3, 7).await, Ok(()));
    assert_eq!(opens(&channel, 3, 8).await, Ok(()));
}
