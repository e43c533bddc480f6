//! Network faults: a TCP proxy that can stop forwarding while both connections stay open, and a socket with a small
//! receive buffer.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

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

pub struct Proxy {
    pub addr: SocketAddr,
    flow: watch::Sender<Flow>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port for the proxy");
        let addr = listener.local_addr().expect("a bound listener");
        let (flow, seen) = watch::channel(Flow::Through);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, target, seen.clone()));
            }
        });
        Proxy {
            addr,
            flow,
            accepting,
        }
    }

    pub async fn to_redis(redis: &super::Redis) -> Proxy {
        Proxy::to((Ipv4Addr::LOCALHOST, redis.port).into()).await
    }

    pub fn redis_url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    pub fn set(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.set(Flow::Cut);
    }
}

async fn connection(client: TcpStream, target: SocketAddr, mut flow: watch::Receiver<Flow>) {
    if *flow.borrow() == Flow::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let forth = pump(from_client, to_server, flow.clone(), |flow| {
        flow != Flow::Swallow
    });
    let back = pump(from_server, to_client, flow.clone(), |flow| {
        flow == Flow::Through
    });
    tokio::select! {
        _ = forth => {}
        _ = back => {}
        _ = flow.wait_for(|flow| *flow == Flow::Cut) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    flow: watch::Receiver<Flow>,
    passes: fn(Flow) -> bool,
) {
    let mut bytes = vec![0; 16 * 1024];
    // A byte stream with a hole cannot go on, so after dropping bytes once this connection drops everything.
    let mut dropped = false;
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        dropped |= !passes(*flow.borrow());
        if !dropped && to.write_all(&bytes[..n]).await.is_err() {
            return;
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
