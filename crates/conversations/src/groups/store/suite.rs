//! Cases that every engine of [`ConversationStore`] must pass. `clock` is the one that the store goes by.

use aldis_runtime::ManualClock;
use aldis_types::{
    Access, ConversationId, ConversationType, Domain, Member, Qualified, Relation, RoleName, Timestamp, UserId,
};
use bytes::Bytes;
use uuid::Uuid;

use super::{Committed, ConversationStore, Edit, Effects, Mark, Stamp, Step, Written};
use crate::groups::model::{Conversation, Metadata, Settings, SettingsUpdate, StoredMember};

fn id(number: u128) -> ConversationId {
    ConversationId::new(Uuid::from_u128(number))
}

fn user(number: u128, domain: &str) -> Qualified<UserId> {
    Qualified::new(UserId::new(Uuid::from_u128(number)), domain.parse().unwrap())
}

fn member(user: Qualified<UserId>) -> Member {
    Member { user, role: RoleName::admin() }
}

fn conversation(number: u128, users: &[Qualified<UserId>]) -> Conversation {
    let mut members: Vec<_> =
        users.iter().map(|user| StoredMember { member: member(user.clone()), settings: Settings::default() }).collect();
    members.sort_by(|a, b| a.member.user.cmp(&b.member.user));
    let metadata = Metadata {
        name: Some("Name".to_owned()),
        creator: users.first().map(|user| user.id),
        access: vec![Access::Invite, Access::Code],
        message_timer: Some(5),
        receipt_mode: Some(1),
        ..Metadata::one_to_one(ConversationType::Regular)
    };
    Conversation { id: id(number), metadata, members, version: 1 }
}

fn nothing() -> Effects {
    Box::new(|_| Written::default())
}

fn answering(answer: &'static [u8]) -> Effects {
    Box::new(move |_| Written { answer: Bytes::from_static(answer), ..Written::default() })
}

fn done(step: Step) -> Stamp {
    match step {
        Step::Done(Committed { stamp, .. }) => stamp,
        other => panic!("{other:?}"),
    }
}

async fn load(store: &dyn ConversationStore, number: u128) -> Conversation {
    store.load(&[id(number)]).await.unwrap()[0].as_ref().clone()
}

/// What was created is read as it was written, and cannot be created twice.
pub(crate) async fn creates_once(store: &dyn ConversationStore) {
    let (ann, ben) = (user(1, "alpha.test"), user(2, "beta.test"));
    let new = conversation(1, &[ann, ben]);
    assert!(store.load(&[id(1)]).await.unwrap().is_empty());
    done(store.create(new.clone(), None, nothing()).await.unwrap());
    assert!(matches!(store.create(new.clone(), None, nothing()).await.unwrap(), Step::Conflict));
    assert_eq!(load(store, 1).await, new);
    let found = store.load(&[id(9), id(1)]).await.unwrap();
    assert_eq!(found.len(), 1);
}

/// Of several changes of the same version one is done; times rise even when the clock stands still or goes back.
pub(crate) async fn changes_step_by_step(store: &dyn ConversationStore, clock: &ManualClock) {
    let (ann, ben, cleo) = (user(1, "alpha.test"), user(2, "beta.test"), user(3, "alpha.test"));
    clock.set(Timestamp::from_millis(1000));
    let new = conversation(1, &[ann.clone(), ben.clone()]);
    let first = done(store.create(new.clone(), None, nothing()).await.unwrap());
    assert_eq!(first, Stamp { time: Timestamp::from_millis(1000), version: 1, sequence: 1 });
    let rename = |name: &str| {
        let metadata = Metadata { name: Some(name.to_owned()), ..new.metadata.clone() };
        Edit { metadata: Some(metadata), ..Edit::default() }
    };
    let (a, b, c) = tokio::join!(
        store.change(id(1), 1, vec![rename("a")], None, None, nothing()),
        store.change(id(1), 1, vec![rename("b")], None, None, nothing()),
        store.record_message(id(1), 1, None, nothing()),
    );
    let renamed = [a.unwrap(), b.unwrap()];
    assert_eq!(renamed.iter().filter(|step| matches!(step, Step::Done(_))).count(), 1);
    // The message was first or it has to be compared anew.
    let messages = u64::from(matches!(c.unwrap(), Step::Done(_)));
    clock.set(Timestamp::from_millis(10));
    let edit = Edit {
        add: vec![member(cleo.clone())],
        remove: vec![ben.clone()],
        role: Some(Member { user: ann.clone(), role: RoleName::member() }),
        ..Edit::default()
    };
    let before = load(store, 1).await;
    assert_eq!(before.version, 2);
    let expected = edit.apply(&before);
    let stamp = done(store.change(id(1), 2, vec![edit], None, None, nothing()).await.unwrap());
    assert_eq!((stamp.version, stamp.sequence), (3, 3 + messages));
    assert!(stamp.time > first.time);
    assert_eq!(load(store, 1).await, expected);
    let message = done(store.record_message(id(1), 3, None, nothing()).await.unwrap());
    assert_eq!((message.version, message.sequence), (3, stamp.sequence + 1));
    assert_eq!(message.time, stamp.time.plus(std::time::Duration::from_millis(1)));
    assert!(matches!(store.record_message(id(1), 2, None, nothing()).await.unwrap(), Step::Conflict));
    assert!(matches!(store.record_message(id(5), 1, None, nothing()).await.unwrap(), Step::Conflict));
}

/// A step with the same key is done once; its answer is kept until it is swept.
pub(crate) async fn answers_once_per_key(store: &dyn ConversationStore, clock: &ManualClock) {
    let ann = user(1, "alpha.test");
    clock.set(Timestamp::from_millis(1000));
    done(store.create(conversation(1, &[ann]), None, nothing()).await.unwrap());
    let key = [7; 32];
    assert_eq!(store.answer(key).await.unwrap(), None);
    done(store.record_message(id(1), 1, Some(key), answering(b"first")).await.unwrap());
    for version in [1, 99] {
        match store.record_message(id(1), version, Some(key), answering(b"second")).await.unwrap() {
            Step::Answered(answer) => assert_eq!(answer, "first"),
            other => panic!("{other:?}"),
        }
    }
    match store.change(id(1), 1, vec![Edit::default()], None, Some(key), answering(b"third")).await.unwrap() {
        Step::Answered(answer) => assert_eq!(answer, "first"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(store.record_message(id(1), 2, Some([8; 32]), nothing()).await.unwrap(), Step::Conflict));
    assert_eq!(store.answer([8; 32]).await.unwrap(), None);
    assert_eq!(store.sweep_answers(Timestamp::from_millis(1000)).await.unwrap(), 0);
    assert_eq!(store.sweep_answers(Timestamp::from_millis(1001)).await.unwrap(), 1);
    assert_eq!(store.answer(key).await.unwrap(), None);
}

/// Every user of ours finds his conversations in order, page by page, and no longer after he has left.
pub(crate) async fn lists_by_user(store: &dyn ConversationStore) {
    let (ann, ben) = (user(1, "alpha.test"), user(2, "alpha.test"));
    for number in [3, 1, 2] {
        done(store.create(conversation(number, &[ann.clone(), ben.clone()]), None, nothing()).await.unwrap());
    }
    assert_eq!(store.list_own(ann.id, None, 2).await.unwrap(), [id(1), id(2)]);
    assert_eq!(store.list_own(ann.id, Some(id(2)), 2).await.unwrap(), [id(3)]);
    let leave = Edit { remove: vec![ann.clone()], ..Edit::default() };
    done(store.change(id(2), 1, vec![leave], None, None, nothing()).await.unwrap());
    assert_eq!(store.list_own(ann.id, None, 10).await.unwrap(), [id(1), id(3)]);
    assert_eq!(store.list_own(ben.id, None, 10).await.unwrap().len(), 3);
    let (far, away) = (user(1, "beta.test"), user(2, "beta.test"));
    let beta = far.domain.clone();
    assert!(store.list_with_backend(&beta, None, 10).await.unwrap().is_empty());
    for number in [5, 4] {
        let members = [ben.clone(), far.clone(), away.clone()];
        done(store.create(conversation(number, &members), None, nothing()).await.unwrap());
    }
    assert_eq!(store.list_with_backend(&beta, None, 10).await.unwrap(), [id(4), id(5)]);
    assert_eq!(store.list_with_backend(&beta, Some(id(4)), 10).await.unwrap(), [id(5)]);
    assert_eq!(store.list_with_backend(&beta, None, 1).await.unwrap(), [id(4)]);
    assert!(store.list_remote(ann.id, None, 10).await.unwrap().is_empty());
}

/// Settings belong to one member, survive changes of others, and go with him.
pub(crate) async fn keeps_settings(store: &dyn ConversationStore) {
    let (ann, ben) = (user(1, "alpha.test"), user(2, "alpha.test"));
    done(store.create(conversation(1, &[ann.clone(), ben.clone()]), None, nothing()).await.unwrap());
    let update =
        SettingsUpdate { archived: Some(true), muted_ref: Some("ref".to_owned()), ..SettingsUpdate::default() };
    let committed = store.update_settings(id(1), ann.id, update, nothing()).await.unwrap();
    assert_eq!(committed.unwrap().stamp.version, 1);
    let more = SettingsUpdate { muted_status: Some(3), ..SettingsUpdate::default() };
    assert!(store.update_settings(id(1), ann.id, more.clone(), nothing()).await.unwrap().is_some());
    assert!(store.update_settings(id(1), UserId::new(Uuid::from_u128(9)), more, nothing()).await.unwrap().is_none());
    let found = load(store, 1).await;
    let expected =
        Settings { archived: true, muted_ref: Some("ref".to_owned()), muted_status: Some(3), ..Settings::default() };
    assert_eq!(found.member(&ann).unwrap().settings, expected);
    assert_eq!(found.member(&ben).unwrap().settings, Settings::default());
    let leave = Edit { remove: vec![ann.clone()], ..Edit::default() };
    done(store.change(id(1), 1, vec![leave], None, None, nothing()).await.unwrap());
    let back = Edit { add: vec![member(ann.clone())], ..Edit::default() };
    done(store.change(id(1), 2, vec![back], None, None, nothing()).await.unwrap());
    assert_eq!(load(store, 1).await.member(&ann).unwrap().settings, Settings::default());
}

/// A mark never goes back, and a step with an older one changes nothing.
pub(crate) async fn marks_only_rise(store: &dyn ConversationStore) {
    let ann = user(1, "alpha.test");
    let mark = |time, relation| Mark {
        conversation: id(1),
        user: ann.id,
        time: Timestamp::from_millis(time),
        relation: Some(relation),
    };
    assert_eq!(store.mark(id(1), ann.id).await.unwrap(), None);
    store.set_mark(mark(10, Relation::Sent)).await.unwrap();
    store.set_mark(mark(9, Relation::Blocked)).await.unwrap();
    assert_eq!(store.mark(id(1), ann.id).await.unwrap(), Some(mark(10, Relation::Sent)));
    let new = conversation(1, std::slice::from_ref(&ann));
    let late = store.create(new.clone(), Some(mark(8, Relation::Accepted)), nothing()).await.unwrap();
    assert!(matches!(late, Step::Conflict));
    assert!(store.load(&[id(1)]).await.unwrap().is_empty());
    done(store.create(new, Some(mark(10, Relation::Accepted)), nothing()).await.unwrap());
    let leave = || Edit { remove: vec![ann.clone()], ..Edit::default() };
    let late = store.change(id(1), 1, vec![leave()], Some(mark(9, Relation::Blocked)), None, nothing()).await.unwrap();
    assert!(matches!(late, Step::Conflict));
    assert_eq!(load(store, 1).await.version, 1);
    done(store.change(id(1), 1, vec![leave()], Some(mark(11, Relation::Blocked)), None, nothing()).await.unwrap());
    assert_eq!(store.mark(id(1), ann.id).await.unwrap(), Some(mark(11, Relation::Blocked)));
    assert!(load(store, 1).await.members.is_empty());
}

mod sqlite {
    use std::sync::Arc;

    use aldis_delivery::{Component, Outbox};
    use aldis_storage::{Db, DbOptions};

    use super::{Domain, ManualClock};
    use crate::groups::store::{MIGRATIONS, SqliteConversations};

    struct Engine {
        store: SqliteConversations,
        clock: Arc<ManualClock>,
        _folder: tempfile::TempDir,
    }

    async fn engine() -> Engine {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("aldis.db"), &DbOptions::default()).unwrap();
        db.migrate("conversations", MIGRATIONS).await.unwrap();
        let domain: Domain = "alpha.test".parse().unwrap();
        let clock = Arc::new(ManualClock::default());
        let outbox = Outbox::open(Component::Conversations, domain.clone(), db.clone(), clock.clone()).await.unwrap();
        Engine { store: SqliteConversations::new(domain, db, outbox, clock.clone()), clock, _folder: folder }
    }

    #[tokio::test]
    async fn creates_once() {
        super::creates_once(&engine().await.store).await;
    }

    #[tokio::test]
    async fn changes_step_by_step() {
        let engine = engine().await;
        super::changes_step_by_step(&engine.store, &engine.clock).await;
    }

    #[tokio::test]
    async fn answers_once_per_key() {
        let engine = engine().await;
        super::answers_once_per_key(&engine.store, &engine.clock).await;
    }

    #[tokio::test]
    async fn lists_by_user() {
        super::lists_by_user(&engine().await.store).await;
    }

    #[tokio::test]
    async fn keeps_settings() {
        super::keeps_settings(&engine().await.store).await;
    }

    #[tokio::test]
    async fn marks_only_rise() {
        super::marks_only_rise(&engine().await.store).await;
    }
}
