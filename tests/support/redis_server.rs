//! A private Redis: its own port, its own directory, gone with the test. It is Debian's `redis-server`, or the program that
//! `REDIS_SERVER` names.

use super::{PATIENCE, bound_to_us, eventually, free_port};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::{Client, Connection, FromRedisValue, RedisResult};
use std::io::ErrorKind;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
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
        Redis::start_program(&program(), options).await
    }

    /// Another version of Redis.
    pub async fn start_program(program: &str, options: &[&str]) -> Redis {
        for attempt in 1.. {
            let port = free_port();
            let dir = TempDir::with_prefix("dynochat-redis-").expect("a temporary directory");
            let options: Vec<_> = options.iter().map(|o| o.to_string()).collect();
            let mut redis = Redis {
                program: program.to_owned(),
                child: spawn(program, port, &options, &dir),
                port,
                options,
                dir,
                own: Mutex::new(None),
                tls: None,
            };
            match redis.answers().await {
                Ok(()) => return redis,
                Err(why) if attempt == 3 => {
                    panic!("{program} did not start: {why}\n{}", redis.log())
                }
                Err(_) => {} // most likely another process took the port in between
            }
        }
        unreachable!("the loop ends by returning or panicking")
    }

    /// A Redis that speaks TLS, too, with a self-signed certificate. Returns its `rediss://` URL. Always Debian's server:
    /// many other builds speak no TLS.
    pub async fn start_with_tls() -> (Redis, String) {
        Redis::start_with_tls_and(&[]).await
    }

    pub async fn start_with_tls_and(more: &[&str]) -> (Redis, String) {
        let dir = TempDir::with_prefix("dynochat-tls-").expect("a temporary directory");
        let made = Command::new("openssl")
            .args("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=redis -keyout key.pem -out cert.pem".split(' '))
            .current_dir(dir.path())
            .output()
            .expect("openssl is needed: install the Debian package openssl");
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{said}");
        let file = |name: &str| dir.path().join(name).display().to_string();
        let (port, cert, key) = (free_port().to_string(), file("cert.pem"), file("key.pem"));
        let files = ["--tls-cert-file", &cert, "--tls-key-file", &key];
        let options = [
            &["--tls-port", &port, "--tls-auth-clients", "no"],
            &files[..],
            more,
        ]
        .concat();
        let mut redis = Redis::start_program(DEBIAN, &options).await;
        redis.tls = Some(dir); // Redis reads both files at every start
        (redis, format!("rediss://127.0.0.1:{port}"))
    }

    /// Waits until this process answers with something else than LOADING.
    async fn answers(&mut self) -> Result<(), String> {
        let mine = format!("process_id:{}\r", self.child.id());
        let start = Instant::now();
        loop {
            if let Some(status) = self
                .child
                .try_wait()
                .expect("redis-server can be waited for")
            {
                return Err(format!("it ended with {status}"));
            }
            match self.try_cmd::<String>(&["INFO"]) {
                Ok(info) if info.contains(&mine) && info.contains("\nloading:0") => return Ok(()),
                Ok(info) if start.elapsed() > 3 * PATIENCE => return Err(info),
                Err(e) if start.elapsed() > 3 * PATIENCE => return Err(e.to_string()),
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// With the password, if `--requirepass` set one.
    pub fn url(&self) -> String {
        let password = self
            .options
            .iter()
            .skip_while(|o| *o != "--requirepass")
            .nth(1);
        let login = password.map(|p| format!(":{p}@")).unwrap_or_default();
        format!("redis://{login}127.0.0.1:{}", self.port)
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
        list.lines()
            .filter(|line| !line.starts_with(&me))
            .map(str::to_string)
            .collect()
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
        eventually("redis-server ends", PATIENCE, async || {
            self.child
                .try_wait()
                .expect("redis-server can be waited for")
                .ok_or("still running")
        })
        .await;
        self.own.lock().unwrap().take();
    }

    /// Starts it on the same port with the data on its disk. Returns when it answers.
    pub async fn restart(&mut self) {
        self.respawn();
        self.answers().await.unwrap_or_else(|why| {
            panic!("redis-server did not start again: {why}\n{}", self.log())
        });
    }

    /// Like [`Redis::restart`], without waiting until it has read its data.
    pub fn respawn(&mut self) {
        assert!(
            self.child
                .try_wait()
                .expect("redis-server can be waited for")
                .is_some(),
            "restart comes after stop"
        );
        self.own.lock().unwrap().take();
        self.child = spawn(&self.program, self.port, &self.options, &self.dir);
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("redis.log")).unwrap_or_default()
    }
}

/// A port on which no Redis listens yet, and its URL. [`Reserved::start`] starts a Redis there.
pub struct Reserved(u16);

impl Reserved {
    pub fn new() -> Reserved {
        Reserved(free_port())
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.0)
    }

    pub async fn start(self) -> Redis {
        let dir = TempDir::with_prefix("dynochat-redis-").expect("a temporary directory");
        let program = program();
        let child = spawn(&program, self.0, &[], &dir);
        let mut redis = Redis {
            program,
            child,
            port: self.0,
            options: vec![],
            dir,
            own: Mutex::new(None),
            tls: None,
        };
        redis
            .answers()
            .await
            .unwrap_or_else(|why| panic!("redis-server did not start: {why}\n{}", redis.log()));
        redis
    }
}

fn program() -> String {
    std::env::var("REDIS_SERVER").unwrap_or(DEBIAN.to_owned())
}

fn spawn(program: &str, port: u16, options: &[String], dir: &TempDir) -> Child {
    bound_to_us(&mut Command::new(program))
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--logfile",
            "redis.log",
        ])
        .args(options)
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| match e.kind() {
            ErrorKind::NotFound => {
                panic!("{program} is missing: install the Debian package redis-server")
            }
            _ => panic!("{program} could not be started: {e}"),
        })
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended before
        let _ = self.child.wait();
    }
}
