//! Settings of HTTP/2 that both directions share.

use std::time::Duration;

/// A connection that was cut is noticed after the sum of both, idle or not.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(10);
pub(crate) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
pub(crate) const STREAM_WINDOW: u32 = 1024 * 1024;
/// Room for several streams that are read slowly before they hold up the others.
pub(crate) const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
pub(crate) const MAX_HEADER_BYTES: u32 = 32 * 1024;
/// How long the streams of a connection that is to end may go on.
pub(crate) const DRAIN: Duration = Duration::from_secs(10);
