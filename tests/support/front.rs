//! A front as the platform's router is one: HAProxy with `tests/router.cfg`, before two dynos.

use super::{PATIENCE, bound_to_us, eventually, free_port};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use tokio::net::TcpStream;

pub struct Front {
    child: Child,
    pub addr: SocketAddr,
}

impl Front {
    /// Before these two servers, which may be one and the same.
    pub async fn before(servers: [SocketAddr; 2]) -> Front {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let config = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/router.cfg");
        let child = bound_to_us(&mut Command::new("haproxy"))
            .args(["-db", "-f", config])
            .env("PORT", addr.port().to_string())
            .env("ONE", servers[0].port().to_string())
            .env("TWO", servers[1].port().to_string())
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| match e.kind() {
                ErrorKind::NotFound => {
                    panic!("haproxy is missing: install the Debian package haproxy")
                }
                _ => panic!("haproxy could not be started: {e}"),
            });
        let front = Front { child, addr };
        eventually("haproxy listens", PATIENCE, async || {
            TcpStream::connect(addr).await.map(drop)
        })
        .await;
        front
    }

    /// What a browser would call it in `Host` and `Origin`.
    pub fn host(&self) -> String {
        self.addr.to_string()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended before
        let _ = self.child.wait();
    }
}
