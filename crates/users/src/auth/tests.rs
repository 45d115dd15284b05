use std::{sync::Arc, time::Duration};

use aldis_api::token;
use aldis_proto::internal::v1::{WatchAuthRequest, auth_client::AuthClient};
use aldis_runtime::SystemRandom;
use serde_json::json;

use super::{
    keys::SPREAD,
    passwords::{Password, PasswordError, Passwords},
    store::{SqliteAuth, suite},
    throttle::too_frequent,
    *,
};
use crate::testing::{Backend, Network, PASSWORD, User, database, new_client};

async fn login(backend: &Backend, user: &User, password: &str) -> crate::testing::Answer {
    let body = json!({ "email": user.email, "password": password, "clientType": null });
    backend.call("POST", "/login?persist=true", None, Some(body)).await
}

fn message(answer: crate::testing::Answer) -> String {
    answer.expect_label(403, "invalid-credentials")["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn suite_on_sqlite() {
    let (_folder, db) = database().await;
    let store = SqliteAuth::new(db);
    suite::all(&store).await;
}

#[tokio::test]
async fn login_gives_a_token_and_a_cookie_and_refuses_wrong_passwords() {
    let backend = Backend::alone().await;
    let ann = backend.register_with_handle("Ann", "ann").await;
    let answer = login(&backend, &ann, PASSWORD).await;
    let cookie = answer.headers["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.starts_with("zuid="), "{cookie}");
    for part in ["; Path=/access", "; HttpOnly", "; Secure", "; Expires=", " GMT"] {
        assert!(cookie.contains(part), "{part} in {cookie}");
    }
    let body = answer.expect(200);
    assert_eq!(body["user"], json!(ann.id));
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["expires_in"], 900);
    let token = body["access_token"].as_str().unwrap();
    backend.call("GET", "/self", Some(token), None).await.expect(200);

    let session = backend.call("POST", "/login", None, Some(json!({ "handle": "ann", "password": PASSWORD }))).await;
    assert!(!session.headers["set-cookie"].to_str().unwrap().contains("Expires"));

    assert_eq!(message(login(&backend, &ann, "wrong").await), "Authentication failed.");
    let nobody = json!({ "email": "nobody@example.com", "password": PASSWORD });
    assert_eq!(message(backend.call("POST", "/login", None, Some(nobody)).await), "Authentication failed.");
    backend.call("POST", "/login", None, Some(json!({ "password": PASSWORD }))).await.expect_label(400, "bad-request");
}

#[tokio::test]
async fn too_many_wrong_passwords_lock_an_account_for_a_while() {
    let network = Network::default();
    let backend = Backend::start("alpha.test", &network, |config| config.limits.login_failures = 3).await;
    let ann = backend.register("Ann").await;
    for _ in 0..2 {
        login(&backend, &ann, "wrong").await.expect_label(403, "invalid-credentials");
    }
    login(&backend, &ann, PASSWORD).await.expect(200);
    for _ in 0..3 {
        login(&backend, &ann, "wrong").await.expect_label(403, "invalid-credentials");
    }
    let locked = login(&backend, &ann, PASSWORD).await;
    assert_eq!(locked.headers["retry-after"], "900");
    assert_eq!(locked.expect_label(403, "client-error")["message"], "Too many failed logins");
    backend.clock.advance(Duration::from_secs(901));
    login(&backend, &ann, PASSWORD).await.expect(200);

    // The same goes for an account that does not exist.
    let nobody = json!({ "email": "nobody@example.com", "password": PASSWORD });
    for _ in 0..3 {
        backend.call("POST", "/login", None, Some(nobody.clone())).await.expect_label(403, "invalid-credentials");
    }
    backend.call("POST", "/login", None, Some(nobody)).await.expect_label(403, "client-error");
}

#[tokio::test]
async fn access_keeps_the_connection_id_and_says_what_is_wrong() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let bob = backend.register("Bob").await;
    let fresh = backend.access("/access", Some(&ann.cookie), Some(&ann.token)).await;
    assert!(fresh.cookie().is_none());
    let token = fresh.expect(200)["access_token"].as_str().unwrap().to_owned();
    assert_eq!(User { token, ..ann.clone() }.connection(), ann.connection());
    let other = backend.access("/access", Some(&ann.cookie), None).await.expect(200);
    let other = User { token: other["access_token"].as_str().unwrap().to_owned(), ..ann.clone() };
    assert_ne!(other.connection(), ann.connection());

    assert_eq!(message(backend.access("/access", None, None).await), "Missing cookie and token");
    assert_eq!(message(backend.access("/access", None, Some(&ann.token)).await), "Missing cookie");
    assert_eq!(message(backend.access("/access/logout", Some(&ann.cookie), None).await), "Missing token");
    assert_eq!(message(backend.access("/access", Some("rubbish"), None).await), "Invalid zauth token");
    assert_eq!(message(backend.access("/access", Some(&ann.token), None).await), "Invalid token");
    assert_eq!(message(backend.access("/access", Some(&ann.cookie), Some(&bob.token)).await), "Invalid token");
    let forged = ann.cookie.replace(&ann.id.to_string(), &bob.id.to_string());
    assert_eq!(message(backend.access("/access", Some(&forged), None).await), "Invalid token");
    backend.clock.advance(Duration::from_secs(4_838_401));
    assert_eq!(message(backend.access("/access", Some(&ann.cookie), None).await), "Zauth token expired");
}

#[tokio::test]
async fn one_good_cookie_among_several_is_enough() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let both = format!("rubbish; zuid={}", ann.cookie);
    backend.access("/access", Some(&both), None).await.expect(200);
}

#[tokio::test]
async fn a_session_is_bound_to_a_client_once() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let client = backend.post(&ann, "/clients", new_client("permanent", "one", 1)).await.expect(201);
    let client = client["id"].as_str().unwrap().to_owned();
    backend.access("/access?client_id=abc", Some(&ann.cookie), None).await.expect_label(403, "invalid-credentials");

    let path = format!("/access?client_id={client}");
    let answer = backend.access(&path, Some(&ann.cookie), Some(&ann.token)).await;
    let bound = answer.cookie().unwrap();
    assert!(bound.contains(&format!(".i={client}")), "{bound}");
    let token = answer.expect(200)["access_token"].as_str().unwrap().to_owned();
    assert!(token.contains(&format!(".i={client}.c={}", ann.connection())), "{token}");

    // The cookie before stays good, and leads to the same successor.
    let again = backend.access(&path, Some(&ann.cookie), None).await;
    assert_eq!(again.cookie().unwrap(), bound);
    again.expect(200);
    assert!(backend.access(&path, Some(&bound), None).await.cookie().is_none());
    let second = backend.post(&ann, "/clients", new_client("permanent", "two", 1)).await.expect(201);
    let path = format!("/access?client_id={}", second["id"].as_str().unwrap());
    backend.access(&path, Some(&bound), None).await.expect_label(403, "invalid-credentials");
}

#[tokio::test]
async fn old_cookies_are_renewed_and_stay_good_for_parallel_tabs() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    backend.clock.advance(Duration::from_secs(1_209_601));
    let renewed = backend.access("/access", Some(&ann.cookie), None).await;
    let next = renewed.cookie().unwrap();
    renewed.expect(200);
    assert_eq!(backend.access("/access", Some(&ann.cookie), None).await.cookie().unwrap(), next);
    let listed = backend.get(&ann, "/cookies").await.expect(200);
    let cookies = listed["cookies"].as_array().unwrap();
    assert_eq!(cookies.len(), 2);
    assert_eq!(cookies[0]["type"], "persistent");
    assert_eq!(cookies[1]["successor"], cookies[0]["id"]);
    backend.clock.advance(Duration::from_secs(1_209_601));
    assert_eq!(message(backend.access("/access", Some(&ann.cookie), None).await), "Zauth token expired");
}

#[tokio::test]
async fn logging_out_ends_cookie_and_access_tokens_at_once() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let mut watch = AuthClient::new(backend.internal.clone()).watch(WatchAuthRequest {}).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!((first.keys.len(), first.families.len()), (1, 0));

    let answer = backend.access("/access/logout", Some(&ann.cookie), Some(&ann.token)).await;
    assert_eq!(answer.cookie().unwrap(), "");
    answer.expect(200);
    assert_eq!(message(backend.access("/access", Some(&ann.cookie), None).await), "Invalid token");
    let next = watch.message().await.unwrap().unwrap();
    assert_eq!(u64::from(next.families[0].family), ann.connection() >> 32);
    assert!(next.version > first.version);
    loop {
        // This process's own verifier follows at once.
        if backend.get(&ann, "/self").await.status == 401 {
            break;
        }
        tokio::task::yield_now().await;
    }
}

/// A second session of a user.
async fn session(backend: &Backend, user: &User, label: &str) -> User {
    let body = json!({ "email": user.email, "password": PASSWORD, "label": label });
    let answer = backend.call("POST", "/login?persist=true", None, Some(body)).await;
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
async fn removed_cookies_end_their_sessions_and_no_others() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let laptop = session(&backend, &ann, "laptop").await;
    let phone = session(&backend, &ann, "phone").await;
    let tablet = session(&backend, &ann, "tablet").await;
    let remove = |body| backend.post(&ann, "/cookies/remove", body);
    remove(json!({ "labels": ["laptop"] })).await.expect_label(403, "missing-auth");
    remove(json!({ "password": "wrong", "labels": ["laptop"] })).await.expect_label(403, "invalid-credentials");
    let many: Vec<u32> = (0..257).collect();
    remove(json!({ "password": PASSWORD, "ids": many })).await.expect_label(400, "bad-request");

    let listed = backend.get(&ann, "/cookies?labels=phone").await.expect(200);
    let id = listed["cookies"][0]["id"].clone();
    remove(json!({ "password": PASSWORD, "labels": ["laptop", "nothing"], "ids": [id] })).await.expect(200);
    is_over(&backend, &laptop).await;
    is_over(&backend, &phone).await;
    for session in [&ann, &tablet] {
        backend.get(session, "/self").await.expect(200);
        backend.access("/access", Some(&session.cookie), None).await.expect(200);
    }

    // Neither ids nor labels: all of them.
    remove(json!({ "password": PASSWORD })).await.expect(200);
    is_over(&backend, &ann).await;
    is_over(&backend, &tablet).await;
    // Who logs in again at once is not taken for one of those that were ended.
    let again = session(&backend, &ann, "again").await;
    backend.get(&again, "/self").await.expect(200);
    let renewed = backend.access("/access", Some(&again.cookie), Some(&tablet.token)).await.expect(200);
    let renewed = User { token: renewed["access_token"].as_str().unwrap().to_owned(), ..again.clone() };
    assert_ne!(renewed.connection(), tablet.connection(), "an ended session does not come back to life");
    backend.get(&renewed, "/self").await.expect(200);
}

#[tokio::test]
async fn another_client_needs_the_password_whatever_it_was_before() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let without = |mut body: serde_json::Value| {
        body.as_object_mut().unwrap().remove("password");
        body
    };
    backend.post(&ann, "/clients", without(new_client("permanent", "one", 1))).await.expect(201);
    backend.post(&ann, "/clients", without(new_client("temporary", "two", 1))).await.expect(201);
    let promoted = without(new_client("permanent", "two", 1));
    backend.post(&ann, "/clients", promoted).await.expect_label(403, "missing-auth");
}

#[tokio::test]
async fn a_label_names_one_cookie() {
    let backend = Backend::alone().await;
    let ann = backend.register("Ann").await;
    let body = json!({ "email": ann.email, "password": PASSWORD, "label": "laptop" });
    let first = backend.call("POST", "/login?persist=true", None, Some(body.clone())).await.cookie().unwrap();
    let second = backend.call("POST", "/login?persist=true", None, Some(body)).await.cookie().unwrap();
    backend.access("/access", Some(&first), None).await.expect_label(403, "invalid-credentials");
    backend.access("/access", Some(&second), None).await.expect(200);
    let listed = backend.get(&ann, "/cookies?labels=laptop,desk").await.expect(200);
    assert_eq!(listed["cookies"].as_array().unwrap().len(), 1);
    assert_eq!(listed["cookies"][0]["label"], "laptop");
}

#[test]
fn programs_that_log_in_all_the_time_are_told_to_wait() {
    let now = Timestamp::from_millis(10_000_000_000);
    let gap = Duration::from_secs(3000);
    let every = |seconds: i64, count: i64| -> Vec<Timestamp> {
        (1..=count).map(|i| Timestamp::from_millis(now.millis() - i * seconds * 1000)).collect()
    };
    assert_eq!(too_frequent(&every(1, 31), now, 32, gap), None);
    let wait = too_frequent(&every(1, 32), now, 32, gap).unwrap();
    assert!(wait > Duration::from_secs(3600), "{wait:?}");
    assert_eq!(too_frequent(&every(1, 32), now.plus(wait), 32, gap), None);
    assert_eq!(too_frequent(&every(1, 32), now, 32, Duration::ZERO), None);
    let people: Vec<_> = (1..=32).map(|i| Timestamp::from_millis(now.millis() - i * i * 600_000)).collect();
    assert_eq!(too_frequent(&people, now, 32, gap), None);
}

#[tokio::test]
async fn more_passwords_than_can_wait_are_refused() {
    // Dear enough that the first is still under way when the third comes.
    let config = crate::config::Passwords { memory_kib: 16_384, passes: 4, concurrent: 1, waiting: 1 };
    let passwords = Arc::new(Passwords::new(&config, Arc::new(SystemRandom)).unwrap());
    let password = Password::new(PASSWORD.to_owned()).unwrap();
    let stored = passwords.hash(password.clone()).await.unwrap();
    assert!(stored.starts_with("$argon2id$v=19$m=16384,t=4,p=1$"), "{stored}");
    let check = |stored: &str| passwords.verify(password.clone(), Some(stored.to_owned()));
    let (a, b, c) = tokio::join!(check(&stored), check(&stored), check(&stored));
    assert_eq!((a, b, c), (Ok(true), Ok(true), Err(PasswordError::Overloaded)));
    assert_eq!(passwords.verify(password.clone(), None).await, Ok(false));
    assert_eq!(passwords.verify(Password::new("other".to_owned()).unwrap(), Some(stored)).await, Ok(false));
    assert!(Password::new("x".repeat(1025)).is_none());
    assert!(!Password::new("1234567".to_owned()).unwrap().may_be_set());
}

#[tokio::test]
async fn a_new_key_signs_and_the_old_one_still_verifies() {
    let (_folder, db) = database().await;
    let store = SqliteAuth::new(db);
    let now = Timestamp::from_millis(1);
    let keys = TokenKeys::new(store.token_keys([1; 32], now).await.unwrap()).unwrap();
    let claims = Claims {
        user: UserId::new(uuid::Uuid::from_u128(7)),
        client: None,
        kind: Kind::Access { connection: ConnId(3) },
        expires: Some(5),
        session: false,
    };
    let old = keys.sign(&claims, now);
    let signs = now.plus(SPREAD);
    let audit = || AuditEntry::new("admin", "key-rotated", 2);
    let all = store.add_key([2; 32], now, signs, 2, audit()).await.unwrap().unwrap();
    assert_eq!((all[0].retired, all[1].retired, all[1].created), (Some(signs), None, now));
    keys.replace(all);
    assert!(store.add_key([3; 32], now, signs, 2, audit()).await.unwrap().is_none(), "no more than allowed");
    assert_eq!(keys.verify(&old), Ok(claims));
    assert!(keys.sign(&claims, now).contains(".k=1."), "others do not know the new one yet");
    let new = keys.sign(&claims, signs);
    assert!(new.contains(".k=2."), "{new}");
    assert!(
        token::verify(&new, |index| keys.public().into_iter().find(|(at, _)| *at == index).map(|(_, key)| key)).is_ok()
    );
    assert_eq!(store.drop_keys(signs).await.unwrap().len(), 2);
    keys.replace(store.drop_keys(signs.plus(SPREAD)).await.unwrap());
    assert_eq!((keys.verify(&old), keys.verify(&new)), (Err(TokenError::Signature), Ok(claims)));
    assert!(keys.sign(&claims, now).contains(".k=2."));
}
