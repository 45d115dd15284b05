//! Start-up answers, and keys that stay.

use aldis_runtime::SystemRandom;
use aldis_storage::{Db, DbOptions};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{RemovalKeys, http::feature_configs};
use crate::testing::{World, user};

#[test]
fn every_feature_that_clients_parse_is_there() {
    let all = json!(feature_configs(false));
    for name in [
        "appLock",
        "classifiedDomains",
        "conferenceCalling",
        "conversationGuestLinks",
        "digitalSignatures",
        "fileSharing",
        "legalhold",
        "searchVisibility",
        "selfDeletingMessages",
        "sndFactorPasswordChallenge",
        "sso",
        "validateSAMLemails",
        "mls",
        "mlsE2EId",
        "mlsMigration",
        "channels",
        "cells",
    ] {
        let feature = &all[name];
        assert!(feature["status"].is_string() && feature["lockStatus"].is_string(), "{name}");
        assert_eq!(feature["ttl"], "unlimited", "{name}");
    }
    assert_eq!(all["selfDeletingMessages"]["config"], json!({ "enforcedTimeoutSeconds": 0 }));
    for off in ["mls", "conferenceCalling", "legalhold", "sso"] {
        assert_eq!(all[off]["status"], "disabled", "{off}");
    }
    assert_eq!(all.as_object().unwrap().len(), 30);
    assert_eq!(json!(feature_configs(true))["conferenceCalling"]["status"], "enabled");
}

#[tokio::test]
async fn removal_keys_are_made_once_and_have_the_form_of_mls() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&folder.path().join("aldis.db"), &DbOptions::default()).unwrap();
    db.migrate("conversations", crate::groups::store::MIGRATIONS).await.unwrap();
    let random: aldis_runtime::SharedRandom = std::sync::Arc::new(SystemRandom);
    let keys = RemovalKeys::load(&db, &random).await.unwrap();
    let again = RemovalKeys::load(&db, &random).await.unwrap();
    assert_eq!(keys.raw(), again.raw());
    let bytes = |name: &str| STANDARD.decode(keys.raw()["removal"][name].as_str().unwrap()).unwrap();
    assert_eq!(bytes("ed25519").len(), 32);
    let point = bytes("ecdsa_secp256r1_sha256");
    assert_eq!((point.len(), point[0]), (65, 4));
    let jwk = keys.jwk();
    assert_eq!(jwk["removal"]["ed25519"]["crv"], "Ed25519");
    assert_eq!(jwk["removal"]["ecdsa_secp256r1_sha256"]["x"].as_str().unwrap().len(), 43);
    assert_eq!(jwk["removal"]["ecdsa_secp256r1_sha256"]["y"].as_str().unwrap().len(), 43);
}

#[tokio::test]
async fn what_clients_ask_at_start_is_answered() {
    let world = World::default();
    let alpha = world.start("alpha.test").await;
    let ann = user(1, "alpha.test");
    let (status, keys) = alpha.get(&ann, "/mls/public-keys").await;
    assert!(status == StatusCode::OK && keys["removal"].is_object());
    assert_eq!(alpha.get(&ann, "/mls/public-keys?format=jwk").await.1["removal"]["ed25519"]["kty"], "OKP");
    assert_eq!(alpha.get(&ann, "/mls/public-keys?format=pem").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(alpha.get(&ann, "/feature-configs").await.1, json!(feature_configs(false)));
    assert_eq!(alpha.get(&ann, "/teams").await.1, json!({ "teams": [], "has_more": false }));
    let labels = [
        (Method::GET, "/conversations/mls-self", "mls-not-enabled"),
        (Method::POST, "/mls/messages", "mls-not-enabled"),
        (Method::GET, "/one2one-conversations/alpha.test/10000000-0000-4000-8000-000000000002", "mls-not-enabled"),
        (Method::GET, "/teams/10000000-0000-4000-8000-000000000002/features", "no-team"),
        (Method::POST, "/broadcast/proteus/messages", "non-binding-team"),
    ];
    for (method, path, label) in labels {
        assert_eq!(alpha.call(&ann, method, path, Value::Null).await.1["label"], label, "{path}");
    }
}
