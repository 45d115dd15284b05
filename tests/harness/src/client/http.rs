//! Requests to one backend and its answers.

use std::{io::Write as _, time::Duration};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::conformance::{self, Seen};

/// How long any request may take, slow peers included.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The version that apps of today pick.
pub const VERSION: u32 = 13;

/// The client API of one backend, seen from outside. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Api {
    base: String,
    socket_base: String,
    version: Option<u32>,
    described: bool,
    http: reqwest::Client,
}

impl Api {
    /// A backend at `base` (`http://127.0.0.1:18100`) with sockets at `socket_base` (`ws://…`).
    pub fn new(base: &str, socket_base: &str) -> Result<Self> {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(64)
            .tcp_nodelay(true)
            .no_proxy()
            .build()
            .context("HTTP client")?;
        let trim = |url: &str| url.trim_end_matches('/').to_owned();
        Ok(Self { base: trim(base), socket_base: trim(socket_base), version: Some(VERSION), described: true, http })
    }

    /// Another listener than that of the client API: no version, and no description that answers are held against.
    pub fn other(base: &str) -> Result<Self> {
        Ok(Self { version: None, described: false, ..Self::new(base, "")? })
    }

    /// The same backend, asked in another version; `None` leaves the prefix away.
    #[must_use]
    pub fn with_version(&self, version: Option<u32>) -> Self {
        Self { version, ..self.clone() }
    }

    /// Begins a request to a path without version prefix, query included.
    pub fn call(&self, method: Method, path: impl Into<String>) -> Call<'_> {
        let path = path.into();
        Call { api: self, method, path, headers: HeaderMap::new(), body: Bytes::new(), patience: TIMEOUT }
    }

    /// `GET` without token.
    pub async fn get(&self, path: impl Into<String>) -> Result<Answer> {
        self.call(Method::GET, path).send().await
    }

    /// `POST` of JSON without token.
    pub async fn post(&self, path: impl Into<String>, body: &Value) -> Result<Answer> {
        self.call(Method::POST, path).json(body)?.send().await
    }

    /// The address of a socket route, prefix-free as apps use it.
    pub fn socket_url(&self, path_and_query: &str) -> String {
        format!("{}{path_and_query}", self.socket_base)
    }

    fn url(&self, path: &str) -> String {
        // Apps never prefix these.
        let bare = ["/access", "/api-version", "/await"].iter().any(|prefix| path.starts_with(prefix));
        match self.version {
            Some(version) if !bare && !has_version(path) => format!("{}/v{version}{path}", self.base),
            _ => format!("{}{path}", self.base),
        }
    }
}

fn has_version(path: &str) -> bool {
    let first = path.trim_start_matches('/').split(['/', '?']).next().unwrap_or_default();
    first.strip_prefix('v').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A request that is being put together.
#[must_use]
pub struct Call<'a> {
    api: &'a Api,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    patience: Duration,
}

impl Call<'_> {
    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self> {
        let name = HeaderName::try_from(name).with_context(|| format!("header name {name}"))?;
        self.headers.append(name, HeaderValue::try_from(value).context("header value")?);
        Ok(self)
    }

    /// Gives it more time than other requests, answer included.
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Adds the access token.
    pub fn token(self, token: &str) -> Result<Self> {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// A JSON body, compressed as the JavaScript client does it.
    pub fn json(self, body: &Value) -> Result<Self> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(body.to_string().as_bytes())?;
        self.bytes("application/json", gzip.finish()?)?.header("content-encoding", "gzip")
    }

    /// A body of any type.
    pub fn bytes(mut self, content_type: &str, body: impl Into<Bytes>) -> Result<Self> {
        self.body = body.into();
        self.header(header::CONTENT_TYPE.as_str(), content_type)
    }

    /// Sends it. An error means that no complete answer came, or one that the description of the API does not allow.
    pub async fn send(self) -> Result<Answer> {
        let (asked, response) = self.begin().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.with_context(|| format!("{}: reading the answer", asked.what))?;
        asked.check(status, &headers, Some(&body))?;
        Ok(Answer { what: asked.what, status, headers, body })
    }

    /// Sends it, and hands over the body of the answer part by part instead of keeping it.
    pub async fn read(self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<Answer> {
        let (asked, mut response) = self.begin().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        asked.check(status, &headers, None)?;
        while let Some(part) = response.chunk().await.with_context(|| format!("{}: reading the answer", asked.what))? {
            take(&part)?;
        }
        Ok(Answer { what: asked.what, status, headers, body: Bytes::new() })
    }

    async fn begin(self) -> Result<(Asked, reqwest::Response)> {
        let what = format!("{} {}", self.method, self.path);
        let url = self.api.url(&self.path);
        let request = self.api.http.request(self.method.clone(), &url).headers(self.headers).body(self.body);
        let response = request.timeout(self.patience).send().await.with_context(|| what.clone())?;
        let path = url.strip_prefix(&self.api.base).unwrap_or_default().to_owned();
        Ok((Asked { what, method: self.method, path, is_described: self.api.described }, response))
    }
}

/// A request that was sent.
struct Asked {
    what: String,
    method: Method,
    /// With version and query.
    path: String,
    is_described: bool,
}

impl Asked {
    /// Holds an answer against the description of the API; `None` for a body that is not kept.
    fn check(&self, status: u16, headers: &HeaderMap, body: Option<&[u8]>) -> Result<()> {
        if !self.is_described {
            return Ok(());
        }
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        conformance::check(&Seen { method: &self.method, path: &self.path, status, content_type, body })
    }
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Answer {
    what: String,
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// The answer itself when it has this status, else an error that shows it.
    pub fn expect(self, status: u16) -> Result<Self> {
        self.expect_one_of(&[status])
    }

    /// The answer itself when it has one of these statuses, else an error that shows it.
    pub fn expect_one_of(self, statuses: &[u16]) -> Result<Self> {
        if !statuses.contains(&self.status) {
            bail!("{}: expected status {statuses:?}, got {} {}", self.what, self.status, self.text());
        }
        Ok(self)
    }

    /// Checks that the answer is this error, complete as apps need it, and gives its body.
    pub fn expect_error(self, status: u16, label: &str) -> Result<Value> {
        let body: Value = self.json().unwrap_or_default();
        let complete = body["code"] == status && body["label"] == label && body["message"].is_string();
        if self.status != status || !complete {
            bail!("{}: expected the error {status} {label}, got {} {}", self.what, self.status, self.text());
        }
        Ok(body)
    }

    /// The body as JSON of this shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).with_context(|| format!("{}: answer {}", self.what, self.text()))
    }

    /// The body as any JSON.
    pub fn value(&self) -> Result<Value> {
        self.json()
    }

    /// The `label` of an error body; empty when there is none.
    pub fn label(&self) -> String {
        self.json::<Value>().ok().and_then(|body| body["label"].as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The value that the last `Set-Cookie` header gives the cookie of a session.
    pub fn cookie(&self) -> Option<String> {
        let set = self.headers.get_all(header::SET_COOKIE).iter().next_back()?.to_str().ok()?;
        let value = set.split(';').next()?.strip_prefix("zuid=")?;
        (!value.is_empty()).then(|| value.to_owned())
    }

    fn text(&self) -> String {
        let shown = &self.body[..self.body.len().min(2000)];
        String::from_utf8_lossy(shown).into_owned()
    }
}

fn hex(digit: u8) -> char {
    char::from_digit(digit.into(), 16).unwrap_or('0').to_ascii_uppercase()
}

/// A text as part of a query string.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.extend(['%', hex(byte >> 4), hex(byte & 15)]);
        }
    }
    encoded
}
