//! Registration, login, sessions and what a user says about himself.

use aldis_harness::{
    backend::{Federation, Setup},
    client::{Answer, Api, Event, Person, Session, Socket, User},
    wait::eventually,
};
use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::{Value, json};

use crate::support::{ALPHA, BETA, Pair, Three};

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

/// A second session of a user, with a device and a socket.
async fn elsewhere(user: &User) -> Result<(User, Socket)> {
    let other = user.on_another_device().await?;
    let socket = other.open_socket().await?;
    Ok((other, socket))
}

/// The end of a session: every service refuses its token, and its cookie is good for nothing.
async fn over(session: &User) -> Result<()> {
    session.access().await?.expect_error(403, "invalid-credentials")?;
    let token = session.session().token;
    for path in ["/self", "/conversations/mls-self", "/notifications?size=100"] {
        eventually("the refusal of a revoked token", async || {
            let call = session.api.call(Method::GET, path).token(&token)?;
            call.send().await?.expect_error(401, "invalid-credentials")
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_new_password_ends_other_sessions_and_their_sockets() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let (tablet, mut ended) = elsewhere(&ann).await?;
    let mut own = ann.open_socket().await?;
    let body = json!({ "old_password": ann.person.password, "new_password": "another password" });
    ann.put("/self/password", &body).await?.expect(200)?;
    ended.closed().await?;
    over(&tablet).await?;
    own.ping().await?;
    ann.renew().await?;
    ann.get("/notifications?size=100").await?.expect(200)?;
    let api = federation.api(ALPHA)?;
    let old = json!({ "email": ann.person.email, "password": ann.person.password });
    api.post("/login", &old).await?.expect_error(403, "invalid-credentials")?;
    let again = Person { password: "another password".to_owned(), ..ann.person.clone() };
    User::login(api, &again).await?;
    Ok(())
}

#[tokio::test]
async fn a_forgotten_password_is_replaced_by_mail() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let api = federation.api(ALPHA)?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let mut socket = ann.open_socket().await?;
    let email = &ann.person.email;
    api.post("/password-reset", &json!({ "email": "nobody@mail.test" })).await?.expect(201)?;
    api.post("/password-reset", &json!({ "email": email })).await?.expect(201)?;
    let code = federation.mail(ALPHA)?.code_for(email, "PasswordReset").await?;
    let complete = |code: &str| json!({ "email": email, "code": code, "password": "another password" });
    api.post("/password-reset/complete", &complete("wrong")).await?.expect_error(400, "invalid-code")?;
    api.post("/password-reset/complete", &complete(&code)).await?.expect(200)?;
    socket.closed().await?;
    over(&ann).await?;
    User::login(api, &Person { password: "another password".to_owned(), ..ann.person.clone() }).await?;
    Ok(())
}

#[tokio::test]
async fn removed_cookies_end_their_sockets() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let (tablet, mut ended) = elsewhere(&ann).await?;
    let mut own = ann.open_socket().await?;
    let before = ann.get("/cookies?labels=harness").await?.expect(200)?.value()?;
    let kept: Vec<_> = before["cookies"].as_array().into_iter().flatten().map(|cookie| &cookie["id"]).collect();
    let all = ann.get("/cookies").await?.expect(200)?.value()?;
    let others = all["cookies"].as_array().into_iter().flatten().map(|cookie| &cookie["id"]);
    let others: Vec<_> = others.filter(|id| !kept.contains(id)).collect();
    let body = json!({ "password": ann.person.password, "ids": others });
    ann.post("/cookies/remove", &body).await?.expect(200)?;
    ended.closed().await?;
    over(&tablet).await?;
    own.ping().await?;
    ann.renew().await?;
    Ok(())
}

#[tokio::test]
async fn another_address_counts_once_its_code_comes_back() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let tablet = ann.on_another_device().await?;
    let mut socket = tablet.open_socket().await?;
    let session = ann.session();
    // Apps ask without a version, as the cookie belongs to that path.
    let plain = ann.api.with_version(None);
    let put = async |email: &str| -> Result<Answer> {
        let call = plain.call(Method::PUT, "/access/self/email").token(&session.token)?;
        let call = call.header("cookie", &format!("zuid={}", session.cookie))?;
        call.json(&json!({ "email": email }))?.send().await
    };
    put(&ann.person.email).await?.expect(204)?;
    put("ann.new@mail.test").await?.expect(202)?;
    let code = federation.mail(ALPHA)?.code("ann.new@mail.test").await?;
    let api = federation.api(ALPHA)?;
    api.post("/activate", &json!({ "email": "ann.new@mail.test", "code": code })).await?.expect(200)?;
    let event = socket.event("user.update").await?;
    ensure!(event["user"]["email"] == "ann.new@mail.test", "{event}");
    let me = ann.get("/self").await?.expect(200)?.value()?;
    ensure!(me["email"] == "ann.new@mail.test" && me.get("email_unvalidated").is_none(), "{me}");
    User::login(api, &Person { email: "ann.new@mail.test".to_owned(), ..ann.person.clone() }).await?;
    Ok(())
}

#[tokio::test]
async fn a_deleted_account_is_gone_here_and_elsewhere() -> Result<()> {
    let Three { federation, ann, bob, cleo } = Three::connected().await?;
    let dora = federation.user(ALPHA, "Dora").await?;
    aldis_harness::client::connect(&ann, &dora).await?;
    let group = dora.group("Friends", &[&ann.id]).await?;
    cleo.set_connection(&ann.id, "blocked").await?.expect(200)?;
    let (tablet, mut ended) = elsewhere(&ann).await?;
    let (mut bobs, mut doras, mut cleos) =
        (bob.open_socket().await?, dora.open_socket().await?, cleo.open_socket().await?);

    let body = json!({ "password": ann.person.password });
    ann.delete_with("/self", &body).await?.expect(200)?;
    ensure!(ended.event("user.delete").await?["qualified_id"] == json!(ann.id));
    ended.closed().await?;
    over(&ann).await?;
    over(&tablet).await?;
    let api = federation.api(ALPHA)?;
    let login = json!({ "email": ann.person.email, "password": ann.person.password });
    api.post("/login", &login).await?.expect_error(403, "invalid-credentials")?;

    for socket in [&mut bobs, &mut doras] {
        let event = socket.event("user.delete").await?;
        ensure!(event["qualified_id"] == json!(ann.id) && event["id"] == json!(ann.id.id), "{event}");
    }
    eventually("a group without the deleted user", async || {
        ensure!(dora.members(&group).await? == std::slice::from_ref(&dora.id));
        Ok(())
    })
    .await?;
    let path = format!("/users/{}/{}", ann.id.domain, ann.id.id);
    for user in [&bob, &dora, &cleo] {
        eventually("the end of the connection", async || {
            ensure!(user.relation(&ann.id).await? == "none");
            Ok(())
        })
        .await?;
        let seen = user.get(&path).await?.expect(200)?.value()?;
        ensure!(seen["deleted"] == true && seen["name"] == "default" && seen.get("handle").is_none(), "{seen}");
        user.request_connection(&ann.id).await?.expect_error(400, "invalid-user")?;
        ensure!(user.get(&format!("{path}/clients")).await?.expect(200)?.value()? == json!([]));
    }
    cleos.ping().await?;
    ensure!(cleos.seen().iter().all(|event| event.kind() != "user.delete"), "who blocked is not told");
    dora.head(&format!("/handles/{}", ann.person.handle)).await?.expect(404)?;
    Ok(())
}

#[tokio::test]
async fn a_mail_confirms_a_deletion_without_password() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let asked = ann.delete("/self").await?.expect(202)?.value()?;
    ensure!(asked == json!({ "expires_in": 600 }), "{asked}");
    let pending = ann.delete("/self").await?.expect_error(403, "pending-delete")?;
    ensure!(pending["expires_in"].as_u64().is_some_and(|seconds| (1..=600).contains(&seconds)), "{pending}");
    let code = federation.mail(ALPHA)?.code_for(&ann.person.email, "Delete").await?;
    let api = federation.api(ALPHA)?;
    let confirm = |code: &str| json!({ "key": ann.id.id, "code": code });
    api.post("/delete", &confirm("wrong")).await?.expect_error(403, "invalid-code")?;
    api.post("/delete", &confirm(&code)).await?.expect(200)?;
    over(&ann).await
}

#[tokio::test]
async fn a_change_of_profile_reaches_contacts_elsewhere_even_later() -> Result<()> {
    let Pair { mut federation, ann, bob, .. } = Pair::connected().await?;
    federation.stop(BETA).await?;
    ann.put("/self", &json!({ "name": "Anna", "text_status": "away" })).await?.expect(200)?;
    federation.resume_running(BETA).await?;
    let mut socket = None;
    eventually("the socket", async || {
        socket = Some(bob.open_socket().await?);
        Ok(())
    })
    .await?;
    eventually("the event", async || {
        let queue = bob.queue(None).await?;
        let hers = |event: &&Event| event.kind() == "user.update" && event.value["user"]["id"] == json!(ann.id.id);
        let event = queue.iter().find(hers).context("no user.update yet")?;
        let user = &event.value["user"];
        let right = user["qualified_id"] == json!(ann.id) && user["name"] == "Anna" && user["text_status"] == "away";
        ensure!(right, "{user}");
        Ok(())
    })
    .await?;
    let mut socket = socket.context("socket")?;
    ann.put("/self", &json!({ "accent_id": 4 })).await?.expect(200)?;
    loop {
        let event = socket.event("user.update").await?;
        if event["user"]["accent_id"] == 4 {
            return Ok(());
        }
    }
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
    own(&plain, "/v8/self/phone").await?.expect(404)?;
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
