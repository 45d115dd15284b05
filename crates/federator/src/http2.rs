//! Settings of HTTP/2 that both directions share, beside those of `aldis_runtime::http2`.

use std::time::Duration;

/// Room for several streams that are read slowly before they hold up the others.
pub(crate) const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
pub(crate) const MAX_HEADER_BYTES: u32 = 32 * 1024;
/// How long the streams of a connection that is to end may go on.
pub(crate) const DRAIN: Duration = Duration::from_secs(10);
