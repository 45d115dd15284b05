//! One load: senders post, readers count what arrives on their sockets.

use std::{sync::Arc, time::Duration};

use aldis_harness::client::{Draft, Status, User};
use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::{StreamExt as _, future::try_join_all};
use hdrhistogram::Histogram;
use serde::Deserialize;
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message as Frame};

use crate::{
    people::{Flow, GREETING},
    process::Usage,
};

/// How long readers wait for what is still on its way when the senders have stopped.
const DRAIN: Duration = Duration::from_secs(60);
/// Latencies are kept with three digits up to a minute.
const LONGEST_MICROS: u64 = 60_000_000;

/// How fast senders post.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// The next message as soon as the last one was accepted.
    Saturated,
    /// So many per second, all senders together, at fixed times.
    PerSecond(u16),
}

/// What is sent, and for how long at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) time: Duration,
    pub(crate) messages: u32,
    pub(crate) bytes: usize,
    pub(crate) pace: Pace,
}

/// What came of a load.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Messages that the sender saw confirmed.
    pub(crate) accepted: u64,
    /// Messages that arrived on a socket.
    pub(crate) delivered: u64,
    /// From the first message to the last confirmation.
    pub(crate) sending: Duration,
    /// From the first message to the last arrival.
    pub(crate) delivering: Duration,
    /// Microseconds from sending to the confirmation.
    pub(crate) acceptance: Histogram<u64>,
    /// Microseconds from sending to the socket.
    pub(crate) latency: Histogram<u64>,
    /// Processor time of the backends.
    pub(crate) cpu: Usage,
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_max(LONGEST_MICROS, 3)?)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).clamp(1, LONGEST_MICROS)
}

/// Runs a load. An error when a message is refused, lost, doubled or out of order.
pub(crate) async fn run(flows: &[Flow], plan: &Plan) -> Result<Outcome> {
    let mut sockets = Vec::new();
    for (number, flow) in flows.iter().enumerate() {
        for reader in &flow.readers {
            sockets.push((number, reader.clone(), open(reader).await?));
        }
    }
    let start = Instant::now();
    let (totals, _): (Vec<_>, Vec<_>) = flows.iter().map(|_| watch::channel(None::<u64>)).unzip();
    let readers = sockets
        .into_iter()
        .map(|(number, reader, socket)| tokio::spawn(read(socket, reader, totals[number].subscribe(), start)));
    let readers: Vec<_> = readers.collect();
    let count = u64::try_from(flows.len())?;
    let share = u64::from(plan.messages).div_ceil(count);
    let senders = flows.iter().zip(0_u64..).map(|(flow, number)| post(flow, plan, share, start, (number, count)));
    let sent = try_join_all(senders.zip(&totals).map(|(sending, total)| async {
        let sent = sending.await?;
        // Readers now know how many there are; a reader that is done already needs no word.
        let _ = total.send(Some(sent.accepted));
        anyhow::Ok(sent)
    }))
    .await?;
    let mut outcome = Outcome {
        accepted: 0,
        delivered: 0,
        sending: Duration::ZERO,
        delivering: Duration::ZERO,
        acceptance: histogram()?,
        latency: histogram()?,
        cpu: Usage::default(),
    };
    for sent in sent {
        outcome.accepted += sent.accepted;
        outcome.sending = outcome.sending.max(sent.until);
        outcome.acceptance.add(&sent.acceptance)?;
    }
    for reader in readers {
        let read =
            timeout(DRAIN, reader).await.context("messages are still missing a minute after the last one")???;
        outcome.delivered += read.delivered;
        outcome.delivering = outcome.delivering.max(read.until);
        outcome.latency.add(&read.latency)?;
    }
    Ok(outcome)
}

struct Sent {
    accepted: u64,
    until: Duration,
    acceptance: Histogram<u64>,
}

/// When message `index` of sender `number` out of `count` is due.
fn due(pace: Pace, start: Instant, index: u64, (number, count): (u64, u64)) -> Option<Instant> {
    match pace {
        Pace::Saturated => None,
        Pace::PerSecond(rate) => {
            let micros = (index * count + number).saturating_mul(1_000_000) / u64::from(rate.max(1));
            Some(start + Duration::from_micros(micros))
        }
    }
}

async fn post(flow: &Flow, plan: &Plan, most: u64, start: Instant, place: (u64, u64)) -> Result<Sent> {
    let client = flow.sender.client()?;
    let recipients = flow.sender.recipients(&flow.conversation);
    let mut sent = Sent { accepted: 0, until: Duration::ZERO, acceptance: histogram()? };
    while sent.accepted < most && start.elapsed() < plan.time {
        let due = due(plan.pace, start, sent.accepted, place);
        if let Some(due) = due {
            if due >= start + plan.time {
                break;
            }
            sleep_until(due).await;
        }
        // A sender that is late still counts from when the message was due.
        let since = micros(due.unwrap_or_else(Instant::now) - start);
        let text = format!("{}:{since}:", sent.accepted);
        let padding = plan.bytes.saturating_sub(text.len());
        let body = Draft::new(recipients.clone(), &format!("{text}{}", "x".repeat(padding))).encode(client);
        let answer = flow.sender.post_message(&flow.conversation, body).await?.expect(201)?;
        let status = Status::of(&answer)?;
        ensure!(status.is_clean(), "not everybody gets the message: {status:?}");
        sent.accepted += 1;
        sent.until = start.elapsed();
        sent.acceptance.saturating_record(micros(sent.until).saturating_sub(since));
    }
    Ok(sent)
}

/// An open socket.
pub(crate) type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens a reader's socket.
pub(crate) async fn open(reader: &User) -> Result<Stream> {
    let (stream, _) = connect_async(reader.socket_url()).await.context("opening a socket")?;
    Ok(stream)
}

struct Read {
    delivered: u64,
    until: Duration,
    latency: Histogram<u64>,
}

#[derive(Deserialize)]
struct Notification<'a> {
    #[serde(borrow)]
    payload: Vec<Event<'a>>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    data: Option<Data<'a>>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow, default)]
    text: Option<&'a str>,
}

/// Reads until as many messages came as were accepted.
async fn read(
    mut socket: Stream,
    reader: Arc<User>,
    mut total: watch::Receiver<Option<u64>>,
    start: Instant,
) -> Result<Read> {
    let mut read = Read { delivered: 0, until: Duration::ZERO, latency: histogram()? };
    loop {
        let known = *total.borrow_and_update();
        if known.is_some_and(|total| read.delivered >= total) {
            ensure!(known == Some(read.delivered), "{} got more messages than were sent", reader.id);
            socket.close(None).await?;
            return Ok(read);
        }
        let frame = tokio::select! {
            // An error means that the sender gave up, which its own error explains.
            changed = total.changed(), if known.is_none() => {
                changed.context("the sender stopped")?;
                continue;
            }
            frame = socket.next() => frame.context("the socket was closed")??,
        };
        let Frame::Binary(bytes) = frame else { continue };
        let notification: Notification<'_> = serde_json::from_slice(&bytes)?;
        for event in notification.payload {
            let Some(text) = event.data.and_then(|data| data.text) else { continue };
            let text = String::from_utf8(STANDARD.decode(text)?)?;
            let (_, text) = text.split_once('|').context("no recipient in a message")?;
            if text == GREETING {
                continue;
            }
            read.until = start.elapsed();
            let (index, since) = numbers(text)?;
            if index != read.delivered {
                bail!("{} got message {index} instead of {}", reader.id, read.delivered);
            }
            read.delivered += 1;
            read.latency.saturating_record(micros(read.until).saturating_sub(since));
        }
    }
}

/// Index and time of sending out of `index:micros:xxx`.
fn numbers(text: &str) -> Result<(u64, u64)> {
    let mut fields = text.split(':');
    let mut number = || fields.next().and_then(|field| field.parse().ok()).context("no number in a message");
    Ok((number()?, number()?))
}
