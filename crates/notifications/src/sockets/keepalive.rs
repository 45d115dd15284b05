//! Silence: pinging sockets and dropping dead ones, by one task for all.

use std::{sync::atomic::Ordering, time::Duration};

use super::{Ending, Socket, Sockets};

const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Sockets {
    /// Pings silent sockets and ends dead ones for as long as it is polled.
    pub(crate) async fn keep_alive(self) {
        let pause = (self.0.ping_interval / 6).min(LONGEST_PAUSE);
        loop {
            tokio::time::sleep(pause).await;
            let now = self.now();
            self.each(|socket| self.look_after(socket, now));
        }
    }

    /// Pings after one interval of silence; ends after one more without an answer.
    fn look_after(&self, socket: &Socket, now: u64) {
        let interval = u64::try_from(self.0.ping_interval.as_millis()).unwrap_or(u64::MAX);
        let heard = socket.heard.load(Ordering::Relaxed);
        let pinged = socket.pinged.load(Ordering::Relaxed);
        if pinged > heard {
            if now.saturating_sub(pinged) >= interval {
                socket.mailbox.end(Ending::Dead);
            }
        } else if now.saturating_sub(heard) >= interval {
            socket.pinged.store(now, Ordering::Relaxed);
            socket.mailbox.ping();
        }
    }
}
