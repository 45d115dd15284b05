use serde_json::json;

use super::{
    store::{SqliteProperties, suite},
    *,
};
use crate::testing::{Backend, Network, database_and_outbox};

#[tokio::test]
async fn suite_on_sqlite() {
    let (_folder, db, outbox) = database_and_outbox().await;
    suite::all(&SqliteProperties::new(db, outbox)).await;
}

#[tokio::test]
async fn properties_are_kept_and_shared_as_they_were_given() {
    let network = Network::default();
    let backend = Backend::start("alpha.test", &network, |config| config.limits.properties = 2).await;
    let ann = backend.register("Ann").await;
    backend.get(&ann, "/properties/webapp").await.expect_label(404, "not-found");
    let value = json!({ "settings": { "sound": [1, null, "é"] } });
    backend.put(&ann, "/properties/webapp", value.clone()).await.expect(200);
    backend.put(&ann, "/properties/labels", json!(1.0)).await.expect(200);
    assert_eq!(backend.get(&ann, "/properties/webapp").await.expect(200), value);
    assert_eq!(backend.get(&ann, "/properties").await.expect(200), json!(["labels", "webapp"]));
    let values = backend.get(&ann, "/properties-values").await.expect(200);
    assert_eq!(values, json!({ "labels": 1.0, "webapp": value }));
    let told = backend.recorder.events("user.properties-set").remove(0);
    assert_eq!(told.event, json!({ "type": "user.properties-set", "key": "webapp", "value": value }));
    assert_eq!((told.users, told.origin), (vec![ann.id], Some(ann.connection())));

    backend.put(&ann, "/properties/third", json!(1)).await.expect_label(403, "too-many-properties");
    backend.put(&ann, "/properties/webapp", json!(2)).await.expect(200);
    backend.delete(&ann, "/properties/webapp", None).await.expect(200);
    backend.delete(&ann, "/properties/webapp", None).await.expect(200);
    let told = backend.recorder.events_for("user.properties-delete", ann.id);
    assert_eq!(told, [json!({ "type": "user.properties-delete", "key": "webapp" })]);
    backend.delete(&ann, "/properties", None).await.expect(200);
    assert_eq!(backend.recorder.events("user.properties-clear").len(), 1);
    assert_eq!(backend.get(&ann, "/properties").await.expect(200), json!([]));
}

#[tokio::test]
async fn what_is_too_large_or_no_json_is_refused() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let large = json!("x".repeat(MAX_VALUE_BYTES));
    backend.put(&ann, "/properties/a", large).await.expect_label(403, "property-value-too-large");
    let fits = json!("x".repeat(MAX_VALUE_BYTES - 2));
    backend.put(&ann, "/properties/a", fits).await.expect(200);
    let key = format!("/properties/{}", "k".repeat(1025));
    backend.put(&ann, &key, json!(1)).await.expect_label(403, "property-key-too-large");
    backend.put(&ann, "/properties/%C3%A9", json!(1)).await.expect_label(400, "bad-request");
    assert!(matches!(PropertyValue::new(b"{\"a\":"), Err(PropertyError::InvalidValue)));
    let deep = "[".repeat(5000) + &"]".repeat(5000);
    assert!(matches!(PropertyValue::new(deep.as_bytes()), Err(PropertyError::InvalidValue)));
}
