//! The platform's router: HAProxy with `bin/router.cfg`, in front of two dynos.

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
    /// In front of these two servers, which may be the same one.
    pub async fn before(servers: [SocketAddr; 2]) -> Front {
        for attempt in 1.. {
            let port = free_port();
            let mut front = Front {
                child: spawn(port, servers),
                addr: (Ipv4Addr::LOCALHOST, port).into(),
            };
            match front.listens().await {
                Ok(()) => return front,
                Err(why) if attempt == 3 => panic!("haproxy did not start: {why}"),
                Err(_) => {} // most likely another process took the port in between
            }
        }
        unreachable!("the loop ends by returning or panicking")
    }

    async fn listens(&mut self) -> Result<(), String> {
        eventually("haproxy listens or ends", 3 * PATIENCE, async || {
            if let Some(status) = self.child.try_wait().expect("haproxy can be waited for") {
                return Ok(Err(format!("it ended with {status}")));
            }
            TcpStream::connect(self.addr).await.map(|_| Ok(()))
        })
        .await
    }

    /// The host that a browser sends in `Host` and `Origin`.
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

fn spawn(port: u16, servers: [SocketAddr; 2]) -> Child {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/bin/router.cfg");
    bound_to_us(&mut Command::new("haproxy"))
        .args(["-db", "-f", config])
        .env("PORT", port.to_string())
        .env("ONE", servers[0].port().to_string())
        .env("TWO", servers[1].port().to_string())
        .stdin(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| match e.kind() {
            ErrorKind::NotFound => {
                panic!("haproxy is missing: install the Debian package haproxy")
            }
            _ => panic!("haproxy could not be started: {e}"),
        })
}
