//! A private Redis: its own port, its own directory, gone with the test. It is Debian's `redis-server`, or the program that
//! `REDIS_SERVER` names.

use super::{PATIENCE, bound_to_us, eventually, free_port};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::{Client, Connection, FromRedisValue, RedisResult};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;

const DEBIAN: &str = "redis-server";

pub struct Redis {
    program: String,
    child: Child,
    pub port: u16,
    options: Vec<String>,
    /// Data (with `appendonly yes`) and the server's own log.
    dir: TempDir,
    /// The test's own connection, opened when it is first needed.
    own: Mutex<Option<Connection>>,
    /// Certificate and key, where it speaks TLS.
    tls: Option<TempDir>,
}

impl Redis {
    /// `options` as on the command line: `&["--appendonly", "yes"]`.
    pub async fn start(options: &[&str]) -> Redis {
        let program = std::env::var("REDIS_SERVER").unwrap_or(DEBIAN.to_owned());
        Redis::start_program(&program, options).await
    }

    /// Another version of Redis.
    pub async fn start_program(program: &str, options: &[&str]) -> Redis {
        let options: Vec<_> = options.iter().map(|o| o.to_string()).collect();
        for attempt in 1.. {
            let port = free_port();
            let dir = TempDir::with_prefix("dynochat-redis-").expect("a temporary directory");
            let mut redis = Redis {
                program: program.to_owned(),
                child: spawn(program, port, &options, &dir),
                port,
                options: options.clone(),
                dir,
                own: Mutex::new(None),
                tls: None,
            };
            match redis.answers().await {
                Ok(()) => return redis,
                Err(why) if attempt == 3 => panic!("{program}: {why}\n{}", redis.log()),
                Err(_) => {} // most likely another process took the port in between
            }
        }
        unreachable!("the loop ends by returning or panicking")
    }

    /// A Redis that speaks TLS, too, with a self-signed certificate. Returns its `rediss://` URL. Always Debian's server:
    /// many other builds speak no TLS.
    pub async fn start_with_tls() -> (Redis, String) {
        let dir = TempDir::with_prefix("dynochat-tls-").expect("a temporary directory");
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
    async fn answers(&mut self) -> Result<(), String> {
        let mine = format!("process_id:{}\r", self.child.id());
        eventually("redis-server answers or ends", 3 * PATIENCE, async || {
            if let Some(status) = self.ended() {
                return Ok(Err(format!("it ended with {status}")));
            }
            match self.try_cmd::<String>(&["INFO"]) {
                Ok(info) if info.contains(&mine) && info.contains("\nloading:0") => Ok(Ok(())),
                other => Err(other),
            }
        })
        .await
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait();
        status.expect("redis-server can be waited for")
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

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("redis-server can be signalled");
    }

    /// Stops it. With `appendonly yes`, the data is on disk by then.
    pub async fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let ended = async || self.ended().ok_or("still running");
        eventually("redis-server ends", PATIENCE, ended).await;
        self.own.lock().unwrap().take();
    }

    /// Starts it on the same port with the data on its disk. Returns when it answers.
    pub async fn restart(&mut self) {
        assert!(self.ended().is_some(), "restart comes after stop");
        self.child = spawn(&self.program, self.port, &self.options, &self.dir);
        if let Err(why) = self.answers().await {
            panic!("redis-server did not start again: {why}\n{}", self.log());
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("redis.log")).unwrap_or_default()
    }
}

fn spawn(program: &str, port: u16, options: &[String], dir: &TempDir) -> Child {
    bound_to_us(&mut Command::new(program))
        .args("--bind 127.0.0.1 --logfile redis.log --port".split(' '))
        .args([&port.to_string(), "--save", ""])
        .args(options)
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("{program}, of the Debian package redis-server: {e}"))
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended before
        let _ = self.child.wait();
    }
}
