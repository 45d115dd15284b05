use std::time::Duration;

use serde_json::{Value, json};

use super::store::{SqliteLifecycle, suite};
use crate::{
    accounts::store::SqliteAccounts,
    testing::{Answer, Backend, Network, PASSWORD, User, database_and_outbox, new_client, until},
};

#[tokio::test]
async fn suite_on_sqlite() {
    let (_folder, db, outbox) = database_and_outbox().await;
    let accounts = SqliteAccounts::new(db.clone(), outbox.clone());
    suite::all(&SqliteLifecycle::new(db, outbox), &accounts).await;
}

async fn login(backend: &Backend, email: &str, password: &str) -> Answer {
    let body = json!({ "email": email, "password": password });
    backend.call("POST", "/login?persist=true", None, Some(body)).await
}

/// Another session of a user.
async fn session(backend: &Backend, user: &User) -> User {
    let answer = login(backend, &user.email, PASSWORD).await;
    let cookie = answer.cookie().unwrap();
    let token = answer.expect(200)["access_token"].as_str().unwrap().to_owned();
    User { cookie, token, ..user.clone() }
}

async fn is_over(backend: &Backend, session: &User) {
    backend.access("/access", Some(&session.cookie), None).await.expect_label(403, "invalid-credentials");
    // This process's own verifier follows at once.
    while backend.get(session, "/self").await.status != 401 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_new_password_ends_all_other_sessions() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let other = session(&backend, &ann).await;
    let change = |old: Value, new: &str| {
        backend.put(&ann, "/self/password", json!({ "old_password": old, "new_password": new }))
    };
    change(json!("wrong"), "new password").await.expect_label(403, "invalid-credentials");
    change(Value::Null, "new password").await.expect_label(403, "invalid-credentials");
    change(json!(PASSWORD), PASSWORD).await.expect_label(409, "password-must-differ");
    change(json!(PASSWORD), "short").await.expect_label(400, "bad-request");
    change(json!(PASSWORD), "new password").await.expect(200);
    is_over(&backend, &other).await;
    backend.get(&ann, "/self").await.expect(200);
    backend.access("/access", Some(&ann.cookie), Some(&ann.token)).await.expect(200);
    login(&backend, &ann.email, PASSWORD).await.expect_label(403, "invalid-credentials");
    let again = login(&backend, &ann.email, "new password").await.expect(200);
    backend.call("GET", "/self", again["access_token"].as_str(), None).await.expect(200);
}

async fn ask_for_reset(backend: &Backend, email: &str) {
    backend.call("POST", "/password-reset", None, Some(json!({ "email": email }))).await.expect(201);
}

async fn reset(backend: &Backend, body: Value) -> Answer {
    backend.call("POST", "/password-reset/complete", None, Some(body)).await
}

#[tokio::test]
async fn a_code_from_the_mail_sets_a_new_password() {
    let network = Network::default();
    let backend = Backend::start("alpha.test", &network, |config| {
        config.limits.login_failures = 3;
        config.mail.password_reset_url = Some("https://account.test/reset?key={key}&code={code}".to_owned());
    })
    .await;
    let ann = backend.register("Ann").await;
    for _ in 0..3 {
        login(&backend, &ann.email, "wrong").await.expect_label(403, "invalid-credentials");
    }
    login(&backend, &ann.email, PASSWORD).await.expect_label(403, "client-error");
    ask_for_reset(&backend, "nobody@example.com").await;
    ask_for_reset(&backend, &ann.email).await;
    let mail = backend.mail(&ann.email, "PasswordReset").await;
    let (key, code) = (&mail["X-Zeta-Key"], &mail["X-Zeta-Code"]);
    assert_eq!((key, code.len()), (&ann.id.to_string(), 22));

    let complete = |code: &str, password: &str| json!({ "email": ann.email, "code": code, "password": password });
    reset(&backend, complete("wrong", "new password")).await.expect_label(400, "invalid-code");
    reset(&backend, complete(&"x".repeat(65), "new password")).await.expect_label(400, "invalid-code");
    reset(&backend, complete(code, "short")).await.expect_label(400, "bad-request");
    reset(&backend, complete(code, PASSWORD)).await.expect_label(409, "password-must-differ");
    let nobody = json!({ "email": "nobody@example.com", "code": code, "password": "new password" });
    reset(&backend, nobody).await.expect_label(400, "invalid-code");
    let malformed = json!({ "key": "nonsense", "code": code, "password": "new password" });
    reset(&backend, malformed).await.expect_label(400, "invalid-key");
    reset(&backend, json!({ "code": code, "password": "new password" })).await.expect_label(400, "bad-request");
    let right = json!({ "key": key, "code": code, "password": "new password" });
    reset(&backend, right.clone()).await.expect(200);
    reset(&backend, right).await.expect_label(400, "invalid-code");
    is_over(&backend, &ann).await;
    // Nor is the account locked any longer.
    login(&backend, &ann.email, "new password").await.expect(200);
}

#[tokio::test]
async fn codes_for_a_password_expire_and_run_out() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let complete = |code: &str| json!({ "email": ann.email, "code": code, "password": "new password" });
    ask_for_reset(&backend, &ann.email).await;
    let code = backend.mail(&ann.email, "PasswordReset").await["X-Zeta-Code"].clone();
    for _ in 0..3 {
        reset(&backend, complete("wrong")).await.expect_label(400, "invalid-code");
    }
    reset(&backend, complete(&code)).await.expect_label(400, "invalid-code");

    backend.clock.advance(Duration::from_secs(1));
    ask_for_reset(&backend, &ann.email).await;
    let mut next = code.clone();
    while next == code {
        tokio::time::sleep(Duration::from_millis(5)).await;
        next = backend.mail(&ann.email, "PasswordReset").await["X-Zeta-Code"].clone();
    }
    backend.clock.advance(Duration::from_secs(601));
    reset(&backend, complete(&next)).await.expect_label(400, "invalid-code");
    backend
        .call("POST", "/password-reset", None, Some(json!({ "email": "x" })))
        .await
        .expect_label(400, "invalid-email");
}

/// `PUT /access/self/email` as apps do it, with cookie and token.
async fn put_email(backend: &Backend, user: &User, cookie: &str, email: &str) -> Answer {
    let request = http::Request::put("/access/self/email")
        .header(http::header::AUTHORIZATION, format!("Bearer {}", user.token))
        .header(http::header::COOKIE, format!("zuid={cookie}"))
        .body(axum::body::Body::from(json!({ "email": email }).to_string()))
        .unwrap();
    backend.send(request).await
}

#[tokio::test]
async fn another_address_counts_once_it_is_proven() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let bob = backend.register("Bob").await;
    let put = |email| put_email(&backend, &ann, &ann.cookie, email);
    put("nonsense").await.expect_label(400, "invalid-email");
    put(&bob.email).await.expect_label(409, "key-exists");
    put("ANN@example.com").await.expect(204);
    put_email(&backend, &ann, &bob.cookie, "new@example.com").await.expect_label(403, "invalid-credentials");
    put_email(&backend, &ann, "nonsense", "new@example.com").await.expect_label(403, "invalid-credentials");

    put("new@example.com").await.expect(202);
    let own = backend.get(&ann, "/self").await.expect(200);
    assert_eq!((&own["email"], &own["email_unvalidated"]), (&json!(ann.email), &json!("new@example.com")));
    let mail = backend.mail("new@example.com", "Activation").await;
    login(&backend, "new@example.com", PASSWORD).await.expect_label(403, "invalid-credentials");
    let body = json!({ "key": mail["X-Zeta-Key"], "code": mail["X-Zeta-Code"] });
    let activated = backend.call("POST", "/activate", None, Some(body)).await.expect(200);
    assert_eq!(activated, json!({ "email": "new@example.com", "first": false }));
    let own = backend.get(&ann, "/self").await.expect(200);
    assert_eq!((&own["email"], &own["email_unvalidated"]), (&json!("new@example.com"), &Value::Null));
    until(|| !backend.recorder.events_for("user.update", ann.id).is_empty()).await;
    let event = backend.recorder.events_for("user.update", ann.id).remove(0);
    assert_eq!(event["user"], json!({ "id": ann.id, "email": "new@example.com" }));
    login(&backend, "new@example.com", PASSWORD).await.expect(200);
    login(&backend, &ann.email, PASSWORD).await.expect_label(403, "invalid-credentials");

    // The old address is free for others.
    backend.call("POST", "/activate/send", None, Some(json!({ "email": ann.email }))).await.expect(200);
    backend.delete(&ann, "/self/email", None).await.expect_label(403, "last-identity");
}

#[tokio::test]
async fn one_account_cannot_send_mail_to_everybody() {
    let network = Network::default();
    let backend = Backend::start("alpha.test", &network, |config| config.limits.code_mails_per_hour = 2).await;
    let ann = backend.register("Ann").await;
    for (address, status) in [("a@example.com", 202), ("b@example.com", 202), ("c@example.com", 429)] {
        put_email(&backend, &ann, &ann.cookie, address).await.expect(status);
    }
}

async fn befriend(one_at: &Backend, one: &User, other_at: &Backend, other: &User) {
    one_at.post(one, &format!("/connections/{}/{}", other.domain, other.id), json!({})).await.expect(201);
    let path = format!("/connections/{}/{}", one.domain, one.id);
    other_at.put(other, &path, json!({ "status": "accepted" })).await.expect(200);
}

#[tokio::test]
async fn a_deleted_account_leaves_a_tombstone_and_everybody_is_told() {
    let (alpha, beta, network) = Backend::pair().await;
    let ann = alpha.register_with_handle("Ann", "ann").await;
    let carl = alpha.register("Carl").await;
    let dora = alpha.register("Dora").await;
    let (bob, eve) = (beta.register("Bob").await, beta.register("Eve").await);
    alpha.post(&ann, "/clients", new_client("permanent", "a", 2)).await.expect(201);
    befriend(&alpha, &ann, &alpha, &carl).await;
    befriend(&alpha, &ann, &beta, &bob).await;
    alpha.post(&ann, &format!("/connections/alpha.test/{}", dora.id), json!({})).await.expect(201);
    alpha.post(&ann, &format!("/connections/beta.test/{}", eve.id), json!({})).await.expect(201);
    let path = format!("/users/alpha.test/{}", ann.id);
    // The other backend is down meanwhile, and hears of it later.
    let routes = network.take_down(&beta.domain);

    alpha.delete(&ann, "/self", Some(json!({ "password": "wrong" }))).await.expect_label(403, "invalid-credentials");
    alpha.delete(&ann, "/self", Some(json!({ "password": PASSWORD }))).await.expect(200);
    is_over(&alpha, &ann).await;
    login(&alpha, &ann.email, PASSWORD).await.expect_label(403, "invalid-credentials");
    let tombstone = json!({
        "qualified_id": { "id": ann.id, "domain": "alpha.test" }, "id": ann.id, "name": "default", "accent_id": 0,
        "picture": [], "assets": [], "legalhold_status": "no_consent", "supported_protocols": ["proteus"],
        "type": "regular", "searchable": true, "deleted": true,
    });
    assert_eq!(alpha.get(&carl, &path).await.expect(200), tombstone);
    let listed = json!({ "qualified_ids": [ann.qualified()] });
    assert_eq!(alpha.post(&carl, "/list-users", listed.clone()).await.expect(200)["found"], json!([tombstone]));
    assert_eq!(alpha.get(&carl, &format!("{path}/clients")).await.expect(200), json!([]));
    alpha.get(&carl, "/users/by-handle/alpha.test/ann").await.expect_label(404, "not-found");
    let found = alpha.get(&carl, "/search/contacts?q=ann").await.expect(200);
    assert_eq!(found["documents"], json!([]));
    alpha
        .post(&carl, &format!("/connections/alpha.test/{}", ann.id), json!({}))
        .await
        .expect_label(400, "invalid-user");

    let gone = json!({ "type": "user.delete", "id": ann.id, "qualified_id": ann.qualified() });
    for user in [&ann, &carl] {
        assert_eq!(alpha.recorder.events_for("user.delete", user.id), std::slice::from_ref(&gone));
    }
    assert!(alpha.recorder.events_for("user.delete", dora.id).is_empty());
    let taken_back = alpha.recorder.events_for("user.connection", dora.id);
    assert_eq!(taken_back.last().unwrap()["connection"]["status"], "cancelled");
    assert_eq!((alpha.recorder.departed(), alpha.recorder.forgotten()), (vec![ann.id], vec![ann.id]));
    for user in [&carl, &dora] {
        alpha.get(user, &format!("/connections/alpha.test/{}", ann.id)).await.expect_label(404, "not-found");
    }

    network.bring_up(&beta.domain, routes);
    until(|| beta.recorder.events_for("user.delete", bob.id) == std::slice::from_ref(&gone)).await;
    for user in [&bob, &eve] {
        beta.get(user, &format!("/connections/alpha.test/{}", ann.id)).await.expect_label(404, "not-found");
    }
    assert!(beta.recorder.events_for("user.delete", eve.id).is_empty());
    let taken_back = beta.recorder.events_for("user.connection", eve.id);
    assert_eq!(taken_back.last().unwrap()["connection"]["status"], "cancelled");
    assert_eq!(beta.get(&bob, &path).await.expect(200), tombstone);
    beta.post(&bob, &format!("/connections/alpha.test/{}", ann.id), json!({})).await.expect_label(400, "invalid-user");

    // Address and handle are free.
    alpha.call("POST", "/activate/send", None, Some(json!({ "email": ann.email }))).await.expect(200);
    alpha.put(&carl, "/self/handle", json!({ "handle": "ann" })).await.expect(200);
}

#[tokio::test]
async fn without_the_password_a_mail_confirms_the_deletion() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let asked = backend.delete(&ann, "/self", None).await;
    assert_eq!(asked.expect(202), json!({ "expires_in": 600 }));
    backend.clock.advance(Duration::from_secs(60));
    let pending = backend.delete(&ann, "/self", Some(json!({}))).await.expect_label(403, "pending-delete");
    assert_eq!(pending["expires_in"], 540);
    let mail = backend.mail(&ann.email, "Delete").await;
    let confirm = |code: &str| {
        let body = json!({ "key": mail["X-Zeta-Key"], "code": code });
        backend.call("POST", "/delete", None, Some(body))
    };
    confirm("wrong").await.expect_label(403, "invalid-code");
    backend.get(&ann, "/self").await.expect(200);
    confirm(&mail["X-Zeta-Code"]).await.expect(200);
    is_over(&backend, &ann).await;
    confirm(&mail["X-Zeta-Code"]).await.expect_label(403, "invalid-code");
    backend.delete(&ann, "/self", Some(json!("x"))).await.expect_label(401, "invalid-credentials");
}

#[tokio::test]
async fn changes_of_a_profile_reach_contacts_at_other_backends() {
    let (alpha, beta, network) = Backend::pair().await;
    let ann = alpha.register("Ann").await;
    let (bob, eve) = (beta.register("Bob").await, beta.register("Eve").await);
    befriend(&alpha, &ann, &beta, &bob).await;
    alpha.post(&ann, &format!("/connections/beta.test/{}", eve.id), json!({})).await.expect(201);
    let routes = network.take_down(&beta.domain);
    let asset = json!({ "key": "3-1-abc", "type": "image", "size": "complete" });
    alpha.put(&ann, "/self", json!({ "name": "Anna", "assets": [asset] })).await.expect(200);
    alpha.put(&ann, "/self/locale", json!({ "locale": "de" })).await.expect(200);
    alpha.put(&ann, "/self/handle", json!({ "handle": "anna" })).await.expect(200);
    network.bring_up(&beta.domain, routes);
    until(|| beta.recorder.events_for("user.update", bob.id).len() == 2).await;
    let events = beta.recorder.events_for("user.update", bob.id);
    let mut expected = json!({
        "id": ann.id, "qualified_id": ann.qualified(), "name": "Anna", "accent_id": 1, "assets": [asset],
        "text_status": "", "supported_protocols": ["proteus"], "sso_id_deleted": false,
    });
    assert_eq!(events[0]["user"], expected);
    expected["handle"] = json!("anna");
    assert_eq!(events[1]["user"], expected);
    assert!(beta.recorder.events_for("user.update", eve.id).is_empty(), "only contacts are told");
}
