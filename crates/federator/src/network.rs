//! The seams to the network: sockets and DNS are reached through these traits alone, so that a simulation can take
//! their place.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use aldis_types::Domain;
use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

/// A byte stream between two machines.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Opens connections.
#[async_trait]
pub trait Connector: Send + Sync {
    /// Connects to `address`. The caller bounds the time.
    async fn connect(&self, address: SocketAddr) -> io::Result<Box<dyn Io>>;
}

/// Accepts connections.
#[async_trait]
pub trait Accept: Send {
    /// The next connection and who opened it.
    async fn accept(&mut self) -> io::Result<(Box<dyn Io>, SocketAddr)>;
}

/// One target of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SrvRecord {
    /// Lower is tried first.
    pub priority: u16,
    /// Share among targets of one priority.
    pub weight: u16,
    /// TCP port.
    pub port: u16,
    /// Host name without a trailing dot; empty for the root, which says that the service is not offered.
    pub host: String,
}

/// Why a look-up gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// DNS says that there is no such record.
    #[error("no such record")]
    NotFound {
        /// For how long this may be believed.
        ttl: Duration,
    },
    /// DNS could not be asked, or failed.
    #[error("{0}")]
    Failed(String),
}

/// Asks DNS. Implementations keep nothing: the federator has its own cache.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// The records of `_wire-server-federator._tcp.<domain>` and their time to live.
    async fn srv(&self, domain: &Domain) -> Result<(Vec<SrvRecord>, Duration), LookupError>;

    /// The addresses of a host and their time to live.
    async fn addresses(&self, host: &str) -> Result<(Vec<IpAddr>, Duration), LookupError>;
}

/// The network as a federator sees it.
#[derive(Clone)]
pub struct Network {
    /// Opens connections.
    pub connector: Arc<dyn Connector>,
    /// Asks DNS.
    pub resolver: Arc<dyn Resolve>,
}

/// TCP sockets of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpConnector;

#[async_trait]
impl Connector for TcpConnector {
    async fn connect(&self, address: SocketAddr) -> io::Result<Box<dyn Io>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

#[async_trait]
impl Accept for TcpListener {
    async fn accept(&mut self) -> io::Result<(Box<dyn Io>, SocketAddr)> {
        let (stream, address) = Self::accept(self).await?;
        stream.set_nodelay(true)?;
        Ok((Box::new(stream), address))
    }
}
