//! Files.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::{BufMut, Bytes, BytesMut};
use http::Method;
use serde_json::{Value, json};

use super::{Answer, Body, User};

const MIXED: &str = "multipart/mixed; boundary=frontier";

/// A file that was stored.
#[derive(Debug, Clone)]
pub struct StoredAsset {
    /// `/assets/{domain}/{key}`.
    pub path: String,
    /// The key alone.
    pub key: String,
    /// What gives access; empty for public files.
    pub token: String,
}

impl StoredAsset {
    fn read(answer: &Answer) -> Result<Self> {
        let stored = answer.clone().expect(201)?.value()?;
        let key = stored["key"].as_str().context("key")?.to_owned();
        let domain = stored["domain"].as_str().context("domain")?;
        let token = stored["token"].as_str().unwrap_or_default().to_owned();
        Ok(Self { path: format!("/assets/{domain}/{key}"), key, token })
    }

    /// The path with the token.
    pub fn with_token(&self) -> String {
        format!("{}?asset_token={}", self.path, self.token)
    }
}

/// The body of an upload, as apps write it.
pub fn asset_form(description: &Value, media_type: &str, bytes: &[u8]) -> Bytes {
    let json = description.to_string();
    let (length, size) = (json.len(), bytes.len());
    let head = format!(
        "--frontier\r\nContent-Type: application/json;charset=utf-8\r\nContent-length: {length}\r\n\r\n{json}\r\n\
         --frontier\r\nContent-Type: {media_type}\r\nContent-length: {size}\r\n\r\n"
    );
    let mut body = BytesMut::with_capacity(head.len() + size + 32);
    body.put_slice(head.as_bytes());
    body.put_slice(bytes);
    body.put_slice(b"\r\n--frontier--\r\n");
    body.freeze()
}

impl User {
    /// `POST /assets` with this body.
    pub async fn post_asset(&self, form: Bytes) -> Result<Answer> {
        self.request(Method::POST, "/assets", Body::Bytes(MIXED, form)).await
    }

    /// Stores bytes that take long.
    pub async fn upload_patiently(&self, bytes: &[u8], patience: Duration) -> Result<StoredAsset> {
        let form = self.private_form(bytes);
        let call = self.api.call(Method::POST, "/assets").token(&self.session().token)?.bytes(MIXED, form)?;
        StoredAsset::read(&call.patience(patience).send().await?)
    }

    /// Stores bytes that a token gives access to.
    pub async fn upload(&self, bytes: &[u8]) -> Result<StoredAsset> {
        StoredAsset::read(&self.post_asset(self.private_form(bytes)).await?)
    }

    fn private_form(&self, bytes: &[u8]) -> Bytes {
        let description = json!({ "public": false, "retention": "persistent", "domain": self.id.domain });
        asset_form(&description, "application/octet-stream", bytes)
    }
}
