//! Memory per idle socket.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use futures::{SinkExt as _, StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::{BETA, load, people::Crowd, process};

/// Sockets that are opened at the same time.
const AT_ONCE: usize = 32;
/// How long a socket may take to answer a ping.
const PONG: Duration = Duration::from_secs(30);

/// What idle sockets cost one backend.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Idle {
    /// How many were opened.
    pub(crate) sockets: u32,
    /// Resident memory before.
    pub(crate) before_kib: u64,
    /// Resident memory while they were open.
    pub(crate) during_kib: u64,
    /// The difference for each.
    pub(crate) kib_per_socket: f64,
}

/// Opens `count` sockets of one backend's people, makes sure that each is alive, and looks at the process.
pub(crate) async fn measure(crowd: &Crowd, count: u32) -> Result<Idle> {
    let pid = crowd.pid(BETA)?;
    let people: Vec<_> = crowd.people_of(BETA).map(Arc::clone).collect();
    ensure!(!people.is_empty(), "nobody to open sockets for");
    let before_kib = process::resident_kib(pid)?;
    let opening = people.iter().cycle().take(usize::try_from(count)?).map(|user| load::open(user));
    let mut sockets: Vec<_> = stream::iter(opening).buffered(AT_ONCE).try_collect().await?;
    for socket in &mut sockets {
        socket.send(Frame::text("ping")).await?;
    }
    for socket in &mut sockets {
        let pong = async {
            while let Some(frame) = socket.next().await {
                if matches!(frame?, Frame::Binary(bytes) if bytes.as_ref() == b"pong") {
                    return anyhow::Ok(());
                }
            }
            anyhow::bail!("a socket was closed while it was idle")
        };
        tokio::time::timeout(PONG, pong).await??;
    }
    let during_kib = process::resident_kib(pid)?;
    let grown = u32::try_from(during_kib.saturating_sub(before_kib))?;
    Ok(Idle { sockets: count, before_kib, during_kib, kib_per_socket: f64::from(grown) / f64::from(count.max(1)) })
}
