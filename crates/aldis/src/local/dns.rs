//! The DNS server of a local federation: real SRV and A records for every domain that has a folder, NXDOMAIN for the
//! rest.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use aldis_runtime::listen;
use aldis_types::Domain;
use anyhow::{Context as _, Result, bail, ensure};
use async_trait::async_trait;
use hickory_proto::{
    op::{Header, HeaderCounts, Message, Metadata, Query, ResponseCode},
    rr::{
        LowerName, Name, RData, Record, RecordType,
        rdata::{A, SOA, SRV},
    },
};
use hickory_server::{
    net::runtime::Time,
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo, Server},
    zone_handler::MessageResponseBuilder,
};
use tokio::net::UdpSocket;

use super::{certificates::federator_host, layout::Folder};

/// How long an answer may be kept, in seconds: short, so that what changes is seen.
const TTL: u32 = 10;
/// How long an idle TCP connection lives.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Answers per TCP connection that may wait.
const TCP_BUFFER: usize = 32;
const SERVICE: &str = "_wire-server-federator._tcp";

/// Serves until `stop` ends. Holds a lock in the folder meanwhile, which names the process.
pub(crate) async fn serve(folder: Folder, stop: impl Future<Output = ()>) -> Result<()> {
    let _lock = lock(&folder)?;
    let state = folder.state()?;
    let address = state.dns();
    ensure!(address.ip().is_loopback(), "DNS for trying out listens on loopback only, not on {address}");
    let udp = UdpSocket::bind(address).await.with_context(|| format!("DNS on UDP {address}"))?;
    let tcp = listen::bind("dns", address).await?;
    let mut server = Server::new(Answerer { folder: Arc::new(folder) });
    server.register_socket(udp);
    server.register_listener(tcp, TCP_IDLE, TCP_BUFFER);
    tracing::info!(%address, "answering DNS");
    tokio::select! {
        () = stop => {}
        ended = server.block_until_done() => ended.context("DNS server")?,
    }
    server.shutdown_token().cancel();
    Ok(())
}

/// Takes the lock of the DNS server; an error when one runs.
fn lock(folder: &Folder) -> Result<std::fs::File> {
    let path = folder.dns_lock();
    let mut file = std::fs::File::options().create(true).truncate(false).read(true).write(true).open(&path)?;
    if file.try_lock().is_err() {
        bail!("a DNS server runs from {} already", folder.path().display());
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

/// The process of the DNS server that runs from this folder, if one does.
pub(crate) fn running(folder: &Folder) -> Option<u32> {
    let path = folder.dns_lock();
    let file = std::fs::File::options().read(true).open(&path).ok()?;
    match file.try_lock() {
        Ok(()) => None,
        Err(_) => std::fs::read_to_string(&path).ok()?.trim().parse().ok(),
    }
}

/// Asks the server where a domain's federator is; an error until it answers.
pub(crate) async fn ask(server: SocketAddr, domain: &Domain) -> Result<()> {
    let mut question = Message::query();
    question.add_query(Query::query(fqdn(&format!("{SERVICE}.{domain}"))?, RecordType::SRV));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect(server).await?;
    socket.send(&question.to_vec()?).await?;
    let mut buffer = [0; 1024];
    let length = tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut buffer)).await??;
    let answer = Message::from_vec(&buffer[..length])?;
    ensure!(answer.metadata.id == question.metadata.id && !answer.answers.is_empty(), "no record for {domain}");
    Ok(())
}

fn fqdn(text: &str) -> Result<Name> {
    let mut name = Name::from_ascii(text).with_context(|| format!("DNS name {text}"))?;
    name.set_fqdn(true);
    Ok(name)
}

struct Answerer {
    folder: Arc<Folder>,
}

/// What there is to say about a name.
enum Found {
    Nothing,
    /// The name exists; these are its records of the kind asked for.
    Records(Vec<Record>),
}

impl Answerer {
    /// Reads the folder anew each time: a domain may be added while we run.
    fn look_up(&self, asked: &LowerName, kind: RecordType) -> Result<Found> {
        let state = self.folder.state()?;
        let present = |path: &Path| path.is_dir();
        for backend in state.backends.iter().filter(|it| present(self.folder.of(&it.domain).path())) {
            let host = fqdn(&federator_host(&backend.domain))?;
            let service = fqdn(&format!("{SERVICE}.{}", backend.domain))?;
            let record = |data| Record::from_rdata(asked.clone().into(), TTL, data);
            if *asked == LowerName::from(&service) {
                let found =
                    (kind == RecordType::SRV).then(|| record(RData::SRV(SRV::new(0, 10, backend.federation, host))));
                return Ok(Found::Records(found.into_iter().collect()));
            }
            if *asked == LowerName::from(&host) {
                let found = (kind == RecordType::A).then(|| record(RData::A(A(Ipv4Addr::LOCALHOST))));
                return Ok(Found::Records(found.into_iter().collect()));
            }
            // The domain itself, and the name between it and its service record, exist and have no records.
            let domain = fqdn(backend.domain.as_str())?;
            let between = fqdn(&format!("_tcp.{}", backend.domain))?;
            if *asked == LowerName::from(&domain) || *asked == LowerName::from(&between) {
                return Ok(Found::Records(Vec::new()));
            }
        }
        Ok(Found::Nothing)
    }
}

/// Says for how long a negative answer holds.
fn authority(asked: &LowerName) -> Option<Record> {
    let zone = Name::from(asked.clone()).base_name();
    let server = fqdn("dns.invalid").ok()?;
    let soa = SOA::new(server.clone(), server, 1, 3600, 600, 86_400, TTL);
    Some(Record::from_rdata(zone, TTL, RData::SOA(soa)))
}

#[async_trait]
impl RequestHandler for Answerer {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut response: R) -> ResponseInfo {
        let builder = MessageResponseBuilder::from_message_request(request);
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = true;
        let failed = ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() });
        let Ok(info) = request.request_info() else {
            let answer = builder.error_msg(&request.metadata, ResponseCode::FormErr);
            return response.send_response(answer).await.unwrap_or(failed);
        };
        let (asked, kind) = (info.query.name(), info.query.query_type());
        let sent = match self.look_up(asked, kind) {
            Ok(Found::Records(records)) => {
                let soa = if records.is_empty() { authority(asked) } else { None };
                response.send_response(builder.build(metadata, records.iter(), [], soa.iter(), [])).await
            }
            Ok(Found::Nothing) => {
                metadata.response_code = ResponseCode::NXDomain;
                let soa = authority(asked);
                response.send_response(builder.build(metadata, [], [], soa.iter(), [])).await
            }
            Err(error) => {
                tracing::error!(%error, "the folder cannot be read");
                response.send_response(builder.error_msg(&request.metadata, ResponseCode::ServFail)).await
            }
        };
        sent.unwrap_or(failed)
    }
}
