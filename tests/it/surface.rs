//! The parts of the client API that no other test has a story for, and how versions differ. Every answer is also held
//! against the description of the API, as in all tests of whole backends.

use aldis_harness::{
    backend::{Federation, Setup},
    client::{Body, Person, User, connect, encode},
};
use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::{Value, json};

use crate::support::ALPHA;

const SETTINGS: &str = r#"
[users.calls]
turn_uris = ["turn:turn.alpha.test:3478"]
secret = "shared with the server"

[users.deeplink]
backend_url = "https://api.alpha.test"
backend_ws_url = "https://api.alpha.test"
black_list_url = "https://api.alpha.test/clientblacklist"
teams_url = "https://teams.alpha.test"
accounts_url = "https://accounts.alpha.test"
website_url = "https://alpha.test"
title = "Alpha"
"#;

/// Asks, and checks status and, of errors, label.
async fn ask(user: &User, method: &str, path: &str, body: Value, status: u16, label: &str) -> Result<()> {
    let method: Method = method.parse()?;
    let body = if body.is_null() { Body::Empty } else { Body::Json(&body) };
    let answer = user.request(method, path, body).await?.expect(status)?;
    ensure!(status < 400 || answer.label() == label, "{path}: {}", answer.label());
    Ok(())
}

/// `METHOD path status label` per line.
async fn ask_all(user: &User, calls: &str) -> Result<()> {
    for call in calls.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = call.split_whitespace().collect();
        let label = words.get(3).copied().unwrap_or_default();
        ask(user, words[0], words[1], Value::Null, words[2].parse()?, label).await?;
    }
    Ok(())
}

#[tokio::test]
async fn apps_find_out_about_the_backend() -> Result<()> {
    let federation = Federation::with(Setup::of(&[ALPHA]).configure(ALPHA, SETTINGS)).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let calls = "
        GET  /status                                 200
        GET  /api-version                            200
        GET  /system/settings                        200
        GET  /system/settings/unauthorized           200
        GET  /deeplink.json                          200
        GET  /deeplink.html                          200
        GET  /config.json                            200
        GET  /clientblacklist/android                200
        GET  /sso/settings                           200
        HEAD /sso/initiate-login/00000000            404
        GET  /custom-backend/by-domain/mail.test     404 custom-backend-not-found
        GET  /calls/config/v2?limit=2                200
        GET  /self/consent                           200
        PUT  /self/consent                           200
        GET  /feature-configs                        200
        GET  /mls/public-keys                        200
        GET  /mls/public-keys?format=jwk             200
        GET  /teams                                  200
        GET  /time                                   200
        GET  /api                                    200
        GET  /api/openapi.json                       200
        GET  /api/viewer/viewer.js                   200
    ";
    ask_all(&ann, calls).await?;
    ask(&ann, "POST", "/get-domain-registration", json!({ "email": "ann@mail.test" }), 200, "").await?;
    ask(&ann, "POST", "/verification-code/send", json!({ "email": "ann@mail.test", "action": "login" }), 200, "").await
}

#[tokio::test]
async fn small_things_of_an_account_work() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let (id, handle) = (ann.id.id, ann.person.handle.clone());
    ask(&ann, "PUT", "/properties/webapp", json!({ "theme": "dark" }), 200, "").await?;
    ask(&ann, "PUT", "/self/supported-protocols", json!({ "supported_protocols": ["proteus"] }), 200, "").await?;
    ask(&ann, "PUT", "/self/locale", json!({ "locale": "de" }), 200, "").await?;
    ask(&ann, "PUT", "/self", json!({ "text_status": "away" }), 200, "").await?;
    ask(&ann, "POST", "/handles", json!({ "handles": ["some_free_handle"] }), 200, "").await?;
    let client = ann.client()?;
    let calls = format!(
        "
        GET    /properties                               200
        GET    /properties-values                        200
        GET    /properties/webapp                        200
        DELETE /properties/webapp                        200
        GET    /properties/webapp                        404 not-found
        DELETE /properties                               200
        GET    /cookies                                  200
        HEAD   /self/password                            200
        HEAD   /handles/{handle}                         200
        HEAD   /handles/nobody_has_this                  404
        GET    /users/by-handle/{ALPHA}/{handle}         200
        GET    /users/{id}/rich-info                     200
        GET    /users/{ALPHA}/{id}/supported-protocols   200
        GET    /users/{ALPHA}/{id}/clients               200
        GET    /users/{ALPHA}/{id}/clients/{client}      200
        GET    /users/{ALPHA}/{id}/prekeys               200
        GET    /clients                                  200
        GET    /clients/{client}                         200
        GET    /clients/{client}/capabilities            200
        GET    /clients/{client}/prekeys                 200
        GET    /push/tokens                              200
        GET    /notifications/last?client={client}       200
        "
    );
    ask_all(&ann, &calls).await?;
    let newest = ann.last_notification().await?;
    ask_all(&ann, &format!("GET /notifications/{newest}?client={client} 200")).await
}

#[tokio::test]
async fn an_address_is_activated_by_the_link_in_the_mail() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let (api, mail) = (federation.api(ALPHA)?, federation.mail(ALPHA)?);
    let person = Person::new("Zoe");
    let body = json!({ "name": "Zoe", "email": person.email, "password": person.password });
    api.post("/register", &body).await?.expect(201)?;
    let code = mail.code(&person.email).await?;
    let mails = mail.to(&person.email)?;
    let key = mails.last().and_then(|mail| mail.header("X-Zeta-Key")).context("the key in the mail")?;
    let link = format!("/activate?key={}&code={code}", encode(key));
    let answer = api.get(&link).await?.expect(200)?.value()?;
    ensure!(answer["email"] == person.email.as_str() && answer["first"] == true, "{answer}");
    api.get("/activate?key=unknown&code=000000").await?.expect_error(404, "invalid-code").map(drop)
}

#[tokio::test]
async fn files_pushes_and_one_to_one_conversations_end_as_they_began() -> Result<()> {
    let setup = Setup::of(&[ALPHA]).configure(ALPHA, "[notifications.push]\napps = [\"app\"]");
    let federation = Federation::with(setup).await?;
    let (ann, bob) = (federation.user(ALPHA, "Ann").await?, federation.user(ALPHA, "Bob").await?);
    let conversation = connect(&ann, &bob).await?;
    let with = json!({ "qualified_users": [bob.id] });
    let one = ann.post("/one2one-conversations", &with).await?.expect(200)?.value()?;
    ensure!(one["qualified_id"] == json!(conversation) && one["type"] == 2, "{one}");

    let token = json!({ "transport": "GCM", "app": "app", "token": "some-token", "client": ann.client()? });
    ann.post("/push/tokens", &token).await?.expect(201)?;
    ensure!(ann.get("/push/tokens").await?.expect(200)?.value()?["tokens"] == json!([token]));
    ann.delete("/push/tokens/some-token").await?.expect(204)?;
    ann.delete("/push/tokens/some-token").await?.expect_error(404, "not-found")?;

    let file = ann.upload(b"for a while").await?;
    bob.get(&file.path).await?.expect(404)?;
    ann.delete(&format!("/assets/{}/token", file.key)).await?.expect(200)?;
    ensure!(bob.get(&file.path).await?.expect(200)?.body == "for a while");

    ann.become_consumer().await?;
    ann.consume().await?;
    Ok(())
}

#[tokio::test]
async fn what_is_not_offered_is_refused_honestly() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let group = ann.group("Team lunch", &[]).await?;
    let (id, at) = (group.id, format!("/conversations/{ALPHA}/{}", group.id));
    let link = json!({ "key": "abcdefghijklmnopqrst", "code": "123456" });
    ask(&ann, "POST", "/conversations/code-check", link.clone(), 404, "no-conversation-code").await?;
    ask(&ann, "POST", "/conversations/join", link, 409, "guest-links-disabled").await?;
    ask(&ann, "PUT", &format!("{at}/add-permission"), json!({ "add_permission": "admins" }), 403, "invalid-op").await?;
    let calls = format!(
        "
        POST   /conversations/{id}/code                                     409 guest-links-disabled
        GET    /conversations/{id}/code                                     409 guest-links-disabled
        DELETE /conversations/{id}/code                                     404 no-conversation-code
        GET    /conversations/join?key=abcdefghijklmnopqrst&code=123456     409 guest-links-disabled
        GET    /conversations/{id}/features/conversationGuestLinks          200
        GET    /conversations/{id}/roles                                    200
        GET    /conversations/mls-self                                      400 mls-not-enabled
        GET    /one2one-conversations/{ALPHA}/{user}                        400 mls-not-enabled
        GET    {at}/groupinfo                                               400 mls-not-enabled
        PUT    {at}/protocol                                                400 mls-not-enabled
        GET    {at}/subconversations/conference                             400 mls-not-enabled
        DELETE {at}/subconversations/conference                             400 mls-not-enabled
        GET    {at}/subconversations/conference/groupinfo                   400 mls-not-enabled
        DELETE {at}/subconversations/conference/self                        400 mls-not-enabled
        POST   /mls/messages                                                400 mls-not-enabled
        POST   /mls/key-packages/self/1                                     400 mls-not-enabled
        GET    /teams/{user}/members                                        404 no-team
        POST   /broadcast/proteus/messages                                  404 non-binding-team
        POST   /broadcast/otr/messages                                      404 non-binding-team
        DELETE /assets/{ALPHA}/3-1-f1c5e1f4-5d0b-4d37-8b0c-0d0a0b0c0d0e                404 not-found
        DELETE /self/email                                                  403 last-identity
        DELETE /push/tokens/unknown                                         404 not-found
        GET    /nowhere                                                     404 no-endpoint
        DELETE /self/handle                                                 405 method-not-allowed
        ",
        user = ann.id.id,
    );
    ask_all(&ann, &calls).await
}

#[tokio::test]
async fn routes_and_shapes_are_those_of_the_version_that_is_asked() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let group = ann.group("Team lunch", &[]).await?;
    let at = format!("/conversations/{ALPHA}/{}", group.id);
    for version in 8..=13 {
        let prefix = format!("/v{version}");
        let since = |first: u8, status: u16| if version >= first { status } else { 404 };
        let answer = ann.get(&format!("{prefix}{at}/self")).await?.expect(since(9, 200))?;
        ensure!(version >= 9 || answer.label() == "no-endpoint");
        ann.get(&format!("{prefix}/time")).await?.expect(since(9, 200))?;
        // Somebody else than the caller is needed, so where the route exists the body is refused.
        let replaced = ann.put(&format!("{prefix}{at}/members"), &json!({ "qualified_users": [] })).await?;
        replaced.expect(since(13, 400))?;
        ann.get(&format!("{prefix}/self")).await?.expect(200)?;

        let one = ann.get(&format!("{prefix}{at}")).await?.expect(200)?.value()?;
        ensure!(one.get("id").is_some() == (version < 10), "v{version}: {one}");
        let created = ann.post(&format!("{prefix}/conversations"), &json!({ "qualified_users": [] })).await?;
        let created = created.expect(201)?.value()?;
        ensure!(created.get("id").is_some() == (version < 10), "v{version}: {created}");
        ensure!(created["failed_to_add"] == json!([]) && created["members"]["self"].is_object(), "{created}");
        let listed = ann.post(&format!("{prefix}/conversations/list"), &json!({ "qualified_ids": [group] })).await?;
        let listed = listed.expect(200)?.value()?;
        ensure!(listed["found"][0]["id"] == group.id.to_string(), "v{version}: {listed}");
        let document = ann.get(&format!("{prefix}/api/openapi.json")).await?.expect(200)?.value()?;
        ensure!(document["info"]["version"] == format!("v{version}"));
    }
    for version in ["v0", "v7", "v14"] {
        for path in ["/self", "/login", "/nowhere", "/i/users"] {
            ann.get(&format!("/{version}{path}")).await?.expect_error(404, "unsupported-version")?;
        }
        ann.get(&format!("/{version}/api-version")).await?.expect(200)?;
    }
    ann.get("/v9/i/users").await?.expect_error(404, "unsupported-version").map(drop)
}
