//! Proxies before dynos: the platform's router, which is HAProxy with `bin/router.cfg`; HAProxy that changes requests; and
//! any other program.

use super::{PATIENCE, bound_to_us, eventually, free_port};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use tokio::net::TcpStream;

pub struct Front {
    child: Child,
    pub addr: SocketAddr,
    /// Holds its configuration and the file `log`.
    dir: TempDir,
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
        Front::haproxy(include_str!("../../bin/router.cfg"), servers).await
    }

    /// Before one server; `rule` is one of HAProxy's for requests.
    pub async fn with_rule(rule: &str, server: SocketAddr) -> Front {
        Front::haproxy(&SPOILS.replace("{rule}", rule), [server, server]).await
    }

    async fn haproxy(config: &str, [one, two]: [SocketAddr; 2]) -> Front {
        let ports = |port: u16| [("PORT", port), ("ONE", one.port()), ("TWO", two.port())];
        let front = Front::start("haproxy", &["-db", "-f"], |port, haproxy, _| {
            haproxy.envs(ports(port).map(|(name, port)| (name, port.to_string())));
            config.to_owned()
        });
        let front = front.await;
        front.expect("haproxy is missing: install the Debian package haproxy")
    }

    /// Starts a program with these arguments and the path of its configuration. `configure` makes the configuration, for a
    /// port and a directory, and may set variables. `None` if the program is not installed.
    pub async fn start(
        program: &str,
        args: &[&str],
        configure: impl Fn(u16, &mut Command, &Path) -> String,
    ) -> Option<Front> {
        for attempt in 1.. {
            let dir = TempDir::with_prefix("dynochat-proxy-").expect("a temporary directory");
            let (port, path) = (free_port(), dir.path().join("config"));
            let mut command = Command::new(program);
            let config = configure(port, &mut command, dir.path());
            fs::write(&path, &config).expect("a file can be written");
            let log = File::create(dir.path().join("log")).expect("a log file");
            let spawned = bound_to_us(command.args(args).arg(path))
                .env("HOME", dir.path()) // Caddy keeps files there
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("one file for both streams"))
                .stderr(log)
                .spawn();
            let child = match spawned {
                Ok(child) => child,
                Err(e) if e.kind() == ErrorKind::NotFound => return None,
                Err(e) => panic!("{program} could not be started: {e}"),
            };
            let addr = (Ipv4Addr::LOCALHOST, port).into();
            let mut front = Front { child, addr, dir };
            match front.listens().await {
                Ok(()) => return Some(front),
                Err(why) if attempt == 3 => panic!("{program}: {why}\n{config}"),
                Err(_) => {} // most likely another process took the port in between
            }
        }
        unreachable!("the loop ends by returning or panicking")
    }

    async fn listens(&mut self) -> Result<(), String> {
        eventually("the proxy listens or ends", 3 * PATIENCE, async || {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
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
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log"));
            eprintln!("--- log of the proxy\n{}---", log.unwrap_or_default());
        }
    }
}
