use std::collections::HashSet;

use aldis_proto::{
    convert,
    internal::v1::{
        ListClientsRequest, NoteActiveRequest, WatchAuthRequest, auth_client::AuthClient,
        clients_client::ClientsClient, note_active_request,
    },
};
use serde_json::{Value, json};

use super::{
    store::{SqliteClients, suite},
    *,
};
use crate::{
    accounts::store::SqliteAccounts,
    testing::{Backend, Network, PASSWORD, User, database_and_outbox, new_client, prekey},
};

/// Registers a permanent client and gives its id.
async fn register(backend: &Backend, user: &User, seed: &str, prekeys: u16) -> String {
    let body = backend.post(user, "/clients", new_client("permanent", seed, prekeys)).await.expect(201);
    body["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn suite_on_sqlite() {
    let (_folder, db, outbox) = database_and_outbox().await;
    let accounts = SqliteAccounts::new(db.clone(), outbox.clone());
    suite::all(&SqliteClients::new(db, outbox), &accounts).await;
}

#[tokio::test]
async fn a_client_is_registered_announced_and_shown() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let mut body = new_client("permanent", "one", 3);
    body["capabilities"] = json!(["legalhold-implicit-consent"]);
    body["cookie"] = json!("laptop");
    let answer = backend.post(&ann, "/clients", body).await;
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    let client = answer.expect(201);
    let id = ClientId::from_last_prekey(&prekey(u16::MAX, "one").key).to_string();
    assert_eq!(location, id);
    let expected = json!({
        "id": id, "type": "permanent", "time": client["time"], "class": "desktop", "label": "a label",
        "model": "a model", "cookie": "laptop", "capabilities": ["legalhold-implicit-consent"], "mls_public_keys": {},
    });
    assert_eq!(client, expected);

    // The event is there before the answer, in the old shape, and not for the socket that caused it.
    let event = backend.recorder.events("user.client-add").remove(0);
    let mut nested = expected.clone();
    nested["capabilities"] = json!({ "capabilities": ["legalhold-implicit-consent"] });
    assert_eq!(event.event, json!({ "type": "user.client-add", "client": nested }));
    assert_eq!((event.users, event.origin), (vec![ann.id], Some(ann.connection())));
    assert!(backend.recorder.event_ids().iter().all(|id| id.len() == 16));

    assert_eq!(backend.get(&ann, "/clients").await.expect(200), json!([expected]));
    assert_eq!(backend.get(&ann, &format!("/clients/{}", id.to_uppercase())).await.expect(200), expected);
    backend.get(&ann, "/clients/1").await.expect_label(404, "client-not-found");
    backend.get(&ann, "/clients/xyz").await.expect_label(400, "bad-request");
    let left = backend.get(&ann, &format!("/clients/{id}/prekeys")).await.expect(200);
    assert_eq!(left, json!([0, 1, 2, 65535]));
    let capabilities = backend.get(&ann, &format!("/clients/{id}/capabilities")).await.expect(200);
    assert_eq!(capabilities, json!({ "capabilities": ["legalhold-implicit-consent"] }));
    let public = format!("/users/alpha.test/{}/clients", ann.id);
    assert_eq!(backend.get(&ann, &public).await.expect(200), json!([{ "id": id, "class": "desktop" }]));
    let one = backend.get(&ann, &format!("{public}/{id}")).await.expect(200);
    assert_eq!(one, json!({ "id": id, "class": "desktop" }));
    backend.get(&ann, &format!("{public}/1")).await.expect_label(404, "client-not-found");
}

#[tokio::test]
async fn further_clients_need_the_password_and_are_limited() {
    let network = Network::default();
    let backend = Backend::start("alpha.test", &network, |config| config.limits.permanent_clients = 2).await;
    let ann = backend.register("Ann").await;
    let mut first = new_client("permanent", "one", 0);
    first.as_object_mut().unwrap().remove("password");
    backend.post(&ann, "/clients", first.clone()).await.expect(201);
    let mut second = new_client("permanent", "two", 0);
    second["password"] = Value::Null;
    backend.post(&ann, "/clients", second.clone()).await.expect_label(403, "missing-auth");
    second["password"] = json!("wrong");
    let refused = backend.post(&ann, "/clients", second.clone()).await.expect_label(403, "invalid-credentials");
    assert_eq!(refused["message"], "Authentication failed.");
    second["password"] = json!(PASSWORD);
    backend.post(&ann, "/clients", second).await.expect(201);
    let third = new_client("permanent", "three", 0);
    backend.post(&ann, "/clients", third).await.expect_label(403, "too-many-clients");
    first["label"] = json!("renewed");
    assert_eq!(backend.post(&ann, "/clients", first).await.expect(201)["label"], "renewed");
    let hold = new_client("legalhold", "four", 0);
    backend.post(&ann, "/clients", hold).await.expect_label(400, "client-error");
    assert_eq!(backend.get(&ann, "/clients").await.expect(200).as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn first_clients_that_come_at_once_are_all_registered() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let seeds = ["one", "two", "three"];
    let bodies = seeds.map(|seed| new_client("permanent", seed, 1));
    let answers = futures::future::join_all(bodies.map(|body| backend.post(&ann, "/clients", body))).await;
    for answer in answers {
        answer.expect(201);
    }
    assert_eq!(backend.get(&ann, "/clients").await.expect(200).as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_temporary_client_replaces_the_one_before() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let first = backend.post(&ann, "/clients", new_client("temporary", "one", 1)).await.expect(201);
    let second = backend.post(&ann, "/clients", new_client("temporary", "two", 1)).await.expect(201);
    let clients = backend.get(&ann, "/clients").await.expect(200);
    assert_eq!(clients.as_array().unwrap().len(), 1);
    assert_eq!(clients[0]["id"], second["id"]);
    let removed = backend.recorder.events_for("user.client-remove", ann.id);
    assert_eq!(removed, [json!({ "type": "user.client-remove", "client": { "id": first["id"] } })]);
    assert_eq!(json!(backend.recorder.removed_clients()), json!([first["id"]]));
}

#[tokio::test]
async fn malformed_prekeys_are_refused() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let good = new_client("permanent", "one", 2);
    let cases = [
        ("/prekeys/0/key", json!("not base64!")),
        ("/prekeys/0/key", json!("aGVsbG8=")),
        ("/prekeys/0/key", json!("")),
        ("/prekeys/0/id", json!(7)),
        ("/prekeys/1", json!(prekey(u16::MAX, "x"))),
        ("/lastkey", json!(prekey(3, "x"))),
        ("/lastkey/id", json!(1)),
        ("/lastkey/key", json!("A".repeat(2000))),
    ];
    for (pointer, value) in cases {
        let mut body = good.clone();
        *body.pointer_mut(pointer).unwrap() = value;
        let refused = backend.post(&ann, "/clients", body).await.expect_label(400, "bad-request");
        assert_eq!(refused["message"], "Malformed prekeys uploaded", "{pointer}");
    }
    for (pointer, value) in [("/prekeys/0/id", json!(70_000)), ("/lastkey", Value::Null), ("/type", json!("x"))] {
        let mut body = good.clone();
        *body.pointer_mut(pointer).unwrap() = value;
        backend.post(&ann, "/clients", body).await.expect_label(400, "bad-request");
    }
    assert_eq!(backend.get(&ann, "/clients").await.expect(200), json!([]));
}

#[tokio::test]
async fn a_client_is_changed() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let id = register(&backend, &ann, "one", 1).await;
    let path = format!("/clients/{id}");
    let body = json!({ "prekeys": [prekey(5, "new"), prekey(0, "new")], "lastkey": prekey(u16::MAX, "new"),
                       "label": "desk", "capabilities": ["consumable-notifications"],
                       "mls_public_keys": { "ed25519": "AAAA" } });
    backend.put(&ann, &path, body).await.expect(200);
    let client = backend.get(&ann, &path).await.expect(200);
    assert_eq!((&client["label"], &client["capabilities"]), (&json!("desk"), &json!(["consumable-notifications"])));
    let id: ClientId = client["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(backend.recorder.opened_consumers(), [id], "known to the notifications service before the answer");
    assert_eq!(client["mls_public_keys"], json!({ "ed25519": "AAAA" }));
    let left = backend.get(&ann, &format!("{path}/prekeys")).await.expect(200);
    assert_eq!(left, json!([0, 5, 65535]));
    let shrunk = json!({ "capabilities": ["legalhold-implicit-consent"] });
    backend.put(&ann, &path, shrunk).await.expect_label(409, "client-capabilities-cannot-be-removed");
    let other = json!({ "mls_public_keys": { "ed25519": "BBBB" } });
    backend.put(&ann, &path, other).await.expect_label(400, "mls-duplicate-public-key");
    backend.put(&ann, &path, json!({})).await.expect(200);
    backend.put(&ann, "/clients/1", json!({})).await.expect_label(404, "client-not-found");
    let foreign = json!({ "prekeys": [{ "id": 1, "key": "AAAA" }] });
    backend.put(&ann, &path, foreign).await.expect_label(400, "bad-request");
}

#[tokio::test]
async fn removing_a_client_ends_its_sessions_everywhere() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let id = register(&backend, &ann, "one", 1).await;
    let bound = backend.access(&format!("/access?client_id={id}"), Some(&ann.cookie), None).await;
    let cookie = bound.cookie().unwrap();
    let token = bound.expect(200)["access_token"].as_str().unwrap().to_owned();
    let mut watch = AuthClient::new(backend.internal.clone()).watch(WatchAuthRequest {}).await.unwrap().into_inner();
    watch.message().await.unwrap();

    let login = json!({ "email": ann.email, "password": PASSWORD });
    let first = ann;
    let answer = backend.call("POST", "/login", None, Some(login)).await;
    let second = answer.cookie().unwrap();
    let answer = answer.expect(200);
    let ann = User { token: answer["access_token"].as_str().unwrap().to_owned(), cookie: second, ..first.clone() };
    let path = format!("/clients/{id}");
    backend.delete(&ann, &path, None).await.expect_label(403, "missing-auth");
    backend.delete(&ann, &path, Some(json!({ "password": "wrong" }))).await.expect_label(403, "invalid-credentials");
    let body = Some(json!({ "password": PASSWORD }));
    backend.delete(&ann, "/clients/1", body.clone()).await.expect_label(404, "client-not-found");
    backend.delete(&ann, &path, body.clone()).await.expect(200);
    backend.delete(&ann, &path, body).await.expect_label(404, "client-not-found");
    let revoked = watch.message().await.unwrap().unwrap();
    assert_eq!(ClientId(revoked.clients[0].client).to_string(), id);
    assert_eq!(backend.recorder.removed_clients().len(), 1);
    assert_eq!(backend.recorder.events_for("user.client-remove", ann.id).len(), 1);
    backend.access("/access", Some(&cookie), None).await.expect_label(403, "invalid-credentials");
    // The tokens from before the session was bound to the client end with it.
    for token in [&token, &first.token] {
        while backend.call("GET", "/self", Some(token), None).await.status != 401 {
            tokio::task::yield_now().await;
        }
    }
    backend.get(&ann, "/self").await.expect(200);

    // The same device may come back.
    register(&backend, &ann, "one", 1).await;
    let bound = backend.access(&format!("/access?client_id={id}"), Some(&ann.cookie), None).await.expect(200);
    while backend.call("GET", "/self", bound["access_token"].as_str(), None).await.status != 200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_prekey_is_handed_out_once_and_the_last_one_over_and_over() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let id = register(&backend, &ann, "one", 20).await;
    let path = format!("/users/alpha.test/{}/prekeys/{id}", ann.id);
    let claims = (0..30).map(|_| backend.get(&ann, &path));
    let answers = futures::future::join_all(claims).await;
    let mut ids: Vec<_> = answers
        .into_iter()
        .map(|answer| {
            let body = answer.expect(200);
            assert_eq!(body["client"], json!(id));
            body["prekey"]["id"].as_u64().unwrap()
        })
        .collect();
    ids.sort_unstable();
    assert_eq!(ids[..20], (0..20).collect::<Vec<_>>());
    assert_eq!(ids[20..], [65535; 10]);
    let left = backend.get(&ann, &format!("/clients/{id}/prekeys")).await.expect(200);
    assert_eq!(left, json!([65535]));
    let unknown = format!("/users/alpha.test/{}/prekeys/1", ann.id);
    backend.get(&ann, &unknown).await.expect_label(404, "not-found");
    let bundle = backend.get(&ann, &format!("/users/alpha.test/{}/prekeys", ann.id)).await.expect(200);
    let last = json!(prekey(u16::MAX, "one"));
    assert_eq!(bundle, json!({ "user": ann.id, "clients": [{ "client": id, "prekey": last }] }));
}

#[tokio::test]
async fn clients_and_prekeys_of_users_of_several_backends() {
    let (alpha, beta, network) = Backend::pair().await;
    let (ann, bob) = (alpha.register("Ann").await, beta.register("Bob").await);
    let (anns, bobs) = (register(&alpha, &ann, "a", 2).await, register(&beta, &bob, "b", 1).await);
    let stranger = Qualified::new(ann.id, beta.domain.clone());
    let body = json!({ "qualified_users": [ann.qualified(), bob.qualified(), stranger] });
    let listed = alpha.post(&ann, "/users/list-clients", body.clone()).await.expect(200);
    let expected = json!({ "qualified_user_map": {
        "alpha.test": { ann.id.to_string(): [{ "id": anns, "class": "desktop" }] },
        "beta.test": { bob.id.to_string(): [{ "id": bobs, "class": "desktop" }] },
    }});
    assert_eq!(listed, expected);
    alpha.post(&ann, "/users/list-clients", json!({ "qualified_users": [] })).await.expect_label(400, "bad-request");

    let wanted = json!({
        "alpha.test": { ann.id.to_string(): [anns, "1"] },
        "beta.test": { bob.id.to_string(): [bobs, "2"], ann.id.to_string(): ["3"] },
    });
    let claimed = alpha.post(&ann, "/users/list-prekeys", wanted.clone()).await.expect(200);
    let expected = json!({ "qualified_user_client_prekeys": {
        "alpha.test": { ann.id.to_string(): { anns.clone(): prekey(0, "a"), "1": null } },
        "beta.test": {
            bob.id.to_string(): { bobs.clone(): prekey(0, "b"), "2": null },
            ann.id.to_string(): { "3": null },
        },
    }});
    assert_eq!(claimed, expected);
    let remote = format!("/users/beta.test/{}", bob.id);
    let one = alpha.get(&ann, &format!("{remote}/prekeys/{bobs}")).await.expect(200);
    assert_eq!(one["prekey"]["id"], 65535);
    let bundle = alpha.get(&ann, &format!("{remote}/prekeys")).await.expect(200);
    assert_eq!(bundle["clients"].as_array().unwrap().len(), 1);

    network.take_down(&beta.domain);
    let listed = alpha.post(&ann, "/users/list-clients", body).await.expect(200);
    assert_eq!(listed["qualified_user_map"].as_object().unwrap().len(), 1);
    let claimed = alpha.post(&ann, "/users/list-prekeys", wanted).await.expect(200);
    let failed: HashSet<_> =
        claimed["failed_to_list"].as_array().unwrap().iter().map(|user| user["id"].as_str().unwrap()).collect();
    assert_eq!(failed, HashSet::from([ann.id.to_string().as_str(), bob.id.to_string().as_str()]));
    alpha.get(&ann, &format!("{remote}/clients")).await.expect_label(521, "federation-connection-refused");
    alpha.get(&ann, &format!("{remote}/prekeys/{bobs}")).await.expect_label(521, "federation-connection-refused");
    let many: Value = (0..501).map(|number| (uuid::Uuid::from_u128(number).to_string(), json!(["1"]))).collect();
    let many = json!({ "alpha.test": many });
    alpha.post(&ann, "/users/list-prekeys", many).await.expect_label(403, "too-many-clients");
}

#[tokio::test]
async fn the_list_for_our_services_is_current_at_once() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let mut internal = ClientsClient::new(backend.internal.clone());
    let mut count = async || {
        let request = ListClientsRequest { users: vec![convert::bytes_of(ann.id)] };
        let users = internal.list_clients(request).await.unwrap().into_inner().users;
        users.first().map_or(0, |user| user.clients.len())
    };
    assert_eq!(count().await, 0);
    let first = register(&backend, &ann, "one", 0).await;
    assert_eq!(count().await, 1);
    register(&backend, &ann, "two", 0).await;
    assert_eq!(count().await, 2);
    backend.delete(&ann, &format!("/clients/{first}"), Some(json!({ "password": PASSWORD }))).await.expect(200);
    assert_eq!(count().await, 1);
}

#[test]
fn a_list_that_was_read_before_a_change_is_not_kept_after_it() {
    let cache = ClientCache::new();
    let user = UserId::new(uuid::Uuid::from_u128(1));
    let mark = cache.mark();
    cache.changed(user);
    cache.put(mark, user, Arc::from([]));
    assert!(cache.get(user).is_none());
    cache.put(cache.mark(), user, Arc::from([(ClientId(1), None)]));
    assert_eq!(cache.get(user).unwrap().len(), 1);
    cache.changed(user);
    assert!(cache.get(user).is_none());
}

#[tokio::test]
async fn a_client_that_is_active_shows_it_to_the_week() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let client = register(&backend, &ann, "one", 1).await;
    register_second(&backend, &ann).await;
    let shown = async || backend.get(&ann, &format!("/clients/{client}")).await.expect(200)["last_active"].clone();
    assert_eq!(shown().await, Value::Null, "left out until it is known");
    let active = || note_active_request::Client {
        user: convert::bytes_of(ann.id),
        client: client.parse::<ClientId>().unwrap().0,
    };
    let unknown = note_active_request::Client { user: convert::bytes_of(ann.id), client: 77 };
    let mut clients = ClientsClient::new(backend.internal.clone());
    let mut weeks = Vec::new();
    for days in [0, 0, 7, 1] {
        backend.clock.advance(Duration::from_hours(24 * days));
        clients.note_active(NoteActiveRequest { clients: vec![unknown.clone(), active()] }).await.unwrap();
        let week: Timestamp = serde_json::from_value(shown().await).unwrap();
        let now = aldis_runtime::Clock::now(&*backend.clock);
        assert!(week <= now && now.since(week) < Duration::from_hours(24 * 7) && week.millis() % WEEK == 0, "{week}");
        weeks.push(week);
    }
    assert!(weeks[0] == weeks[1] && weeks[1] < weeks[2]);
    let all = backend.get(&ann, "/clients").await.expect(200);
    let known = |client: &&Value| client.get("last_active").is_some();
    assert_eq!(all.as_array().unwrap().iter().filter(known).count(), 1);
    let many = NoteActiveRequest { clients: vec![unknown; 1001] };
    assert_eq!(clients.note_active(many).await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

async fn register_second(backend: &Backend, user: &User) {
    let mut body = new_client("permanent", "two", 1);
    body["password"] = json!(PASSWORD);
    backend.post(user, "/clients", body).await.expect(201);
}

#[tokio::test]
async fn a_client_that_is_registered_while_the_account_goes_does_not_stay() {
    let backend = Backend::alone().await;
    let (mut first, mut refused) = (0, 0);
    for number in 0..12 {
        let user = backend.register(&format!("User {number}")).await;
        let seed = number.to_string();
        let body = new_client("permanent", &seed, 1);
        let register = async {
            // Sometimes one comes first and sometimes the other.
            for _ in 0..number * 3 {
                tokio::task::yield_now().await;
            }
            backend.post(&user, "/clients", body).await
        };
        let delete = backend.delete(&user, "/self", Some(json!({ "password": PASSWORD })));
        let (registered, deleted) = futures::join!(register, delete);
        deleted.expect(200);
        match registered.status.as_u16() {
            201 => first += 1,
            401 => {
                registered.expect_label(401, "invalid-credentials");
                refused += 1;
            }
            other => panic!("{other}: {}", registered.body),
        }
        let id = user.id.as_bytes().to_vec();
        let left = backend.db.read(move |tx| {
            let count = |table| {
                tx.query_row(&format!("SELECT count(*) FROM {table} WHERE user = ?"), [&id], |row| row.get::<_, i64>(0))
            };
            Ok((count("users_clients")?, count("users_prekeys")?))
        });
        assert_eq!(left.await.unwrap(), (0, 0), "after {first} that came first and {refused} that came too late");
    }
}
