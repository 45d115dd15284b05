//! Connections between backends: bytes that are late, held up or lost with their connection, and names that are not found.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use aldis_federator::network::{Accept, Connector, Io, LookupError, Resolve, SrvRecord};
use aldis_types::Domain;
use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
    time::{Instant, Sleep},
};

use crate::{
    chance::Chance,
    trace::{Life, Trace},
};

/// Bytes that a connection takes before its writer has to wait.
const MOST_ON_THE_WAY: usize = 256 * 1024;
const PORT: u16 = 8443;
const TTL: Duration = Duration::from_secs(5);

/// The network between backends. Clones share it.
#[derive(Clone)]
pub(crate) struct Network {
    state: Arc<Mutex<State>>,
    chance: Chance,
    trace: Trace,
    names: Arc<Vec<Domain>>,
}

/// A connection and who opened it.
type Arrival = (Box<dyn Io>, SocketAddr);

#[derive(Default)]
struct State {
    listeners: BTreeMap<usize, (mpsc::UnboundedSender<Arrival>, Life)>,
    links: BTreeMap<(usize, usize), Link>,
    /// Two per connection, one for each direction.
    pipes: Vec<Pipe>,
    dns: Dns,
}

/// How it is from one backend to another at the moment.
#[derive(Clone, Copy)]
struct Link {
    least: u64,
    most: u64,
    is_severed: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self { least: 1, most: 8, is_severed: false }
    }
}

/// What becomes of questions for names.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) enum Dns {
    #[default]
    Works,
    Fails,
    Silent,
}

/// What becomes of the connections of a process that ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leaving {
    /// Its system closes them; what was sent still arrives.
    Closed,
    /// The same, but what was sent is long on its way.
    Late,
    /// The machine is gone: nobody says so.
    Silent,
}

struct Pipe {
    from: usize,
    to: usize,
    chunks: VecDeque<(Instant, Bytes)>,
    queued: usize,
    latest: Instant,
    end: Option<(Instant, End)>,
    /// Nothing arrives any more, and nobody says so.
    is_frozen: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

impl Pipe {
    fn new(from: usize, to: usize) -> Self {
        Self {
            from,
            to,
            chunks: VecDeque::new(),
            queued: 0,
            latest: Instant::now(),
            end: None,
            is_frozen: false,
            reader: None,
            writer: None,
        }
    }

    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn finish(&mut self, at: Instant, end: End) {
        if self.end.is_none() {
            self.latest = self.latest.max(at);
            self.end = Some((self.latest, end));
        }
        self.wake();
    }
}

impl Network {
    pub(crate) fn new(names: Arc<Vec<Domain>>, chance: Chance, trace: Trace) -> Self {
        Self { state: Arc::default(), chance, trace, names }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn latency(&self, state: &State, from: usize, to: usize) -> Duration {
        let link = state.links.get(&(from, to)).copied().unwrap_or_default();
        self.chance.millis(link.least, link.most)
    }

    /// What a process of a backend opens connections and asks for names with.
    pub(crate) fn end_of(&self, backend: usize, life: &Life) -> aldis_federator::network::Network {
        let place = Arc::new(Place { network: self.clone(), backend, life: life.clone() });
        aldis_federator::network::Network { connector: place.clone(), resolver: place }
    }

    /// Where a process of a backend is reached from now on.
    pub(crate) fn listen(&self, backend: usize, life: &Life) -> Listener {
        let (sender, arrivals) = mpsc::unbounded_channel();
        self.state().listeners.insert(backend, (sender, life.clone()));
        Listener { arrivals, life: life.clone() }
    }

    /// The process of a backend has ended.
    pub(crate) fn left(&self, backend: usize, leaving: Leaving) {
        let now = Instant::now();
        let mut state = self.state();
        state.listeners.remove(&backend);
        for pipe in &mut state.pipes {
            match leaving {
                Leaving::Silent if pipe.from == backend || pipe.to == backend => pipe.is_frozen = true,
                Leaving::Closed if pipe.from == backend => pipe.finish(now, End::Closed),
                Leaving::Late if pipe.from == backend && pipe.end.is_none() => {
                    let late = self.chance.millis(500, 20_000);
                    for (at, _) in &mut pipe.chunks {
                        *at += late;
                    }
                    pipe.finish(pipe.latest.max(now) + late, End::Closed);
                }
                Leaving::Closed | Leaving::Late if pipe.to == backend => pipe.finish(now, End::Reset),
                _ => {}
            }
        }
    }

    /// Makes a link bad, or good again when nothing is said.
    pub(crate) fn set_link(&self, from: usize, to: usize, least: u64, most: u64) {
        let mut state = self.state();
        let link = state.links.entry((from, to)).or_default();
        (link.least, link.most) = (least, most);
    }

    pub(crate) fn sever(&self, from: usize, to: usize, is_severed: bool) {
        let mut state = self.state();
        state.links.entry((from, to)).or_default().is_severed = is_severed;
        for pipe in state.pipes.iter_mut().filter(|pipe| (pipe.from, pipe.to) == (from, to)) {
            pipe.wake();
        }
    }

    pub(crate) fn set_dns(&self, dns: Dns) {
        self.state().dns = dns;
    }

    /// Breaks a connection, or lets it fall silent; says whether there was one.
    pub(crate) fn cut(&self, silently: bool) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let open: Vec<usize> = (0..state.pipes.len() / 2)
            .filter(|pair| state.pipes[2 * pair].end.is_none() && !state.pipes[2 * pair].is_frozen)
            .collect();
        let Some(pair) = open.get(self.chance.index(open.len())) else { return false };
        // Seldom both directions alike.
        let directions = self.chance.number(3);
        for direction in 0..2 {
            let pipe = &mut state.pipes[2 * pair + direction];
            if silently {
                pipe.is_frozen |= directions == 2 || directions == direction as u64;
                continue;
            }
            let kept = self.chance.index(pipe.chunks.len() + 1);
            pipe.chunks.truncate(kept);
            if let Some((_, last)) = pipe.chunks.back_mut() {
                let length = 1 + self.chance.index(last.len());
                *last = last.slice(..length);
            }
            pipe.queued = pipe.chunks.iter().map(|(_, chunk)| chunk.len()).sum();
            pipe.latest = pipe.chunks.back().map_or(now, |(at, _)| *at);
            pipe.finish(now, End::Reset);
        }
        true
    }

    /// Everything works from now on, but for connections that fell silent.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.links.clear();
        state.dns = Dns::Works;
        for pipe in &mut state.pipes {
            pipe.wake();
        }
    }
}

/// A backend's place in the network, for one process.
struct Place {
    network: Network,
    backend: usize,
    life: Life,
}

fn address(backend: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, u8::try_from(backend + 1).unwrap_or(255)))
}

#[async_trait]
impl Connector for Place {
    async fn connect(&self, address: SocketAddr) -> io::Result<Box<dyn Io>> {
        let IpAddr::V4(ip) = address.ip() else { return Err(io::ErrorKind::AddrNotAvailable.into()) };
        let (from, to) = (self.backend, usize::from(ip.octets()[3]) - 1);
        self.life.go_on().await;
        self.network.trace.attempt("connect");
        let pause = {
            let state = self.network.state();
            self.network.latency(&state, from, to) + self.network.latency(&state, to, from)
        };
        tokio::time::sleep(pause).await;
        self.life.go_on().await;
        match self.open(from, to) {
            Some(opened) => opened,
            None => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Resolve for Place {
    async fn srv(&self, domain: &Domain) -> Result<(Vec<SrvRecord>, Duration), LookupError> {
        self.ask().await?;
        let known = self.network.names.iter().any(|name| name == domain);
        if !known {
            return Err(LookupError::NotFound { ttl: TTL });
        }
        Ok((vec![SrvRecord { priority: 0, weight: 1, port: PORT, host: format!("federator.{domain}") }], TTL))
    }

    async fn addresses(&self, host: &str) -> Result<(Vec<IpAddr>, Duration), LookupError> {
        self.ask().await?;
        let place = self.network.names.iter().position(|name| host == format!("federator.{name}"));
        place.map(|place| (vec![address(place)], TTL)).ok_or(LookupError::NotFound { ttl: TTL })
    }
}

impl Place {
    /// A connection; `None` when nobody says anything.
    fn open(&self, from: usize, to: usize) -> Option<io::Result<Box<dyn Io>>> {
        let mut state = self.network.state();
        if [(from, to), (to, from)].iter().any(|link| state.links.get(link).is_some_and(|link| link.is_severed)) {
            return None;
        }
        let Some((listener, other)) = state.listeners.get(&to).cloned() else {
            return Some(Err(io::ErrorKind::ConnectionRefused.into()));
        };
        let first = state.pipes.len();
        state.pipes.extend([(from, to), (to, from)].map(|(from, to)| Pipe::new(from, to)));
        drop(state);
        let ours = Stream::new(&self.network, first, first + 1, self.life.clone());
        let theirs = Stream::new(&self.network, first + 1, first, other);
        let caller = SocketAddr::from((address(from), 40_000));
        if listener.send((Box::new(theirs), caller)).is_err() {
            return Some(Err(io::ErrorKind::ConnectionRefused.into()));
        }
        Some(Ok(Box::new(ours)))
    }

    async fn ask(&self) -> Result<(), LookupError> {
        self.life.go_on().await;
        tokio::time::sleep(self.network.chance.millis(1, 4)).await;
        let dns = self.network.state().dns;
        match dns {
            Dns::Works => Ok(()),
            Dns::Fails => Err(LookupError::Failed("SERVFAIL".to_owned())),
            Dns::Silent => {
                tokio::time::sleep(Duration::from_secs(5)).await;
                Err(LookupError::Failed("no answer".to_owned()))
            }
        }
    }
}

/// Accepts connections for one process.
pub(crate) struct Listener {
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    life: Life,
}

#[async_trait]
impl Accept for Listener {
    async fn accept(&mut self) -> io::Result<(Box<dyn Io>, SocketAddr)> {
        match self.arrivals.recv().await {
            Some(arrival) if !self.life.is_over() => Ok(arrival),
            _ => std::future::pending().await,
        }
    }
}

/// One end of a connection.
struct Stream {
    network: Network,
    outward: usize,
    inward: usize,
    timer: Option<Pin<Box<Sleep>>>,
    life: Life,
}

impl Stream {
    fn new(network: &Network, outward: usize, inward: usize, life: Life) -> Self {
        Self { network: network.clone(), outward, inward, timer: None, life }
    }

    fn is_over(&self) -> bool {
        self.life.is_over()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over() {
            return Poll::Pending;
        }
        let network = self.network.clone();
        let inward = self.inward;
        let mut state = network.state();
        let link = (state.pipes[inward].from, state.pipes[inward].to);
        let is_severed = state.links.get(&link).is_some_and(|link| link.is_severed);
        let pipe = &mut state.pipes[inward];
        pipe.reader = Some(context.waker().clone());
        if pipe.is_frozen || is_severed {
            return Poll::Pending;
        }
        let now = Instant::now();
        let due = pipe.chunks.front().map(|(at, _)| *at).or(pipe.end.map(|(at, _)| at));
        let Some(due) = due else { return Poll::Pending };
        if due > now {
            let mut timer = Box::pin(tokio::time::sleep_until(due));
            let _ = timer.as_mut().poll(context);
            self.timer = Some(timer);
            return Poll::Pending;
        }
        if let Some((_, chunk)) = pipe.chunks.front_mut() {
            let length = chunk.len().min(buffer.remaining());
            buffer.put_slice(&chunk.split_to(length));
            if chunk.is_empty() {
                pipe.chunks.pop_front();
            }
            pipe.queued -= length;
            if let Some(writer) = pipe.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Ok(()));
        }
        match pipe.end {
            Some((_, End::Reset)) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_over() {
            return Poll::Pending;
        }
        let mut state = self.network.state();
        let pipe = &state.pipes[self.outward];
        if pipe.end.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if pipe.queued >= MOST_ON_THE_WAY {
            state.pipes[self.outward].writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let latency = self.network.latency(&state, pipe.from, pipe.to);
        let pipe = &mut state.pipes[self.outward];
        // What was written at once need not arrive at once.
        let length = if data.len() > 64 && self.network.chance.percent(20) {
            1 + self.network.chance.index(data.len())
        } else {
            data.len()
        };
        pipe.latest = pipe.latest.max(Instant::now() + latency);
        pipe.chunks.push_back((pipe.latest, Bytes::copy_from_slice(&data[..length])));
        pipe.queued += length;
        if let Some(reader) = pipe.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_over() {
            self.network.state().pipes[self.outward].finish(Instant::now(), End::Closed);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.is_over() {
            let now = Instant::now();
            let mut state = self.network.state();
            state.pipes[self.outward].finish(now, End::Closed);
            state.pipes[self.inward].finish(now, End::Reset);
        }
    }
}
