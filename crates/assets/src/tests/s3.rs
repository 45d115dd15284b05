//! Files in an object store.

use std::{path::Path, time::Duration};

use axum::body::Body;
use http::Request;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use uuid::Uuid;

use super::world::{ALPHA, BETA, Form, World, bytes};
use crate::{
    Config, S3Config,
    blobs::{BlobStore as _, s3::S3, suite},
};

/// An object store of our own below `folder`, or the one that `ALDIS_TEST_S3_ENDPOINT`, `…_BUCKET`, `…_ACCESS_KEY_ID`,
/// `…_SECRET_ACCESS_KEY` and `…_REGION` name.
async fn settings(folder: &Path) -> S3Config {
    let given = |name: &str| std::env::var(format!("ALDIS_TEST_S3_{name}")).ok();
    let endpoint = match given("ENDPOINT") {
        Some(endpoint) => endpoint,
        None => aldis_s3_server::serve(&folder.join("s3")).await.unwrap(),
    };
    let value = |name: &str, ours: &str| given(name).unwrap_or_else(|| ours.to_owned());
    S3Config {
        bucket: value("BUCKET", aldis_s3_server::BUCKET),
        prefix: format!("{}/", Uuid::new_v4()),
        region: value("REGION", "us-east-1"),
        endpoint: Some(endpoint),
        path_style: true,
        ca_file: None,
        access_key_id: value("ACCESS_KEY_ID", aldis_s3_server::ACCESS_KEY_ID),
        secret_access_key: value("SECRET_ACCESS_KEY", aldis_s3_server::SECRET_ACCESS_KEY).into(),
        redirect: false,
        part_mib: 5,
    }
}

#[tokio::test]
async fn an_object_store() {
    let folder = tempfile::tempdir().unwrap();
    suite::run(&S3::new(&settings(folder.path()).await).unwrap(), 12 << 20).await;
}

#[tokio::test]
async fn an_object_store_with_an_authority_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (endpoint, authority) = aldis_s3_server::serve_tls(&folder.path().join("s3")).await.unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, authority).unwrap();
    let ours = S3Config {
        bucket: aldis_s3_server::BUCKET.to_owned(),
        region: "us-east-1".to_owned(),
        endpoint: Some(endpoint),
        access_key_id: aldis_s3_server::ACCESS_KEY_ID.to_owned(),
        secret_access_key: aldis_s3_server::SECRET_ACCESS_KEY.to_owned().into(),
        ..settings(folder.path()).await
    };
    let store = S3::new(&S3Config { ca_file: Some(ca_file), ..ours.clone() }).unwrap();
    suite::run(&store, 6 << 20).await;
    let distrusted = S3::new(&ours).unwrap();
    distrusted.delete(Uuid::new_v4()).await.unwrap_err();
    let missing = S3Config { ca_file: Some(folder.path().join("missing")), ..ours };
    assert_eq!(S3::new(&missing).err().unwrap().kind(), std::io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_bucket_is_named_in_the_host_or_in_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let config = S3Config {
        bucket: "files".to_owned(),
        prefix: "aldis/".to_owned(),
        endpoint: Some("https://s3.example.com".to_owned()),
        redirect: true,
        ..settings(folder.path()).await
    };
    let id = Uuid::from_u128(7);
    for (path_style, host, path) in [
        (true, "s3.example.com", format!("/files/aldis/{id}")),
        (false, "files.s3.example.com", format!("/aldis/{id}")),
    ] {
        let store = S3::new(&S3Config { path_style, ..config.clone() }).unwrap();
        let link: http::Uri = store.link(id, "image/png").await.unwrap().unwrap().parse().unwrap();
        assert_eq!((link.host(), link.path()), (Some(host), path.as_str()));
        let query = link.query().unwrap();
        assert!(query.contains("X-Amz-Expires=300") && query.contains("X-Amz-Signature="), "{query}");
    }
    let direct = S3::new(&S3Config { redirect: false, ..config }).unwrap();
    assert_eq!(direct.link(id, "image/png").await.unwrap(), None);
}

#[tokio::test]
async fn files_in_an_object_store_are_read_here_and_elsewhere() {
    let world = World::new();
    let config = Config { s3: Some(settings(world.folder.path()).await), ..Config::default() };
    let alpha = world.start(ALPHA, config, None).await;
    let beta = world.start(BETA, Config::default(), Some(&alpha)).await;
    let (path, token) = alpha.upload(1, &Form::of(bytes(6 << 20))).await;
    let path = format!("{path}?asset_token={token}");
    for backend in [&alpha, &beta] {
        assert!(backend.get(2, &path).await.expect(200).body.unwrap() == bytes(6 << 20));
        let request = Request::builder().uri(&path).header("range", "bytes=6000000-6000009");
        let part = backend.send(Some(2), request, Body::empty()).await.expect(206);
        assert_eq!(part.body.unwrap(), &bytes(6 << 20)[6_000_000..6_000_010]);
    }
    assert!(!alpha.folder.join("assets").exists());
}

#[tokio::test]
async fn a_download_is_sent_to_the_object_store() {
    let world = World::new();
    let config =
        Config { s3: Some(S3Config { redirect: true, ..settings(world.folder.path()).await }), ..Config::default() };
    let alpha = world.start(ALPHA, config, None).await;
    let beta = world.start(BETA, Config::default(), Some(&alpha)).await;
    let (path, _) = alpha.upload(1, &Form::public("hello")).await;
    let answer = alpha.get(2, &path).await.expect(302);
    let link: http::Uri = answer.header("location").parse().unwrap();
    if link.scheme_str() == Some("http") {
        let host = link.authority().unwrap().as_str();
        let mut stream = TcpStream::connect(host).await.unwrap();
        let request =
            format!("GET {} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n", link.path_and_query().unwrap());
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        tokio::time::timeout(Duration::from_secs(30), read).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    }
    // Another backend gets the bytes from us, whatever our users get.
    assert_eq!(beta.get(2, &path).await.expect(200).body.unwrap(), b"hello");
}
