//! Notifications: the queue, and the `/await` socket.

use std::collections::{HashSet, VecDeque};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message as Frame},
};

use super::{account::User, conformance, http::encode, message::Received};
use crate::wait::soon;

/// A notification as stored or as sent on a socket.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Notification {
    /// Its id, a time based UUID.
    pub id: String,
    /// Its events.
    pub payload: Vec<Value>,
    /// Sockets only: it is not stored.
    #[serde(default)]
    pub transient: bool,
}

/// One event, with what the notification around it says.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The id of its notification.
    pub id: String,
    /// Whether it is not stored.
    pub transient: bool,
    /// The event.
    pub value: Value,
}

impl Event {
    /// Its type.
    pub fn kind(&self) -> &str {
        self.value["type"].as_str().unwrap_or_default()
    }
}

impl Notification {
    /// Its events.
    pub fn into_events(self) -> impl Iterator<Item = Event> {
        let Self { id, payload, transient } = self;
        payload.into_iter().map(move |value| Event { id: id.clone(), transient, value })
    }
}

#[derive(Deserialize)]
struct Page {
    notifications: Vec<Notification>,
    has_more: bool,
}

/// Notifications that one request asks for.
const PAGE: u32 = 1000;

impl User {
    /// All events in this device's queue after `since`, oldest first.
    pub async fn queue(&self, since: Option<&str>) -> Result<Vec<Event>> {
        let client = self.client()?;
        let mut since = since.map(str::to_owned);
        let mut events = Vec::new();
        loop {
            let after = since.as_ref().map(|id| format!("&since={id}")).unwrap_or_default();
            let path = format!("/notifications?client={client}&size={PAGE}{after}");
            let page: Page = self.get(&path).await?.expect(200)?.json()?;
            ensure!(!page.has_more || !page.notifications.is_empty(), "an empty page says that there is more");
            since = page.notifications.last().map(|last| last.id.clone());
            events.extend(page.notifications.into_iter().flat_map(Notification::into_events));
            if !page.has_more {
                return Ok(events);
            }
        }
    }

    /// The id of the newest notification in this device's queue.
    pub async fn last_notification(&self) -> Result<String> {
        let path = format!("/notifications/last?client={}", self.client()?);
        let last: Notification = self.get(&path).await?.expect(200)?.json()?;
        Ok(last.id)
    }

    /// All messages in this device's queue after `since`, oldest first.
    pub async fn inbox(&self, since: Option<&str>) -> Result<Vec<Received>> {
        self.read_all(&self.queue(since).await?)
    }

    /// The address of this session's socket: with device and token.
    pub fn socket_url(&self) -> String {
        let client = self.client().map(|client| format!("&client={client}")).unwrap_or_default();
        self.api.socket_url(&format!("/await?access_token={}{client}", encode(&self.session().token)))
    }

    /// Opens this session's socket.
    pub async fn open_socket(&self) -> Result<Socket> {
        let (stream, _) = soon("the socket", connect_async(self.socket_url())).await?.context("opening the socket")?;
        conformance::opened("/await")?;
        Ok(Socket { stream, ahead: VecDeque::new(), seen: Vec::new(), ids: HashSet::new() })
    }

    /// The status with which the backend refuses to open a socket at this address.
    pub async fn refused_socket(url: &str) -> Result<u16> {
        match soon("the refusal of a socket", connect_async(url)).await? {
            Ok(_) => bail!("the socket was opened"),
            Err(tungstenite::Error::Http(response)) => Ok(response.status().as_u16()),
            Err(error) => Err(error).context("the socket was refused without an answer"),
        }
    }
}

/// An open `/await` socket. Frames are read only while something is waited for.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    ahead: VecDeque<Event>,
    seen: Vec<Event>,
    ids: HashSet<String>,
}

enum Heard {
    Events,
    Pong,
    Closed,
}

impl Socket {
    /// The next event, whatever it is.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.ahead.pop_front() {
                self.seen.push(event.clone());
                return Ok(event);
            }
            if let Heard::Closed = soon("an event on the socket", self.hear()).await?? {
                bail!("the backend closed the socket");
            }
        }
    }

    /// The next event of this type; those before it are passed over.
    pub async fn event(&mut self, kind: &str) -> Result<Value> {
        let found = async {
            loop {
                let event = self.next().await?;
                if event.kind() == kind {
                    return Ok(event.value);
                }
            }
        };
        soon(&format!("the event {kind}"), found).await?
    }

    /// The next message, read by its recipient.
    pub async fn message(&mut self, reader: &User) -> Result<Received> {
        let event = self.event(super::message::MESSAGE).await?;
        reader.read(&event)?.context("not a message")
    }

    /// Every event so far that [`Socket::next`] gave or passed over.
    pub fn seen(&self) -> &[Event] {
        &self.seen
    }

    /// Sends `ping` in a text frame and waits for the answer.
    pub async fn ping(&mut self) -> Result<()> {
        self.stream.send(Frame::text("ping")).await?;
        loop {
            match soon("pong", self.hear()).await?? {
                Heard::Pong => return Ok(()),
                Heard::Events => {}
                Heard::Closed => bail!("the backend closed the socket instead of answering a ping"),
            }
        }
    }

    /// Waits until the backend ends the socket.
    pub async fn closed(&mut self) -> Result<()> {
        let until = async { while !matches!(self.hear().await, Ok(Heard::Closed) | Err(_)) {} };
        soon("the end of the socket", until).await
    }

    /// Closes the socket.
    pub async fn close(mut self) -> Result<()> {
        self.stream.close(None).await.context("closing the socket")
    }

    async fn hear(&mut self) -> Result<Heard> {
        loop {
            let frame = match self.stream.next().await {
                None | Some(Err(tungstenite::Error::ConnectionClosed)) => return Ok(Heard::Closed),
                Some(frame) => frame.context("the socket broke")?,
            };
            match frame {
                Frame::Binary(bytes) if bytes.as_ref() == b"pong" => return Ok(Heard::Pong),
                Frame::Binary(bytes) => {
                    self.take(&bytes)?;
                    return Ok(Heard::Events);
                }
                Frame::Text(text) => bail!("a text frame, which browsers would drop: {text}"),
                Frame::Close(_) => return Ok(Heard::Closed),
                Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_) => {}
            }
        }
    }

    fn take(&mut self, bytes: &Bytes) -> Result<()> {
        let text = String::from_utf8_lossy(bytes);
        let notification: Notification =
            serde_json::from_slice(bytes).with_context(|| format!("frame on the socket: {text}"))?;
        ensure!(!notification.payload.is_empty(), "a notification without events: {text}");
        ensure!(self.ids.insert(notification.id.clone()), "notification {} came twice", notification.id);
        self.ahead.extend(notification.into_events());
        Ok(())
    }
}
