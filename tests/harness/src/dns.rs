//! A DNS server on loopback whose answers a test decides.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use hickory_proto::{
    op::{Header, HeaderCounts, Metadata, ResponseCode},
    rr::{
        LowerName, Name, RData, Record, RecordType,
        rdata::{A, SRV},
    },
};
use hickory_server::{
    net::runtime::Time,
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo, Server},
    zone_handler::MessageResponseBuilder,
};
use tokio::net::{TcpListener, UdpSocket};

/// One target of a domain's federation record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Lower is tried first.
    pub priority: u16,
    /// Share among targets of the same priority.
    pub weight: u16,
    /// Host name, which is also what the certificate must bear.
    pub host: String,
    /// Port of the federator.
    pub port: u16,
}

impl Target {
    /// The only target of a domain.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { priority: 0, weight: 10, host: host.into(), port }
    }
}

/// How the server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    /// Answers what it knows, NXDOMAIN for the rest.
    #[default]
    Willing,
    /// SERVFAIL for everything.
    Failing,
    /// Nothing at all.
    Silent,
}

#[derive(Default)]
struct Zone {
    targets: HashMap<LowerName, Vec<Target>>,
    hosts: HashMap<LowerName, Ipv4Addr>,
    ttl: u32,
    mood: Mood,
}

/// The server; stops when it is dropped.
pub struct Dns {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    server: Server<Answerer>,
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.server.shutdown_token().cancel();
    }
}

/// How long an idle TCP connection to the server lives.
const TCP_IDLE: Duration = Duration::from_secs(10);

impl Dns {
    /// Starts on a free port of 127.0.0.1, UDP and TCP.
    pub async fn start() -> Result<Self> {
        let zone = Arc::new(Mutex::new(Zone { ttl: 60, ..Zone::default() }));
        let mut server = Server::new(Answerer { zone: zone.clone() });
        let (udp, tcp) = sockets().await?;
        let address = udp.local_addr()?;
        server.register_socket(udp);
        server.register_listener(tcp, TCP_IDLE, 16);
        Ok(Self { address, zone, server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets where the federator of `domain` is. No targets: the domain has no record.
    pub fn set_federator(&self, domain: &str, targets: &[Target]) -> Result<()> {
        let record = name(&format!("_wire-server-federator._tcp.{domain}"))?;
        let mut zone = self.zone.lock().unwrap_or_else(PoisonError::into_inner);
        for target in targets.iter().filter(|target| target.host != ".") {
            zone.hosts.entry(name(&target.host)?).or_insert(Ipv4Addr::LOCALHOST);
        }
        if targets.is_empty() {
            zone.targets.remove(&record);
        } else {
            zone.targets.insert(record, targets.to_vec());
        }
        Ok(())
    }

    /// Sets the address of a host; hosts of federators are on 127.0.0.1 unless this says otherwise.
    pub fn set_host(&self, host: &str, address: Ipv4Addr) -> Result<()> {
        let host = name(host)?;
        self.zone.lock().unwrap_or_else(PoisonError::into_inner).hosts.insert(host, address);
        Ok(())
    }

    /// Sets the TTL of all answers from now on.
    pub fn set_ttl(&self, seconds: u32) {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner).ttl = seconds;
    }

    /// Changes how the server behaves.
    pub fn set_mood(&self, mood: Mood) {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner).mood = mood;
    }
}

/// UDP and TCP on the same port: a port that is free for one may be taken for the other.
async fn sockets() -> Result<(UdpSocket, TcpListener)> {
    let mut last = None;
    for _ in 0..32 {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| anyhow::anyhow!("no free port"), Into::into))
}

fn name(text: &str) -> Result<LowerName> {
    let mut name = Name::from_ascii(text).with_context(|| format!("DNS name {text}"))?;
    name.set_fqdn(true);
    Ok(LowerName::from(name))
}

struct Answerer {
    zone: Arc<Mutex<Zone>>,
}

impl Answerer {
    /// The records that answer the question; `None` when the name does not exist.
    fn look_up(&self, question: &LowerName, kind: RecordType) -> Option<Vec<Record>> {
        let zone = self.zone.lock().unwrap_or_else(PoisonError::into_inner);
        let record = |data| Record::from_rdata(question.clone().into(), zone.ttl, data);
        if let Some(targets) = zone.targets.get(question) {
            let targets = targets.iter().filter(|_| kind == RecordType::SRV);
            return Some(
                targets
                    .filter_map(|target| Some((target, Name::from(name(&target.host).ok()?))))
                    .map(|(target, host)| {
                        record(RData::SRV(SRV::new(target.priority, target.weight, target.port, host)))
                    })
                    .collect(),
            );
        }
        let address = zone.hosts.get(question)?;
        let wanted = kind == RecordType::A;
        Some(wanted.then(|| record(RData::A(A(*address)))).into_iter().collect())
    }
}

#[async_trait]
impl RequestHandler for Answerer {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut response: R) -> ResponseInfo {
        let mood = self.zone.lock().unwrap_or_else(PoisonError::into_inner).mood;
        let builder = MessageResponseBuilder::from_message_request(request);
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = true;
        let failed = ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() });
        let sent = match (mood, request.request_info()) {
            (Mood::Silent, _) => return failed,
            (Mood::Failing, _) | (_, Err(_)) => {
                response.send_response(builder.error_msg(&request.metadata, ResponseCode::ServFail)).await
            }
            (Mood::Willing, Ok(info)) => match self.look_up(info.query.name(), info.query.query_type()) {
                Some(records) => response.send_response(builder.build(metadata, records.iter(), [], [], [])).await,
                None => response.send_response(builder.error_msg(&request.metadata, ResponseCode::NXDomain)).await,
            },
        };
        sent.unwrap_or(failed)
    }
}
