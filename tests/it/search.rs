//! Finding people, here and on other backends.

use aldis_harness::backend::{Federation, Setup};
use aldis_types::SearchPolicy;
use anyhow::{Result, ensure};
use serde_json::json;

use crate::support::{ALPHA, BETA, GAMMA};

#[tokio::test]
async fn people_of_the_own_backend_are_found_by_name_and_handle() -> Result<()> {
    let federation = Federation::start(&[ALPHA]).await?;
    let own = federation.domain(ALPHA)?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let zoe = federation.user(ALPHA, "Zoë Äsch").await?;
    let found = vec![zoe.id.clone()];
    ensure!(ann.find("zoe a", &own).await? == found, "accents don't matter");
    ensure!(ann.find("ZOË", &own).await? == found, "case does not matter");
    ensure!(ann.find(&zoe.person.handle, &own).await? == found);
    ensure!(ann.find(&zoe.person.handle[..5], &own).await? == found);
    ensure!(ann.find("oe", &own).await?.is_empty(), "only beginnings count");
    ensure!(ann.find("ann", &own).await?.is_empty(), "nobody finds himself");
    let answer = ann.search("zoe", &own).await?.expect(200)?.value()?;
    ensure!(answer["found"] == 1 && answer["search_policy"] == "full_search", "{answer}");
    ensure!(answer["documents"][0]["handle"] == zoe.person.handle.as_str(), "{answer}");
    Ok(())
}

#[tokio::test]
async fn the_other_backend_decides_what_is_found_there() -> Result<()> {
    let federation = Federation::start(&[ALPHA, BETA]).await?;
    let beta = federation.domain(BETA)?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    let handle = bob.person.handle.as_str();
    let cases = [
        (SearchPolicy::FullSearch, true, true),
        (SearchPolicy::ExactHandleSearch, false, true),
        (SearchPolicy::NoSearch, false, false),
    ];
    for (policy, by_name, by_handle) in cases {
        federation.set_remote(BETA, ALPHA, policy).await?;
        let answer = ann.search("bob", &beta).await?.expect(200)?.value()?;
        ensure!(answer["search_policy"] == policy.as_str(), "{answer}");
        let found = |yes: bool| if yes { vec![bob.id.clone()] } else { Vec::new() };
        ensure!(ann.find("bob", &beta).await? == found(by_name), "{policy} by name");
        ensure!(ann.find(handle, &beta).await? == found(by_handle), "{policy} by handle");
        let looked_up = ann.get(&format!("/users/by-handle/{BETA}/{handle}")).await?;
        ensure!(looked_up.status == if by_handle { 200 } else { 404 }, "{policy}: {looked_up:?}");
    }
    Ok(())
}

#[tokio::test]
async fn profiles_of_all_backends_come_in_one_list() -> Result<()> {
    let setup = Setup::of(&[ALPHA, BETA, GAMMA]).unlisted(ALPHA, GAMMA);
    let federation = Federation::with(setup).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    let cleo = federation.user(GAMMA, "Cleo").await?;
    let body = json!({ "qualified_ids": [ann.id, bob.id, cleo.id, { "domain": BETA, "id": ann.id.id }] });
    let listed = ann.post("/list-users", &body).await?.expect(200)?.value()?;
    let mut names: Vec<_> = listed["found"].as_array().into_iter().flatten().map(|it| it["name"].clone()).collect();
    names.sort_by_key(ToString::to_string);
    ensure!(names == ["Ann", "Bob"], "{listed}");
    ensure!(listed["failed"] == json!([cleo.id]), "{listed}");

    let handles = json!({ "qualified_handles": [{ "domain": BETA, "handle": bob.person.handle }] });
    let found = ann.post("/list-users", &handles).await?.expect(200)?.value()?;
    ensure!(found["found"][0]["qualified_id"] == json!(bob.id) && found.get("failed").is_none(), "{found}");
    ann.post("/list-users", &json!({})).await?.expect_error(400, "bad-request")?;

    let profile = ann.get(&format!("/users/{BETA}/{}", bob.id.id)).await?.expect(200)?.value()?;
    ensure!(profile["handle"] == bob.person.handle.as_str() && profile.get("email").is_none(), "{profile}");
    let protocols = ann.get(&format!("/users/{BETA}/{}/supported-protocols", bob.id.id)).await?.expect(200)?;
    ensure!(protocols.value()? == json!(["proteus"]));
    ann.get(&format!("/users/{BETA}/{}", ann.id.id)).await?.expect_error(404, "not-found")?;
    Ok(())
}
