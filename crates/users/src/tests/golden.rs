//! Our JSON against samples of the client API's types: `make test-golden GOLDEN=folder`. Without the folder there is
//! nothing to compare with, and the tests say so by passing.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    accounts::http as accounts,
    auth::http as auth,
    clients::http as clients,
    connections::http as connections,
    testing::{Backend, new_client},
};

/// The samples of a type, by file name.
fn samples(kind: &str) -> BTreeMap<String, Value> {
    let Some(folder) = std::env::var_os("ALDIS_GOLDEN").map(PathBuf::from) else { return BTreeMap::new() };
    let prefix = format!("testObject_{kind}_");
    let mut samples = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let number = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".json"));
        if number.is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit())) {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            samples.insert(name, serde_json::from_str(&text).unwrap());
        }
    }
    assert!(!samples.is_empty(), "no sample of {kind}");
    samples
}

fn reads<T: DeserializeOwned>(kind: &str) {
    if std::env::var_os("ALDIS_GOLDEN").is_none() {
        return;
    }
    for (name, sample) in samples(kind) {
        if let Err(error) = serde_json::from_value::<T>(sample) {
            panic!("{name}: {error}");
        }
    }
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

/// What we write has no key that no sample has; and, where there are many samples, every key that all of them have.
fn writes(kind: &str, pointer: &str, ours: &Value) {
    const MANY: usize = 10;
    if std::env::var_os("ALDIS_GOLDEN").is_none() {
        return;
    }
    let samples: Vec<_> = samples(kind).values().filter_map(|sample| sample.pointer(pointer).map(keys)).collect();
    let known: BTreeSet<_> = samples.iter().flatten().cloned().collect();
    let ours = keys(ours);
    assert!(ours.is_subset(&known), "{kind}: unknown keys {:?}", ours.difference(&known));
    if samples.len() >= MANY {
        let always = samples.into_iter().reduce(|a, b| &a & &b).unwrap();
        assert!(ours.is_superset(&always), "{kind}: missing keys {:?}", always.difference(&ours));
    }
}

#[test]
fn golden_requests_are_read() {
    reads::<auth::LoginBody>("Login_user");
    reads::<clients::RegisterBody>("NewClient_user");
    reads::<clients::UpdateBody>("UpdateClient_user");
    reads::<accounts::HandleBody>("HandleUpdate_user");
    reads::<accounts::LocaleBody>("LocaleUpdate_user");
    reads::<accounts::FreeHandlesBody>("CheckHandles_user");
    reads::<accounts::SelfBody>("UserUpdate_user");
    reads::<accounts::ActivateBody>("Activate_user");
    reads::<connections::UpdateBody>("ConnectionUpdate_user");
}

#[tokio::test]
async fn golden_answers_and_events_have_our_shape() {
    let backend = Backend::alone().await;
    let (ann, bob) = (backend.register_with_handle("Ann", "ann").await, backend.register("Bob").await);
    let client = backend.post(&ann, "/clients", new_client("permanent", "one", 1)).await.expect(201);
    writes("Client_user", "", &client);
    let event = backend.recorder.events("user.client-add").remove(0).event;
    writes("ClientV6_user", "", &event["client"]);
    writes("ClientV6_user", "/capabilities", &event["client"]["capabilities"]);
    let path = format!("/connections/alpha.test/{}", bob.id);
    let connection = backend.call("POST", &path, Some(&ann.token), None).await.expect(201);
    writes("UserConnectionList_user", "/connections/1", &connection);
    writes("SelfProfile_user", "", &backend.get(&ann, "/self").await.expect(200));
    let profile = format!("/users/alpha.test/{}", bob.id);
    writes("UserProfile_user", "", &backend.get(&ann, &profile).await.expect(200));
    backend.put(&ann, "/self", json!({ "name": "Anna", "accent_id": 2, "text_status": "x" })).await.expect(200);
    writes("UserEvent", "/user", &backend.recorder.events("user.update").pop().unwrap().event["user"]);
    writes("CookieList_user", "/cookies/0", &backend.get(&ann, "/cookies").await.expect(200)["cookies"][0]);
    writes("AccessToken_user", "", &backend.access("/access", Some(&ann.cookie), None).await.expect(200));
    let found = backend.get(&ann, "/search/contacts?q=bob").await.expect(200);
    writes("SearchResult_20Contact_user", "", &found);
    writes("Contact_user", "", &found["documents"][0]);
    let own = format!("/users/alpha.test/{}", ann.id);
    let bundle = backend.get(&ann, &format!("{own}/prekeys")).await.expect(200);
    writes("PrekeyBundle_user", "", &bundle);
    writes("ClientPrekey_user", "", &bundle["clients"][0]);
    writes("PubClient_user", "", &backend.get(&ann, &format!("{own}/clients")).await.expect(200)[0]);
    let calls = backend.get(&ann, "/calls/config/v2").await.expect(200);
    writes("RTCConfiguration_user", "", &calls);
    writes("RTCConfiguration_user", "/ice_servers/0", &calls["ice_servers"][0]);
}
