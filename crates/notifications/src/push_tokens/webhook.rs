//! A provider that hands pushes to an HTTP service of the operator's, which knows the vendors.
//!
//! ```text
//! POST <url>                     Content-Type: application/json
//! Aldis-Signature: sha256=<hex>  HMAC-SHA-256 of the body under the shared secret, when one is set
//! {"transport":"GCM","app":"…","token":"…","user":"…","client":"…","priority":"high",
//!  "payload":{"type":"notice","data":{"id":"…"},"user":"…"}}
//! ```
//!
//! 2xx: taken. 404 or 410: the token is gone and is removed. 408, 425, 429 and 5xx: tried again a few times. Everything
//! else: given up. What was written is never part of a push.

use aldis_storage::StoreError;
use async_trait::async_trait;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, StatusCode, Url, header, redirect};
use serde_json::json;
use sha2::Sha256;

use super::{Provider, PushToken, Wake, Woken};
use crate::config::Push;

/// Calls the operator's service.
pub(crate) struct Webhook {
    url: Url,
    secret: Option<Vec<u8>>,
    client: Client,
}

impl Webhook {
    /// From the settings; `None` without a URL.
    pub(crate) fn new(config: &Push) -> Result<Option<Self>, StoreError> {
        let Some(url) = config.webhook_url.as_deref().and_then(|url| Url::parse(url).ok()) else { return Ok(None) };
        let secret = config.webhook_secret_file.as_ref().map(std::fs::read).transpose()?;
        let secret = secret.map(|secret| secret.trim_ascii().to_vec());
        let client = Client::builder().redirect(redirect::Policy::none()).no_proxy().build();
        Ok(Some(Self { url, secret, client: client.map_err(std::io::Error::other)? }))
    }
}

#[async_trait]
impl Provider for Webhook {
    async fn wake(&self, token: &PushToken, wake: &Wake) -> Woken {
        let body = json!({
            "transport": token.transport,
            "app": token.app,
            "token": token.token,
            "user": wake.user,
            "client": token.client,
            "priority": if wake.high_priority { "high" } else { "low" },
            "payload": { "type": "notice", "data": { "id": wake.notification }, "user": wake.user },
        })
        .to_string();
        let mut request = self.client.post(self.url.clone()).header(header::CONTENT_TYPE, "application/json");
        // HMAC takes keys of every length.
        if let Some(Ok(mut mac)) = self.secret.as_deref().map(Hmac::<Sha256>::new_from_slice) {
            mac.update(body.as_bytes());
            let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
            request = request.header("aldis-signature", signature);
        }
        match request.body(body).send().await {
            Ok(response) => woken(response.status()),
            Err(error) => {
                tracing::debug!(timeout = error.is_timeout(), connect = error.is_connect(), "the push service failed");
                Woken::Later
            }
        }
    }
}

fn woken(status: StatusCode) -> Woken {
    match status {
        status if status.is_success() => Woken::Sent,
        StatusCode::NOT_FOUND | StatusCode::GONE => Woken::TokenGone,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => Woken::Later,
        status if status.is_server_error() => Woken::Later,
        _ => Woken::Refused,
    }
}
