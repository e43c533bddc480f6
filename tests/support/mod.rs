//! What the tests share: private servers, clients that read like a script, and a checker of the promise.
//!
//! Every test starts its own dyno (the real binary, in an empty environment) and, where it needs one, its own
//! `redis-server` on a free port; both end with the test. Waiting is always for a fact, with a limit; what was
//! seen instead is printed when the limit is over.

// Each test file is a program of its own and uses its own part of this.
#![allow(dead_code, unused_imports, unused_macros)]

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

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::Command;
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

/// How long a test waits for what should come at once. Long, because the machine may be busy: a limit that the
/// contract names is asserted where it matters, with its own figure.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// No limit on talking, for tests that are about something else.
pub const TALKATIVE: (&str, &str) = ("TALK_PER_SECOND", "0");

/// Tests that keep a processor busy take so many of these first; [`heavy`] hands them out in the order of asking.
static PERMITS: Semaphore = Semaphore::const_new(4);

/// Waits for a turn: 1 for a test with a browser, 2 for one with hundreds of clients. Dropping it passes it on.
pub async fn heavy(weight: u32) -> SemaphorePermit<'static> {
    PERMITS.acquire_many(weight).await.expect("never closed")
}

/// What the dynos of a test share: nothing, or a Redis of their own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bus {
    Alone,
    Redis,
}

/// One dyno and, with [`Bus::Redis`], the Redis behind it. Fields end in this order.
pub struct World {
    pub dyno: Dyno,
    pub redis: Option<Redis>,
}

impl World {
    pub async fn start(bus: Bus, vars: &[(&str, &str)]) -> World {
        match bus {
            Bus::Alone => World {
                dyno: Dyno::start(vars).await,
                redis: None,
            },
            Bus::Redis => {
                let redis = Redis::start(&[]).await;
                World {
                    dyno: Dyno::start_on(&redis, vars).await,
                    redis: Some(redis),
                }
            }
        }
    }

    /// A world in which nobody is told to slow down.
    pub async fn talkative(bus: Bus) -> World {
        World::start(bus, &[TALKATIVE]).await
    }
}

/// Turns `async fn case(bus: Bus)` into two tests each: one on the bus within the process, one on Redis. A case that
/// is missing from the list is dead code, which clippy refuses.
macro_rules! on_both_buses {
    ($($case:ident),* $(,)?) => {
        mod alone { $( #[tokio::test] async fn $case() { super::$case($crate::support::Bus::Alone).await } )* }
        mod with_redis { $( #[tokio::test] async fn $case() { super::$case($crate::support::Bus::Redis).await } )* }
    };
}

/// Makes a child end with the test even if that is killed and cannot clean up.
pub fn bound_to_us(command: &mut Command) -> &mut Command {
    use nix::sys::{prctl::set_pdeathsig, signal::Signal};
    // SAFETY: between fork and exec only a system call is made, which is allowed there.
    unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) }
}

/// A port nobody listens on and this process has not given before. Below the range from which the system takes the ports
/// of outgoing connections, so that a server can be started again on the same one; each process begins elsewhere.
pub fn free_port() -> u16 {
    const PORTS: std::ops::Range<u32> = 10_000..32_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(1_009);
    for _ in PORTS {
        let place = begin.wrapping_add(GIVEN.fetch_add(1, Relaxed)) % PORTS.len() as u32;
        let port = (PORTS.start + place) as u16;
        // Bound, but not listening: whoever waits for a server there must not find us.
        let bind = |socket: TcpSocket, addr: SocketAddr| {
            socket.set_reuseaddr(true)?;
            socket.bind(addr)
        };
        let free = match TcpSocket::new_v6() {
            Ok(socket) => bind(socket, (Ipv6Addr::UNSPECIFIED, port).into()),
            Err(_) => TcpSocket::new_v4()
                .and_then(|socket| bind(socket, (Ipv4Addr::UNSPECIFIED, port).into())),
        };
        if free.is_ok() {
            return port;
        }
    }
    panic!("no free port in {PORTS:?}");
}

/// Waits until `probe` finds what it looks for, and gives it back; until then it returns what it saw instead.
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

/// Raises the number of files this process and its children may open to the hard limit, and says whether it reaches.
pub fn need_descriptors(needed: u64) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) =
        getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files can be read");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        .expect("the soft limit may rise to the hard one");
    assert!(
        hard >= needed,
        "this test needs {needed} open files in one process, the hard limit is {hard}: raise it (ulimit -Hn)"
    );
}
