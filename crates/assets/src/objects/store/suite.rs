//! What every store of files must do.

use std::time::Duration;

use aldis_storage::{Db, DbOptions};
use aldis_types::{AssetKey, Retention, Timestamp, UserId};
use uuid::Uuid;

use super::{Asset, AssetStore, MIGRATIONS, SqliteAssets};
use crate::objects::token::TokenHash;

const NOW: Timestamp = Timestamp::EPOCH;

fn asset(retention: Retention) -> Asset {
    Asset {
        key: AssetKey { retention, id: Uuid::new_v4() },
        owner: UserId::new(Uuid::new_v4()),
        token: Some(TokenHash([7; 32])),
        media_type: "image/png".parse().unwrap(),
        size: 5,
        sha256: [9; 32],
        expires: retention.expires(NOW),
    }
}

async fn stored(store: &dyn AssetStore, retention: Retention) -> Asset {
    let asset = asset(retention);
    store.begin(asset.key, asset.owner, NOW).await.unwrap();
    assert!(store.publish(&asset).await.unwrap());
    asset
}

/// Every case.
pub(crate) async fn run(store: &dyn AssetStore) {
    an_upload_is_visible_once_it_is_published(store).await;
    a_key_with_another_class_is_another_key(store).await;
    tokens_are_replaced(store).await;
    what_has_expired_is_gone_at_once_and_then_doomed(store).await;
    what_is_doomed_never_comes_back(store).await;
}

async fn an_upload_is_visible_once_it_is_published(store: &dyn AssetStore) {
    let asset = asset(Retention::Eternal);
    assert!(!store.publish(&asset).await.unwrap(), "it was not begun");
    store.begin(asset.key, asset.owner, NOW).await.unwrap();
    assert!(store.begin(asset.key, asset.owner, NOW).await.is_err(), "a key is used once");
    assert_eq!(store.get(asset.key, NOW).await.unwrap(), None);
    assert!(!store.set_token(asset.key, None).await.unwrap());
    assert!(store.publish(&asset).await.unwrap());
    assert_eq!(store.get(asset.key, NOW).await.unwrap(), Some(asset.clone()));
    assert!(!store.publish(&asset).await.unwrap(), "once");
}

async fn a_key_with_another_class_is_another_key(store: &dyn AssetStore) {
    let asset = stored(store, Retention::Eternal).await;
    let other = AssetKey { retention: Retention::Volatile, ..asset.key };
    assert_eq!(store.get(other, NOW).await.unwrap(), None);
    assert!(!store.set_token(other, None).await.unwrap());
}

async fn tokens_are_replaced(store: &dyn AssetStore) {
    let asset = stored(store, Retention::Persistent).await;
    for token in [Some(TokenHash([1; 32])), None] {
        assert!(store.set_token(asset.key, token).await.unwrap());
        assert_eq!(store.get(asset.key, NOW).await.unwrap().unwrap().token, token);
    }
}

async fn what_has_expired_is_gone_at_once_and_then_doomed(store: &dyn AssetStore) {
    let asset = stored(store, Retention::Volatile).await;
    let end = asset.expires.unwrap();
    let before = Timestamp::from_millis(end.millis() - 1);
    assert!(store.get(asset.key, before).await.unwrap().is_some());
    assert!(!store.doomed(before, NOW, 100).await.unwrap().contains(&asset.key));
    assert_eq!(store.get(asset.key, end).await.unwrap(), None);
    assert!(store.doomed(end, NOW, 100).await.unwrap().contains(&asset.key));
    store.forget(asset.key).await.unwrap();
    assert!(!store.doomed(end, NOW, 100).await.unwrap().contains(&asset.key));
}

async fn what_is_doomed_never_comes_back(store: &dyn AssetStore) {
    let visible = stored(store, Retention::Eternal).await;
    let begun = asset(Retention::Eternal);
    store.begin(begun.key, begun.owner, NOW).await.unwrap();
    let later = NOW.plus(Duration::from_secs(1));
    assert!(!store.doomed(NOW, NOW, 100).await.unwrap().contains(&begun.key), "it may still end well");
    assert!(store.doomed(NOW, later, 100).await.unwrap().contains(&begun.key), "it is stale");
    store.doom(visible.key).await.unwrap();
    store.doom(begun.key).await.unwrap();
    assert!(!store.publish(&begun).await.unwrap());
    assert_eq!(store.get(visible.key, NOW).await.unwrap(), None);
    let doomed = store.doomed(NOW, NOW, 100).await.unwrap();
    assert!(doomed.contains(&visible.key) && doomed.contains(&begun.key));
    assert_eq!(store.doomed(NOW, NOW, 1).await.unwrap().len(), 1, "no more than asked for");
    for key in doomed {
        store.forget(key).await.unwrap();
    }
    assert!(store.doomed(NOW, NOW, 100).await.unwrap().is_empty());
}

#[tokio::test]
async fn sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&folder.path().join("aldis.db"), &DbOptions::default()).unwrap();
    db.migrate("assets", MIGRATIONS).await.unwrap();
    run(&SqliteAssets(db)).await;
}

#[cfg(feature = "cql-tests")]
#[tokio::test]
async fn on_cql_the_suite_passes() {
    use super::{CLUSTER_MIGRATIONS, ScyllaAssets};
    let keyspace = aldis_storage::cql::testing::Keyspace::make("assets", CLUSTER_MIGRATIONS).await;
    let clock = std::sync::Arc::new(aldis_runtime::ManualClock::new(NOW));
    run(&ScyllaAssets::open(keyspace.cql.clone(), clock).await.unwrap()).await;
    keyspace.remove().await;
}
