//! Files, between backends.

use aldis_harness::{
    backend::{Federation, Setup},
    client::{StoredAsset, User, asset_form, connect},
    local::{LocalFederation, Options},
    wait::eventually,
};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::support::{ALPHA, BETA, binary, metric};

/// Bytes of which no two stretches are alike.
pub(crate) fn bytes(size: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

async fn reads(reader: &User, asset: &StoredAsset, expected: &[u8]) -> Result<()> {
    let answer = reader.get(&asset.with_token()).await?.expect(200)?;
    ensure!(answer.body == expected, "other bytes: {} of {}", answer.body.len(), expected.len());
    ensure!(answer.header("content-length") == Some(&expected.len().to_string()), "{:?}", answer.headers);
    Ok(())
}

#[tokio::test]
async fn files_are_read_at_another_backend() -> Result<()> {
    // A file may be larger than any message.
    let least = "[federation]\nmax_message_bytes = 1048576";
    let setup = Setup::of(&[ALPHA, BETA]).configure(ALPHA, least).configure(BETA, least);
    let federation = Federation::with(setup).await?;
    let (ann, bob) = (&federation.user(ALPHA, "Ann").await?, &federation.user(BETA, "Bob").await?);
    let large = bytes(20 << 20);
    let asset = ann.upload(&large).await?;
    let (first, second) = tokio::join!(reads(bob, &asset, &large), reads(bob, &asset, &large));
    first.and(second)?;
    reads(ann, &asset, &large).await?;

    bob.get(&asset.path).await?.expect_error(404, "not-found")?;
    bob.get(&format!("{}?asset_token=wrong", asset.path)).await?.expect_error(404, "not-found")?;
    bob.delete(&asset.path).await?.expect_error(422, "federation-not-implemented")?;
    let part = bob.get(&asset.with_token()).await?;
    ensure!(part.header("content-type") == Some("application/octet-stream"), "{:?}", part.headers);

    // A new token holds at once, the copy at beta or not.
    let renewed = ann.post_empty(&format!("/assets/{}/token", asset.key)).await?.expect(200)?.value()?;
    bob.get(&asset.with_token()).await?.expect_error(404, "not-found")?;
    let renewed = StoredAsset { token: renewed["token"].as_str().context("token")?.to_owned(), ..asset.clone() };
    reads(bob, &renewed, &large).await?;
    ann.delete(&asset.path).await?.expect(200)?;
    bob.get(&renewed.with_token()).await?.expect_error(404, "not-found")?;
    ann.get(&asset.path).await?.expect_error(404, "not-found")?;

    // The other direction, in the open.
    let form = asset_form(&json!({ "public": true, "retention": "eternal" }), "image/png", b"a picture");
    let stored = bob.post_asset(form).await?.expect(201)?.value()?;
    let path = format!("/assets/{BETA}/{}", stored["key"].as_str().context("key")?);
    let picture = ann.get(&path).await?.expect(200)?;
    ensure!(picture.body.as_ref() == b"a picture" && picture.header("content-type") == Some("image/png"));
    Ok(())
}

#[tokio::test]
async fn an_owner_that_cannot_be_asked_is_told_as_for_every_call() -> Result<()> {
    let setup = Setup::of(&[ALPHA, BETA]).unlisted(ALPHA, BETA);
    let mut federation = Federation::with(setup).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    let asset = ann.upload(b"x").await?;
    let refused = bob.get(&asset.with_token()).await?.expect_error(533, "federation-remote-error")?;
    ensure!(refused["inner"]["label"] == "federation-denied" && refused["data"]["domain"] == ALPHA, "{refused}");
    let theirs = bob.upload(b"y").await?;
    ann.get(&theirs.with_token()).await?.expect_error(400, "federation-denied")?;
    federation.stop(ALPHA).await?;
    let down = eventually("the outage", async || {
        bob.get(&asset.with_token()).await?.expect_error(521, "federation-connection-refused")
    });
    let down = down.await?;
    ensure!(down["data"]["domain"] == ALPHA, "{down}");
    Ok(())
}

#[tokio::test]
async fn the_readers_backend_has_rules_of_its_own() -> Result<()> {
    let setup = Setup::of(&[ALPHA, BETA]).configure(BETA, "[assets.remote]\nmax_bytes = 1000");
    let federation = Federation::with(setup).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    let (large, small) = (ann.upload(&bytes(1001)).await?, ann.upload(&bytes(1000)).await?);
    bob.get(&large.with_token()).await?.expect_error(403, "asset-not-allowed")?;
    reads(&bob, &small, &bytes(1000)).await
}

#[tokio::test]
async fn what_members_elsewhere_could_not_fetch_is_refused_before_it_is_stored() -> Result<()> {
    let setup = Setup::of(&[ALPHA, BETA])
        .configure(ALPHA, "[assets]\nrefuse_early = true")
        .configure(BETA, "[assets.remote]\nmax_bytes = 1000");
    let federation = Federation::with(setup).await?;
    let (ann, bob) = (federation.user(ALPHA, "Ann").await?, federation.user(BETA, "Bob").await?);
    connect(&ann, &bob).await?;
    let here = ann.group("Owned here", &[&bob.id]).await?;
    let there = bob.group("Owned there", &[&ann.id]).await?;
    let store = async |size: usize, conversation: Value| {
        let description = json!({ "public": false, "retention": "volatile", "convId": conversation });
        ann.post_asset(asset_form(&description, "application/octet-stream", &bytes(size))).await
    };
    for conversation in [&here, &there] {
        let refused = store(1001, json!(conversation)).await?.expect_error(403, "asset-not-allowed")?;
        ensure!(refused["message"].as_str().is_some_and(|text| text.contains(BETA)), "{refused}");
        store(1000, json!(conversation)).await?.expect(201)?;
    }
    store(1001, Value::Null).await?.expect(201)?;
    let rules = federation.operations(ALPHA, "/metrics").await?.expect(200)?;
    ensure!(String::from_utf8_lossy(&rules.body).contains("aldis_assets_refused_early_total 2"));
    Ok(())
}

#[tokio::test]
async fn copies_spare_the_owner_and_a_broken_transfer_is_told() -> Result<()> {
    let options = Options {
        binary: Some(binary()),
        settings: "[assets.peers]\nbytes_per_second = 1048576\n[federation]\ncall_deadline_ms = 4000".to_owned(),
        ..Options::of(&[ALPHA, BETA])
    };
    let mut federation = LocalFederation::start(&options).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    let small = bytes(300_000);
    let asset = ann.upload(&small).await?;
    let (first, second) = tokio::join!(reads(&bob, &asset, &small), reads(&bob, &asset, &small));
    first.and(second)?;
    // What the transfer leaves behind is in place once a read is answered from it.
    eventually("a copy", async || {
        reads(&bob, &asset, &small).await?;
        ensure!(metric(&federation, BETA, "aldis_assets_cache_hits_total").await? > 0.5);
        Ok(())
    })
    .await?;
    ensure!(metric(&federation, ALPHA, "aldis_assets_given_total").await? < 1.5);
    federation.kill(BETA).await?;
    federation.restart(BETA).await?;
    eventually("beta reaches alpha again", async || reads(&bob, &asset, &small).await).await?;
    ensure!(metric(&federation, ALPHA, "aldis_assets_given_total").await? < 1.5, "the copy survives a crash");

    // A transfer may take longer than any call.
    let long = bytes(7 << 20);
    let asset = ann.upload(&long).await?;
    let begun = std::time::Instant::now();
    reads(&bob, &asset, &long).await?;
    ensure!(begun.elapsed().as_secs() >= 4, "the owner did not keep to the rate: {:?}", begun.elapsed());

    // Slowed down, the large one takes long enough for its owner to be killed meanwhile.
    let asset = ann.upload(&bytes(20 << 20)).await?;
    let before = metric(&federation, ALPHA, "aldis_assets_given_bytes_total").await?;
    let path = asset.with_token();
    let kill = async {
        eventually("bytes on their way", async || {
            ensure!(metric(&federation, ALPHA, "aldis_assets_given_bytes_total").await? > before + 1.0);
            Ok(())
        })
        .await?;
        federation.kill(ALPHA).await
    };
    let (outcome, killed) = tokio::join!(bob.get(&path), kill);
    killed?;
    ensure!(
        outcome.is_err(),
        "half a file looks whole: {:?}",
        outcome.map(|answer| (answer.status, answer.body.len()))
    );
    Ok(())
}
