//! Large files, between backends that are processes of their own: fetched once, and never held in memory.

use std::{collections::BTreeMap, time::Duration};

use aldis_harness::{
    client::{StoredAsset, User, asset_form, connect},
    local::{LocalFederation, Options, service_of},
    memory::Memory,
    wait::eventually,
};
use anyhow::{Result, ensure};
use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::{
    assets::bytes,
    support::{ALPHA, BETA, binary, metric},
};

const MIB: u64 = 1 << 20;
/// What any process may take more than before, however large the file is.
const MOST: u64 = 32 * MIB;

/// How long one large file may take; the digests of a debug build are slow.
const PATIENCE: Duration = Duration::from_secs(300);

/// Reads the file, byte by byte as it was stored, without keeping it.
async fn reads(reader: &User, asset: &StoredAsset, expected: &Bytes) -> Result<()> {
    let mut rest = expected.clone();
    let call = reader.api.call(Method::GET, asset.with_token()).token(&reader.session().token)?;
    let answer = call.patience(PATIENCE).read(|part| {
        ensure!(part.len() <= rest.len() && rest.split_to(part.len()) == part, "other bytes");
        Ok(())
    });
    answer.await?.expect(200)?;
    ensure!(rest.is_empty(), "{} bytes are missing", rest.len());
    Ok(())
}

/// Fails when a process had much more memory at any moment since the peaks were forgotten.
fn took_little(federation: &LocalFederation, before: &BTreeMap<String, Memory>) -> Result<()> {
    for (name, now) in federation.memory()? {
        let Some(before) = before.get(&name) else { continue };
        let more = now.peak.saturating_sub(before.resident);
        println!("{name}: {} KiB before, {} KiB at most", before.resident >> 10, now.peak >> 10);
        ensure!(more <= MOST, "{name} took {} KiB more than the {} KiB before", more >> 10, before.resident >> 10);
    }
    Ok(())
}

/// How many bytes of files one backend gave to others, in how many transfers.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
async fn given(federation: &LocalFederation, of: &str) -> Result<(u64, u64)> {
    let transfers = metric(federation, of, "aldis_assets_given_total").await?;
    Ok((transfers as u64, metric(federation, of, "aldis_assets_given_bytes_total").await? as u64))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_mebibytes_cross_once_for_all_readers_and_take_no_memory() -> Result<()> {
    let size = 100 * MIB;
    let options = Options { binary: Some(binary()), ..Options::of(&[ALPHA, BETA]) };
    let mut federation = LocalFederation::start(&options).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let (bob, bea) = (federation.user(BETA, "Bob").await?, federation.user(BETA, "Bea").await?);
    // What the first request of a kind costs is not of interest.
    let small = ann.upload(b"small").await?;
    reads(&bob, &small, &Bytes::from_static(b"small")).await?;
    let (transfers, sent) = given(&federation, ALPHA).await?;

    federation.forget_peaks()?;
    let before = federation.memory()?;
    let content = Bytes::from(bytes(usize::try_from(size)?));
    let asset = ann.upload_patiently(&content, PATIENCE).await?;
    tokio::try_join!(reads(&bob, &asset, &content), reads(&bea, &asset, &content))?;
    took_little(&federation, &before)?;
    ensure!(given(&federation, ALPHA).await? == (transfers + 1, sent + size), "one transfer for both");

    eventually("the copy", async || {
        ensure!(metric(&federation, BETA, "aldis_assets_cache_copies").await? > 1.5);
        Ok(())
    })
    .await?;
    federation.kill(BETA).await?;
    federation.restart(BETA).await?;
    ensure!(metric(&federation, BETA, "aldis_assets_cache_copies").await? > 1.5, "the copies survive");
    eventually("beta reaches alpha again", async || reads(&bob, &small, &Bytes::from_static(b"small")).await).await?;
    federation.forget_peaks()?;
    let before = federation.memory()?;
    tokio::try_join!(reads(&bob, &asset, &content), reads(&bea, &asset, &content))?;
    took_little(&federation, &before)?;
    ensure!(given(&federation, ALPHA).await? == (transfers + 1, sent + size), "the copy survives a restart");
    ensure!(metric(&federation, BETA, "aldis_assets_cache_hits_total").await? > 1.5);
    federation.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn services_in_processes_of_their_own_hold_no_file_in_memory() -> Result<()> {
    let size = 64 * MIB;
    let settings = "[assets]\nrefuse_early = true\n[assets.cache]\nenabled = false\n\
        [assets.remote]\ntypes = [\"application/octet-stream\"]"
        .to_owned();
    let options = Options { apart: true, binary: Some(binary()), settings, ..Options::of(&[ALPHA, BETA]) };
    let federation = LocalFederation::start(&options).await?;
    let ann = federation.user(ALPHA, "Ann").await?;
    let bob = federation.user(BETA, "Bob").await?;
    let small = ann.upload(b"small").await?;
    let first = async || reads(&bob, &small, &Bytes::from_static(b"small")).await;
    eventually("the file at the other backend", first).await?;
    bob.get(&small.path).await?.expect_error(404, "not-found")?;
    let owner = service_of(ALPHA, "assets");
    let (transfers, sent) = given(&federation, &owner).await?;

    federation.forget_peaks()?;
    let before = federation.memory()?;
    let content = Bytes::from(bytes(usize::try_from(size)?));
    let asset = ann.upload_patiently(&content, PATIENCE).await?;
    reads(&bob, &asset, &content).await?;
    took_little(&federation, &before)?;
    ensure!(given(&federation, &owner).await? == (transfers + 1, sent + size));
    reads(&bob, &small, &Bytes::from_static(b"small")).await?;
    ensure!(given(&federation, &owner).await?.0 == transfers + 2, "without a cache every access fetches");

    // The service that stores files hears of conversations and peers from two others.
    let conversation = connect(&ann, &bob).await?;
    let description = json!({ "convId": conversation });
    for (media_type, status) in [("image/png", 403), ("application/octet-stream", 201)] {
        ann.post_asset(asset_form(&description, media_type, b"small")).await?.expect(status)?;
    }
    Ok(())
}
