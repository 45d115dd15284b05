//! Devices that read, as apps do: by sockets that break and are opened again, and by what waited meanwhile.

use std::{collections::HashSet, time::Duration};

use aldis_harness::client::{Event, MESSAGE, Step, User};
use anyhow::{Context as _, Result, bail};
use rand::{RngExt as _, rngs::StdRng};
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use crate::{
    history::{Item, Key, Recorder, What, time_of},
    senders::Shared,
    world::{Way, World},
};

/// How long opening a socket and fetching what waited may take.
const OPEN: Duration = Duration::from_secs(20);
/// How long a socket may be silent before the reader looks around.
const LOOK: Duration = Duration::from_millis(500);
/// Socket time between two voluntary breaks.
const LONGEST_SOCKET: Duration = Duration::from_secs(30);

/// One device.
pub(crate) struct Reader {
    pub(crate) shared: Shared,
    pub(crate) device: usize,
    pub(crate) dice: StdRng,
    /// True when there is nothing more to read.
    pub(crate) finished: watch::Receiver<bool>,
}

/// What it has read.
#[derive(Default)]
struct Memory {
    seen: HashSet<Uuid>,
    last: Option<String>,
}

impl Reader {
    /// Reads until there is nothing more to read.
    pub(crate) async fn run(mut self) -> Result<()> {
        let world = self.shared.world.clone();
        let device = world.devices.get(self.device).context("a device")?.clone();
        let mut memory = Memory::default();
        while !*self.finished.borrow() {
            let until = Instant::now() + Duration::from_millis(self.dice.random_range(1_000..millis(LONGEST_SOCKET)));
            let ended = match device.way {
                Way::Socket => self.listen(&device.user, &mut memory, until).await,
                Way::Acknowledged => self.consume(&device.user, &mut memory, until).await,
            };
            let offline = match ended {
                Ok(()) if self.shared.is_over() => continue,
                // Some are away for long.
                Ok(()) if self.dice.random_bool(0.2) => self.dice.random_range(2_000..15_000),
                Ok(()) => self.dice.random_range(0..500),
                Err(error) => {
                    let text = format!("{error:#}");
                    if text.contains("came twice") {
                        self.shared.recorder.doubled(format!("device {}: {text}", self.device));
                    }
                    // The token may have run out meanwhile; while the backend is away this fails as well.
                    let _ = timeout(OPEN, device.user.renew()).await;
                    200
                }
            };
            self.shared.rest(Duration::from_millis(offline)).await;
            if self.shared.is_over() {
                sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// `/await`: first the socket, then what waited, then what comes.
    async fn listen(&mut self, user: &User, memory: &mut Memory, until: Instant) -> Result<()> {
        let opening = async {
            let socket = user.open_socket().await?;
            Ok::<_, anyhow::Error>((socket, user.queue(memory.last.as_deref()).await?))
        };
        let (mut socket, waited) = timeout(OPEN, opening).await.context("opening took too long")??;
        for event in waited {
            self.take(user, memory, &event.id, &event.value)?;
        }
        while Instant::now() < until && !*self.finished.borrow() {
            if let Ok(event) = timeout(LOOK, socket.next()).await {
                let Event { id, value, transient } = event?;
                if !transient {
                    self.take(user, memory, &id, &value)?;
                }
            }
        }
        Ok(())
    }

    /// `/events`: what was not acknowledged comes again.
    async fn consume(&mut self, user: &User, memory: &mut Memory, until: Instant) -> Result<()> {
        let mut socket = timeout(OPEN, user.consume()).await.context("opening took too long")??;
        while Instant::now() < until && !*self.finished.borrow() {
            let Ok(step) = timeout(LOOK, socket.step()).await else { continue };
            match step? {
                Step::Event(event) => {
                    self.take(user, memory, &event.id, &event.event)?;
                    // Mostly at once, sometimes together with a later one, or after it has come again.
                    if self.dice.random_bool(0.8) {
                        socket.acknowledge(event.tag).await?;
                    }
                }
                Step::CaughtUp => {}
                Step::Missed => {
                    self.shared.recorder.odd(format!("device {} was told that it missed events", self.device));
                    bail!("events were missed");
                }
            }
        }
        Ok(())
    }

    /// Notes an event, unless it came before by another way.
    fn take(&self, user: &User, memory: &mut Memory, id: &str, event: &Value) -> Result<()> {
        if !memory.seen.insert(Uuid::parse_str(id).context("id of a notification")?) {
            return Ok(());
        }
        memory.last = Some(id.to_owned());
        if let Some(item) = item(&self.shared.world, &self.shared.recorder, user, event) {
            self.shared.recorder.got(self.device, item);
        }
        Ok(())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What an event is to the checker; nothing when it is about something else.
pub(crate) fn item(world: &World, recorder: &Recorder, user: &User, event: &Value) -> Option<Item> {
    let conversation = serde_json::from_value(event["qualified_conversation"].clone()).ok()?;
    let conversation = world.conversation(&conversation)?;
    let what = match event["type"].as_str()? {
        MESSAGE => match user.read(event) {
            Ok(message) => What::Message(Key::parse(&message?.text)?),
            Err(error) => {
                recorder.odd(format!("a message that cannot be read: {error:#}"));
                return None;
            }
        },
        "conversation.rename" => What::Rename(Key::parse(event["data"]["name"].as_str()?)?),
        "conversation.member-join" => What::Join,
        "conversation.member-leave" => What::Leave,
        "conversation.member-update" => What::Role,
        _ => return None,
    };
    let time = event["time"].as_str().and_then(time_of);
    if time.is_none() {
        recorder.odd(format!("an event without time in milliseconds: {}", event["time"]));
    }
    Some(Item { conversation, what, time: time? })
}
