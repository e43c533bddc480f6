//! A private Redis: its own port, its own directory, gone with the test. It is Debian's `redis-server`, or the program that
//! `REDIS_SERVER` names.

use super::server::Server;
use super::{PATIENCE, eventually, free_port};
use nix::sys::signal::Signal;
use redis::{Client, Connection, FromRedisValue, RedisResult};
use std::ops::Deref;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;

const DEBIAN: &str = "redis-server";

pub struct Redis {
    server: Server,
    /// The test's own connection, opened when it is first needed.
    own: Mutex<Option<Connection>>,
    /// Certificate and key, where it speaks TLS.
    tls: Option<TempDir>,
}

impl Deref for Redis {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Redis {
    /// `options` as on the command line: `&["--appendonly", "yes"]`.
    pub async fn start(options: &[&str]) -> Redis {
        let program = std::env::var("REDIS_SERVER").unwrap_or(DEBIAN.to_owned());
        Redis::start_program(&program, options).await
    }

    /// Another version of Redis.
    pub async fn start_program(program: &str, options: &[&str]) -> Redis {
        let port = free_port();
        let mut command = Command::new(program);
        command.args(["--bind", "127.0.0.1", "--save", "", "--port"]);
        command.arg(port.to_string()).args(options);
        command.stdin(Stdio::null());
        let mut redis = Redis {
            server: Server::run(command, port, Server::directory()),
            own: Mutex::new(None),
            tls: None,
        };
        redis.answers().await;
        redis
    }

    /// A Redis that speaks TLS, too, with a self-signed certificate. Returns its `rediss://` URL. Always Debian's server:
    /// many other builds speak no TLS.
    pub async fn start_with_tls() -> (Redis, String) {
        let dir = Server::directory();
        let made = Command::new("openssl")
            .args("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=redis -keyout key.pem -out cert.pem".split(' '))
            .current_dir(dir.path())
            .output()
            .expect("openssl is needed: install the Debian package openssl");
        assert!(made.status.success(), "{made:?}");
        let file = |name: &str| dir.path().join(name).display().to_string();
        let (port, cert, key) = (free_port().to_string(), file("cert.pem"), file("key.pem"));
        let mut options = vec!["--tls-port", &port, "--tls-auth-clients", "no"];
        options.extend(["--tls-cert-file", &cert, "--tls-key-file", &key]);
        let mut redis = Redis::start_program(DEBIAN, &options).await;
        redis.tls = Some(dir); // Redis reads both files at every start
        (redis, format!("rediss://127.0.0.1:{port}"))
    }

    /// Waits until this process answers with something else than LOADING.
    async fn answers(&mut self) {
        let mine = format!("process_id:{}\r", self.pid());
        eventually("redis-server answers", 3 * PATIENCE, async || {
            self.server.must_run();
            match self.try_cmd::<String>(&["INFO"]) {
                Ok(info) if info.contains(&mine) && info.contains("\nloading:0") => Ok(()),
                other => Err(other),
            }
        })
        .await
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// One command, over the test's own connection.
    pub fn try_cmd<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let mut own = self.own.lock().unwrap();
        let mut connection = match own.take() {
            Some(open) => open,
            None => {
                let open = Client::open(self.url())?
                    .get_connection_with_timeout(Duration::from_secs(2))?;
                open.set_read_timeout(Some(Duration::from_secs(5)))?;
                open
            }
        };
        let answer = redis::cmd(words[0]).arg(&words[1..]).query(&mut connection);
        if !answer.as_ref().is_err_and(|e| e.is_unrecoverable_error()) {
            *own = Some(connection);
        }
        answer
    }

    pub fn cmd<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_cmd(words)
            .unwrap_or_else(|e| panic!("redis refused {words:?}: {e}"))
    }

    /// The connected clients without the test itself, one line of `CLIENT LIST` each.
    pub fn clients(&self) -> Vec<String> {
        let me = format!("id={} ", self.cmd::<u64>(&["CLIENT", "ID"]));
        let list: String = self.cmd(&["CLIENT", "LIST"]);
        let others = list.lines().filter(|line| !line.starts_with(&me));
        others.map(str::to_string).collect()
    }

    /// Closes every connection but the test's own. Returns how many there were.
    pub fn cut_all(&self) -> u64 {
        self.cmd(&["CLIENT", "KILL", "SKIPME", "yes"])
    }

    /// Stops it. With `appendonly yes`, the data is on disk by then.
    pub async fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        self.server.exit(PATIENCE).await;
        self.own.lock().unwrap().take();
    }

    /// Starts it on the same port with the data on its disk. Returns when it answers.
    pub async fn restart(&mut self) {
        assert!(!self.server.is_running(), "restart comes after stop");
        self.server = self.server.again();
        self.answers().await;
    }
}
