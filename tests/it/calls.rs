//! Which servers apps are told for calls.

use aldis_harness::backend::{Federation, Setup};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::support::{ALPHA, BETA};

const SERVERS: &str = r#"
[users.calls]
turn_uris = ["turn:one.alpha.test:3478?transport=udp", "turn:one.alpha.test:3478?transport=tcp",
             "turns:one.alpha.test:5349?transport=tcp", "turn:two.alpha.test:3478?transport=udp"]
turn_credentials = "rest"
sft_urls = ["https://sft1.alpha.test:443", "https://sft2.alpha.test:443", "https://sft3.alpha.test:443"]
sft_list_length = 2
sft_secret = "of the SFT servers"
sft_federating = true
[conversations]
conference_calling = true
"#;

fn urls(servers: &Value) -> Vec<&str> {
    let mut urls: Vec<_> =
        servers.as_array().into_iter().flatten().filter_map(|server| server["urls"][0].as_str()).collect();
    urls.sort_unstable();
    urls
}

#[tokio::test]
async fn each_backend_tells_its_users_of_its_own_servers() -> Result<()> {
    let federation = Federation::with(Setup::of(&[ALPHA, BETA]).configure(ALPHA, SERVERS)).await?;
    let (ann, abe) = (federation.user(ALPHA, "Ann").await?, federation.user(ALPHA, "Abe").await?);
    let told = ann.get("/calls/config/v2").await?.expect(200)?.value()?;
    ensure!(urls(&told["ice_servers"]).len() == 4, "one entry for each address: {told}");
    let all = ["https://sft1.alpha.test:443", "https://sft2.alpha.test:443", "https://sft3.alpha.test:443"];
    ensure!(urls(&told["sft_servers_all"]) == all, "{told}");
    let some = urls(&told["sft_servers"]);
    ensure!(some.len() == 2 && some.iter().all(|url| all.contains(url)), "{told}");
    ensure!(told["sft_servers"][0].get("credential").is_none(), "{told}");
    ensure!(told["is_federating"] == true, "{told}");
    // Credentials are a user's own.
    let others = abe.get("/calls/config/v2").await?.expect(200)?.value()?;
    for (list, name) in [("ice_servers", ':'), ("sft_servers_all", '=')] {
        let user =
            |told: &Value| told[list][0]["username"].as_str().and_then(|it| it.rsplit(name).next().map(str::to_owned));
        ensure!(user(&told).is_some() && user(&told) != user(&others), "{told} {others}");
        ensure!(told[list][0]["credential"] != others[list][0]["credential"], "{told} {others}");
    }
    let few = ann.get("/calls/config/v2?limit=3").await?.expect(200)?.value()?;
    let few = urls(&few["ice_servers"]);
    ensure!(few.len() == 3 && few.iter().any(|url| url.starts_with("turns:")), "each transport in turn: {few:?}");
    ann.get("/calls/config/v2?limit=11").await?.expect(400)?;
    let features = ann.get("/feature-configs").await?.expect(200)?.value()?;
    ensure!(features["conferenceCalling"]["status"] == "enabled", "{features}");

    let bob = federation.user(BETA, "Bob").await?;
    let told = bob.get("/calls/config/v2").await?.expect(200)?.value()?;
    for absent in ["sft_servers", "sft_servers_all", "is_federating"] {
        ensure!(told.get(absent).is_none(), "{absent} in {told}");
    }
    ensure!(urls(&told["ice_servers"]) == ["turn:127.0.0.1:3478?transport=udp"], "{told}");
    let features = bob.get("/feature-configs").await?.expect(200)?.value()?;
    ensure!(features["conferenceCalling"]["status"] == json!("disabled"), "{features}");
    Ok(())
}
