//! Pins the measured server to one core and everything else to the other. Starts the measured servers, and reads the
//! kernel's figures for each process.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use crate::peer::Peer;
use crate::support::dyno::single_file;
use crate::support::{Dyno, Redis, Store, TALKATIVE, World, bound_to_us};

/// The core of the server. Redis and the clients share the other one.
const MEASURED: usize = 0;
const DRIVING: usize = 1;

/// The protocol that a server speaks.
#[derive(Clone, Copy)]
pub enum Wire {
    Chat,
    Floor,
    Peer(&'static Peer),
}

/// A measured process: its protocol, address and pid, and its Redis if it is the chat.
pub struct Server {
    pub wire: Wire,
    pub addr: SocketAddr,
    pub pid: u32,
    /// `Some` for the chat.
    pub world: Option<World>,
    floor: Option<Child>,
}

impl Server {
    /// The program itself, without or with a private Redis, without a rate limit.
    pub fn chat(store: Store) -> Server {
        let redis = (store == Store::Redis).then(|| wait_for(Redis::start(&[])));
        let dyno = start_dyno(redis.as_ref());
        Server::of_dyno(dyno, redis)
    }

    /// `examples/single_file.rs` with a private Redis.
    pub fn single_file() -> Server {
        let redis = wait_for(Redis::start(&[]));
        let (program, url) = (single_file(), redis.url());
        let dyno = measured(|| wait_for(Dyno::start_program_on(program, &url, &[])));
        Server::of_dyno(dyno, Some(redis))
    }

    fn of_dyno(dyno: Dyno, redis: Option<Redis>) -> Server {
        let (wire, addr, pid) = (Wire::Chat, dyno.addr(), dyno.pid());
        let world = Some(World { dyno, redis });
        Server {
            wire,
            addr,
            pid,
            world,
            floor: None,
        }
    }

    /// The bare loop of `floor.rs`.
    pub fn floor() -> Server {
        let me = env::current_exe().expect("a running program has a path");
        let mut command = Command::new(me);
        command
            .arg(crate::FLOOR)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = measured(|| {
            bound_to_us(&mut command)
                .spawn()
                .expect("this program starts again")
        });
        let stdout = child.stdout.take().expect("it is piped");
        let mut port = String::new();
        BufReader::new(stdout)
            .read_line(&mut port)
            .expect("the floor prints its port");
        let port = port.trim().parse().expect("a port");
        let (wire, addr, pid) = (Wire::Floor, (Ipv4Addr::LOCALHOST, port).into(), child.id());
        Server {
            wire,
            addr,
            pid,
            world: None,
            floor: Some(child),
        }
    }

    /// Another program, which is running.
    pub fn peer(peer: &'static Peer) -> Server {
        Server {
            wire: Wire::Peer(peer),
            addr: peer.addr,
            pid: peer.pid,
            world: None,
            floor: None,
        }
    }

    pub fn redis(&self) -> &Redis {
        let redis = self.world.as_ref().and_then(|world| world.redis.as_ref());
        redis.expect("this server has a Redis")
    }

    /// CPU time of all threads of the process, in user and kernel mode. The same as in `/proc/PID/stat`, but in
    /// nanoseconds and not in hundredths of a second.
    pub fn cpu(&self) -> Duration {
        let clock = clock_getcpuclockid(Pid::from_raw(self.pid as i32));
        let time = clock.and_then(|clock| clock.now());
        time.expect("a running process has a clock").into()
    }

    /// Resident memory in kB.
    pub fn rss(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kb = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        kb.expect("a running process has a VmRSS line")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(floor) = &mut self.floor {
            let _ = floor.kill(); // it may have ended
            let _ = floor.wait();
        }
    }
}

/// CPU time of a Redis, in µs.
pub fn redis_cpu(redis: &Redis) -> f64 {
    let info: String = redis.cmd(&["INFO", "cpu"]);
    let seconds = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        let seconds = line.and_then(|seconds| seconds.parse::<f64>().ok());
        seconds.expect("Redis counts its CPU time")
    };
    (seconds("used_cpu_sys:") + seconds("used_cpu_user:")) * 1e6
}

/// A dyno on the measured core.
pub fn start_dyno(redis: Option<&Redis>) -> Dyno {
    measured(|| match redis {
        Some(redis) => wait_for(Dyno::start_on(redis, &[TALKATIVE])),
        None => wait_for(Dyno::start(&[TALKATIVE])),
    })
}

/// Runs `start`, which starts a process: the process stays on the measured core.
pub fn measured<T>(start: impl FnOnce() -> T) -> T {
    on(MEASURED..MEASURED + 1, start)
}

/// Runs `run` on all cores.
pub fn anywhere<T>(run: impl FnOnce() -> T) -> T {
    on(0..CpuSet::count(), run)
}

fn on<T>(cores: Range<usize>, run: impl FnOnce() -> T) -> T {
    pin(cores);
    let done = run();
    pin_driver();
    done
}

pub fn pin_driver() {
    pin(DRIVING..DRIVING + 1);
}

/// Pins this thread, and the processes that it starts from now on. Does nothing where there is only one core.
fn pin(mut cores: Range<usize>) {
    let mut set = CpuSet::new();
    let chosen = cores.try_for_each(|core| set.set(core));
    let _ = chosen.and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
}

/// The functions of the tests are async.
pub fn wait_for<T>(what: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().expect("a runtime");
    runtime.block_on(what)
}

/// Processor, cores, kernel and load, printed above the table.
pub fn describe() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "{} cores of {}, Linux {}, load {}",
        cpu.matches("\nprocessor").count() + 1,
        model.map_or("?", |(_, name)| name),
        kernel.trim(),
        load.split(' ').next().unwrap_or("?")
    )
}
