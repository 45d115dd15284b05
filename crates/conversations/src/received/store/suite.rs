//! Cases that every engine of [`MembershipStore`] must pass. Events and their positions are covered where they are
//! received.

use aldis_types::{ConversationId, Qualified, Relation, Timestamp, UserId};
use uuid::Uuid;

use super::{MemberChange, MembershipStore, StoredRecipients};
use crate::groups::{
    model::{Settings, SettingsUpdate},
    store::{ConversationStore, Mark, Written},
};

fn user(number: u128) -> UserId {
    UserId::new(Uuid::from_u128(number))
}

fn conversation(number: u128, domain: &str) -> Qualified<ConversationId> {
    Qualified::new(ConversationId::new(Uuid::from_u128(number)), domain.parse().unwrap())
}

fn mark(id: &Qualified<ConversationId>, user: UserId, time: i64) -> Mark {
    let time = Timestamp::from_millis(time);
    Mark { conversation: id.id, user, time, relation: Some(Relation::Accepted) }
}

fn join(users: &[UserId]) -> MemberChange {
    MemberChange { join: users.iter().copied().collect(), ..MemberChange::default() }
}

/// Rows follow relations, an older one is ignored, and the index follows the rows.
pub(crate) async fn follows_relations(store: &dyn MembershipStore, index: &dyn ConversationStore) {
    let (ann, ben) = (user(1), user(2));
    let (first, second) = (conversation(5, "beta.test"), conversation(4, "gamma.test"));
    for id in [&second, &first] {
        let applied = store.apply_relation(id.clone(), join(&[ann]), mark(id, ann, 10), vec![]).await.unwrap();
        assert!(applied.is_some());
    }
    assert!(store.apply_relation(first.clone(), join(&[ben]), mark(&first, ben, 10), vec![]).await.unwrap().is_some());
    let found = store.load(std::slice::from_ref(&first)).await.unwrap();
    assert_eq!(found[0].users().collect::<Vec<_>>(), [ann, ben]);
    assert_eq!(index.list_remote(ann, None, 10).await.unwrap(), [first.clone(), second.clone()]);
    assert_eq!(index.list_remote(ann, None, 1).await.unwrap(), std::slice::from_ref(&first));
    assert_eq!(index.list_remote(ann, Some(first.clone()), 10).await.unwrap(), std::slice::from_ref(&second));
    assert!(index.list_own(ann, None, 10).await.unwrap().is_empty());
    assert!(index.is_in_elsewhere(ann, first.id).await.unwrap());
    assert!(!index.is_in_elsewhere(ben, second.id).await.unwrap());
    let leave = || MemberChange { leave: [ann].into(), ..MemberChange::default() };
    let late = store.apply_relation(first.clone(), leave(), mark(&first, ann, 9), vec![]).await.unwrap();
    assert!(late.is_none());
    assert!(store.load(std::slice::from_ref(&first)).await.unwrap()[0].contains(ann));
    assert!(store.apply_relation(first.clone(), leave(), mark(&first, ann, 11), vec![]).await.unwrap().is_some());
    assert!(!store.load(std::slice::from_ref(&first)).await.unwrap()[0].contains(ann));
    store.forget(first.clone(), ben, vec![]).await.unwrap();
    assert!(store.load(&[first]).await.unwrap().is_empty());
    assert_eq!(index.list_remote(ann, None, 10).await.unwrap(), [second]);
}

/// Places in conversations of one backend are forgotten a few at a time, and whoever had some is told.
pub(crate) async fn forgets_a_backend(store: &dyn MembershipStore, index: &dyn ConversationStore) {
    let (ann, ben) = (user(1), user(2));
    let ended: aldis_types::Domain = "ended.test".parse().unwrap();
    let stays = conversation(9, "stays.test");
    store.apply_relation(stays.clone(), join(&[ann]), mark(&stays, ann, 1), vec![]).await.unwrap();
    for number in 1..=3 {
        let id = conversation(number, "ended.test");
        store.apply_relation(id.clone(), join(&[ann, ben]), mark(&id, ann, 1), vec![]).await.unwrap();
    }
    let (first, third) = (conversation(1, "ended.test").id, conversation(3, "ended.test").id);
    let places = async |after| store.places(&ended, after, 3).await.unwrap();
    assert_eq!(places(None).await.first(), Some(&(first, ann)));
    assert_eq!(places(Some(places(None).await[2])).await.last(), Some(&(third, ben)));
    assert!(places(Some((third, ben))).await.is_empty());
    let told = std::sync::Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
    let mut steps = Vec::new();
    for _ in 0..3 {
        let all = told.clone();
        let told: super::Told = Box::new(move |users| {
            all.lock().unwrap().extend(users.iter().copied());
            Vec::new()
        });
        steps.push(store.forget_some(&ended, 4, told).await.unwrap());
    }
    assert_eq!(steps, [4, 2, 0]);
    assert_eq!(told.lock().unwrap().iter().copied().collect::<Vec<_>>(), [ann, ben]);
    assert!(store.load(&[conversation(1, "ended.test")]).await.unwrap().is_empty());
    assert_eq!(index.list_remote(ann, None, 10).await.unwrap(), std::slice::from_ref(&stays));
    assert!(index.list_remote(ben, None, 10).await.unwrap().is_empty());
}

/// Settings belong to one member and stay when he is told to join again.
pub(crate) async fn keeps_settings(store: &dyn MembershipStore) {
    let (ann, ben) = (user(1), user(2));
    let id = conversation(5, "beta.test");
    let nothing = || Box::new(|_: &_| Written::default());
    let update = SettingsUpdate { hidden: Some(true), ..SettingsUpdate::default() };
    let absent = store.update_settings(id.clone(), ann, update.clone(), nothing()).await.unwrap();
    assert!(absent.is_none());
    store.apply_relation(id.clone(), join(&[ann, ben]), mark(&id, ann, 1), vec![]).await.unwrap();
    assert!(store.update_settings(id.clone(), ann, update, nothing()).await.unwrap().is_some());
    store.apply_relation(id.clone(), join(&[ann]), mark(&id, ann, 2), vec![]).await.unwrap();
    let found = store.load(&[id]).await.unwrap().remove(0);
    assert_eq!(found.settings(ann), Some(&Settings { hidden: true, ..Settings::default() }));
    assert_eq!(found.settings(ben), Some(&Settings::default()));
    assert_eq!(found.settings(user(3)), None);
    let recipients = StoredRecipients::everybody(Some(&found), &join(&[user(3)]));
    assert_eq!(recipients.iter().collect::<Vec<_>>(), [ann, ben, user(3)]);
    assert!(StoredRecipients::everybody(None, &MemberChange::default()).is_empty());
}

mod sqlite {
    use std::sync::Arc;

    use aldis_delivery::{Component, Outbox};
    use aldis_runtime::ManualClock;
    use aldis_storage::{Db, DbOptions};
    use aldis_types::Domain;

    use crate::{
        groups::store::{MIGRATIONS, SqliteConversations},
        received::store::SqliteMemberships,
    };

    async fn engines() -> (SqliteMemberships, SqliteConversations, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("aldis.db"), &DbOptions::default()).unwrap();
        db.migrate("conversations", MIGRATIONS).await.unwrap();
        let domain: Domain = "alpha.test".parse().unwrap();
        let clock = Arc::new(ManualClock::default());
        let outbox = Outbox::open(Component::Conversations, domain.clone(), db.clone(), clock.clone()).await.unwrap();
        let index = SqliteConversations::new(domain, db.clone(), outbox.clone(), clock.clone());
        (SqliteMemberships::new(db, outbox, clock), index, folder)
    }

    #[tokio::test]
    async fn follows_relations() {
        let (store, index, _folder) = engines().await;
        super::follows_relations(&store, &index).await;
    }

    #[tokio::test]
    async fn forgets_a_backend() {
        let (store, index, _folder) = engines().await;
        super::forgets_a_backend(&store, &index).await;
    }

    #[tokio::test]
    async fn keeps_settings() {
        let (store, _, _folder) = engines().await;
        super::keeps_settings(&store).await;
    }
}
