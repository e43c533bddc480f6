//! Network faults: a TCP proxy that can stop forwarding while both connections stay open, can lead new connections to another
//! target, and can change bytes; and a socket with a small receive buffer.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// What happens to the bytes of every connection, old and new.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Flow {
    Through,
    /// The proxy reads both directions and drops the bytes.
    Swallow,
    /// The proxy forwards requests and drops answers, so commands that succeeded look as if they failed.
    SwallowAnswers,
    /// The proxy closes all connections, and closes new ones at once.
    Cut,
}

#[derive(Clone)]
struct Rules {
    flow: Flow,
    /// Where new connections lead, and how much later each of their bytes arrives.
    target: SocketAddr,
    latency: Duration,
    /// Text, and what comes in its place.
    replaced: Option<(String, String)>,
}

pub struct Proxy {
    pub addr: SocketAddr,
    rules: watch::Sender<Rules>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port for the proxy");
        let addr = listener.local_addr().expect("a bound listener");
        let (rules, now) = watch::channel(Rules {
            flow: Flow::Through,
            target,
            latency: Duration::ZERO,
            replaced: None,
        });
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, now.clone()));
            }
        });
        Proxy {
            addr,
            rules,
            accepting,
        }
    }

    pub async fn to_redis(redis: &super::Redis) -> Proxy {
        Proxy::to((Ipv4Addr::LOCALHOST, redis.port).into()).await
    }

    /// Replaces this text by another of the same length, in both directions of new connections.
    pub fn replace(&self, text: &str, by: &str) {
        assert_eq!(text.len(), by.len());
        let replaced = Some((text.to_owned(), by.to_owned()));
        self.rules.send_modify(|rules| rules.replaced = replaced);
    }

    pub fn redis_url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// Leads new connections to another target, and each of their bytes comes that much later. Those that are open stay.
    pub fn lead_to(&self, target: SocketAddr, latency: Duration) {
        self.rules
            .send_modify(|rules| (rules.target, rules.latency) = (target, latency));
    }

    pub fn set(&self, flow: Flow) {
        self.rules.send_modify(|rules| rules.flow = flow);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.set(Flow::Cut);
    }
}

async fn connection(client: TcpStream, mut rules: watch::Receiver<Rules>) {
    let at_first = rules.borrow().clone();
    if at_first.flow == Flow::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(at_first.target).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let now = rules.clone();
    let forth = pump(from_client, to_server, &at_first, || {
        now.borrow().flow != Flow::Swallow
    });
    let back = pump(from_server, to_client, &at_first, || {
        now.borrow().flow == Flow::Through
    });
    tokio::select! {
        _ = forth => {}
        _ = back => {}
        _ = rules.wait_for(|rules| rules.flow == Flow::Cut) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    rules: &Rules,
    passes: impl Fn() -> bool,
) {
    let mut bytes = vec![0; 16 * 1024];
    // A byte stream cannot go on when bytes are missing: after dropping some, this connection drops everything.
    let mut dropped = false;
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        if !rules.latency.is_zero() {
            sleep(rules.latency).await;
        }
        dropped |= !passes();
        if let Some((text, by)) = &rules.replaced {
            replace(&mut bytes[..n], text.as_bytes(), by.as_bytes());
        }
        if !dropped && to.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
}

/// Text that falls into two reads is not found.
fn replace(bytes: &mut [u8], text: &[u8], by: &[u8]) {
    for at in 0..(bytes.len() + 1).saturating_sub(text.len()) {
        if bytes[at..].starts_with(text) {
            bytes[at..at + by.len()].copy_from_slice(by);
        }
    }
}

/// A connection whose receive buffer holds about this many bytes, for clients that read slowly or not at all.
pub async fn narrow_socket(addr: SocketAddr, bytes: u32) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(bytes).expect("a small buffer");
    let connecting = socket.connect(addr).await;
    connecting.expect("the server accepts connections")
}
