//! The acknowledged socket: `/events`.

use anyhow::{Context as _, Result, bail};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message as Frame};

use super::{
    account::User,
    conformance,
    http::{VERSION, encode},
};
use crate::wait::soon;

const MARKER: &str = "up-to-here";

/// An open acknowledged socket.
#[derive(Debug)]
pub struct Consumer {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// An event on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Consumed {
    /// What an acknowledgement names.
    pub tag: u64,
    /// The id of its notification: the same when it is delivered again.
    pub id: String,
    /// The event.
    pub event: Value,
}

/// What comes on it.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// An event.
    Event(Consumed),
    /// Everything that waited when the socket was opened has come.
    CaughtUp,
    /// Events were missed.
    Missed,
}

impl Consumed {
    fn read(frame: &Value) -> Result<Self> {
        let data = &frame["data"];
        let tag = data["delivery_tag"].as_u64().with_context(|| format!("no tag: {frame}"))?;
        let id = data["event"]["id"].as_str().with_context(|| format!("no id: {frame}"))?.to_owned();
        Ok(Self { tag, id, event: data["event"]["payload"][0].clone() })
    }
}

impl User {
    /// Has this device acknowledge its events from now on.
    pub async fn become_consumer(&self) -> Result<()> {
        let capabilities = json!({ "capabilities": ["consumable-notifications", "legalhold-implicit-consent"] });
        self.put(&format!("/clients/{}", self.client()?), &capabilities).await?.expect(200).map(drop)
    }

    /// Opens this device's acknowledged socket.
    pub async fn consume(&self) -> Result<Consumer> {
        let (token, client) = (encode(&self.session().token), self.client()?);
        let path = format!("/v{VERSION}/events?access_token={token}&client={client}&sync_marker={MARKER}");
        let opened = soon("the socket", connect_async(self.api.socket_url(&path))).await?;
        conformance::opened(&path)?;
        Ok(Consumer { stream: opened.context("opening the acknowledged socket")?.0 })
    }
}

impl Consumer {
    /// The next frame.
    async fn next(&mut self) -> Result<Value> {
        let read = async {
            loop {
                match self.stream.next().await.context("the backend closed the socket")?? {
                    Frame::Binary(bytes) => return Ok(serde_json::from_slice(&bytes)?),
                    Frame::Ping(_) | Frame::Pong(_) => {}
                    other => bail!("an unexpected frame: {other:?}"),
                }
            }
        };
        soon("a frame on the acknowledged socket", read).await?
    }

    /// What comes next, whatever it is.
    pub async fn step(&mut self) -> Result<Step> {
        let frame = self.next().await?;
        match frame["type"].as_str() {
            Some("event") => Ok(Step::Event(Consumed::read(&frame)?)),
            Some("synchronization") if frame["data"]["marker_id"] == MARKER => Ok(Step::CaughtUp),
            Some("notifications_missed") => Ok(Step::Missed),
            _ => bail!("an unexpected frame: {frame}"),
        }
    }

    /// The next event.
    pub async fn event(&mut self) -> Result<Consumed> {
        match self.step().await? {
            Step::Event(event) => Ok(event),
            other => bail!("no event: {other:?}"),
        }
    }

    /// Everything that waited when the socket was opened.
    pub async fn catch_up(&mut self) -> Result<Vec<Consumed>> {
        let mut waited = Vec::new();
        loop {
            match self.step().await? {
                Step::Event(event) => waited.push(event),
                Step::CaughtUp => return Ok(waited),
                Step::Missed => bail!("events were missed"),
            }
        }
    }

    /// Says that this event, and all before it, are taken care of. There is no answer.
    pub async fn acknowledge(&mut self, tag: u64) -> Result<()> {
        let said = json!({ "type": "ack", "data": { "delivery_tag": tag, "multiple": true } });
        self.stream.send(Frame::binary(said.to_string())).await.context("acknowledging")
    }
}
