use std::time::Duration;

use aldis_proto::{
    convert,
    internal::v1::{
        CreateUserRequest, GetAccountsRequest, profiles_client::ProfilesClient, user_admin_client::UserAdminClient,
    },
};
use serde_json::{Value, json};
use tonic::Code;

use super::{
    store::{SqliteAccounts, suite},
    *,
};
use crate::{
    config::Registration,
    testing::{Backend, Network, PASSWORD, User, database_and_outbox},
};

async fn send_code(backend: &Backend, email: &str) -> crate::testing::Answer {
    backend.call("POST", "/activate/send", None, Some(json!({ "email": email }))).await
}

async fn register(backend: &Backend, body: Value) -> crate::testing::Answer {
    backend.call("POST", "/register", None, Some(body)).await
}

fn other_code(code: &str) -> String {
    format!("{:06}", (code.parse::<u32>().unwrap() + 1) % 1_000_000)
}

#[tokio::test]
async fn suite_on_sqlite() {
    let (_folder, db, outbox) = database_and_outbox().await;
    suite::all(&SqliteAccounts::new(db, outbox)).await;
}

#[tokio::test]
async fn registration_as_apps_do_it() {
    let backend = Backend::alone().await;
    let email = "Ann@Example.com";
    send_code(&backend, email).await.expect(200);
    let mail = backend.mail("Ann@example.com", "Verification").await;
    let code = mail["X-Zeta-Code"].clone();
    assert_eq!(code.len(), 6);
    let check = |code: &str| {
        let body = json!({ "email": email, "code": code, "dryrun": true });
        backend.call("POST", "/activate", None, Some(body))
    };
    check(&code).await.expect(200);
    check(&other_code(&code)).await.expect_label(404, "invalid-code");
    // Asking again sends the same code.
    send_code(&backend, email).await.expect(200);
    let body = json!({
        "name": "Ann", "email": email, "email_code": code, "password": PASSWORD, "accent_id": 5, "locale": "de-CH",
        "label": "a label", "assets": [{ "key": "3-1-abc", "type": "image", "size": "preview" }],
    });
    let answer = register(&backend, body.clone()).await;
    let cookie = answer.cookie().unwrap();
    assert!(answer.headers["set-cookie"].to_str().unwrap().contains("; Expires="));
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    let own = answer.expect(201);
    let expected = json!({
        "qualified_id": { "id": location, "domain": "alpha.test" }, "id": location, "name": "Ann", "accent_id": 5,
        "picture": [], "assets": [{ "key": "3-1-abc", "type": "image", "size": "preview" }], "status": "active",
        "locale": "de-CH", "email": "Ann@example.com", "managed_by": "wire", "supported_protocols": ["proteus"],
        "type": "regular", "searchable": true,
    });
    assert_eq!(own, expected);
    let token = backend.access("/access", Some(&cookie), None).await.expect(200);
    let token = token["access_token"].as_str().unwrap();
    assert_eq!(backend.call("GET", "/self", Some(token), None).await.expect(200), expected);
    backend.call("GET", "/self", None, None).await.expect_label(401, "invalid-credentials");
    backend.call("HEAD", "/self/password", Some(token), None).await.expect(200);

    register(&backend, body).await.expect_label(404, "invalid-code");
    send_code(&backend, "ann@example.com").await.expect_label(409, "key-exists");
}

#[tokio::test]
async fn bad_registrations_are_refused() {
    let backend = Backend::alone().await;
    let good = json!({ "name": "Ann", "email": "ann@example.com", "password": PASSWORD });
    let cases = [
        ("name", json!(""), 400, "bad-request"),
        ("name", json!("x".repeat(129)), 400, "bad-request"),
        ("email", json!("no address"), 400, "invalid-email"),
        ("email", Value::Null, 403, "ephemeral-user-creation-disabled"),
        ("password", json!("1234567"), 400, "bad-request"),
        ("password", json!("x".repeat(1025)), 400, "bad-request"),
        ("password", Value::Null, 400, "bad-request"),
        ("locale", json!("english"), 400, "bad-request"),
        ("supported_protocols", json!(["mixed"]), 400, "bad-request"),
        ("email_code", json!("123456"), 404, "invalid-code"),
        ("invitation_code", json!("abc"), 400, "invalid-invitation-code"),
        ("team", json!({ "name": "T" }), 403, "user-creation-restricted"),
    ];
    for (key, value, status, label) in cases {
        let mut body = good.clone();
        body[key] = value;
        register(&backend, body).await.expect_label(status, label);
    }
    send_code(&backend, "nothing").await.expect_label(400, "invalid-email");
    register(&backend, good).await.expect(201);
}

#[tokio::test]
async fn who_may_register_is_a_setting() {
    let network = Network::default();
    let closed = Backend::start("closed.test", &network, |config| config.registration = Registration::Closed).await;
    send_code(&closed, "ann@example.com").await.expect_label(403, "user-creation-restricted");
    register(&closed, json!({ "name": "Ann" })).await.expect_label(403, "user-creation-restricted");
    let settings = closed.call("GET", "/system/settings/unauthorized", None, None).await.expect(200);
    assert_eq!(settings, json!({ "setRestrictUserCreation": true }));
    let domains = Registration::Domains(vec!["example.com".to_owned()]);
    let listed = Backend::start("listed.test", &network, |config| config.registration = domains).await;
    send_code(&listed, "ann@other.com").await.expect_label(403, "unauthorized");
    let body = json!({ "name": "Ann", "email": "ann@sub.example.com", "password": PASSWORD });
    register(&listed, body).await.expect_label(403, "unauthorized");
    send_code(&listed, "ann@EXAMPLE.com").await.expect(200);
    let settings = listed.call("GET", "/system/settings/unauthorized", None, None).await.expect(200);
    assert_eq!(settings, json!({ "setRestrictUserCreation": false }));
}

#[tokio::test]
async fn three_wrong_tries_void_a_code() {
    let backend = Backend::alone().await;
    send_code(&backend, "ann@example.com").await.expect(200);
    let code = backend.mail("ann@example.com", "Verification").await["X-Zeta-Code"].clone();
    let wrong = json!({ "email": "ann@example.com", "code": other_code(&code), "dryrun": true });
    for _ in 0..3 {
        backend.call("POST", "/activate", None, Some(wrong.clone())).await.expect_label(404, "invalid-code");
    }
    let right = json!({ "name": "A", "email": "ann@example.com", "password": PASSWORD, "email_code": code });
    register(&backend, right).await.expect_label(404, "invalid-code");
}

#[tokio::test]
async fn codes_expire_and_mails_to_one_address_are_limited() {
    let network = Network::default();
    let backend = Backend::start("alpha.test", &network, |config| config.limits.code_mails_per_hour = 2).await;
    send_code(&backend, "ann@example.com").await.expect(200);
    let code = backend.mail("ann@example.com", "Verification").await["X-Zeta-Code"].clone();
    send_code(&backend, "ann@example.com").await.expect(200);
    let refused = send_code(&backend, "ann@example.com").await;
    assert_eq!(refused.headers["retry-after"], "3600");
    refused.expect_label(429, "too-many-requests");
    backend.clock.advance(Duration::from_secs(3601));
    let late = json!({ "name": "A", "email": "ann@example.com", "password": PASSWORD, "email_code": code });
    register(&backend, late).await.expect_label(404, "invalid-code");
    send_code(&backend, "ann@example.com").await.expect(200);
}

#[tokio::test]
async fn an_account_without_proven_address_waits_for_activation() {
    let backend = Backend::alone().await;
    let body = json!({ "name": "Ann", "email": "ann@example.com", "password": PASSWORD });
    let answer = register(&backend, body.clone()).await;
    let cookie = answer.cookie().unwrap();
    let own = answer.expect(201);
    assert_eq!((&own["email"], &own["email_unvalidated"]), (&Value::Null, &json!("ann@example.com")));
    let login = json!({ "email": "ann@example.com", "password": PASSWORD });
    backend.call("POST", "/login", None, Some(login.clone())).await.expect_label(403, "pending-activation");
    let token = backend.access("/access", Some(&cookie), None).await.expect(200);
    let token = token["access_token"].as_str().unwrap().to_owned();
    let handle = Some(json!({ "handle": "ann" }));
    backend.call("PUT", "/self/handle", Some(&token), handle).await.expect_label(403, "no-identity");
    let search = backend.call("GET", "/search/contacts?q=a", Some(&token), None).await;
    search.expect_label(403, "insufficient-permissions");

    let mail = backend.mail("ann@example.com", "Activation").await;
    let (key, code) = (&mail["X-Zeta-Key"], &mail["X-Zeta-Code"]);
    let wrong = format!("/activate?key={key}&code={}", other_code(code));
    backend.call("GET", &wrong, None, None).await.expect_label(404, "invalid-code");
    let path = format!("/activate?key={key}&code={code}");
    let activated = backend.call("GET", &path, None, None).await.expect(200);
    assert_eq!(activated, json!({ "email": "ann@example.com", "first": true }));
    let again = json!({ "key": key, "code": code });
    backend.call("POST", "/activate", None, Some(again)).await.expect(204);
    backend.call("POST", "/login", None, Some(login)).await.expect(200);
    crate::testing::until(|| !backend.recorder.events("user.activate").is_empty()).await;
    let event = backend.recorder.events("user.activate").remove(0).event;
    assert_eq!(event["user"]["email"], "ann@example.com");
    register(&backend, body).await.expect_label(409, "key-exists");
}

#[tokio::test]
async fn an_address_belongs_to_whoever_proves_it() {
    let backend = Backend::alone().await;
    let squatter = json!({ "name": "Squatter", "email": "ann@example.com", "password": "something else" });
    let squatter = register(&backend, squatter).await.expect(201);
    send_code(&backend, "ann@example.com").await.expect(200);
    let mail = backend.mail("ann@example.com", "Activation").await;
    let body = json!({ "name": "Ann", "email": "ann@example.com", "password": PASSWORD,
                       "email_code": mail["X-Zeta-Code"] });
    let ann = register(&backend, body).await.expect(201);
    let login = json!({ "email": "ann@example.com", "password": PASSWORD });
    let login = backend.call("POST", "/login", None, Some(login)).await.expect(200);
    assert_eq!(login["user"], ann["id"]);
    assert_ne!(squatter["id"], ann["id"]);
}

#[tokio::test]
async fn the_own_profile_is_changed_and_contacts_are_told() {
    let backend = Backend::alone().await;
    let (ann, bob) = (backend.register("Ann").await, backend.register("Bob").await);
    backend.register("Carl").await;
    let connection = |user: &User| format!("/connections/alpha.test/{}", user.id);
    backend.call("POST", &connection(&bob), Some(&ann.token), None).await.expect(201);
    backend.put(&bob, &connection(&ann), json!({ "status": "accepted" })).await.expect(200);

    let body = json!({ "name": "Anna", "accent_id": 7, "text_status": "away", "picture": [],
                       "assets": [{ "key": "3-1-x", "type": "image", "size": "complete" }] });
    backend.put(&ann, "/self", body).await.expect(200);
    let told = backend.recorder.events("user.update").remove(0);
    assert_eq!(told.users, [ann.id, bob.id]);
    assert_eq!(told.origin, Some(ann.connection()));
    let expected = json!({ "type": "user.update", "user": {
        "id": ann.id, "sso_id_deleted": false, "name": "Anna", "accent_id": 7, "text_status": "away",
        "assets": [{ "key": "3-1-x", "type": "image", "size": "complete" }],
    }});
    assert_eq!(told.event, expected);
    backend.put(&ann, "/self/locale", json!({ "locale": "fr" })).await.expect(200);
    let told = backend.recorder.events("user.update").remove(1);
    assert_eq!((told.users, &told.event["user"]["locale"]), (vec![ann.id], &json!("fr")));
    backend.put(&ann, "/self", json!({})).await.expect(200);
    backend.put(&ann, "/self", json!({ "name": "" })).await.expect_label(400, "bad-request");
    assert_eq!(backend.recorder.events("user.update").len(), 2);

    let path = format!("/users/alpha.test/{}", ann.id);
    let profile = backend.get(&bob, &path).await.expect(200);
    let expected = json!({
        "qualified_id": ann.qualified(), "id": ann.id, "name": "Anna", "accent_id": 7, "picture": [],
        "assets": [{ "key": "3-1-x", "type": "image", "size": "complete" }], "text_status": "away",
        "legalhold_status": "no_consent", "supported_protocols": ["proteus"], "type": "regular", "searchable": true,
    });
    assert_eq!(profile, expected);
    backend.put(&ann, "/self", json!({ "text_status": "" })).await.expect(200);
    assert_eq!(backend.get(&bob, &path).await.expect(200)["text_status"], Value::Null);
}

#[tokio::test]
async fn protocols_only_grow() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let put = |protocols: Value| {
        let body = json!({ "supported_protocols": protocols });
        let ann = ann.clone();
        let backend = &backend;
        async move { backend.put(&ann, "/self/supported-protocols", body).await }
    };
    put(json!(["proteus"])).await.expect(200);
    put(json!(["proteus", "mls"])).await.expect(200);
    put(json!(["proteus"])).await.expect_label(409, "mls-protocol-error");
    put(json!([])).await.expect_label(400, "bad-request");
    let path = format!("/users/alpha.test/{}/supported-protocols", ann.id);
    assert_eq!(backend.get(&ann, &path).await.expect(200), json!(["proteus", "mls"]));
    assert_eq!(backend.recorder.events("user.update").len(), 1);
}

#[tokio::test]
async fn handles_are_unique() {
    let backend = Backend::alone().await;
    let (ann, bob) = (backend.register("Ann").await, backend.register("Bob").await);
    let put = |user: &User, handle: &str| {
        let (user, body, backend) = (user.clone(), json!({ "handle": handle }), &backend);
        async move { backend.put(&user, "/self/handle", body).await }
    };
    put(&ann, "ann").await.expect(200);
    put(&ann, "ann").await.expect(200);
    assert_eq!(backend.recorder.events("user.update").len(), 1);
    put(&bob, "ann").await.expect_label(409, "handle-exists");
    put(&bob, "Not A Handle").await.expect_label(400, "invalid-handle");
    put(&bob, "admin").await.expect_label(400, "invalid-handle");
    backend.head(&bob, "/handles/ann").await.expect(200);
    backend.head(&bob, "/handles/free").await.expect(404);
    backend.head(&bob, "/handles/%20").await.expect(400);
    let body = json!({ "handles": ["ann", "A!", "free", "also-free", "admin"], "return": 5 });
    assert_eq!(backend.post(&bob, "/handles", body).await.expect(200), json!(["free", "also-free"]));
    let one = backend.post(&bob, "/handles", json!({ "handles": ["x1", "x2"] })).await.expect(200);
    assert_eq!(one, json!(["x1"]));
    put(&ann, "anna").await.expect(200);
    put(&bob, "ann").await.expect(200);
    let found = backend.get(&bob, "/users/by-handle/alpha.test/anna").await.expect(200);
    assert_eq!(found["id"], json!(ann.id));
    backend.get(&bob, "/users/by-handle/alpha.test/nobody").await.expect_label(404, "not-found");
    let (one, other) = tokio::join!(put(&ann, "wanted"), put(&bob, "wanted"));
    let mut statuses = [one.status.as_u16(), other.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
}

#[tokio::test]
async fn profiles_of_users_of_several_backends() {
    let (alpha, beta, network) = Backend::pair().await;
    let ann = alpha.register_with_handle("Ann", "ann").await;
    let bob = beta.register_with_handle("Bob", "bob").await;
    let remote = alpha.get(&ann, &format!("/users/beta.test/{}", bob.id)).await.expect(200);
    assert_eq!(remote, beta.get(&bob, &format!("/users/beta.test/{}", bob.id)).await.expect(200));
    let unknown = format!("/users/beta.test/{}", ann.id);
    alpha.get(&ann, &unknown).await.expect_label(404, "not-found");
    let by_handle = alpha.get(&ann, "/users/by-handle/beta.test/bob").await.expect(200);
    assert_eq!(by_handle["qualified_id"], json!(bob.qualified()));

    let gone = Qualified::new(ann.id, "gone.test".parse().unwrap());
    let body = json!({ "qualified_ids": [ann.qualified(), bob.qualified(), gone] });
    let listed = alpha.post(&ann, "/list-users", body).await.expect(200);
    let found: Vec<_> = listed["found"].as_array().unwrap().iter().map(|user| &user["name"]).collect();
    assert_eq!(found, ["Ann", "Bob"]);
    assert_eq!(listed["failed"], json!([gone]));
    let handles = json!({ "qualified_handles": [{ "domain": "beta.test", "handle": "bob" },
                                                { "domain": "gone.test", "handle": "bob" }] });
    let listed = alpha.post(&ann, "/list-users", handles).await.expect(200);
    assert_eq!((listed["found"].as_array().unwrap().len(), listed.get("failed")), (1, None));
    alpha.post(&ann, "/list-users", json!({})).await.expect_label(400, "bad-request");
    alpha.post(&ann, "/list-users", json!({ "qualified_handles": [] })).await.expect_label(400, "bad-request");

    network.take_down(&beta.domain);
    let down = alpha.get(&ann, &format!("/users/beta.test/{}", bob.id)).await;
    let down = down.expect_label(521, "federation-connection-refused");
    assert_eq!((&down["data"]["type"], &down["data"]["domain"]), (&json!("federation"), &json!("beta.test")));
}

#[tokio::test]
async fn rich_info_is_for_oneself() {
    let backend = Backend::alone().await;
    let (ann, bob) = (backend.register("Ann").await, backend.register("Bob").await);
    let own = backend.get(&ann, &format!("/users/{}/rich-info", ann.id)).await.expect(200);
    assert_eq!(own, json!({ "version": 0, "fields": [] }));
    let other = backend.get(&ann, &format!("/users/{}/rich-info", bob.id)).await;
    other.expect_label(403, "insufficient-permissions");
}

#[tokio::test]
async fn the_administrator_creates_accounts_though_registration_is_closed() {
    let network = Network::default();
    let backend = Backend::start("alpha.test", &network, |config| config.registration = Registration::Closed).await;
    let mut admin = UserAdminClient::new(backend.admin.clone());
    let ann = CreateUserRequest {
        email: "ann@example.com".to_owned(),
        password: PASSWORD.to_owned(),
        name: "Ann".to_owned(),
        handle: Some("ann".to_owned()),
    };
    let created = admin.create_user(ann.clone()).await.unwrap().into_inner();
    assert_eq!(created.domain, "alpha.test");
    let login = json!({ "handle": "ann", "password": PASSWORD });
    let login = backend.call("POST", "/login", None, Some(login)).await.expect(200);
    assert_eq!(login["user"], json!(convert::user_id(&created.id).unwrap()));

    let mut refused = async |request: CreateUserRequest| admin.create_user(request).await.unwrap_err().code();
    assert_eq!(refused(ann.clone()).await, Code::AlreadyExists);
    let other = CreateUserRequest { email: "bob@example.com".to_owned(), ..ann.clone() };
    assert_eq!(refused(other.clone()).await, Code::AlreadyExists, "the handle");
    let free = CreateUserRequest { handle: None, ..other };
    for wrong in [
        CreateUserRequest { email: "nothing".to_owned(), ..free.clone() },
        CreateUserRequest { name: String::new(), ..free.clone() },
        CreateUserRequest { password: "short".to_owned(), ..free.clone() },
        CreateUserRequest { handle: Some("!".to_owned()), ..free.clone() },
    ] {
        assert_eq!(refused(wrong).await, Code::InvalidArgument);
    }
    let actors: Vec<String> = backend
        .db
        .read(|tx| {
            let mut query = tx.prepare("SELECT actor || ' ' || action || ' ' || outcome FROM users_audit")?;
            let rows = query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            Ok(rows)
        })
        .await
        .unwrap();
    let expected = ["done", "email-taken", "handle-taken"].map(|outcome| format!("admin account-created {outcome}"));
    assert_eq!(actors, expected);

    let request = GetAccountsRequest { users: vec![created.id, convert::bytes_of(UserId::new(uuid::Uuid::nil()))] };
    let accounts = ProfilesClient::new(backend.internal.clone()).get_accounts(request).await.unwrap().into_inner();
    assert_eq!(accounts.accounts.len(), 1);
    assert!(accounts.accounts[0].activated && !accounts.accounts[0].deleted);
}

#[test]
fn locales() {
    let parse = |text: &str| text.parse::<Locale>().map(|locale| locale.as_str().to_owned());
    assert_eq!(parse("en"), Ok("en".to_owned()));
    assert_eq!(parse("DE_ch"), Ok("de-CH".to_owned()));
    for wrong in ["", "e", "english", "en-", "en-GBR", "en-G1", "e1"] {
        assert_eq!(parse(wrong), Err(()), "{wrong}");
    }
}
