//! What all our HTTP/2 connections have in common, between services and between backends.

use std::time::Duration;

use hyper::client::conn::http2::Builder;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// A connection that was cut is noticed after the sum of both, idle or not.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// See [`KEEP_ALIVE`].
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of one stream that may be under way.
pub const STREAM_WINDOW: u32 = 1024 * 1024;

/// A client's side of connections on which so many bytes may be under way, over all streams.
pub fn client(connection_window: u32) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        // Without this a connection that was cut while idle hangs for good.
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(connection_window);
    builder
}
