//! A TCP proxy that can fall silent: it goes on reading and forwards nothing, while both connections stay open.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What happens to the bytes of every connection, old and new.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Flow {
    Through,
    /// Both directions are read and thrown away.
    Swallow,
    /// What the client sends arrives; answers are thrown away: commands are carried out that seem to have failed.
    SwallowAnswers,
    /// Connections are cut and new ones refused with a reset.
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
        let addr = listener
            .local_addr()
            .expect("a bound listener has an address");
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
    // What fell into a silence is lost, and a stream with a hole cannot go on: from then on it stays silent.
    let mut holed = false;
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        holed |= !passes(*flow.borrow());
        if !holed && to.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
}
