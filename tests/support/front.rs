//! The platform's router: HAProxy with `bin/router.cfg`, in front of two dynos. Also a proxy that changes requests.

use super::{PATIENCE, bound_to_us, eventually, free_port};
use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::NamedTempFile;
use tokio::net::TcpStream;

pub struct Front {
    child: Child,
    pub addr: SocketAddr,
}

/// The configuration of a proxy that does `{rule}` to each request.
const SPOILS: &str = "
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen dyno
    bind \"127.0.0.1:$PORT\"
    http-request {rule}
    server one \"127.0.0.1:$ONE\"
";

impl Front {
    /// In front of these two servers, which may be the same one.
    pub async fn before(servers: [SocketAddr; 2]) -> Front {
        let config = concat!(env!("CARGO_MANIFEST_DIR"), "/bin/router.cfg");
        Front::start(config.as_ref(), servers).await
    }

    /// Before one server; `rule` is one of HAProxy's for requests.
    pub async fn with_rule(rule: &str, server: SocketAddr) -> Front {
        let config = NamedTempFile::with_prefix("dynochat-").expect("a temporary file");
        fs::write(config.path(), SPOILS.replace("{rule}", rule)).expect("it can be written");
        Front::start(config.path(), [server, server]).await // it reads the file once
    }

    async fn start(config: &Path, servers: [SocketAddr; 2]) -> Front {
        for attempt in 1.. {
            let port = free_port();
            let mut front = Front {
                child: spawn(config, port, servers),
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

fn spawn(config: &Path, port: u16, servers: [SocketAddr; 2]) -> Child {
    bound_to_us(&mut Command::new("haproxy"))
        .args(["-db", "-f"])
        .arg(config)
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
