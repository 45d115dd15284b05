//! What every engine must do.

use aldis_types::{Domain, KeyPin, RemotePolicy, RemoteState, SearchPolicy, TeamId, Timestamp};
use uuid::Uuid;

use super::RemoteStore;
use crate::audit::AuditEntry;

pub(crate) async fn all(store: &dyn RemoteStore) {
    let (version, remotes) = store.load().await.unwrap();
    assert!(version == 0 && remotes.is_empty());
    let beta: Domain = "beta.test".parse().unwrap();
    let first = RemotePolicy {
        state: RemoteState::Active,
        search_policy: SearchPolicy::FullSearch,
        teams: Some(vec![TeamId::new(Uuid::from_u128(7))]),
        ended: None,
        pins: vec![KeyPin([3; 32]), KeyPin([9; 32])],
    };
    let second = RemotePolicy {
        ended: Some(Timestamp::from_millis(77)),
        ..RemotePolicy::new(RemoteState::Ended, SearchPolicy::NoSearch)
    };
    for (version, policy) in [(5, first), (9, second)] {
        let audit = AuditEntry::new("admin", "remote-set", &beta);
        store.put(beta.clone(), policy.clone(), version, audit, Timestamp::EPOCH).await.unwrap();
        let (found, remotes) = store.load().await.unwrap();
        assert_eq!((found, remotes.get(&beta)), (version, Some(&policy)));
        assert_eq!(remotes.len(), 1);
    }
}
