//! Memory per idle socket.
//!
//! The backend is started again before, so that no memory that other work has left lies ready for the sockets. A fresh
//! process first grows into what it needs anyway, so the sockets of a first part are not counted.

use std::{sync::Arc, time::Duration};

use aldis_harness::client::User;
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
    /// How many were open in the end.
    pub(crate) sockets: u32,
    /// How many were open at first.
    pub(crate) first_sockets: u32,
    /// Resident memory with the first ones.
    pub(crate) first_kib: u64,
    /// Resident memory with all.
    pub(crate) all_kib: u64,
    /// The difference for each that came later.
    pub(crate) kib_per_socket: f64,
}

/// Opens `count` sockets of one backend's people, makes sure that each is alive, and looks at the process.
pub(crate) async fn measure(crowd: &mut Crowd, count: u32) -> Result<Idle> {
    crowd.start_again(BETA).await?;
    let pid = crowd.pid(BETA)?;
    let people: Vec<_> = crowd.people_of(BETA).map(Arc::clone).collect();
    ensure!(!people.is_empty(), "nobody to open sockets for");
    let first_sockets = count / 4;
    let mut sockets = open(&people, first_sockets).await?;
    let first_kib = process::resident_kib(pid)?;
    sockets.extend(open(&people, count - first_sockets).await?);
    let all_kib = process::resident_kib(pid)?;
    let grown = u32::try_from(all_kib.saturating_sub(first_kib))?;
    let kib_per_socket = f64::from(grown) / f64::from((count - first_sockets).max(1));
    drop(sockets);
    Ok(Idle { sockets: count, first_sockets, first_kib, all_kib, kib_per_socket })
}

/// Opens so many sockets, of each person in turn, and pings each.
async fn open(people: &[Arc<User>], count: u32) -> Result<Vec<load::Stream>> {
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
    Ok(sockets)
}
