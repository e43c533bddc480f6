//! A dyno: the real binary as one process, in an empty environment plus what the test gives it.

use super::server::Server;
use super::{PATIENCE, Redis, check, eventually, free_port, raw};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

pub struct Dyno(Server);

impl Deref for Dyno {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

impl DerefMut for Dyno {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.0
    }
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
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    build.args(["build", "--quiet", "--profile", profile]);
    build.args(arguments);
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    // `cargo run` and `cargo test` set these. Build scripts of dependencies watch them, and would run again.
    for (name, _) in std::env::vars() {
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            build.env_remove(name);
        }
    }
    let succeeded = build.status().is_ok_and(|status| status.success());
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
        let port = free_port();
        let mut command = command(&program, vars);
        command.env("PORT", port.to_string()); // also where `vars` have one
        let mut dyno = Dyno::run(command, port);
        dyno.listens().await;
        dyno
    }

    /// Runs any command that starts the program on this port. It need not listen yet.
    pub fn run(command: Command, port: u16) -> Dyno {
        Dyno(Server::run(command, port, Server::directory()))
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
        eventually("it has connected to Redis", PATIENCE, async || {
            let log = self.log();
            let connected = log.matches("redis=up").count() == times;
            connected.then_some(()).ok_or(log)
        })
        .await;
    }

    /// Waits until its link to Redis is not down. Opens no WebSocket: it might still be counted when the test goes on.
    pub async fn has_redis(&self) {
        let down = async || self.health().await["redis"] == "down";
        check::becomes("its Redis is down", PATIENCE, false, down).await;
    }

    /// Waits until `/healthz` has this value.
    pub async fn health_becomes(&self, field: &str, wanted: impl Into<Value>) {
        let value = async || self.health().await[field].clone();
        check::becomes(field, PATIENCE, wanted.into(), value).await;
    }

    /// What `/healthz` answers.
    pub async fn health(&self) -> Value {
        let answer = raw::http(self.addr(), &raw::head("GET /healthz", &self.host(), &[])).await;
        assert_eq!(answer.status, 200, "also without Redis");
        assert_eq!(answer.header("Content-Type"), Some("application/json"));
        serde_json::from_str(answer.text()).expect("JSON")
    }

    /// Waits for the process to end by itself, with code 0.
    pub async fn exits_with_0(&mut self, within: Duration) {
        let status = self.exit(within).await;
        assert_eq!(status.code(), Some(0), "{status}\n{}", self.log());
    }

    /// Waits for a warning in the log. There is one, and it contains these words.
    pub async fn warns_once(&self, words: &[&str]) -> String {
        let warnings = || {
            let log = self.log();
            let warnings = log.lines().filter(|line| line.contains("WARN"));
            warnings.map(str::to_string).collect::<Vec<_>>()
        };
        eventually("a warning", PATIENCE, async || {
            warnings().pop().ok_or_else(|| self.log())
        })
        .await;
        let [warning] = &warnings()[..] else {
            panic!("one warning in:\n{}", self.log())
        };
        for word in words {
            assert!(warning.contains(word), "{word} in: {warning}");
        }
        warning.clone()
    }

    pub async fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.exit(PATIENCE).await;
    }

    /// Starts the program again on the same port with the same settings, once the old process is gone.
    pub async fn restart(&mut self) {
        assert!(!self.is_running(), "restart comes after kill or exit");
        *self = self.successor().await;
    }

    /// Starts the program on the same port with the same settings and the same log while this process, which is stopping,
    /// still has its connections.
    pub async fn successor(&self) -> Dyno {
        let mut next = Dyno(self.again());
        next.listens().await;
        next
    }

    /// Open descriptors of the process.
    pub fn fds(&self) -> usize {
        let fds = fs::read_dir(format!("/proc/{}/fd", self.pid()));
        fds.expect("a running process has descriptors").count()
    }

    /// Resident memory in kB, as the kernel counts it.
    pub fn rss_kb(&self) -> u64 {
        self.status_kb("VmRSS:")
    }

    /// The peak of it since the start, or since `clear_refs` was written (proc(5)).
    pub fn peak_kb(&self) -> u64 {
        self.status_kb("VmHWM:")
    }

    fn status_kb(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("a running process has a status");
        let (_, value) = status.split_once(field).expect("it has this line");
        let kb = value
            .split_whitespace()
            .next()
            .and_then(|kb| kb.parse().ok());
        kb.expect("a number of kB")
    }
}

fn command(program: &Path, vars: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).env_clear();
    command.envs(vars.iter().copied());
    command
}

/// Starts the program with settings it must refuse: how it ended and what it said.
pub async fn refuses_to_boot(vars: &[(&str, &str)]) -> (ExitStatus, String) {
    let port = free_port(); // so that a bad setting that is accepted does no harm
    let number = port.to_string();
    let vars = [&[("PORT", &*number)], vars].concat();
    let mut dyno = Dyno::run(command(&program(), &vars), port);
    let status = dyno.exit(PATIENCE).await;
    (status, dyno.log())
}
