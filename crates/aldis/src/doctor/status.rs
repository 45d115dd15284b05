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
/// Most processes behind one name.
const MAX_ADDRESSES: usize = 64;

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

/// The bodies of those at the given addresses, and which of these nobody of this backend answers at. Every address behind a
/// name is asked, up to [`MAX_ADDRESSES`].
pub(super) async fn ask_elsewhere(config: &Config, places: &[String]) -> (Option<Vec<Value>>, Vec<String>) {
    let mut answers = Vec::new();
    let mut silent = Vec::new();
    for place in places {
        let found = timeout(PATIENCE, tokio::net::lookup_host(place.as_str())).await;
        let addresses: Vec<SocketAddr> =
            found.ok().and_then(Result::ok).into_iter().flatten().take(MAX_ADDRESSES).collect();
        if addresses.is_empty() {
            silent.push(format!("{place} (no address)"));
        }
        let bodies = futures::future::join_all(addresses.iter().map(|address| get(*address, "/status.json"))).await;
        for (address, body) in addresses.iter().zip(bodies) {
            match body.filter(|body| body["domain"] == config.domain.as_str()) {
                Some(body) => answers.push(body),
                None => silent.push(format!("{place} ({address})")),
            }
        }
    }
    ((!answers.is_empty()).then_some(answers), silent)
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
