//! The acknowledged socket: `/events`.

use anyhow::{Context as _, Result, bail, ensure};
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
    /// The event.
    pub event: Value,
}

impl Consumed {
    fn read(frame: &Value) -> Result<Self> {
        let data = &frame["data"];
        let tag = data["delivery_tag"].as_u64().with_context(|| format!("no tag: {frame}"))?;
        Ok(Self { tag, event: data["event"]["payload"][0].clone() })
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

    /// The next event.
    pub async fn event(&mut self) -> Result<Consumed> {
        let frame = self.next().await?;
        ensure!(frame["type"] == "event", "no event: {frame}");
        Consumed::read(&frame)
    }

    /// Everything that waited when the socket was opened.
    pub async fn catch_up(&mut self) -> Result<Vec<Consumed>> {
        let mut waited = Vec::new();
        loop {
            let frame = self.next().await?;
            match frame["type"].as_str() {
                Some("event") => waited.push(Consumed::read(&frame)?),
                Some("synchronization") if frame["data"]["marker_id"] == MARKER => return Ok(waited),
                _ => bail!("an unexpected frame: {frame}"),
            }
        }
    }

    /// Says that this event, and all before it, are taken care of. There is no answer.
    pub async fn acknowledge(&mut self, tag: u64) -> Result<()> {
        let said = json!({ "type": "ack", "data": { "delivery_tag": tag, "multiple": true } });
        self.stream.send(Frame::binary(said.to_string())).await.context("acknowledging")
    }
}
