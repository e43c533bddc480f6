//! Start and build: time until the program listens, its memory, its size, and the time to build it.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::machine::{Server, anywhere, measured};
use crate::support::dyno::program;
use crate::support::{Store, bound_to_us, free_port};
use crate::table::Limit::AtMost;
use crate::table::Row;
use crate::{Plan, progress};

pub fn start(plan: &Plan) -> Vec<Row> {
    progress("start");
    let listening = (0..plan.size(20, 2)).map(|_| listening()).collect();
    let world = Server::chat(Store::Redis);
    let mut rows = vec![
        Row::new("start", "listens after, ms", listening, AtMost(20.0)),
        Row::new(
            "start",
            "memory, connected to Redis, MB",
            vec![world.rss() / 1000.0],
            AtMost(8.0),
        ),
    ];
    if !plan.short && !plan.single_file {
        let (seconds, bytes) = anywhere(build);
        rows.push(Row::new(
            "start",
            "binary, MB",
            vec![bytes / 1e6],
            AtMost(3.0),
        ));
        rows.push(Row::new(
            "start",
            "cargo build --release, everything, s",
            vec![seconds],
            AtMost(75.0),
        ));
    }
    rows
}

/// From before the fork until a connection is accepted, in ms.
fn listening() -> f64 {
    let port = free_port();
    let mut command = Command::new(program());
    command
        .env_clear()
        .env("PORT", port.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let addr: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
    let start = Instant::now();
    let mut child = measured(|| {
        bound_to_us(&mut command)
            .spawn()
            .expect("the program starts")
    });
    while TcpStream::connect(addr).is_err() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "the program does not listen"
        );
        thread::sleep(Duration::from_micros(200));
    }
    let listening = start.elapsed();
    let _ = child.kill(); // it is running
    let _ = child.wait();
    listening.as_secs_f64() * 1000.0
}

/// Builds the program as a deploy does: into an empty directory, and without the packages of the tests. Returns the
/// time in s, and the size of the program in bytes.
fn build() -> (f64, f64) {
    progress("cargo build --release into an empty directory: about a minute");
    let target = tempfile::tempdir().expect("a directory");
    let cargo = env::var_os("CARGO").unwrap_or("cargo".into());
    let start = Instant::now();
    let status = Command::new(cargo)
        .args(["build", "--release", "--quiet", "--target-dir"])
        .arg(target.path())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(status.expect("cargo runs").success(), "the build succeeds");
    let seconds = start.elapsed().as_secs_f64();
    let binary = Path::new("release").join("dynochat");
    let size = fs::metadata(target.path().join(binary))
        .expect("a binary")
        .len();
    (seconds, size as f64)
}
