//! Behind a TCP load balancer that says, or does not say, where connections come from.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    support::{rogue::Caller, wait::soon},
    world::{Backend, World, host},
};
use crate::Config;

const FIRST: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 8443\r\n";
const SECOND: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\x9c\x40\x20\xfb";

/// Forwards connections, each with `header` ahead of what the caller says.
struct Balancer {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Balancer {
    async fn to(backend: &Backend, header: &'static [u8]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (address, target) = (listener.local_addr().unwrap(), backend.address());
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(target).await.unwrap();
                    server.write_all(header).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { address, _task: AbortOnDropHandle::new(task) }
    }
}

async fn greets(world: &World, address: SocketAddr) -> bool {
    let identity = world.identity("alpha.test");
    let server = host("beta.test");
    let connecting = Caller::connect(address, &server, &world.authority, Some(&identity), Some("alpha.test"));
    match soon("a connection or its end", connecting).await.unwrap() {
        Ok(caller) => soon("an answer", caller.hello()).await.unwrap().is_ok(),
        Err(_) => false,
    }
}

async fn beta(world: &World, trusted: &str) -> Backend {
    world.point("alpha.test", &[1]);
    let config = Config {
        proxy_protocol: true,
        trusted_proxies: vec![trusted.to_owned()],
        ..world.config(&world.identity("beta.test"))
    };
    world.backend_with("beta.test", config).await
}

#[tokio::test]
async fn a_trusted_proxy_must_say_where_a_connection_comes_from() {
    let world = World::new().await;
    let beta = beta(&world, "127.0.0.0/8").await;
    for header in [FIRST, SECOND] {
        assert!(greets(&world, Balancer::to(&beta, header).await.address).await);
    }
    assert!(!greets(&world, beta.address()).await, "without a header");
    assert!(!greets(&world, Balancer::to(&beta, b"PROXY TCP4 nonsense\r\n").await.address).await);
}

#[tokio::test]
async fn only_a_trusted_proxy_may_say_it() {
    let world = World::new().await;
    let beta = beta(&world, "192.0.2.0/24").await;
    assert!(greets(&world, beta.address()).await);
    for header in [FIRST, SECOND] {
        assert!(!greets(&world, Balancer::to(&beta, header).await.address).await);
    }
}

#[tokio::test]
async fn a_proxy_that_stays_silent_is_not_waited_for() {
    let world = World::new().await;
    let beta = beta(&world, "127.0.0.1").await;
    let mut silent = TcpStream::connect(beta.address()).await.unwrap();
    silent.write_all(&FIRST[..20]).await.unwrap();
    let mut rest = Vec::new();
    // The end may come as a reset.
    let _ = soon("the end of the connection", silent.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
}
