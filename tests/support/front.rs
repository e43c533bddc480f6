//! Proxies before dynos: the platform's router, which is HAProxy with `bin/router.cfg`, and any other program.

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

impl Front {
    /// In front of these two servers, which may be the same one.
    pub async fn before([one, two]: [SocketAddr; 2]) -> Front {
        let ports = |port: u16| [("PORT", port), ("ONE", one.port()), ("TWO", two.port())];
        Front::start("haproxy", &["-db", "-f"], |port, haproxy, _| {
            haproxy.envs(ports(port).map(|(name, port)| (name, port.to_string())));
            include_str!("../../bin/router.cfg").to_owned()
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
