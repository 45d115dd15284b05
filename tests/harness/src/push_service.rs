//! A service that wakes apps, of which a backend believes that it passes on what it is told.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Collected, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

/// The service; stops when it is dropped.
pub struct PushService {
    address: SocketAddr,
    told: Arc<Mutex<Vec<Value>>>,
    serving: JoinHandle<()>,
}

impl PushService {
    /// Starts on a free port of 127.0.0.1.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let told = Arc::new(Mutex::new(Vec::new()));
        let keeper = told.clone();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let keeper = keeper.clone();
                let service = service_fn(move |request| take(keeper.clone(), request));
                // A backend may close its connections whenever it wants.
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Self { address, told, serving })
    }

    /// The address for `notifications.push.webhook_url`.
    pub fn url(&self) -> String {
        format!("http://{}/wake", self.address)
    }

    /// What it was told so far.
    pub fn told(&self) -> Vec<Value> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for PushService {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take(told: Arc<Mutex<Vec<Value>>>, request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(Collected::to_bytes).unwrap_or_default();
    told.lock().unwrap_or_else(PoisonError::into_inner).push(serde_json::from_slice(&body).unwrap_or_default());
    Ok(Response::new(Empty::new()))
}
