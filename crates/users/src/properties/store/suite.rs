//! What every engine must do.

use aldis_types::UserId;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{PropertyStore, SetOutcome};

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

pub(crate) async fn all(store: &dyn PropertyStore) {
    let (ann, bob) = (UserId::new(Uuid::from_u128(1)), UserId::new(Uuid::from_u128(2)));
    let set = |key: &str, text: &str| store.set(ann, key.to_owned(), raw(text), 2, Vec::new());
    assert!(matches!(set("a", "{ \"x\" : 1.0 }").await.unwrap(), SetOutcome::Set(_)));
    assert!(matches!(set("b", "2").await.unwrap(), SetOutcome::Set(_)));
    assert!(matches!(set("c", "3").await.unwrap(), SetOutcome::TooMany));
    assert!(matches!(set("b", "4").await.unwrap(), SetOutcome::Set(_)));
    let value = store.get(ann, "a".to_owned()).await.unwrap().unwrap();
    assert_eq!(value.get(), "{ \"x\" : 1.0 }", "as it was given");
    assert!(store.get(bob, "a".to_owned()).await.unwrap().is_none());
    let keys: Vec<_> = store.all(ann).await.unwrap().into_keys().collect();
    assert_eq!(keys, ["a", "b"]);
    assert!(store.remove(ann, Some("c".to_owned()), Vec::new()).await.unwrap().is_none());
    assert!(store.remove(ann, Some("a".to_owned()), Vec::new()).await.unwrap().is_some());
    assert!(store.remove(ann, None, Vec::new()).await.unwrap().is_some());
    assert!(store.remove(ann, None, Vec::new()).await.unwrap().is_none());
}
