//! The answer to a WebSocket handshake (RFC 6455, section 4.2) and what comes after it.
//!
//! Not axum's extractor, because that hides raw frames: large notifications go out in fragments, so that no socket keeps
//! a buffer as large as the largest event it was ever sent.

use aldis_api::{HttpError, routes::Extracts};
use axum::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{error::SocketError, serve::FRAGMENT_BYTES};

/// Clients send pings of a few bytes.
const READ_BUFFER_BYTES: usize = 256;
/// Longest message that is read from a client.
const MAX_CLIENT_MESSAGE_BYTES: usize = 64 << 10;

/// A socket after the handshake.
pub(crate) type Stream = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// A valid handshake request.
pub(crate) struct Handshake {
    accept: HeaderValue,
    upgrade: OnUpgrade,
}

impl Extracts for Handshake {}

impl Handshake {
    /// The answer 101; `serve` runs once it is out. When the connection is lost before, `serve` is dropped.
    pub(crate) fn accept<F, Fut>(self, serve: F) -> Response
    where
        F: FnOnce(Stream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let upgrade = self.upgrade;
        tokio::spawn(async move {
            // A failure means that the client is gone.
            let Ok(upgraded) = upgrade.await else { return };
            let config = WebSocketConfig::default()
                .read_buffer_size(READ_BUFFER_BYTES)
                .write_buffer_size(FRAGMENT_BYTES)
                .max_message_size(Some(MAX_CLIENT_MESSAGE_BYTES))
                .max_frame_size(Some(MAX_CLIENT_MESSAGE_BYTES));
            let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
            serve(stream).await;
        });
        let headers = [
            (header::CONNECTION, HeaderValue::from_static("upgrade")),
            (header::UPGRADE, HeaderValue::from_static("websocket")),
            (header::SEC_WEBSOCKET_ACCEPT, self.accept),
        ];
        (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
    }
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

impl<S: Send + Sync> FromRequestParts<S> for Handshake {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HttpError> {
        let headers = &parts.headers;
        let asked =
            has_token(headers, header::CONNECTION, "upgrade") && has_token(headers, header::UPGRADE, "websocket");
        let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| key.len() <= 64);
        let accept = key.and_then(|key| HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok());
        let (true, Some(accept)) = (asked, accept) else { return Err(SocketError::Handshake.into()) };
        if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            let body = json!({
                "code": 400,
                "label": "protocol not supported",
                "message": "Only version 13 of the WebSocket protocol is supported",
            });
            return Err(HttpError::with_body(StatusCode::BAD_REQUEST, body));
        }
        let upgrade = parts.extensions.remove::<OnUpgrade>().ok_or(SocketError::Handshake)?;
        Ok(Self { accept, upgrade })
    }
}
