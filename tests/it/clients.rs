//! Devices and their prekeys.

use std::collections::BTreeSet;

use aldis_harness::{
    backend::Federation,
    client::{Status, User, prekeys},
    wait::eventually,
};
use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::support::{ALPHA, BETA, Pair};

#[tokio::test]
async fn a_new_device_is_announced_before_the_answer() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let mut socket = ann.open_socket().await?;
    let second = federation_login(&ann).await?;
    let body = prekeys::new_client("permanent", 3, Some(&ann.person.password))?;
    let answer = second.post("/clients", &body).await?.expect(201)?;
    let created = answer.value()?;
    let id = created["id"].as_str().context("id")?;
    ensure!(answer.header("location") == Some(id), "Location names the new device");
    ensure!(created["capabilities"] == json!(["legalhold-implicit-consent"]), "{created}");
    ensure!(created["mls_public_keys"] == json!({}), "{created}");

    // The app asks this at once, and gives up on 404.
    let last = second.get(&format!("/notifications/last?client={id}")).await?.expect(200)?.value()?;
    let event = &last["payload"][0];
    ensure!(event["type"] == "user.client-add" && event["client"]["id"] == id, "{last}");
    let nested = json!({ "capabilities": ["legalhold-implicit-consent"] });
    ensure!(event["client"]["capabilities"] == nested, "events keep the old shape: {event}");
    let pushed = socket.event("user.client-add").await?;
    ensure!(&pushed == event, "{pushed}");

    // The id follows from the last resort key.
    let key = body["lastkey"]["key"].as_str().context("key")?;
    ensure!(aldis_types::ClientId::from_last_prekey(key).to_string() == id);
    Ok(())
}

async fn federation_login(user: &aldis_harness::client::User) -> Result<aldis_harness::client::User> {
    aldis_harness::client::User::login(&user.api, &user.person).await
}

#[tokio::test]
async fn further_devices_need_the_password_and_have_a_limit() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let add = async |kind: &str, password: Option<&str>| -> Result<_> {
        ann.post("/clients", &prekeys::new_client(kind, 1, password)?).await
    };
    add("permanent", None).await?.expect_error(403, "missing-auth")?;
    add("permanent", Some("not the password")).await?.expect_error(403, "invalid-credentials")?;
    for _ in 1..7 {
        add("permanent", Some(&ann.person.password)).await?.expect(201)?;
    }
    add("permanent", Some(&ann.person.password)).await?.expect_error(403, "too-many-clients")?;
    // There is one temporary device, and a new one takes its place.
    add("temporary", None).await?.expect(201)?;
    add("temporary", Some(&ann.person.password)).await?.expect(201)?;
    let all = ann.get("/clients").await?.expect(200)?.value()?;
    ensure!(all.as_array().map(Vec::len) == Some(8), "{all}");
    Ok(())
}

#[tokio::test]
async fn broken_prekeys_are_refused() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.account(ALPHA, "Ann").await?;
    let break_it = |change: &dyn Fn(&mut Value)| -> Result<Value> {
        let mut body = prekeys::new_client("permanent", 2, None)?;
        change(&mut body);
        Ok(body)
    };
    let bodies = [
        break_it(&|body| body["prekeys"][0]["key"] = json!("not base64!"))?,
        break_it(&|body| body["prekeys"][0]["key"] = json!("aGVsbG8="))?,
        break_it(&|body| body["prekeys"][0]["id"] = json!(7))?,
        break_it(&|body| body["lastkey"]["id"] = json!(1))?,
        break_it(&|body| body["prekeys"][0]["id"] = json!(70_000))?,
    ];
    for body in bodies {
        ann.post("/clients", &body).await?.expect_error(400, "bad-request")?;
    }
    let body = prekeys::new_client("legalhold", 2, None)?;
    ann.post("/clients", &body).await?.expect_error(400, "client-error")?;
    Ok(())
}

#[tokio::test]
async fn a_prekey_is_handed_out_once_however_many_ask() -> Result<()> {
    let Pair { federation: _federation, ann, bob, .. } = Pair::connected().await?;
    // The device has keys 0 to 4 and the last resort.
    let path = format!("/users/{}/{}/prekeys/{}", ann.id.domain, ann.id.id, ann.client()?);
    let claims = (0..9).map(|_| async { bob.get(&path).await?.expect(200)?.value() });
    let mut once = BTreeSet::new();
    let mut last_resort = 0;
    for claim in try_join_all(claims).await? {
        ensure!(claim["client"] == json!(ann.client()?), "{claim}");
        let id = claim["prekey"]["id"].as_u64().context("id of a prekey")?;
        if id == u64::from(prekeys::LAST_RESORT) {
            last_resort += 1;
        } else {
            ensure!(once.insert(id), "prekey {id} was handed out twice");
        }
    }
    ensure!(once.len() == 5 && last_resort == 4, "{once:?} and {last_resort} times the last resort");
    let left = ann.get(&format!("/clients/{}/prekeys", ann.client()?)).await?.expect(200)?.value()?;
    ensure!(left == json!([65535]), "{left}");

    // New ones are used from then on.
    ann.put(&format!("/clients/{}", ann.client()?), &json!({ "prekeys": [prekeys::prekey(7)?] })).await?.expect(200)?;
    ensure!(bob.get(&path).await?.expect(200)?.value()?["prekey"]["id"] == 7);
    Ok(())
}

#[tokio::test]
async fn prekeys_of_many_are_claimed_in_one_call() -> Result<()> {
    let Pair { federation, ann, bob, .. } = Pair::connected().await?;
    let cleo = federation.user(BETA, "Cleo").await?;
    let unknown = "ffffffffffffffff";
    let body = json!({
        ALPHA: { ann.id.id.to_string(): [ann.client()?] },
        BETA: { cleo.id.id.to_string(): [cleo.client()?, unknown] },
        "nowhere.test": { ann.id.id.to_string(): ["1"] },
    });
    let answer = bob.post("/users/list-prekeys", &body).await?.expect(200)?.value()?;
    let claimed = &answer["qualified_user_client_prekeys"];
    ensure!(claimed[ALPHA][ann.id.id.to_string()][ann.client()?.to_string()]["key"].is_string(), "{answer}");
    let cleos = &claimed[BETA][cleo.id.id.to_string()];
    ensure!(cleos[cleo.client()?.to_string()]["key"].is_string() && cleos[unknown].is_null(), "{answer}");
    ensure!(answer["failed_to_list"] == json!([{ "domain": "nowhere.test", "id": ann.id.id }]), "{answer}");

    let all = bob.get(&format!("/users/{ALPHA}/{}/prekeys", ann.id.id)).await?.expect(200)?.value()?;
    ensure!(all["user"] == json!(ann.id.id) && all["clients"][0]["client"] == json!(ann.client()?), "{all}");
    Ok(())
}

#[tokio::test]
async fn devices_of_others_are_listed() -> Result<()> {
    let Pair { federation: _federation, ann, bob, .. } = Pair::connected().await?;
    let tablet = ann.on_another_device().await?;
    let path = format!("/users/{ALPHA}/{}/clients", ann.id.id);
    let listed = bob.get(&path).await?.expect(200)?.value()?;
    let ids: BTreeSet<_> = listed.as_array().context("array")?.iter().filter_map(|one| one["id"].as_str()).collect();
    let expected = [ann.client()?.to_string(), tablet.client()?.to_string()];
    ensure!(ids == expected.iter().map(String::as_str).collect(), "{listed}");
    let one = bob.get(&format!("{path}/{}", ann.client()?)).await?.expect(200)?.value()?;
    ensure!(one == json!({ "id": ann.client()?, "class": "desktop" }), "{one}");
    bob.get(&format!("{path}/abcdef")).await?.expect(404)?;

    let nowhere = json!({ "domain": "nowhere.test", "id": ann.id.id });
    let body = json!({ "qualified_users": [ann.id, bob.id, nowhere] });
    let map = bob.post("/users/list-clients", &body).await?.expect(200)?.value()?["qualified_user_map"].clone();
    ensure!(map[ALPHA][ann.id.id.to_string()].as_array().map(Vec::len) == Some(2), "{map}");
    ensure!(map[BETA][bob.id.id.to_string()].as_array().map(Vec::len) == Some(1), "{map}");
    ensure!(map.get("nowhere.test").is_none(), "a domain that cannot be asked is missing: {map}");
    Ok(())
}

#[tokio::test]
async fn a_removed_device_is_out_everywhere() -> Result<()> {
    let Pair { federation: _federation, ann, bob, conversation } = Pair::connected().await?;
    let (tablet, phone) = (ann.on_another_device().await?, ann.on_another_device().await?);
    bob.send(&conversation, "to all").await?;
    let before = bob.recipients(&conversation);
    let (mut own, mut removed) = (phone.open_socket().await?, tablet.open_socket().await?);

    let path = format!("/clients/{}", tablet.client()?);
    ann.delete_with(&path, &json!({})).await?.expect_error(403, "missing-auth")?;
    ann.delete_with(&path, &json!({ "password": ann.person.password })).await?.expect(200)?;
    ann.get(&path).await?.expect(404)?;
    let event = own.event("user.client-remove").await?;
    ensure!(event["client"]["id"] == json!(tablet.client()?), "{event}");
    removed.closed().await?;
    let token = tablet.session().token;
    eventually("the refusal of the removed device", async || {
        ann.api.call(http::Method::GET, "/self").token(&token)?.send().await?.expect_error(401, "invalid-credentials")
    })
    .await?;

    // The sender of the next message is told, and it does not keep him from sending.
    let draft = aldis_harness::client::Draft::new(before, "to the rest");
    let answer = bob.post_draft(&conversation, &draft).await?.expect(201)?;
    let deleted = Status::of(&answer)?.deleted();
    ensure!(deleted[&ann.id] == BTreeSet::from([tablet.client()?]), "{deleted:?}");
    ensure!(own.message(&phone).await?.text == "to the rest");
    Ok(())
}

#[tokio::test]
async fn a_device_that_fetches_shows_when_it_was_last_active() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let phone = ann.on_another_device().await?;
    let shown = async |of: &User| {
        let client = ann.get(&format!("/clients/{}", of.client()?)).await?.expect(200)?.value()?;
        anyhow::Ok(client["last_active"].as_str().map(str::to_owned))
    };
    phone.queue(None).await?;
    let active =
        eventually("the phone to be active", async || shown(&phone).await?.ok_or_else(|| anyhow::anyhow!("not yet")))
            .await?;
    ensure!(active.ends_with('Z') && active.contains("T00:00:00.000"), "{active} is too exact");
    ensure!(shown(&ann).await?.is_none(), "who fetches nothing is not active");
    Ok(())
}
