//! Registration, login, sessions and what a user says about himself.

use aldis_harness::{
    backend::{Federation, Setup},
    client::{Api, Person, Session, User},
    wait::eventually,
};
use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::{Value, json};

use crate::support::ALPHA;

#[tokio::test]
async fn a_code_from_the_mail_makes_an_account() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let api = federation.api(ALPHA)?;
    let person = Person::new("Ann");
    api.post("/activate/send", &json!({ "email": person.email })).await?.expect(200)?;
    let code = federation.mail(ALPHA)?.code(&person.email).await?;

    let wrong = if code == "000000" { "111111" } else { "000000" };
    let try_code = |code: &str| json!({ "email": person.email, "code": code, "dryrun": true });
    api.post("/activate", &try_code(wrong)).await?.expect_error(404, "invalid-code")?;
    api.post("/activate", &try_code(&code)).await?.expect(200)?;

    let body = json!({ "name": "Ann", "email": person.email, "email_code": code, "password": person.password });
    let created = api.post("/register", &body).await?.expect(201)?;
    let cookie = created.headers.get("set-cookie").context("set-cookie")?.to_str()?;
    ensure!(cookie.contains("Path=/access") && cookie.contains("HttpOnly") && cookie.contains("Expires="), "{cookie}");
    let profile = created.value()?;
    ensure!(profile["qualified_id"]["domain"] == ALPHA && profile["email"] == person.email, "{profile}");
    ensure!(created.header("location") == profile["id"].as_str(), "Location names the new account");

    // The app asks for itself without a token first, and a 401 makes it go to /access.
    api.get("/self").await?.expect_error(401, "invalid-credentials")?;
    let ann = User::login(api, &person).await?;
    let me = ann.get("/self").await?.expect(200)?.value()?;
    ensure!(me["name"] == "Ann" && me["status"] == "active" && me["supported_protocols"][0] == "proteus", "{me}");
    api.post("/activate/send", &json!({ "email": person.email })).await?.expect_error(409, "key-exists")?;
    Ok(())
}

#[tokio::test]
async fn three_wrong_codes_make_the_right_one_void() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let api = federation.api(ALPHA)?;
    let email = Person::new("Ann").email;
    api.post("/activate/send", &json!({ "email": email })).await?.expect(200)?;
    let code = federation.mail(ALPHA)?.code(&email).await?;
    let wrong = if code == "000000" { "111111" } else { "000000" };
    for code in [wrong, wrong, wrong, &code] {
        let body = json!({ "email": email, "code": code, "dryrun": true });
        api.post("/activate", &body).await?.expect_error(404, "invalid-code")?;
    }
    Ok(())
}

#[tokio::test]
async fn a_closed_backend_says_so_and_the_administrator_creates_accounts() -> Result<()> {
    let closed = Setup::of(&[ALPHA]).configure(ALPHA, "[users]\nregistration = \"closed\"");
    let federation = Federation::with(closed).await?;
    let api = federation.api(ALPHA)?;
    let settings = api.get("/system/settings/unauthorized").await?.expect(200)?.value()?;
    ensure!(settings["setRestrictUserCreation"] == true, "{settings}");
    let person = Person::new("Ann");
    let body = json!({ "name": "Ann", "email": person.email, "email_code": "123456", "password": person.password });
    api.post("/register", &body).await?.expect_error(403, "user-creation-restricted")?;

    let ann = federation.created_user(ALPHA, &person).await?;
    let me = ann.get("/self").await?.expect(200)?.value()?;
    ensure!(me["handle"] == person.handle.as_str() && me["email"] == person.email, "{me}");
    Ok(())
}

#[tokio::test]
async fn an_open_backend_can_be_limited_to_e_mail_domains() -> Result<()> {
    let limited = Setup::of(&[ALPHA]).configure(ALPHA, "[users]\nregistration = [\"mail.test\"]");
    let federation = Federation::with(limited).await?;
    let api = federation.api(ALPHA)?;
    api.post("/activate/send", &json!({ "email": "ann@else.test" })).await?.expect_error(403, "unauthorized")?;
    federation.user(ALPHA, "Ann").await?;
    Ok(())
}

#[tokio::test]
async fn wrong_passwords_and_unknown_accounts_look_the_same_and_run_out() -> Result<()> {
    let few = Setup::of(&[ALPHA]).configure(ALPHA, "[users.limits]\nlogin_failures = 3");
    let federation = Federation::with(few).await?;
    let api = federation.api(ALPHA)?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let attempt = |email: &str, password: &str| json!({ "email": email, "password": password });
    let wrong = attempt(&ann.person.email, "not the password");
    let refused = api.post("/login", &wrong).await?.expect_error(403, "invalid-credentials")?;
    let unknown = attempt("nobody@mail.test", "not the password");
    let stranger = api.post("/login", &unknown).await?.expect_error(403, "invalid-credentials")?;
    ensure!(refused == stranger && refused["message"] == "Authentication failed.", "{refused} {stranger}");
    for _ in 0..2 {
        api.post("/login", &wrong).await?.expect_error(403, "invalid-credentials")?;
    }
    let right = attempt(&ann.person.email, &ann.person.password);
    let locked = api.post("/login", &right).await?;
    ensure!(locked.header("retry-after").is_some(), "no Retry-After: {locked:?}");
    locked.expect_error(403, "client-error")?;
    Ok(())
}

#[tokio::test]
async fn a_session_keeps_its_connection_and_belongs_to_one_device() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let first = ann.session();
    ann.renew().await?;
    let second = ann.session();
    ensure!(first.connection() == second.connection() && first.connection().is_some(), "the connection changed");
    ensure!(second.token.contains(&format!(".i={}", ann.client()?)), "the token names no device: {}", second.token);

    // Without the old token the session gets another connection.
    ann.set_session(Session { token: String::new(), cookie: second.cookie.clone() });
    ann.renew().await?;
    ensure!(ann.session().connection() != first.connection(), "the connection is the same");

    // A cookie that belongs to a device is good for no other, and nobody binds a device that is not his.
    let other = ann.on_another_device().await?;
    let path = format!("/access?client_id={}", other.client()?);
    let access = ann.api.call(Method::POST, path).header("cookie", &format!("zuid={}", ann.session().cookie))?;
    access.send().await?.expect_error(403, "invalid-credentials")?;
    let stranger = federation.account(ALPHA, "Bob").await?;
    let path = format!("/access?client_id={}", ann.client()?);
    let access = ann.api.call(Method::POST, path).header("cookie", &format!("zuid={}", stranger.session().cookie))?;
    access.send().await?.expect_error(403, "invalid-credentials")?;
    Ok(())
}

#[tokio::test]
async fn access_explains_what_is_wrong_in_the_words_that_apps_know() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let session = ann.session();
    let message = async |cookie: Option<&str>, token: Option<&str>| -> Result<String> {
        let mut call = ann.api.call(Method::POST, "/access");
        if let Some(cookie) = cookie {
            call = call.header("cookie", &format!("zuid={cookie}"))?;
        }
        if let Some(token) = token {
            call = call.token(token)?;
        }
        let body = call.send().await?.expect_error(403, "invalid-credentials")?;
        Ok(body["message"].as_str().unwrap_or_default().to_owned())
    };
    ensure!(message(None, None).await? == "Missing cookie and token");
    ensure!(message(None, Some(&session.token)).await? == "Missing cookie");
    ensure!(message(Some("nonsense"), None).await? == "Invalid zauth token");
    let mut forged = session.cookie.clone();
    let flipped = if forged.starts_with('A') { "B" } else { "A" };
    forged.replace_range(0..1, flipped);
    ensure!(message(Some(&forged), None).await? == "Invalid token");

    let gone = ann.api.call(Method::POST, "/access/logout").header("cookie", &format!("zuid={}", session.cookie))?;
    let body = gone.send().await?.expect_error(403, "invalid-credentials")?;
    ensure!(body["message"] == "Missing token", "{body}");
    Ok(())
}

#[tokio::test]
async fn logging_out_ends_cookie_token_and_socket() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let other = ann.on_another_device().await?;
    let mut socket = ann.open_socket().await?;
    let mut others_socket = other.open_socket().await?;
    let old = ann.session();
    ann.logout().await?.expect(200)?;
    ann.access().await?.expect_error(403, "invalid-credentials")?;
    // The revocation reaches every service.
    for path in ["/self", "/conversations/mls-self", "/notifications?size=100"] {
        eventually("the refusal of a revoked token", async || {
            let call = ann.api.call(Method::GET, path).token(&old.token)?;
            call.send().await?.expect_error(401, "invalid-credentials")
        })
        .await?;
    }
    socket.closed().await?;
    others_socket.ping().await?;
    other.get("/self").await?.expect(200)?;
    Ok(())
}

#[tokio::test]
async fn handles_are_unique_and_checked() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(ALPHA, "Bob").await?;
    let taken = ann.person.handle.as_str();
    bob.put("/self/handle", &json!({ "handle": taken })).await?.expect_error(409, "handle-exists")?;
    bob.put("/self/handle", &json!({ "handle": "No Spaces" })).await?.expect_error(400, "invalid-handle")?;
    bob.head(&format!("/handles/{taken}")).await?.expect(200)?;
    bob.head("/handles/surely_free_1").await?.expect(404)?;
    let free = bob.post("/handles", &json!({ "handles": [taken, "surely_free_1"], "return": 1 })).await?;
    ensure!(free.expect(200)?.value()? == json!(["surely_free_1"]));
    let path = format!("/users/by-handle/{ALPHA}/{taken}");
    let found = bob.get(&path).await?.expect(200)?.value()?;
    ensure!(found["qualified_id"] == json!(ann.id), "{found}");
    Ok(())
}

#[tokio::test]
async fn a_change_of_profile_reaches_own_devices_and_contacts() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(ALPHA, "Bob").await?;
    aldis_harness::client::connect(&ann, &bob).await?;
    let tablet = ann.on_another_device().await?;
    let (mut contact, mut own) = (bob.open_socket().await?, tablet.open_socket().await?);
    ann.put("/self", &json!({ "name": "Ann B.", "accent_id": 3 })).await?.expect(200)?;
    for socket in [&mut contact, &mut own] {
        let event = socket.event("user.update").await?;
        ensure!(event["user"]["id"] == json!(ann.id.id) && event["user"]["name"] == "Ann B.", "{event}");
    }
    let seen = bob.get(&format!("/users/{}/{}", ann.id.domain, ann.id.id)).await?.expect(200)?.value()?;
    ensure!(seen["name"] == "Ann B." && seen["accent_id"] == 3 && seen.get("email").is_none(), "{seen}");
    Ok(())
}

#[tokio::test]
async fn properties_are_kept_and_told_to_other_devices() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let tablet = ann.on_another_device().await?;
    let mut socket = tablet.open_socket().await?;
    let value = json!({ "sound": "all", "list": [1, 2, 3] });
    ann.put("/properties/webapp", &value).await?.expect(200)?;
    let event = socket.event("user.properties-set").await?;
    ensure!(event["key"] == "webapp" && event["value"] == value, "{event}");
    ensure!(tablet.get("/properties/webapp").await?.expect(200)?.value()? == value);
    ensure!(tablet.get("/properties").await?.expect(200)?.value()? == json!(["webapp"]));
    ann.delete("/properties/webapp").await?.expect(200)?;
    socket.event("user.properties-delete").await?;
    tablet.get("/properties/webapp").await?.expect(404)?;
    Ok(())
}

#[tokio::test]
async fn every_announced_version_works_and_no_other() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let plain = ann.api.with_version(None);
    let versions = plain.get("/api-version").await?.expect(200)?.value()?;
    let expected =
        json!({ "supported": [8, 9, 10, 11, 12, 13], "development": [], "federation": true, "domain": ALPHA });
    ensure!(versions == expected, "{versions}");
    let token = ann.session().token;
    let own = async |api: &Api, path: &str| api.call(Method::GET, path).token(&token)?.send().await;
    for version in 8..=13 {
        own(&plain, &format!("/v{version}/self")).await?.expect(200)?;
    }
    own(&plain, "/self").await?.expect(200)?;
    for path in ["/v7/self", "/v14/self", "/v0/self"] {
        own(&plain, path).await?.expect_error(404, "unsupported-version")?;
    }
    own(&plain, "/v9/i/users").await?.expect(404)?;
    own(&plain, "/v13/nothing/here").await?.expect_error(404, "no-endpoint")?;
    own(&plain, "/v8/conversations/join").await?.expect(404)?;
    Ok(())
}

/// What the JavaScript client and the apps ask for at their start.
#[tokio::test]
async fn apps_find_everything_that_they_need_at_their_start() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let ok = async |path: &str| -> Result<Value> { ann.get(path).await?.expect(200)?.value() };
    let keys = ok("/mls/public-keys").await?;
    ensure!(keys["removal"].as_object().is_some_and(|keys| !keys.is_empty()), "{keys}");
    let features = ok("/feature-configs").await?;
    ensure!(features["mls"]["status"] == "disabled" && features["appLock"].is_object(), "{features}");
    let calls = ok("/calls/config/v2").await?;
    let server = &calls["ice_servers"][0];
    ensure!(calls["ttl"].is_u64() && server["credential"].is_string() && server["username"].is_string(), "{calls}");
    ok("/teams").await?;
    ok("/properties").await?;
    ok("/system/settings").await?;
    ok("/clients").await?;
    ann.post("/list-connections", &json!({ "size": 500 })).await?.expect(200)?;
    ann.post("/conversations/list-ids", &json!({})).await?.expect(200)?;
    ann.put(&format!("/clients/{}", ann.client()?), &json!({ "capabilities": ["legalhold-implicit-consent"] }))
        .await?
        .expect(200)?;
    let broken = ann.api.call(Method::POST, "/login").bytes("application/json", "no gzip")?;
    broken.header("content-encoding", "gzip")?.send().await?.expect_error(400, "client-error")?;
    Ok(())
}
