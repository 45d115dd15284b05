//! `[client]`: how clients reach us, and how much each may ask.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use aldis_runtime::networks::Networks;
use documented::{Documented, DocumentedFields};
use serde::{Deserialize, Serialize};

/// How clients reach the backend, and what they may ask. Over plain HTTP with TLS ending in front, or over HTTPS with
/// `[client.tls]`.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct ClientConfig {
    /// Where `aldis all` serves clients.
    pub listen: SocketAddr,
    /// Serves HTTPS, for installations without a proxy in front.
    pub tls: Option<TlsFiles>,
    /// Web pages that may use this backend, such as `"https://app.example.com"`.
    ///
    /// Allowed: origins without path.
    pub allowed_origins: Vec<String>,
    /// Also allows pages from `localhost` and loopback addresses; for trying out.
    pub allow_loopback_origins: bool,
    /// Whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    ///
    /// Allowed: networks or addresses.
    pub trusted_proxies: Vec<String>,
    /// Largest body of a request. Routes for messages and properties have limits of their own.
    ///
    /// Allowed: 1024 to 67108864.
    pub body_limit_bytes: usize,
    /// A request that takes longer is answered 408. Sockets are exempt.
    ///
    /// Allowed: 1 to 3600.
    pub request_timeout_seconds: u64,
    /// `[client.throttle]`.
    pub throttle: ThrottleConfig,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            tls: None,
            allowed_origins: Vec::new(),
            allow_loopback_origins: false,
            trusted_proxies: Vec::new(),
            body_limit_bytes: 512 * 1024,
            request_timeout_seconds: 60,
            throttle: ThrottleConfig::default(),
        }
    }
}

/// Requests beyond these rates are answered 420. They are counted per process, by user where there is a valid token,
/// otherwise by address (IPv6: by network of 64 bits).
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct ThrottleConfig {
    /// `false` turns throttling off, for load tests.
    pub enabled: bool,
    /// Routes that need no token (registration, activation, login, …): requests per minute, address and route.
    pub open_per_minute: u32,
    /// Requests that may come at once before that rate holds.
    pub open_burst: u32,
    /// Requests under way at once, per address.
    pub open_parallel: u32,
    /// All other routes: requests per second and user.
    pub user_per_second: u32,
    /// Requests that may come at once before that rate holds.
    pub user_burst: u32,
    /// Requests under way at once, per user.
    pub user_parallel: u32,
    /// Routes that apps call in quick succession (one-to-one conversations, claiming key packages): per second and
    /// user.
    pub relaxed_per_second: u32,
    /// Requests that may come at once before that rate holds.
    pub relaxed_burst: u32,
    /// Callers that are remembered one by one, 1000 or more; beyond that, strangers share buckets.
    pub max_callers: usize,
}

impl Default for ThrottleConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            open_per_minute: 5,
            open_burst: 10,
            open_parallel: 20,
            user_per_second: 10,
            user_burst: 20,
            user_parallel: 75,
            relaxed_per_second: 100,
            relaxed_burst: 200,
            max_callers: 100_000,
        }
    }
}

/// HTTPS without a proxy in front. The files are looked at every two seconds; new content is in force without a restart.
#[derive(Debug, Clone, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// HTTPS: the certificate for the host name of the client API, and every intermediate after it. Looked at every
    /// two seconds; new content is in force without a restart.
    ///
    /// Allowed: PEM, with `key_file`.
    pub certificate_file: PathBuf,
    /// The private key of the certificate.
    ///
    /// Allowed: PEM, with `certificate_file`.
    pub key_file: PathBuf,
}

/// Keys of `[client]` whose values are file names.
pub const PATHS: &[&str] = &["tls.certificate_file", "tls.key_file"];

/// Longest time that a request may be given.
const MAX_TIMEOUT_SECONDS: u64 = 3600;

impl ClientConfig {
    /// Refuses what cannot be used; the text names key, value and what is allowed.
    pub fn check(&self) -> Result<(), String> {
        self.proxies()?;
        for origin in &self.allowed_origins {
            let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            if rest.is_none_or(|host| host.is_empty() || host.contains(['/', '*', ' '])) {
                return Err(format!(
                    "`client.allowed_origins` has {origin:?}; allowed: origins like \"https://app.example.com\", without path"
                ));
            }
        }
        if !(1024..=64 * 1024 * 1024).contains(&self.body_limit_bytes) {
            let value = self.body_limit_bytes;
            return Err(format!("`client.body_limit_bytes` = {value}; allowed: 1024 to 67108864"));
        }
        if !(1..=MAX_TIMEOUT_SECONDS).contains(&self.request_timeout_seconds) {
            let value = self.request_timeout_seconds;
            return Err(format!("`client.request_timeout_seconds` = {value}; allowed: 1 to {MAX_TIMEOUT_SECONDS}"));
        }
        self.throttle.check()
    }

    /// The networks of trusted proxies.
    pub(crate) fn proxies(&self) -> Result<Networks, String> {
        Networks::parse("client.trusted_proxies", &self.trusted_proxies)
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_seconds)
    }
}

impl ThrottleConfig {
    fn check(&self) -> Result<(), String> {
        let numbers = [
            ("open_per_minute", self.open_per_minute),
            ("open_burst", self.open_burst),
            ("open_parallel", self.open_parallel),
            ("user_per_second", self.user_per_second),
            ("user_burst", self.user_burst),
            ("user_parallel", self.user_parallel),
            ("relaxed_per_second", self.relaxed_per_second),
            ("relaxed_burst", self.relaxed_burst),
        ];
        for (key, value) in numbers {
            if NonZeroU32::new(value).is_none() {
                return Err(format!(
                    "`client.throttle.{key}` = 0; allowed: 1 or more (throttling is turned off by `enabled = false`)"
                ));
            }
        }
        if self.max_callers < 1000 {
            return Err(format!("`client.throttle.max_callers` = {}; allowed: 1000 or more", self.max_callers));
        }
        Ok(())
    }
}
