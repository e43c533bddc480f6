//! Proxies before dynos: the platform's router, which is HAProxy with `bin/router.cfg`; HAProxy that changes requests; and
//! any other program.

use super::free_port;
use super::server::Server;
use std::fs;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;
use std::process::{Command, Stdio};

pub struct Front(Server);

impl Deref for Front {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
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
        Front::start("haproxy", &["-db", "-f"], |port, haproxy, _| {
            haproxy.envs(ports(port).map(|(name, port)| (name, port.to_string())));
            config.to_owned()
        })
        .await
    }

    /// Starts a program with these arguments and the path of its configuration. `configure` makes the configuration, for a
    /// port and a directory, and may set variables.
    pub async fn start(
        program: &str,
        args: &[&str],
        configure: impl Fn(u16, &mut Command, &Path) -> String,
    ) -> Front {
        let (port, dir) = (free_port(), Server::directory());
        let mut command = Command::new(program);
        let config = configure(port, &mut command, dir.path());
        let path = dir.path().join("config");
        fs::write(&path, &config).expect("a file can be written");
        command.args(args).arg(path).stdin(Stdio::null());
        command.env("HOME", dir.path()); // Caddy keeps files there
        let mut front = Front(Server::run(command, port, dir));
        front.0.listens().await;
        front
    }
}
