//! What the running backend says about itself, on its listener for operations.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

use crate::config::{Config, ServiceName};

const PATIENCE: Duration = Duration::from_secs(5);
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The bodies of `/status.json` of the processes that run; `None` when none answers.
pub(super) async fn ask(config: &Config) -> Option<Vec<Value>> {
    let services = ServiceName::ALL.iter().filter_map(|name| config.services.of(*name).operations);
    let asked = [config.operations.listen].into_iter().chain(services);
    let answers = futures::future::join_all(asked.map(|address| get(address, "/status.json"))).await;
    let answers: Vec<Value> = answers.into_iter().flatten().collect();
    let ours = |body: &Value| body["domain"] == config.domain.as_str();
    let answers: Vec<Value> = answers.into_iter().filter(ours).collect();
    (!answers.is_empty()).then_some(answers)
}

async fn get(address: SocketAddr, path: &str) -> Option<Value> {
    timeout(PATIENCE, fetch(address, path)).await.ok()?.ok()
}

async fn fetch(address: SocketAddr, path: &str) -> anyhow::Result<Value> {
    let stream = TcpStream::connect(address).await?;
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = http::Request::get(path).header("host", address.to_string()).body(Empty::<Bytes>::new())?;
    let answer = send.send_request(request).await?;
    let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await.map_err(anyhow::Error::from_boxed)?;
    driver.abort();
    Ok(serde_json::from_slice(&body.to_bytes())?)
}
