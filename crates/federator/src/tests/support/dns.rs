//! A DNS server on loopback whose answers a test decides.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use anyhow::Result;
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
use tokio::net::UdpSocket;

#[derive(Clone)]
pub(in crate::tests) struct Target {
    pub(in crate::tests) priority: u16,
    pub(in crate::tests) weight: u16,
    pub(in crate::tests) host: String,
    pub(in crate::tests) port: u16,
}

impl Target {
    pub(in crate::tests) fn new(host: &str, port: u16) -> Self {
        Self { priority: 0, weight: 10, host: host.to_owned(), port }
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(in crate::tests) enum Mood {
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
    ttl: u32,
    mood: Mood,
}

pub(in crate::tests) struct Dns {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    _server: Server<Answerer>,
}

impl Dns {
    pub(in crate::tests) async fn start() -> Result<Self> {
        let zone = Arc::new(Mutex::new(Zone { ttl: 60, ..Zone::default() }));
        let mut server = Server::new(Answerer { zone: zone.clone() });
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = socket.local_addr()?;
        server.register_socket(socket);
        Ok(Self { address, zone, _server: server })
    }

    pub(in crate::tests) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets where the federator of `domain` is. No targets: the domain has no record.
    pub(in crate::tests) fn set_federator(&self, domain: &str, targets: &[Target]) -> Result<()> {
        let record = name(&format!("_wire-server-federator._tcp.{domain}"))?;
        let mut zone = self.zone.lock().unwrap();
        if targets.is_empty() {
            zone.targets.remove(&record);
        } else {
            zone.targets.insert(record, targets.to_vec());
        }
        Ok(())
    }

    pub(in crate::tests) fn set_ttl(&self, seconds: u32) {
        self.zone.lock().unwrap().ttl = seconds;
    }

    pub(in crate::tests) fn set_mood(&self, mood: Mood) {
        self.zone.lock().unwrap().mood = mood;
    }
}

fn name(text: &str) -> Result<LowerName> {
    let mut name = Name::from_ascii(text)?;
    name.set_fqdn(true);
    Ok(LowerName::from(name))
}

struct Answerer {
    zone: Arc<Mutex<Zone>>,
}

impl Answerer {
    /// The records that answer the question; `None` when the name does not exist. Every host that is the target of a
    /// record is at 127.0.0.1.
    fn look_up(&self, question: &LowerName, kind: RecordType) -> Option<Vec<Record>> {
        let zone = self.zone.lock().unwrap();
        let record = |data| Record::from_rdata(question.clone().into(), zone.ttl, data);
        if let Some(targets) = zone.targets.get(question) {
            let targets = targets.iter().filter(|_| kind == RecordType::SRV);
            let data = targets.map(|target| {
                SRV::new(target.priority, target.weight, target.port, Name::from(name(&target.host).unwrap()))
            });
            return Some(data.map(RData::SRV).map(record).collect());
        }
        let mut hosts = zone.targets.values().flatten().map(|target| name(&target.host).unwrap());
        let address = (kind == RecordType::A).then(|| record(RData::A(A(Ipv4Addr::LOCALHOST))));
        hosts.any(|host| host == *question).then(|| address.into_iter().collect())
    }
}

#[async_trait]
impl RequestHandler for Answerer {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut response: R) -> ResponseInfo {
        let mood = self.zone.lock().unwrap().mood;
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
