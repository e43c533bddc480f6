//! Shared by all tests: private servers, clients that make a test read like a script, and checks of the promise.
//!
//! Every test starts its own dyno (the real binary, in an empty environment) and, where it needs one, its own
//! `redis-server` on a free port; both end with the test. A test waits for facts, with a time limit; when the time
//! is over, it fails and prints what it saw.

// The tests, the soak and the benchmarks each use a part of this.
#![allow(dead_code, unused_imports, unused_macros)]

pub mod broken_frames;
pub mod check;
pub mod client;
pub mod crowd;
pub mod dyno;
pub mod facts;
pub mod front;
pub mod page;
pub mod proxy;
pub mod raw;
pub mod redis_server;
pub mod server;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;
use tokio::sync::{Semaphore, SemaphorePermit};

pub use client::{Client, Id, cid, token};
pub use crowd::Crowd;
pub use dyno::Dyno;
pub use front::Front;
pub use page::{Page, Router};
pub use raw::Raw;
pub use redis_server::Redis;

/// What most tests use.
pub mod prelude {
    pub use super::client::{Heard, join_frame};
    pub use super::facts::*;
    pub use super::page::Life;
    pub use super::proxy::{Flow, Proxy};
    pub use super::raw::{head, http};
    pub use super::*;
    pub use futures_util::future::join_all;
    pub use nix::sys::signal::Signal;
    pub use serde_json::{Value, json};
    pub use std::time::{Duration, Instant};
    pub use tokio::time::sleep;
    pub const SECOND: Duration = Duration::from_secs(1);
}

/// How long a test waits for something that should come at once. Long, because the machine may be busy: where a limit
/// of the program matters, the test asserts that limit.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// No rate limit on talks.
pub const TALKATIVE: (&str, &str) = ("TALK_PER_SECOND", "0");

/// Permits for tests that keep a processor busy; [`heavy`] gives them out in the order of asking.
static PERMITS: Semaphore = Semaphore::const_new(4);

/// Waits for so many permits: 1 for a test with a browser, 2 for one with hundreds of clients. Dropping gives them back.
pub async fn heavy(weight: u32) -> SemaphorePermit<'static> {
    PERMITS.acquire_many(weight).await.expect("never closed")
}

/// Descriptors for tests that do not reserve theirs.
const UNRESERVED: u32 = 2_000;

/// The hard limit of open files, to which the soft limit is raised, also for child processes; and what of it is free.
static DESCRIPTORS: LazyLock<(u32, Semaphore)> = LazyLock::new(|| {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let files = Resource::RLIMIT_NOFILE;
    let (_, hard) = getrlimit(files).expect("the limit of open files can be read");
    setrlimit(files, hard, hard).expect("the soft limit may rise to the hard one");
    let limit = hard.min(1_000_000) as u32;
    let free = limit.saturating_sub(UNRESERVED);
    (limit, Semaphore::new(free as usize))
});

/// Reserves file descriptors of this process; waits while other tests hold too many. After [`heavy`], if a test needs
/// both. Dropping gives them back.
pub async fn descriptors(needed: u32) -> SemaphorePermit<'static> {
    let (limit, free) = &*DESCRIPTORS;
    assert!(
        needed + UNRESERVED <= *limit,
        "this test needs {needed} open files, and others {UNRESERVED}; the hard limit is {limit}: raise it (ulimit -Hn)"
    );
    free.acquire_many(needed).await.expect("never closed")
}

/// Where the messages of a test are: in the memory of its one dyno, or in a private Redis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Store {
    Memory,
    Redis,
}

/// One dyno and, with [`Store::Redis`], its Redis. Fields are dropped in this order.
pub struct World {
    pub dyno: Dyno,
    pub redis: Option<Redis>,
}

impl World {
    pub async fn start(store: Store, vars: &[(&str, &str)]) -> World {
        if store == Store::Memory {
            let (dyno, redis) = (Dyno::start(vars).await, None);
            return World { dyno, redis };
        }
        let redis = Redis::start(&[]).await;
        let (dyno, redis) = (Dyno::start_on(&redis, vars).await, Some(redis));
        World { dyno, redis }
    }

    /// A world without a rate limit on talks.
    pub async fn talkative(store: Store) -> World {
        World::start(store, &[TALKATIVE]).await
    }
}

/// Makes two tests of each `async fn case(store: Store)`: one without and one with Redis. A case that is missing from the
/// list is dead code, which clippy refuses.
macro_rules! on_both_stores {
    ($($case:ident),* $(,)?) => {
        mod memory { $( #[tokio::test] async fn $case() { super::$case($crate::support::Store::Memory).await } )* }
        mod redis { $( #[tokio::test] async fn $case() { super::$case($crate::support::Store::Redis).await } )* }
    };
}

/// Makes a child process end with the test, also when the test is killed.
pub fn bound_to_us(command: &mut Command) -> &mut Command {
    use nix::sys::{prctl::set_pdeathsig, signal::Signal};
    // SAFETY: between fork and exec only a system call is made, which is allowed there.
    unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) }
}

/// A free port that this process has not returned before. Below the range of ephemeral ports, so that a server can be
/// started again on the same port; each process begins elsewhere in the range.
pub fn free_port() -> u16 {
    const PORTS: std::ops::Range<u32> = 10_000..32_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(1_009);
    for _ in PORTS {
        let place = begin.wrapping_add(GIVEN.fetch_add(1, Relaxed)) % PORTS.len() as u32;
        let port = (PORTS.start + place) as u16;
        // Bound, but not listening: a client that waits for a server on this port must not find this socket.
        let bind = |socket: TcpSocket, ip: IpAddr| {
            socket.set_reuseaddr(true)?;
            socket.bind((ip, port).into())
        };
        let free = match TcpSocket::new_v6() {
            Ok(socket) => bind(socket, Ipv6Addr::UNSPECIFIED.into()),
            Err(_) => TcpSocket::new_v4().and_then(|v4| bind(v4, Ipv4Addr::UNSPECIFIED.into())),
        };
        if free.is_ok() {
            return port;
        }
    }
    panic!("no free port in {PORTS:?}");
}

/// Waits until `probe` returns `Ok`, and returns its value; `Err` carries what it saw instead.
pub async fn eventually<T, S: std::fmt::Debug>(
    what: &str,
    within: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, S>,
) -> T {
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(found) => return found,
            Err(saw) if start.elapsed() > within => {
                panic!("not within {within:?}: {what}; seen instead: {saw:?}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
