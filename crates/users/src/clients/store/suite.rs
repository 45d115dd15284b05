//! What every engine must do.

use std::{collections::BTreeMap, sync::Arc};

use aldis_api::Session;
use aldis_types::{AccentId, Capability, ClientId, ClientType, ConnId, Prekey, PrekeyId, Protocol, Timestamp, UserId};
use uuid::Uuid;

use super::{AddOutcome, Added, ClientChange, ClientStore, NewClient, RemoveOutcome, UpdateOutcome};
use crate::{
    accounts::{
        Locale, NewAccount,
        store::{AccountProof, AccountStore},
    },
    audit::AuditEntry,
    auth::store::{Revocation, Revoked},
    clients::Client,
    peers::WantedClients,
};

const USER: UserId = UserId::new(Uuid::from_u128(1));
const EXPIRE: Timestamp = Timestamp::EPOCH;
const SESSION: Session = Session { user: USER, client: None, connection: ConnId(1), expires: None };

fn key(id: u16) -> Prekey {
    Prekey { id: PrekeyId(id), key: format!("key {id}") }
}

fn new(id: u64, kind: ClientType, prekeys: &[u16]) -> NewClient {
    let client = Client {
        id: ClientId(id),
        kind,
        class: None,
        label: None,
        model: None,
        cookie: None,
        created: Timestamp::from_millis(5),
        capabilities: vec![Capability::LegalholdImplicitConsent],
        mls_public_keys: BTreeMap::new(),
        last_active: None,
    };
    NewClient { client, prekeys: prekeys.iter().map(|id| key(*id)).collect() }
}

async fn add(store: &dyn ClientStore, new: NewClient, authenticated: bool, limit: u32) -> AddOutcome {
    let effects = Arc::new(|_: &Added| Vec::new());
    store.add(SESSION, new, authenticated, limit, EXPIRE, effects).await.unwrap()
}

/// `accounts` has none yet.
pub(crate) async fn all(store: &dyn ClientStore, accounts: &dyn AccountStore) {
    nobody_has_a_client_without_an_account(store).await;
    create(accounts).await;
    limits_and_passwords(store).await;
    each_prekey_at_most_once(store).await;
    changes_only_add(store).await;
    activity_never_goes_back(store).await;
    leases_are_noted_for_good(store).await;
    a_removed_client_leaves_nothing(store).await;
}

async fn create(accounts: &dyn AccountStore) {
    let account = NewAccount {
        id: USER,
        name: "Ann".parse().unwrap(),
        handle: None,
        email: "ann@example.com".parse().unwrap(),
        password: "a hash".to_owned(),
        locale: Locale::default(),
        accent_id: AccentId(1),
        assets: Vec::new(),
        protocols: vec![Protocol::Proteus],
    };
    let audit = AuditEntry::new("admin", "account-created", "x");
    accounts.create(account, AccountProof::Administrator, audit, EXPIRE).await.unwrap();
}

async fn nobody_has_a_client_without_an_account(store: &dyn ClientStore) {
    assert!(matches!(add(store, new(1, ClientType::Permanent, &[1]), true, 2).await, AddOutcome::NoAccount));
    assert!(store.list(USER).await.unwrap().is_empty());
    assert!(store.prekey_ids(USER, ClientId(1)).await.unwrap().is_empty());
}

async fn activity_never_goes_back(store: &dyn ClientStore) {
    let (known, unknown, at) = ((USER, ClientId(1)), (USER, ClientId(88)), Timestamp::from_millis);
    let active = async || store.get(USER, ClientId(1)).await.unwrap().unwrap().last_active;
    assert_eq!(active().await, None);
    for (time, expected) in [(100, 100), (90, 100), (100, 100), (200, 200)] {
        store.note_active(vec![unknown, known], at(time)).await.unwrap();
        assert_eq!(active().await, Some(at(expected)));
    }
    assert_eq!(store.get(USER, ClientId(88)).await.unwrap(), None);
    store.update(USER, ClientId(1), ClientChange::default(), Vec::new()).await.unwrap();
    let renewed = add(store, new(1, ClientType::Permanent, &[]), true, 2).await;
    let AddOutcome::Added { added, .. } = renewed else { panic!("renewing is allowed") };
    assert_eq!((added.client.last_active, active().await), (Some(at(200)), Some(at(200))));
}

async fn limits_and_passwords(store: &dyn ClientStore) {
    use ClientType::{Permanent, Temporary};
    assert!(!store.needs_password(USER, ClientId(1), Permanent).await.unwrap());
    assert!(matches!(add(store, new(u64::MAX, Permanent, &[0, 65535]), false, 2).await, AddOutcome::Added { .. }));
    assert!(store.needs_password(USER, ClientId(1), Permanent).await.unwrap());
    assert!(!store.needs_password(USER, ClientId(u64::MAX), Permanent).await.unwrap());
    assert!(!store.needs_password(USER, ClientId(1), Temporary).await.unwrap());
    assert!(matches!(add(store, new(1, Permanent, &[]), false, 2).await, AddOutcome::NeedsPassword));
    assert!(matches!(add(store, new(1, Permanent, &[]), true, 2).await, AddOutcome::Added { .. }));
    assert!(matches!(add(store, new(2, Permanent, &[]), true, 2).await, AddOutcome::TooMany));
    let mut again = new(1, Permanent, &[]);
    again.client.created = Timestamp::from_millis(99);
    let AddOutcome::Added { added, .. } = add(store, again, false, 2).await else { panic!("renewing is allowed") };
    assert_eq!(added.client.created, Timestamp::from_millis(5), "a renewed client keeps its age");
    assert!(matches!(add(store, new(3, Temporary, &[]), false, 2).await, AddOutcome::Added { .. }));
    let AddOutcome::Added { added, .. } = add(store, new(4, Temporary, &[]), true, 2).await else {
        panic!("a temporary client replaces")
    };
    assert_eq!(added.replaced, [ClientId(3)]);
    let ids: Vec<_> = store.list(USER).await.unwrap().iter().map(|client| client.id.0).collect();
    assert_eq!(ids, [1, 4, u64::MAX], "in ascending order, however large");
    let public = store.public(vec![USER, UserId::new(Uuid::from_u128(2))]).await.unwrap();
    assert_eq!((public[0].1.len(), public[1].1.len()), (3, 0));
}

async fn each_prekey_at_most_once(store: &dyn ClientStore) {
    let wanted = vec![(USER, WantedClients::These(vec![ClientId(u64::MAX), ClientId(1), ClientId(77)]))];
    let first = store.take_prekeys(wanted.clone()).await.unwrap();
    let expected = vec![(ClientId(u64::MAX), Some(key(0))), (ClientId(1), None), (ClientId(77), None)];
    assert_eq!(first, [(USER, expected)]);
    for _ in 0..2 {
        let next = store.take_prekeys(wanted.clone()).await.unwrap();
        assert_eq!(next[0].1[0].1, Some(key(65535)));
    }
    let all = store.take_prekeys(vec![(USER, WantedClients::All)]).await.unwrap();
    assert_eq!(all[0].1.len(), 3);
    assert_eq!(store.prekey_ids(USER, ClientId(u64::MAX)).await.unwrap(), [PrekeyId::LAST_RESORT]);
}

async fn leases_are_noted_for_good(store: &dyn ClientStore) {
    assert!(!store.had_leases().await.unwrap());
    for _ in 0..2 {
        store.note_leases().await.unwrap();
        assert!(store.had_leases().await.unwrap());
    }
}

async fn changes_only_add(store: &dyn ClientStore) {
    let update = |change| store.update(USER, ClientId(1), change, Vec::new());
    let change = ClientChange {
        prekeys: vec![key(9), key(3)],
        last_prekey: Some(key(65535)),
        capabilities: Some(vec![Capability::LegalholdImplicitConsent, Capability::ConsumableNotifications]),
        mls_public_keys: BTreeMap::from([("ed25519".to_owned(), "a".to_owned())]),
        ..ClientChange::default()
    };
    assert!(matches!(update(change).await.unwrap(), UpdateOutcome::Updated(_)));
    let ids = store.prekey_ids(USER, ClientId(1)).await.unwrap();
    assert_eq!(ids, [PrekeyId(3), PrekeyId(9), PrekeyId::LAST_RESORT]);
    let fewer = ClientChange { capabilities: Some(Vec::new()), ..ClientChange::default() };
    assert!(matches!(update(fewer).await.unwrap(), UpdateOutcome::CapabilityRemoved));
    let other = BTreeMap::from([("ed25519".to_owned(), "b".to_owned())]);
    let other = ClientChange { mls_public_keys: other, ..ClientChange::default() };
    assert!(matches!(update(other).await.unwrap(), UpdateOutcome::OtherMlsKey));
    let missing = store.update(USER, ClientId(77), ClientChange::default(), Vec::new()).await.unwrap();
    assert!(matches!(missing, UpdateOutcome::NotFound));
    assert_eq!(store.get(USER, ClientId(1)).await.unwrap().unwrap().capabilities.len(), 2);
}

async fn a_removed_client_leaves_nothing(store: &dyn ClientStore) {
    let removed = store.remove(USER, ClientId(1), None, EXPIRE, Vec::new()).await.unwrap();
    let RemoveOutcome::Removed { revoked, .. } = removed else { panic!("the client is there") };
    assert_eq!(revoked, [Revocation { user: USER, what: Revoked::Client(ClientId(1)), expires: EXPIRE }]);
    assert_eq!(store.get(USER, ClientId(1)).await.unwrap(), None);
    assert!(store.prekey_ids(USER, ClientId(1)).await.unwrap().is_empty());
    let again = store.remove(USER, ClientId(1), None, EXPIRE, Vec::new()).await.unwrap();
    assert!(matches!(again, RemoveOutcome::NotFound));
}
