//! A program that listens on a port: a process of its own, in a directory of its own. It ends with the test.

use super::{PATIENCE, bound_to_us, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpStream;

pub struct Server {
    pub child: Child,
    pub port: u16,
    command: Arc<Mutex<Command>>,
    /// Holds the file `log`, into which stdout and stderr go, and what the program keeps.
    pub dir: Arc<TempDir>,
}

impl Server {
    pub fn directory() -> TempDir {
        TempDir::with_prefix("dynochat-").expect("a temporary directory")
    }

    /// Runs a command that starts a program on this port, in this directory if the command has no other. It need not listen
    /// yet.
    pub fn run(mut command: Command, port: u16, dir: TempDir) -> Server {
        if command.get_current_dir().is_none() {
            command.current_dir(dir.path());
        }
        let log = File::create(dir.path().join("log")).expect("a log file");
        let both = log.try_clone().expect("one file for both streams");
        bound_to_us(command.stdout(both).stderr(log));
        let (command, dir) = (Arc::new(Mutex::new(command)), Arc::new(dir));
        Server::spawn(port, &command, &dir)
    }

    fn spawn(port: u16, command: &Arc<Mutex<Command>>, dir: &Arc<TempDir>) -> Server {
        let mut to_spawn = command.lock().unwrap();
        let child = to_spawn.spawn();
        Server {
            child: child.unwrap_or_else(|e| {
                panic!("{:?}: {e}; tests/run installs it", to_spawn.get_program())
            }),
            port,
            command: command.clone(),
            dir: dir.clone(),
        }
    }

    /// Starts the program on the same port with the same settings and the same log, also while this process still runs.
    pub fn again(&self) -> Server {
        Server::spawn(self.port, &self.command, &self.dir)
    }

    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The value of `Host` that a browser would send.
    pub fn host(&self) -> String {
        self.addr().to_string()
    }

    /// Waits until it listens.
    pub async fn listens(&mut self) {
        eventually("it listens", 3 * PATIENCE, async || {
            self.must_run();
            TcpStream::connect(self.addr()).await
        })
        .await;
    }

    pub fn must_run(&mut self) {
        if let Some(status) = self.ended() {
            panic!("it ended with {status}\n{}", self.log());
        }
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child")
    }

    pub fn is_running(&mut self) -> bool {
        self.ended().is_none()
    }

    /// Waits for the process to end by itself.
    pub async fn exit(&mut self, within: Duration) -> ExitStatus {
        let ended = async || self.ended().ok_or("still running");
        eventually("it ends", within, ended).await
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).expect("it can be signalled");
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended before
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            eprintln!("--- log of the server on port {}\n{log}---", self.port);
        }
    }
}
