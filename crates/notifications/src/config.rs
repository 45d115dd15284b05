//! Settings of the notifications service.

use std::{path::PathBuf, time::Duration};

use documented::{Documented, DocumentedFields};
use reqwest::Url;
use serde::{Deserialize, Serialize};

/// Queues and sockets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Days for which an event waits for a client that does not fetch it. Clients expect at least 28: one that comes
    /// back later is told that it missed events.
    ///
    /// Allowed: 1 to 3650.
    pub retention_days: u32,
    /// Pause between two looks for events past their retention.
    ///
    /// Allowed: 1 to 86400.
    pub sweep_interval_seconds: u64,
    /// Most events kept per user, all clients together. Beyond it the oldest are dropped, and a client that had not
    /// fetched them is told that it missed events.
    ///
    /// Allowed: 100 to 100000000.
    pub queue_events: u64,
    /// Most bytes of events kept per user, with the same effect.
    ///
    /// Allowed: 1048576 to 1099511627776.
    pub queue_bytes: u64,
    /// Silence after which the server pings a socket. A socket from which nothing comes for as long again is closed.
    ///
    /// Allowed: 1 to 3600.
    pub ping_interval_seconds: u64,
    /// Most sockets at once of one user; more are refused.
    ///
    /// Allowed: 1 to 100000.
    pub sockets_per_user: usize,
    /// Most sockets at once of this process; more are refused.
    ///
    /// Allowed: 1 to 10000000.
    pub sockets: usize,
    /// Most events that wait for a socket which reads slowly. Beyond it the socket is closed; the client reconnects
    /// and fetches what it missed.
    ///
    /// Allowed: 16 to 1000000.
    pub socket_backlog_events: usize,
    /// Most bytes that wait for a socket, with the same effect. A single event may be larger.
    ///
    /// Allowed: 65536 to 1073741824.
    pub socket_backlog_bytes: usize,
    /// Waking mobile apps.
    pub push: Push,
}

/// Waking mobile apps. Without a provider tokens are kept, and apps that are not connected hear of messages when they are
/// opened next.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, Documented, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Push {
    /// Names of the apps that may register tokens, as they give them; others are told that they are not known here.
    /// Empty: all may.
    ///
    /// Allowed: names of apps.
    pub apps: Vec<String>,
    /// Most push tokens of one user; a further one replaces the oldest.
    ///
    /// Allowed: 1 to 1000.
    pub tokens_per_user: u32,
    /// An HTTP service of yours that is called for each app to wake and talks to the vendors. Without it tokens are
    /// kept and nobody is woken.
    ///
    /// Allowed: an `http` or `https` address.
    pub webhook_url: Option<String>,
    /// The secret under which calls of that service are signed (header `aldis-signature`).
    ///
    /// Allowed: a file.
    pub webhook_secret_file: Option<PathBuf>,
}

impl Default for Push {
    fn default() -> Self {
        Self { apps: Vec::new(), tokens_per_user: 32, webhook_url: None, webhook_secret_file: None }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            retention_days: 28,
            sweep_interval_seconds: 600,
            queue_events: 100_000,
            queue_bytes: 512 << 20,
            ping_interval_seconds: 30,
            sockets_per_user: 75,
            sockets: 200_000,
            socket_backlog_events: 4096,
            socket_backlog_bytes: 4 << 20,
            push: Push::default(),
        }
    }
}

impl Config {
    /// Says which setting is out of its range, if one is.
    pub fn check(&self) -> Result<(), String> {
        let checks: [(&str, u64, u64, u64); 10] = [
            ("retention_days", self.retention_days.into(), 1, 3650),
            ("sweep_interval_seconds", self.sweep_interval_seconds, 1, 86_400),
            ("queue_events", self.queue_events, 100, 100_000_000),
            ("queue_bytes", self.queue_bytes, 1 << 20, 1 << 40),
            ("ping_interval_seconds", self.ping_interval_seconds, 1, 3600),
            ("sockets_per_user", as_u64(self.sockets_per_user), 1, 100_000),
            ("sockets", as_u64(self.sockets), 1, 10_000_000),
            ("socket_backlog_events", as_u64(self.socket_backlog_events), 16, 1_000_000),
            ("push.tokens_per_user", self.push.tokens_per_user.into(), 1, 1000),
            ("socket_backlog_bytes", as_u64(self.socket_backlog_bytes), 64 << 10, 1 << 30),
        ];
        for (key, value, least, most) in checks {
            if !(least..=most).contains(&value) {
                return Err(format!("`notifications.{key}` = {value}; allowed: {least} to {most}"));
            }
        }
        if let Some(url) = &self.push.webhook_url
            && !Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        {
            return Err(format!("`notifications.push.webhook_url` = {url:?}; allowed: an http or https address"));
        }
        Ok(())
    }

    pub(crate) fn retention(&self) -> Duration {
        Duration::from_secs(u64::from(self.retention_days) * 86_400)
    }
}

fn as_u64(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
