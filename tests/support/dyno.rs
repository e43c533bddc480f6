//! A dyno: the real binary as one process, in an empty environment plus what the test gives it.

use super::{PATIENCE, Redis, bound_to_us, eventually, free_port, raw};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpStream;

pub struct Dyno {
    child: Child,
    pub port: u16,
    program: PathBuf,
    vars: Vec<(String, String)>,
    /// Holds the file `log`, into which stdout and stderr go.
    dir: TempDir,
}

/// The program under test; `DYNOCHAT_BIN` names another build of it, for measurements.
pub fn program() -> PathBuf {
    let built_for_tests = option_env!("CARGO_BIN_EXE_dynochat"); // which examples do not get
    let named = std::env::var_os("DYNOCHAT_BIN").map(PathBuf::from);
    let program = named.or_else(|| built_for_tests.map(PathBuf::from));
    program.expect("DYNOCHAT_BIN names the program")
}

/// Builds a program of this repository in the profile of the running one, as `cargo build` with these arguments, and
/// returns the directory that it is in.
pub fn build(arguments: &[&str]) -> PathBuf {
    // This runs as TARGET/PROFILE/deps/… or TARGET/PROFILE/examples/…. The directory of the profile `dev` is `debug`.
    let own = std::env::current_exe().expect("a program knows its own path");
    let directory = own.ancestors().nth(2).expect("the profile's directory");
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--profile", profile]);
    build
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    // `cargo run` and `cargo test` set these. Build scripts of dependencies watch them, and would run again.
    for (name, _) in std::env::vars() {
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            build.env_remove(name);
        }
    }
    let built = build.status();
    let succeeded = built.is_ok_and(|status| status.success());
    assert!(succeeded, "cargo build {arguments:?} failed");
    directory.to_path_buf()
}

/// The program of `examples/single_file.rs`, which is built for this.
pub fn single_file() -> PathBuf {
    build(&["--example", "single_file"]).join("examples/single_file")
}

impl Dyno {
    pub async fn start(vars: &[(&str, &str)]) -> Dyno {
        Dyno::start_program(program(), vars).await
    }

    /// Starts another program that takes the same settings.
    pub async fn start_program(program: PathBuf, vars: &[(&str, &str)]) -> Dyno {
        let vars: Vec<_> = vars
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        for attempt in 1.. {
            let dir = TempDir::with_prefix("dynochat-").expect("a temporary directory");
            let port = free_port();
            let mut dyno = Dyno {
                child: spawn(&program, port, &vars, &dir),
                port,
                program: program.clone(),
                vars: vars.clone(),
                dir,
            };
            match dyno.listens().await {
                Ok(()) => return dyno,
                Err(why) if attempt == 3 => panic!("the dyno did not start: {why}\n{}", dyno.log()),
                Err(_) => {} // most likely another process took the port in between
            }
        }
        unreachable!("the loop ends by returning or panicking")
    }

    pub async fn start_on(redis: &Redis, vars: &[(&str, &str)]) -> Dyno {
        Dyno::start_with_redis_at(&redis.url(), vars).await
    }

    /// A dyno that is connected to its Redis, perhaps through a proxy.
    pub async fn start_with_redis_at(url: &str, vars: &[(&str, &str)]) -> Dyno {
        Dyno::start_program_on(program(), url, vars).await
    }

    /// The same with another program.
    pub async fn start_program_on(program: PathBuf, url: &str, vars: &[(&str, &str)]) -> Dyno {
        let vars = [&[("REDIS_URL", url)], vars].concat();
        let dyno = Dyno::start_program(program, &vars).await;
        dyno.connected_to_redis(1).await;
        dyno
    }

    /// Waits until the log says so many times that the program has connected to Redis.
    pub async fn connected_to_redis(&self, times: usize) {
        let log = async || match self.log() {
            log if log.matches("redis=up").count() == times => Ok(()),
            log => Err(log),
        };
        eventually("it has connected to Redis", PATIENCE, log).await;
    }

    /// Waits until its link to Redis is not down. Opens no WebSocket: it might still be counted when the test goes on.
    pub async fn has_redis(&self) {
        eventually("the dyno has its Redis", PATIENCE, async || {
            let health = self.health().await;
            match health["redis"] != "down" {
                true => Ok(()),
                false => Err(format!("{health}\n{}", self.log())),
            }
        })
        .await;
    }

    /// What `/healthz` answers.
    pub async fn health(&self) -> Value {
        let answer = raw::http(self.addr(), &raw::head("GET /healthz", &self.host(), &[])).await;
        assert_eq!(answer.status, 200, "also without Redis");
        assert_eq!(answer.header("Content-Type"), Some("application/json"));
        serde_json::from_str(answer.text()).expect("JSON")
    }

    async fn listens(&mut self) -> Result<(), String> {
        let start = std::time::Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the dyno can be waited for") {
                return Err(format!("it ended with {status}"));
            }
            match TcpStream::connect(self.addr()).await {
                Ok(_) => return Ok(()),
                Err(e) if start.elapsed() > PATIENCE => {
                    return Err(format!("nothing listens on {}: {e}", self.port));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The value of `Host` that a browser would send to this dyno.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("the dyno can be signalled");
    }

    pub fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("the dyno can be waited for")
            .is_none()
    }

    /// Waits for the process to end by itself.
    pub async fn exit(&mut self, within: Duration) -> ExitStatus {
        eventually("the dyno ends", within, async || {
            self.child
                .try_wait()
                .expect("the dyno can be waited for")
                .ok_or("still running")
        })
        .await
    }

    pub async fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.exit(PATIENCE).await;
    }

    /// Starts the program again on the same port with the same settings, once the old process is gone.
    pub async fn restart(&mut self) {
        assert!(!self.is_running(), "restart comes after kill or exit");
        self.child = spawn(&self.program, self.port, &self.vars, &self.dir);
        self.listens()
            .await
            .unwrap_or_else(|why| panic!("the dyno did not start again: {why}\n{}", self.log()));
    }

    /// Starts the program on the same port with the same settings while this process, which is stopping, still has its
    /// connections.
    pub async fn successor(&self) -> Dyno {
        let dir = TempDir::with_prefix("dynochat-").expect("a temporary directory");
        let mut next = Dyno {
            child: spawn(&self.program, self.port, &self.vars, &dir),
            program: self.program.clone(),
            port: self.port,
            vars: self.vars.clone(),
            dir,
        };
        let listens = next.listens().await;
        listens.unwrap_or_else(|why| panic!("the successor did not start: {why}\n{}", next.log()));
        next
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Open descriptors of the process.
    pub fn fds(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("the dyno's descriptors can be listed")
            .count()
    }

    /// Resident memory in kB, as the kernel counts it.
    pub fn rss_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("the dyno's status can be read");
        let line = status
            .lines()
            .find(|l| l.starts_with("VmRSS:"))
            .expect("a running process has a VmRSS line");
        line.split_whitespace()
            .nth(1)
            .and_then(|kb| kb.parse().ok())
            .expect("VmRSS is a number of kB")
    }
}

fn command(program: &Path, vars: &[(String, String)], dir: &TempDir) -> Command {
    let log = File::options()
        .create(true)
        .append(true)
        .open(dir.path().join("log"))
        .expect("a log file");
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(vars.iter().map(|(k, v)| (k, v)))
        .current_dir(dir.path());
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("one file for both streams"))
        .stderr(log);
    bound_to_us(&mut command);
    command
}

fn spawn(program: &Path, port: u16, vars: &[(String, String)], dir: &TempDir) -> Child {
    command(program, vars, dir)
        .env("PORT", port.to_string())
        .spawn()
        .expect("the program can be started")
}

/// Starts the program with settings it must refuse: how it ended and what it said.
pub async fn refuses_to_boot(vars: &[(&str, &str)]) -> (ExitStatus, String) {
    let port = free_port().to_string(); // so that a bad setting that is accepted does no harm
    let mut all = vec![("PORT".to_string(), port)];
    all.extend(vars.iter().map(|(k, v)| (k.to_string(), v.to_string())));
    let dir = TempDir::with_prefix("dynochat-").expect("a temporary directory");
    let child = command(&program(), &all, &dir)
        .spawn()
        .expect("the program can be started");
    let mut dyno = Dyno {
        child,
        port: 0,
        program: program(),
        vars: vec![],
        dir,
    };
    let status = dyno.exit(PATIENCE).await;
    (status, dyno.log())
}

impl Drop for Dyno {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended before
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "--- log of the dyno on port {}\n{}---",
                self.port,
                self.log()
            );
        }
    }
}
