//! Our own process, store and listeners.

use std::{net::SocketAddr, time::Duration};

use aldis_federator::probe::{Check, Side};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::report::Report;
use crate::{
    backend,
    config::{Config, ServiceName},
};

const STORE: &str = "store";
const PROCESS: &str = "process";
const HEALTH: &str = "health";
const LISTENERS: &str = "listeners";
const CALLS: &str = "calls";
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) async fn examine(config: &Config, status: Option<&Vec<Value>>, report: &mut Report) {
    let running = backend::answers(&config.store.socket()) || status.is_some();
    report.ours([store(config, running).await]);
    report.ours([if running {
        Check::passed(PROCESS, "the backend runs")
    } else {
        let found = format!("nobody answers on {}", config.store.socket().display());
        Check::warning(PROCESS, Side::Ours, found, "start `aldis all` (or the services) with this configuration")
    }]);
    if let Some(status) = status {
        report.ours([health(status)]);
    }
    for (name, address) in listeners(config).await {
        report.ours([listener(address, running).await.about(format!("{name} {address}"))]);
    }
    report.ours([calls(config)]);
}

/// What can be told of processes that run elsewhere: nothing of the store, and of listeners only those for operations.
pub(super) fn examine_elsewhere(config: &Config, status: Option<&Vec<Value>>, silent: &[String], report: &mut Report) {
    report.ours([if silent.is_empty() {
        let count = status.map_or(0, Vec::len);
        Check::passed(PROCESS, format!("{count} answered"))
    } else {
        let found = format!("no process of {} answers at {}", config.domain, silent.join(", "));
        Check::failed(PROCESS, Side::Ours, found, "look whether it runs, and whether its port can be reached from here")
    }]);
    if let Some(status) = status {
        report.ours([health(status)]);
    }
    report.ours([calls(config)]);
}

fn calls(config: &Config) -> Check {
    let configured = &config.users.calls;
    if configured.turn_uris.is_empty() {
        let advice = "set `users.calls` (TURN servers and their secret), or calls find no way through firewalls";
        return Check::warning(CALLS, Side::Ours, "no TURN servers are configured", advice);
    }
    Check::passed(CALLS, format!("{} TURN addresses", configured.turn_uris.len()))
}

async fn store(config: &Config, running: bool) -> Check {
    let path = config.store.path.display();
    if running {
        return Check::passed(STORE, format!("{path} is in use by the running backend"));
    }
    if !config.store.path.exists() {
        return Check::skipped(STORE, format!("{path} is made by the first start"));
    }
    match backend::store_opens(config).await {
        Ok(()) => Check::passed(STORE, format!("{path} opens and belongs to {}", config.domain)),
        Err(error) => {
            let advice =
                "see who owns the file and whether another process uses it; a store of another domain is not ours";
            Check::failed(STORE, Side::Ours, format!("{error:#}"), advice)
        }
    }
}

/// What the running processes find wrong with themselves.
fn health(status: &[Value]) -> Check {
    let texts = |key: &'static str| {
        let lists = status.iter().filter_map(move |body| body["health"][key].as_array());
        lists.flatten().filter_map(Value::as_str).map(str::to_owned)
    };
    let unready: Vec<String> = status
        .iter()
        .filter_map(|body| body["health"]["checks"].as_object())
        .flatten()
        .filter_map(|(name, text)| text.as_str().filter(|text| *text != "ok").map(|text| format!("{name}: {text}")))
        .collect();
    if !unready.is_empty() {
        return Check::failed(HEALTH, Side::Ours, unready.join("; "), "look at the log of the process");
    }
    let degraded: Vec<String> = texts("degraded").collect();
    if degraded.is_empty() {
        Check::passed(HEALTH, "ready")
    } else {
        let advice = "`aldis doctor DOMAIN` tells more of a partner; the log of the rest";
        Check::warning(HEALTH, Side::Between, degraded.join("; "), advice)
    }
}

/// The listeners of `aldis all`, or of the services where any of those is reached.
async fn listeners(config: &Config) -> Vec<(String, SocketAddr)> {
    let mut apart = Vec::new();
    let mut any = false;
    for name in ServiceName::ALL {
        let service = config.services.of(name);
        let all = [("client", service.client), ("internal", service.internal), ("operations", service.operations)];
        for (kind, address) in all.into_iter().filter_map(|(kind, address)| Some((kind, address?))) {
            any = any || (kind == "operations" && reached(address).await.is_ok());
            apart.push((format!("{} {kind}", name.as_str()), address));
        }
    }
    if any {
        return apart;
    }
    let whole = [("client", Some(config.client.listen)), ("operations", Some(config.operations.listen))];
    let federation = [("federation", config.federation.as_ref().map(|federation| federation.listen))];
    let whole = whole.into_iter().chain(federation);
    whole.filter_map(|(name, address)| Some((name.to_owned(), address?))).collect()
}

/// A wildcard address is reached by loopback.
fn near(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(it) if it.ip().is_unspecified() => ([127, 0, 0, 1], it.port()).into(),
        SocketAddr::V6(it) if it.ip().is_unspecified() => ([0, 0, 0, 0, 0, 0, 0, 1], it.port()).into(),
        other => other,
    }
}

async fn reached(address: SocketAddr) -> std::io::Result<()> {
    let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
    timeout(PATIENCE, TcpStream::connect(near(address))).await.map_err(late)?.map(drop)
}

async fn listener(address: SocketAddr, running: bool) -> Check {
    if running {
        return match reached(address).await {
            Ok(()) => Check::passed(LISTENERS, "answers"),
            Err(error) => {
                let advice = "look at the log of the process; a changed setting needs a restart";
                Check::failed(LISTENERS, Side::Ours, format!("does not answer: {error}"), advice)
            }
        };
    }
    match TcpListener::bind(address).await {
        Ok(_) => Check::passed(LISTENERS, "free, and can be listened on"),
        Err(error) => {
            let advice = "another program uses the port, the address is not of this machine, or ports below 1024 are not \
                          allowed to this user";
            Check::failed(LISTENERS, Side::Ours, format!("cannot be listened on: {error}"), advice)
        }
    }
}
